//! Partitions that are dealt over the nodes, under the real binary: no node has all of the keyspace, and watches are put together.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::pb::watch_request::RequestUnion;
use quorate_api::{mvccpb, pb};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::client::{Client, put_of};
use support::load::Load;
use support::watches::{Watches, follow, serves_like_any_hub, watch_of, watch_of_all};
use support::{Cluster, run, until};

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 40;
/// What a transaction of [`transact`] writes, in this order: directories that are in different partitions.
const DIRECTORIES: [&str; 5] = ["south/", "east/", "a/", "north/", "west/"];

/// Five nodes with three replicas of each partition among them.
async fn dealt(partitions: u32) -> Cluster {
    let mut cluster = Cluster::new(5);
    for node in &mut cluster.nodes {
        node.settings.insert("--replicas", "3".into());
        node.settings.insert("--partitions", partitions.to_string());
        node.settings.insert("--placement", "dealt".into());
        node.start();
    }
    cluster.ready().await;
    are_dealt(&cluster, partitions).await;
    cluster
}

/// Waits until each node has a part, each partition is on three, and all vote in the meta group. Before that nobody can be spared.
async fn are_dealt(cluster: &Cluster, partitions: u32) {
    let endpoints = cluster.endpoints().join(",");
    until("partitions are dealt", async || {
        let (_, said) = run(&["node", "list", "-o", "json", "--endpoints", &endpoints]);
        let listed: Value = serde_json::from_str(&said).ok()?;
        let nodes = listed["nodes"].as_array()?;
        let held: Vec<u64> = nodes.iter().filter_map(|node| node["replicas"].as_u64()).collect();
        let are_dealt = held.iter().all(|held| *held > 1) && held.len() == cluster.nodes.len();
        (are_dealt && held.iter().sum::<u64>() == u64::from(3 * partitions) + 5).then_some(())
    })
    .await;
}

/// Writes transactions over partitions until it is told to stop; their revisions.
async fn transact(client: Client, stop: Arc<AtomicBool>) -> Vec<i64> {
    let mut revisions = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let put = |directory: &&str| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(put_of(
                &format!("{directory}{number}"),
                &number.to_string(),
            ))),
        };
        let txn = pb::TxnRequest { success: DIRECTORIES.iter().map(put).collect(), ..Default::default() };
        let answer = client.insist(txn, |to, txn| async move { to.kv().txn(txn).await }).await;
        revisions.push(answer.header.unwrap().revision);
    }
    revisions
}

