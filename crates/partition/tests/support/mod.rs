//! A leader and a follower of one group, without consensus in between: what is evaluated is appended
//! to a list, and applied to each when the test says so.

#![allow(dead_code)]
#![allow(unused_imports)]
#![allow(unreachable_pub)]

#[path = "../../../mvcc/tests/support/mod.rs"]
mod engine;

pub use engine::{Random, TestEngine};

use quorate_mvcc::Compactor;
use quorate_partition::{Applied, Evaluated, Limits, Partition, ReadError};
use quorate_types::request::{DeleteRequest, PutLease, PutRequest, RangeRequest};
use quorate_types::{
    Answer, Bytes, Entry, EntryKind, GroupId, Index, KeyRange, LeaseId, Rejection, Request, Revision,
    SlotSet, Term, Tick,
};

pub const GROUP: GroupId = GroupId::FIRST;

pub fn limits() -> Limits {
    Limits { ticks_per_second: 10, election_timeout_ticks: 5, cache_bytes_max: 4_000, ..Limits::default() }
}

pub fn open(engine: &TestEngine) -> Partition<TestEngine> {
    Partition::open(engine.clone(), GROUP, SlotSet::all(), limits()).unwrap().ready().unwrap()
}

/// A step of removing what the partition has compacted. True when nothing is left to do.
pub fn compact_step(partition: &Partition<TestEngine>, rows_max: usize) -> bool {
    let engine = partition.engine();
    let mut compactor = Compactor::open(engine, GROUP.keyspace).unwrap();
    compactor.step(engine, partition.compacted(), rows_max).unwrap()
}

pub struct Pair {
    pub leader: Partition<TestEngine>,
    pub follower: Partition<TestEngine>,
    pub log: Vec<Entry>,
    pub term: Term,
    pub now: Tick,
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    pub fn new() -> Self {
        let mut pair = Self {
            leader: open(&TestEngine::default()),
            follower: open(&TestEngine::default()),
            log: Vec::new(),
            term: Term(0),
            now: Tick(0),
        };
        pair.elect();
        pair
    }

    pub fn next(&self) -> Index {
        Index(self.log.len() as u64 + 1)
    }

    pub fn append(&mut self, kind: EntryKind, data: Bytes) {
        let index = self.next();
        self.log.push(Entry { term: self.term, index, kind, data });
    }

    /// The two change places: everything is applied, a fence too, and the other leads.
    pub fn elect(&mut self) {
        self.term = self.term.next();
        self.append(EntryKind::Fence, Bytes::new());
        self.apply_all();
        self.leader.follow();
        std::mem::swap(&mut self.leader, &mut self.follower);
        self.leader.lead(self.now);
    }

    /// Takes in what evaluating gave.
    pub fn take(&mut self, evaluated: Result<Evaluated, ReadError>) -> Result<(Revision, Answer), Rejection> {
        match evaluated {
            Ok(Evaluated::Changes { kind, data, reply }) => {
                self.append(kind, data);
                Ok(reply)
            }
            Ok(Evaluated::Unchanged { reply }) => Ok(reply),
            Err(ReadError::Rejection(rejection)) => Err(rejection),
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
    }

    pub fn evaluate(&mut self, request: &Request) -> Result<(Revision, Answer), Rejection> {
        let index = self.next();
        let evaluated = self.leader.evaluate(request, index);
        self.take(evaluated)
    }

    pub fn keep_alive(&mut self, lease: LeaseId) -> Option<u64> {
        let index = self.next();
        let evaluated = self.leader.keep_alive(lease, self.now, index);
        match self.take(evaluated).unwrap().1 {
            Answer::LeaseKeepAlive { ttl_seconds } => ttl_seconds,
            other => panic!("{other:?}"),
        }
    }

    pub fn apply_to(
        partition: &mut Partition<TestEngine>,
        log: &[Entry],
        count: usize,
        now: Tick,
    ) -> Applied {
        let from = partition.applied().index.0 as usize;
        partition.apply(&log[from..log.len().min(from + count)], now).unwrap()
    }

    pub fn apply_all(&mut self) {
        Self::apply_to(&mut self.leader, &self.log, usize::MAX >> 1, self.now);
        Self::apply_to(&mut self.follower, &self.log, usize::MAX >> 1, self.now);
        assert_eq!(self.leader.digest(), self.follower.digest());
    }
}

pub fn lease(raw: i64) -> LeaseId {
    LeaseId::new(raw).unwrap()
}

pub fn put(key: &'static str, value: &'static str) -> Request {
    Request::Put(put_op(key, value))
}

pub fn put_op(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: Some(value.into()), lease: PutLease::Detach, previous: false }
}

pub fn delete(range: KeyRange) -> Request {
    Request::DeleteRange(DeleteRequest { range, previous: false })
}

pub fn single(key: &'static str) -> KeyRange {
    KeyRange::Single(key.into())
}

pub fn range(range: KeyRange) -> RangeRequest {
    RangeRequest::new(range)
}
