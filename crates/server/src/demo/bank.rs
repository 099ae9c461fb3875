//! The demo's bank: accounts in directories of their own, so in many partitions. Tellers move money between any two, auditors
//! count all of it at one revision, a watcher follows every move. Whatever dies meanwhile, the total never changes.

use crate::cli::{Target, is_passing, prefix_end};
use quorate_api::{mvccpb, pb};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

const PREFIX: &str = "bank/";
/// Not an account: written last of all, so that the watcher knows when it has seen everything.
const CLOSED: &str = "bank/closed";
const ACCOUNTS: usize = 64;
const BALANCE: i64 = 1_000;
const TELLERS: usize = 8;
const AUDITORS: usize = 2;
/// Between two tries, when a node does not answer.
const PAUSE: Duration = Duration::from_millis(20);
/// How long opening the accounts, and the last event's way to the watcher, may take.
const WAIT_MAX: Duration = Duration::from_secs(20);

fn account(number: usize) -> String {
    format!("{PREFIX}{number:03}/balance")
}

fn put_of(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Transfers acknowledged.
    pub(super) transfers: u64,
    /// Transfers that others were quicker than.
    pub(super) conflicts: u64,
    /// Times that all money was counted.
    pub(super) audits: u64,
    /// Revisions that the watcher has followed.
    pub(super) watched: u64,
}

#[derive(Default)]
struct Books {
    transfers: AtomicU64,
    conflicts: AtomicU64,
    audits: AtomicU64,
    watched: AtomicU64,
    stop: AtomicBool,
    is_watched_to_the_end: AtomicBool,
    /// The first thing that must not be.
    wrong: Mutex<Option<String>>,
}

impl Books {
    async fn wrong(&self, what: String) {
        self.wrong.lock().await.get_or_insert(what);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The nodes in turn: the next one when one does not answer.
struct Nodes {
    target: Target,
    at: usize,
    channel: Option<Channel>,
}

impl Nodes {
    fn new(target: &Target, at: usize) -> Self {
        Self { target: target.clone(), at, channel: None }
    }

    async fn channel(&mut self) -> Channel {
        loop {
            if let Some(channel) = &self.channel {
                return channel.clone();
            }
            self.channel = self
                .target
                .connect_to(&self.target.endpoints[self.at % self.target.endpoints.len()])
                .await
                .ok();
            if self.channel.is_none() {
                self.turn().await;
            }
        }
    }

    async fn turn(&mut self) {
        self.channel = None;
        self.at += 1;
        tokio::time::sleep(PAUSE).await;
    }

    async fn kv(&mut self) -> pb::kv_client::KvClient<Channel> {
        pb::kv_client::KvClient::new(self.channel().await)
    }
}

/// Everybody at work.
pub(super) struct Bank {
    books: Arc<Books>,
    tasks: Vec<JoinHandle<()>>,
    watcher: JoinHandle<()>,
    target: Target,
}

impl Bank {
    /// Opens all accounts in one transaction, and the bank.
    pub(super) async fn open(target: &Target) -> Result<Self, String> {
        let put = |number| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(put_of(
                &account(number),
                &BALANCE.to_string(),
            ))),
        };
        let txn = pb::TxnRequest { success: (0..ACCOUNTS).map(put).collect(), ..Default::default() };
        let (begun, mut nodes) = (Instant::now(), Nodes::new(target, 0));
        // Carried out twice it does no harm: nobody has moved money yet.
        let opened = loop {
            match nodes.kv().await.txn(txn.clone()).await {
                Ok(answer) => break answer.into_inner().header.map_or(0, |header| header.revision),
                Err(status) if begun.elapsed() > WAIT_MAX => {
                    return Err(format!("opening the bank's accounts: {}", status.message()));
                }
                Err(_) => nodes.turn().await,
            }
        };
        let books = Arc::<Books>::default();
        let mut tasks: Vec<_> = (0..TELLERS)
            .map(|number| tokio::spawn(tell(number, Nodes::new(target, number), books.clone())))
            .collect();
        tasks.extend(
            (0..AUDITORS).map(|number| tokio::spawn(audit(Nodes::new(target, number), books.clone()))),
        );
        let watcher = tokio::spawn(watch(target.clone(), opened, books.clone()));
        Ok(Self { books, tasks, watcher, target: target.clone() })
    }

    /// What has happened so far.
    pub(super) fn counts(&self) -> Counts {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counts {
            transfers: count(&self.books.transfers),
            conflicts: count(&self.books.conflicts),
            audits: count(&self.books.audits),
            watched: count(&self.books.watched),
        }
    }

    /// What must not be, if it was seen.
    pub(super) async fn problem(&self) -> Result<(), String> {
        self.books.wrong.lock().await.clone().map_or(Ok(()), Err)
    }

