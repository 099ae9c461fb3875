//! The real binary ends at each crash point (`crates/server/src/crash_points.rs`), as if killed there, and is started anew: no acknowledged write is lost, all
//! nodes hold the same, and the cluster goes on. `QUORATE_CRASH_ROUNDS` says how often all of it is done, each time by other nodes and at later passages; once if it says nothing.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate::crash_points;
use quorate_api::pb;
use quorate_faultfs::power::Unsynced;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::client::Client;
use support::crashes::{Crashes, has_ended_at};
use support::damage::Segment;
use support::disks::OnDisks;
use support::load::{self, Load};
use support::plans::*;
use support::{Cluster, LOOK, Node, PATIENCE, quorate, run, until};

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 40;

/// Entries by which nodes may differ that have applied much the same, and how long they are waited for.
const LEVEL: u64 = 100;
const LEVEL_MAX: Duration = Duration::from_secs(15);

fn rounds() -> usize {
    std::env::var("QUORATE_CRASH_ROUNDS")
        .map_or(1, |said| said.parse().expect("QUORATE_CRASH_ROUNDS is a number"))
}

fn name(point: &str) -> &str {
    point.split(':').next().unwrap()
}

/// In later rounds at later passages, where it is not the first that counts.
fn later(point: &str, round: usize) -> String {
    match point.split_once(':') {
        Some((name, passage)) => format!("{name}:{}", passage.parse::<usize>().unwrap() + 7 * round),
        None => point.to_owned(),
    }
}

#[test]
fn every_crash_point_is_in_some_plan() {
    let plans = [WRITING, OFFERING, COMPACTION, REST, REMOVAL, SPLIT, JOINING, DISCARD, REPAIR, FORGET, TORN];
    let planned = plans
        .iter()
        .chain(&BEGINNING)
        .chain(&FILLING)
        .chain(&FETCHING)
        .flat_map(|plan| plan.iter().map(|point| name(point)));
    let planned: BTreeSet<&str> = planned.collect();
    let all: BTreeSet<&str> = crash_points::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(planned, all);
    println!("{} crash points", all.len());
}

#[test]
fn a_name_that_is_none_is_refused() {
    let mut command = quorate(&["serve", "--print-config"]);
    let said = command.env("QUORATE_CRASH_AT", "log.frame.writen").output().unwrap();
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let why = if cfg!(debug_assertions) { "there is no such crash point" } else { "this is a release build" };
    assert!(said.contains(why), "{said}");
}

/// A release build has none; said loudly.
fn has_crash_points() -> bool {
    if !cfg!(debug_assertions) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: a release build has no crash points");
    }
    cfg!(debug_assertions)
}

/// A cluster of three with so many partitions, none of whose nodes is started.
fn cluster_of(partitions: u32) -> Crashes {
    let mut cluster = Cluster::new(3);
    for node in &mut cluster.nodes {
        node.settings.insert("--partitions", partitions.to_string());
    }
    Crashes::new(cluster)
}

async fn started(partitions: u32) -> Crashes {
    let mut crashes = cluster_of(partitions);
    for at in 0..3 {
        crashes.start(at);
    }
    crashes.cluster.ready().await;
    crashes
}

/// Everybody is there, nothing that was acknowledged is lost, and all hold the same.
async fn check(crashes: &mut Crashes, load: Load) {
    crashes.cluster.ready().await;
    load.goes_on(SOME).await;
    let acknowledged = load.finish().await;
    load::check(&crashes.cluster, &acknowledged).await;
    crashes.cluster.until_equal().await;
    println!("ended {} times; {} keys acknowledged, none lost", crashes.ends, acknowledged.len());
}

/// Of so many bytes, and no two alike.
fn value(number: usize, bytes: usize) -> String {
    format!("{number} {}", "v".repeat(bytes))
}

/// Large values, so that the log is filled.
#[derive(Default)]
struct Large {
    number: usize,
}

impl Large {
    /// Four mebibytes of them at a time; a key comes again when it has had so many after it that most are still there.
    async fn put(&mut self, client: &Client) {
        let mut puts = tokio::task::JoinSet::new();
        for _ in 0..4 {
            self.number += 1;
            let (client, number) = (client.another(self.number), self.number);
            puts.spawn(async move {
                client.put(&format!("large/{}", number % 40), &value(number, 1 << 20)).await;
            });
        }
        puts.join_all().await;
    }
}

