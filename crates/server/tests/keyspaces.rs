//! Several keyspaces in one cluster of the real binary: made, used, filled and deleted by commands and by calls that name
//! them, at ports of their own and with nodes that go away meanwhile.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::{mvccpb, pb};
use serde_json::Value;
use std::collections::BTreeSet;
use support::client::{Client, put_of};
use support::{Cluster, Node, free_address, http_at, quorate, run, until};
use tonic::{Code, Request, Status, Streaming};

/// A call that names its keyspace.
fn within<T>(keyspace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("quorate-keyspace", keyspace.parse().unwrap());
    request
}

/// A keyspace, as one client or another sees it.
struct Space {
    client: Client,
    name: &'static str,
}

impl Space {
    fn new(client: &Client, name: &'static str) -> Self {
        Self { client: client.clone(), name }
    }

    /// The revision of a put that is repeated until it is acknowledged.
    async fn put(&self, key: &str, value: &str) -> i64 {
        let name = self.name;
        let call = |to: Client, put| async move { to.kv().put(within(name, put)).await };
        self.client.insist(put_of(key, value), call).await.header.unwrap().revision
    }

    async fn try_put(&self, key: &str, value: &str) -> Result<i64, Status> {
        let answer = self.client.kv().put(within(self.name, put_of(key, value))).await?;
        Ok(answer.into_inner().header.unwrap().revision)
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        Ok(self.client.kv().range(within(self.name, request)).await?.into_inner())
    }

    /// All keys with their values, and the revision they are of.
    async fn all(&self) -> (i64, Vec<(String, String)>) {
        let name = self.name;
        let call = |to: Client, range| async move { to.kv().range(within(name, range)).await };
        let answer = self.client.insist(everything(), call).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs = answer.kvs.iter().map(|pair| (text(&pair.key), text(&pair.value))).collect();
        (answer.header.unwrap().revision, pairs)
    }

    /// Follows everything from a revision on; returns when the watch is there.
    async fn watch(&self, start_revision: i64) -> Result<Streaming<pb::WatchResponse>, Status> {
        let all = everything();
        let create = pb::WatchCreateRequest {
            key: all.key,
            range_end: all.range_end,
            start_revision,
            ..Default::default()
        };
        let request =
            pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        // The client goes on to listen: its side stays open.
        let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
        let mut stream = self.client.watch().watch(within(self.name, requests)).await?.into_inner();
        assert!(stream.message().await?.unwrap().created);
        Ok(stream)
    }

    async fn grant(&self, id: i64) -> i64 {
        let grant = pb::LeaseGrantRequest { ttl: 1_000, id };
        self.client.lease().lease_grant(within(self.name, grant)).await.unwrap().into_inner().id
    }

    async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let requests = within(self.name, tokio_stream::once(pb::LeaseKeepAliveRequest { id }));
        let mut answers = self.client.lease().lease_keep_alive(requests).await?.into_inner();
        Ok(answers.message().await?.unwrap().ttl)
    }

    async fn leases(&self) -> Vec<i64> {
        let mut client = self.client.lease();
        let all = client.lease_leases(within(self.name, pb::LeaseLeasesRequest {})).await;
        all.unwrap().into_inner().leases.iter().map(|lease| lease.id).collect()
    }
}

fn everything() -> pb::RangeRequest {
    pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() }
}

/// The next events, so many.
async fn events(stream: &mut Streaming<pb::WatchResponse>, count: usize) -> Vec<(String, String, i64)> {
    let mut events = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(support::PATIENCE, stream.message());
        let response = next.await.expect("an event comes").unwrap().expect("the stream goes on");
        assert!(!response.canceled, "{response:?}");
        events.extend(response.events.into_iter().map(|event| {
            let mvccpb::KeyValue { key, value, mod_revision, .. } = event.kv.unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (text(&key), text(&value), mod_revision)
        }));
    }
    assert_eq!(events.len(), count, "{events:?}");
    events
}

/// A command of an operator, and what it says.
#[track_caller]
fn keyspace(node: &Node, args: &[&str]) -> String {
    let (code, said) = run(&[&["--endpoints", &node.client, "keyspace"], args].concat());
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

fn listed(node: &Node) -> Vec<Value> {
    let said = keyspace(node, &["list", "-o", "json"]);
    serde_json::from_str::<Value>(&said).unwrap()["keyspaces"].as_array().unwrap().clone()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, words: &str) {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "does not say «{words}»: {status:?}");
}

