//! Whatever is wrong is refused with a word that names it and shows the way out; the node stays up, and
//! nothing is lost.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use hyper_util::rt::TokioIo;
use quorate::config::{Config, ServeArgs};
use quorate::runtime::hello::PROTOCOL;
use quorate_api::pb;
use quorate_api::pb::request_op::Request as Op;
use quorate_consensus::{Message, ReadId};
use quorate_node::draws::{Decision, Draw, DrawAnswer, DrawAsk, Ended, Verdict};
use quorate_node::peer::{Outcome, PartAsk, ReadAnswer};
use quorate_node::transaction::TxnMessage;
use quorate_node::{PeerMessage, Ticket};
use quorate_types::request::{PutLease, PutRequest, RangeRequest};
use quorate_types::{
    Bytes, Encode, Entry, EntryKind, Footprint, GroupId, Index, KeyRange, LeaseId, NodeId, PartitionId,
    Position, Rejection, Request, Revision, Term, TxnId,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use support::client::put_of;
use support::damage::Segment;
use support::{Cluster, Node, PATIENCE, free_address, run, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::{Code, Status};

/// `quorate serve` with these arguments ends at once with this code and says all of these words.
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let mut command = vec!["serve"];
    command.extend(args);
    refused_command(&command, code, words);
}

fn refused_command(args: &[&str], code: i32, words: &[&str]) {
    let (ended, said) = run(args);
    assert_eq!(ended, Some(code), "{args:?} said: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?} does not say «{word}»: {said}");
    }
    assert!(!said.contains("panicked"), "{args:?}: {said}");
}

/// A node with these settings does not start.
fn does_not_start(node: &Node, words: &[&str]) {
    refused_command(&node.arguments(), 1, words);
}

#[test]
fn a_wrong_flag_is_named() {
    refused(&["--nonsense"], 2, &["--nonsense"]);
    refused(&["--election-timeout", "soon"], 2, &["--election-timeout", "soon"]);
    refused(&["--election-timeout", "100"], 2, &["--election-timeout", "five heartbeats"]);
    refused(&["--heartbeat-interval", "1"], 2, &["heartbeat", "at least 20 ms"]);
    refused(&["--listen-client", "nowhere"], 2, &["--listen-client", "nowhere", "HOST:PORT"]);
    refused(&["--listen-peer", "127.0.0.1:99999"], 2, &["--listen-peer", "127.0.0.1:99999", "HOST:PORT"]);
    refused(&["--initial-cluster", "a=127.0.0.1:1"], 2, &["--initial-cluster", "--name", "default"]);
    refused(&["--initial-cluster", "default"], 2, &["--initial-cluster", "NAME=HOST:PORT"]);
    refused(&["--name", ""], 2, &["--name", "empty"]);
    refused(&["--max-request-bytes", "1"], 2, &["--max-request-bytes", "1024"]);
    refused(&["--max-txn-ops", "0"], 2, &["--max-txn-ops", "at least 1"]);
    refused(&["--log-format", "loud"], 2, &["--log-format", "human", "json"]);
    refused(&["--log-level", "a=b=c"], 2, &["--log-level"]);
    refused_command(&["serv"], 2, &["serv"]);
    refused_command(&["doctor"], 2, &["DATA_DIR"]);
}

#[test]
fn a_wrong_config_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quorate.toml");
    let file = path.display().to_string();
    refused(&["--config", &file], 2, &["cannot read", &file]);
    refused(&["--config", folder.path().to_str().unwrap()], 2, &["cannot read"]);
    let check = |text: &[u8], words: &[&str]| {
        std::fs::write(&path, text).unwrap();
        refused(&["--config", &file], 2, words);
    };
    check(b"naem = \"n1\"\n", &[&file, "naem", "line 1"]);
    check(b"name = \n", &[&file, "line 1"]);
    check(b"max-txn-ops = \"many\"\n", &[&file, "max-txn-ops"]);
    check(b"election-timeout = 1\n", &["election-timeout", "five heartbeats"]);
    check(&[0xff, 0xfe, 0x00], &["cannot read", &file]);
}

