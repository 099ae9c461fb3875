//! Which edges of the code an execution took, where the build counts them.
//!
//! LLVM can put a counter on each edge, also in stable Rust (`-C passes=sancov-module`); `crates/fuzz/covered` builds our own crates so. The counters are
//! one run of bytes, of which every part of the program tells before it begins. In an ordinary build there are none, and nothing is covered.

use std::sync::OnceLock;

/// Where the counters begin, and how many there are.
static COUNTERS: OnceLock<(usize, usize)> = OnceLock::new();

/// Called by the program itself before it begins, once for each part; the linker has put all counters behind each other.
///
/// # Safety
/// Everything from `start` to `end` is counters, for as long as the program runs.
#[allow(unsafe_code)] // It is called by the name that LLVM knows.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    COUNTERS.get_or_init(|| (start as usize, end as usize - start as usize));
}

/// Counters that are looked at together.
const PART: usize = 256;

/// What a campaign has seen.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Of each edge, in which orders of magnitude it was taken: a bit for each.
    seen: Vec<u8>,
    edges: usize,
}

impl Coverage {
    /// Whether edges are counted in this build.
    pub fn is_counted() -> bool {
        COUNTERS.get().is_some()
    }

    /// Edges that were taken so far.
    pub fn edges(&self) -> usize {
        self.edges
    }

    /// Takes in what was counted since the last call; whether there is anything new.
    pub fn take(&mut self) -> bool {
        let Some((start, length)) = COUNTERS.get().copied() else { return false };
        self.seen.resize(length, 0);
        // SAFETY: as promised to the function above. Another thread may count at the same time, which costs a count.
        #[allow(unsafe_code)]
        let counters = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) };
        let mut is_new = false;
        for (counters, seen) in counters.chunks_mut(PART).zip(self.seen.chunks_mut(PART)) {
            // Nearly all of them are nothing, and compared in parts that is seen fast.
            if *counters == [0; PART][..counters.len()] {
                continue;
            }
            for (counter, seen) in counters.iter_mut().zip(seen) {
                let times = std::mem::take(counter);
                let bit = times.checked_ilog2().map_or(0, |magnitude| 1 << magnitude);
                if bit & !*seen != 0 {
                    self.edges += usize::from(*seen == 0);
                    *seen |= bit;
                    is_new = true;
                }
            }
        }
        is_new
    }
}
