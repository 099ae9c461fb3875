//! Load that keeps books: writers that know what was acknowledged, and a watcher that knows what it was told.

use super::client::{Client, put_of};
use super::{Cluster, LOOK, until};
use quorate_api::{mvccpb, pb};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Where all load writes.
pub const PREFIX: &str = "load/";
const WRITERS: usize = 4;

/// What the writers know.
#[derive(Default)]
pub struct Books {
    /// Key to value and the revision that was answered. Every key is written with one value only, so that a
    /// repeated write whose first try was carried out as well is still right.
    pub acknowledged: Mutex<BTreeMap<String, (String, i64)>>,
    count: AtomicU64,
    /// The newest revision that any answer named.
    newest: AtomicI64,
    /// Microseconds since the start: when a write was last acknowledged, and the longest time without one since that
    /// was last asked for.
    last: AtomicU64,
    gap: AtomicU64,
    stop: AtomicBool,
}

impl Books {
    /// Writes acknowledged so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The longest time without an acknowledged write since this was last called.
    pub fn take_gap(&self) -> Duration {
        Duration::from_micros(self.gap.swap(0, Ordering::Relaxed))
    }
}

/// Writers at work.
pub struct Load {
    pub books: Arc<Books>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Some writers, each beginning at another node.
    pub fn start(client: &Client) -> Self {
        let books = Arc::<Books>::default();
        let clock = Instant::now();
        let writer = |at| tokio::spawn(write(at, client.another(at), books.clone(), clock));
        Self { writers: (0..WRITERS).map(writer).collect(), books: books.clone() }
    }

    /// Waits until so many more writes are acknowledged.
    pub async fn goes_on(&self, writes: u64) {
        let enough = self.books.count() + writes;
        until("writes are acknowledged", async || {
            assert!(self.writers.iter().all(|writer| !writer.is_finished()), "a writer failed");
            (self.books.count() >= enough).then_some(())
        })
        .await;
    }

    /// Ends the writers, each after its write; what was acknowledged.
    pub async fn finish(self) -> BTreeMap<String, (String, i64)> {
        self.books.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("a writer failed");
        }
        std::mem::take(&mut *self.books.acknowledged.lock().unwrap())
    }
}

/// Writes key after key. Every eighth write is a transaction of two keys, to have revisions with two events; every
/// sixteenth is followed by a read.
async fn write(writer: usize, client: Client, books: Arc<Books>, clock: Instant) {
    for number in 0u64.. {
        if books.stop.load(Ordering::Relaxed) {
            return;
        }
        // Whatever is answered from here on must not be older than what anyone was told before.
        let known = books.newest.load(Ordering::SeqCst);
        let key = format!("{PREFIX}{writer}/{number:07}");
        let value = format!("{writer} wrote {number}");
        let mut written = vec![(key.clone(), value.clone())];
        let revision = if number % 8 == 7 {
            written.push((format!("{key}/twin"), value));
            let put = |(key, value): &(String, String)| pb::RequestOp {
                request: Some(pb::request_op::Request::RequestPut(put_of(key, value))),
            };
            let txn = pb::TxnRequest { success: written.iter().map(put).collect(), ..Default::default() };
            let answer = client.insist(txn, |to, txn| async move { to.kv().txn(txn).await }).await;
            answer.header.unwrap().revision
        } else {
            client.put(&key, &value).await
        };
        assert!(revision > known, "{key} got revision {revision} after {known} was answered");
        books.newest.fetch_max(revision, Ordering::SeqCst);
        let now = clock.elapsed().as_micros() as u64;
        let last = books.last.swap(now, Ordering::Relaxed);
        books.gap.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        books.count.fetch_add(1, Ordering::Relaxed);
        let written = written.into_iter().map(|(key, value)| (key, (value, revision)));
        books.acknowledged.lock().unwrap().extend(written);
        if number % 16 == 15 {
            let known = books.newest.load(Ordering::SeqCst);
            let request = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
            let answer = client.insist(request, |to, range| async move { to.kv().range(range).await }).await;
            let revision = answer.header.unwrap().revision;
            assert!(revision >= known, "a read at revision {revision} after {known} was answered");
            assert_eq!(answer.kvs.len(), 1, "{key} was acknowledged and is not there");
            books.newest.fetch_max(revision, Ordering::SeqCst);
        }
    }
}

/// Every node has what was acknowledged, and all have the same history.
pub async fn check(cluster: &Cluster, acknowledged: &BTreeMap<String, (String, i64)>) {
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    let mut newest = 0;
    for node in &cluster.nodes {
        let (revision, found) = node.only().prefix(PREFIX).await;
        newest = newest.max(revision);
        for (key, (value, revision)) in acknowledged {
            let what = format!("{key} of revision {revision} at {}", node.name);
            assert_eq!(found.get(key), Some(value), "{what}, of {} acknowledged", acknowledged.len());
        }
    }
    let mut hashes = Vec::new();
    for node in &cluster.nodes {
        hashes.push(node.only().hash(newest).await);
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "histories differ at {newest}: {hashes:?}");
}

