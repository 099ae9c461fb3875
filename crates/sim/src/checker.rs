//! What must hold of a run: linearizability, in the order of revisions.
//!
//! Revisions give the order in which writes took effect, so no search for one is needed: the history is
//! replayed in that order, and each answer is compared with the state at its revision (strict
//! serializability: Papadimitriou 1979; the real-time part as in Herlihy and Wing 1990).

use crate::clients::{Ask, Outcome};
use crate::world::World;
use quorate_types::reply::{Answer, OperationAnswer, RangeAnswer};
use quorate_types::request::{Compare, CompareResult, CompareTarget, Operation, RangeRequest, TxnRequest};
use quorate_types::{Event, Key, KeyValue, Rejection, Request, Revision};
use std::collections::BTreeMap;
use std::fmt;

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The run.
    pub seed: u64,
    /// When it was noticed.
    pub tick: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} at tick {}: {}\nto see it again: cargo xtask sim --seed {}",
            self.seed, self.tick, self.what, self.seed
        )
    }
}

type State = BTreeMap<Key, KeyValue>;

/// Ticks in a second of the simulated nodes.
const TICKS_PER_SECOND: u64 = 50;

/// Checks everything that was answered.
pub fn check(world: &World) -> Result<(), Violation> {
    let states = replay(world)?;
    check_order(world)?;
    for call in &world.calls {
        let Some(outcome) = &call.outcome else { continue };
        let problem = match (&call.ask, outcome) {
            (_, Outcome::Rejected(Rejection::Unknown)) => None,
            (Ask::Request(request), Outcome::Rejected(_)) => check_absent(world, request),
            (Ask::Read(request), Outcome::Read(revision, answer)) => {
                check_range(&states, *revision, request, answer)
            }
            (Ask::Request(request), Outcome::Reply(reply)) => {
                check_reply(world, &states, request, reply.revision, &reply.answer)
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(world.violation(format!("{problem}: {call:?}")));
        }
    }
    check_leases(world)
}

/// The state after each revision. Revisions must be contiguous.
fn replay(world: &World) -> Result<BTreeMap<Revision, State>, Violation> {
    let mut states = BTreeMap::from([(Revision::FIRST, State::new())]);
    let mut state = State::new();
    let mut last = Revision::FIRST;
    for (revision, (events, _)) in &world.history {
        if *revision != last.next() {
            return Err(world.violation(format!("revision {revision} came after {last}")));
        }
        for event in events {
            match event {
                Event::Put(pair) => {
                    let before = state.get(&pair.key);
                    let create = before.map_or(*revision, |pair| pair.create);
                    let version = before.map_or(1, |pair| pair.version + 1);
                    if (pair.create, pair.modified, pair.version) != (create, *revision, version) {
                        return Err(world.violation(format!("{pair:?} was written over {before:?}")));
                    }
                    state.insert(pair.key.clone(), pair.clone());
                }
                Event::Delete { key, .. } => {
                    if state.remove(key).is_none() {
                        return Err(
                            world.violation(format!("{key:?} was deleted at {revision} and not there"))
                        );
                    }
                }
            }
        }
        states.insert(*revision, state.clone());
        last = *revision;
    }
    Ok(states)
}

/// Whoever asks after an answer was given sees at least what that answer saw.
fn check_order(world: &World) -> Result<(), Violation> {
    let mut answers: Vec<(u64, Revision)> = Vec::new();
    for call in &world.calls {
        if let (Some(step), Some(revision)) = (call.answered, call.outcome.as_ref().and_then(seen)) {
            answers.push((step, revision));
        }
    }
    answers.sort_unstable();
    let mut newest = Vec::new();
    let mut max = Revision(0);
    for (step, revision) in answers {
        max = max.max(revision);
        newest.push((step, max));
    }
    for call in &world.calls {
        let Some(revision) = call.outcome.as_ref().and_then(seen) else { continue };
        let before = newest.partition_point(|(step, _)| *step < call.asked);
        let Some((_, floor)) = before.checked_sub(1).map(|at| newest[at]) else { continue };
        let is_write = changed(world, call.outcome.as_ref(), revision);
        if revision < floor || (is_write && revision == floor) {
            return Err(world.violation(format!("{call:?} saw {revision} after {floor} had been answered")));
        }
    }
    Ok(())
}

fn seen(outcome: &Outcome) -> Option<Revision> {
    match outcome {
        Outcome::Reply(reply) => Some(reply.revision),
        Outcome::Read(revision, _) => Some(*revision),
        Outcome::Rejected(_) => None,
    }
}

/// Whether the answer is of a call that made its revision.
fn changed(world: &World, outcome: Option<&Outcome>, revision: Revision) -> bool {
    match outcome {
        Some(Outcome::Reply(reply)) => match &reply.answer {
            Answer::Put(_) => true,
            Answer::DeleteRange(delete) => delete.deleted > 0,
            Answer::Txn(txn) => txn.succeeded && world.history.contains_key(&revision),
            _ => false,
        },
        _ => false,
    }
}

/// Values are unique, so a call that was refused must have left none.
fn check_absent(world: &World, request: &Request) -> Option<String> {
    let value = match request {
        Request::Put(put) => put.value.as_ref()?,
        Request::Txn(txn) => match txn.success.first()? {
            Operation::Put(put) => put.value.as_ref()?,
            _ => return None,
        },
        _ => return None,
    };
    let found = world.history.iter().find(|(_, (events, _))| {
        events.iter().any(|event| matches!(event, Event::Put(pair) if pair.value == *value))
    });
    found.map(|(revision, _)| format!("refused, but carried out at {revision}"))
}

fn check_range(
    states: &BTreeMap<Revision, State>,
    revision: Revision,
    request: &RangeRequest,
    answer: &RangeAnswer,
) -> Option<String> {
    let Some(state) = states.get(&revision) else {
        return Some(format!("answered at {revision}, which does not exist"));
    };
    let all: Vec<KeyValue> =
        state.values().filter(|pair| request.range.contains(&pair.key)).cloned().collect();
    let limit = request.limit.map_or(all.len(), |limit| limit as usize).min(all.len());
    let expected =
        RangeAnswer { more: limit < all.len(), count: all.len() as u64, pairs: all[..limit].to_vec() };
    (*answer != expected).then(|| format!("at {revision} it should have been {expected:?}"))
}

fn check_reply(
    world: &World,
    states: &BTreeMap<Revision, State>,
    request: &Request,
    revision: Revision,
    answer: &Answer,
) -> Option<String> {
    match (request, answer) {
        (Request::Put(put), Answer::Put(answered)) => {
            let events = &world.history.get(&revision)?.0;
            let is_ours = matches!(&events[..], [Event::Put(pair)]
                if pair.key == put.key && Some(&pair.value) == put.value.as_ref());
            if !is_ours {
                return Some(format!("acknowledged at {revision}, which is {events:?}"));
            }
            let before = states.get(&revision.previous()).and_then(|state| state.get(&put.key));
            (put.previous && answered.previous.as_ref() != before)
                .then(|| format!("before it was {before:?}"))
        }
        (Request::DeleteRange(delete), Answer::DeleteRange(answered)) => {
            let at = if answered.deleted > 0 { revision.previous() } else { revision };
            let state = states.get(&at)?;
            let gone: Vec<_> =
                state.values().filter(|pair| delete.range.contains(&pair.key)).cloned().collect();
            let is_right =
                answered.deleted == gone.len() as u64 && (!delete.previous || answered.previous == gone);
            (!is_right).then(|| format!("it should have deleted {gone:?}"))
        }
        (Request::Txn(txn), Answer::Txn(answered)) => {
            let at = if answered.succeeded { revision.previous() } else { revision };
            let holds = txn.compares.iter().all(|compare| holds(states.get(&at), compare));
            if holds != answered.succeeded {
                return Some(format!("on the state of {at} its compares give {holds}"));
            }
            check_txn_reads(states, txn, revision, answered.succeeded, &answered.responses)
        }
        _ => None,
    }
}

fn check_txn_reads(
    states: &BTreeMap<Revision, State>,
    txn: &TxnRequest,
    revision: Revision,
    succeeded: bool,
    responses: &[OperationAnswer],
) -> Option<String> {
    let branch = if succeeded { &txn.success } else { &txn.failure };
    if branch.len() != responses.len() {
        return Some("it has not an answer for each operation".into());
    }
    // Reads come after the writes of their transaction in this load, so they see its own revision.
    branch.iter().zip(responses).find_map(|pair| match pair {
        (Operation::Range(request), OperationAnswer::Range(_, answer)) => {
            check_range(states, revision, request, answer)
        }
        _ => None,
    })
}

fn holds(state: Option<&State>, compare: &Compare) -> bool {
    let pair = state.and_then(|state| state.get(compare.range.start()));
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let order = match &compare.target {
        CompareTarget::Version(given) => pair.map_or(0, |pair| signed(pair.version)).cmp(given),
        CompareTarget::Create(given) => pair.map_or(0, |pair| signed(pair.create.0)).cmp(given),
        CompareTarget::Modified(given) => pair.map_or(0, |pair| signed(pair.modified.0)).cmp(given),
        CompareTarget::Value(given) => match pair {
            Some(pair) => pair.value.cmp(given),
            None => return false,
        },
        CompareTarget::Lease(given) => {
            pair.and_then(|pair| pair.lease).map_or(0, |lease| lease.get()).cmp(given)
        }
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

/// A key that went because its lease ran out went no earlier than its holder was promised.
fn check_leases(world: &World) -> Result<(), Violation> {
    let mut state: BTreeMap<Key, KeyValue> = BTreeMap::new();
    for (revision, (events, tick)) in &world.history {
        for event in events {
            match event {
                Event::Put(pair) => {
                    state.insert(pair.key.clone(), pair.clone());
                }
                Event::Delete { key, .. } => {
                    let Some(lease) = state.remove(key).and_then(|pair| pair.lease) else { continue };
                    let was_asked_for = world.calls.iter().any(|call| {
                        call.asked_tick <= *tick
                            && match &call.ask {
                                Ask::Request(Request::DeleteRange(delete)) => delete.range.contains(key),
                                Ask::Request(Request::LeaseRevoke { lease: revoked }) => *revoked == lease,
                                _ => false,
                            }
                            && match &call.outcome {
                                Some(Outcome::Reply(reply)) => reply.revision == *revision,
                                Some(Outcome::Rejected(rejection)) => *rejection == Rejection::Unknown,
                                Some(Outcome::Read(..)) => false,
                                None => true,
                            }
                    });
                    if was_asked_for {
                        continue;
                    }
                    let promised = world.calls.iter().filter_map(|call| match (&call.ask, &call.outcome) {
                        (
                            Ask::Request(Request::LeaseKeepAlive { lease: kept }),
                            Some(Outcome::Reply(reply)),
                        ) if *kept == lease && reply.revision < *revision => match reply.answer {
                            Answer::LeaseKeepAlive { ttl_seconds: Some(ttl) } => {
                                Some(call.asked_tick + ttl * TICKS_PER_SECOND)
                            }
                            _ => None,
                        },
                        _ => None,
                    });
                    // A lease may have been revoked and granted anew since; then an old promise does not count.
                    let was_granted_anew = world.calls.iter().any(|call| {
                        matches!(&call.ask, Ask::Request(Request::LeaseRevoke { lease: revoked }) if *revoked == lease)
                    });
                    if let Some(promised) = promised.max()
                        && *tick + 1 < promised
                        && !was_granted_anew
                    {
                        let problem =
                            format!("lease {lease} ended at tick {tick}, promised until {promised}");
                        return Err(world.violation(problem));
                    }
                }
            }
        }
    }
    Ok(())
}
