//! Strict serializability of what was answered from outside (Papadimitriou 1979; the real-time part: [`crate::order`]).
//!
//! The history that all nodes agree on in the end is replayed revision by revision. Then
//!
//! * every answer is what the model says on the state of its revision, or of the one before for what changed something;
//! * every acknowledged change is in the history, at the revision that was acknowledged, and nobody else made that revision;
//! * every revision was made by somebody: an acknowledged call, one whose outcome is unknown, once, or a lease that ended;
//! * nothing that was refused is in the history;
//! * nobody sees less than what anybody was told before he asked, and writes come after it.
//!
//! A read from a node's own copy (serializable) may be old, but it must be of some revision.
//!
//! Caveats: values must be unique, as the writer of a revision that nobody acknowledged is found by them. Deletes of unknown outcome are found by what they
//! delete, so one may stand for another.

use crate::calls::{self, Call, Outcome, events as shown, text};
use crate::model::{self, Model, State, range_of, says_changed};
use crate::order::{Floors, Sight};
use crate::{History, Violation};
use quorate_types::request::Operation;
use quorate_types::{Answer, Bytes, Event, Key, LeaseId, Request, Revision};
use std::collections::{BTreeMap, BTreeSet};

/// After so many the rest is of little use.
const VIOLATIONS_MAX: usize = 20;
/// Calls about the same keys that are shown with a wrong answer.
const NEIGHBOURS_SHOWN: usize = 8;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Leases whose keys went away with them, and at which revision.
    pub ends: BTreeMap<LeaseId, Revision>,
    /// Calls of unknown outcome that were carried out.
    pub carried_out: u64,
}

/// Who told of a revision: the call of this number, or a watch.
pub type By = Option<usize>;

/// Everything that was told, of the calls and of whoever else.
pub fn floors(calls: &[Call], others: Vec<Sight<By>>) -> Floors<By> {
    let mut sights = others;
    sights.extend(calls.iter().enumerate().filter_map(|(at, call)| {
        let (revision, _) = call.reply()?;
        Some(Sight { answered: call.answered, revision, by: Some(at) })
    }));
    Floors::new(sights)
}

/// Checks all of it.
pub fn check(history: &History, calls: &[Call], floors: &Floors<By>) -> Findings {
    let mut replay = Replay {
        calls,
        floors,
        history,
        writers: writers(calls),
        deletes: (0..calls.len()).filter(|at| is_open_delete(&calls[*at])).collect(),
        used: BTreeSet::new(),
        findings: Findings::default(),
    };
    replay.order();
    replay.run();
    replay.findings
}

fn is_open_delete(call: &Call) -> bool {
    matches!((&call.request, &call.outcome), (Request::DeleteRange(_), Outcome::Unknown(_)))
}

/// Which calls might have written a value.
fn writers(calls: &[Call]) -> BTreeMap<&Bytes, usize> {
    let mut writers = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        writers.extend(model::values_of(&call.request).into_iter().map(|value| (value, at)));
    }
    writers
}

struct Replay<'a> {
    calls: &'a [Call],
    floors: &'a Floors<By>,
    history: &'a History,
    writers: BTreeMap<&'a Bytes, usize>,
    /// Deletes of unknown outcome.
    deletes: Vec<usize>,
    /// Calls of unknown outcome whose revision has been found.
    used: BTreeSet<usize>,
    findings: Findings,
}

