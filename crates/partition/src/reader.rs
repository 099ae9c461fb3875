//! Reading a keyspace's applied state from any thread.
//!
//! A [`Reader`] sees a revision only after the batch that made it is in the store, and then whole. It takes no lock: whoever
//! reads takes the published revision once, and everything is as of that. Two things can pull the ground away
//! meanwhile, and both are checked again after the read: a compaction past the revision read, and a
//! snapshot that replaces the whole state.

use crate::error::ReadError;
use crate::part_reader::{PartReader, piece};
use crate::publication::Published;
use crate::range;
use crate::recall::{Recall, small_range};
use crate::state::Head;
use crate::txn;
use crate::view::{Applied, Pairs, View};
use crate::watch::{History, HistoryError, Piece};
use crate::writer::Writer;
use quorate_mvcc::engine::{Engine, Read, Table};
use quorate_mvcc::{KeySpace, Page, Size, hash, layout, sizes};
use quorate_types::reply::{RangeAnswer, TxnAnswer};
use quorate_types::request::{RangeRequest, TxnRequest};
use quorate_types::revision::LocalRevisions;
use quorate_types::{
    Changes, Fault, GroupId, Key, KeyRange, KeyValue, KeyspaceId, Malformed, PartitionId, Rejection,
    Revision, Slot, SlotSet,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Revisions in one page of history, as many as etcd sends a watcher that is behind.
const PAGE_REVISIONS_MAX: usize = 1_000;

/// How often a read of the newest revision that writes and a compaction overtook is begun again.
const OVERTAKEN_MAX: usize = 8;

/// The applied state of a keyspace, all of its partitions here. Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct Reader<E> {
    pub(crate) engine: E,
    pub(crate) keyspace: KeyspaceId,
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
    /// The keyspace whose state it is.
    pub fn keyspace(&self) -> KeyspaceId {
        self.keyspace
    }

    /// The newest revision that is all here, in every partition.
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

    /// Answers a range as of `newest`, with the revision that the state had: what etcd's header carries, whichever
    /// revision was asked for. `newest` is what a barrier granted, or [`Reader::revision`]; later ones do not exist for this
    /// read, unless a compaction overtakes it.
    pub fn range(
        &self,
        request: &RangeRequest,
        newest: Revision,
    ) -> Result<(Revision, RangeAnswer), ReadError> {
        let read = |view: &Recall<'_, E>| {
            let at = range::revision_asked(view, request.revision)?;
            let answer = range::answer(view, request, at)?;
            self.check_kept(request.revision.filter(|asked| *asked > 0), at)?;
            Ok((view.revision(), answer))
        };
        if let KeyRange::Single(_) = request.range {
            return self.read(newest, read);
        }
        if let Some(known) = self.known(request, newest) {
            return Ok(known);
        }
        let (generation, mark) = (self.generation()?, self.published.lately.mark());
        let (revision, answer) = self.read(newest, read)?;
        let is_readable = || self.check_generation(generation).is_ok();
        self.published.lately.learn(request, &answer, (revision, mark), is_readable);
        Ok((revision, answer))
    }

    /// The same without a look at the store, if all of it is in memory.
    pub fn known(&self, request: &RangeRequest, newest: Revision) -> Option<(Revision, RangeAnswer)> {
        let generation = self.generation().ok()?;
        let answer = self.published.lately.answer(request, newest)?;
        self.check_generation(generation).is_ok().then_some((newest, answer))
    }

    /// The same if it is a single key, or the range has no more than `pairs_max` pairs and is not of history; it is read no further than that, nor over more old versions or bytes than whoever shares
    /// this thread can bear. What is asked of it (an order, a filter) is worked out from all pairs, so that they can be kept in memory.
    pub fn range_if_small(
        &self,
        request: &RangeRequest,
        newest: Revision,
        pairs_max: usize,
    ) -> Result<Option<(Revision, RangeAnswer)>, ReadError> {
        if let KeyRange::Single(_) = request.range {
            return self.range(request, newest).map(Some);
        }
        if request.revision.is_some_and(|asked| asked > 0) || request.range.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.known(request, newest) {
            return Ok(Some(known));
        }
        let (generation, mark) = (self.generation()?, self.published.lately.mark());
        let (revision, pairs) = self.read(newest, |view| {
            let pairs = small_range(view.applied.space, &request.range, view.revision(), pairs_max)?;
            self.check_kept(None, view.revision())?;
            Ok((view.revision(), pairs))
        })?;
        let Some(pairs) = pairs else { return Ok(None) };
        let all = RangeAnswer { count: pairs.len() as u64, pairs, more: false };
        let plain = RangeRequest::new(request.range.clone());
        let is_readable = || self.check_generation(generation).is_ok();
        self.published.lately.learn(&plain, &all, (revision, mark), is_readable);
        Ok(Some((revision, range::answer(&Pairs(&all.pairs, revision), request, revision)?)))
    }

    /// Answers a transaction that only reads ([`TxnRequest::is_read_only`]), as of `newest` like [`Reader::range`].
    pub fn txn(&self, request: &TxnRequest, newest: Revision) -> Result<(Revision, TxnAnswer), ReadError> {
        assert!(request.is_read_only(), "a transaction that may write belongs to evaluate: {request:?}");
        self.read(newest, |view| {
            let path = txn::choose(view, request)?;
            txn::check(view, &path, &|_| false)?;
            let mut writer = Writer::new(view, LocalRevisions::after(view.revision()));
            let answer = txn::execute(&mut writer, &path)?;
            // The oldest that was read decides, and without one the newest, which all of it is at.
            let oldest = path.oldest_asked();
            self.check_kept(oldest, oldest.map_or(view.revision(), |asked| Revision(asked as u64)))?;
            Ok((view.revision(), answer))
        })
    }

    /// Hashes the history up to `revision`; 0 and less is all of it. Takes as long as reading everything.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        let mut tries = 0..OVERTAKEN_MAX;
        loop {
            let generation = self.generation()?;
            let newest = self.revision();
            let snapshot = self.engine.snapshot();
            // Of the very moment that is hashed, which is what may be removed from it.
            let compacted = self.compacted_in(&snapshot)?;
            if compacted.is_some_and(|compacted| newest < compacted) {
                tries.next().ok_or(Rejection::Busy)?;
                continue;
            }
            let space = KeySpace::new(&snapshot, self.keyspace);
            let through =
                range::revision_asked(&Applied { space, revision: newest, compacted }, Some(revision))?;
            self.check_generation(generation)?;
            let hash = hash::history(&snapshot, self.keyspace, None, through, compacted)?;
            return Ok(HashKv { hash, through, compacted, revision: newest });
        }
    }

    /// How much history this node's store holds of each slot that has any, at the moment. Takes as long as reading everything. Refused
    /// while a snapshot replaces a part.
    pub fn sizes(&self) -> Result<BTreeMap<Slot, Size>, ReadError> {
        let generation = self.generation()?;
        let snapshot = self.engine.snapshot();
        self.check_generation(generation)?;
        Ok(sizes::by_slot(&snapshot, self.keyspace)?)
    }

    /// The newest compaction of the keyspace's partitions in a snapshot.
    fn compacted_in(&self, snapshot: &E::Snapshot) -> Result<Option<Revision>, Fault> {
        let mut compacted = None;
        let mut next = Some(GroupId { keyspace: self.keyspace, partition: PartitionId(0) });
        while let Some(from) = next {
            let (start, _) = layout::rows(Table::State, from);
            let (_, end) = layout::rows(
                Table::State,
                GroupId { keyspace: self.keyspace, partition: layout::EVERY_PARTITION },
            );
            let Some(row) = snapshot.scan(Table::State, (start, end)).next() else { break };
            let (row, _) = row?;
            let group =
                layout::split_state(&row).map_err(|cause| layout::damaged(Table::State, &row, cause))?;
            compacted = compacted.max(Head::load(snapshot, group)?.compacted);
            next = group
                .partition
                .0
                .checked_add(1)
                .map(|next| GroupId { partition: PartitionId(next), ..group });
        }
        Ok(compacted)
    }

    /// The change feed from `from` on: whole revisions, at least one if there is any, and no more after
    /// `bytes_max` bytes of events.
    pub fn changes(&self, from: Revision, bytes_max: usize) -> Result<Page, ReadError> {
        let generation = self.generation()?;
        let check = || self.check_generation(generation);
        self.changes_in(&SlotSet::all(), from, bytes_max, check)
    }

    /// What the change feed has of some slots, if `check` says afterwards that they were here all the time.
    pub(crate) fn changes_in(
        &self,
        slots: &SlotSet,
        from: Revision,
        bytes_max: usize,
        check: impl Fn() -> Result<(), Rejection>,
    ) -> Result<Page, ReadError> {
        let through = self.revision();
        let space = KeySpace::new(&self.engine, self.keyspace).within(slots);
        let page = match self.check_kept(Some(from.0 as i64), from) {
            Ok(()) => space.changes(from, through, PAGE_REVISIONS_MAX, bytes_max)?,
            Err(rejection) => return Err(rejection.into()),
        };
        check()?;
        self.check_kept(Some(from.0 as i64), from)?;
        page.ok_or_else(|| {
            let cause = Malformed("the change feed, which names a version that is not there");
            Fault::new(format!("reading changes of keyspace {} from {from}", self.keyspace), cause).into()
        })
    }

    /// All that one revision changed; `None` if nothing. Every part of it has to be applied.
    pub fn changes_at(&self, revision: Revision) -> Result<Option<Changes>, ReadError> {
        let page = self.changes(revision, 0)?;
        Ok(page.changes.into_iter().next().filter(|changes| changes.revision == revision))
    }

    /// The pair right before revision `before`; `None` when there was none, or when it is compacted.
    pub fn previous(&self, key: &Key, before: Revision) -> Result<Option<KeyValue>, Fault> {
        let space = KeySpace::new(&self.engine, self.keyspace);
        let pair = space.previous(key, before, self.compacted())?;
        // A compaction may have taken the version between the two looks, and left an older one bare or none.
        let is_kept = self.compacted().is_none_or(|compacted| compacted <= before.previous());
        Ok(pair.filter(|_| is_kept))
    }

    /// What one revision changed in these slots, which have to be here for as long as it takes; `None` if nothing.
    pub fn changes_of(&self, slots: &SlotSet, revision: Revision) -> Result<Option<Changes>, ReadError> {
        let page = self.changes_in(slots, revision, 0, || Ok(()))?;
        Ok(page.changes.into_iter().next().filter(|changes| changes.revision == revision))
    }

    /// Reads the history of some slots; `None` unless they are all held here.
    pub fn part(&self, slots: Arc<SlotSet>) -> Option<PartReader<E>>
    where
        E: Clone,
    {
        PartReader::new(self.clone(), slots)
    }

    fn read<T>(
        &self,
        mut newest: Revision,
        answer: impl Fn(&Recall<'_, E>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let mut tries = 0..OVERTAKEN_MAX;
        loop {
            let generation = self.generation()?;
            let applied = Applied {
                space: KeySpace::new(&self.engine, self.keyspace),
                revision: newest,
                compacted: self.compacted(),
            };
            let view = Recall { applied, published: &self.published, generation };
            let result = answer(&view);
            // First, because whatever else was found in a state half replaced means nothing.
            self.check_generation(generation)?;
            match result {
                Err(ReadError::Rejection(Rejection::Busy)) if tries.next().is_some() => {
                    newest = newest.max(self.revision());
                }
                result => return result,
            }
        }
    }

    fn generation(&self) -> Result<u64, Rejection> {
        self.published.generation()
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

    fn changes(&self, from: Revision, bytes_max: usize) -> Result<Piece, HistoryError> {
        let through = Reader::revision(self);
        piece(Reader::changes(self, from, bytes_max), through)
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
