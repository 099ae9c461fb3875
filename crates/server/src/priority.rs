//! Which threads go first when there are more than processors.
//!
//! A low priority alone is not enough: it says what part of a processor a thread gets, but Linux leaves the processor to whoever has it for some milliseconds, also when somebody more important wakes
//! up (`RUN_TO_PARITY` of its EEVDF scheduler), and an answer takes several wakings. So a thread that keeps house also asks every few rows whether somebody else wants to go on.

use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much processor time a thread that keeps house leaves to others (`setpriority(2)`): against one that works for clients it gets a tenth.
const NICE: i32 = 10;
/// Rows between two questions: some hundred microseconds.
const ROWS: u32 = 64;
/// Of so much time
const WINDOW: Duration = Duration::from_millis(100);
/// this part is its own: as long as it had less it does not ask, for who asks on a busy machine loses his turn for long.
const OWN_PART: u32 = 10;

/// Whoever serves everybody ([`serves`]) may be waiting for somebody who keeps house when one thing takes him so long.
const PATIENCE: Duration = Duration::from_millis(20);

/// Since when he is at it, in nanoseconds of the system's clock; 0 while he waits for something to do.
static AT_WORK_SINCE: AtomicU64 = AtomicU64::new(0);

/// A thread that keeps house.
struct Turn {
    rows: u32,
    since: Instant,
    /// What of a processor it had had then.
    had: Duration,
}

thread_local! {
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// Gives this thread a low priority: what it does has time, and those who work for clients have not. What it holds a lock for is to be short all the same, since whoever wants that lock
/// then waits for all that goes first, too. (Who writes waits for a whole layer where two are full. With three nodes on two
/// processors that 256 clients keep busy that costs nothing; where something else takes all processors, flushing has a tenth of one.)
pub fn yield_to_others() {
    // On Linux this is the thread alone. Where it is not allowed it works with the priority of the others.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
    TURN.set(Some(Turn::new()));
}

/// Whether this thread is one of those that yield.
pub(crate) fn keeps_house() -> bool {
    TURN.with_borrow(Option::is_some)
}

/// Said by whoever serves everybody, before and after each thing that he does: while that takes long nobody takes his time.
pub(crate) fn serves(is_at_work: bool) {
    let since = if is_at_work { now().max(1) } else { 0 };
    AT_WORK_SINCE.store(since, Ordering::Relaxed);
}

/// Whether this thread is one of those that yield, and nobody is likely to be waiting for it.
pub(crate) fn has_time() -> bool {
    keeps_house() && !is_awaited()
}

fn is_awaited() -> bool {
    let since = AT_WORK_SINCE.load(Ordering::Relaxed);
    since > 0 && now().saturating_sub(since) > PATIENCE.as_nanos() as u64
}

/// Nanoseconds of a clock that is cheap and as fine as the system's ticks.
fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::try_from(now).map_or(0, |now| now.as_nanos() as u64)
}

/// A row was dealt with. Lets others go on every so often, if this thread is one of those that yield. It may have a lock that others want: then it is their time, too, but no more than ten times
/// what the work takes.
pub(crate) fn give_way() {
    TURN.with_borrow_mut(|turn| {
        if let Some(turn) = turn {
            turn.rows += 1;
            if turn.rows >= ROWS {
                turn.rows = 0;
                if turn.has_had_its_part() && !is_awaited() {
                    std::thread::yield_now();
                }
            }
        }
    });
}

impl Turn {
    fn new() -> Self {
        Self { rows: 0, since: Instant::now(), had: processor_time() }
    }

    fn has_had_its_part(&mut self) -> bool {
        let (elapsed, had) = (self.since.elapsed(), processor_time());
        if elapsed >= WINDOW {
            (self.since, self.had) = (self.since + elapsed, had);
            return false;
        }
        had.saturating_sub(self.had) * OWN_PART >= elapsed
    }
}

/// What of a processor this thread has had.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_house_has_time_until_somebody_is_held_up() {
        assert!(!has_time(), "this thread does not keep house");
        let thread = std::thread::spawn(|| {
            yield_to_others();
            assert!(has_time());
            serves(true);
            while has_time() {
                std::thread::yield_now();
            }
            serves(false);
            assert!(has_time());
        });
        thread.join().unwrap();
    }
}
