//! Watches under the real binary at nodes that have not what is watched: another node serves them, and then another.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::{mvccpb, pb};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::load::{self, Load};
use support::watches::{Watches, follow, serves_like_any_hub, watch_of_all};
use support::{Cluster, http_at, run, until};

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 60;

/// Three nodes that hold everything, and one that stands by.
async fn with_spare(partitions: u32) -> (Cluster, usize) {
    let mut cluster = Cluster::partitioned(3, partitions).await;
    let at = cluster.add("n4");
    cluster.nodes[at].settings.insert("--watch-progress-interval", "1".into());
    cluster.nodes[at].start();
    cluster.nodes[at].ready().await;
    (cluster, at)
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
    let (status, said) = http_at(&cluster.nodes[spare].client, "GET", "/health", "").await;
    assert_eq!(status, 200, "{said}");
    let (code, said) = run(&["status", "--endpoints", &cluster.nodes[spare].client]);
    assert!(code == Some(0) && said.contains("stands by"), "{said}");
    serves_like_any_hub(&cluster, spare).await;
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
