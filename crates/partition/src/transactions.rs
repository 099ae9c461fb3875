//! A partition's share in transactions over several partitions: locks, what it held before, prepared parts, decisions.
//!
//! The host runs the protocol (`docs/partitions.md`); here is what each step does to one partition. At the leader:
//!
//! * [`Partition::lock`] holds locks in memory, for the home partition and for partitions that are only read;
//! * [`Partition::prepare`] makes them outlive the leader: an entry, and from then on every later leader holds them;
//! * [`Partition::pre_state`] says what the transaction finds, on the overlay;
//! * [`Partition::decide`], [`Partition::commit`], [`Partition::abort`] end it, each by an entry.
//!
//! On every replica applying those entries keeps two tables as rows: what is prepared and not ended, and what was decided
//! and is still owed to other partitions.
//!
//! [`evaluate_over`] evaluates a request on the states that its partitions sent: the same code as for one partition, over a view
//! made of what came.

use crate::error::ReadError;
use crate::evaluate::{check_compact, needs_space};
use crate::footprint::Places;
use crate::limits::Limits;
use crate::locks::{Claim, Held};
use crate::overlay::LeaseFate;
use crate::partition::Partition;
use crate::range;
use crate::txn;
use crate::view::{PairIter, View};
use crate::writer::{Writer, Written};
use quorate_mvcc::engine::Engine;
use quorate_types::reply::LeaseTime;
use quorate_types::revision::LocalRevisions;
use quorate_types::{
    Answer, Bytes, Committed, Decide, Effect, Encode, EntryKind, Fault, Footprint, Index, Key, KeyRange,
    KeyValue, KnownLease, LeaseId, Part, PartitionId, PastRange, PreState, Prepared, Rejection, Request,
    Revision, Slot, Tick, TxnId,
};
use std::collections::{BTreeMap, BTreeSet};

impl<E: Engine> Partition<E> {
    /// Whether anything is locked here; while nothing is, nobody needs to ask whether it is in the way.
    pub fn has_locks(&self) -> bool {
        !self.locks.is_empty()
    }

    /// Whether whoever touches this has to wait for a transaction.
    pub fn is_locked(&self, footprint: &Footprint) -> bool {
        self.locks.conflicts(footprint)
    }

    /// Transactions that hold something here for which this claim would have to wait.
    pub fn in_the_way_of(&self, claim: &Claim) -> Vec<TxnId> {
        let holders = self.locks.holders().filter(|(_, footprint)| claim.excludes(footprint));
        holders.map(|(id, _)| id).collect()
    }

    /// Whether a read of these ranges as of `at` has to wait for a prepared transaction.
    pub fn hides(&self, ranges: &[KeyRange], at: Revision) -> bool {
        self.locks.hides(ranges, at)
    }

    /// Whether a transaction holds its locks here.
    pub fn holds(&self, id: TxnId) -> bool {
        self.locks.get(id).is_some()
    }

    /// Whether the transaction is prepared in the applied state, and not ended.
    pub fn is_prepared(&self, id: TxnId) -> bool {
        self.prepared.contains_key(&id)
    }

    /// The transactions that are prepared in the applied state and not ended.
    pub fn prepared(&self) -> impl Iterator<Item = TxnId> {
        self.prepared.keys().copied()
    }

    /// The transactions decided here that other partitions may not know the end of, and what each of them is owed.
    pub fn decided(&self) -> impl Iterator<Item = (TxnId, &[Part])> {
        self.decided.iter().map(|(id, others)| (*id, others.as_slice()))
    }

    /// The revisions of those that change keys elsewhere.
    pub fn revisions_decided(&self) -> Vec<Revision> {
        let revision = |parts: &Vec<Part>| {
            let mut effects = parts.iter().flat_map(|part| &part.effects);
            effects.find_map(|effect| Some(effect.stamp()?.revision))
        };
        self.decided.values().filter_map(revision).collect()
    }

    /// What the transaction changes elsewhere, if it was decided here and is not forgotten.
    pub fn decision(&self, id: TxnId) -> Option<&[Part]> {
        self.decided.get(&id).map(Vec::as_slice)
    }

    /// Whether a key may be attached to the lease here: this is its home, or its home knows that keys of it are here.
    pub fn knows_lease(&self, lease: LeaseId) -> bool {
        self.lease_exists(lease)
    }

    /// The other partitions that hold keys of a lease whose home this is.
    pub fn lease_holders(&self, lease: LeaseId) -> Vec<PartitionId> {
        let mut holders = self.leases.holders(lease);
        holders.extend(self.overlay.iter().flat_map(|overlay| overlay.holders(lease)));
        holders
    }

