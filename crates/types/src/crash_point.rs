//! Crash points: places in the code at which a test can have the process end as a failure of the power or a kill would end it.
//!
//! A crate that knows of a step names it: `crash_point("log.frame.written")` says that the frame is written by now, and what comes next is not. What ends
//! the process there is not for this crate to know; the shell says it ([`on_crash_point`]), and has the table of all names with what has happened by then
//! (`crash_points.rs` in `quorate`).
//!
//! A release build has none: the function is empty there, and its names are not in the program.

#[cfg(debug_assertions)]
static REACHED: std::sync::OnceLock<fn(&'static str)> = std::sync::OnceLock::new();

/// The step of this name is done, and the next has not begun.
#[cfg(debug_assertions)]
pub fn crash_point(name: &'static str) {
    if let Some(reached) = REACHED.get() {
        reached(name);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn crash_point(_: &'static str) {}

/// From now on, and once in a process, this is told of every crash point that is reached.
#[cfg(debug_assertions)]
pub fn on_crash_point(reached: fn(&'static str)) {
    assert!(REACHED.set(reached).is_ok(), "it is told to one only");
}
