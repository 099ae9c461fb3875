//! Random requests, with entries pending for a random while, against a naive twin: one map of the whole
//! state per revision, and transactions worked out on copies of it.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod support;

use quorate_types::reply::{DeleteAnswer, OperationAnswer, PutAnswer, RangeAnswer, TxnAnswer};
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    RevisionFilter, SortOrder, SortTarget, TxnRequest,
};
use quorate_types::{Answer, Bytes, Event, Key, KeyRange, KeyValue, LeaseId, Rejection, Request, Revision};
use std::collections::{BTreeMap, BTreeSet};
use support::{Pair, Random, lease};

type State = BTreeMap<Key, KeyValue>;

#[derive(Clone)]
struct Twin {
    /// The state after each revision, from 1 on.
    states: BTreeMap<u64, State>,
    compacted: i64,
    leases: BTreeSet<LeaseId>,
}

/// A transaction being executed.
struct Draft {
    now: State,
    before: u64,
    changed: bool,
}

impl Draft {
    fn revision(&self) -> u64 {
        self.before + u64::from(self.changed)
    }
}

impl Twin {
    fn new() -> Self {
        Self { states: BTreeMap::from([(1, State::new())]), compacted: -1, leases: BTreeSet::new() }
    }

    fn revision(&self) -> u64 {
        *self.states.keys().last().unwrap()
    }

    fn draft(&self) -> Draft {
        Draft { now: self.states[&self.revision()].clone(), before: self.revision(), changed: false }
    }

    fn keep(&mut self, draft: Draft) -> Revision {
        let revision = draft.revision();
        self.states.insert(revision, draft.now);
        Revision(revision)
    }

    fn range(&self, draft: &Draft, request: &RangeRequest) -> Result<RangeAnswer, Rejection> {
        let asked = request.revision.unwrap_or(0);
        if asked > draft.revision() as i64 {
            return Err(Rejection::FutureRevision { asked, newest: Revision(draft.revision()) });
        }
        if asked > 0 && asked < self.compacted {
            return Err(Rejection::Compacted { asked, oldest: Revision(self.compacted as u64) });
        }
        let state = if asked > 0 && asked <= draft.before as i64 {
            &self.states[&(asked as u64)]
        } else {
            &draft.now
        };
        let mut pairs: Vec<KeyValue> =
            state.values().filter(|pair| request.range.contains(&pair.key)).cloned().collect();
        let count = pairs.len() as u64;
        if request.count_only {
            return Ok(RangeAnswer { pairs: Vec::new(), more: false, count });
        }
        let limit = request.limit.map_or(usize::MAX, |limit| limit as usize);
        if request.sort_order.is_none() && request.filter == RevisionFilter::default() {
            pairs.truncate(limit.saturating_add(1));
        }
        let filter = request.filter;
        pairs.retain(|pair| {
            filter.modified_min.is_none_or(|bound| pair.modified >= bound)
                && filter.modified_max.is_none_or(|bound| pair.modified <= bound)
                && filter.create_min.is_none_or(|bound| pair.create >= bound)
                && filter.create_max.is_none_or(|bound| pair.create <= bound)
        });
        // Equal targets keep key order either way.
        let target = |pair: &KeyValue| -> (u64, Bytes) {
            match request.sort_target {
                SortTarget::Key => (0, pair.key.clone()),
                SortTarget::Version => (pair.version, Bytes::new()),
                SortTarget::Create => (pair.create.0, Bytes::new()),
                SortTarget::Modified => (pair.modified.0, Bytes::new()),
                SortTarget::Value => (0, pair.value.clone()),
            }
        };
        match request.sort_order {
            Some(SortOrder::Descending) => pairs.sort_by_key(|pair| std::cmp::Reverse(target(pair))),
            _ => pairs.sort_by_key(target),
        }
        let more = pairs.len() > limit;
        pairs.truncate(limit);
        if request.keys_only {
            for pair in &mut pairs {
                pair.value = Bytes::new();
                if request.sort_target != SortTarget::Value {
                    pair.lease = None;
                }
            }
        }
        Ok(RangeAnswer { pairs, more, count })
    }

    fn check_put(&self, request: &PutRequest) -> Result<(), Rejection> {
        if let PutLease::Attach(lease) = request.lease
            && !self.leases.contains(&lease)
        {
            return Err(Rejection::LeaseNotFound(lease));
        }
        let keeps = request.value.is_none() || request.lease == PutLease::Keep;
        if keeps && !self.states[&self.revision()].contains_key(&request.key) {
            return Err(Rejection::KeyNotFound);
        }
        Ok(())
    }