    /// Ends it when the watcher has seen everything; what has happened.
    pub(super) async fn close(mut self) -> Result<Counts, String> {
        self.books.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            task.await.map_err(|error| format!("a teller or auditor failed: {error}"))?;
        }
        let (begun, mut nodes) = (Instant::now(), Nodes::new(&self.target, 0));
        while let Err(status) = nodes.kv().await.put(put_of(CLOSED, "yes")).await {
            if begun.elapsed() > WAIT_MAX {
                return Err(format!("closing the bank: {}", status.message()));
            }
            nodes.turn().await;
        }
        while !self.books.is_watched_to_the_end.load(Ordering::Relaxed) {
            self.problem().await?;
            if begun.elapsed() > WAIT_MAX {
                return Err("the watcher has not been told of everything".into());
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.problem().await?;
        let counts = self.counts();
        if counts.watched < counts.transfers {
            let Counts { transfers, watched, .. } = counts;
            return Err(format!(
                "the watcher was told of {watched} moves of money, {transfers} were acknowledged"
            ));
        }
        Ok(counts)
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.watcher.abort();
    }
}

fn balance_of(pair: &mvccpb::KeyValue) -> Option<i64> {
    std::str::from_utf8(&pair.value).ok()?.parse().ok()
}

/// Moves money: reads two accounts at one revision, and writes both if neither has changed since.
async fn tell(number: usize, mut nodes: Nodes, books: Arc<Books>) {
    let mut drawn = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    while !books.is_over() {
        // xorshift64
        drawn ^= drawn << 13;
        drawn ^= drawn >> 7;
        drawn ^= drawn << 17;
        let (from, to) = (drawn as usize % ACCOUNTS, (drawn >> 32) as usize % ACCOUNTS);
        if from == to {
            continue;
        }
        match transfer(&mut nodes, from, to, (drawn >> 16) as i64 & 0x3f).await {
            Ok(true) => books.transfers.fetch_add(1, Ordering::Relaxed),
            Ok(false) => books.conflicts.fetch_add(1, Ordering::Relaxed),
            // Whether it was carried out or not: the money is somewhere.
            Err(status) if is_passing(&status) => {
                nodes.turn().await;
                0
            }
            Err(status) => return books.wrong(format!("a transfer was refused: {}", status.message())).await,
        };
    }
}

async fn transfer(nodes: &mut Nodes, from: usize, to: usize, amount: i64) -> Result<bool, tonic::Status> {
    let read = |number| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest {
            key: account(number).into(),
            ..Default::default()
        })),
    };
    let mut kv = nodes.kv().await;
    let look = pb::TxnRequest { success: vec![read(from), read(to)], ..Default::default() };
    let found = kv.txn(look).await?.into_inner().responses.into_iter().filter_map(|response| {
        let Some(pb::response_op::Response::ResponseRange(range)) = response.response else { return None };
        let pair = range.kvs.into_iter().next()?;
        Some((balance_of(&pair)?, pair))
    });
    let found: Vec<(i64, mvccpb::KeyValue)> = found.collect();
    let [(giver, first), (taker, second)] = &found[..] else {
        return Err(tonic::Status::data_loss("an account is gone"));
    };
    let unchanged = |pair: &mvccpb::KeyValue| pb::Compare {
        result: pb::compare::CompareResult::Equal as i32,
        target: pb::compare::CompareTarget::Mod as i32,
        key: pair.key.clone(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(pair.mod_revision)),
        ..Default::default()
    };
    let write = |number, balance: i64| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put_of(&account(number), &balance.to_string()))),
    };
    let txn = pb::TxnRequest {
        compare: vec![unchanged(first), unchanged(second)],
        success: vec![write(from, giver - amount), write(to, taker + amount)],
        failure: Vec::new(),
    };
    Ok(kv.txn(txn).await?.into_inner().succeeded)
}

/// Counts all money at one revision, each time at another node.
async fn audit(mut nodes: Nodes, books: Arc<Books>) {
    let mut newest = 0;
    while !books.is_over() {
        let request = pb::RangeRequest {
            key: PREFIX.into(),
            range_end: prefix_end(PREFIX.as_bytes()).into(),
            ..Default::default()
        };
        match nodes.kv().await.range(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let revision = answer.header.as_ref().map_or(0, |header| header.revision);
                let total: i64 = answer.kvs.iter().filter_map(balance_of).sum();
                if answer.kvs.len() != ACCOUNTS || total != ACCOUNTS as i64 * BALANCE {
                    let accounts = answer.kvs.len();
                    return books
                        .wrong(format!(
                            "an audit at revision {revision} found {total} in {accounts} accounts"
                        ))
                        .await;
                }
                if revision < newest {
                    return books.wrong(format!("an audit at revision {revision} after {newest}")).await;
                }
                newest = revision;
                books.audits.fetch_add(1, Ordering::Relaxed);
                nodes.turn().await;
            }
            Err(status) if is_passing(&status) => nodes.turn().await,
            Err(status) => return books.wrong(format!("an audit was refused: {}", status.message())).await,
        }
    }
}

