//! What a request comes to on a known state: a plain map, evaluated without any of the program's code.
//!
//! Written from etcd's documentation of the API (rpc.proto): compares are evaluated on the state before the
//! outermost transaction, operations in order, each seeing what came before; all changes share one revision.

use quorate_types::reply::{Answer, DeleteAnswer, OperationAnswer, PutAnswer, RangeAnswer, TxnAnswer};
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    TxnRequest,
};
use quorate_types::{Bytes, Event, Key, KeyValue, Request, Revision};
use std::collections::BTreeMap;

/// Every key at a revision.
pub type State = BTreeMap<Key, KeyValue>;

/// Makes the state that follows: what `revision` changed must fit what was there.
pub fn apply(state: &mut State, revision: Revision, events: &[Event]) -> Result<(), String> {
    for event in events {
        match event {
            Event::Put(pair) => {
                let before = state.get(&pair.key);
                let create = before.map_or(revision, |pair| pair.create);
                let version = before.map_or(1, |pair| pair.version + 1);
                if (pair.create, pair.modified, pair.version) != (create, revision, version) {
                    return Err(format!("{pair:?} was written over {before:?}"));
                }
                state.insert(pair.key.clone(), pair.clone());
            }
            Event::Delete { key, .. } => {
                if state.remove(key).is_none() {
                    return Err(format!("{key:?} was deleted at {revision} and not there"));
                }
            }
        }
    }
    Ok(())
}

/// Every value that a request might write.
pub fn values_of(request: &Request) -> Vec<&Bytes> {
    let mut values = Vec::new();
    match request {
        Request::Put(put) => values.extend(&put.value),
        Request::Txn(txn) => values_of_txn(txn, &mut values),
        _ => {}
    }
    values
}

fn values_of_txn<'a>(txn: &'a TxnRequest, values: &mut Vec<&'a Bytes>) {
    for operation in txn.success.iter().chain(&txn.failure) {
        match operation {
            Operation::Put(put) => values.extend(&put.value),
            Operation::Txn(inner) => values_of_txn(inner, values),
            _ => {}
        }
    }
}

/// A request that is being carried out.
pub struct Model<'a> {
    before: &'a State,
    base: Revision,
    state: State,
    /// What changed so far.
    pub events: Vec<Event>,
}

impl<'a> Model<'a> {
    /// On the state of revision `base`.
    pub fn new(before: &'a State, base: Revision) -> Self {
        Self { before, base, state: before.clone(), events: Vec::new() }
    }

    /// The answer; `None` when the request would be refused for want of a key, or is not one for this model.
    pub fn answer(&mut self, request: &Request) -> Option<Answer> {
        match request {
            Request::Put(put) => self.put(put).map(Answer::Put),
            Request::DeleteRange(delete) => Some(Answer::DeleteRange(self.delete(delete))),
            Request::Txn(txn) => self.is_possible(txn).then(|| self.txn(txn)).flatten().map(Answer::Txn),
            Request::Range(range) => Some(Answer::Range(range_of(&self.state, range))),
            _ => None,
        }
    }

    fn revision(&self) -> Revision {
        if self.events.is_empty() { self.base } else { self.base.next() }
    }

    fn put(&mut self, put: &PutRequest) -> Option<PutAnswer> {
        let previous = self.state.get(&put.key).cloned();
        let modified = self.base.next();
        let pair = KeyValue {
            key: put.key.clone(),
            value: match &put.value {
                Some(value) => value.clone(),
                None => previous.as_ref()?.value.clone(),
            },
            create: previous.as_ref().map_or(modified, |pair| pair.create),
            modified,
            version: previous.as_ref().map_or(1, |pair| pair.version + 1),
            lease: match put.lease {
                PutLease::Detach => None,
                PutLease::Attach(lease) => Some(lease),
                PutLease::Keep => previous.as_ref()?.lease,
            },
        };
        self.state.insert(pair.key.clone(), pair.clone());
        self.events.push(Event::Put(pair));
        Some(PutAnswer { previous: previous.filter(|_| put.previous) })
    }

