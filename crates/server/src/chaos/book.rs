//! What all clients write down: calls, leases, what watches told, and when.

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
    next: AtomicU64,
    calls: Mutex<Vec<Call>>,
    leases: Mutex<Vec<Lease>>,
    /// Revisions that watches told of.
    sights: Mutex<Vec<Sight<By>>>,
    pub(super) watched: Mutex<Vec<Watched>>,
    wrong: Mutex<Vec<Violation>>,
    /// From when to when a disk was full, or what it had refused was not taken again yet.
    scarce: Mutex<Vec<(u64, Option<u64>)>>,
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
}

impl Book {
    pub(super) fn open() -> Self {
        Self {
            opened: Instant::now(),
            next: AtomicU64::new(1),
            calls: Mutex::default(),
            leases: Mutex::default(),
            sights: Mutex::default(),
            watched: Mutex::default(),
            wrong: Mutex::default(),
            scarce: Mutex::default(),
            newest: AtomicU64::new(1),
            is_closed: AtomicBool::new(false),
        }
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

    /// A disk has no space from now on.
    pub(super) fn scarce_begins(&self) {
        self.scarce.lock().push((self.now(), None));
    }

    /// All disks have space again, and all nodes know.
    pub(super) fn scarce_ends(&self) {
        let now = self.now();
        self.scarce.lock().iter_mut().for_each(|(_, until)| *until = until.or(Some(now)));
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
        }
    }
}