/// What one stream told is whole: every transaction in one piece and in order, and what was before is what was told before.
fn check_told(told: &BTreeMap<i64, Vec<mvccpb::Event>>, has_previous: bool) {
    let mut before: BTreeMap<Vec<u8>, mvccpb::KeyValue> = BTreeMap::new();
    for (revision, events) in told {
        let keys: Vec<String> = events
            .iter()
            .map(|event| String::from_utf8_lossy(&event.kv.as_ref().unwrap().key).into())
            .collect();
        if let Some(number) = keys[0].strip_prefix(DIRECTORIES[0]) {
            let whole: Vec<String> =
                DIRECTORIES.iter().map(|directory| format!("{directory}{number}")).collect();
            assert_eq!(keys, whole, "at {revision}");
        }
        for event in events.iter().filter(|_| has_previous) {
            let pair = event.kv.clone().unwrap();
            let was = match event.r#type() {
                mvccpb::event::EventType::Put => before.insert(pair.key.to_vec(), pair),
                mvccpb::event::EventType::Delete => before.remove(&pair.key.to_vec()),
            };
            assert_eq!(event.prev_kv, was, "at {revision}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_everything_go_on_whoever_dies_and_whatever_moves() {
    let mut cluster = dealt(8).await;
    let everything = pb::WatchCreateRequest { prev_kv: true, progress_notify: true, ..watch_of_all() };
    let mut followers = Vec::new();
    // The streams of those that are killed break.
    for at in 0..2 {
        let mut watches = Watches::open(&cluster.nodes[at].only()).await;
        watches.create(everything.clone()).await;
        followers.push(tokio::spawn(follow(watches)));
    }
    let load = Load::start(&cluster.client());
    let stop = Arc::<AtomicBool>::default();
    let writer = tokio::spawn(transact(cluster.client().another(1), stop.clone()));
    for at in 2..5 {
        load.goes_on(SOME).await;
        cluster.nodes[at].kill();
        load.goes_on(SOME).await;
        cluster.nodes[at].start();
        cluster.nodes[at].ready().await;
        let mut watches = Watches::open(&cluster.nodes[at].only()).await;
        watches.create(everything.clone()).await;
        if at < 4 {
            drop(watches);
        } else {
            followers.push(tokio::spawn(follow(watches)));
        }
    }
    let endpoints = cluster.endpoints().join(",");
    for order in [&["drain", "n1", "--wait"][..], &["undrain", "n1"], &["drain", "n4", "--wait"]] {
        let (code, said) = run(&[&["node"], order, &["--endpoints", &endpoints]].concat());
        assert_eq!(code, Some(0), "{said}");
        load.goes_on(SOME).await;
    }
    stop.store(true, Ordering::Relaxed);
    let transactions = writer.await.unwrap();
    let acknowledged = load.finish().await;
    cluster.client().put("end", "").await;
    let mut all = Vec::new();
    for follower in followers {
        all.push(follower.await.unwrap());
    }
    check_told(&all[0], true);
    assert!(all.iter().all(|told| *told == all[0]), "two streams told different things");
    for revision in transactions {
        assert!(all[0].contains_key(&revision), "a transaction at {revision} was not told");
    }
    for (key, (value, revision)) in &acknowledged {
        let events = all[0].get(revision).unwrap_or_else(|| panic!("{key}: {revision} was not told"));
        let is_it = |event: &mvccpb::Event| {
            event.kv.as_ref().is_some_and(|pair| pair.key == key.as_bytes() && pair.value == value.as_bytes())
        };
        assert!(events.iter().any(is_it), "{key} at {revision}");
    }
    // From the past, and of a part, at every node.
    for node in &cluster.nodes {
        let mut watches = Watches::open(&node.only()).await;
        watches.create(everything.clone()).await;
        assert!(follow(watches).await == all[0], "{} tells another past", node.name);
        let mut watches = Watches::open(&node.only()).await;
        watches.create(watch_of("north/", 1)).await;
        watches.ask(RequestUnion::CreateRequest(watch_of("end", 1))).await;
        let north = follow(watches).await;
        let is_north = |event: &mvccpb::Event| event.kv.as_ref().unwrap().key.starts_with(b"north/");
        let expected = all[0].iter().filter(|(_, events)| events.iter().any(is_north)).count();
        // The other watch's end may come before this one's.
        assert!(north.len() <= expected && north.values().flatten().all(is_north));
    }
}

/// No node has all that is asked for; it is brought together where it is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_over_everything_is_read_at_every_node() {
    const KEYS: usize = 64;
    const VALUE_BYTES: usize = 512 << 10;
    let cluster = dealt(8).await;
    let client = cluster.client();
    let key = |number: usize| format!("{}/{number:03}", number % 16);
    for number in 0..KEYS {
        let value = vec![b'a' + (number % 26) as u8; VALUE_BYTES];
        let put = pb::PutRequest {
            key: key(number).into_bytes().into(),
            value: value.into(),
            ..Default::default()
        };
        client.insist(put, |to, put| async move { to.kv().put(put).await }).await;
    }
    let mut keys: Vec<String> = (0..KEYS).map(key).collect();
    keys.sort();
    let all = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    for node in &cluster.nodes {
        let only = node.only();
        let found = only.kv().range(all.clone()).await.unwrap().into_inner();
        let read: Vec<&[u8]> = found.kvs.iter().map(|pair| &pair.key[..]).collect();
        assert!(read == keys.iter().map(|key| key.as_bytes()).collect::<Vec<_>>(), "at {}", node.name);
        assert!(found.kvs.iter().all(|pair| pair.value.len() == VALUE_BYTES));
        let some = pb::RangeRequest { limit: 5, keys_only: true, ..all.clone() };
        let found = only.kv().range(some).await.unwrap().into_inner();
        assert_eq!((found.kvs.len(), found.more, found.count), (5, true, KEYS as i64));
        // As of the past, and of what this node has.
        let past = pb::RangeRequest {
            revision: found.header.unwrap().revision - 1,
            count_only: true,
            ..all.clone()
        };
        assert_eq!(only.kv().range(past).await.unwrap().into_inner().count, KEYS as i64 - 1);
        let serializable = pb::RangeRequest { serializable: true, count_only: true, ..all.clone() };
        assert_eq!(only.kv().range(serializable).await.unwrap().into_inner().count, KEYS as i64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_put_together_serve_like_any_hub() {
    let cluster = dealt(8).await;
    for at in [0, 3] {
        serves_like_any_hub(&cluster, at).await;
    }
}
