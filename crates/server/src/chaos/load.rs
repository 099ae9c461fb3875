//! What clients do: keys that many write, a bank, leases.
//!
//! Keys are in several directories, so in several partitions, and few, so that calls meet. Every value is written by one call only.

use super::client::Client;
use super::wire::revision_of;
use quorate_api::pb;
use quorate_api::pb::lease_client::LeaseClient;
use quorate_checker::calls::Outcome;
use quorate_checker::leases::Lease;
use quorate_types::reply::OperationAnswer;
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    TxnRequest,
};
use quorate_types::{Answer, Bytes, Key, KeyRange, KeyValue, LeaseId, Request};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;

const DIRECTORIES: u64 = 12;
const KEYS_EACH: u64 = 3;
/// Directories that are written to see whether a node serves.
const SERVED: u64 = 32;
/// Accounts, each in a directory of its own.
const ACCOUNTS: u64 = 12;
/// What each begins with.
const BALANCE: i64 = 1_000;
pub(super) const BANK: &str = "bank/";
/// How a refusal for want of space begins.
pub(super) const NO_SPACE: &str = "ResourceExhausted";
pub(super) const LEASED: &str = "lease/";
/// Reads of the past go back so far.
const PAST_REVISIONS: u64 = 50;
/// Seconds that leases live.
const TTL_SECONDS: std::ops::Range<u64> = 2..6;
/// For how long a lease is kept alive.
const KEPT_MILLIS: u64 = 8_000;
/// What may be lost of a lease to rounding: two ticks.
pub(super) const LEASE_TOLERANCE_MICROS: u64 = 40_000;

fn key(number: u64) -> Key {
    let number = number % (DIRECTORIES * KEYS_EACH);
    Bytes::from(format!("key/{:02}/{}", number / KEYS_EACH, number % KEYS_EACH))
}

fn account(number: u64) -> Key {
    Bytes::from(format!("{BANK}{number:02}/balance"))
}

/// How much all accounts hold together.
pub(super) fn total() -> i64 {
    ACCOUNTS as i64 * BALANCE
}

/// The balance that an account's value says.
fn balance_of(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.split(' ').next()?.parse().ok()
}

/// What the accounts hold together; `None` when one is missing or no number.
pub(super) fn sum<'a>(pairs: impl Iterator<Item = &'a KeyValue>) -> Option<i64> {
    let balances: Option<Vec<i64>> = pairs.map(|pair| balance_of(&pair.value)).collect();
    balances.filter(|balances| balances.len() as u64 == ACCOUNTS).map(|balances| balances.iter().sum())
}

pub(super) fn put_of(key: Key, value: String) -> PutRequest {
    PutRequest { key, value: Some(value.into()), lease: PutLease::Detach, previous: false }
}

fn single(key: Key) -> RangeRequest {
    RangeRequest::new(KeyRange::Single(key))
}

fn unchanged(key: Key, modified: u64) -> Compare {
    let target = CompareTarget::Modified(modified as i64);
    Compare { range: KeyRange::Single(key), result: CompareResult::Equal, target }
}

/// Opens the accounts, unless they are there. To be repeated until it is answered.
pub(super) fn opening(number: u64) -> Request {
    let put = |at| Operation::Put(put_of(account(at), format!("{BALANCE} of {number}.{at}")));
    Request::Txn(TxnRequest {
        compares: vec![unchanged(account(0), 0)],
        success: (0..ACCOUNTS).map(put).collect(),
        failure: Vec::new(),
    })
}

/// A read and a write that show that a node serves: of keys in so many directories that no partition is left out, unless there are many.
pub(super) fn serving(node: &str, number: u64) -> (Request, Request) {
    let put = |at| {
        let key = Bytes::from(format!("serve/{at:02}/{node}"));
        Operation::Put(put_of(key, format!("serves {number}.{at}")))
    };
    let success = (0..SERVED).map(put).collect();
    let write = TxnRequest { success, ..Default::default() };
    (Request::Range(RangeRequest::new(KeyRange::prefix("serve/"))), Request::Txn(write))
}