    /// The lowest revision above which a transaction may commit that was prepared when this leader registered: it may have its revision, of
    /// which the sequencer does not know, and its changes here are not applied.
    pub fn inherited_floor(&self) -> Option<Revision> {
        let inherited = self.prepared.values().filter(|prepared| self.inherited.contains(&prepared.id));
        inherited.map(|prepared| prepared.floor).min()
    }

    /// Whether a pending entry may change keys of these ranges at `at` or before: the last such entry's index. A reader has to wait until it
    /// is applied.
    pub fn pending_until(&self, ranges: &[KeyRange], at: Revision) -> Option<Index> {
        self.overlay.as_ref().and_then(|overlay| overlay.pending_until(ranges, at))
    }

    /// Holds locks in memory: they end with this leader's term. The caller has asked [`Partition::is_locked`].
    pub fn lock(&mut self, id: TxnId, footprint: Footprint) {
        let floor = self.newest();
        self.locks.hold(id, Held { footprint, floor, is_prepared: false });
    }

    /// Gives locks back that were held in memory. Returns whether there were any.
    pub fn unlock(&mut self, id: TxnId) -> bool {
        let is_volatile = self.locks.get(id).is_some_and(|held| !held.is_prepared);
        is_volatile && self.locks.release(id)
    }

    /// What the transaction finds here. Its locks are held.
    pub fn pre_state(&self, footprint: &Footprint, now: Tick) -> Result<PreState, Fault> {
        let view = self.ahead();
        let at = view.revision();
        let mut pairs: BTreeMap<Key, KeyValue> = BTreeMap::new();
        for range in footprint.exclusive.iter().chain(&footprint.shared) {
            collect(&view, range, at, |pair| {
                pairs.insert(pair.key.clone(), pair);
            })?;
        }
        let mut past = Vec::with_capacity(footprint.past.len());
        for PastRange { range, revision } in &footprint.past {
            let mut found = Vec::new();
            if *revision <= at && view.compacted().is_none_or(|oldest| oldest <= *revision) {
                collect(&view, range, *revision, |pair| found.push(pair))?;
            }
            past.push(found);
        }
        let mut leases = Vec::new();
        for lease in footprint.leases_exclusive.iter().chain(&footprint.leases_shared) {
            if !self.lease_exists(*lease) {
                continue;
            }
            let keys = self.keys_of(&view, *lease)?;
            if footprint.leases_exclusive.contains(lease) {
                for key in &keys {
                    if let Some(pair) = view.get(key, at)? {
                        pairs.insert(key.clone(), pair);
                    }
                }
            }
            leases.push(self.known(*lease, keys, now));
        }
        if footprint.all_leases {
            leases
                .extend(self.leases.list().into_iter().map(|lease| self.known(lease, BTreeSet::new(), now)));
        }
        let compacted = view.compacted();
        Ok(PreState { at, pairs: pairs.into_values().collect(), past, leases, compacted })
    }

    fn known(&self, lease: LeaseId, keys: BTreeSet<Key>, now: Tick) -> KnownLease {
        KnownLease {
            lease,
            is_home: !self.is_lease_elsewhere(lease),
            holders: self.lease_holders(lease),
            keys: keys.into_iter().collect(),
            time: self.lease_time(lease, now),
        }
    }

    fn lease_time(&self, lease: LeaseId, now: Tick) -> Option<LeaseTime> {
        match self.overlay.as_ref().and_then(|overlay| overlay.lease(lease)) {
            // Its time begins when the grant is applied.
            Some(LeaseFate::Granted { ttl_seconds }) => Some(LeaseTime {
                granted_seconds: ttl_seconds,
                remaining_seconds: ttl_seconds,
                remaining_ticks: ttl_seconds.saturating_mul(self.limits.ticks_per_second),
                keys: Vec::new(),
            }),
            _ => self.leases.time(lease, now, false, &self.limits),
        }
    }

    fn is_lease_elsewhere(&self, lease: LeaseId) -> bool {
        let pending = self.overlay.as_ref().and_then(|overlay| overlay.lease(lease));
        pending == Some(LeaseFate::Copied) || self.leases.is_copy(lease)
    }