/// Waits until those of the nodes that answer have applied much the same, for a while: a node that is filled with a snapshot writes no log, and where the
/// disk is slow and clients do not wait for it, the log is cut faster than the node is filled, again and again.
async fn until_level(nodes: &[Client]) {
    let begun = Instant::now();
    while begun.elapsed() < LEVEL_MAX {
        let mut applied = Vec::new();
        for node in nodes {
            if let Ok(status) = node.maintenance().status(pb::StatusRequest {}).await {
                applied.push(status.into_inner().raft_applied_index);
            }
        }
        let (first, last) = (applied.iter().min().copied(), applied.iter().max().copied());
        if last.unwrap_or_default() - first.unwrap_or_default() < LEVEL {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A transaction of a hundred puts.
async fn put_hundred(client: &Client, prefix: &str, round: usize) {
    let put = |number| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(support::client::put_of(
            &format!("{prefix}{number:04}"),
            &value(round, 20),
        ))),
    };
    let txn = pb::TxnRequest { success: (0..100).map(put).collect(), ..Default::default() };
    client.insist(txn, |to, txn| async move { to.kv().txn(txn).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_end_while_their_cluster_begins() {
    if !has_crash_points() {
        return;
    }
    for round in 0..rounds() {
        let mut crashes = cluster_of(2);
        for (at, plan) in BEGINNING.iter().enumerate() {
            crashes.plan((at + round) % 3, plan);
        }
        for at in 0..3 {
            crashes.start(at);
        }
        crashes.all_reached().await;
        crashes.cluster.ready().await;
        let load = Load::start(&crashes.cluster.client());
        check(&mut crashes, load).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_end_while_clients_write() {
    if !has_crash_points() {
        return;
    }
    let mut crashes = started(2).await;
    let load = Load::start(&crashes.cluster.client());
    for round in 0..rounds() {
        let plan: Vec<String> = WRITING.iter().map(|point| later(point, round)).collect();
        crashes.share(&plan.iter().map(String::as_str).collect::<Vec<_>>(), round);
        crashes.restart();
        crashes.all_reached().await;
    }
    check(&mut crashes, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_end_while_the_log_is_filled_and_cut() {
    if !has_crash_points() {
        return;
    }
    let mut crashes = started(1).await;
    let load = Load::start(&crashes.cluster.client());
    let client = crashes.cluster.client();
    let mut large = Large::default();
    for round in 0..rounds() {
        for (at, plan) in FILLING.iter().enumerate() {
            crashes.plan((at + round) % 3, plan);
        }
        crashes.restart();
        let nodes: Vec<Client> = crashes.cluster.nodes.iter().map(Node::only).collect();
        crashes
            .reached_by(async || {
                large.put(&client).await;
                until_level(&nodes).await;
            })
            .await;
    }
    check(&mut crashes, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_end_while_a_follower_fetches_a_snapshot() {
    if !has_crash_points() {
        return;
    }
    let mut crashes = started(1).await;
    let load = Load::start(&crashes.cluster.client());
    let client = crashes.cluster.client();
    // More rows than go at a time.
    for number in 0..25 {
        put_hundred(&client, &format!("old/{number}/"), 0).await;
    }
    let mut large = Large::default();
    for _ in 0..rounds() {
        for (time, plan) in FETCHING.iter().enumerate() {
            let away = crashes.cluster.follower().await;
            crashes.cluster.nodes[away].kill();
            // More than a leader keeps for one that is away, and what the store has in memory besides: the log is cut when that is flushed.
            for _ in 0..28 {
                large.put(&client).await;
            }
            crashes.plan(away, plan);
            // Once the leader ends, too, and when the other one leads that one.
            if time == 1 {
                for at in (0..3).filter(|at| *at != away) {
                    crashes.plan(at, OFFERING);
                }
            }
            crashes.restart();
            crashes.all_reached().await;
            crashes.cluster.ready().await;
        }
    }
    check(&mut crashes, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_end_while_history_and_keyspaces_are_removed() {
    if !has_crash_points() {
        return;
    }
    let mut crashes = started(2).await;
    let load = Load::start(&crashes.cluster.client());
    let client = crashes.cluster.client();
    let endpoints = crashes.cluster.endpoints().join(",");
    let command = async |args: &[&str]| {
        let said = until("a command succeeds", async || {
            let (code, said) = run(&[&["--endpoints", &endpoints], args].concat());
            (code == Some(0)).then_some(said)
        });
        said.await
    };
    for round in 0..rounds() {
        // More than is removed at a time.
        for number in 0..30 {
            put_hundred(&client, "history/", number).await;
        }
        for at in 0..3 {
            crashes.plan(at, &COMPACTION[..4]);
        }
        crashes.restart();
        let revision = client.put("history/end", &value(round, 1)).await;
        let request = pb::CompactionRequest { revision, physical: false };
        client.insist(request, |to, request| async move { to.kv().compact(request).await }).await;
        crashes.all_reached().await;
        crashes.share(&COMPACTION[4..], round);
        crashes.restart();
        let each: Vec<Client> = crashes.cluster.nodes.iter().map(Node::only).collect();
        let merge = async || {
            for node in &each {
                // Who ends meanwhile does not answer.
                let _ = node.maintenance().defragment(pb::DefragmentRequest {}).await;
            }
            tokio::time::sleep(LOOK).await;
        };
        crashes.reached_by(merge).await;
        crashes.cluster.ready().await;
        let keyspace = format!("k{round}");
        command(&["keyspace", "create", &keyspace]).await;
        command(&["--keyspace", &keyspace, "put", "key", "value"]).await;
        for at in 0..3 {
            crashes.plan(at, REMOVAL);
        }
        crashes.restart();
        command(&["keyspace", "delete", &keyspace, "--yes"]).await;
        crashes.all_reached().await;
    }
    check(&mut crashes, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_end_while_their_stores_come_to_rest() {
    if !has_crash_points() {
        return;
    }
    let mut crashes = started(1).await;
    let client = crashes.cluster.client();
    let mut large = Large::default();
    for _ in 0..rounds() {
        for at in 0..3 {
            crashes.plan(at, REST);
        }
        crashes.restart();
        // More than stays in memory, and then nothing.
        for _ in 0..5 {
            large.put(&client).await;
        }
        crashes.all_reached().await;
    }
    let load = Load::start(&client);
    check(&mut crashes, load).await;
    for number in 1..=large.number.min(39) {
        let found = client.get(&format!("large/{number}")).await;
        assert!(found.is_some(), "large/{number} is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_end_while_a_partition_is_split() {
    if !has_crash_points() {
        return;
    }
    let mut crashes = started(1).await;
    let load = Load::start(&crashes.cluster.client());
    for _ in 0..rounds() {
        for point in SPLIT {
            for node in &mut crashes.cluster.nodes {
                node.kill();
            }
            for at in 0..3 {
                crashes.plan(at, &[point]);
                crashes.start(at);
            }
            let endpoints = crashes.cluster.endpoints().join(",");
            let split = async || {
                let args = ["--endpoints", &endpoints, "partitions", "split"];
                let mut command = tokio::process::Command::from(quorate(&args));
                command.stdout(Stdio::null()).stderr(Stdio::null());
                // Who ends meanwhile does not answer; who is asked again may have it under way. Nobody waits for it once the point is reached.
                command.kill_on_drop(true).status().await.unwrap();
            };
            crashes.first_reached_by(split).await;
            crashes.cluster.ready().await;
            load.goes_on(SOME).await;
        }
    }
    check(&mut crashes, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_end_while_one_joins_and_another_gives_its_replicas_away() {
    if !has_crash_points() {
        return;
    }
    let mut crashes = started(2).await;
    let load = Load::start(&crashes.cluster.client());
    let at = crashes.cluster.add("n4");
    crashes.plan(at, JOINING);
    crashes.start(at);
    crashes.all_reached().await;
    crashes.cluster.nodes[at].ready().await;
    let endpoints = crashes.cluster.endpoints().join(",");
    let order = async |order: &str, name: &str| {
        until("the order is taken", async || {
            let (code, _) = run(&["--endpoints", &endpoints, "node", order, name, "--wait"]);
            (code == Some(0)).then_some(())
        })
        .await;
    };
    for round in 0..rounds() {
        let name = |round: usize| format!("n{}", round % 3 + 1);
        if round > 0 {
            order("undrain", &name(round - 1)).await;
        }
        let (from, name) = (round % 3, name(round));
        crashes.plan(from, DISCARD);
        crashes.restart();
        order("drain", &name).await;
        crashes.all_reached().await;
        crashes.cluster.ready().await;
    }
    // It has nothing of the keyspace any more.
    crashes.leave((rounds() - 1) % 3);
    check(&mut crashes, load).await;
}

/// Flips a bit of what a stopped node's log has held for long.
fn damage_log(node: &Node) {
    let segment = Segment::newest(node);
    let (_, inside) = segment.middle();
    segment.flip(inside);
}

/// Writes something behind the end of the log, as a write that was cut short leaves it.
fn tear(node: &Node) {
    let segment = Segment::newest(node);
    segment.write(segment.end + 64, b"torn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_ends_while_it_repairs_itself() {
    if !has_crash_points() {
        return;
    }
    let mut crashes = started(2).await;
    let load = Load::start(&crashes.cluster.client());
    // More often it would not be repaired in a day.
    for _ in 0..rounds().min(3) {
        for (at, plan) in [REPAIR, FORGET, TORN].into_iter().enumerate() {
            load.goes_on(SOME).await;
            until("tables are written", async || {
                let request = pb::DefragmentRequest {};
                crashes.cluster.nodes[at].only().maintenance().defragment(request).await.ok()
            })
            .await;
            let node = &mut crashes.cluster.nodes[at];
            node.kill();
            match plan {
                REPAIR => std::fs::write(node.data_dir.join("store/tree/current"), "nothing").unwrap(),
                FORGET => damage_log(node),
                _ => tear(node),
            }
            crashes.plan(at, plan);
            crashes.start(at);
            crashes.all_reached().await;
            crashes.cluster.ready().await;
        }
    }
    check(&mut crashes, load).await;
}

/// The power of all nodes fails, and each has come to the same point, or to any other.
async fn fail_together(on: &mut OnDisks, points: &[&str], mut work: impl AsyncFnMut()) {
    for (number, point) in points.iter().enumerate() {
        for node in &mut on.cluster.nodes {
            node.kill();
        }
        for at in 0..3 {
            let seed = (number * 3 + at) as u64;
            on.power_failure(at, if number % 2 == 0 { Unsynced::Lost } else { Unsynced::Some(seed) });
            on.cluster.nodes[at].crash_at = Some((*point).to_owned());
            on.cluster.nodes[at].start();
        }
        let work = async {
            loop {
                work().await;
            }
        };
        // Those who are left may not come that far without the others.
        let ended = until("most nodes have ended", async || {
            let ended = on.cluster.nodes.iter_mut().filter_map(|node| (!node.is_running()).then_some(()));
            (ended.count() >= 2).then_some(())
        });
        tokio::select! {
            () = ended => {}
            () = work => unreachable!("it goes on for ever"),
        }
        for node in &mut on.cluster.nodes {
            let has_ended = !node.is_running();
            node.kill();
            let is_there = has_ended_at(node, name(point));
            assert!(is_there || !has_ended, "{} ended, and not at {point}", node.name);
        }
    }
    for at in 0..3 {
        on.power_failure(at, Unsynced::Lost);
        on.cluster.nodes[at].crash_at = None;
    }
    on.start().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_of_all_nodes_fails_at_the_same_point() {
    if !has_crash_points() {
        return;
    }
    let Some(mut on) = OnDisks::new(3) else { return };
    on.start().await;
    let load = Load::start(&on.cluster.client());
    let client = on.cluster.client();
    let mut large = Large::default();
    for round in 0..rounds() {
        let (small, large_ones) = match round % 2 {
            0 => (AT_ONCE, AT_ONCE_FILLED),
            _ => (AT_ONCE_LATER, AT_ONCE_FILLED_LATER),
        };
        let points: Vec<String> = small.iter().map(|point| later(point, round)).collect();
        let points: Vec<&str> = points.iter().map(String::as_str).collect();
        fail_together(&mut on, &points, async || tokio::time::sleep(PATIENCE).await).await;
        fail_together(&mut on, large_ones, async || large.put(&client).await).await;
    }
    load.goes_on(SOME).await;
    let acknowledged = load.finish().await;
    load::check(&on.cluster, &acknowledged).await;
    on.cluster.until_equal().await;
    println!("{} keys acknowledged, none lost", acknowledged.len());
}