/// Reads and writes keys until the book is closed.
pub(super) async fn keys(mut client: Client, pause: Duration) {
    // When keys were last changed, as far as this client knows.
    let mut known: BTreeMap<Key, u64> = BTreeMap::new();
    while !client.book.is_closed() {
        let request = draw(&mut client, &known);
        let outcome = client.call(request).await;
        if let Outcome::Reply(_, Answer::Range(range)) = &outcome {
            known.extend(range.pairs.iter().map(|pair| (pair.key.clone(), pair.modified.0)));
        }
        rest(&mut client, pause).await;
    }
}

/// Between two calls: as long as `pause`, more or less.
async fn rest(client: &mut Client, pause: Duration) {
    let thousandths = client.random.between(500, 1_500) as u32;
    tokio::time::sleep(pause * thousandths / 1_000).await;
}

fn draw(client: &mut Client, known: &BTreeMap<Key, u64>) -> Request {
    let number = client.book.unique();
    let newest = client.book.newest().0;
    let oldest = client.book.first.0.saturating_sub(1).max(1);
    let random = &mut client.random;
    let one = key(random.draw());
    match random.between(0, 100) {
        0..30 => {
            let previous = random.between(0, 4) == 0;
            Request::Put(PutRequest { previous, ..put_of(one, format!("put {number}")) })
        }
        30..48 => Request::Range(single(one)),
        48..56 => Request::Range(RangeRequest { serializable: true, ..single(one) }),
        56..60 => {
            let past = newest.saturating_sub(random.between(0, PAST_REVISIONS)).max(oldest);
            Request::Range(RangeRequest { revision: Some(past as i64), ..single(one) })
        }
        60..65 => {
            let previous = random.between(0, 2) == 0;
            Request::DeleteRange(DeleteRequest { range: KeyRange::Single(one), previous })
        }
        65..67 => {
            let range = KeyRange::prefix(format!("key/{:02}/", random.between(0, DIRECTORIES)));
            Request::DeleteRange(DeleteRequest { range, previous: true })
        }
        67..75 => {
            let serializable = random.between(0, 3) == 0;
            let all = RangeRequest::new(KeyRange::prefix("key/"));
            Request::Range(RangeRequest { serializable, ..all })
        }
        // Compare and swap.
        75..87 => Request::Txn(TxnRequest {
            compares: vec![unchanged(one.clone(), known.get(&one).copied().unwrap_or(0))],
            success: vec![Operation::Put(put_of(one.clone(), format!("swap {number}")))],
            failure: vec![Operation::Range(single(one))],
        }),
        // Over several partitions, most of the time.
        _ => {
            let other = key(random.draw());
            let mut success = vec![
                Operation::Put(put_of(one.clone(), format!("both {number}.1"))),
                Operation::Range(single(other.clone())),
            ];
            if other != one {
                success.push(Operation::Put(put_of(other.clone(), format!("both {number}.2"))));
            }
            let target = CompareTarget::Version(random.between(0, 3) as i64);
            let range = KeyRange::Single(other);
            Request::Txn(TxnRequest {
                compares: vec![Compare { range, result: CompareResult::NotEqual, target }],
                success,
                failure: vec![Operation::Range(RangeRequest::new(KeyRange::prefix("key/0")))],
            })
        }
    }
}

/// Moves money, and counts it, until the book is closed.
pub(super) async fn bank(mut client: Client, pause: Duration) {
    while !client.book.is_closed() {
        if client.random.between(0, 4) == 0 {
            let serializable = client.random.between(0, 4) == 0;
            let all = RangeRequest::new(KeyRange::prefix(BANK));
            client.call(Request::Range(RangeRequest { serializable, ..all })).await;
        } else {
            transfer(&mut client).await;
        }
        rest(&mut client, pause).await;
    }
}

async fn transfer(client: &mut Client) {
    let from = client.random.between(0, ACCOUNTS);
    let to = (from + client.random.between(1, ACCOUNTS)) % ACCOUNTS;
    let read = |at| Operation::Range(single(account(at)));
    let look = TxnRequest { success: vec![read(from), read(to)], ..Default::default() };
    let Outcome::Reply(_, Answer::Txn(found)) = client.call(Request::Txn(look)).await else { return };
    let pairs: Vec<KeyValue> = found
        .responses
        .into_iter()
        .filter_map(|response| match response {
            OperationAnswer::Range(_, range) => range.pairs.into_iter().next(),
            _ => None,
        })
        .collect();
    // One that is missing, or makes no sense, is found by the checker.
    let [from, to] = &pairs[..] else { return };
    let (Some(less), Some(more)) = (balance_of(&from.value), balance_of(&to.value)) else { return };
    let amount = (less / 3).max(1);
    let number = client.book.unique();
    let put = |pair: &KeyValue, balance: i64, at: u32| {
        Operation::Put(put_of(pair.key.clone(), format!("{balance} of {number}.{at}")))
    };
    let transfer = TxnRequest {
        compares: [from, to].map(|pair| unchanged(pair.key.clone(), pair.modified.0)).to_vec(),
        success: vec![put(from, less - amount, 1), put(to, more + amount, 2)],
        failure: Vec::new(),
    };
    client.call(Request::Txn(transfer)).await;
}