    /// The keys of a lease that ends are locked with it.
    pub fn with_keys_of_leases(&self, mut footprint: Footprint) -> Result<Footprint, Fault> {
        if footprint.leases_exclusive.is_empty() {
            return Ok(footprint);
        }
        let view = self.ahead();
        for lease in &footprint.leases_exclusive {
            for key in self.keys_of(&view, *lease)? {
                footprint.exclusive.push(KeyRange::Single(key));
            }
        }
        Ok(footprint)
    }

    /// Holds locks that outlive this leader: the entry returned must be proposed at `index` next. The vote may be given when it is
    /// applied.
    pub fn prepare(
        &mut self,
        id: TxnId,
        footprint: Footprint,
        index: Index,
    ) -> Result<(EntryKind, Bytes), Rejection> {
        let floor = self.newest();
        let prepared = Prepared { id, footprint, floor };
        let data = self.checked(prepared.encoded())?;
        self.locks.hold(id, Held { footprint: prepared.footprint, floor, is_prepared: true });
        self.register_changes(index, None, Vec::new());
        Ok((EntryKind::Prepare, data))
    }

    /// The transaction commits, at home. The entry returned must be proposed at `index` next: when it is committed, so is the transaction.
    pub fn decide(
        &mut self,
        id: TxnId,
        outcome: &Outcome,
        index: Index,
    ) -> Result<(EntryKind, Bytes), Rejection> {
        let own = outcome.parts.get(&id.home).cloned().unwrap_or_default();
        let others = outcome.parts.iter().filter(|(partition, _)| **partition != id.home);
        let others = others
            .map(|(partition, effects)| Part { partition: *partition, effects: effects.clone() })
            .collect();
        let decide = Decide::Commit { id, own, others };
        let data = self.checked(decide.encoded())?;
        let Decide::Commit { own, .. } = decide else { unreachable!("made above") };
        self.locks.release(id);
        self.register_changes(index, outcome.drawn, own);
        Ok((EntryKind::Decide, data))
    }

    /// The prepared transaction commits with these effects here. `None` when its end is in the log already, or it was never prepared.
    pub fn commit(&mut self, id: TxnId, effects: Vec<Effect>, index: Index) -> Option<(EntryKind, Bytes)> {
        if !self.locks.release(id) {
            return None;
        }
        let revision = effects.iter().find_map(Effect::stamp).map(|stamp| stamp.revision);
        let committed = Committed { id, effects };
        let data = committed.encoded();
        self.register_changes(index, revision, committed.effects);
        Some((EntryKind::Commit, data))
    }

    /// The prepared transaction does not happen. `None` as for [`Partition::commit`].
    pub fn abort(&mut self, id: TxnId, index: Index) -> Option<(EntryKind, Bytes)> {
        if !self.locks.release(id) {
            return None;
        }
        self.register_changes(index, None, Vec::new());
        Some((EntryKind::Abort, id.encoded()))
    }

    /// Nobody will ask about these decisions any more.
    pub fn forget(&mut self, ids: Vec<TxnId>, index: Index) -> (EntryKind, Bytes) {
        self.register_changes(index, None, Vec::new());
        (EntryKind::Decide, Decide::Forget(ids).encoded())
    }

    fn checked(&self, data: Bytes) -> Result<Bytes, Rejection> {
        let bytes_max = self.limits.entry_bytes_max as u64;
        if data.len() as u64 > bytes_max {
            return Err(Rejection::TooLarge { bytes: data.len() as u64, bytes_max });
        }
        Ok(data)
    }

    /// Takes the changes of an entry into the overlay.
    pub(crate) fn register_changes(
        &mut self,
        index: Index,
        revision: Option<Revision>,
        effects: Vec<Effect>,
    ) {
        for effect in &effects {
            if let Effect::LeaseRemove { lease } = effect {
                self.leases.ending(*lease);
            }
        }
        let changed = effects.iter().filter_map(changed_pair).collect();
        if let Some(overlay) = &mut self.overlay {
            overlay.register(index, Written { revision, changed, effects });
        }
    }
}

fn changed_pair(effect: &Effect) -> Option<(Key, Option<KeyValue>)> {
    match effect {
        Effect::Put { stamp, key, value, create, version, lease, .. } => {
            let pair = KeyValue {
                key: key.clone(),
                value: value.clone(),
                create: *create,
                modified: stamp.revision,
                version: *version,
                lease: *lease,
            };
            Some((key.clone(), Some(pair)))
        }
        Effect::Delete { key, .. } => Some((key.clone(), None)),
        _ => None,
    }
}

