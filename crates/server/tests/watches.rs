//! Watches under the real binary at nodes that have not what is watched: another node serves them, and then another.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::pb::watch_request::RequestUnion;
use quorate_api::{mvccpb, pb};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::client::{Client, prefix_end, put_of};
use support::load::{self, Load};
use support::{Cluster, http_at, run, until};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 60;

/// A stream at one node. That it breaks fails the test: what breaks behind the node is none of the client's business.
struct Watches {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watches {
    async fn open(client: &Client) -> Self {
        let (requests, queued) = mpsc::channel(64);
        let responses = client.watch().watch(ReceiverStream::new(queued)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let told = tokio::time::timeout(support::PATIENCE, self.responses.message()).await;
        told.expect("the watch stalls").unwrap().expect("the stream ends")
    }

    /// Begins a watch; what the node answers.
    async fn create(&mut self, create: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(RequestUnion::CreateRequest(create)).await;
        let told = self.next().await;
        assert!(told.created, "{told:?}");
        told
    }

    async fn events(&mut self) -> Vec<mvccpb::Event> {
        loop {
            let told = self.next().await;
            assert!(!told.canceled, "{told:?}");
            if !told.events.is_empty() {
                return told.events;
            }
        }
    }
}

/// All keys with a prefix, from a revision on; 0 is from now on.
fn watch_of(prefix: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: prefix.as_bytes().to_vec().into(),
        range_end: prefix_end(prefix).into(),
        start_revision,
        ..Default::default()
    }
}

/// Every key, from the beginning.
fn watch_of_all() -> pb::WatchCreateRequest {
    let all = vec![0];
    pb::WatchCreateRequest {
        key: all.clone().into(),
        range_end: all.into(),
        start_revision: 1,
        ..Default::default()
    }
}

/// Three nodes that hold everything, and one that stands by.
async fn with_spare(partitions: u32) -> (Cluster, usize) {
    let mut cluster = Cluster::partitioned(3, partitions).await;
    let at = cluster.add("n4");
    cluster.nodes[at].settings.insert("--watch-progress-interval", "1".into());
    cluster.nodes[at].start();
    cluster.nodes[at].ready().await;
    (cluster, at)
}

/// What the writers were told is what one stream at the spare told, once and in order.
async fn follow(mut watches: Watches) -> BTreeMap<i64, Vec<mvccpb::Event>> {
    let mut told: BTreeMap<i64, Vec<mvccpb::Event>> = BTreeMap::new();
    loop {
        let last = told.last_key_value().map_or(0, |(revision, _)| *revision);
        for event in watches.events().await {
            let pair = event.kv.clone().unwrap();
            assert!(pair.mod_revision > last, "told of revision {} after {last}", pair.mod_revision);
            if pair.key == b"end".as_slice() {
                return told;
            }
            told.entry(pair.mod_revision).or_default().push(event);
        }
    }
}

async fn is_followed_whoever_dies(partitions: u32) {
    let (mut cluster, spare) = with_spare(partitions).await;
    let mut watches = Watches::open(&cluster.nodes[spare].only()).await;
    let everything = pb::WatchCreateRequest { prev_kv: true, progress_notify: true, ..watch_of_all() };
    watches.create(everything).await;
    let follower = tokio::spawn(follow(watches));
    let load = Load::start(&cluster.client());
    let counter = cluster.client();
    for round in 0..3 {
        load.goes_on(SOME).await;
        cluster.nodes[round].kill();
        counter.put("counter", &round.to_string()).await;
        load.goes_on(SOME).await;
        cluster.nodes[round].start();
        cluster.nodes[round].ready().await;
    }
    let acknowledged = load.finish().await;
    cluster.client().put("end", "").await;
    let told = follower.await.unwrap();
    let mut before: BTreeMap<Vec<u8>, mvccpb::KeyValue> = BTreeMap::new();
    for (revision, events) in &told {
        for event in events {
            let pair = event.kv.clone().unwrap();
            assert_eq!(event.prev_kv, before.insert(pair.key.to_vec(), pair), "at {revision}");
        }
    }
    for (key, (value, revision)) in &acknowledged {
        let events = told.get(revision).unwrap_or_else(|| panic!("{key}: {revision} was not told"));
        let is_it = |event: &mvccpb::Event| {
            event.kv.as_ref().is_some_and(|pair| pair.key == key.as_bytes() && pair.value == value.as_bytes())
        };
        assert!(events.iter().any(is_it), "{key} at {revision}");
    }
    // Who has nothing has nothing to compare.
    cluster.nodes.remove(spare).kill();
    load::check(&cluster, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_at_a_spare_goes_on_whoever_dies() {
    is_followed_whoever_dies(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_at_a_spare_goes_on_whoever_dies_over_partitions() {
    is_followed_whoever_dies(8).await;
}

/// Everything that a stream of watches can do, at a node that has nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_serves_watches_like_any_node() {
    let (cluster, spare) = with_spare(4).await;
    let client = cluster.nodes[spare].only();
    let (status, said) = http_at(&cluster.nodes[spare].client, "GET", "/health", "").await;
    assert_eq!(status, 200, "{said}");
    let (code, said) = run(&["status", "--endpoints", &cluster.nodes[spare].client]);
    assert!(code == Some(0) && said.contains("stands by"), "{said}");
    let first = client.put("a", "1").await;
    client.put("a", "2").await;
    let third = client.put("a", "3").await;
    let mut watches = Watches::open(&client).await;
    let past = watches.create(watch_of("a", first)).await;
    assert_eq!(past.watch_id, 0);
    let status = client.try_status().await.unwrap();
    assert_eq!(past.header.unwrap().member_id, status.header.unwrap().member_id);
    let mut values = Vec::new();
    while values.len() < 3 {
        values.extend(watches.events().await.into_iter().map(|event| event.kv.unwrap().value));
    }
    assert_eq!(values, ["1", "2", "3"]);
    // A lease that runs out.
    let granted = client.lease().lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 0 }).await.unwrap();
    let lease = granted.into_inner().id;
    let leased = pb::PutRequest { lease, ..put_of("ab", "x") };
    client.kv().put(leased).await.unwrap();
    assert_eq!(watches.events().await[0].kv.as_ref().unwrap().lease, lease);
    assert_eq!(watches.events().await[0].r#type, mvccpb::event::EventType::Delete as i32);
    // Progress, asked for and not.
    watches.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let told = watches.next().await;
    assert!(told.watch_id == -1 && told.events.is_empty(), "{told:?}");
    // Cancelled, and the id is not used again.
    watches.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
    assert!(watches.next().await.canceled);
    assert_eq!(watches.create(watch_of("b", 0)).await.watch_id, 1);
    // Taken, and refused alone.
    let taken = pb::WatchCreateRequest { watch_id: 1, ..watch_of("b", 0) };
    assert!(watches.create(taken).await.canceled);
    // Compacted.
    let compact = pb::CompactionRequest { revision: third, physical: false };
    client.kv().compact(compact).await.unwrap();
    until("who serves it has compacted", async || {
        let mut watches = Watches::open(&client).await;
        watches.create(watch_of("a", first)).await;
        let told = watches.next().await;
        told.canceled.then(|| assert_eq!((told.watch_id, told.compact_revision), (0, third)))
    })
    .await;
    // In parts, of one revision.
    let many = pb::WatchCreateRequest { fragment: true, prev_kv: true, ..watch_of("many/", 0) };
    watches.create(many).await;
    let put = |number: usize| {
        let value = vec![b'x'; 400 << 10];
        let put = pb::PutRequest {
            key: format!("many/{number}").into_bytes().into(),
            value: value.into(),
            ..Default::default()
        };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
    };
    for some in [0..3, 3..6] {
        let txn = pb::TxnRequest { success: some.map(put).collect(), ..Default::default() };
        client.kv().txn(txn).await.unwrap();
    }
    let deleted = pb::DeleteRangeRequest {
        key: b"many/".to_vec().into(),
        range_end: prefix_end("many/").into(),
        ..Default::default()
    };
    client.kv().delete_range(deleted).await.unwrap();
    let mut kinds = Vec::new();
    let mut has_parts = false;
    while kinds.len() < 12 {
        let told = watches.next().await;
        has_parts |= told.fragment;
        kinds.extend(told.events.into_iter().map(|event| event.r#type));
    }
    assert_eq!((kinds, has_parts), ([[0; 6], [1; 6]].concat(), true));
    // A keyspace that is deleted takes its watches along, also those that are served elsewhere.
    let endpoint = cluster.nodes[spare].client.clone();
    let (code, said) = run(&["keyspace", "create", "other", "--endpoints", &endpoint]);
    assert_eq!(code, Some(0), "{said}");
    let mut call = tonic::Request::new(tokio_stream::pending::<pb::WatchRequest>());
    call.metadata_mut().insert("quorate-keyspace", "other".parse().unwrap());
    call.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let mut other = client.watch().watch(call).await.unwrap().into_inner();
    let (code, said) = run(&["keyspace", "delete", "other", "--yes", "--endpoints", &endpoint]);
    assert_eq!(code, Some(0), "{said}");
    let ended = tokio::time::timeout(support::PATIENCE, other.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::NotFound);
}

/// A node that gives its replicas away keeps its streams, and serves new ones itself when it has them back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_at_a_node_that_is_drained() {
    let (cluster, _) = with_spare(4).await;
    let client = cluster.nodes[0].only();
    let mut watches = Watches::open(&client).await;
    watches.create(watch_of_all()).await;
    let follower = tokio::spawn(follow(watches));
    let load = Load::start(&cluster.client());
    load.goes_on(SOME).await;
    let endpoints = cluster.endpoints().join(",");
    let replicas = async |name: &str| {
        let (_, said) = run(&["node", "list", "-o", "json", "--endpoints", &endpoints]);
        let listed: Value = serde_json::from_str(&said).ok()?;
        listed["nodes"]
            .as_array()?
            .iter()
            .find(|node| node["name"] == name)
            .map(|node| node["replicas"].clone())
    };
    for order in ["drain", "undrain"] {
        let mut args = vec!["node", order, "n1", "--endpoints", &endpoints];
        if order == "drain" {
            args.push("--wait");
        }
        let (code, said) = run(&args);
        assert_eq!(code, Some(0), "{said}");
        load.goes_on(SOME).await;
    }
    // It is the spare now.
    assert_eq!(replicas("n1").await, Some(json!(0)));
    let (status, said) = http_at(&cluster.nodes[0].client, "GET", "/health", "").await;
    assert!(status == 200, "{said}");
    let (code, said) = run(&["node", "replace", "n2", "n1", "--wait", "--endpoints", &endpoints]);
    assert_eq!(code, Some(0), "{said}");
    until("n1 has everything again", async || {
        replicas("n1").await.filter(|replicas| *replicas != json!(0)).map(|_| ())
    })
    .await;
    let mut again = Watches::open(&client).await;
    again.create(watch_of_all()).await;
    let again = tokio::spawn(follow(again));
    load.goes_on(SOME).await;
    let acknowledged = load.finish().await;
    client.put("end", "").await;
    let (told, again) = (follower.await.unwrap(), again.await.unwrap());
    for (key, (_, revision)) in &acknowledged {
        assert!(told.contains_key(revision) && again.contains_key(revision), "{key} at {revision}");
    }
    assert_eq!(told, again);
}

/// Everything is kept on three of five founders: the other two serve clients like them, and one of the three may die.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_that_stand_by_serve_clients() {
    let mut cluster = Cluster::new(5);
    for node in &mut cluster.nodes {
        node.settings.insert("--replicas", "3".into());
        node.settings.insert("--partitions", "4".into());
        node.start();
    }
    cluster.ready().await;
    let endpoints = cluster.endpoints().join(",");
    let idle = until("two stand by", async || {
        let (_, said) = run(&["node", "list", "-o", "json", "--endpoints", &endpoints]);
        let listed: Value = serde_json::from_str(&said).ok()?;
        let idle = listed["nodes"].as_array()?.iter().filter(|node| node["replicas"] == 0);
        let idle: Vec<String> = idle.map(|node| node["name"].as_str().unwrap().to_owned()).collect();
        (idle.len() == 2).then_some(idle)
    })
    .await;
    let (spares, holders): (Vec<usize>, Vec<usize>) =
        (0..5).partition(|at| idle.contains(&cluster.nodes[*at].name));
    let mut followers = Vec::new();
    for at in spares.iter().chain(&holders[..1]) {
        let mut watches = Watches::open(&cluster.nodes[*at].only()).await;
        watches.create(watch_of_all()).await;
        followers.push(tokio::spawn(follow(watches)));
    }
    let load = Load::start(&cluster.nodes[spares[0]].only());
    load.goes_on(SOME).await;
    cluster.nodes[holders[2]].kill();
    load.goes_on(SOME).await;
    cluster.nodes[holders[2]].start();
    cluster.nodes[holders[2]].ready().await;
    load.goes_on(SOME).await;
    let acknowledged = load.finish().await;
    cluster.nodes[spares[1]].only().put("end", "").await;
    let mut told = Vec::new();
    for follower in followers {
        told.push(follower.await.unwrap());
    }
    assert!(told.iter().all(|other| *other == told[0]));
    for (key, (_, revision)) in &acknowledged {
        assert!(told[0].contains_key(revision), "{key} at {revision}");
    }
}