/// Takes leases, puts a key under each, keeps some alive for a while, revokes some, until the book is closed.
pub(super) async fn leases(mut client: Client) {
    while !client.book.is_closed() {
        let Some((id, ttl)) = grant(&mut client).await else {
            client.turn().await;
            continue;
        };
        let number = client.book.unique();
        let key = Bytes::from(format!("{LEASED}{:02}/{number}", number % DIRECTORIES));
        let put = PutRequest { lease: PutLease::Attach(id), ..put_of(key, format!("leased {number}")) };
        if let Outcome::Refused(why) = client.call(Request::Put(put)).await {
            if why.starts_with(NO_SPACE) {
                // It runs out by itself.
                continue;
            }
            let now = client.book.now();
            client.book.lease(id, |lease| lease.told_gone = Some(now));
            continue;
        }
        let kept = Duration::from_millis(client.random.between(0, KEPT_MILLIS));
        let until = client.book.now() + kept.as_micros() as u64;
        while client.book.now() < until && !client.book.is_closed() {
            if !keep_alive(&mut client, id).await {
                break;
            }
            tokio::time::sleep(ttl / 4).await;
        }
        if client.random.between(0, 3) == 0 {
            revoke(&mut client, id).await;
        }
    }
}

async fn grant(client: &mut Client) -> Option<(LeaseId, Duration)> {
    // In another's cluster numbers may be taken: it chooses one.
    let number = if client.book.is_guest { 0 } else { client.book.unique() as i64 };
    let ttl = client.random.between(TTL_SECONDS.start, TTL_SECONDS.end) as i64;
    let (_, channel) = client.node().await;
    let asked = client.book.now();
    let answer = LeaseClient::new(channel).lease_grant(pb::LeaseGrantRequest { id: number, ttl }).await;
    let answer = answer.ok()?.into_inner();
    let id = LeaseId::new(answer.id)?;
    let ttl = Duration::from_secs(answer.ttl.max(0) as u64);
    let renewals = vec![(asked, client.book.now())];
    let micros = ttl.as_micros() as u64;
    client.book.granted(Lease { id, ttl: micros, renewals, told_gone: None, revoked: None });
    client.book.told(revision_of(answer.header.as_ref()));
    Some((id, ttl))
}

/// Whether the lease is still there, as far as anybody has said.
async fn keep_alive(client: &mut Client, id: LeaseId) -> bool {
    let (_, channel) = client.node().await;
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    let asked = client.book.now();
    // There is room for one, and the receiver is at hand.
    let _ = requests.try_send(pb::LeaseKeepAliveRequest { id: id.get() });
    let mut leases = LeaseClient::new(channel);
    let answer = async {
        let mut stream = leases.lease_keep_alive(ReceiverStream::new(stream)).await.ok()?.into_inner();
        stream.message().await.ok()?
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), answer).await.ok().flatten();
    let answered = client.book.now();
    match answer {
        Some(answer) if answer.ttl > 0 => {
            client.book.lease(id, |lease| lease.renewals.push((asked, answered)));
            true
        }
        Some(_) => {
            client.book.lease(id, |lease| lease.told_gone = Some(answered));
            false
        }
        None => {
            client.turn().await;
            true
        }
    }
}

async fn revoke(client: &mut Client, id: LeaseId) {
    let (_, channel) = client.node().await;
    let asked = client.book.now();
    client.book.lease(id, |lease| lease.revoked = Some(asked));
    // Whatever it comes to, it may have ended.
    if LeaseClient::new(channel).lease_revoke(pb::LeaseRevokeRequest { id: id.get() }).await.is_err() {
        client.turn().await;
    }
}