fn collect<V: View>(
    view: &V,
    range: &KeyRange,
    at: Revision,
    mut take: impl FnMut(KeyValue),
) -> Result<(), Fault> {
    match range {
        KeyRange::Single(key) => view.get(key, at)?.into_iter().for_each(take),
        range if range.is_empty() => {}
        range => {
            for pair in view.pairs(range, at) {
                take(pair?);
            }
        }
    }
    Ok(())
}

/// What a request over several partitions came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The revision it took, if it changes keys: the one after `at`.
    pub drawn: Option<Revision>,
    /// What it changes in each partition; none if it changes nothing.
    pub parts: BTreeMap<PartitionId, Vec<Effect>>,
    /// Of the reply, which lacks only the term.
    pub reply: (Revision, Answer),
}

impl Outcome {
    /// The partitions in which keys change. Others may change what they know of a lease, which has no revision.
    pub fn changed(&self) -> Vec<PartitionId> {
        let has_keys = |effects: &[Effect]| effects.iter().any(|effect| effect.stamp().is_some());
        let changed = self.parts.iter().filter(|(_, effects)| has_keys(effects));
        changed.map(|(partition, _)| *partition).collect()
    }
}

/// Evaluates `request` on what its partitions hold, as of the keyspace's newest revision `at`.
pub fn evaluate_over(
    request: &Request,
    states: &BTreeMap<PartitionId, (Footprint, PreState)>,
    places: &impl Places,
    at: Revision,
    limits: &Limits,
    no_space: bool,
) -> Result<Outcome, ReadError> {
    if no_space && needs_space(request) {
        return Err(Rejection::NoSpace.into());
    }
    let view = Assembled::new(states, at, places);
    let mut writer = Writer::new(&view, LocalRevisions::after(at));
    let known = |lease: LeaseId| {
        states.values().flat_map(|(_, state)| &state.leases).filter(move |known| known.lease == lease)
    };
    let lease_exists = |lease: LeaseId| known(lease).next().is_some();
    // Lease effects that are not of the writer's: they name their partition.
    let mut of_leases: Vec<(PartitionId, Effect)> = Vec::new();
    let answer = match request {
        Request::Range(request) => {
            let asked = range::revision_asked(&view, request.revision)?;
            Answer::Range(range::answer(&view, request, asked)?)
        }
        Request::Put(request) => {
            txn::check_put(&view, request, &lease_exists)?;
            Answer::Put(writer.put(request)?)
        }
        Request::DeleteRange(request) => Answer::DeleteRange(writer.delete_range(request)?),
        Request::Txn(request) => {
            let path = txn::choose(&view, request)?;
            // A revision that was in the future when a partition looked was not collected.
            let then = states.values().map(|(_, state)| state.at).fold(at, Revision::min);
            txn::check(&Assembled::new(states, then, places), &path, &lease_exists)?;
            Answer::Txn(txn::execute(&mut writer, &path)?)
        }
        Request::Compact { revision, physical: _ } => {
            let revision = check_compact(&view, *revision)?;
            of_leases.extend(states.keys().map(|partition| (*partition, Effect::Compact { revision })));
            Answer::Compact
        }
        Request::LeaseRevoke { lease } => {
            if !known(*lease).any(|known| known.is_home) {
                return Err(Rejection::LeaseNotFound(*lease).into());
            }
            let keys: BTreeSet<&Key> = known(*lease).flat_map(|known| &known.keys).collect();
            for key in keys {
                writer.delete(key.clone(), Some(*lease));
            }
            let holders = states
                .iter()
                .filter(|(_, (_, state))| state.leases.iter().any(|known| known.lease == *lease));
            of_leases
                .extend(holders.map(|(partition, _)| (*partition, Effect::LeaseRemove { lease: *lease })));
            Answer::LeaseRevoke
        }
        Request::LeaseGrant { .. }
        | Request::LeaseKeepAlive { .. }
        | Request::LeaseTimeToLive { .. }
        | Request::Leases => panic!("{request:?} is not over several partitions"),
    };
    let revision = writer.revision();
    let written = writer.finish();
    let mut parts: BTreeMap<PartitionId, Vec<Effect>> = BTreeMap::new();
    for effect in written.effects {
        let key = match &effect {
            Effect::Put { key, .. } | Effect::Delete { key, .. } => key.clone(),
            other => panic!("{other:?} names no key"),
        };
        let Some(partition) = places.of_range(&KeyRange::Single(key)) else {
            panic!("a key without a partition")
        };
        if let Effect::Put { lease: Some(lease), .. } = &effect {
            introduce(*lease, partition, states, places, &mut parts);
        }
        parts.entry(partition).or_default().push(effect);
    }
    for (partition, effect) in of_leases {
        parts.entry(partition).or_default().push(effect);
    }
    let bytes_max = limits.entry_bytes_max as u64;
    let bytes: u64 = parts.values().map(|effects| effects.encoded().len() as u64).sum();
    if bytes > bytes_max {
        return Err(Rejection::TooLarge { bytes, bytes_max }.into());
    }
    Ok(Outcome { drawn: written.revision, parts, reply: (revision, answer) })
}

