//! What all clients write down: calls, leases, what watches told, and when.

use super::prefix::Prefix;
use super::timeline::acknowledged;
use parking_lot::Mutex;
use quorate_checker::Violation;
use quorate_checker::calls::Call;
use quorate_checker::leases::Lease;
use quorate_checker::order::Sight;
use quorate_checker::strict::By;
use quorate_checker::watches::Watched;
use quorate_types::{LeaseId, Revision};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Shared by all who take part. Times are microseconds since it was opened.
pub(super) struct Book {
    opened: Instant,
    /// Where the keys are.
    pub(super) prefix: Prefix,
    /// From which revision on all below the prefix is ours.
    pub(super) first: Revision,
    /// Whether the cluster is somebody else's: he may compact.
    pub(super) is_guest: bool,
    next: AtomicU64,
    calls: Mutex<Vec<Call>>,
    leases: Mutex<Vec<Lease>>,
    /// Revisions that watches told of.
    sights: Mutex<Vec<Sight<By>>>,
    pub(super) watched: Mutex<Vec<Watched>>,
    wrong: Mutex<Vec<Violation>>,
    /// From when to when a disk was full, or what it had refused was not taken again yet.
    scarce: Mutex<Vec<(u64, Option<u64>)>>,
    /// Up to which revisions compactions were asked for, and when first.
    compactions: Mutex<Vec<Compaction>>,
    /// The newest revision that a watch was told to be the oldest.
    told_compacted: AtomicU64,
    /// Watches that began late and ended early, and up to which revision they were told everything.
    late: Mutex<Vec<(Watched, Revision)>>,
    /// The newest revision that anybody was told.
    newest: AtomicU64,
    /// No more calls are to be made.
    is_closed: AtomicBool,
}

/// Everything that was written down.
pub(super) struct Written {
    pub(super) calls: Vec<Call>,
    pub(super) leases: Vec<Lease>,
    pub(super) sights: Vec<Sight<By>>,
    pub(super) watched: Vec<Watched>,
    pub(super) wrong: Vec<Violation>,
    pub(super) scarce: Vec<(u64, Option<u64>)>,
    pub(super) compactions: Vec<Compaction>,
    /// The newest revision that a watch was told to be the oldest.
    pub(super) told_compacted: Revision,
    pub(super) late: Vec<(Watched, Revision)>,
}

/// A compaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compaction {
    pub(super) asked: u64,
    /// The oldest revision that can be read afterwards.
    pub(super) until: Revision,
}

impl Book {
    /// For a cluster of our own.
    pub(super) fn open() -> Self {
        Self {
            prefix: Prefix::default(),
            first: Revision::FIRST,
            is_guest: false,
            opened: Instant::now(),
            next: AtomicU64::new(1),
            calls: Mutex::default(),
            leases: Mutex::default(),
            sights: Mutex::default(),
            watched: Mutex::default(),
            wrong: Mutex::default(),
            scarce: Mutex::default(),
            compactions: Mutex::default(),
            told_compacted: AtomicU64::new(0),
            late: Mutex::default(),
            newest: AtomicU64::new(1),
            is_closed: AtomicBool::new(false),
        }
    }

    /// For keys below a prefix of another's.
    pub(super) fn open_below(prefix: Prefix, first: Revision) -> Self {
        let newest = AtomicU64::new(first.0);
        // Whatever is old may be gone.
        let compactions = Mutex::new(vec![Compaction { asked: 0, until: Revision(u64::MAX) }]);
        Self { prefix, first, is_guest: true, newest, compactions, ..Self::open() }
    }

    /// When writes were acknowledged so far.
    pub(super) fn acknowledged(&self) -> Vec<u64> {
        acknowledged(&self.calls.lock())
    }

    pub(super) fn now(&self) -> u64 {
        self.opened.elapsed().as_micros() as u64
    }

    /// A number that nobody else gets.
    pub(super) fn unique(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn newest(&self) -> Revision {
        Revision(self.newest.load(Ordering::Relaxed))
    }

    pub(super) fn call(&self, call: Call) {
        if let Some((revision, _)) = call.reply() {
            self.newest.fetch_max(revision.0, Ordering::Relaxed);
        }
        self.calls.lock().push(call);
    }

    /// A watch has just told of this revision.
    pub(super) fn told(&self, revision: Revision) {
        self.newest.fetch_max(revision.0, Ordering::Relaxed);
        self.sights.lock().push(Sight { answered: self.now(), revision, by: None });
    }

    pub(super) fn granted(&self, lease: Lease) {
        self.leases.lock().push(lease);
    }

    /// Notes something about a lease.
    pub(super) fn lease(&self, id: LeaseId, note: impl FnOnce(&mut Lease)) {
        if let Some(lease) = self.leases.lock().iter_mut().rev().find(|lease| lease.id == id) {
            note(lease);
        }
    }

    pub(super) fn wrong(&self, violation: Violation) {
        self.wrong.lock().push(violation);
    }

    /// Whether any client has met what must not be.
    pub(super) fn has_wrong(&self) -> bool {
        !self.wrong.lock().is_empty()
    }

    /// A disk has no space from now on.
    pub(super) fn scarce_begins(&self) {
        self.scarce.lock().push((self.now(), None));
    }

    /// All disks have space again, and all nodes know.
    pub(super) fn scarce_ends(&self) {
        let now = self.now();
        self.scarce.lock().iter_mut().for_each(|(_, until)| *until = until.or(Some(now)));
    }

    /// A compaction is about to be asked for.
    pub(super) fn compacts(&self, until: Revision) {
        let asked = self.now();
        self.compactions.lock().push(Compaction { asked, until });
    }

    /// Whether what is at this revision and before may be gone by now; and not more, if `told` is what is said to be the oldest.
    pub(super) fn may_be_compacted(&self, revision: Revision, told: Revision) -> bool {
        let asked = self.compactions.lock().iter().map(|compaction| compaction.until).max();
        // Others compact what we may not have heard of yet; whether that was there at all is known in the end.
        self.told_compacted.fetch_max(told.0, Ordering::Relaxed);
        asked.is_some_and(|until| revision < told && told <= until)
    }

    pub(super) fn late(&self, watched: Watched, until: Revision) {
        self.late.lock().push((watched, until));
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Takes everything out.
    pub(super) fn take(&self) -> Written {
        Written {
            calls: std::mem::take(&mut self.calls.lock()),
            leases: std::mem::take(&mut self.leases.lock()),
            sights: std::mem::take(&mut self.sights.lock()),
            watched: std::mem::take(&mut self.watched.lock()),
            wrong: std::mem::take(&mut self.wrong.lock()),
            scarce: std::mem::take(&mut self.scarce.lock()),
            compactions: std::mem::take(&mut self.compactions.lock()),
            told_compacted: Revision(self.told_compacted.load(Ordering::Relaxed)),
            late: std::mem::take(&mut self.late.lock()),
        }
    }
}
