//! Reading a partition's applied state from any thread.
//!
//! A [`Reader`] sees a revision only after the batch that made it is in the store, and then whole. It takes no lock: it
//! reads the published revision once, and everything as of that. Two things can pull the ground away
//! meanwhile, and both are checked again after the read: a compaction past the revision read, and a
//! snapshot that replaces the whole state.

use crate::error::ReadError;
use crate::range;
use crate::state::Head;
use crate::txn;
use crate::view::Applied;
use crate::watch::{History, HistoryError};
use crate::writer::Writer;
use quorate_mvcc::KeySpace;
use quorate_mvcc::engine::{Engine, Table};
use quorate_mvcc::{Page, hash};
use quorate_types::reply::{RangeAnswer, TxnAnswer};
use quorate_types::request::{RangeRequest, TxnRequest};
use quorate_types::revision::LocalRevisions;
use quorate_types::{Changes, Fault, GroupId, Key, KeyValue, Malformed, Rejection, Revision};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Revisions in one page of history, as many as etcd sends a watcher that is behind.
const PAGE_REVISIONS_MAX: usize = 1_000;

/// How often a read of the newest revision that writes and a compaction overtook is begun again.
const OVERTAKEN_MAX: usize = 8;

/// What a partition publishes for its readers.
#[derive(Debug)]
pub(crate) struct Published {
    revision: AtomicU64,
    /// The compacted revision, and [`NOT_COMPACTED`] for none.
    compacted: AtomicU64,
    /// Even while the state may be read; grown by one when a snapshot starts to replace it and by one
    /// when that is done. Comparing it before and after tells whether the state was replaced meanwhile.
    generation: AtomicU64,
}

const NOT_COMPACTED: u64 = u64::MAX;

impl Published {
    /// Of a state that may be read.
    pub(crate) fn new(head: &Head) -> Self {
        let published = Self {
            revision: AtomicU64::new(0),
            compacted: AtomicU64::new(NOT_COMPACTED),
            generation: AtomicU64::new(0),
        };
        published.publish(head);
        published
    }

    /// Of a state that is being replaced.
    pub(crate) fn unavailable() -> Self {
        Self {
            revision: AtomicU64::new(Revision::FIRST.0),
            compacted: AtomicU64::new(NOT_COMPACTED),
            generation: AtomicU64::new(1),
        }
    }

    /// To be called after the write that `head` speaks of.
    pub(crate) fn publish(&self, head: &Head) {
        self.compacted.store(head.compacted.map_or(NOT_COMPACTED, |revision| revision.0), Ordering::SeqCst);
        self.revision.store(head.revision.0, Ordering::SeqCst);
    }

    /// To be called before the first row of the state is touched.
    pub(crate) fn set_unavailable(&self) {
        if self.is_available() {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn set_available(&self) {
        if !self.is_available() {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn is_available(&self) -> bool {
        self.generation.load(Ordering::SeqCst).is_multiple_of(2)
    }

    fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::SeqCst))
    }

    fn compacted(&self) -> Option<Revision> {
        match self.compacted.load(Ordering::SeqCst) {
            NOT_COMPACTED => None,
            revision => Some(Revision(revision)),
        }
    }
}

/// The applied state of a partition. Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct Reader<E> {
    pub(crate) engine: E,
    pub(crate) group: GroupId,
    pub(crate) published: Arc<Published>,
}

/// A hash of the history, to compare replicas by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// Equal on replicas that agree, whatever each has removed physically.
    pub hash: u32,
    /// Up to which revision.
    pub through: Revision,
    /// From which on history was kept whole.
    pub compacted: Option<Revision>,
    /// The newest revision when it was computed.
    pub revision: Revision,
}

impl<E: Engine> Reader<E> {
    /// The group whose state it is.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The newest revision applied.
    pub fn revision(&self) -> Revision {
        self.published.revision()
    }

    /// The oldest revision that can be read, once anything was compacted.
    pub fn compacted(&self) -> Option<Revision> {
        self.published.compacted()
    }

    /// False while a snapshot replaces the state.
    pub fn is_available(&self) -> bool {
        self.published.is_available()
    }

    /// Answers a range, with the revision that the state had: what etcd's header carries, whichever
    /// revision was asked for.
    pub fn range(&self, request: &RangeRequest) -> Result<(Revision, RangeAnswer), ReadError> {
        self.read(|view| {
            let at = range::revision_asked(view, request.revision)?;
            let answer = range::answer(view, request, at)?;
            self.check_kept(request.revision.filter(|asked| *asked > 0), at)?;
            Ok((view.revision, answer))
        })
    }

    /// Answers a transaction that only reads ([`TxnRequest::is_read_only`]).
    pub fn txn(&self, request: &TxnRequest) -> Result<(Revision, TxnAnswer), ReadError> {
        assert!(request.is_read_only(), "a transaction that may write belongs to evaluate: {request:?}");
        self.read(|view| {
            let path = txn::choose(view, request)?;
            txn::check(view, &path, &|_| false)?;
            let mut writer = Writer::new(view, LocalRevisions::after(view.revision));
            let answer = txn::execute(&mut writer, &path)?;
            // The oldest that was read decides, and without one the newest, which all of it is at.
            let oldest = path.oldest_asked();
            self.check_kept(oldest, oldest.map_or(view.revision, |asked| Revision(asked as u64)))?;
            Ok((view.revision, answer))
        })
    }