    fn delete(&mut self, delete: &DeleteRequest) -> DeleteAnswer {
        let gone: Vec<KeyValue> =
            self.state.values().filter(|pair| delete.range.contains(&pair.key)).cloned().collect();
        let modified = self.base.next();
        for pair in &gone {
            self.state.remove(&pair.key);
            self.events.push(Event::Delete { key: pair.key.clone(), modified });
        }
        let deleted = gone.len() as u64;
        DeleteAnswer { deleted, previous: if delete.previous { gone } else { Vec::new() } }
    }

    /// Whether the keys that the path keeps something of exist before the transaction.
    fn is_possible(&self, txn: &TxnRequest) -> bool {
        self.path(txn).iter().all(|operation| match operation {
            Operation::Put(put) if put.value.is_none() || put.lease == PutLease::Keep => {
                self.before.contains_key(&put.key)
            }
            Operation::Txn(inner) => self.is_possible(inner),
            _ => true,
        })
    }

    fn path<'t>(&self, txn: &'t TxnRequest) -> &'t [Operation] {
        let succeeded = txn.compares.iter().all(|compare| holds(self.before, compare));
        if succeeded { &txn.success } else { &txn.failure }
    }

    fn txn(&mut self, txn: &TxnRequest) -> Option<TxnAnswer> {
        let succeeded = txn.compares.iter().all(|compare| holds(self.before, compare));
        let mut responses = Vec::new();
        for operation in self.path(txn) {
            responses.push(match operation {
                Operation::Range(range) => {
                    OperationAnswer::Range(self.revision(), range_of(&self.state, range))
                }
                Operation::Put(put) => {
                    let answer = self.put(put)?;
                    OperationAnswer::Put(self.revision(), answer)
                }
                Operation::DeleteRange(delete) => {
                    let answer = self.delete(delete);
                    OperationAnswer::DeleteRange(self.revision(), answer)
                }
                Operation::Txn(inner) => OperationAnswer::Txn(self.txn(inner)?),
            });
        }
        Some(TxnAnswer { succeeded, responses })
    }
}

/// The answer to a range on a state. Knows limits, not orders and filters, which the load does not use.
pub fn range_of(state: &State, request: &RangeRequest) -> RangeAnswer {
    let all: Vec<KeyValue> =
        state.values().filter(|pair| request.range.contains(&pair.key)).cloned().collect();
    let limit = request.limit.map_or(all.len(), |limit| limit as usize).min(all.len());
    RangeAnswer { more: limit < all.len(), count: all.len() as u64, pairs: all[..limit].to_vec() }
}

/// Over a range every key must satisfy it; a range without keys is a missing key.
fn holds(state: &State, compare: &Compare) -> bool {
    let mut found = state.values().filter(|pair| compare.range.contains(&pair.key)).peekable();
    if found.peek().is_none() {
        return satisfies(None, compare);
    }
    found.all(|pair| satisfies(Some(pair), compare))
}

fn satisfies(pair: Option<&KeyValue>, compare: &Compare) -> bool {
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

/// Whether an answer says that something changed.
pub fn says_changed(answer: &Answer) -> bool {
    match answer {
        Answer::Put(_) => true,
        Answer::DeleteRange(delete) => delete.deleted > 0,
        Answer::Txn(txn) => txn_changed(txn),
        _ => false,
    }
}

fn txn_changed(txn: &TxnAnswer) -> bool {
    txn.responses.iter().any(|response| match response {
        OperationAnswer::Put(..) => true,
        OperationAnswer::DeleteRange(_, delete) => delete.deleted > 0,
        OperationAnswer::Txn(inner) => txn_changed(inner),
        OperationAnswer::Range(..) => false,
    })
}
