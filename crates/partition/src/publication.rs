//! What the partitions that a node has of one keyspace tell its readers, together.
//!
//! A keyspace's only partition publishes its revision as it applies. Of several none knows how far the others are: each
//! publishes what is compacted, and their owner the revision that all have applied ([`Publication::advance`]). Neither
//! ever goes back.
//!
//! While any of them is replaced by a snapshot the keyspace cannot be read here.

use crate::lately::Lately;
use crate::reader::Reader;
use crate::state::Head;
use quorate_types::{KeyspaceId, Rejection, Revision, SlotSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A handle to what is published of a keyspace; clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    pub(crate) published: Arc<Published>,
}

impl Publication {
    /// Of a keyspace with one partition, whose revision is the keyspace's.
    pub fn by_apply() -> Self {
        Self::default()
    }

    /// Of a keyspace with several partitions, whose owner says what all of them have applied.
    pub fn by_owner() -> Self {
        let publication = Self::by_apply();
        publication.together();
        publication
    }

    /// The keyspace has several partitions from now on, or it turns out that it has: its owner says what all of them have applied, and until
    /// it has said so once there is nothing to read here.
    pub fn together(&self) {
        if self.published.is_by_apply.swap(false, Ordering::SeqCst) {
            self.published.settled.store(false, Ordering::SeqCst);
        }
    }

    /// The keyspace has several partitions from now on, and until now its only one has published everything: that can be read on.
    pub fn share(&self) {
        self.published.is_by_apply.store(false, Ordering::SeqCst);
    }

    /// Whether there is anything to read.
    pub fn is_settled(&self) -> bool {
        self.published.settled.load(Ordering::SeqCst)
    }

    /// Every partition here has applied what it will ever have of the revisions up to this one.
    pub fn advance(&self, revision: Revision) {
        self.published.advance(revision);
        self.published.settled.store(true, Ordering::SeqCst);
    }

    /// Some keys of the keyspace are in no partition here, from now on or no more: whoever reads it meanwhile is refused. To be called in turns.
    pub fn set_whole(&self, is_whole: bool) {
        if is_whole { self.published.end_replacing() } else { self.published.begin_replacing() }
    }

    /// Of these slots everything up to the published revision is here: their history can be read, whatever is missing of others. To be called
    /// before the first row goes of a slot that is held no more.
    pub fn hold(&self, held: Arc<SlotSet>) {
        self.published.hold(held);
    }

    /// The keyspace is deleted: whoever reads it, or is reading it now, is refused from now on.
    pub fn close(&self) {
        self.published.begin_replacing();
    }

    /// Reads the keyspace in this store as far as it is published.
    pub fn reader<E>(&self, engine: E, keyspace: KeyspaceId) -> Reader<E> {
        Reader { engine, keyspace, published: Arc::clone(&self.published) }
    }

    /// To be called after the write that `head` speaks of.
    pub(crate) fn publish(&self, head: &Head) {
        self.published.compact(head.compacted);
        if self.published.is_by_apply.load(Ordering::SeqCst) {
            self.advance(head.revision);
        }
    }
}

/// What is published.
#[derive(Debug)]
pub(crate) struct Published {
    revision: AtomicU64,
    /// The revision after the compacted one; 0 for none.
    compacted: AtomicU64,
    /// How many partitions are being replaced.
    unavailable: AtomicU64,
    /// Whether a partition publishes its revision when it applies, being the only one.
    is_by_apply: AtomicBool,
    /// Whether the revision is one that all partitions here have applied.
    settled: AtomicBool,
    /// Another one whenever a replacement begins or ends. Comparing it before and after a read tells whether
    /// something was replaced meanwhile.
    generation: AtomicU64,
    /// The slots of which everything up to the revision is here,
    held: RwLock<Arc<SlotSet>>,
    /// and how often some of them were lost.
    losses: AtomicU64,
    /// What was read of the newest revision.
    pub(crate) lately: Lately,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            revision: AtomicU64::new(Revision::FIRST.0),
            compacted: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
            is_by_apply: AtomicBool::new(true),
            settled: AtomicBool::new(true),
            generation: AtomicU64::new(0),
            held: RwLock::default(),
            losses: AtomicU64::new(0),
            lately: Lately::default(),
        }
    }
}

impl Published {
    fn advance(&self, revision: Revision) {
        self.revision.fetch_max(revision.0, Ordering::SeqCst);
    }

    fn compact(&self, revision: Option<Revision>) {
        self.compacted.fetch_max(revision.map_or(0, |revision| revision.next().0), Ordering::SeqCst);
    }

    /// To be called before the first row of the state is touched.
    pub(crate) fn begin_replacing(&self) {
        // In this order: a reader that finds the keyspace available has the generation of before.
        self.unavailable.fetch_add(1, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
        // What is learnt from now on is refused: it is of another generation.
        self.lately.forget();
    }

    /// To be called once for each [`Published::begin_replacing`], when the new state is whole.
    pub(crate) fn end_replacing(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.unavailable.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn is_available(&self) -> bool {
        self.unavailable.load(Ordering::SeqCst) == 0 && self.settled.load(Ordering::SeqCst)
    }

    fn hold(&self, held: Arc<SlotSet>) {
        // Nothing can panic while it is locked.
        let mut known = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let is_loss = !known.subtract(&held).is_empty();
        *known = held;
        if is_loss {
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn held(&self) -> Arc<SlotSet> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// What is to be the same before and after a read.
    pub(crate) fn generation(&self) -> Result<u64, Rejection> {
        let generation = self.generation.load(Ordering::SeqCst);
        if self.is_available() { Ok(generation) } else { Err(Rejection::Unavailable) }
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::SeqCst))
    }

    pub(crate) fn compacted(&self) -> Option<Revision> {
        self.compacted.load(Ordering::SeqCst).checked_sub(1).map(Revision)
    }
}
