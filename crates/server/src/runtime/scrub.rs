//! The scrub: reads all that is stored, slowly and again and again, so that damage is found while other nodes have what it spoilt.
//!
//! Reading a row is checking it twice, by the checksum of its block and by its own seal; no more is done with it.

use super::inbox::Sender;
use super::worker::Input;
use crate::engine::DiskEngine;
use parking_lot::{Condvar, Mutex};
use quorate_mvcc::engine::{Read, Table};
use quorate_mvcc::layout;
use quorate_types::{Bytes, Fault};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info};

/// Read at a time: no view of the store is held for longer, and no pause lasts long.
const SECTION_BYTES: u64 = 1 << 20;
/// From the beginning of a pass to that of the next, unless one takes longer.
const PASS_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How fast it reads.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Bytes a second; 0 is not at all.
    pub usual: u64,
    /// The first pass is not slowed.
    pub is_first_urgent: bool,
}

/// Stops the scrub when it is dropped.
pub struct Scrubbing(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Scrubbing {
    fn drop(&mut self) {
        let (is_over, changed) = &*self.0;
        *is_over.lock() = true;
        changed.notify_all();
    }
}

/// Makes a scrub, and what stops it.
pub fn new(engine: DiskEngine, worker: Sender, rate: Rate) -> (Scrub, Scrubbing) {
    let stop = Arc::new((Mutex::new(false), Condvar::new()));
    (Scrub { engine, worker, rate, stop: Arc::clone(&stop) }, Scrubbing(stop))
}

/// What the thread does.
pub struct Scrub {
    engine: DiskEngine,
    worker: Sender,
    rate: Rate,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

/// What one pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pass {
    rows: u64,
    bytes: u64,
}

impl Scrub {
    /// Runs until it is stopped, or has found damage: then the store is given up, all of it.
    pub fn run(&self) {
        let mut is_urgent = self.rate.is_first_urgent;
        while self.rate.usual > 0 || is_urgent {
            let begun = Instant::now();
            let rate = if is_urgent { None } else { Some(self.rate.usual) };
            match self.pass(rate) {
                Ok(Some(Pass { rows, bytes })) => {
                    let seconds = begun.elapsed().as_secs_f64();
                    if is_urgent {
                        info!(rows, bytes, seconds, "all that is stored was read, and makes sense");
                    } else {
                        debug!(rows, bytes, seconds, "all that is stored was read, and makes sense");
                    }
                }
                Ok(None) => return,
                Err(fault) => {
                    // The worker may have stopped for it already.
                    let input = if fault.is_damage() { Input::Suspect(fault) } else { Input::Fault(fault) };
                    let _ = self.worker.send(input);
                    return;
                }
            }
            is_urgent = false;
            if self.rate.usual > 0 && self.waits(PASS_INTERVAL.saturating_sub(begun.elapsed())) {
                return;
            }
        }
    }

    /// Reads everything once, at this rate; nothing if it was stopped.
    fn pass(&self, rate: Option<u64>) -> Result<Option<Pass>, Fault> {
        let mut pass = Pass::default();
        for table in Table::ALL {
            let mut after = None;
            loop {
                let begun = Instant::now();
                let before = pass.bytes;
                after = self.section(table, after, &mut pass)?;
                let due = rate.map_or(Duration::ZERO, |rate| {
                    Duration::from_secs_f64((pass.bytes - before) as f64 / rate as f64)
                });
                if self.waits(due.saturating_sub(begun.elapsed())) {
                    return Ok(None);
                }
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(Some(pass))
    }

    /// Reads some rows behind this one; returns the last of them if there are more.
    fn section(&self, table: Table, after: Option<Bytes>, pass: &mut Pass) -> Result<Option<Bytes>, Fault> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let end = pass.bytes + SECTION_BYTES;
        for row in self.engine.scan(table, (start, Bound::Unbounded)) {
            let (key, value) = row?;
            pass.rows += 1;
            pass.bytes += (key.len() + value.len()) as u64;
            layout::open(table, &key, value)?;
            if pass.bytes >= end {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Waits for so long; whether it was stopped.
    fn waits(&self, time: Duration) -> bool {
        let (is_over, changed) = &*self.stop;
        let mut is_over = is_over.lock();
        if !*is_over {
            changed.wait_for(&mut is_over, time);
        }
        *is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::inbox::inbox;
    use quorate_mvcc::engine::{Batch, Engine};
    use std::collections::VecDeque;

    fn store(rows: u32) -> (tempfile::TempDir, DiskEngine) {
        let dir = tempfile::tempdir().unwrap();
        let engine = DiskEngine::open(dir.path(), 1 << 20).unwrap();
        let mut batch = Batch::default();
        for row in 0..rows {
            let key = Bytes::from(row.to_be_bytes().to_vec());
            let value = layout::seal(Table::Version, &key, vec![7; 10_000]);
            batch.put(Table::Version, key, value);
        }
        engine.write(batch).unwrap();
        (dir, engine)
    }

    #[test]
    fn every_row_is_read_and_damage_is_told_once() {
        const ROWS: u32 = 400;
        let (_dir, engine) = store(ROWS);
        let (sender, inputs) = inbox();
        let rate = Rate { usual: 0, is_first_urgent: true };
        let (scrub, _scrubbing) = new(engine.clone(), sender, rate);
        let pass = scrub.pass(None).unwrap().unwrap();
        assert_eq!(pass.rows, u64::from(ROWS));
        assert!(pass.bytes > 3 * SECTION_BYTES, "in several sections: {pass:?}");
        scrub.run();
        assert!(inputs.is_empty());
        // The last one, with the seal of another.
        let mut batch = Batch::default();
        let (key, other) = ((ROWS - 1).to_be_bytes().to_vec(), Bytes::from_static(b"other"));
        batch.put(Table::Version, key, layout::seal(Table::Version, &other, vec![7; 10]));
        engine.write(batch).unwrap();
        scrub.run();
        let mut told = VecDeque::new();
        inputs.take(&mut told);
        let told = Vec::from(told);
        assert!(matches!(&told[..], [Input::Suspect(fault)] if fault.is_damage()), "{} inputs", told.len());
    }

    #[test]
    fn it_ends_when_it_is_told_to_however_slow_it_is() {
        let (_dir, engine) = store(400);
        let (sender, inputs) = inbox();
        let (scrub, scrubbing) = new(engine, sender, Rate { usual: 1, is_first_urgent: false });
        let thread = std::thread::spawn(move || scrub.run());
        drop(scrubbing);
        thread.join().unwrap();
        assert!(inputs.is_empty());
    }
}
