//! A bank over the partitions: accounts in directories of their own, transfers between any two of them, and auditors. Whatever is killed,
//! no reader and no watcher ever sees another total.

use super::client::{Client, is_passing, prefix_end, put_of};
use super::load::Told;
use super::{LOOK, PATIENCE, until};
use quorate_api::pb;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use tokio::task::JoinHandle;

/// Where the accounts are.
const PREFIX: &str = "bank/";
const ACCOUNTS: usize = 12;
const BALANCE: i64 = 100;
const TELLERS: usize = 4;

fn account(number: usize) -> String {
    // Each in a directory of its own, so in a partition that has nothing to do with its neighbour's.
    format!("{PREFIX}{number:02}/balance")
}

/// Tellers and auditors at work.
pub struct Bank {
    transfers: Arc<AtomicU64>,
    audits: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Bank {
    /// Opens the accounts, all in one transaction, and begins.
    pub async fn open(client: &Client) -> Self {
        let put = |number| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(put_of(
                &account(number),
                &BALANCE.to_string(),
            ))),
        };
        let txn = pb::TxnRequest { success: (0..ACCOUNTS).map(put).collect(), ..Default::default() };
        client.insist(txn, |to, txn| async move { to.kv().txn(txn).await }).await;
        let (transfers, audits, stop) =
            (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut tasks: Vec<_> = (0..TELLERS)
            .map(|teller| {
                let (client, transfers, stop) = (client.another(teller), transfers.clone(), stop.clone());
                tokio::spawn(transfer(teller, client, transfers, stop))
            })
            .collect();
        tasks.push(tokio::spawn(audit(client.another(1), audits.clone(), stop.clone())));
        Self { transfers, audits, stop, tasks }
    }

    /// Waits until so many more transfers are acknowledged, and some audits made.
    pub async fn goes_on(&self, transfers: u64) {
        let count = || (self.transfers.load(Ordering::Relaxed), self.audits.load(Ordering::Relaxed));
        let before = count();
        until("money moves and is counted", async || {
            assert!(self.tasks.iter().all(|task| !task.is_finished()), "a teller or auditor failed");
            (count().0 >= before.0 + transfers && count().1 > before.1).then_some(())
        })
        .await;
    }

    /// Ends it; how many transfers were acknowledged, and how many audits made.
    pub async fn close(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a teller or auditor failed");
        }
        (self.transfers.load(Ordering::Relaxed), self.audits.load(Ordering::Relaxed))
    }
}

/// Moves money between accounts: reads two, and writes both if neither has changed.
async fn transfer(teller: usize, client: Client, transfers: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut number = teller;
    let mut newest = 0;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        assert!(last.elapsed() < PATIENCE, "no transfer of teller {teller} for {} s", PATIENCE.as_secs());
        number = number.wrapping_mul(31).wrapping_add(7) % 10_007;
        let (from, to) = (number % ACCOUNTS, (number / ACCOUNTS + 1) % ACCOUNTS);
        if from == to {
            continue;
        }
        let range = |number| pb::RangeRequest { key: account(number).into(), ..Default::default() };
        let read =
            |number| pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range(number))) };
        let look = pb::TxnRequest { success: vec![read(from), read(to)], ..Default::default() };
        let found = client.insist(look, |to, txn| async move { to.kv().txn(txn).await }).await;
        let revision = found.header.unwrap().revision;
        assert!(revision >= newest, "teller {teller} read at {revision} after {newest}");
        newest = revision;
        let pairs: Vec<_> = found
            .responses
            .into_iter()
            .map(|response| match response.response {
                Some(pb::response_op::Response::ResponseRange(range)) => range.kvs[0].clone(),
                other => panic!("not a range: {other:?}"),
            })
            .collect();
        let balance = |at: usize| -> i64 { std::str::from_utf8(&pairs[at].value).unwrap().parse().unwrap() };
        let amount = (balance(0) / 3).max(1);
        let unchanged = |at: usize| pb::Compare {
            result: pb::compare::CompareResult::Equal as i32,
            target: pb::compare::CompareTarget::Mod as i32,
            key: pairs[at].key.clone(),
            target_union: Some(pb::compare::TargetUnion::ModRevision(pairs[at].mod_revision)),
            ..Default::default()
        };
        let write = |number, balance: i64| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(put_of(
                &account(number),
                &balance.to_string(),
            ))),
        };
        let txn = pb::TxnRequest {
            compare: vec![unchanged(0), unchanged(1)],
            success: vec![write(from, balance(0) - amount), write(to, balance(1) + amount)],
            failure: Vec::new(),
        };
        match client.kv().txn(txn).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let revision = answer.header.unwrap().revision;
                if answer.succeeded {
                    assert!(revision > newest, "teller {teller} wrote at {revision} after {newest}");
                    transfers.fetch_add(1, Ordering::Relaxed);
                    last = Instant::now();
                }
                assert!(revision >= newest, "teller {teller} was refused at {revision} after {newest}");
                newest = revision;
            }
            // Whether it was carried out or not, the next look tells.
            Err(status) => {
                assert!(is_passing(&status), "refused: {status:?}");
                client.turn();
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Counts all money at one revision, again and again.
async fn audit(client: Client, audits: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut newest = 0;
    while !stop.load(Ordering::Relaxed) {
        let request = pb::RangeRequest {
            key: PREFIX.into(),
            range_end: prefix_end(PREFIX).into(),
            ..Default::default()
        };
        let answer = client.insist(request, |to, range| async move { to.kv().range(range).await }).await;
        let revision = answer.header.unwrap().revision;
        assert!(revision >= newest, "an audit at {revision} after {newest}");
        newest = revision;
        assert_eq!(answer.kvs.len(), ACCOUNTS, "at revision {revision}");
        let of = |pair: &quorate_api::mvccpb::KeyValue| -> i64 {
            assert!(pair.mod_revision <= revision, "{pair:?} at {revision}");
            std::str::from_utf8(&pair.value).unwrap().parse().unwrap()
        };
        let total: i64 = answer.kvs.iter().map(of).sum();
        assert_eq!(total, ACCOUNTS as i64 * BALANCE, "at revision {revision}: {:?}", answer.kvs);
        audits.fetch_add(1, Ordering::Relaxed);
        // Each at another node.
        client.turn();
        tokio::time::sleep(LOOK).await;
    }
}

/// After every revision that the watcher was told of the total is right; returns how many moved money.
pub fn check(told: &Told) -> usize {
    let mut balances: BTreeMap<&str, i64> = BTreeMap::new();
    let mut moves = 0;
    for (revision, events) in told {
        let of_bank: Vec<_> = events.iter().filter(|seen| seen.key.starts_with(PREFIX)).collect();
        if of_bank.is_empty() {
            continue;
        }
        for seen in of_bank {
            balances.insert(&seen.key, seen.value.as_ref().unwrap().parse().unwrap());
        }
        assert_eq!(balances.len(), ACCOUNTS, "the accounts were opened together; at {revision}");
        let total: i64 = balances.values().sum();
        assert_eq!(total, ACCOUNTS as i64 * BALANCE, "after revision {revision}: {events:?}");
        moves += 1;
    }
    moves
}
