//! Random calls over a few keys, and what was answered.
//!
//! Leases have few ids, too, and are granted anew under the id of one that ended; a few of the ids are revoked by clients, the
//! others only run out.

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
const LEASES: u64 = 8;
/// Those that clients revoke; the others end only by running out, so that nothing excuses an early end.
const LEASES_REVOKED: u64 = 3;

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
    /// The tick at which the answer came.
    pub answered_tick: Option<u64>,
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

/// The keys of the load: in several directories, so that they are in several partitions if there are several.
pub fn key(number: u64) -> Key {
    let number = number % KEYS;
    Bytes::from(format!("dir/{}/{number}", number / 2))
}

fn value(number: u64) -> Bytes {
    Bytes::from(format!("value-{number}"))
}

fn lease_below(random: &mut Random, end: u64) -> LeaseId {
    let number = random.below(end) as i64 + 1;
    LeaseId::new(number).unwrap_or_else(|| panic!("lease {number} is not 0"))
}

fn lease(random: &mut Random) -> LeaseId {
    lease_below(random, LEASES)
}

fn put(random: &mut Random, key: Key, number: u64) -> PutRequest {
    let lease = match random.below(10) {
        0..3 => PutLease::Attach(lease(random)),
        3 => PutLease::Keep,
        _ => PutLease::Detach,
    };
    let value = (!random.chance(60)).then(|| value(number));
    PutRequest { key, value, lease, previous: random.chance(300) }
}

fn range(random: &mut Random) -> KeyRange {
    match random.below(6) {
        0..3 => KeyRange::Single(key(random.below(KEYS))),
        3 => KeyRange::Between(key(random.below(KEYS)), key(random.below(KEYS))),
        _ => KeyRange::prefix("dir/"),
    }
}

fn compare(random: &mut Random, number: u64, newest: Revision) -> Compare {
    let near = |random: &mut Random| newest.0.saturating_sub(random.below(4)) as i64;
    let target = match random.below(6) {
        0 | 1 => CompareTarget::Create(if random.chance(500) { 0 } else { near(random) }),
        2 => CompareTarget::Modified(near(random)),
        3 => CompareTarget::Lease(random.below(LEASES + 1) as i64),
        4 => CompareTarget::Value(value(number.saturating_sub(random.below(8)))),
        _ => CompareTarget::Version(random.below(3) as i64),
    };
    let result = match random.below(8) {
        0..4 => CompareResult::Equal,
        4 | 5 => CompareResult::Greater,
        6 => CompareResult::Less,
        _ => CompareResult::NotEqual,
    };
    let range = if random.chance(600) { KeyRange::Single(key(random.below(KEYS))) } else { range(random) };
    Compare { range, result, target }
}

/// Operations on the keys that `free` still holds: etcd refuses a transaction that writes a key twice.
fn operations(
    random: &mut Random,
    number: u64,
    newest: Revision,
    free: &mut Vec<Key>,
    depth: u64,
) -> Vec<Operation> {
    let mut operations = Vec::new();
    for _ in 0..random.below(3) + u64::from(depth == 0) {
        let at = random.below(free.len() as u64) as usize;
        operations.push(match random.below(10) {
            0..4 if !free.is_empty() => {
                let key = free.swap_remove(at);
                Operation::Put(put(random, key, number))
            }
            4 if !free.is_empty() => {
                let key = free.swap_remove(at);
                let previous = random.chance(500);
                Operation::DeleteRange(DeleteRequest { range: KeyRange::Single(key), previous })
            }
            5 | 6 if depth < 2 => {
                let compares = (0..random.below(3)).map(|_| compare(random, number, newest)).collect();
                // Only one branch is taken, but the keys must not be written twice on any path.
                let success = self::operations(random, number, newest, free, depth + 1);
                let failure = self::operations(random, number, newest, free, depth + 1);
                Operation::Txn(TxnRequest { compares, success, failure })
            }
            _ => Operation::Range(read(random)),
        });
    }
    operations
}

fn read(random: &mut Random) -> RangeRequest {
    let mut request = RangeRequest::new(range(random));
    request.limit = random.chance(200).then_some(2);
    request
}

fn txn(random: &mut Random, number: u64, newest: Revision) -> TxnRequest {
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let compares = (0..1 + random.below(2)).map(|_| compare(random, number, newest)).collect();
    let success = operations(random, number, newest, &mut keys.clone(), 0);
    let failure = operations(random, number, newest, &mut keys.clone(), 0);
    TxnRequest { compares, success, failure }
}

/// A random call; `number` is unique, so that every value written is, except within a transaction.
pub fn draw(random: &mut Random, number: u64, newest: Revision) -> Ask {
    match random.below(100) {
        0..30 => {
            let key = key(random.below(KEYS));
            Ask::Request(Request::Put(put(random, key, number)))
        }
        30..52 => {
            let mut request = read(random);
            // Some ask for the past, and some for what may not be there yet.
            if random.chance(250) {
                request.revision = Some((newest.0 + 2).saturating_sub(random.below(12)).max(1) as i64);
            }
            Ask::Read(request)
        }
        52..60 => {
            let previous = random.chance(500);
            Ask::Request(Request::DeleteRange(DeleteRequest { range: range(random), previous }))
        }
        60..78 => Ask::Request(Request::Txn(txn(random, number, newest))),
        78..84 => {
            // Some long enough to live through a snapshot and the next change of leader.
            let ttl_seconds = if random.chance(200) { 10 } else { 2 + random.below(4) as i64 };
            Ask::Request(Request::LeaseGrant { lease: lease(random), ttl_seconds })
        }
        84..93 => Ask::Request(Request::LeaseKeepAlive { lease: lease(random) }),
        93..94 => Ask::Request(Request::LeaseRevoke { lease: lease_below(random, LEASES_REVOKED) }),
        94..96 => {
            let revision = newest.0.saturating_sub(random.below(10)) as i64;
            Ask::Request(Request::Compact { revision, physical: random.chance(300) })
        }
        96..98 => Ask::Request(Request::LeaseTimeToLive { lease: lease(random), with_keys: true }),
        _ => Ask::Request(Request::Leases),
    }
}
