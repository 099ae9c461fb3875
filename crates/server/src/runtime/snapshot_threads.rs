//! Snapshots are read and written beside the worker, each on a thread of its own; forgotten history is removed where they are written.
//!
//! Both have a low priority: those that serve clients go first, and what is not read need not be sent, taken in or stored. What is removed is removed some rows at a time, lest those who write wait
//! for a lock that somebody has who does not get to run.
//!
//! What is written is bounded by what the store takes in: a write to a store that is behind waits in it, whoever it is for, and the
//! worker's must not be the one. So this thread waits before, but not for ever: as long as clients write all that the store takes, it is behind, and neither would forgotten
//! history go nor a replica become whole. What it has written is synced in parts, so that the last sync has no more to write than one of these; not in many, for each is a file that is merged.

use super::inbox::Sender;
use super::worker::Input;
use crate::engine::DiskEngine;
use crossbeam_channel::Receiver;
use quorate_mvcc::engine::Engine;
use quorate_node::Errand;
use std::time::{Duration, Instant};

/// Between two looks at a store that is behind.
const BEHIND: Duration = Duration::from_millis(5);
/// What has waited so long is done all the same: so there are four steps a second, in each of which some history is removed or a chunk written.
const BEHIND_MAX: Duration = Duration::from_millis(250);
/// After so many writes, some 64 MiB of a snapshot, the store is synced.
const WRITES_PER_SYNC: u32 = 128;

fn wait_while(is_behind: impl Fn() -> bool) {
    let begun = Instant::now();
    while is_behind() && begun.elapsed() < BEHIND_MAX {
        std::thread::sleep(BEHIND);
    }
}

/// Runs errands until the worker is gone.
pub fn run(engine: &DiskEngine, errands: &Receiver<Errand<DiskEngine>>, worker: &Sender) {
    let mut unsynced: u32 = 0;
    while let Ok(errand) = errands.recv() {
        if errand.is_write() {
            wait_while(|| engine.is_behind());
            unsynced += u32::from(errand.is_large_write());
        }
        let done = errand.run();
        if unsynced >= WRITES_PER_SYNC {
            unsynced = 0;
            if let Err(fault) = engine.flush() {
                // The worker may be gone already; then there is nobody left to stop.
                let _ = worker.send(Input::Fault(fault));
                return;
            }
        }
        if worker.send(Input::ErrandDone(done)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_store_that_is_behind_all_the_time_is_not_waited_for_for_ever() {
        let looks = Cell::new(0);
        let look = |answer| {
            looks.set(looks.get() + 1);
            answer
        };
        wait_while(|| look(false));
        assert_eq!(looks.take(), 1, "nobody waits for one that is not behind");
        wait_while(|| look(true));
        assert!(looks.get() > 0);
    }
}
