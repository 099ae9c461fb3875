//! Has the disk write files while they grow, and slowly.
//!
//! A file of rows is made durable when it is complete: up to 64 MiB at once, which syncs of the log wait behind, and with them everybody who writes. So a thread syncs files that are growing every
//! few milliseconds, as long as some are. After one that failed nobody knows what is on the disk, and a later one need not say so again: so whoever wrote meanwhile is told.
//!
//! Threads that keep house ([`crate::priority`]) do not get ahead of that by much, unless they are waited for, or clients write much: so some 50 MiB/s are written, fewer where the disk is slow, and in between the
//! disk is the log's.

use crate::priority::{give_way, has_time};
use parking_lot::{Condvar, Mutex};
use quorate_types::Fault;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_millis(10);
/// What a file has grown by when it is worth a sync.
const WORTH_BYTES: u64 = 512 << 10;
/// What may have been written since the last look by somebody who has time.
const AHEAD_BYTES: u64 = 768 << 10;
/// He does not wait for a look for longer, and may then write as much again.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Where clients write more in a second, files are what they will wait for: nobody takes his time with them.
const BUSY_BYTES: u64 = 8 << 20;
/// Over such times that is looked at.
const BUSY_WINDOW: Duration = Duration::from_millis(50);

/// The thread, which ends when this is dropped.
pub(super) struct Easing {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and those who write have in common.
pub(super) struct State {
    folder: PathBuf,
    /// Written since the last look.
    ahead: AtomicU64,
    /// Merging is waited for.
    is_pressed: AtomicBool,
    /// What was written to rows in memory for clients,
    served: Arc<AtomicU64>,
    /// and whether it is much lately.
    is_busy: AtomicBool,
    looked: Condvar,
    work: Mutex<Work>,
    changed: Condvar,
    /// Held during a look. What a sync has failed with, for all who write from then on.
    failed: Mutex<Option<std::io::ErrorKind>>,
}

#[derive(Default)]
struct Work {
    writers: usize,
    is_ending: bool,
}

/// Somebody who writes files; until it is dropped.
pub(super) struct Writing<'a>(&'a State);

impl Easing {
    /// For the files of a folder.
    pub(super) fn new(folder: &Path, served: Arc<AtomicU64>) -> Result<Self, Fault> {
        let state = Arc::new(State {
            folder: folder.to_owned(),
            ahead: AtomicU64::new(0),
            is_pressed: AtomicBool::new(false),
            served,
            is_busy: AtomicBool::new(false),
            looked: Condvar::new(),
            work: Mutex::default(),
            changed: Condvar::new(),
            failed: Mutex::default(),
        });
        let thread = {
            let state = state.clone();
            let begun = std::thread::Builder::new().name("ease".to_owned()).spawn(move || state.run());
            begun.map_err(|error| Fault::new("beginning a thread of the store", error))?
        };
        Ok(Self { state, thread: Some(thread) })
    }

    /// What those who write tell how much it is.
    pub(super) fn state(&self) -> Arc<State> {
        self.state.clone()
    }

    /// From here on nobody waits for the disk: files are synced at their end.
    pub(super) fn end(&self) {
        self.state.end();
    }

    /// Whether somebody waits for what is merged.
    pub(super) fn press(&self, is_pressed: bool) {
        self.state.is_pressed.store(is_pressed, Ordering::Relaxed);
    }

    /// Files are going to grow.
    pub(super) fn begin(&self) -> Writing<'_> {
        self.state.work.lock().writers += 1;
        self.state.changed.notify_one();
        Writing(&self.state)
    }
}

impl Writing<'_> {
    /// What was written is to count: nothing is synced here until what is returned is dropped.
    ///
    /// # Errors
    /// A sync has failed.
    pub(super) fn end(&self) -> std::io::Result<impl Drop> {
        // A look that is under way ends first.
        let failed = self.0.failed.lock();
        match *failed {
            Some(kind) => Err(std::io::Error::new(kind, "an earlier sync of a file of the store failed")),
            None => Ok(failed),
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.work.lock().writers -= 1;
    }
}

/// The thread ends: nobody waits for it any more, also if it panicked.
struct End<'a>(&'a State);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Drop for Easing {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            // It may have panicked; then files are only synced at their end.
            let _ = thread.join();
        }
    }
}

impl State {
    fn end(&self) {
        self.work.lock().is_ending = true;
        self.changed.notify_one();
        self.looked.notify_all();
    }

    /// Somebody merges, and writes so much.
    pub(super) fn merges(&self, bytes: usize) {
        self.writes(bytes, || self.is_pressed.load(Ordering::Relaxed));
    }

    /// Somebody writes so much, in a row: gives way, and waits for the disk if this thread keeps house, and nobody waits for it.
    pub(super) fn writes(&self, bytes: usize, is_pressed: impl Fn() -> bool) {
        let ahead = self.ahead.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if self.is_busy.load(Ordering::Relaxed) || is_pressed() {
            return;
        }
        give_way();
        if ahead < AHEAD_BYTES {
            return;
        }
        let deadline = Instant::now() + WAIT_MAX;
        let mut work = self.work.lock();
        while !work.is_ending && self.ahead.load(Ordering::Relaxed) >= AHEAD_BYTES {
            if !has_time() || is_pressed() {
                return;
            }
            if Instant::now() >= deadline {
                self.ahead.store(0, Ordering::Relaxed);
                return;
            }
            // Meanwhile somebody may begin to wait.
            self.looked.wait_for(&mut work, INTERVAL);
        }
    }

