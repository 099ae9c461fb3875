//! Streams of watches from outside, and what they have to tell.

use super::client::{Client, prefix_end, put_of};
use super::{Cluster, PATIENCE, run, until};
use quorate_api::pb::watch_request::RequestUnion;
use quorate_api::{mvccpb, pb};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

/// A stream at one node. That it breaks fails the test: what breaks behind the node is none of the client's business.
pub struct Watches {
    pub requests: mpsc::Sender<pb::WatchRequest>,
    pub responses: Streaming<pb::WatchResponse>,
}

impl Watches {
    pub async fn open(client: &Client) -> Self {
        let (requests, queued) = mpsc::channel(64);
        let responses = client.watch().watch(ReceiverStream::new(queued)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    pub async fn ask(&self, request: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    pub async fn next(&mut self) -> pb::WatchResponse {
        let told = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        told.expect("the watch stalls").unwrap().expect("the stream ends")
    }

    /// Begins a watch; what the node answers.
    pub async fn create(&mut self, create: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(RequestUnion::CreateRequest(create)).await;
        let told = self.next().await;
        assert!(told.created, "{told:?}");
        told
    }

    pub async fn events(&mut self) -> Vec<mvccpb::Event> {
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
pub fn watch_of(prefix: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: prefix.as_bytes().to_vec().into(),
        range_end: prefix_end(prefix).into(),
        start_revision,
        ..Default::default()
    }
}

/// Every key, from the beginning.
pub fn watch_of_all() -> pb::WatchCreateRequest {
    let all = vec![0];
    pb::WatchCreateRequest {
        key: all.clone().into(),
        range_end: all.into(),
        start_revision: 1,
        ..Default::default()
    }
}

/// What the writers were told is what one stream at the spare told, once and in order.
pub async fn follow(mut watches: Watches) -> BTreeMap<i64, Vec<mvccpb::Event>> {
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

/// Everything that a stream of watches can do, at one node.
pub async fn serves_like_any_hub(cluster: &Cluster, at: usize) {
    let client = cluster.nodes[at].only();
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
    let endpoint = cluster.nodes[at].client.clone();
    let (code, said) = run(&["keyspace", "create", "other", "--endpoints", &endpoint]);
    assert_eq!(code, Some(0), "{said}");
    let mut call = tonic::Request::new(tokio_stream::pending::<pb::WatchRequest>());
    call.metadata_mut().insert("quorate-keyspace", "other".parse().unwrap());
    call.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let mut other = client.watch().watch(call).await.unwrap().into_inner();
    let (code, said) = run(&["keyspace", "delete", "other", "--yes", "--endpoints", &endpoint]);
    assert_eq!(code, Some(0), "{said}");
    let ended = tokio::time::timeout(PATIENCE, other.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::NotFound);
}