    /// Hashes the history up to `revision`; 0 and less is all of it. Takes as long as reading everything.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        let generation = self.generation()?;
        let snapshot = self.engine.snapshot();
        // The head of the very moment that is hashed; what is published may already be ahead of it.
        let head = Head::load(&snapshot, self.group)?;
        let view = Applied {
            space: KeySpace::new(&snapshot, self.group),
            revision: head.revision,
            compacted: head.compacted,
        };
        let through = range::revision_asked(&view, Some(revision))?;
        self.check_generation(generation)?;
        let hash = hash::history(&snapshot, self.group, through, head.compacted)?;
        Ok(HashKv { hash, through, compacted: head.compacted, revision: head.revision })
    }

    /// The change feed from `from` on: whole revisions, at least one if there is any, and no more after
    /// `bytes_max` bytes of events.
    pub fn changes(&self, from: Revision, bytes_max: usize) -> Result<Page, ReadError> {
        let generation = self.generation()?;
        let through = self.revision();
        let space = KeySpace::new(&self.engine, self.group);
        let page = match self.check_kept(Some(from.0 as i64), from) {
            Ok(()) => space.changes(from, through, PAGE_REVISIONS_MAX, bytes_max)?,
            Err(rejection) => return Err(rejection.into()),
        };
        self.check_generation(generation)?;
        self.check_kept(Some(from.0 as i64), from)?;
        page.ok_or_else(|| {
            let cause = Malformed("the change feed, which names a version that is not there");
            Fault::new(format!("reading changes of group {} from {from}", self.group), cause).into()
        })
    }

    /// The pair right before revision `before`; `None` when there was none, or when it is compacted.
    pub fn previous(&self, key: &Key, before: Revision) -> Result<Option<KeyValue>, Fault> {
        let space = KeySpace::new(&self.engine, self.group);
        let pair = space.previous(key, before, self.compacted())?;
        // A compaction may have taken the version between the two looks, and left an older one bare or none.
        let is_kept = self.compacted().is_none_or(|compacted| compacted <= before.previous());
        Ok(pair.filter(|_| is_kept))
    }

    fn read<T>(&self, answer: impl Fn(&Applied<'_, E>) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let mut tries = 0..OVERTAKEN_MAX;
        loop {
            let generation = self.generation()?;
            let view = Applied {
                space: KeySpace::new(&self.engine, self.group),
                revision: self.revision(),
                compacted: self.compacted(),
            };
            let result = answer(&view);
            // First, because whatever else was found in a state half replaced means nothing.
            self.check_generation(generation)?;
            match result {
                Err(ReadError::Rejection(Rejection::Busy)) if tries.next().is_some() => {}
                result => return result,
            }
        }
    }

    fn generation(&self) -> Result<u64, Rejection> {
        let generation = self.published.generation.load(Ordering::SeqCst);
        if generation.is_multiple_of(2) { Ok(generation) } else { Err(Rejection::Unavailable) }
    }

    fn check_generation(&self, before: u64) -> Result<(), Rejection> {
        if self.generation()? == before { Ok(()) } else { Err(Rejection::Unavailable) }
    }

    /// Whether history at `at` is still there. A read that asked for no revision in particular cannot be
    /// told that it is compacted: it was overtaken by writes and a compaction within one call, and is repeated.
    fn check_kept(&self, asked: Option<i64>, at: Revision) -> Result<(), Rejection> {
        match self.compacted() {
            Some(oldest) if at < oldest => Err(match asked {
                Some(asked) => Rejection::Compacted { asked, oldest },
                None => Rejection::Busy,
            }),
            _ => Ok(()),
        }
    }
}

impl<E: Engine> History for Reader<E> {
    fn revision(&self) -> Revision {
        Reader::revision(self)
    }

    fn compacted(&self) -> Option<Revision> {
        Reader::compacted(self)
    }

    fn changes(&self, from: Revision, bytes_max: usize) -> Result<Vec<Changes>, HistoryError> {
        match Reader::changes(self, from, bytes_max) {
            Ok(page) => Ok(page.changes),
            Err(ReadError::Fault(fault)) => Err(HistoryError::Fault(fault)),
            Err(ReadError::Rejection(Rejection::Compacted { oldest, .. })) => {
                Err(HistoryError::Compacted(oldest))
            }
            // A snapshot holds the history that its source holds: whoever is behind reads on when it is whole.
            Err(ReadError::Rejection(_)) => Err(HistoryError::Unavailable),
        }
    }

    fn previous(&self, key: &Key, before: Revision) -> Result<Option<KeyValue>, HistoryError> {
        let Ok(generation) = self.generation() else { return Err(HistoryError::Unavailable) };
        let pair = Reader::previous(self, key, before);
        // What a state half replaced says means nothing.
        if self.check_generation(generation).is_err() {
            return Err(HistoryError::Unavailable);
        }
        Ok(pair?)
    }
}

/// A fault if the change feed goes beyond `head`: then data and head were not written together.
pub(crate) fn check_head<E: Engine>(engine: &E, group: GroupId, head: &Head) -> Result<(), Fault> {
    let Some(row) = engine.scan_back(Table::Change, quorate_mvcc::layout::group_rows(group)).next() else {
        return Ok(());
    };
    let (row, _) = row?;
    let damaged = |cause| quorate_mvcc::layout::damaged(Table::Change, &row, cause);
    let stamp = quorate_mvcc::layout::split_change(&row).map_err(damaged)?;
    if stamp.revision > head.revision {
        return Err(damaged(Malformed("the newest change, which is newer than the state says")));
    }
    Ok(())
}
