//! Making the log durable: group commit on a thread of its own, or at once where nobody would share the sync.

use super::inbox::Sender;
use super::worker::Input;
use crate::disk::FileDisk;
use crate::metrics::Metrics;
use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use quorate_node::WriteId;
use quorate_storage::wal::Wal;
use quorate_types::{Fault, GroupId, LogWrite, crash_point};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::warn;

/// A sync slower than this is worth telling the operator about.
const SLOW: Duration = Duration::from_millis(500);
/// When the log is larger than this, groups that hold its oldest segments are asked to let go: a group that is seldom written would keep all that others
/// have written since, on the disk and to be read at every start.
const LOG_BYTES_MAX: u64 = 96 << 20;
/// What a frame takes besides its entries, generously.
const ROOM: u64 = 64 << 10;
/// On a slower disk the worker never waits for a sync itself: everything else would wait with it.
const FAST: Duration = Duration::from_millis(2);

/// The log, for whoever has the next batch.
pub struct LogWriter {
    wal: Mutex<Wal<FileDisk>>,
    metrics: Arc<Metrics>,
    /// Running mean of what a write took, in microseconds.
    usual_micros: AtomicU64,
    /// Bytes left in the newest segment.
    room: AtomicU64,
}

impl LogWriter {
    /// Over an open log.
    pub fn new(wal: Wal<FileDisk>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            wal: Mutex::new(wal),
            metrics,
            usual_micros: AtomicU64::new(0),
            room: AtomicU64::new(0),
        })
    }

    /// Whether so many bytes would be written quickly: as writes lately were, and without beginning a segment.
    pub fn is_fast(&self, bytes: usize) -> bool {
        self.usual_micros.load(Ordering::Relaxed) < FAST.as_micros() as u64
            && self.room.load(Ordering::Relaxed) > 2 * bytes as u64 + ROOM
    }

    /// Appends and syncs. The first error ends everything: after a failed sync nobody knows what reached the
    /// disk (fsyncgate).
    pub fn write(&self, writes: &[(GroupId, LogWrite)]) -> Result<(), Fault> {
        let begun = Instant::now();
        {
            let mut wal = self.wal.lock();
            wal.append(writes)?;
            wal.sync()?;
            self.room.store(wal.room(), Ordering::Relaxed);
        }
        let took = begun.elapsed();
        self.metrics.log_sync_seconds.observe(took.as_secs_f64());
        if took > SLOW {
            warn!(milliseconds = took.as_millis() as u64, "slow disk: writing the log took long");
        }
        let usual = self.usual_micros.load(Ordering::Relaxed);
        self.usual_micros.store((usual * 7 + took.as_micros() as u64) / 8, Ordering::Relaxed);
        Ok(())
    }

    /// Groups that hold old segments of a log that has grown large.
    pub fn pinned(&self) -> Vec<GroupId> {
        self.wal.lock().pinned(LOG_BYTES_MAX)
    }
}

/// Writes batches until the worker is gone. Whatever queued up while the disk was busy goes into one
/// append and shares one fdatasync.
pub fn run(log: &LogWriter, batches: &Receiver<(WriteId, Vec<(GroupId, LogWrite)>)>, worker: &Sender) {
    while let Ok((mut newest, mut writes)) = batches.recv() {
        while let Ok((id, more)) = batches.try_recv() {
            newest = id;
            writes.extend(more);
        }
        crash_point("log.batch.taken");
        if let Err(fault) = log.write(&writes) {
            // The worker may be gone already; then there is nobody left to stop.
            let _ = worker.send(Input::Fault(fault));
            return;
        }
        crash_point("log.batch.durable");
        if worker.send(Input::Persisted(newest)).is_err() {
            return;
        }
        crash_point("log.batch.told");
        let pinned = log.pinned();
        if !pinned.is_empty() {
            let _ = worker.send(Input::ReleaseLog(pinned));
        }
    }
}