/// A key in `partition` is attached to the lease: if that is the first there, its home learns of it, and the partition of the lease.
fn introduce(
    lease: LeaseId,
    partition: PartitionId,
    states: &BTreeMap<PartitionId, (Footprint, PreState)>,
    places: &impl Places,
    parts: &mut BTreeMap<PartitionId, Vec<Effect>>,
) {
    let home = places.of_lease(lease);
    let is_known = states
        .get(&partition)
        .is_some_and(|(_, state)| state.leases.iter().any(|known| known.lease == lease));
    // A put that keeps the key's lease did not ask about it: then the key belongs to it already, and so it is known.
    let was_asked =
        states.get(&partition).is_some_and(|(footprint, _)| footprint.leases_exclusive.contains(&lease));
    if home == partition || is_known || !was_asked {
        return;
    }
    let copy = Effect::LeaseCopy { lease };
    let effects = parts.entry(partition).or_default();
    if !effects.contains(&copy) {
        effects.push(copy);
        parts.entry(home).or_default().push(Effect::LeaseHolder { lease, holder: partition });
    }
}

/// What the partitions of a transaction sent, as one state.
struct Assembled<'a, P> {
    places: &'a P,
    revision: Revision,
    compacted: Option<Revision>,
    pairs: BTreeMap<Key, KeyValue>,
    past: Vec<(&'a PastRange, BTreeMap<Key, KeyValue>)>,
}

impl<'a, P: Places> Assembled<'a, P> {
    fn new(
        states: &'a BTreeMap<PartitionId, (Footprint, PreState)>,
        revision: Revision,
        places: &'a P,
    ) -> Self {
        let mut assembled =
            Self { places, revision, compacted: None, pairs: BTreeMap::new(), past: Vec::new() };
        for (footprint, state) in states.values() {
            assembled.compacted = assembled.compacted.max(state.compacted);
            assembled.pairs.extend(state.pairs.iter().map(|pair| (pair.key.clone(), pair.clone())));
            for (past, pairs) in footprint.past.iter().zip(&state.past) {
                let pairs = pairs.iter().map(|pair| (pair.key.clone(), pair.clone()));
                match assembled.past.iter_mut().find(|(known, _)| *known == past) {
                    Some((_, found)) => found.extend(pairs),
                    None => assembled.past.push((past, pairs.collect())),
                }
            }
        }
        assembled
    }

    /// The pairs that were collected for this very range as of then, or those of now.
    fn as_of(&self, range: &KeyRange, at: Revision) -> &BTreeMap<Key, KeyValue> {
        match self.past.iter().find(|(past, _)| past.range == *range && past.revision == at) {
            Some((_, pairs)) => pairs,
            None if at >= self.revision => &self.pairs,
            None => panic!("{range:?} as of {at} was not collected"),
        }
    }
}

impl<P: Places> View for Assembled<'_, P> {
    fn slot(&self, key: &[u8]) -> Slot {
        self.places.slot(key)
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn compacted(&self) -> Option<Revision> {
        self.compacted
    }

    fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Fault> {
        if at >= self.revision && self.past.is_empty() {
            return Ok(self.pairs.get(key).cloned());
        }
        Ok(self.as_of(&KeyRange::Single(key.clone()), at).get(key).cloned())
    }

    fn pairs<'v>(&'v self, range: &KeyRange, at: Revision) -> PairIter<'v> {
        Box::new(self.as_of(range, at).range::<[u8], _>(range.bounds()).map(|(_, pair)| Ok(pair.clone())))
    }
}

impl<E: Engine> Partition<E> {
    /// What pending entries and state together say of a lease; see [`LeaseFate`].
    pub(crate) fn lease_exists(&self, lease: LeaseId) -> bool {
        match self.overlay.as_ref().and_then(|overlay| overlay.lease(lease)) {
            Some(LeaseFate::Granted { .. } | LeaseFate::Copied) => true,
            Some(LeaseFate::Removed) => false,
            Some(LeaseFate::Checkpointed { .. }) | None => self.leases.contains(lease),
        }
    }
}