/// An event, as far as it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub key: String,
    /// None for a deletion.
    pub value: Option<String>,
    /// When it came.
    pub when: Instant,
}

/// What a watcher was told: events by revision.
pub type Told = BTreeMap<i64, Vec<Seen>>;

/// A watch of everything, resumed at another node whenever its stream breaks.
pub struct Watcher {
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Returns when the watch is there: whatever is written from now on will be seen.
    pub async fn start(client: &Client) -> Self {
        let told = Arc::<Mutex<Told>>::default();
        let (created, is_created) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(follow(client.another(0), told.clone(), created));
        is_created.await.expect("the watch is created");
        Self { told, task }
    }

    /// Waits until the event of a revision is there; everything up to it.
    pub async fn up_to(&self, revision: i64) -> Told {
        until(&format!("the watcher is told of revision {revision}"), async || {
            assert!(!self.task.is_finished(), "the watcher failed");
            self.told
                .lock()
                .unwrap()
                .last_key_value()
                .is_some_and(|(last, _)| *last >= revision)
                .then_some(())
        })
        .await;
        self.told.lock().unwrap().clone()
    }

    /// The first event of a key that `is_right`, as soon as it is there.
    pub async fn event(&self, key: &str, is_right: impl Fn(&Seen) -> bool) -> Seen {
        until(&format!("the watcher is told of {key}"), async || {
            assert!(!self.task.is_finished(), "the watcher failed");
            let told = self.told.lock().unwrap();
            told.values().flatten().find(|seen| seen.key == key && is_right(seen)).cloned()
        })
        .await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(client: Client, told: Arc<Mutex<Told>>, created: tokio::sync::oneshot::Sender<()>) {
    let mut created = Some(created);
    loop {
        let last = told.lock().unwrap().last_key_value().map(|(revision, _)| *revision);
        let request = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: vec![0].into(),
                range_end: vec![0].into(),
                // The very first begins at the start, so that nothing depends on when the stream first broke.
                start_revision: last.map_or(1, |last| last + 1),
                ..Default::default()
            })),
        };
        // The request side stays open for as long as the stream is read.
        let (keep_open, requests) = tokio::sync::mpsc::channel(1);
        keep_open.send(request).await.expect("the receiver is at hand");
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        if let Ok(stream) = client.watch().watch(requests).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(response)) = stream.message().await {
                assert!(!response.canceled, "the watch was cancelled: {response:?}");
                if response.created
                    && let Some(created) = created.take()
                {
                    let _ = created.send(());
                }
                note(&mut told.lock().unwrap(), response.events);
            }
        }
        drop(keep_open);
        client.turn();
        tokio::time::sleep(LOOK).await;
    }
}

/// Whole revisions, each once, in order.
fn note(told: &mut Told, events: Vec<mvccpb::Event>) {
    let last = told.last_key_value().map_or(0, |(revision, _)| *revision);
    let mut newest = last;
    for event in events {
        let pair = event.kv.unwrap();
        let revision = pair.mod_revision;
        // A revision that continues in another response is one that was split, or told twice.
        assert!(revision > last, "told of revision {revision} after {last}");
        assert!(revision >= newest, "told of revision {revision} after {newest} in one response");
        newest = revision;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let is_put = event.r#type == mvccpb::event::EventType::Put as i32;
        let seen =
            Seen { key: text(&pair.key), value: is_put.then(|| text(&pair.value)), when: Instant::now() };
        let of_revision = told.entry(revision).or_default();
        assert!(of_revision.iter().all(|other| other.key != seen.key), "{} twice in {revision}", seen.key);
        of_revision.push(seen);
    }
}

/// No revision is missing, and every acknowledged write was told at the revision that its writer was told.
pub fn compare(told: &Told, acknowledged: &BTreeMap<String, (String, i64)>) {
    // The first write of an empty key space makes revision 2.
    for (expected, revision) in (2..).zip(told.keys()) {
        assert_eq!(*revision, expected, "a revision is missing");
    }
    compare_but_gaps(told, acknowledged);
}

/// The same where revisions may be given out to somebody who dies before he uses them: with several partitions, under faults.
pub fn compare_but_gaps(told: &Told, acknowledged: &BTreeMap<String, (String, i64)>) {
    for (key, (value, revision)) in acknowledged {
        let events = told.get(revision).unwrap_or_else(|| panic!("{key}: revision {revision} was not told"));
        let right = |seen: &&Seen| seen.key == *key && seen.value.as_ref() == Some(value);
        assert!(events.iter().any(|seen| right(&seen)), "{key} at {revision}: told {events:?}");
    }
}
