//! Three nodes of the real binary with 16 partitions, killed while clients write to all of them and move money between
//! them; and what the settings and commands for partitions say.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::pb;
use std::collections::BTreeMap;
use support::bank::{self, Bank};
use support::client::prefix_end;
use support::load::{self, Load, Watcher};
use support::{Cluster, run, until};

/// Acknowledged writes, or transfers, that show that the cluster goes on.
const SOME: u64 = 60;
const MANY: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_of_16_partitions_are_killed_and_no_write_and_no_money_is_lost() {
    let mut cluster = Cluster::partitioned(3, 16).await;
    let client = cluster.client();
    let watcher = Watcher::start(&client).await;
    let load = Load::start(&client);
    let bank = Bank::open(&client).await;
    load.goes_on(MANY).await;
    bank.goes_on(MANY).await;
    for kill in 0..4 {
        // The last one is a follower.
        let at = if kill < 3 { cluster.leader(None).await } else { cluster.follower().await };
        load.books.take_gap();
        cluster.nodes[at].kill();
        load.goes_on(SOME).await;
        bank.goes_on(SOME).await;
        println!("kill -9 of {}: longest write gap {:?}", cluster.nodes[at].name, load.books.take_gap());
        cluster.nodes[at].start();
        cluster.nodes[at].ready().await;
        load.goes_on(SOME).await;
        bank.goes_on(SOME).await;
    }
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.ready().await;
    load.goes_on(SOME).await;
    bank.goes_on(SOME).await;
    println!("kill -9 of all three: longest write gap {:?}", load.books.take_gap());

    let (transfers, audits) = bank.close().await;
    let acknowledged = load.finish().await;
    println!("{} keys and {transfers} transfers acknowledged, {audits} audits", acknowledged.len());
    load::check(&cluster, &acknowledged).await;
    // Something that is the last of all.
    let last = client.put("load/the last", "of all").await;
    let told = watcher.up_to(last).await;
    load::compare_but_gaps(&told, &acknowledged);
    let moves = bank::check(&told);
    assert!(moves as u64 > transfers, "{moves} revisions moved money, {transfers} were acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_revisions_of_16_partitions_have_no_gaps() {
    let mut cluster = Cluster::partitioned(1, 16).await;
    let client = cluster.client();
    let watcher = Watcher::start(&client).await;
    let load = Load::start(&client);
    load.goes_on(MANY).await;
    let acknowledged = load.finish().await;
    let newest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap();
    load::compare(&watcher.up_to(newest).await, &acknowledged);
    let before = client.prefix(load::PREFIX).await;
    assert!(cluster.nodes[0].stop().await.success());
    cluster.nodes[0].start();
    cluster.ready().await;
    let after = cluster.client().prefix(load::PREFIX).await;
    assert_eq!(after.1, before.1, "after a new start");
    // Another sequencer begins behind all that its predecessor may have given out.
    assert!(after.0 >= before.0, "at revision {} after {}", after.0, before.0);
}

/// As clients page: the first answer names the revision that the others are asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_over_16_partitions_are_of_one_revision_while_keys_change() {
    const KEYS: usize = 200;
    let cluster = Cluster::partitioned(3, 16).await;
    let client = cluster.client();
    for number in 0..KEYS {
        client.put(&format!("page/{:02}/{number:03}", number % 37), "before").await;
    }
    let (mut key, mut revision, mut seen) = (b"page/".to_vec(), 0, BTreeMap::new());
    loop {
        let request = pb::RangeRequest {
            key: key.clone().into(),
            range_end: prefix_end("page/").into(),
            limit: 7,
            revision,
            ..Default::default()
        };
        let page = client.insist(request, |to, range| async move { to.kv().range(range).await }).await;
        revision = if revision == 0 { page.header.unwrap().revision } else { revision };
        assert_eq!(page.count as usize, KEYS - seen.len(), "as many as there are from here on");
        for pair in &page.kvs {
            assert!(pair.mod_revision <= revision && pair.value == "before", "{pair:?} at {revision}");
            assert!(
                seen.insert(pair.key.clone(), pair.mod_revision).is_none(),
                "{pair:?} was on a page before"
            );
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
        key = [&last.key[..], b"\0"].concat();
        // Something before, something behind, and something new.
        for (directory, name) in [(0, 0), (36, 184 + seen.len()), (20, 900 + seen.len())] {
            client.put(&format!("page/{directory:02}/{name:03}"), "after").await;
        }
    }
    assert_eq!(seen.len(), KEYS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_shown_and_stay_as_they_were_made() {
    let mut cluster = Cluster::new(1);
    let node = &mut cluster.nodes[0];
    node.settings.insert("--partitions", "5".into());
    node.settings.insert("--pin", "app/,other".into());
    node.settings.insert("--spread", "jobs/:4".into());
    node.start();
    node.ready().await;
    for number in 0..50 {
        node.only().put(&format!("d{number}/k"), "v").await;
    }
    let endpoint = node.client.clone();
    let show = || {
        let (code, said) = run(&["partitions", "--endpoints", &endpoint, "-o", "json"]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    let shown = show();
    let default = &shown["keyspaces"][1];
    assert_eq!((&default["name"], &default["revision"]), (&"default".into(), &51.into()), "{shown}");
    assert_eq!(default["rules"].as_array().unwrap().len(), 3, "{shown}");
    assert_eq!(default["held_back"], serde_json::json!({}), "{shown}");
    let partitions = default["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 5, "{shown}");
    let slots: u64 = partitions.iter().map(|partition| partition["slots"].as_u64().unwrap()).sum();
    assert_eq!(slots, 16_384, "{shown}");
    for partition in partitions {
        assert_eq!(partition["leader"], node.name.as_str(), "{shown}");
        assert!(
            partition["entries"].as_u64().unwrap() > 1,
            "50 directories are in all of 5 partitions: {shown}"
        );
        assert_eq!(partition["replicas"][&node.name]["lag"], 0, "{shown}");
        assert!(partition["bytes"].is_null(), "counted without being asked to: {shown}");
    }
    let (code, counted) = run(&["partitions", "--sizes", "--endpoints", &endpoint, "-o", "json"]);
    assert_eq!(code, Some(0), "{counted}");
    let counted = serde_json::from_str::<serde_json::Value>(&counted).unwrap();
    let sizes: Vec<(u64, u64)> = counted["keyspaces"][1]["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|partition| (partition["versions"].as_u64().unwrap(), partition["bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(sizes.iter().map(|(versions, _)| versions).sum::<u64>(), 50, "{counted}");
    assert!(sizes.iter().all(|(versions, bytes)| *bytes > versions * 20), "{counted}");
    let (code, table) = run(&["partitions", "list", "--sizes", "--endpoints", &endpoint]);
    assert!(code == Some(0) && table.contains("VERSIONS"), "{table}");
    let (code, table) = run(&["partitions", "--endpoints", &endpoint]);
    assert_eq!(code, Some(0), "{table}");
    for word in ["keyspace 1, default: 5 partitions", "pin app/", "spread jobs/:4", "PARTITION"] {
        assert!(table.contains(word), "does not say «{word}»: {table}");
    }
    let (_, metrics) = run(&["status", "--endpoints", &endpoint]);
    assert!(metrics.contains("leader"), "{metrics}");

    // Other flags later on are told of, and change nothing.
    assert!(node.stop().await.success());
    assert!(!node.log().contains("not what this cluster was made with"), "{}", node.log());
    node.settings.insert("--partitions", "16".into());
    node.settings.remove("--pin");
    node.start();
    node.ready().await;
    let log = node.log();
    until("all partitions are led again", async || {
        let led = |partition: &serde_json::Value| partition["leader"] == node.name.as_str();
        let shown = show();
        let partitions = shown["keyspaces"][1]["partitions"].as_array().unwrap().clone();
        (partitions.len() == 5 && partitions.iter().all(led)).then_some(())
    })
    .await;
    assert_eq!(log.matches("not what this cluster was made with").count(), 1, "{log}");
    assert_eq!(node.only().get("d49/k").await.as_deref(), Some("v"));

    // And without any of these flags there is nothing to tell.
    assert!(node.stop().await.success());
    node.settings.remove("--partitions");
    node.settings.remove("--spread");
    node.start();
    node.ready().await;
    assert_eq!(node.log().matches("not what this cluster was made with").count(), 1);
    assert!(node.stop().await.success());
    let (code, said) = run(&["doctor", &node.data_dir.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    for word in ["group 0/0: applied", "group 1/4: applied", "keyspace 1: 5 partitions, revision 51"] {
        assert!(said.contains(word), "does not say «{word}»: {said}");
    }
}

#[test]
fn partitions_and_rules_that_make_no_sense_are_refused_at_the_start() {
    let check = |args: &[&str], words: &str| {
        let (code, said) = run(&[&["serve"], args].concat());
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(words), "does not say «{words}»: {said}");
    };
    check(&["--partitions", "0"], "--partitions: is 0, but must be between 1 and 1024");
    check(&["--partitions", "1025"], "must be between 1 and 1024");
    check(&["--spread", "jobs/"], "is not DIRECTORY:BITS");
    check(&["--spread", "jobs/:20"], "which are not from 1 to 14");
    check(&["--pin", "a", "--pin", "a"], "--pin: two pins of \"a\"");
    check(
        &["--pin", "jobs", "--spread", "jobs/:3"],
        "--spread: spread of \"jobs/\", whose keys the pin of \"jobs\" keeps in one slot",
    );
}
