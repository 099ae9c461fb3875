//! Calls frame by frame: whatever way a message comes in, and whether or not its answer is taken.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use h2::Reason;
use h2::client::SendRequest;
use prost::Message;
use quorate_api::pb;
use quorate_api::pb::watch_request::RequestUnion;
use quorate_types::Bytes;
use support::frames::{Begun, Told, begun, begun_at, connected, framed, get, put, rest, value};
use support::watches::watch_of;
use support::{Cluster, PATIENCE, http_at, until};
use tokio::time::timeout;
use tonic::Code;

/// What is ordinary, and what is right but goes the longer way, through the router.
const KINDS: [&str; 2] = ["application/grpc", "application/grpc; charset=utf-8"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_may_come_in_any_pieces() {
    let cluster = Cluster::started(1).await;
    let calls = connected(&cluster, 1 << 20).await;
    for pieces in [1, 2, 3, 7, 100] {
        let value_put = vec![pieces as u8; 300];
        let message = put(&value_put);
        let mut call = begun(&calls, "Put").await;
        let mut left = message.chunks(message.len().div_ceil(pieces)).peekable();
        while let Some(piece) = left.next() {
            call.say(piece, left.peek().is_none());
            // The node may look at it before the next one comes.
            tokio::task::yield_now().await;
        }
        call.answered().await.unwrap();
        assert_eq!(value(&calls).await, value_put, "in {pieces} pieces");
    }
    // The end may come by itself, and what is said behind the message means nothing.
    let mut call = begun(&calls, "Put").await;
    call.say(&put(b"v"), false);
    call.say(b"and more", false);
    call.say(b"", true);
    call.answered().await.unwrap();
    assert_eq!(value(&calls).await, b"v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_none_is_refused_and_the_connection_goes_on() {
    let cluster = Cluster::started(1).await;
    let calls = connected(&cluster, 1 << 20).await;
    let good = put(b"v");
    let flagged = |flag: u8| [&[flag], &good[1..]].concat();
    let cases: [(&[u8], Code, &str); 6] = [
        (b"", Code::Internal, "missing"),
        (&good[..3], Code::Internal, "ended before"),
        (&good[..good.len() - 1], Code::Internal, "ended before"),
        (&flagged(1), Code::Internal, "compressed"),
        (&flagged(7), Code::Internal, "7"),
        (&[0, 0, 0, 0, 3, 0xff, 0xff, 0xff], Code::Internal, "decode"),
    ];
    for (method, (said, code, word)) in
        ["Put", "Range", "DeleteRange", "Txn"].iter().flat_map(|method| cases.map(|case| (method, case)))
    {
        let mut call = begun(&calls, method).await;
        call.say(said, true);
        let refusal = call.answered().await.unwrap_err();
        assert_eq!(refusal.code(), code, "{method} {said:?}: {refusal}");
        assert!(refusal.message().contains(word), "{method} {said:?}: {refusal}");
    }
    // One that is too long is refused before it has come.
    let mut call = begun(&calls, "Put").await;
    call.say(&[0, 0x7f, 0, 0, 0], false);
    let refusal = call.answered().await.unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert!(refusal.message().contains("larger than max (2130706432"), "{refusal}");

    let mut call = begun(&calls, "Put").await;
    call.say(&good, true);
    call.answered().await.unwrap();
    assert_eq!(value(&calls).await, b"v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_taken_back_or_not_taken_keep_no_other_waiting() {
    const BYTES: usize = 1_000_000;
    let cluster = Cluster::started(1).await;
    // A window that an answer with the large value does not fit in.
    let calls = connected(&cluster, 64 << 10).await;
    let mut call = begun(&calls, "Put").await;
    let large = put(&vec![b'x'; BYTES]);
    call.say(&large, true);
    call.answered().await.unwrap();

    // The heads of these answers are taken, and of the rest as much as the window holds.
    let mut untaken = Vec::new();
    for _ in 0..4 {
        let mut call = begun(&calls, "Range").await;
        call.say(&get(), true);
        untaken.push(timeout(PATIENCE, call.response).await.unwrap().unwrap().into_body());
    }
    for _ in 0..500 {
        let mut call = begun(&calls, "Put").await;
        call.say(&put(b"never said to its end")[..9], false);
        call.body.send_reset(Reason::CANCEL);
    }
    let mut call = begun(&calls, "Put").await;
    call.say(&put(b"v"), true);
    call.answered().await.unwrap();
    assert_eq!(value(&calls).await, b"v");

    // Half of them the client never wants, the others come whole, as they were when they were read.
    drop(untaken.split_off(2));
    for body in untaken {
        let answer = timeout(PATIENCE, rest(body)).await.expect("it comes").unwrap();
        let answer = pb::RangeResponse::decode(&answer[..]).unwrap();
        assert_eq!(answer.kvs[0].value.len(), BYTES);
    }
}

async fn watch(calls: &SendRequest<Bytes>, kind: &str) -> Begun {
    begun_at(calls, "/etcdserverpb.Watch/Watch", &[("content-type", kind)]).await
}

fn create() -> Vec<u8> {
    let create = RequestUnion::CreateRequest(watch_of("k", 0));
    framed(&pb::WatchRequest { request_union: Some(create) })
}

/// A stream with a watch, and the way to say more.
async fn watching(calls: &SendRequest<Bytes>, kind: &str) -> (h2::SendStream<Bytes>, Told) {
    let mut call = watch(calls, kind).await;
    call.say(&create(), false);
    let mut told = Told::of(call.response).await;
    let created: pb::WatchResponse = told.next().await.unwrap();
    assert!(created.created, "{created:?}");
    (call.body, told)
}

/// Waits until the node has so many streams of watches.
async fn until_streams(cluster: &Cluster, wanted: usize) {
    until(&format!("there are {wanted} streams"), async || {
        let (_, said) = http_at(&cluster.nodes[0].client, "GET", "/metrics", "").await;
        let streams =
            said.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watch_stream_total "));
        (streams.expect("it is told").parse() == Ok(wanted)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_is_the_same_whichever_way_it_goes() {
    let cluster = Cluster::started(1).await;
    let calls = connected(&cluster, 1 << 20).await;
    for kind in KINDS {
        let (mut body, mut told) = watching(&calls, kind).await;
        cluster.client().put("k1", "v").await;
        let event: pb::WatchResponse = told.next().await.unwrap();
        assert_eq!(event.events[0].kv.as_ref().unwrap().key, "k1");
        // Who asks nothing more is told on.
        body.send_data(Bytes::new(), true).unwrap();
        cluster.client().put("k2", "v").await;
        let event: pb::WatchResponse = told.next().await.unwrap();
        assert_eq!(event.events[0].kv.as_ref().unwrap().key, "k2");
        until_streams(&cluster, 1).await;
        drop((body, told));
        until_streams(&cluster, 0).await;

        // Taken back by who may ask more, and by who has asked nothing.
        let (mut body, told) = watching(&calls, kind).await;
        let mut silent = watch(&calls, kind).await;
        let silently_told = Told::of(silent.response).await;
        body.send_reset(Reason::CANCEL);
        silent.body.send_reset(Reason::CANCEL);
        until_streams(&cluster, 0).await;
        drop((told, silently_told));
    }
    let another = connected(&cluster, 1 << 20).await;
    let streams = [watching(&another, KINDS[0]).await, watching(&another, KINDS[1]).await];
    until_streams(&cluster, 2).await;
    drop((another, streams));
    until_streams(&cluster, 0).await;
    call_goes_on(&calls).await;
}

async fn call_goes_on(calls: &SendRequest<Bytes>) {
    let mut call = begun(calls, "Put").await;
    call.say(&put(b"v"), true);
    call.answered().await.unwrap();
    assert_eq!(value(calls).await, b"v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_watches_ends_with_what_was_wrong() {
    let cluster = Cluster::started(1).await;
    let calls = connected(&cluster, 1 << 20).await;
    let good = create();
    let flagged = |flag: u8| [&[flag], &good[1..]].concat();
    let cases: [(&[u8], Code, &str); 7] = [
        (&good[..3], Code::Internal, "EOF"),
        (&good[..good.len() - 1], Code::Internal, "EOF"),
        (&[good.as_slice(), &good[..7]].concat(), Code::Internal, "EOF"),
        (&flagged(1), Code::Internal, "compressed"),
        (&flagged(7), Code::Internal, "7"),
        (&[0, 0, 0, 0, 3, 0xff, 0xff, 0xff], Code::Internal, "decode"),
        (&[0, 0xff, 0xff, 0xff, 0xff], Code::ResourceExhausted, "larger than max (4294967295 vs. 2097152)"),
    ];
    for (kind, (said, code, word)) in KINDS.iter().flat_map(|kind| cases.map(|case| (kind, case))) {
        for has_watch in [false, true] {
            let (mut body, mut told) = if has_watch {
                watching(&calls, kind).await
            } else {
                let call = watch(&calls, kind).await;
                (call.body, Told::of(call.response).await)
            };
            body.send_data(Bytes::copy_from_slice(said), true).unwrap();
            let ended = loop {
                match told.next::<pb::WatchResponse>().await {
                    Ok(told) => assert!(told.created, "{told:?}"),
                    Err(ended) => break ended,
                }
            };
            assert_eq!(ended.code(), code, "{kind} {said:?}: {ended}");
            assert!(ended.message().contains(word), "{kind} {said:?}: {ended}");
        }
    }
    // What cannot begin is refused at once.
    for kind in KINDS {
        let headers = [("content-type", kind), ("quorate-keyspace", "nowhere")];
        let mut call = begun_at(&calls, "/etcdserverpb.Watch/Watch", &headers).await;
        call.say(&good, false);
        let refusal = call.answered().await.unwrap_err();
        assert_eq!(refusal.code(), Code::NotFound, "{refusal}");
    }
    until_streams(&cluster, 0).await;
    call_goes_on(&calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compressed_is_refused_and_takes_nobodys_window() {
    /// All of them are more than what may be on its way on one connection.
    const TIMES: usize = 60;
    let cluster = Cluster::started(1).await;
    let calls = connected(&cluster, 1 << 20).await;
    let paths = ["KV/Put", "KV/Range", "KV/DeleteRange", "KV/Txn", "Watch/Watch", "Lease/LeaseGrant"];
    let large = [&[1, 0, 3, 0, 0], vec![b'z'; 200_000].as_slice()].concat();
    for (path, time) in paths.into_iter().flat_map(|path| (0..TIMES).map(move |time| (path, time))) {
        let mut call = begun_at(&calls, &format!("/etcdserverpb.{path}"), &[("grpc-encoding", "gzip")]).await;
        // In one of two the refusal comes before the end.
        call.say(&large, time % 2 == 0);
        let refusal = call.answered().await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unimplemented, "{path}: {refusal}");
        assert!(refusal.message().contains("gzip"), "{path}: {refusal}");
    }
    let mut call = begun_at(&calls, "/etcdserverpb.KV/Put", &[("grpc-encoding", "identity")]).await;
    call.say(&put(b"w"), true);
    call.answered().await.unwrap();
    assert_eq!(value(&calls).await, b"w");
    // Nor does what is refused here before it has come.
    for _ in 0..TIMES {
        let mut call = begun(&calls, "Put").await;
        call.say(&[&[0, 0x7f, 0, 0, 0], large.as_slice()].concat(), false);
        assert_eq!(call.answered().await.unwrap_err().code(), Code::ResourceExhausted);
    }
    call_goes_on(&calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_tells_those_who_wait() {
    let mut cluster = Cluster::started(1).await;
    let calls = connected(&cluster, 1 << 20).await;
    let mut half_said = Vec::new();
    for length in [0, 3, put(b"v").len() - 1, put(b"v").len()] {
        let mut call = begun(&calls, "Put").await;
        call.say(&put(b"v")[..length], false);
        half_said.push(call);
    }
    let mut streams = Vec::new();
    for kind in KINDS {
        streams.push(watching(&calls, kind).await);
    }
    let ended = tokio::join!(cluster.nodes[0].stop(), async {
        for (_, told) in &mut streams {
            let ended = told.next::<pb::WatchResponse>().await.unwrap_err();
            let said = (ended.code(), ended.message());
            assert_eq!(said, (Code::Unavailable, "etcdserver: server stopped"));
        }
        for call in half_said {
            let refusal = call.answered().await.unwrap_err();
            let said = (refusal.code(), refusal.message());
            assert_eq!(said, (Code::Unavailable, "etcdserver: server stopped"));
        }
    });
    assert!(ended.0.success(), "{}", ended.0);
    assert!(!cluster.nodes[0].log().contains("cut off"), "nobody is left to be cut off");
}

/// What a node has begun and cannot finish, because the others are gone, its clients are told before it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_without_a_quorum_tells_those_who_wait() {
    let mut cluster = Cluster::started(3).await;
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let calls = connected(&cluster, 1 << 20).await;
    let mut waiting = Vec::new();
    for (method, message) in [("Put", put(b"v")), ("Range", get())] {
        let mut call = begun(&calls, method).await;
        call.say(&message, true);
        waiting.push(call);
    }
    // They have come: this one came after them.
    let mut call = begun(&calls, "Range").await;
    call.say(&framed(&pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() }), true);
    call.answered().await.unwrap();
    let ended = tokio::join!(cluster.nodes[0].stop(), async {
        for call in waiting {
            assert_eq!(call.answered().await.unwrap_err().code(), Code::Unavailable);
        }
    });
    assert!(ended.0.success(), "{}", ended.0);
}