    fn run(&self) {
        let _end = End(self);
        let mut sizes = BTreeMap::new();
        let (mut since, mut before) = (Instant::now(), self.served.load(Ordering::Relaxed));
        loop {
            {
                let mut work = self.work.lock();
                self.changed.wait_while(&mut work, |work| work.writers == 0 && !work.is_ending);
                if work.is_ending {
                    return;
                }
            }
            std::thread::sleep(INTERVAL);
            let elapsed = since.elapsed();
            if elapsed >= BUSY_WINDOW {
                let served = self.served.load(Ordering::Relaxed);
                let is_busy = (served - before) as f64 > BUSY_BYTES as f64 * elapsed.as_secs_f64();
                // Else this thread had nothing to do in between.
                if elapsed < 2 * BUSY_WINDOW || is_busy {
                    self.is_busy.store(is_busy, Ordering::Relaxed);
                }
                (since, before) = (since + elapsed, served);
            }
            // Files come and go meanwhile; one that cannot be looked at is left to those who write it.
            let _ = self.look(&mut sizes);
            let _work = self.work.lock();
            self.ahead.store(0, Ordering::Relaxed);
            self.looked.notify_all();
        }
    }

    /// Syncs what has grown since the last look.
    fn look(&self, sizes: &mut BTreeMap<OsString, u64>) -> std::io::Result<()> {
        let mut failed = self.failed.lock();
        let before = std::mem::take(sizes);
        for file in std::fs::read_dir(&self.folder)? {
            let file = file?;
            let Ok(metadata) = file.metadata() else { continue };
            let (name, bytes) = (file.file_name(), metadata.len());
            let synced = before.get(&name).copied().unwrap_or_default();
            let is_worth_it = bytes >= synced + WORTH_BYTES;
            sizes.insert(name, if is_worth_it { bytes } else { synced });
            if is_worth_it {
                let Ok(file) = File::open(file.path()) else { continue };
                file.sync_data().inspect_err(|error| *failed = Some(error.kind()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_takes_what_has_grown_and_forgets_what_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let easing = Easing::new(folder.path(), Arc::default()).unwrap();
        let path = folder.path().join("1");
        let mut sizes = BTreeMap::new();
        let mut grow = |bytes: u64| {
            std::fs::write(&path, vec![7; bytes as usize]).unwrap();
            easing.state.look(&mut sizes).unwrap();
            sizes.values().copied().collect::<Vec<_>>()
        };
        assert_eq!(grow(WORTH_BYTES - 1), [0]);
        assert_eq!(grow(WORTH_BYTES + 5), [WORTH_BYTES + 5]);
        assert_eq!(grow(WORTH_BYTES + 9), [WORTH_BYTES + 5]);
        assert_eq!(grow(3 * WORTH_BYTES), [3 * WORTH_BYTES]);
        std::fs::remove_file(&path).unwrap();
        easing.state.look(&mut sizes).unwrap();
        assert!(sizes.is_empty());
        drop((easing.begin(), easing.begin()));
        assert_eq!(easing.state.work.lock().writers, 0);
    }

    #[test]
    fn who_keeps_house_waits_for_the_disk_unless_he_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let easing = Easing::new(folder.path(), Arc::default()).unwrap();
        let state = easing.state();
        let ahead = || state.ahead.swap(0, Ordering::Relaxed);
        // Nobody looks at the files here: so what is written counts until somebody has waited for long.
        state.writes(AHEAD_BYTES as usize, || false);
        assert_eq!(ahead(), AHEAD_BYTES, "this thread does not keep house");
        std::thread::scope(|scope| {
            let keeper = scope.spawn(|| {
                crate::priority::yield_to_others();
                state.writes(AHEAD_BYTES as usize, || true);
                assert_eq!(ahead(), AHEAD_BYTES, "somebody waits for it");
                easing.press(true);
                state.merges(AHEAD_BYTES as usize);
                assert_eq!(ahead(), AHEAD_BYTES, "somebody waits for merging");
                easing.press(false);
                state.is_busy.store(true, Ordering::Relaxed);
                state.merges(AHEAD_BYTES as usize);
                assert_eq!(ahead(), AHEAD_BYTES, "clients write much");
                state.is_busy.store(false, Ordering::Relaxed);
                state.merges(AHEAD_BYTES as usize - 1);
                assert_eq!(state.ahead.load(Ordering::Relaxed), AHEAD_BYTES - 1, "that is not much");
                // Another test says now and then that somebody is held up.
                let has_waited = (0..100).any(|_| {
                    std::thread::sleep(INTERVAL);
                    state.merges(1);
                    state.ahead.load(Ordering::Relaxed) == 0
                });
                assert!(has_waited);
                state.end();
                state.merges(AHEAD_BYTES as usize);
                assert_eq!(ahead(), AHEAD_BYTES, "the store ends");
            });
            keeper.join().unwrap();
        });
    }
}
