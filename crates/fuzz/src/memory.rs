//! Counts what a thread has allocated, so that a length field that is believed is noticed: a reader may take memory for what it was given, not for
//! what that claims.
//!
//! Up to [`HARD_BYTES`] it is let through and told after the execution. Beyond that the machine would suffer: the input is saved and the process ends.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What one execution may have in use at a time, beside as much as its input has.
pub const SPARE_BYTES: usize = 64 << 20;
/// With so much the process ends.
const HARD_BYTES: isize = 2 << 30;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    /// What to do at [`HARD_BYTES`]; nothing outside of an execution.
    static LAST_WORDS: Cell<Option<fn(usize) -> !>> = const { Cell::new(None) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn taken(bytes: usize) {
    // Only a thread that is ending has no such places any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get().saturating_add_unsigned(bytes));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
        if live.get() > HARD_BYTES
            && let Ok(Some(last_words)) = LAST_WORDS.try_with(Cell::take)
        {
            last_words(bytes);
        }
    });
}

fn given_back(bytes: usize) {
    let _ = LIVE.try_with(|live| live.set(live.get().saturating_sub_unsigned(bytes)));
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
#[allow(unsafe_code)] // There is no other way to count allocations.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        given_back(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Carries out `work`, and says how many bytes it had in use at most.
pub fn measured<T>(last_words: fn(usize) -> !, work: impl FnOnce() -> T) -> (T, usize) {
    LIVE.set(0);
    PEAK.set(0);
    LAST_WORDS.set(Some(last_words));
    let outcome = work();
    LAST_WORDS.set(None);
    (outcome, PEAK.get().unsigned_abs())
}