const GONE: &str = "keyspace nowhere does not exist; quorate keyspace list shows those that do";

/// The keyspaces of the first test, and their partitions.
const SPACES: [(&str, &str); 4] = [("default", "1"), ("one", "1"), ("few", "3"), ("many", "16")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyspaces_share_nothing() {
    let mut cluster = Cluster::started(1).await;
    let client = cluster.client();
    for (name, partitions) in &SPACES[1..] {
        keyspace(&cluster.nodes[0], &["create", name, "--partitions", partitions]);
    }
    let spaces = SPACES.map(|(name, _)| Space::new(&client, name));
    let mut watches = Vec::new();
    for space in &spaces {
        watches.push(space.watch(0).await.unwrap());
    }
    // The same keys everywhere, each with a value of its own; so many more in each that the next one's revisions are ahead.
    for (at, space) in spaces.iter().enumerate() {
        for number in 0..10 * (at + 1) {
            let revision =
                space.put(&format!("d{}/k", number % 10), &format!("{} {number}", space.name)).await;
            assert_eq!(revision, number as i64 + 2, "in {}", space.name);
        }
    }
    for (at, space) in spaces.iter().enumerate() {
        let last = 10 * (at + 1);
        let right: Vec<_> =
            (0..10).map(|key| (format!("d{key}/k"), format!("{} {}", space.name, last - 10 + key))).collect();
        assert_eq!(space.all().await, (last as i64 + 1, right), "in {}", space.name);
        // A revision that another keyspace has is one of the future.
        let ahead = pb::RangeRequest { revision: last as i64 + 2, ..everything() };
        let words = "etcdserver: mvcc: required revision is a future revision";
        refused(space.range(ahead).await, Code::OutOfRange, words);
        // Nothing of the others is told, in between or afterwards.
        let right =
            (0..last).map(|n| (format!("d{}/k", n % 10), format!("{} {n}", space.name), n as i64 + 2));
        assert_eq!(events(&mut watches[at], last).await, right.collect::<Vec<_>>(), "in {}", space.name);
    }

    // A lease is of one keyspace; another may have one of the same number.
    let [default, one, few, many] = &spaces;
    let lease = few.grant(0).await;
    for space in [default, one, many] {
        assert_eq!(space.keep_alive(lease).await.unwrap(), 0, "unknown in {}", space.name);
        let put = pb::PutRequest { lease, ..put_of("with lease", "v") };
        let words = "etcdserver: requested lease not found";
        refused(client.kv().put(within(space.name, put)).await, Code::NotFound, words);
        let revoke = pb::LeaseRevokeRequest { id: lease };
        refused(client.lease().lease_revoke(within(space.name, revoke)).await, Code::NotFound, words);
        assert_eq!(space.leases().await, [0; 0]);
    }
    assert_eq!(few.keep_alive(lease).await.unwrap(), 1_000);
    assert_eq!(many.grant(lease).await, lease);
    for space in [few, many] {
        let put = pb::PutRequest { lease, ..put_of("leased", "v") };
        client.kv().put(within(space.name, put)).await.unwrap();
    }
    let revoke = pb::LeaseRevokeRequest { id: lease };
    client.lease().lease_revoke(within("many", revoke)).await.unwrap();
    assert_eq!((few.leases().await.len(), few.all().await.1.len()), (1, 11));
    assert_eq!((many.leases().await.len(), many.all().await.1.len()), (0, 10));

    // Compacting one does not compact another.
    let compaction = pb::CompactionRequest { revision: 12, physical: true };
    client.kv().compact(within("many", compaction)).await.unwrap();
    let old = || pb::RangeRequest { revision: 11, ..everything() };
    refused(many.range(old()).await, Code::OutOfRange, "required revision has been compacted");
    assert_eq!(few.range(old()).await.unwrap().count, 10);

    // A transaction over all partitions of its keyspace sees nothing else.
    let put = |number| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put_of(&format!("t{number}/k"), "txn"))),
    };
    let txn = pb::TxnRequest { success: (0..20).map(put).collect(), ..Default::default() };
    client.kv().txn(within("many", txn)).await.unwrap();
    assert_eq!((many.all().await.1.len(), few.all().await.1.len()), (30, 11));

    // All of it is as it was after a new start.
    let mut before = Vec::new();
    for space in &spaces {
        before.push(space.all().await);
    }
    let list = listed(&cluster.nodes[0]);
    let node = &mut cluster.nodes[0];
    assert!(node.stop().await.success());
    node.start();
    node.ready().await;
    for (space, (revision, pairs)) in spaces.iter().zip(before) {
        let (now, found) = space.all().await;
        assert_eq!(found, pairs, "in {}", space.name);
        // Another sequencer begins behind all that its predecessor may have given out.
        assert!(now >= revision, "in {}: at {now} after {revision}", space.name);
        assert!(space.put("after", "start").await > now, "in {}", space.name);
    }
    assert_eq!(few.leases().await, [lease]);
    assert_eq!(listed(node).len(), list.len());
    assert!(node.stop().await.success());
    let (code, said) = run(&["doctor", &node.data_dir.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    for word in ["keyspace 2: 1 partitions", "keyspace 3: 3 partitions", "keyspace 4: 16 partitions"] {
        assert!(said.contains(word), "does not say «{word}»: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_keyspace_refuses_writes_and_others_do_not() {
    const QUOTA: usize = 100_000;
    let cluster = Cluster::started(1).await;
    let (node, client) = (&cluster.nodes[0], cluster.client());
    keyspace(node, &["create", "small", "--partitions", "2", "--quota", &QUOTA.to_string()]);
    keyspace(node, &["create", "other"]);
    let (small, other) = (Space::new(&client, "small"), Space::new(&client, "other"));
    let value = "x".repeat(5_000);
    let mut written = 0;
    let full = loop {
        match small.try_put(&format!("d{written}/k"), &value).await {
            Ok(_) => written += 1,
            Err(status) => break status,
        }
        assert!(written * value.len() <= 2 * QUOTA, "{written} writes were taken");
    };
    refused::<()>(Err(full), Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    assert!(written * value.len() > QUOTA / 2, "only {written} writes were taken");
    for number in 0..2 * written {
        other.put(&format!("d{number}/k"), &value).await;
        client.put(&format!("d{number}/k"), &value).await;
    }
    // Whoever looks is told of it, for this keyspace alone.
    let status = async |name| {
        let status = client.maintenance().status(within(name, pb::StatusRequest {})).await;
        status.unwrap().into_inner()
    };
    assert!(status("small").await.errors[0].contains("NOSPACE"));
    assert_eq!(status("small").await.db_size_quota, QUOTA as i64);
    assert_eq!(status("other").await.errors, [""; 0]);
    let (_, metrics) = http(node, "/metrics").await;
    let quota = format!("quorate_keyspace_quota_bytes{{keyspace=\"2\"}} {QUOTA}");
    assert!(metrics.contains(&quota), "{metrics}");
    // Reading and deleting go on; what is deleted and compacted makes room.
    assert_eq!(small.all().await.1.len(), written);
    let shown = listed(node);
    let used = shown.iter().find(|keyspace| keyspace["name"] == "small").unwrap();
    assert_eq!(used["quota_bytes"], QUOTA, "{used}");
    assert!(used["used_bytes"].as_u64().unwrap() >= QUOTA as u64, "{used}");
    let all = pb::DeleteRangeRequest { key: vec![0].into(), range_end: vec![0].into(), prev_kv: false };
    let deleted = client.kv().delete_range(within("small", all)).await.unwrap().into_inner();
    assert_eq!(deleted.deleted as usize, written);
    let revision = deleted.header.unwrap().revision;
    let compaction = pb::CompactionRequest { revision, physical: true };
    client.kv().compact(within("small", compaction)).await.unwrap();
    until("there is room again", async || small.try_put("k", "v").await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_keyspace_is_gone_on_all_nodes_and_its_name_begins_anew() {
    let mut cluster = Cluster::started(3).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Node::only).collect();
    keyspace(&cluster.nodes[0], &["create", "orders", "--partitions", "4"]);
    // Known at once to every node, whoever was told of the creation.
    for (at, client) in clients.iter().enumerate() {
        let space = Space::new(client, "orders");
        for number in 0..5 {
            space.put(&format!("d{at}{number}/k"), "old").await;
        }
        client.put("kept", "in default").await;
    }
    let orders = Space::new(&clients[1], "orders");
    orders.grant(77).await;
    let (revision, pairs) = orders.all().await;
    assert_eq!(pairs.len(), 15);
    let mut watches = Vec::new();
    for client in &clients {
        let mut watch = Space::new(client, "orders").watch(1).await.unwrap();
        assert_eq!(events(&mut watch, 15).await.len(), 15);
        watches.push(watch);
    }

    // Without saying so nothing is deleted.
    let endpoint = cluster.nodes[0].client.clone();
    let delete = ["--endpoints", &endpoint, "keyspace", "delete", "orders"];
    let (code, said) = run(&delete);
    assert!(code == Some(1) && said.contains("loses 15 keys") && said.contains("--yes"), "{said}");
    assert_eq!(orders.all().await.1.len(), 15);
    // A node that is away does not hear of it.
    cluster.nodes[2].kill();
    keyspace(&cluster.nodes[0], &["delete", "orders", "--yes"]);
    for (at, watch) in watches.iter_mut().enumerate().take(2) {
        let ended = tokio::time::timeout(support::PATIENCE, watch.message()).await.expect("the watch ends");
        let words = "the keyspace has been deleted";
        refused(ended.map(|_| at), Code::NotFound, words);
    }
    let node = &cluster.nodes[1];
    until("the node has heard of the deletion", async || {
        let outcome = Space::new(&clients[1], "orders").range(everything()).await;
        outcome.is_err_and(|status| status.code() == Code::NotFound).then_some(())
    })
    .await;
    assert!(listed(node).iter().all(|keyspace| keyspace["name"] != "orders"));

    // The name begins anew, with other partitions and revisions.
    keyspace(node, &["create", "orders", "--partitions", "7"]);
    cluster.nodes[2].start();
    cluster.nodes[2].ready().await;
    for (at, client) in clients.iter().enumerate() {
        let space = Space::new(client, "orders");
        // What the node that was away has of the old one nobody acknowledges any more.
        until("the new keyspace is there", async || {
            let answer = space.range(everything()).await.ok()?;
            assert_eq!(answer.kvs.len(), usize::from(at > 0), "at node {at}");
            Some(())
        })
        .await;
        if at == 0 {
            assert!(space.put("new", "value").await < revision, "revisions begin anew");
        }
        assert_eq!(space.all().await.1, [("new".to_owned(), "value".to_owned())]);
        assert_eq!(space.leases().await, [0; 0]);
        let mut watch = space.watch(1).await.unwrap();
        assert_eq!(events(&mut watch, 1).await[0].0, "new");
        assert_eq!(client.get("kept").await.as_deref(), Some("in default"));
    }
    // And nothing of the old one is left in any node's files.
    for node in &mut cluster.nodes {
        until("the rows and logs of the old one are removed", async || {
            let (_, metrics) = http(node, "/metrics").await;
            (!metrics.contains("keyspace=\"2\"") && metrics.contains("keyspace=\"3\"")).then_some(())
        })
        .await;
    }
}

/// A node that stood still when a keyspace was created is asked for it before it can have heard: it must find out, not deny it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_paused_does_not_deny_what_was_created_meanwhile() {
    let cluster = Cluster::started(3).await;
    for name in ["first", "second", "third"] {
        let at = cluster.follower().await;
        let (paused, other) = (&cluster.nodes[at], &cluster.nodes[(at + 1) % 3]);
        let client = paused.only();
        // The connection is there before the pause.
        client.put("k", "default").await;
        paused.pause();
        keyspace(other, &["create", name]);
        let call = tokio::spawn(async move { Space::new(&client, name).put("k", name).await });
        tokio::task::yield_now().await;
        paused.resume();
        // Refused as not there would be a failure, "not now" is not.
        assert!(call.await.unwrap() >= 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_a_keyspace_that_is_not_there_are_refused_in_words() {
    let cluster = Cluster::started(1).await;
    let (node, client) = (&cluster.nodes[0], cluster.client());
    for (name, code, words) in [
        ("nowhere", Code::NotFound, GONE),
        ("no name", Code::NotFound, "keyspace no name does not exist"),
        ("", Code::NotFound, "does not exist"),
        ("system", Code::PermissionDenied, "keyspace system is the cluster's own"),
    ] {
        let space = Space::new(&client, name);
        refused(space.try_put("k", "v").await, code, words);
        refused(space.range(everything()).await, code, words);
        refused(client.kv().txn(within(name, pb::TxnRequest::default())).await, code, words);
        let delete = pb::DeleteRangeRequest { key: "k".into(), ..Default::default() };
        refused(client.kv().delete_range(within(name, delete)).await, code, words);
        refused(client.kv().compact(within(name, pb::CompactionRequest::default())).await, code, words);
        refused(space.watch(0).await, code, words);
        refused(space.keep_alive(7).await, code, words);
        let grant = pb::LeaseGrantRequest { ttl: 5, id: 0 };
        refused(client.lease().lease_grant(within(name, grant)).await, code, words);
        refused(client.lease().lease_leases(within(name, pb::LeaseLeasesRequest {})).await, code, words);
        refused(client.maintenance().status(within(name, pb::StatusRequest {})).await, code, words);
        let hash = pb::HashKvRequest { revision: 0 };
        refused(client.maintenance().hash_kv(within(name, hash)).await, code, words);
    }
    // A name is as good as another way to say nothing.
    let default = Space::new(&client, "default");
    default.put("k", "v").await;
    assert_eq!(client.get("k").await.as_deref(), Some("v"));

    let commands: [&[&str]; 9] = [
        &["get", "k"],
        &["put", "k", "v"],
        &["del", "k"],
        &["txn", "--then", "put k v"],
        &["watch", "k"],
        &["lease", "list"],
        &["status"],
        &["partitions"],
        &["hash"],
    ];
    for command in commands {
        let (code, said) = run(&[&["--endpoints", &node.client, "--keyspace", "nowhere"], command].concat());
        assert_eq!(code, Some(1), "{command:?}: {said}");
        assert!(said.contains(GONE), "{command:?}: {said}");
    }
    let (code, said) = run(&["--endpoints", &node.client, "--keyspace", "a b", "get", "k"]);
    assert!(code == Some(2) && said.contains("a keyspace's name is 1 to 64"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_creates_nothing() {
    let cluster = Cluster::started(1).await;
    let node = &cluster.nodes[0];
    keyspace(node, &["create", "there"]);
    let before = listed(node);
    let check = |args: &[&str], words: &str| {
        let (code, said) = run(&[&["--endpoints", &node.client, "keyspace"], args].concat());
        assert!(code.is_some_and(|code| code > 0), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?} does not say «{words}»: {said}");
    };
    check(&["create", "there"], "keyspace there exists already");
    check(&["create", "default"], "keyspace default exists already");
    check(&["create", "system"], "keyspace system exists already");
    check(&["create", "a/b"], "a keyspace's name is 1 to 64 letters, digits");
    check(&["create", ".a"], "a keyspace's name is 1 to 64 letters, digits");
    check(&["create", &"a".repeat(65)], "a keyspace's name is 1 to 64 letters, digits");
    check(&["create", "x", "--partitions", "0"], "0 partitions, of which there must be 1 to 1024");
    check(&["create", "x", "--partitions", "1025"], "1025 partitions, of which there must be 1 to 1024");
    check(&["create", "x", "--quota", "0"], "a quota of 0 bytes");
    check(&["create", "x", "--spread", "jobs/"], "is not DIRECTORY:BITS");
    check(&["create", "x", "--spread", "jobs/:20"], "which are not from 1 to 14");
    check(&["create", "x", "--pin", "a,a"], "two pins of \"a\"");
    check(&["create", "x", "--pin", "jobs", "--spread", "jobs/:3"], "keeps in one slot");
    check(&["delete", "x", "--yes"], "keyspace x does not exist");
    check(&["delete", "default", "--yes"], "keyspace default is always there");
    check(&["delete", "system", "--yes"], "keyspace system is always there");
    // Programs may say what the command does not let through.
    for body in [
        "",
        "{",
        "[]",
        r#"{"name": "a b"}"#,
        r#"{"name": "x", "colour": 1}"#,
        r#"{"name": "x", "partitions": -1}"#,
        r#"{"name": "x", "partitions": 4294967296}"#,
    ] {
        let (status, said) = http_with(node, "POST", "/keyspaces", body).await;
        assert!(status == 400 && said.contains("error"), "{body}: {status} {said}");
    }
    let (status, said) = http_with(node, "DELETE", "/keyspaces/%00%ff", "").await;
    assert!(status == 400, "{status} {said}");
    assert_eq!(listed(node), before);

    // Of many at once that want the same name one has it.
    let creations: Vec<_> = (0..6)
        .map(|partitions| {
            let partitions = (partitions + 1).to_string();
            let args =
                ["--endpoints", &node.client, "keyspace", "create", "wanted", "--partitions", &partitions];
            quorate(&args)
                .stderr(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let outcomes = creations.into_iter().map(|mut child| child.wait().unwrap().success());
    assert_eq!(outcomes.filter(|is_created| *is_created).count(), 1);
    assert_eq!(listed(node).iter().filter(|keyspace| keyspace["name"] == "wanted").count(), 1);
    // No id was used up in vain, and none twice.
    let ids: Vec<u64> = listed(node).iter().map(|keyspace| keyspace["keyspace"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyspace_has_a_port_for_clients_that_know_nothing_of_keyspaces() {
    let mut cluster = Cluster::new(2);
    let mut ports = Vec::new();
    for node in &mut cluster.nodes {
        let port = free_address();
        node.settings.insert("--listen-keyspace", format!("shop={port}"));
        ports.push(port);
        node.start();
    }
    cluster.ready().await;
    let clients: Vec<Client> = ports.iter().map(|port| Client::new(vec![port.clone()])).collect();

    // Before it is created, and when it is deleted, its port says so for each call.
    let words = "keyspace shop does not exist; quorate keyspace list";
    refused(clients[0].try_put("k", "v").await, Code::NotFound, words);
    let (status, said) = http_at(&ports[0], "GET", "/health", "").await;
    assert!(status == 503 && said.contains("keyspace shop does not exist"), "{status} {said}");
    keyspace(&cluster.nodes[0], &["create", "shop", "--partitions", "2"]);
    for (client, value) in clients.iter().zip(["first", "second"]) {
        client.put("k", value).await;
    }
    assert_eq!(clients[0].get("k").await.as_deref(), Some("second"));
    assert_eq!(cluster.client().get("k").await, None);
    let (status, said) = http_at(&ports[1], "GET", "/health", "").await;
    assert!(status == 200, "{status} {said}");
    // Who names another keyspace is in that one, at whichever port.
    let default = Space::new(&clients[1], "default");
    assert_eq!(default.all().await.1, []);

    // The members that a client is told of at this port keep it in this keyspace; who names it may go anywhere.
    let mut told = BTreeSet::new();
    until("both nodes have told their ports", async || {
        let mut members = pb::cluster_client::ClusterClient::new(clients[0].channel());
        let list = members.member_list(pb::MemberListRequest { linearizable: true }).await.ok()?.into_inner();
        told = list.members.into_iter().flat_map(|member| member.client_ur_ls).collect();
        (told.len() == 2).then_some(())
    })
    .await;
    assert_eq!(told, ports.iter().map(|port| format!("http://{port}")).collect());
    let (code, said) = run(&["--endpoints", &ports[0], "status"]);
    assert!(code == Some(0) && ports.iter().all(|port| said.contains(port)), "{said}");
    let (code, said) = run(&["--endpoints", &ports[0], "--keyspace", "shop", "get", "k"]);
    assert!(code == Some(0) && said.contains("second"), "{said}");

    // A new start changes nothing, and what is at the port is drained like the rest.
    for node in &mut cluster.nodes {
        assert!(node.stop().await.success());
        node.start();
        node.ready().await;
    }
    assert_eq!(clients[1].get("k").await.as_deref(), Some("second"));
    keyspace(&cluster.nodes[1], &["delete", "shop", "--yes"]);
    until("the port says that it is deleted", async || {
        let status = clients[1].try_get("k").await.err()?;
        status.message().contains(words).then_some(())
    })
    .await;
}

#[test]
fn ports_of_keyspaces_that_make_no_sense_are_refused_at_the_start() {
    let check = |args: &[&str], words: &str| {
        let (code, said) = run(&[&["serve"], args].concat());
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(words), "does not say «{words}»: {said}");
    };
    let flag = "--listen-keyspace";
    check(&[flag, "shop"], "«shop» is not NAME=HOST:PORT");
    check(&[flag, "a b=127.0.0.1:1"], "is not NAME=HOST:PORT with the name of a keyspace");
    check(&[flag, "shop=nowhere"], "«nowhere» is not HOST:PORT");
    check(&[flag, "shop=127.0.0.1:2379"], "127.0.0.1:2379 is listened on for another keyspace already");
    check(&[flag, "a=127.0.0.1:1,b=127.0.0.1:1"], "is listened on for another keyspace already");
    check(&[flag, "a=127.0.0.1:1,a=127.0.0.1:2"], "a is there twice");
    check(&[flag, "system=127.0.0.1:1"], "keyspace system is the cluster's own");
    check(&[flag, "a=https://127.0.0.1:1"], "needs --cert-file");
}

async fn http(node: &Node, path: &str) -> (u16, String) {
    http_at(&node.client, "GET", path, "").await
}

async fn http_with(node: &Node, method: &str, path: &str, body: &str) -> (u16, String) {
    http_at(&node.client, method, path, body).await
}