/// Follows every move of money; goes on at the next node, behind the last revision seen, whenever the stream breaks.
async fn watch(target: Target, opened: i64, books: Arc<Books>) {
    // An answer may take for ever.
    let target = Target { timeout: u64::from(u32::MAX), ..target };
    let mut nodes = Nodes::new(&target, 0);
    let mut balances = BTreeMap::new();
    for number in 0..ACCOUNTS {
        balances.insert(account(number).into_bytes(), BALANCE);
    }
    let mut last = opened;
    loop {
        let create = pb::WatchCreateRequest {
            key: PREFIX.into(),
            range_end: prefix_end(PREFIX.as_bytes()).into(),
            start_revision: last + 1,
            ..Default::default()
        };
        let request =
            pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        // The request side stays open for as long as the stream is read.
        let (keep_open, requests) = tokio::sync::mpsc::channel(1);
        let _ = keep_open.send(request).await;
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        let mut client = pb::watch_client::WatchClient::new(nodes.channel().await);
        if let Ok(stream) = client.watch(requests).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(response)) = stream.message().await {
                if response.canceled {
                    return books.wrong(format!("the watch was cancelled: {}", response.cancel_reason)).await;
                }
                match follow(&response.events, &mut last, &mut balances) {
                    Ok((revisions, is_closed)) => {
                        books.watched.fetch_add(revisions, Ordering::Relaxed);
                        if is_closed {
                            return books.is_watched_to_the_end.store(true, Ordering::Relaxed);
                        }
                    }
                    Err(what) => return books.wrong(what).await,
                }
            }
        }
        drop(keep_open);
        nodes.turn().await;
    }
}

/// Takes events in, whole revisions at a time: how many moved money, and whether the bank is closed.
fn follow(
    events: &[mvccpb::Event],
    last: &mut i64,
    balances: &mut BTreeMap<Vec<u8>, i64>,
) -> Result<(u64, bool), String> {
    let revision_of = |event: &mvccpb::Event| event.kv.as_ref().map_or(0, |pair| pair.mod_revision);
    let (mut revisions, mut is_closed) = (0, false);
    for of_revision in events.chunk_by(|a, b| revision_of(a) == revision_of(b)) {
        let Some(revision) = of_revision.first().map(revision_of) else { continue };
        // A revision that continues in another response is one that was torn, or told twice.
        if revision <= *last {
            return Err(format!("the watcher was told of revision {revision} after {last}"));
        }
        *last = revision;
        for pair in of_revision.iter().filter_map(|event| event.kv.as_ref()) {
            if pair.key.as_ref() == CLOSED.as_bytes() {
                is_closed = true;
            } else if let Some(balance) = balance_of(pair) {
                balances.insert(pair.key.to_vec(), balance);
            }
        }
        let total: i64 = balances.values().sum();
        if total != ACCOUNTS as i64 * BALANCE {
            return Err(format!("after revision {revision} the watcher knows of {total}"));
        }
        revisions += u64::from(!is_closed);
    }
    Ok((revisions, is_closed))
}

/// How much there always is.
pub(super) fn total() -> i64 {
    ACCOUNTS as i64 * BALANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(account_number: usize, balance: i64, mod_revision: i64) -> mvccpb::Event {
        let pair = mvccpb::KeyValue {
            key: account(account_number).into(),
            value: balance.to_string().into(),
            mod_revision,
            ..Default::default()
        };
        mvccpb::Event { kv: Some(pair), ..Default::default() }
    }

    #[test]
    fn a_torn_transfer_is_seen() {
        let opened: BTreeMap<Vec<u8>, i64> =
            (0..ACCOUNTS).map(|number| (account(number).into_bytes(), BALANCE)).collect();
        let check = |events: &[mvccpb::Event], expected: Result<(u64, bool), &str>| {
            let found = follow(events, &mut 5, &mut opened.clone());
            match (found, expected) {
                (Err(found), Err(words)) => assert!(found.contains(words), "{found}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned)),
            }
        };
        let (less, more) = (BALANCE - 3, BALANCE + 3);
        check(&[event(1, less, 6), event(2, more, 6)], Ok((1, false)));
        check(
            &[event(1, less, 6), event(2, more, 6), event(1, BALANCE, 9), event(2, BALANCE, 9)],
            Ok((2, false)),
        );
        check(&[event(1, less, 6)], Err("after revision 6"));
        check(&[event(1, less, 6), event(2, more, 7)], Err("after revision 6"));
        check(&[event(1, less, 5), event(2, more, 5)], Err("revision 5 after 5"));
    }
}
