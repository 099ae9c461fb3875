//! What waits for the worker.
//!
//! Whoever sends never waits; what sends is bounded (clients by the gateway, peers by the transport, the disk by the worker). The
//! worker takes all that has come at once: that is what a round of it shares.

use super::worker::Input;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

#[derive(Default)]
struct Shared {
    inputs: Mutex<VecDeque<Input>>,
    waiting: AtomicUsize,
    is_closed: AtomicBool,
    arrived: Notify,
}

/// To the worker; clones are the same.
#[derive(Clone)]
pub struct Sender(Arc<Shared>);

/// The worker's end.
pub struct Inbox(Arc<Shared>);

/// The worker has stopped.
#[derive(Debug)]
pub struct Closed;

/// Both ends.
pub fn inbox() -> (Sender, Inbox) {
    let shared = Arc::<Shared>::default();
    (Sender(shared.clone()), Inbox(shared))
}

impl Sender {
    /// Leaves it for the worker. An error says that nobody will ever look at it.
    pub fn send(&self, input: Input) -> Result<(), Closed> {
        let mut inputs = self.0.inputs.lock();
        // Looked at with the lock held: what is left before the end is dropped by it, and with it who waits for an answer is told.
        if self.0.is_closed.load(Ordering::Relaxed) {
            return Err(Closed);
        }
        inputs.push_back(input);
        let count = inputs.len();
        self.0.waiting.store(count, Ordering::Relaxed);
        drop(inputs);
        if count == 1 {
            self.0.arrived.notify_one();
        }
        Ok(())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inbox {
    /// Returns when something may be there. Others who have this thread come first, also when there is: what they send goes into the same round.
    pub async fn arrived(&self) {
        if self.is_empty() {
            self.0.arrived.notified().await;
        } else {
            tokio::task::yield_now().await;
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) == 0
    }

    /// All that waits, in order, into an empty list.
    pub fn take(&self, into: &mut VecDeque<Input>) {
        debug_assert!(into.is_empty(), "what was taken is dealt with first");
        let mut inputs = self.0.inputs.lock();
        std::mem::swap(&mut *inputs, into);
        self.0.waiting.store(0, Ordering::Relaxed);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let left = {
            let mut inputs = self.0.inputs.lock();
            self.0.is_closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *inputs)
        };
        drop(left);
    }
}