#[test]
fn an_address_in_use_is_named() {
    let cluster = Cluster::new(1);
    let node = &cluster.nodes[0];
    let held = std::net::TcpListener::bind(&node.client).unwrap();
    does_not_start(node, &[&node.client, "--listen-client", "another process"]);
    drop(held);
    let held = std::net::TcpListener::bind(&node.peer).unwrap();
    does_not_start(node, &[&node.peer, "--listen-peer", "another process"]);
    drop(held);
    assert!(!node.data_dir.exists(), "a node that cannot listen leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_own_node_starts_on_a_data_directory() {
    let mut cluster = Cluster::started(1).await;
    let other = free_address();
    let node = &mut cluster.nodes[0];
    node.only().put("k", "v").await;
    let data_dir = node.data_dir.display().to_string();

    // While it runs: another process of the same node, on other ports, and the doctor.
    let client = free_address();
    let second = [
        "--name",
        "n1",
        "--data-dir",
        &data_dir,
        "--listen-client",
        &client,
        "--listen-peer",
        &other,
        "--initial-cluster",
        &format!("n1={}", node.peer),
    ];
    refused(&second, 1, &[&data_dir, "in use by another process", "--data-dir"]);
    refused_command(&["doctor", &data_dir], 1, &[&data_dir, "in use by another process"]);
    assert_eq!(node.only().get("k").await.as_deref(), Some("v"));
    assert!(node.stop().await.success());

    node.settings.insert("--cluster-token", "another".into());
    does_not_start(node, &[&data_dir, "belongs to node", "--cluster-token", "--data-dir"]);
    node.settings.remove("--cluster-token");

    let identity = node.data_dir.join("IDENTITY");
    let right = std::fs::read_to_string(&identity).unwrap();
    let newer = right.split("checksum=").next().unwrap().replace("format=1", "format=2");
    let newer = format!("{newer}checksum={:08x}\n", crc32c::crc32c(newer.as_bytes()));
    std::fs::write(&identity, newer).unwrap();
    does_not_start(node, &[&data_dir, "format 2", "use a newer quorate"]);
    refused_command(&["doctor", &data_dir], 1, &["format 2", "use a newer quorate"]);
    std::fs::write(&identity, right.replace("node=", "node=f")).unwrap();
    does_not_start(node, &["IDENTITY", "damaged", "move the whole directory away"]);
    std::fs::remove_file(&identity).unwrap();
    does_not_start(node, &[&data_dir, "not a quorate data directory", "--data-dir"]);
    refused_command(&["doctor", &data_dir], 1, &[&data_dir, "IDENTITY"]);

    std::fs::write(&identity, right).unwrap();
    node.start();
    node.ready().await;
    assert_eq!(node.only().get("k").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_start_on_another_nodes_data() {
    let mut cluster = Cluster::new(2);
    cluster.nodes[0].start();
    let identity = cluster.nodes[0].data_dir.join("IDENTITY");
    support::until("n1 has a data directory", async || identity.exists().then_some(())).await;
    cluster.nodes[0].kill();
    let data_dir = cluster.nodes[0].data_dir.display().to_string();
    let second = &mut cluster.nodes[1];
    second.settings.insert("--data-dir", data_dir.clone());
    does_not_start(second, &[&data_dir, "belongs to node", "--name"]);
}

#[test]
fn a_data_directory_that_is_none_is_left_alone() {
    let mut cluster = Cluster::new(1);
    let file = cluster.folder.path().join("letter.txt");
    std::fs::write(&file, "dear").unwrap();
    let node = &mut cluster.nodes[0];
    let mut check = |path: &std::path::Path, words: &[&str]| {
        node.settings.insert("--data-dir", path.display().to_string());
        let mut words = words.to_vec();
        let path = path.display().to_string();
        words.push(&path);
        does_not_start(node, &words);
    };
    check(&file, &["cannot make"]);
    check(&file.join("below"), &["cannot make"]);
    check(cluster.folder.path(), &["not empty and not a quorate data directory"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "dear");
    refused_command(&["doctor", file.to_str().unwrap()], 1, &["not a data directory"]);
    refused_command(&["doctor", "/nowhere/at/all"], 1, &["/nowhere/at/all", "not a data directory"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_the_log_is_refused_and_a_torn_tail_is_not() {
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    let data_dir = node.data_dir.display().to_string();
    for number in 0..20 {
        node.only().put(&format!("k{number}"), "v").await;
    }
    node.kill();

    let segment = Segment::newest(node);
    let (frame, inside) = segment.middle();
    let place = format!("{} is damaged at byte {frame}", segment.name());
    segment.flip(inside);
    does_not_start(node, &[&place, "move the data directory away"]);
    refused_command(&["doctor", &data_dir], 1, &["DAMAGE", &place, "Keep this node stopped"]);
    // A frame whose end is nowhere.
    segment.write(frame, &u32::MAX.to_le_bytes());
    does_not_start(node, &[&place]);
    std::fs::write(&segment.path, &segment.bytes).unwrap();
    segment.flip(9);
    does_not_start(node, &[&segment.name(), "is damaged at byte 0", "header"]);
    std::fs::write(&segment.path, &segment.bytes).unwrap();
    let hidden = node.data_dir.join("hidden");
    std::fs::rename(node.data_dir.join("store"), &hidden).unwrap();
    std::fs::write(node.data_dir.join("store"), "").unwrap();
    does_not_start(node, &["cannot make", &node.data_dir.join("store").display().to_string()]);
    std::fs::remove_file(node.data_dir.join("store")).unwrap();
    std::fs::rename(&hidden, node.data_dir.join("store")).unwrap();

    // What a power cut leaves of a write that nobody was told of.
    let garbage: Vec<u8> = (0..100u8).map(|byte| byte.wrapping_mul(37) | 1).collect();
    segment.write(segment.end, &garbage);
    let torn = format!("bytes of an unfinished write at {}: harmless", segment.end);
    refused_command(&["doctor", &data_dir], 0, &[&torn, "nothing wrong"]);
    node.start();
    node.ready().await;
    for number in 0..20 {
        assert_eq!(node.only().get(&format!("k{number}")).await.as_deref(), Some("v"));
    }
    node.only().put("more", "v").await;
}

/// Nobody's random bytes, the same every time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Sends bytes, says that no more will come, and reads until the other side hangs up; what it said.
fn say(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other side may have heard enough before the end.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let has_hung_up = error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(has_hung_up, "{address} kept the connection: {error}");
    }
    answer
}

fn hello(version: u32, cluster: u64, from: u64, to: u64, incarnation: u64) -> Vec<u8> {
    let mut hello = b"QUORPEER".to_vec();
    hello.extend(version.to_le_bytes());
    hello.extend([cluster, from, to, incarnation].map(u64::to_le_bytes).concat());
    hello
}

/// The same, for a connection that carries calls.
fn for_calls(mut hello: Vec<u8>) -> Vec<u8> {
    hello[..8].copy_from_slice(b"QUORCALL");
    hello
}

/// A cluster of three whose third node has gone, so that the test can speak in its name; and its directory's incarnation.
async fn without_n3() -> (Cluster, u64) {
    let mut cluster = Cluster::started(3).await;
    cluster.nodes[2].kill();
    let (_, incarnation) = quorate::data_dir::read_identity(&cluster.nodes[2].data_dir).unwrap();
    cluster.client().put("before", "v").await;
    (cluster, incarnation.0)
}

/// A frame of the peer protocol, right in itself.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend(crc32c::crc32c(payload).to_le_bytes());
    frame.extend(payload);
    frame
}

fn config(node: &Node) -> Config {
    let args = ServeArgs {
        name: Some(node.name.clone()),
        initial_cluster: Some(node.settings["--initial-cluster"].clone()),
        ..ServeArgs::default()
    };
    args.resolve().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_said_on_the_peer_port_stops_a_node() {
    let (mut cluster, life) = without_n3().await;
    let config = config(&cluster.nodes[0]);
    let (ours, n1, n3) = (config.cluster_id().0, config.node_id("n1").0, config.node_id("n3").0);
    let address = cluster.nodes[0].peer.clone();

    let turned_away = |bytes: &[u8], word: &str| {
        let answer = say(&address, bytes);
        let said = String::from_utf8_lossy(answer.get(2..).unwrap_or_default()).into_owned();
        assert!(!word.is_empty() && said.contains(word), "does not say «{word}»: «{said}»");
    };
    turned_away(&noise(1, 4096), "peer protocol");
    turned_away(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "clients use the client port");
    turned_away(&hello(99, ours, n3, n1, life), "peer protocol version 99");
    turned_away(&hello(PROTOCOL, ours + 1, n3, n1, life), "--cluster-token");
    turned_away(&hello(PROTOCOL, ours, n3, n1 + 1, life), "but this is node");
    turned_away(&hello(PROTOCOL, ours, 12_345, n1, life), "not a member");
    say(&address, b"");
    say(&address, &hello(PROTOCOL, ours, n3, n1, life)[..20]);
    // Many that say nothing and keep their connections; a real member gets in all the same.
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();

    let as_member = |bytes: &[u8]| {
        let answer = say(&address, &[&hello(PROTOCOL, ours, n3, n1, life), bytes].concat());
        assert_eq!(answer, [0, 0], "a member is welcome");
    };
    as_member(&[0xff; 8]);
    as_member(&(256u32 << 20).to_le_bytes());
    as_member(&frame(&noise(2, 200))[..100]);
    let mut damaged = frame(&[0]);
    damaged[4] ^= 1;
    as_member(&damaged);
    // Right frames of nonsense: a list of nothing, of 2^63 messages, of something else.
    as_member(&frame(&[0]));
    as_member(&frame(&[]));
    as_member(&frame(&[[0xff; 9].as_slice(), &[1]].concat()));
    for seed in 0..200 {
        let mut payload = noise(seed, 1 + seed as usize);
        payload[0] = 1 + payload[0] % 3;
        as_member(&frame(&payload));
    }
    // Calls that are none.
    let as_caller = |bytes: &[u8]| {
        let answer = say(&address, &[&for_calls(hello(PROTOCOL, ours, n3, n1, life)), bytes].concat());
        assert!(answer.starts_with(&[0, 0]), "a member is welcome");
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    as_caller(b"");
    as_caller(b"GET / HTTP/1.1\r\n\r\n");
    as_caller(&preface[..10]);
    for seed in 0..100 {
        as_caller(&[preface.as_slice(), &noise(seed, 10 * seed as usize)].concat());
        as_caller(&noise(seed, 100));
    }
    turned_away(&for_calls(hello(PROTOCOL, ours, 12_345, n1, life)), "not a member");
    assert_eq!(cluster.client().get("before").await.as_deref(), Some("v"));
    for at in [0, 1] {
        assert!(cluster.nodes[at].is_running());
        cluster.nodes[at].only().put("after", "v").await;
        assert!(!cluster.nodes[at].log().contains("panicked"));
    }
    cluster.nodes[2].start();
    cluster.nodes[2].ready().await;
    drop(silent);
    let log = cluster.nodes[0].log();
    assert!(log.contains("turned a peer away"), "an operator can see it: {log}");
}

/// Says hello for calls on every connection.
struct Caller(String, Vec<u8>);

impl Service<Uri> for Caller {
    type Response = TokioIo<tokio::net::TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, hello) = (self.0.clone(), self.1.clone());
        Box::pin(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.write_all(&hello).await?;
            let mut verdict = [0; 2];
            stream.read_exact(&mut verdict).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_call_for_watches_of_what_there_is() {
    let (cluster, life) = without_n3().await;
    let config = config(&cluster.nodes[0]);
    let (ours, n1, n3) = (config.cluster_id().0, config.node_id("n1").0, config.node_id("n3").0);
    let hello = for_calls(hello(PROTOCOL, ours, n3, n1, life));
    let channel = async || {
        let caller = Caller(cluster.nodes[0].peer.clone(), hello.clone());
        tonic::transport::Endpoint::from_static("http://n1").connect_with_connector(caller).await
    };
    let only = channel().await.unwrap();
    let watch = async |keyspace: Option<&str>| {
        let mut call = tonic::Request::new(tokio_stream::empty::<pb::WatchRequest>());
        if let Some(keyspace) = keyspace {
            call.metadata_mut().insert("quorate-keyspace-id", keyspace.parse().unwrap());
        }
        pb::watch_client::WatchClient::new(only.clone()).watch(call).await
    };
    // The cluster's own rows are for no caller.
    for senseless in [None, Some("0"), Some("-1"), Some("default"), Some("99999999999")] {
        assert_eq!(watch(senseless).await.unwrap_err().code(), Code::InvalidArgument, "{senseless:?}");
    }
    assert_eq!(watch(Some("7")).await.unwrap_err().code(), Code::NotFound);
    assert!(watch(Some("1")).await.is_ok());
    // Nothing but watches.
    let range = pb::RangeRequest { key: b"before".to_vec().into(), ..Default::default() };
    let refused = pb::kv_client::KvClient::new(only.clone()).range(range).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let mut open = vec![only.clone()];
    until("there are as many connections as one peer may have", async || {
        let another = channel().await.unwrap();
        let call = tonic::Request::new(tokio_stream::empty::<pb::WatchRequest>());
        let answered = pb::watch_client::WatchClient::new(another.clone()).watch(call).await.unwrap_err();
        open.push(another);
        assert!(open.len() < 10, "more are taken");
        (answered.code() != Code::InvalidArgument).then_some(())
    })
    .await;
    assert!(watch(Some("1")).await.is_ok());
}

/// A gRPC call as bytes, over HTTP/1.1.
fn call(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_said_on_the_client_port_stops_a_node() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    node.only().put("before", "v").await;
    let address = node.client.clone();
    let paths = [
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Maintenance/Status",
        "/etcdserverpb.KV/NoSuchMethod",
        "/no.such.Service/Method",
    ];
    for path in paths {
        say(&address, &call(path, b""));
        // A message that says it is 4 GiB long; one that ends too early; one that is no protobuf; a flag nobody knows.
        say(&address, &call(path, &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
        say(&address, &call(path, &[0, 0, 0, 1, 0, 1, 2, 3]));
        say(&address, &call(path, &[&[0, 0, 0, 0, 64], noise(7, 64).as_slice()].concat()));
        say(&address, &call(path, &[9, 0, 0, 0, 0]));
        // A key of 2^63 bytes.
        let field = [&[0x0a], [0xff; 9].as_slice(), &[1]].concat();
        say(&address, &call(path, &[&[0, 0, 0, 0, field.len() as u8], field.as_slice()].concat()));
    }
    say(&address, b"");
    say(&address, b"GET /health HTTP/9.9\r\n\r\n");
    say(&address, &[b"GET / HTTP/1.1\r\nX: ", vec![b'x'; 2 << 20].as_slice(), b"\r\n\r\n"].concat());
    say(&address, &[PREFACE, &noise(3, 4096)].concat());
    // An empty SETTINGS frame, then one that says it is 16 MiB long.
    say(&address, &[PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0xff; 9]].concat());
    for seed in 0..100 {
        say(&address, &noise(seed, 1 + seed as usize * 7));
    }
    let silent: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert!(node.is_running());
    assert_eq!(node.only().get("before").await.as_deref(), Some("v"));
    node.only().put("after", "v").await;
    assert!(!node.log().contains("panicked"), "{}", node.log());
    drop(silent);
}

/// The call is refused as etcd refuses it.
async fn no<T: std::fmt::Debug>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    code: Code,
    words: &str,
) {
    let status = call.await.expect_err(words);
    assert_eq!((status.code(), status.message()), (code, words));
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn range_of(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_limits_are_refused_in_etcds_words() {
    use Code::{FailedPrecondition, InvalidArgument, NotFound, OutOfRange};
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    let client = node.only();
    let first = client.put("k", "1").await;
    let newest = client.put("k", "2").await;

    // Sizes and counts.
    let value = |bytes: usize| pb::PutRequest { value: vec![b'v'; bytes].into(), ..put_of("big", "") };
    let large = "etcdserver: request is too large";
    no(client.kv().put(value(1_572_864)), InvalidArgument, large).await;
    client.kv().put(value(1_572_000)).await.unwrap();
    // Beyond that, gRPC itself does not take the frame.
    let status = client.kv().put(value(8 << 20)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let words = "grpc: received message larger than max (8388618 vs. 2097152)";
    assert_eq!(status.message(), words);
    let puts = |count: usize| {
        let put = |number| op(Op::RequestPut(put_of(&format!("t{number}"), "v")));
        pb::TxnRequest { success: (0..count).map(put).collect(), ..Default::default() }
    };
    client.kv().txn(puts(128)).await.unwrap();
    no(client.kv().txn(puts(129)), InvalidArgument, "etcdserver: too many operations in txn request").await;
    let mut nested = puts(1);
    for _ in 0..200 {
        nested = pb::TxnRequest { success: vec![op(Op::RequestTxn(nested))], ..Default::default() };
    }
    // etcd counts operations here; our decoder takes less deep messages than etcd's, 100 instead of 10,000.
    let status = client.kv().txn(nested).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().ends_with("recursion limit reached"), "{status}");
    let twice = pb::TxnRequest { success: [puts(1).success, puts(1).success].concat(), ..Default::default() };
    no(client.kv().txn(twice), InvalidArgument, "etcdserver: duplicate key given in txn request").await;
    let empty = pb::TxnRequest { success: vec![pb::RequestOp { request: None }], ..Default::default() };
    no(client.kv().txn(empty), InvalidArgument, "etcdserver: key not found").await;

    // Keys, ranges, revisions.
    let no_key = "etcdserver: key is not provided";
    no(client.kv().put(put_of("", "v")), InvalidArgument, no_key).await;
    no(client.kv().range(range_of("", "z")), InvalidArgument, no_key).await;
    no(client.kv().delete_range(pb::DeleteRangeRequest::default()), InvalidArgument, no_key).await;
    let inverted = client.kv().range(range_of("z", "a")).await.unwrap().into_inner();
    assert_eq!((inverted.count, inverted.kvs.len()), (0, 0));
    let inverted = pb::DeleteRangeRequest { key: "z".into(), range_end: "a".into(), prev_kv: true };
    assert_eq!(client.kv().delete_range(inverted).await.unwrap().into_inner().deleted, 0);
    let absurd = pb::RangeRequest { limit: i64::MIN, revision: i64::MIN, ..range_of("k", "l") };
    assert_eq!(client.kv().range(absurd).await.unwrap().into_inner().count, 1);
    let sorted = pb::RangeRequest { sort_order: 77, ..range_of("k", "") };
    no(client.kv().range(sorted), InvalidArgument, "etcdserver: invalid sort option").await;
    let future = "etcdserver: mvcc: required revision is a future revision";
    let at = |revision| pb::RangeRequest { revision, ..range_of("k", "") };
    no(client.kv().range(at(i64::MAX)), OutOfRange, future).await;
    let compact = |revision| pb::CompactionRequest { revision, physical: true };
    no(client.kv().compact(compact(i64::MAX)), OutOfRange, future).await;
    client.kv().compact(compact(newest)).await.unwrap();
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    no(client.kv().range(at(first)), OutOfRange, compacted).await;
    no(client.kv().compact(compact(newest)), OutOfRange, compacted).await;
    no(client.kv().compact(compact(i64::MIN)), OutOfRange, compacted).await;
    let hash = |revision| pb::HashKvRequest { revision };
    no(client.maintenance().hash_kv(hash(i64::MAX)), OutOfRange, future).await;
    no(client.maintenance().hash_kv(hash(first)), OutOfRange, compacted).await;
    let keep = pb::PutRequest { ignore_value: true, ..put_of("missing", "") };
    no(client.kv().put(keep), InvalidArgument, "etcdserver: key not found").await;
    let both = pb::PutRequest { ignore_value: true, ..put_of("k", "v") };
    no(client.kv().put(both), InvalidArgument, "etcdserver: value is provided").await;
    let both = pb::PutRequest { ignore_lease: true, lease: 5, ..put_of("k", "v") };
    no(client.kv().put(both), InvalidArgument, "etcdserver: lease is provided").await;

    // Leases.
    let unknown = "etcdserver: requested lease not found";
    no(client.kv().put(pb::PutRequest { lease: 404, ..put_of("k", "v") }), NotFound, unknown).await;
    for id in [404, 0, i64::MIN] {
        no(client.lease().lease_revoke(pb::LeaseRevokeRequest { id }), NotFound, unknown).await;
        let ask = pb::LeaseTimeToLiveRequest { id, keys: true };
        assert_eq!(client.lease().lease_time_to_live(ask).await.unwrap().into_inner().ttl, -1);
        let once = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let mut answers = client.lease().lease_keep_alive(once).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().ttl, 0);
    }
    let grant = |id, ttl| pb::LeaseGrantRequest { id, ttl };
    let too_long = "etcdserver: too large lease TTL";
    no(client.lease().lease_grant(grant(1, i64::MAX)), OutOfRange, too_long).await;
    client.lease().lease_grant(grant(1, i64::MIN)).await.unwrap();
    client.lease().lease_grant(grant(2, 9_000_000_000)).await.unwrap();
    no(client.lease().lease_grant(grant(2, 60)), FailedPrecondition, "etcdserver: lease already exists")
        .await;

    assert_eq!(client.get("k").await.as_deref(), Some("2"));
    assert!(node.is_running());
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// The store's rows have keys of at most 64 KiB; a longer key used to end every node that applied it, again at
/// each start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_store_cannot_hold_is_refused() {
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    let client = node.only();
    let too_large = "etcdserver: request is too large";
    let long = |bytes: usize, byte: char| byte.to_string().repeat(bytes);
    for key in [long(65_536, 'k'), long(65_530, 'k'), long(40_000, '\0'), long(1_500_000, 'k')] {
        no(client.kv().put(put_of(&key, "v")), Code::InvalidArgument, too_large).await;
        let put = op(Op::RequestPut(put_of(&key, "v")));
        let txn = pb::TxnRequest { success: vec![put], ..Default::default() };
        no(client.kv().txn(txn), Code::InvalidArgument, too_large).await;
        assert_eq!(client.kv().range(range_of(&key, "")).await.unwrap().into_inner().count, 0);
        assert_eq!(client.kv().range(range_of("a", &key)).await.unwrap().into_inner().count, 0);
        let delete = pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
        assert_eq!(client.kv().delete_range(delete).await.unwrap().into_inner().deleted, 0);
    }
    let lease = pb::LeaseGrantRequest { id: 7, ttl: 600 };
    client.lease().lease_grant(lease).await.unwrap();
    for key in [long(65_494, 'k'), long(32_758, '\0')] {
        client.put(&key, "").await;
        // With a lease it stands in a row of its own, too.
        client.kv().put(pb::PutRequest { lease: 7, ..put_of(&key, "v") }).await.unwrap();
        assert_eq!(client.get(&key).await.as_deref(), Some("v"));
    }
    node.kill();
    node.start();
    node.ready().await;
    assert_eq!(client.get(&long(65_494, 'k')).await.as_deref(), Some("v"));
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// A member that sends what no right one would: every kind of message for known and unknown groups, with absurd numbers.
/// Terms are old ones, and the current one in what a follower says; a member that claims to lead the current term, or a
/// later one, is believed, as Raft believes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_member_says_stops_a_node() {
    let (mut cluster, life) = without_n3().await;
    let config = config(&cluster.nodes[0]);
    let n3 = config.node_id("n3").0;
    let now = Term(cluster.client().try_status().await.unwrap().raft_term);
    for at in [0, 1] {
        let to = &cluster.nodes[at];
        let mut bytes = hello(PROTOCOL, config.cluster_id().0, n3, config.node_id(&to.name).0, life);
        for message in absurd_messages(now) {
            bytes.extend(frame(&vec![message].encoded_vec()));
        }
        assert_eq!(say(&to.peer, &bytes), [0, 0], "a member is welcome");
    }
    for at in [0, 1] {
        cluster.nodes[at].only().put("after", "v").await;
        assert!(cluster.nodes[at].is_running());
        assert!(!cluster.nodes[at].log().contains("panicked"), "{}", cluster.nodes[at].log());
    }
    assert_eq!(cluster.client().get("before").await.as_deref(), Some("v"));
}

fn absurd_messages(now: Term) -> Vec<PeerMessage> {
    let numbers = [0, 1, 3, u64::MAX / 2, u64::MAX];
    let group = |partition| GroupId { partition: PartitionId(partition), ..GroupId::FIRST };
    let mut messages = vec![PeerMessage::Alive];
    for group in [GroupId::META, GroupId::FIRST, group(77)] {
        for term in [Term(0), Term(now.0 - 1), now, Term(u64::MAX)] {
            for number in numbers {
                let (index, read) = (Index(number), ReadId(number));
                let position = Position { term, index };
                let far = Position { term: Term(number), index };
                let entry = Entry { index, term, kind: EntryKind::Write, data: vec![0xff; 9].into() };
                let group_messages = [
                    Message::VoteRequest { term, last: far, pre: false, transfer: true },
                    Message::VoteRequest { term, last: far, pre: true, transfer: false },
                    Message::VoteResponse { term, granted: true, pre: false },
                    Message::VoteResponse { term, granted: true, pre: true },
                    Message::Append { term, previous: position, entries: vec![entry.clone()], commit: index },
                    Message::Append {
                        term,
                        previous: far,
                        entries: vec![entry.clone(), entry],
                        commit: index,
                    },
                    Message::Appended { term, matched: index },
                    Message::AppendRejected { term, refused: index, hint: far },
                    Message::Heartbeat { term, commit: index, round: number },
                    Message::HeartbeatResponse { term, round: number, last: index, withholds: false },
                    Message::ReadRequest { term, read },
                    Message::ReadResponse { term, read, index: Some(index) },
                    Message::TimeoutNow { term },
                    Message::Hibernate { term, last: far },
                    Message::Resigned { term },
                ];
                let is_leaders = |message: &Message| {
                    matches!(
                        message,
                        Message::Append { .. }
                            | Message::Heartbeat { .. }
                            | Message::TimeoutNow { .. }
                            | Message::Hibernate { .. }
                    )
                };
                let said = group_messages.into_iter().filter(|message| term != now || !is_leaders(message));
                let meta = Term(number);
                messages.extend(said.map(|message| PeerMessage::Group { group, meta, message }));
                let keyspace = group.keyspace;
                for confirmed in [false, true] {
                    let ranges = vec![KeyRange::From(Bytes::new())];
                    let known = Revision(number);
                    messages.push(PeerMessage::ReadAsk {
                        reading: number,
                        keyspace,
                        ranges,
                        term,
                        confirmed,
                        known,
                    });
                }
                let far = Position { term, index: Index(u64::MAX) };
                let positions = vec![(PartitionId(0), Position { term, index }), (PartitionId(77), far)];
                let elsewhere = vec![PartitionId(0), PartitionId(77)];
                let answer = ReadAnswer { revision: Revision(number), epoch: term, positions, elsewhere };
                messages.push(PeerMessage::ReadAnswer { reading: number, answer });
                let (id, from) = (TxnId { home: group.partition, term, number }, PartitionId(number as u32));
                let txn_messages = [
                    TxnMessage::Prepare {
                        id,
                        footprint: Footprint::default(),
                        wait: number == 0,
                        waited: number,
                        at: Revision(number),
                    },
                    TxnMessage::Vote { id, from, outcome: None, epoch: term },
                    TxnMessage::Finish { id, effects: None },
                    TxnMessage::Finished { id, from },
                    TxnMessage::Status { id, from },
                    TxnMessage::Yield { id, waited: number },
                ];
                let (reader, reading) = (NodeId(number), number);
                let (revision, epoch) = (Revision(number), term);
                let ranges = Vec::new();
                let part = PartAsk { reader, reading, group, ranges, revision, epoch, granted: revision };
                messages.push(PeerMessage::PartAsk { part });
                let at = (revision, epoch);
                messages.push(PeerMessage::PartAnswer { reading, at, partition: from, position: far });
                messages.push(PeerMessage::Leaders { leaders: vec![(group, NodeId(number))] });
                let ended = Ended {
                    group,
                    term,
                    applied: vec![revision],
                    decided: vec![revision],
                    unused: vec![revision],
                    position: far,
                    inherited: Some(revision),
                };
                let draws = vec![Draw { group, term, count: u32::MAX }, Draw { group, term, count: 0 }];
                let decision = Decision {
                    home: group,
                    id,
                    terms: vec![(from, term)],
                    changed: vec![from],
                    partitions: number,
                };
                let (life, decisions) = (number, vec![decision]);
                let ask = DrawAsk {
                    life,
                    number,
                    epoch,
                    ended: vec![ended],
                    registrations: Vec::new(),
                    draws,
                    decisions,
                };
                messages.push(PeerMessage::Draw { ask });
                let (registered, drawn) = (vec![true; 3], vec![Some(revision), None]);
                let decided = vec![Verdict::Stale, Verdict::Reads(revision), Verdict::Draws(revision)];
                let answer = DrawAnswer { life, number, epoch, registered, drawn, decided };
                messages.push(PeerMessage::Drawn { answer });
                messages.extend(txn_messages.map(|message| PeerMessage::Txn { to: group, message }));
                messages.push(PeerMessage::SnapshotPull { group, position, cursor: None });
                messages.push(PeerMessage::SnapshotGone { group, position });
                let outcome = Outcome(Err(Rejection::Unknown));
                messages.push(PeerMessage::Reply { ticket: Ticket(number), outcome });
                let lease = LeaseId::new(number as i64).unwrap_or(LeaseId::new(5).unwrap());
                let long = PutRequest {
                    key: vec![0; 70_000].into(),
                    value: Some(vec![0; 70_000].into()),
                    lease: PutLease::Attach(lease),
                    previous: true,
                };
                let empty = PutRequest { key: Bytes::new(), lease: PutLease::Detach, ..long.clone() };
                let requests = [
                    Request::Put(long),
                    Request::Put(empty),
                    Request::Range(RangeRequest::new(KeyRange::From(Bytes::new()))),
                    Request::LeaseKeepAlive { lease },
                    Request::LeaseTimeToLive { lease, with_keys: true },
                    Request::LeaseGrant { lease, ttl_seconds: number as i64 },
                    Request::LeaseRevoke { lease },
                    Request::Leases,
                    Request::Compact { revision: number as i64, physical: false },
                ];
                let ticket = Ticket(number);
                messages.extend(requests.map(|request| PeerMessage::Request { ticket, group, request }));
            }
        }
    }
    messages
}
