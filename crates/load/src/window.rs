//! When operations count.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// So long an operation that began while it counted may take longer than that.
const GRACE: Duration = Duration::from_secs(10);
/// And so long when somebody stops the load, who waits.
const GRACE_STOPPED: Duration = Duration::from_secs(2);

/// How long a load lasts.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Before anything counts, so that connections and caches are warm.
    pub warm_up: Duration,
    /// How long operations count.
    pub duration: Duration,
}

/// Ends a load before its time; what was measured until then counts. Clones are the same.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stop {
    /// Ends it.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether somebody has.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when somebody has.
    pub async fn stopped(&self) {
        let mut told = self.0.subscribe();
        // The sender lives as long as we do: no error comes of it.
        let _ = told.wait_for(|is_stopped| *is_stopped).await;
    }
}

/// From when to when operations count.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    pub(crate) stop: Stop,
}

impl Window {
    /// Begins after the warming up.
    pub(crate) fn open(times: Times, stop: Stop) -> Self {
        let from = Instant::now() + times.warm_up;
        Self { from, until: from + times.duration, stop }
    }

    /// Whether nothing is to be begun any more.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.until || self.stop.is_stopped()
    }

    /// Whether what is due, or begins, then counts.
    pub(crate) fn holds(&self, moment: Instant) -> bool {
        (self.from..self.until).contains(&moment)
    }

    /// Returns when nothing is to be begun any more.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = tokio::time::sleep_until(self.until) => {}
            () = self.stop.stopped() => {}
        }
    }

    /// Returns when no answer is waited for any more.
    pub(crate) async fn closed(&self) {
        self.over().await;
        tokio::time::sleep(if self.stop.is_stopped() { GRACE_STOPPED } else { GRACE }).await;
    }
}