impl Replay<'_> {
    fn is_full(&self) -> bool {
        self.findings.violations.len() >= VIOLATIONS_MAX
    }

    fn wrong(&mut self, what: impl Into<String>, evidence: Vec<String>) {
        if !self.is_full() {
            self.findings.violations.push(Violation::new(what, evidence));
        }
    }

    fn told_by(&self, by: &Sight<By>) -> String {
        match by.by {
            Some(at) => self.calls[at].to_string(),
            None => format!("{:.6} s, a watch: revision {}", by.answered as f64 / 1e6, by.revision),
        }
    }

    fn order(&mut self) {
        for call in self.calls.iter().filter(|call| call.is_linearizable()) {
            let Some((revision, answer)) = call.reply() else { continue };
            if let Some(floor) = self.floors.above(call.asked, revision, says_changed(answer)) {
                let evidence = vec![self.told_by(floor), call.to_string()];
                self.wrong(
                    format!("revision {revision} was answered after {} had been told", floor.revision),
                    evidence,
                );
            }
        }
    }

    fn run(&mut self) {
        // What changed nothing sees the state of a revision; what changed something makes one.
        let mut readers: Vec<(Revision, usize)> = Vec::new();
        let mut makers: BTreeMap<Revision, usize> = BTreeMap::new();
        for (at, call) in self.calls.iter().enumerate() {
            let Some((revision, answer)) = call.reply() else { continue };
            if !says_changed(answer) {
                readers.push((seen(call, revision), at));
            } else if let Some(other) = makers.insert(revision, at) {
                let evidence = vec![self.calls[other].to_string(), call.to_string()];
                self.wrong(format!("two calls made revision {revision}"), evidence);
            }
        }
        readers.sort_unstable();
        let mut readers = readers.into_iter().peekable();
        let mut state = State::new();
        for (revision, events) in self.history {
            while let Some((_, at)) = readers.next_if(|(seen, _)| seen < revision) {
                self.read(&state, at);
            }
            match makers.remove(revision) {
                Some(at) => self.made(&state, *revision, events, at),
                None => self.unclaimed(&state, *revision, events),
            }
            if let Err(what) = model::apply(&mut state, *revision, events) {
                return self.wrong(format!("the history does not fit itself: {what}"), Vec::new());
            }
            if self.is_full() {
                return;
            }
        }
        for (_, at) in readers {
            self.read(&state, at);
        }
        for (revision, at) in makers {
            let evidence = vec![self.calls[at].to_string()];
            self.wrong(
                format!("an acknowledged change is lost: nothing happened at revision {revision}"),
                evidence,
            );
        }
    }

    fn read(&mut self, state: &State, at: usize) {
        let call = &self.calls[at];
        let Some((revision, answer)) = call.reply() else { return };
        let expected = match &call.request {
            Request::Range(range) => Some(Answer::Range(range_of(state, range))),
            request => Model::new(state, revision).answer(request),
        };
        if expected.as_ref() != Some(answer) {
            self.wrong_answer(at, expected);
        }
    }

    fn made(&mut self, state: &State, revision: Revision, events: &[Event], at: usize) {
        let call = &self.calls[at];
        let mut model = Model::new(state, revision.previous());
        let expected = model.answer(&call.request);
        if expected.as_ref() != call.reply().map(|(_, answer)| answer) {
            self.wrong_answer(at, expected);
        } else if model.events != events {
            let evidence = vec![call.to_string(), format!("the history has {}", shown(events))];
            self.wrong(
                format!("revision {revision} is not what was acknowledged: {}", shown(&model.events)),
                evidence,
            );
        }
    }

    fn wrong_answer(&mut self, at: usize, expected: Option<Answer>) {
        let call = &self.calls[at];
        let mut evidence = vec![call.to_string()];
        let keys = keys_of(&call.request);
        let mut near: Vec<&Call> = self.calls[..at]
            .iter()
            .chain(&self.calls[at + 1..])
            .filter(|other| other.reply().is_none_or(|(_, answer)| says_changed(answer)))
            .filter(|other| other.asked < call.answered && !keys_of(&other.request).is_disjoint(&keys))
            .collect();
        near.sort_by_key(|other| other.asked);
        evidence.extend(near.iter().rev().take(NEIGHBOURS_SHOWN).rev().map(|other| format!("near: {other}")));
        let expected = expected.as_ref().map_or("a refusal".into(), calls::answer);
        self.wrong(format!("the answer should have been: {expected}"), evidence);
    }

    /// A revision that no answer names: by a call whose outcome nobody knows, or by the end of a lease.
    fn unclaimed(&mut self, state: &State, revision: Revision, events: &[Event]) {
        let written = events.iter().find_map(|event| match event {
            Event::Put(pair) => Some(&pair.value),
            Event::Delete { .. } => None,
        });
        let Some(value) = written else { return self.deleted(state, revision, events) };
        let Some(at) = self.writers.get(value).copied() else {
            return self.wrong(
                format!("nobody has written revision {revision}"),
                vec![format!("the history has {}", shown(events))],
            );
        };
        let call = &self.calls[at];
        let what = match &call.outcome {
            Outcome::Reply(..) => format!("what was acknowledged was carried out at revision {revision}"),
            Outcome::Refused(_) => format!("what was refused was carried out at revision {revision}"),
            Outcome::Unknown(_) if self.used.contains(&at) => {
                format!("a call was carried out again, at revision {revision}")
            }
            Outcome::Unknown(_) => {
                if self.could_make(at, state, revision, events) {
                    self.take(at);
                    return;
                }
                format!("the call cannot have made revision {revision}")
            }
        };
        let evidence = vec![call.to_string(), format!("the history has {}", shown(events))];
        self.wrong(what, evidence);
    }

    fn take(&mut self, at: usize) {
        self.used.insert(at);
        self.findings.carried_out += 1;
    }

    fn could_make(&self, at: usize, state: &State, revision: Revision, events: &[Event]) -> bool {
        let call = &self.calls[at];
        let mut model = Model::new(state, revision.previous());
        let is_possible = model.answer(&call.request).is_some() && model.events == events;
        is_possible && self.floors.above(call.asked, revision, true).is_none()
    }

    fn deleted(&mut self, state: &State, revision: Revision, events: &[Event]) {
        let keys: Vec<&Key> = events.iter().map(Event::key).collect();
        let lease = keys.first().and_then(|key| state.get(*key)).and_then(|pair| pair.lease);
        if let Some(lease) = lease {
            let of_lease = state.values().filter(|pair| pair.lease == Some(lease)).map(|pair| &pair.key);
            if of_lease.eq(keys.iter().copied()) {
                self.findings.ends.insert(lease, revision);
                return;
            }
        }
        let found = self
            .deletes
            .iter()
            .copied()
            .find(|at| !self.used.contains(at) && self.could_make(*at, state, revision, events));
        match found {
            Some(at) => self.take(at),
            None => {
                let keys: Vec<String> = keys.into_iter().map(text).collect();
                self.wrong(
                    format!("nobody has deleted {} at revision {revision}", keys.join(", ")),
                    Vec::new(),
                );
            }
        }
    }
}

/// Which state a call that changed nothing was answered from.
fn seen(call: &Call, revision: Revision) -> Revision {
    match &call.request {
        Request::Range(range) => match range.revision {
            Some(asked) => Revision(asked.max(0) as u64),
            None => revision,
        },
        _ => revision,
    }
}

/// The first key of what an operation is about.
fn key_of(operation: &Operation) -> Option<&Key> {
    match operation {
        Operation::Range(range) => Some(range.range.start()),
        Operation::Put(put) => Some(&put.key),
        Operation::DeleteRange(delete) => Some(delete.range.start()),
        Operation::Txn(_) => None,
    }
}

/// The first keys of what a request is about.
fn keys_of(request: &Request) -> BTreeSet<&Key> {
    match request {
        Request::Range(range) => BTreeSet::from([range.range.start()]),
        Request::Put(put) => BTreeSet::from([&put.key]),
        Request::DeleteRange(delete) => BTreeSet::from([delete.range.start()]),
        Request::Txn(txn) => {
            let compared = txn.compares.iter().map(|compare| compare.range.start());
            compared.chain(txn.success.iter().chain(&txn.failure).filter_map(key_of)).collect()
        }
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests;
