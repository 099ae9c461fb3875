//! What came of the operations.

use crate::Failure;
use crate::window::Window;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Thousands of clients with a histogram each would take gigabytes; with few they hardly meet.
const SHARDS: usize = 16;

/// What all clients have counted so far.
pub(crate) struct Tally {
    shards: Vec<Mutex<Shard>>,
    /// Operations that were answered, counting or not: for those who look on.
    pub(crate) answered: AtomicU64,
}

struct Shard {
    /// Nanoseconds, to three digits.
    latencies: Histogram<u64>,
    operations: u64,
    errors: u64,
    unanswered: u64,
    problem: Option<String>,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, Failure> {
        let shard = || -> Result<Mutex<Shard>, Failure> {
            let latencies = Histogram::new(3)?;
            Ok(Mutex::new(Shard { latencies, operations: 0, errors: 0, unanswered: 0, problem: None }))
        };
        let shards = (0..SHARDS).map(|_| shard()).collect::<Result<_, _>>()?;
        Ok(Self { shards, answered: AtomicU64::new(0) })
    }

    fn shard(&self, client: usize) -> std::sync::MutexGuard<'_, Shard> {
        // Whoever panicked while it counted has left numbers behind that are still numbers.
        self.shards[client % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation that was due at a time has succeeded now.
    pub(crate) fn succeeded(&self, client: usize, window: &Window, due: Instant) {
        let now = Instant::now();
        self.answered.fetch_add(1, Ordering::Relaxed);
        let (is_due, is_done) = (window.holds(due), window.holds(now));
        if is_due || is_done {
            let mut shard = self.shard(client);
            shard.operations += u64::from(is_done);
            if is_due {
                // A histogram that grows takes every number.
                let _ = shard.latencies.record(nanos(now - due));
            }
        }
    }

    /// The server said no. That took its time, too: else failing fast, or late, would look like being fast.
    pub(crate) fn failed(&self, client: usize, window: &Window, due: Instant, problem: &str) {
        if window.holds(due) {
            let mut shard = self.shard(client);
            shard.errors += 1;
            let _ = shard.latencies.record(nanos(Instant::now() - due));
            shard.problem.get_or_insert_with(|| problem.to_owned());
        }
    }

    /// There was no answer as long as one was waited for, or the operation never began: it took at least so long.
    pub(crate) fn unanswered(&self, client: usize, window: &Window, due: Instant) {
        if window.holds(due) {
            let mut shard = self.shard(client);
            shard.unanswered += 1;
            let _ = shard.latencies.record(nanos(Instant::now() - due));
        }
    }

    /// The sum. `loops` is how many clients wait for their answers before they ask again, if they do.
    pub(crate) fn measured(
        &self,
        window: &Window,
        ended: Instant,
        loops: Option<usize>,
    ) -> Result<Measured, Failure> {
        let span = ended.min(window.until).saturating_duration_since(window.from);
        let mut measured = Measured {
            span,
            operations: 0,
            errors: 0,
            unanswered: 0,
            problem: None,
            raw: Histogram::new(3)?,
            latencies: Histogram::new(3)?,
        };
        for at in 0..SHARDS {
            let shard = self.shard(at);
            measured.raw.add(&shard.latencies)?;
            measured.operations += shard.operations;
            measured.errors += shard.errors;
            measured.unanswered += shard.unanswered;
            measured.problem = measured.problem.or_else(|| shard.problem.clone());
        }
        let interval = loops.map(|clients| nanos(span) * clients as u64 / measured.operations.max(1));
        measured.latencies = match interval {
            Some(interval) => measured.raw.clone_correct(interval),
            None => measured.raw.clone(),
        };
        Ok(measured)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Measured {
    /// How long it was measured.
    pub span: Duration,
    /// Operations that succeeded in that time.
    pub operations: u64,
    /// Operations that were due in that time and that the server refused.
    pub errors: u64,
    /// Those that it did not answer at all, or that never began.
    pub unanswered: u64,
    /// The first of the errors, in words.
    pub problem: Option<String>,
    /// Nanoseconds, of what was due in that time, as the clients felt them.
    pub raw: Histogram<u64>,
    /// The same, corrected for what clients omitted while they waited.
    pub latencies: Histogram<u64>,
}

impl Measured {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.span.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// How long all but so small a part took at most, in microseconds.
    pub fn micros(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    /// How long the longest took, in microseconds.
    pub fn micros_max(&self) -> f64 {
        self.raw.max() as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Stop, Times};

    fn second() -> Window {
        let times = Times { warm_up: Duration::from_secs(1), duration: Duration::from_secs(1) };
        Window::open(times, Stop::default())
    }

    #[tokio::test(start_paused = true)]
    async fn what_begins_in_the_window_and_ends_after_it_is_a_latency_and_no_operation() {
        let (tally, window) = (Tally::new().unwrap(), second());
        tokio::time::advance(Duration::from_millis(1_900)).await;
        let due = Instant::now();
        tally.succeeded(0, &window, due);
        tokio::time::advance(Duration::from_millis(500)).await;
        tally.succeeded(1, &window, due);
        let measured = tally.measured(&window, Instant::now(), None).unwrap();
        assert_eq!((measured.operations, measured.raw.len()), (1, 2));
        assert!(measured.micros_max() >= 499_000.0);
        assert_eq!(measured.span, Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_in_a_closed_loop_counts_as_often_as_it_would_have_been_felt() {
        let (tally, window) = (Tally::new().unwrap(), second());
        tokio::time::advance(Duration::from_secs(1)).await;
        // Fifty answers of a millisecond, then one of half a second.
        for wait in std::iter::repeat_n(1, 50).chain([500]) {
            let due = Instant::now();
            tokio::time::advance(Duration::from_millis(wait)).await;
            tally.succeeded(0, &window, due);
        }
        let measured = tally.measured(&window, window.until, Some(1)).unwrap();
        assert!(measured.raw.value_at_quantile(0.5) < 2_000_000);
        // One client, 51 operations a second: those of every 20 ms are missing.
        assert_eq!(measured.latencies.len(), 51 + 24);
    }
}
