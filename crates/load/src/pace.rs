//! When a client's next operation is due.

use std::time::Duration;
use tokio::time::Instant;

/// One client's schedule.
pub(crate) struct Pace {
    /// Between two operations of this client, if they are due at times of their own.
    gap: Option<Duration>,
    next: Instant,
}

impl Pace {
    /// For one of so many clients that share a rate. They take turns.
    pub(crate) fn new(rate: Option<f64>, client: usize, clients: usize, start: Instant) -> Self {
        let Some(rate) = rate.filter(|rate| *rate > 0.0) else {
            return Self { gap: None, next: start };
        };
        let gap = Duration::from_secs_f64(clients as f64 / rate);
        Self { gap: Some(gap), next: start + gap.mul_f64(client as f64 / clients as f64) }
    }

    /// Whether operations are due at times of their own, whatever became of those before.
    pub(crate) fn is_open(&self) -> bool {
        self.gap.is_some()
    }

    /// Waits until the next is due, and says from when it counts.
    ///
    /// A client that comes too late, because its last answer did, says when it should have come. One that had to wait says when it woke: timers are a
    /// millisecond late, and that is not the server's time.
    pub(crate) async fn next(&mut self) -> Instant {
        let now = Instant::now();
        let Some(gap) = self.gap else { return now };
        let due = self.next;
        self.next += gap;
        if due <= now {
            return due;
        }
        tokio::time::sleep_until(due).await;
        Instant::now()
    }

    /// What was due before `until` and never began.
    pub(crate) fn missed(&mut self, until: Instant) -> Vec<Instant> {
        let Some(gap) = self.gap else { return Vec::new() };
        let mut missed = Vec::new();
        while self.next < until && missed.len() < MISSED_MAX {
            missed.push(self.next);
            self.next += gap;
        }
        missed
    }
}

/// So many operations that never began are counted of a client; more say nothing new.
const MISSED_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clients_share_a_rate_and_take_turns() {
        let start = Instant::now();
        let mut due = Vec::new();
        for client in 0..2 {
            let mut pace = Pace::new(Some(4.0), client, 2, start);
            due.extend(pace.missed(start + Duration::from_secs(1)));
        }
        due.sort();
        let millis: Vec<u128> = due.iter().map(|due| (*due - start).as_millis()).collect();
        assert_eq!(millis, [0, 250, 500, 750]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_late_counts_from_when_it_was_due() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(10.0), 0, 1, start);
        assert_eq!(pace.next().await, start);
        // The answer takes half a second: four more were due meanwhile.
        tokio::time::advance(Duration::from_millis(450)).await;
        for late in [100, 200, 300, 400] {
            assert_eq!(pace.next().await, start + Duration::from_millis(late));
        }
        assert!(pace.next().await >= start + Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_begins_when_it_is_asked() {
        let mut pace = Pace::new(None, 0, 1, Instant::now());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(pace.next().await, Instant::now());
        assert!(pace.missed(Instant::now() + Duration::from_secs(9)).is_empty());
    }
}