    fn put(&self, draft: &mut Draft, request: &PutRequest) -> Result<PutAnswer, Rejection> {
        let previous = draft.now.get(&request.key).cloned();
        if previous.is_none() && (request.value.is_none() || request.lease == PutLease::Keep) {
            return Err(Rejection::KeyNotFound);
        }
        draft.changed = true;
        let revision = Revision(draft.revision());
        let (create, version) = previous.as_ref().map_or((revision, 0), |pair| (pair.create, pair.version));
        let pair = KeyValue {
            key: request.key.clone(),
            value: request.value.clone().unwrap_or_else(|| previous.clone().unwrap().value),
            create,
            modified: revision,
            version: version + 1,
            lease: match request.lease {
                PutLease::Detach => None,
                PutLease::Attach(lease) => Some(lease),
                PutLease::Keep => previous.clone().unwrap().lease,
            },
        };
        draft.now.insert(request.key.clone(), pair);
        Ok(PutAnswer { previous: previous.filter(|_| request.previous) })
    }

    fn delete(&self, draft: &mut Draft, request: &DeleteRequest) -> DeleteAnswer {
        let gone: Vec<KeyValue> =
            draft.now.values().filter(|pair| request.range.contains(&pair.key)).cloned().collect();
        draft.changed |= !gone.is_empty();
        gone.iter().for_each(|pair| {
            draft.now.remove(&pair.key);
        });
        DeleteAnswer {
            deleted: gone.len() as u64,
            previous: if request.previous { gone } else { Vec::new() },
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let state = &self.states[&self.revision()];
        let pairs: Vec<&KeyValue> = state.values().filter(|pair| compare.range.contains(&pair.key)).collect();
        let one = |pair: Option<&KeyValue>| {
            let (stored, given): (Bytes, Bytes);
            let order = match &compare.target {
                CompareTarget::Version(given) => pair.map_or(0, |pair| pair.version as i64).cmp(given),
                CompareTarget::Create(given) => pair.map_or(0, |pair| pair.create.0 as i64).cmp(given),
                CompareTarget::Modified(given) => pair.map_or(0, |pair| pair.modified.0 as i64).cmp(given),
                CompareTarget::Lease(given) => {
                    pair.and_then(|pair| pair.lease).map_or(0, |lease| lease.get()).cmp(given)
                }
                CompareTarget::Value(value) => {
                    let Some(pair) = pair else { return false };
                    (stored, given) = (pair.value.clone(), value.clone());
                    stored.cmp(&given)
                }
            };
            match compare.result {
                CompareResult::Equal => order.is_eq(),
                CompareResult::NotEqual => order.is_ne(),
                CompareResult::Less => order.is_lt(),
                CompareResult::Greater => order.is_gt(),
            }
        };
        if pairs.is_empty() { one(None) } else { pairs.into_iter().all(|pair| one(Some(pair))) }
    }

    fn check(&self, request: &TxnRequest) -> Result<(), Rejection> {
        let succeeded = request.compares.iter().all(|compare| self.holds(compare));
        for operation in if succeeded { &request.success } else { &request.failure } {
            match operation {
                Operation::Range(range) => {
                    let asked = range.revision.unwrap_or(0);
                    if asked > self.revision() as i64 {
                        return Err(Rejection::FutureRevision { asked, newest: Revision(self.revision()) });
                    }
                    if asked != 0 && asked < self.compacted {
                        let oldest = if self.compacted < 0 { 1 } else { self.compacted as u64 };
                        return Err(Rejection::Compacted { asked, oldest: Revision(oldest) });
                    }
                }
                Operation::Put(put) => self.check_put(put)?,
                Operation::DeleteRange(_) => {}
                Operation::Txn(inner) => self.check(inner)?,
            }
        }
        Ok(())
    }

    fn execute(&self, draft: &mut Draft, request: &TxnRequest) -> Result<TxnAnswer, Rejection> {
        let succeeded = request.compares.iter().all(|compare| self.holds(compare));
        let mut responses = Vec::new();
        for operation in if succeeded { &request.success } else { &request.failure } {
            responses.push(match operation {
                Operation::Range(range) => {
                    let answer = self.range(draft, range)?;
                    OperationAnswer::Range(Revision(draft.revision()), answer)
                }
                Operation::Put(put) => {
                    let answer = self.put(draft, put)?;
                    OperationAnswer::Put(Revision(draft.revision()), answer)
                }
                Operation::DeleteRange(delete) => {
                    let answer = self.delete(draft, delete);
                    OperationAnswer::DeleteRange(Revision(draft.revision()), answer)
                }
                Operation::Txn(inner) => OperationAnswer::Txn(self.execute(draft, inner)?),
            });
        }
        Ok(TxnAnswer { succeeded, responses })
    }

    fn evaluate(&mut self, request: &Request) -> Result<(Revision, Answer), Rejection> {
        let mut draft = self.draft();
        let answer = match request {
            Request::Range(range) => Answer::Range(self.range(&draft, range)?),
            Request::Put(put) => {
                self.check_put(put)?;
                Answer::Put(self.put(&mut draft, put)?)
            }
            Request::DeleteRange(delete) => Answer::DeleteRange(self.delete(&mut draft, delete)),
            Request::Txn(txn) => {
                self.check(txn)?;
                Answer::Txn(self.execute(&mut draft, txn)?)
            }
            Request::Compact { revision, .. } => {
                let newest = Revision(self.revision());
                if *revision <= self.compacted {
                    let oldest = if self.compacted < 0 { 1 } else { self.compacted as u64 };
                    return Err(Rejection::Compacted { asked: *revision, oldest: Revision(oldest) });
                }
                if *revision > newest.0 as i64 {
                    return Err(Rejection::FutureRevision { asked: *revision, newest });
                }
                self.compacted = *revision;
                Answer::Compact
            }
            Request::LeaseGrant { lease, ttl_seconds } => {
                if !self.leases.insert(*lease) {
                    return Err(Rejection::LeaseExists(*lease));
                }
                Answer::LeaseGrant { lease: *lease, ttl_seconds: (*ttl_seconds).max(2) as u64 }
            }
            Request::LeaseRevoke { lease } => {
                if !self.leases.remove(lease) {
                    return Err(Rejection::LeaseNotFound(*lease));
                }
                let before = draft.now.len();
                draft.now.retain(|_, pair| pair.lease != Some(*lease));
                draft.changed = draft.now.len() < before;
                Answer::LeaseRevoke
            }
            _ => unreachable!(),
        };
        Ok((self.keep(draft), answer))
    }
}

fn key(random: &mut Random) -> Key {
    random.pick(&["a", "a\0", "ab", "b", "c", "d/e", "d/f"]).into()
}

fn key_range(random: &mut Random) -> KeyRange {
    match random.below(6) {
        0 => KeyRange::all(),
        1 => KeyRange::prefix(random.pick(&["a", "d/"])),
        2 => KeyRange::Between(key(random), key(random)),
        3 => KeyRange::From(key(random)),
        _ => KeyRange::Single(key(random)),
    }
}

fn some_lease(random: &mut Random) -> LeaseId {
    lease(1 + random.below(4) as i64)
}

fn revision_near(random: &mut Random, newest: u64) -> i64 {
    match random.below(8) {
        0 => newest as i64 + 1,
        1 => -(random.below(3) as i64),
        2 => random.below(newest + 1) as i64,
        _ => (newest - random.below(newest.min(6))) as i64,
    }
}

fn some_range(random: &mut Random, newest: u64) -> RangeRequest {
    let bound = |random: &mut Random| random.chance(8).then(|| Revision(random.below(newest + 2)));
    RangeRequest {
        range: key_range(random),
        revision: random.chance(3).then(|| revision_near(random, newest)),
        limit: random.chance(2).then(|| 1 + random.below(4)),
        sort_order: random.pick(&[None, None, Some(SortOrder::Ascending), Some(SortOrder::Descending)]),
        sort_target: random.pick(&[
            SortTarget::Key,
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Modified,
            SortTarget::Value,
        ]),
        keys_only: random.chance(4),
        count_only: random.chance(6),
        filter: RevisionFilter {
            modified_min: bound(random),
            modified_max: bound(random),
            create_min: bound(random),
            create_max: bound(random),
        },
        serializable: false,
    }
}

fn some_put(random: &mut Random) -> PutRequest {
    PutRequest {
        key: key(random),
        value: (!random.chance(6)).then(|| format!("v{}", random.below(5)).into()),
        lease: match random.below(6) {
            0 => PutLease::Keep,
            1 | 2 => PutLease::Attach(some_lease(random)),
            _ => PutLease::Detach,
        },
        previous: random.chance(2),
    }
}

fn some_delete(random: &mut Random) -> DeleteRequest {
    DeleteRequest { range: key_range(random), previous: random.chance(2) }
}

fn some_compare(random: &mut Random, newest: u64) -> Compare {
    let number = random.below(newest.min(9) + 2) as i64;
    Compare {
        range: key_range(random),
        result: random.pick(&[
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Less,
            CompareResult::Greater,
        ]),
        target: match random.below(6) {
            0 => CompareTarget::Create(number),
            1 => CompareTarget::Modified(newest as i64 - number),
            2 => CompareTarget::Lease(random.below(3) as i64),
            3 => CompareTarget::Value(format!("v{}", random.below(5)).into()),
            _ => CompareTarget::Version(random.below(3) as i64),
        },
    }
}

fn some_txn(random: &mut Random, newest: u64, depth: u32) -> TxnRequest {
    let list = |random: &mut Random| -> Vec<Operation> {
        (0..random.below(4))
            .map(|_| match random.below(if depth < 2 { 7 } else { 6 }) {
                0 | 1 => Operation::Range(some_range(random, newest)),
                2 => Operation::DeleteRange(some_delete(random)),
                3..=5 => Operation::Put(some_put(random)),
                _ => Operation::Txn(some_txn(random, newest, depth + 1)),
            })
            .collect()
    };
    TxnRequest {
        compares: (0..random.below(3)).map(|_| some_compare(random, newest)).collect(),
        success: list(random),
        failure: list(random),
    }
}

fn some_request(random: &mut Random, newest: u64) -> Request {
    match random.below(24) {
        0..=3 => Request::Range(some_range(random, newest)),
        4..=10 => Request::Put(some_put(random)),
        11 | 12 => Request::DeleteRange(some_delete(random)),
        13..=19 => Request::Txn(some_txn(random, newest, 0)),
        20 => Request::Compact { revision: revision_near(random, newest), physical: false },
        21 | 22 => Request::LeaseGrant { lease: some_lease(random), ttl_seconds: random.below(9) as i64 - 2 },
        _ => Request::LeaseRevoke { lease: some_lease(random) },
    }
}

/// What the events of one revision make of the state before it.
fn replayed(state: &State, events: &[Event]) -> State {
    let mut state = state.clone();
    for event in events {
        match event {
            Event::Put(pair) => state.insert(pair.key.clone(), pair.clone()),
            Event::Delete { key, .. } => state.remove(key),
        };
    }
    state
}

/// The store, read through a reader, against the twin as of what is applied.
fn check_applied(pair: &Pair, twin: &Twin, random: &mut Random) {
    let reader = pair.follower.reader();
    let applied = reader.revision().0;
    let mut then = twin.clone();
    then.states.retain(|revision, _| *revision <= applied);
    then.compacted = reader.compacted().map_or(-1, |revision| revision.0 as i64);
    for _ in 0..4 {
        let request = some_range(random, applied);
        let expected = then.range(&then.draft(), &request).map(|answer| (Revision(applied), answer));
        match (reader.range(&request, Revision(applied)), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{request:?}"),
            (Err(quorate_partition::ReadError::Rejection(found)), Err(expected)) => {
                assert_eq!(found, expected, "{request:?}");
            }
            (found, expected) => panic!("{request:?}: {found:?} and not {expected:?}"),
        }
        let request = some_txn(random, applied, 9);
        if request.is_read_only() {
            let mut draft = then.draft();
            let expected = then.check(&request).and_then(|()| then.execute(&mut draft, &request));
            match (reader.txn(&request, Revision(applied)), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, (Revision(applied), expected), "{request:?}"),
                (Err(quorate_partition::ReadError::Rejection(found)), Err(expected)) => {
                    assert_eq!(found, expected, "{request:?}");
                }
                (found, expected) => panic!("{request:?}: {found:?} and not {expected:?}"),
            }
        }
    }
    let mut from = Some(Revision(then.compacted.max(1) as u64));
    let mut state = then.states[&from.unwrap().previous().0.max(1)].clone();
    while let Some(at) = from {
        let page = reader.changes(at, 200).unwrap();
        for changes in &page.changes {
            state = replayed(&state, &changes.events);
            assert_eq!(state, then.states[&changes.revision.0], "changes of {}", changes.revision);
        }
        from = page.next;
    }
    assert_eq!(state, then.states[&applied]);
}

