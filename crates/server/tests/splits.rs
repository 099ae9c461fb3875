//! Partitions of the real binary that are split while clients write, watch and hold leases, and while nodes are killed; and what the
//! command refuses.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::pb;
use serde_json::Value;
use std::process::Stdio;
use support::bank::{self, Bank};
use support::client::{Client, put_of};
use support::load::{self, Load, Watcher};
use support::{Cluster, Node, http_at, quorate, run, until};

/// Acknowledged writes, or transfers, that show that the cluster goes on.
const SOME: u64 = 60;
const MANY: u64 = 200;
/// In how many partitions a keyspace of one ends up.
const PARTITIONS: usize = 8;

/// A command of an operator: how it ended, and what it said.
fn said(node: &Node, args: &[&str]) -> (Option<i32>, String) {
    run(&[&["--endpoints", &node.client], args].concat())
}

/// A split that is not expected to be refused; what it says to programs.
#[track_caller]
fn split(node: &Node, args: &[&str]) -> Value {
    let (code, said) = said(node, &[&["-o", "json", "partitions", "split"], args].concat());
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(said.lines().last().unwrap()).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The partitions of keyspace default as `quorate partitions` shows them. `None` when a node does not answer.
fn partitions(node: &Node) -> Option<Vec<Value>> {
    let (code, said) = said(node, &["-o", "json", "--keyspace", "default", "partitions"]);
    let shown: Value = serde_json::from_str(&said).ok().filter(|_| code == Some(0))?;
    shown["keyspaces"][0]["partitions"].as_array().cloned()
}

/// A lease with keys in many directories.
struct Holder {
    client: Client,
    lease: i64,
    keys: usize,
}

const LEASED: &str = "leased/";

impl Holder {
    async fn begin(client: &Client) -> Self {
        let grant = pb::LeaseGrantRequest { ttl: 600, id: 7_777 };
        let answer = client.lease().lease_grant(grant).await.unwrap().into_inner();
        Self { client: client.another(1), lease: answer.id, keys: 0 }
    }

    /// More keys, and a renewal.
    async fn goes_on(&mut self) {
        for _ in 0..10 {
            let put = put_of(&format!("{LEASED}{}/k", self.keys), "held");
            let put = pb::PutRequest { lease: self.lease, ..put };
            self.client.insist(put, |to, put| async move { to.kv().put(put).await }).await;
            self.keys += 1;
        }
        let lease = self.lease;
        until("the lease is renewed", async || {
            let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id: lease });
            let answers = self.client.lease().lease_keep_alive(requests).await;
            let answer = match answers {
                Ok(answers) => answers.into_inner().message().await,
                Err(status) => Err(status),
            };
            self.client.turn();
            let ttl = answer.ok()??.ttl;
            assert_eq!(ttl, 600, "the lease is gone");
            Some(())
        })
        .await;
    }

    /// Ends the lease; the revision in which its keys went.
    async fn revoke(&self) -> i64 {
        let request = pb::LeaseRevokeRequest { id: self.lease };
        self.client.lease().lease_revoke(request).await.unwrap().into_inner().header.unwrap().revision
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_partition_becomes_eight_under_load_and_kills_and_nothing_is_lost() {
    let mut cluster = Cluster::partitioned(3, 1).await;
    let client = cluster.client();
    let watcher = Watcher::start(&client).await;
    let load = Load::start(&client);
    let bank = Bank::open(&client).await;
    let mut holder = Holder::begin(&client).await;
    load.goes_on(MANY).await;
    bank.goes_on(SOME).await;
    holder.goes_on().await;
    for round in 0.. {
        assert!(round < 20, "a split is ordered and does not happen");
        load.books.take_gap();
        // Each at another node.
        let node = &cluster.nodes[round % 3];
        if [2, 4].contains(&round) {
            // With the split under way, or just ordered, or just done; a leader, and then somebody who is none.
            let victim = if round == 2 { cluster.leader(None).await } else { cluster.follower().await };
            let endpoints = cluster.endpoints().join(",");
            let command = quorate(&["--endpoints", &endpoints, "partitions", "split"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let mut command = command.unwrap();
            let length = cluster.nodes[victim].log().len();
            // Its own log tells of it when the map says that it begins; looked at without a pause, as the rest takes milliseconds.
            let is_told = |node: &Node| node.log()[length..].contains("knows the keyspace's partitions");
            while !is_told(&cluster.nodes[victim]) && command.try_wait().unwrap().is_none() {
                tokio::task::yield_now().await;
            }
            let is_done = command.try_wait().unwrap().is_some();
            cluster.nodes[victim].kill();
            load.goes_on(SOME).await;
            bank.goes_on(SOME).await;
            let (name, gap) = (&cluster.nodes[victim].name, load.books.take_gap());
            println!("kill -9 of {name}, the split being done {is_done}: longest write gap {gap:?}");
            cluster.nodes[victim].start();
            cluster.nodes[victim].ready().await;
            // If its node died it knows no better; the order stands or has never been.
            until("the command ends", async || command.try_wait().unwrap()).await;
        } else {
            let told = split(node, &[]);
            assert_eq!(told["finished"], true, "{told}");
        }
        load.goes_on(SOME).await;
        bank.goes_on(SOME).await;
        holder.goes_on().await;
        println!("round {round}: longest write gap {:?}", load.books.take_gap());
        let shown = until("no split is under way", async || {
            let shown = partitions(&cluster.nodes[0])?;
            shown.iter().all(|partition| partition["splitting"].is_null()).then_some(shown)
        })
        .await;
        if shown.len() == PARTITIONS {
            break;
        }
    }
    let (transfers, audits) = bank.close().await;
    let acknowledged = load.finish().await;
    println!("{} keys and {transfers} transfers acknowledged, {audits} audits", acknowledged.len());
    load::check(&cluster, &acknowledged).await;

    // Every node lists the same, and slots are nobody's or everybody's nowhere.
    for node in &cluster.nodes {
        let shown = partitions(node).unwrap();
        assert_eq!(shown.len(), PARTITIONS, "{shown:?}");
        let slots: u64 = shown.iter().map(|partition| partition["slots"].as_u64().unwrap()).sum();
        assert_eq!(slots, 16_384, "{shown:?}");
        for partition in &shown {
            assert!(partition["leader"].is_string(), "{shown:?}");
            assert!(partition["entries"].as_u64().unwrap() > 1, "nothing is written there: {shown:?}");
        }
    }

    // The lease lived on, with all its keys, and takes them all with it.
    let held = client.prefix(LEASED).await.1;
    assert_eq!(held.len(), holder.keys, "{held:?}");
    let revoked = holder.revoke().await;
    for node in &cluster.nodes {
        assert_eq!(node.only().prefix(LEASED).await.1.len(), 0, "at {}", node.name);
    }
    let told = watcher.up_to(revoked).await;
    let gone = told[&revoked].iter().filter(|seen| seen.value.is_none() && seen.key.starts_with(LEASED));
    assert_eq!(gone.count(), holder.keys, "all go in one revision: {:?}", told[&revoked]);
    load::compare_but_gaps(&told, &acknowledged);
    let moves = bank::check(&told);
    assert!(moves as u64 > transfers, "{moves} revisions moved money, {transfers} were acknowledged");
}

/// Also from the first split on, when the sequencer begins to count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_splits_leave_no_gap_in_the_revisions() {
    let mut cluster = Cluster::partitioned(1, 1).await;
    let client = cluster.client();
    let watcher = Watcher::start(&client).await;
    let load = Load::start(&client);
    load.goes_on(MANY).await;
    for parent in [0, 0, 1, 0, 1, 2, 3] {
        let told = split(&cluster.nodes[0], &[&parent.to_string()]);
        assert_eq!(told["parent"], parent, "{told}");
        load.goes_on(SOME).await;
    }
    let acknowledged = load.finish().await;
    let newest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap();
    load::compare(&watcher.up_to(newest).await, &acknowledged);
    let shown = partitions(&cluster.nodes[0]).unwrap();
    assert!(shown.iter().all(|partition| partition["slots"] == 2_048), "{shown:?}");
    // The largest is the first of equals.
    let told = split(&cluster.nodes[0], &[]);
    assert_eq!((&told["parent"], &told["child"]), (&0.into(), &8.into()), "{told}");

    // A new start changes nothing.
    let before = client.prefix(load::PREFIX).await.1;
    assert!(cluster.nodes[0].stop().await.success());
    cluster.nodes[0].start();
    cluster.ready().await;
    assert_eq!(cluster.client().prefix(load::PREFIX).await.1, before);
    let shown = partitions(&cluster.nodes[0]).unwrap();
    assert_eq!(shown.len(), 9, "{shown:?}");
    let log = cluster.nodes[0].log();
    assert!(!log.contains("not what this cluster was made with"), "it was made with one partition: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splits_that_cannot_be_are_refused_in_words() {
    let cluster = Cluster::partitioned(1, 1).await;
    let node = &cluster.nodes[0];
    let (code, created) = said(node, &["keyspace", "create", "full", "--partitions", "1024"]);
    assert_eq!(code, Some(0), "{created}");
    let check = |args: &[&str], words: &str| {
        let (code, said) = said(node, args);
        assert!(code.is_some_and(|code| code > 0), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?} does not say «{words}»: {said}");
    };
    check(&["partitions", "split", "9"], "keyspace default has no partition 9; quorate partitions lists");
    check(&["partitions", "split", "-1"], "unexpected argument '-1'");
    check(&["partitions", "split", "4294967296"], "invalid value '4294967296'");
    check(&["--keyspace", "nowhere", "partitions", "split"], "keyspace nowhere does not exist");
    check(&["--keyspace", "system", "partitions", "split"], "keyspace system is the cluster's own");
    check(&["--keyspace", "full", "partitions", "split", "3"], "keyspace full has 1024 partitions");
    check(&["partitions", "join"], "unrecognized subcommand 'join'");
    for (body, status) in [
        ("{", 400),
        ("[7]", 400),
        (r#"{"partition": -1}"#, 400),
        (r#"{"partition": 0, "into": 3}"#, 400),
        (r#"{"keyspace": "a b"}"#, 400),
        (r#"{"keyspace": "system"}"#, 400),
        (r#"{"keyspace": "nowhere"}"#, 404),
        (r#"{"partition": 4294967295}"#, 404),
        (r#"{"keyspace": "full"}"#, 409),
    ] {
        let (found, said) = http_at(&node.client, "POST", "/partitions/split", body).await;
        assert!(found == status && said.contains("error"), "{body}: {found} {said}");
    }
    assert_eq!(partitions(node).unwrap().len(), 1, "nothing has happened");

    // Nothing need be said: the port's keyspace, the largest partition.
    let (status, told) = http_at(&node.client, "POST", "/partitions/split", "").await;
    assert!(status == 200 && told.contains(r#""child":1"#), "{status} {told}");

    // 14 halvings leave one slot.
    for kept in (0..13).rev() {
        let told = split(node, &["0"]);
        assert_eq!(told["parent_slots"], 1 << kept, "{told}");
    }
    check(&["partitions", "split", "0"], "partition 0 of keyspace default has fewer than two slots");
    let (_, table) = said(node, &["--keyspace", "default", "partitions"]);
    assert!(table.contains("keyspace 1, default: 15 partitions"), "{table}");
}

/// Of several orders for one partition at once the first is carried out, and the others find it being split, or split.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_being_split_is_not_split_a_second_time() {
    let cluster = Cluster::partitioned(1, 1).await;
    let node = &cluster.nodes[0];
    let (code, created) = said(node, &["keyspace", "create", "many", "--partitions", "64"]);
    assert_eq!(code, Some(0), "{created}");
    // Which of them come in time is chance.
    let mut done = 0;
    for partition in 0..64 {
        let body = format!(r#"{{"keyspace": "many", "partition": {partition}}}"#);
        let orders = (0..6).map(|_| {
            let (address, body) = (node.client.clone(), body.clone());
            tokio::spawn(async move { http_at(&address, "POST", "/partitions/split", &body).await })
        });
        let mut refused = 0;
        for order in orders.collect::<Vec<_>>() {
            let (status, told) = order.await.unwrap();
            match status {
                200 | 202 => done += 1,
                409 => {
                    let words = format!("partition {partition} of keyspace many is being split already");
                    let is_right = told.contains(&words) || told.contains("others change the keyspaces");
                    assert!(is_right, "{told}");
                    refused += usize::from(told.contains(&words));
                }
                _ => panic!("{status} {told}"),
            }
        }
        if refused > 0 {
            break;
        }
        assert!(partition < 63, "none was refused");
    }
    until("all are finished", async || {
        let (_, said) = said(node, &["-o", "json", "--keyspace", "many", "partitions"]);
        let shown: Value = serde_json::from_str(&said).unwrap();
        let shown = shown["keyspaces"][0]["partitions"].as_array().unwrap().clone();
        (shown.len() == 64 + done).then_some(())
    })
    .await;
}
