//! The thread that makes the log durable: group commit.

use super::worker::Input;
use crate::disk::FileDisk;
use crate::metrics::Metrics;
use crossbeam_channel::{Receiver, Sender};
use quorate_node::WriteId;
use quorate_storage::wal::Wal;
use quorate_types::{Fault, GroupId, LogWrite};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;

/// A sync slower than this is worth telling the operator about.
const SLOW: Duration = Duration::from_millis(500);
/// When the log is larger than this, groups that hold its oldest segments are asked to let go.
const LOG_BYTES_MAX: u64 = 512 << 20;

/// Writes batches until the worker is gone. Whatever queued up while the disk was busy goes into one
/// append and shares one fdatasync. The first error ends everything: after a failed sync nobody
/// knows what reached the disk (fsyncgate).
pub fn run(
    mut wal: Wal<FileDisk>,
    batches: Receiver<(WriteId, Vec<(GroupId, LogWrite)>)>,
    worker: Sender<Input>,
    metrics: Arc<Metrics>,
) {
    while let Ok((mut newest, mut writes)) = batches.recv() {
        while let Ok((id, more)) = batches.try_recv() {
            newest = id;
            writes.extend(more);
        }
        let begun = Instant::now();
        if let Err(fault) = append(&mut wal, &writes) {
            // The worker may be gone already; then there is nobody left to stop.
            let _ = worker.send(Input::Fault(fault));
            return;
        }
        let took = begun.elapsed();
        metrics.log_sync_seconds.observe(took.as_secs_f64());
        if took > SLOW {
            warn!(milliseconds = took.as_millis() as u64, "slow disk: writing the log took long");
        }
        if worker.send(Input::Persisted(newest)).is_err() {
            return;
        }
        let pinned = wal.pinned(LOG_BYTES_MAX);
        if !pinned.is_empty() {
            let _ = worker.send(Input::ReleaseLog(pinned));
        }
    }
}

fn append(wal: &mut Wal<FileDisk>, writes: &[(GroupId, LogWrite)]) -> Result<(), Fault> {
    wal.append(writes)?;
    wal.sync()
}