#[test]
fn whatever_is_asked_the_answer_is_the_naive_twins() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut pair = Pair::new();
        let mut twin = Twin::new();
        for step in 0..250 {
            let request = some_request(&mut random, twin.revision());
            let expected = twin.clone().evaluate(&request);
            let found = pair.evaluate(&request);
            assert_eq!(found, expected, "seed {seed} step {step} {request:?}");
            if expected.is_ok() {
                twin.evaluate(&request).unwrap();
            }
            if random.chance(3) {
                let count = random.below(8) as usize;
                Pair::apply_to(&mut pair.leader, &pair.log, count, pair.now);
            }
            if random.chance(4) {
                let count = random.below(12) as usize;
                Pair::apply_to(&mut pair.follower, &pair.log, count, pair.now);
                support::compact_step(&pair.follower, 5);
                check_applied(&pair, &twin, &mut random);
            }
            if random.chance(60) {
                pair.elect();
            }
        }
        pair.apply_all();
        check_applied(&pair, &twin, &mut random);
        while !support::compact_step(&pair.follower, 100) {}
        let hash = |reader: quorate_partition::Reader<_>| reader.hash_kv(0).unwrap();
        assert_eq!(hash(pair.leader.reader()), hash(pair.follower.reader()), "seed {seed}");
        let leases = |pair: &Pair| pair.follower.leases().into_iter().collect::<BTreeSet<_>>();
        assert_eq!(leases(&pair), twin.leases);
    }
}
