//! Random calls over a few keys, and what was answered.

use crate::random::Random;
use quorate_types::reply::RangeAnswer;
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    TxnRequest,
};
use quorate_types::{Bytes, Key, KeyRange, LeaseId, Rejection, Reply, Request, Revision};

/// Keys that the load is about: few, so that calls meet.
const KEYS: u64 = 6;
/// Leases, likewise.
const LEASES: u64 = 4;

/// A call and its fate.
#[derive(Clone, Debug)]
pub struct Call {
    /// What was asked.
    pub ask: Ask,
    /// The step at which it was asked; no two things happen at the same step.
    pub asked: u64,
    /// The tick at which it was asked.
    pub asked_tick: u64,
    /// The step at which the answer came.
    pub answered: Option<u64>,
    /// How it ended; `None` while it is open, and for ever when the node died.
    pub outcome: Option<Outcome>,
}

/// What was asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Something for the leader.
    Request(Request),
    /// A linearizable read at the node asked.
    Read(RangeRequest),
}

/// How a call ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Carried out.
    Reply(Reply),
    /// Read.
    Read(Revision, RangeAnswer),
    /// Refused; [`Rejection::Unknown`] leaves open whether it was carried out.
    Rejected(Rejection),
}

/// The keys of the load.
pub fn key(number: u64) -> Key {
    Bytes::from(format!("dir/{}", number % KEYS))
}

fn value(number: u64) -> Bytes {
    Bytes::from(format!("value-{number}"))
}

fn lease(random: &mut Random) -> LeaseId {
    let number = random.below(LEASES) as i64 + 1;
    LeaseId::new(number).unwrap_or_else(|| panic!("lease {number} is not 0"))
}

fn put(random: &mut Random, number: u64) -> PutRequest {
    let lease = if random.chance(200) { PutLease::Attach(lease(random)) } else { PutLease::Detach };
    PutRequest {
        key: key(random.below(KEYS)),
        value: Some(value(number)),
        lease,
        previous: random.chance(300),
    }
}

/// A random call; `number` is unique, so that every value written is.
pub fn draw(random: &mut Random, number: u64, newest: Revision) -> Ask {
    let range = |random: &mut Random| {
        if random.chance(500) { KeyRange::prefix("dir/") } else { KeyRange::Single(key(random.below(KEYS))) }
    };
    match random.below(100) {
        0..35 => Ask::Request(Request::Put(put(random, number))),
        35..60 => {
            let mut request = RangeRequest::new(range(random));
            request.limit = random.chance(200).then_some(2);
            Ask::Read(request)
        }
        60..68 => {
            let previous = random.chance(500);
            Ask::Request(Request::DeleteRange(DeleteRequest { range: range(random), previous }))
        }
        68..85 => {
            let compared = key(random.below(KEYS));
            let target = match random.below(3) {
                0 => CompareTarget::Create(0),
                1 => CompareTarget::Modified(newest.0.saturating_sub(random.below(4)) as i64),
                _ => CompareTarget::Version(random.below(3) as i64),
            };
            let result = if random.chance(700) { CompareResult::Equal } else { CompareResult::Greater };
            let compare = Compare { range: KeyRange::Single(compared.clone()), result, target };
            let mut success = vec![Operation::Put(PutRequest {
                key: compared.clone(),
                value: Some(value(number)),
                lease: PutLease::Detach,
                previous: false,
            })];
            if random.chance(300) {
                success.push(Operation::Range(RangeRequest::new(KeyRange::prefix("dir/"))));
            }
            let failure = vec![Operation::Range(RangeRequest::new(KeyRange::Single(compared)))];
            Ask::Request(Request::Txn(TxnRequest { compares: vec![compare], success, failure }))
        }
        85..89 => {
            let ttl_seconds = 2 + random.below(3) as i64;
            Ask::Request(Request::LeaseGrant { lease: lease(random), ttl_seconds })
        }
        89..95 => Ask::Request(Request::LeaseKeepAlive { lease: lease(random) }),
        95..97 => Ask::Request(Request::LeaseRevoke { lease: lease(random) }),
        97..98 => {
            let revision = newest.0.saturating_sub(random.below(10)) as i64;
            Ask::Request(Request::Compact { revision, physical: random.chance(300) })
        }
        98..99 => Ask::Request(Request::LeaseTimeToLive { lease: lease(random), with_keys: true }),
        _ => Ask::Request(Request::Leases),
    }
}
