//! The replica of one partition: its state, and who may do what with it.

use crate::cache::Cache;
use crate::lease::Leases;
use crate::limits::Limits;
use crate::locks::{Held, LockTable};
use crate::overlay::{Ahead, Overlay};
use crate::publication::Publication;
use crate::reader::Reader;
use crate::state::{self, Head};
use quorate_mvcc::KeySpace;
use quorate_mvcc::engine::{Batch, Engine, Table};
use quorate_mvcc::layout;
use quorate_types::reply::LeaseTime;
use quorate_types::{
    Bytes, Fault, GroupId, LeaseId, Malformed, Part, Position, Prepared, Revision, Rules, SlotSet, Tick,
    TxnId,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many changes of other partitions are stepped over to find the newest of this one.
const FOREIGN_CHANGES_MAX: usize = 10_000;

/// One replica of one partition. It has one owner at a time; others read through [`Reader`]s.
///
/// * `head` is what the store says, and what is published to readers is never ahead of it.
/// * The partition owns the keys in its slots and no others; other partitions of the keyspace have theirs in the same rows.
/// * There is an overlay exactly while this replica leads, and its revisions go on after `head`'s.
/// * After a [`Fault`] the partition must not be used again: what reached the store is unknown.
#[derive(Debug)]
pub struct Partition<E> {
    pub(crate) engine: E,
    pub(crate) group: GroupId,
    pub(crate) limits: Limits,
    pub(crate) slots: Arc<SlotSet>,
    /// Whether the store says so, too. The batch of the first apply does.
    pub(crate) are_slots_stored: bool,
    pub(crate) head: Head,
    pub(crate) leases: Leases,
    /// Transactions that are prepared here and not ended.
    pub(crate) prepared: BTreeMap<TxnId, Prepared>,
    /// Transactions that were decided here, and what they owe to other partitions.
    pub(crate) decided: BTreeMap<TxnId, Vec<Part>>,
    /// What transactions hold locked; only at the leader.
    pub(crate) locks: LockTable,
    /// Of those that are prepared, the ones that were when this leader registered: an earlier leader prepared them, or an earlier sequencer
    /// may have given them a revision.
    pub(crate) inherited: BTreeSet<TxnId>,
    /// Which slot a key belongs to.
    pub(crate) rules: Arc<Rules>,
    /// Pending entries; only at the leader.
    pub(crate) overlay: Option<Overlay>,
    pub(crate) cache: RefCell<Cache>,
    pub(crate) no_space: bool,
    pub(crate) publication: Publication,
}

/// What is found when a partition is opened.
#[derive(Debug)]
pub enum Opened<E> {
    /// Its state, empty for a new group.
    Ready(Box<Partition<E>>),
    /// A snapshot was being installed when the node stopped. There is no state to speak of; a new snapshot
    /// must be installed ([`crate::snapshot::Installer::begin`]).
    Incomplete,
}

impl<E> Opened<E> {
    /// The partition, if it is whole.
    pub fn ready(self) -> Option<Partition<E>> {
        match self {
            Self::Ready(partition) => Some(*partition),
            Self::Incomplete => None,
        }
    }
}

impl<E: Engine> Partition<E> {
    /// Restores the state of `group` from its rows, as the only partition of its keyspace. A group that has none yet owns
    /// `initial`.
    pub fn open(engine: E, group: GroupId, initial: SlotSet, limits: Limits) -> Result<Opened<E>, Fault> {
        Self::open_among(&Publication::by_apply(), engine, group, initial, limits)
    }

    /// The same, for one of several partitions of a keyspace, which all publish to the same readers.
    pub fn open_among(
        publication: &Publication,
        engine: E,
        group: GroupId,
        initial: SlotSet,
        limits: Limits,
    ) -> Result<Opened<E>, Fault> {
        assert!(group.partition != layout::EVERY_PARTITION, "{group} is in place of a partition's number");
        if Self::is_incomplete(&engine, group)? {
            return Ok(Opened::Incomplete);
        }
        let head = Head::load(&engine, group)?;
        let partition = Self::restore(engine, group, initial, limits, head, publication.clone())?;
        partition.publication.publish(&head);
        Ok(Opened::Ready(Box::new(partition)))
    }

    /// Whether opening the group will find it [`Opened::Incomplete`].
    pub fn is_incomplete(engine: &E, group: GroupId) -> Result<bool, Fault> {
        Ok(engine.get(Table::State, &layout::state_row(group, state::INSTALLING))?.is_some())
    }

    /// Marks that a group has no state in this store though it may have had one, and waits for a snapshot: what
    /// [`Partition::is_incomplete`] asks. Durable with the next flush.
    pub fn mark_incomplete(engine: &E, group: GroupId) -> Result<(), Fault> {
        let mark = layout::state_row(group, state::INSTALLING);
        let mut batch = Batch::default();
        batch.put(Table::State, mark.clone(), layout::seal(Table::State, &mark, Vec::new()));
        engine.write(batch)
    }

    /// What the newest applied entry about the group's members says, as it stands in the store: also while a snapshot is
    /// taking the state's place. `None` before the first.
    pub fn members(engine: &E, group: GroupId) -> Result<Option<Bytes>, Fault> {
        state::load_members(engine, group)
    }

    pub(crate) fn restore(
        engine: E,
        group: GroupId,
        initial: SlotSet,
        limits: Limits,
        head: Head,
        publication: Publication,
    ) -> Result<Self, Fault> {
        let stored = state::load_slots(&engine, group)?;
        let are_slots_stored = stored.is_some();
        let slots = Arc::new(stored.unwrap_or(initial));
        check_head(&engine, group, &slots, &head)?;
        let leases = state::load_leases(&engine, group)?;
        let prepared = state::load_prepared(&engine, group)?;
        let decided = state::load_decided(&engine, group)?;
        let cache = RefCell::new(Cache::new(limits.cache_bytes_max));
        publication.published.lately.open(head.revision);
        Ok(Self {
            engine,
            group,
            limits,
            slots,
            are_slots_stored,
            head,
            leases,
            prepared,
            decided,
            locks: LockTable::default(),
            inherited: BTreeSet::new(),
            rules: Arc::default(),
            overlay: None,
            cache,
            no_space: false,
            publication,
        })
    }

    /// The store that its rows are in, beside those of the node's other groups.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Whose state it is.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// What of the keyspace is the partition's.
    pub fn slots(&self) -> &Arc<SlotSet> {
        &self.slots
    }

    /// The placement rules of the keyspace, which never change.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
    }

    /// The last entry applied.
    pub fn applied(&self) -> Position {
        self.head.position
    }

    /// The newest revision applied.
    pub fn revision(&self) -> Revision {
        self.head.revision
    }

    /// The oldest revision that can be read, once anything was compacted.
    pub fn compacted(&self) -> Option<Revision> {
        self.head.compacted
    }

    /// A hash chained over every entry applied. Equal at replicas that have applied equally much, or one of
    /// them is wrong.
    pub fn digest(&self) -> u64 {
        self.head.digest
    }

    /// Reads the applied state of the keyspace, from any thread.
    pub fn reader(&self) -> Reader<E> {
        self.publication.reader(self.engine.clone(), self.group.keyspace)
    }

    /// Whether requests may be evaluated here.
    pub fn is_leading(&self) -> bool {
        self.overlay.is_some()
    }

    /// This replica leads, and the first entry of its term is applied: so everything that earlier leaders
    /// committed is. Requests may be evaluated from now on; every lease's time starts anew.
    pub fn lead(&mut self, now: Tick) {
        self.overlay = Some(Overlay::new(self.head.revision));
        self.cache.borrow_mut().clear();
        self.leases.lead(now, &self.limits);
        for (id, Prepared { footprint, floor, .. }) in &self.prepared {
            let held = Held { footprint: footprint.clone(), floor: *floor, is_prepared: true };
            self.locks.hold(*id, held);
        }
        self.inherit();
    }

    /// This leader registers with a sequencer, who knows nothing of the revisions that were given out before: also a transaction that this
    /// leader itself prepared may have one already.
    pub fn inherit(&mut self) {
        self.inherited = self.prepared.keys().copied().collect();
    }

    /// It does not lead any more: what was pending is forgotten, and nothing expires here.
    pub fn follow(&mut self) {
        if self.overlay.take().is_some() {
            self.cache.borrow_mut().clear();
            self.leases.follow();
            self.locks = LockTable::default();
        }
    }

    /// The leader's newest revision: that of the last change, pending ones too, or a newer one that it was told of.
    pub fn newest(&self) -> Revision {
        self.overlay.as_ref().map_or(self.head.revision, |overlay| overlay.revisions().last())
    }

    /// At the leader: the keyspace's newest revision is at least this one, whichever partition drew it. What is evaluated next sees the
    /// keyspace as of it, and draws the one after.
    pub fn observe(&mut self, newest: Revision) {
        if let Some(overlay) = &mut self.overlay {
            overlay.observe(newest);
        }
    }

    /// Until now another leader may have renewed leases without this one knowing: their times start anew.
    pub fn restart_leases(&mut self, now: Tick) {
        if self.is_leading() {
            self.leases.lead(now, &self.limits);
        }
    }

    /// The revocation of a lease is under way: it is not due again, and has no time left.
    pub fn ending(&mut self, lease: LeaseId) {
        self.leases.ending(lease);
    }

    /// Whether the revocation of a lease is under way.
    pub fn is_ending(&self, lease: LeaseId) -> bool {
        self.leases.is_ending(lease)
    }

    /// The revocation of a lease did not come about: it ends when it would have without.
    pub fn end_again(&mut self, lease: LeaseId, now: Tick) {
        if self.is_leading() {
            self.leases.end_again(lease, now);
        }
    }

    /// When a lease ends, or would end if its revocation did not come about. Nothing while following.
    pub fn lease_end(&self, lease: LeaseId) -> Option<Tick> {
        self.leases.end(lease)
    }

    /// Says whether writes that need space are to be refused.
    pub fn set_no_space(&mut self, no_space: bool) {
        self.no_space = no_space;
    }

    /// Leases whose time is over and whose end is not proposed yet, at most `max`. The owner turns each into a
    /// [`quorate_types::Request::LeaseRevoke`]. Nothing while following.
    pub fn expired(&self, now: Tick, max: usize) -> Vec<LeaseId> {
        if self.is_leading() { self.leases.expired(now, max) } else { Vec::new() }
    }

    /// When [`Partition::expired`] or [`Partition::checkpoints`] will have something to say; nothing while following. Renewals may put it
    /// off, only what is applied brings it forward.
    pub fn next_due(&self) -> Option<Tick> {
        self.leases.next_due()
    }

    /// How long `lease` has left; `None` when it is unknown. Meaningful at the leader only.
    pub fn time_to_live(&self, lease: LeaseId, now: Tick, with_keys: bool) -> Option<LeaseTime> {
        self.leases.time(lease, now, with_keys, &self.limits)
    }

    /// All leases, soonest to end first.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.leases.list()
    }

    /// The leader's view; panics while following, which is the owner's mistake.
    pub(crate) fn ahead(&self) -> Ahead<'_, E> {
        let overlay = self.overlay.as_ref();
        Ahead {
            space: KeySpace::new(&self.engine, self.group.keyspace).within(&self.slots),
            overlay: overlay.unwrap_or_else(|| panic!("group {} evaluates and does not lead", self.group)),
            cache: &self.cache,
            published: &self.publication.published,
            slots: &self.slots,
            rules: &self.rules,
            applied: self.head.revision,
            compacted: self.head.compacted,
        }
    }
}

/// A fault if the changes of the partition go beyond `head`: then data and head were not written together. What other
/// partitions of the keyspace changed since is stepped over, as far as that is bearable when a node starts.
fn check_head<E: Engine>(engine: &E, group: GroupId, slots: &SlotSet, head: &Head) -> Result<(), Fault> {
    let feed = engine.scan_back(Table::Change, layout::rows(Table::Change, group));
    for row in feed.take(FOREIGN_CHANGES_MAX) {
        let (row, sealed) = row?;
        let damaged = |cause| layout::damaged(Table::Change, &row, cause);
        let stamp = layout::split_change(&row).map_err(damaged)?;
        if stamp.revision <= head.revision {
            break;
        }
        let value = layout::open(Table::Change, &row, sealed)?;
        if slots.is_all() || slots.contains(layout::slot(Table::Change, &value).map_err(damaged)?) {
            return Err(damaged(Malformed("the newest change, which is newer than the state says")));
        }
    }
    Ok(())
}
