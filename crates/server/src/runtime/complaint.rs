//! Something that can happen thousands of times a second and is worth a line of the log now and then.

use std::time::{Duration, Instant};

/// Counts what happens between two lines.
pub struct Complaint {
    interval: Duration,
    last: Option<Instant>,
    count: u64,
}

impl Complaint {
    /// A line at most so often.
    pub fn every(interval: Duration) -> Self {
        Self { interval, last: None, count: 0 }
    }

    /// Counts one more; how many since the last line, when a line is due.
    pub fn due(&mut self) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| last.elapsed() < self.interval) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}
