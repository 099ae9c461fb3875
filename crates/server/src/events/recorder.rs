//! The thread that writes events down, and the way to it.

use super::journal::{FILE_BYTES_MAX, Journal, Page};
use super::telling::Telling;
use super::{Kind, Record, Told};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tracing::warn;

/// How long something waits for others of its kind: what happens to many groups at once is one event.
const FOLD: Duration = Duration::from_millis(200);
/// What waits to be put into words; beyond it things are left out, and counted. With 1024 partitions a few elections of all of them.
const WAITING_MAX: usize = 16_384;
/// Different events that wait to be folded; beyond it they are written at once.
const FOLDED_MAX: usize = 256;

/// The way to the events of this node.
#[derive(Clone)]
pub struct Recorder {
    queue: Sender<(u64, Option<Told>)>,
    left_out: Arc<AtomicU64>,
    journal: Option<Arc<Journal>>,
}

/// What its thread works with.
pub struct Work {
    queue: Receiver<(u64, Option<Told>)>,
    left_out: Arc<AtomicU64>,
    journal: Option<Arc<Journal>>,
    telling: Telling,
}

impl Recorder {
    /// Opens the journal in this folder. A node whose journal cannot be used goes on without one.
    pub fn open(folder: &Path, mut telling: Telling) -> (Self, Work) {
        let journal = match Journal::open(folder, FILE_BYTES_MAX) {
            Ok((journal, last)) => {
                telling.last_run_ended_with(last.as_ref());
                Some(Arc::new(journal))
            }
            Err(error) => {
                warn!(%error, folder = %folder.display(), "events are not kept: the journal cannot be opened");
                None
            }
        };
        let (queue, waiting) = bounded(WAITING_MAX);
        let left_out = Arc::<AtomicU64>::default();
        let work = Work { queue: waiting, left_out: left_out.clone(), journal: journal.clone(), telling };
        (Self { queue, left_out, journal }, work)
    }

    /// Tells of something that happens now. Never waits.
    pub fn tell(&self, told: Told) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send((now(), Some(told))) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nothing is told after this: what waits is written down, and the thread ends.
    pub fn close(&self) {
        // One that has no room for this has no time for it, either: the process ends without it.
        let _ = self.queue.try_send((now(), None));
    }

    /// Some events of this node, oldest first; reads files. `None` if it keeps none.
    pub fn read(&self, after: u64, since: u64, limit: usize) -> Option<std::io::Result<Page>> {
        Some(self.journal.as_ref()?.read(after, since, limit))
    }
}

impl Work {
    /// Until it is closed, or nobody is left who could tell something.
    pub fn run(mut self) {
        let mut waiting: Vec<Record> = Vec::new();
        let mut since = Instant::now();
        loop {
            let told = if waiting.is_empty() {
                self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.queue.recv_deadline(since + FOLD)
            };
            let is_last = match told {
                Ok((at, Some(told))) => {
                    if waiting.is_empty() {
                        since = Instant::now();
                    }
                    self.telling.tell(at, told).into_iter().for_each(|record| fold(&mut waiting, record));
                    false
                }
                Ok((_, None)) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if is_last || waiting.len() >= FOLDED_MAX || since.elapsed() >= FOLD {
                self.write(&mut waiting);
            }
            if is_last {
                return;
            }
        }
    }

    fn write(&mut self, waiting: &mut Vec<Record>) {
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            let what = format!("{left_out} events of {} were not written down", self.telling.own_name());
            waiting.push(Record::new(now(), Kind::Process, what, "too many at once"));
        }
        let records = std::mem::take(waiting);
        let Some(journal) = self.journal.as_ref().filter(|_| !records.is_empty()) else { return };
        if let Err(error) = journal.append(records) {
            warn!(%error, "events could not be written down");
        }
    }
}

/// What happens to another group in the same way becomes part of what is there.
fn fold(waiting: &mut Vec<Record>, record: Record) {
    if !waiting.iter_mut().any(|other| other.takes(&record)) {
        waiting.push(record);
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Group;
    use super::*;

    #[test]
    fn what_happens_to_many_groups_is_one_event() {
        let leads = |what: &str, why: &str, partition| {
            let group = Group("default".into(), partition, Some(7));
            Record::new(1, Kind::Election, what, why).of(group)
        };
        let mut waiting = Vec::new();
        for partition in [0, 1, 2, 1] {
            fold(&mut waiting, leads("n1 leads {}", "n2 is lost", partition));
        }
        fold(&mut waiting, leads("n3 leads {}", "n2 is lost", 3));
        fold(&mut waiting, leads("n1 leads {}", "", 4));
        let partitions = |record: &Record| record.groups.iter().map(|group| group.1).collect::<Vec<_>>();
        let folded: Vec<_> = waiting.iter().map(partitions).collect();
        assert_eq!(folded, [vec![0, 1, 2], vec![3], vec![4]]);
    }
}
