//! Bits of a node's store or log flip: nobody is told anything wrong, nobody else gets it, and it is mended without an operator. The real binary, its files damaged from outside.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::pb;
use std::os::unix::fs::FileExt;
use support::damage::{Segment, tables};
use support::{Cluster, Node, run, until};

const KEYS: usize = 100;

fn key(number: usize) -> String {
    format!("d{number}/k")
}

/// Of a mebibyte, so that there are tables on disk: more than the store keeps in memory.
fn value(number: usize) -> String {
    format!("{number} {}", "v".repeat(1 << 20))
}

/// Three nodes with data, that read all of it at once when they start.
async fn filled() -> Cluster {
    let mut cluster = Cluster::new(3);
    for node in &mut cluster.nodes {
        node.settings.insert("--partitions", "2".to_owned());
        node.settings.insert("--scrub-rate", "200".to_owned());
        node.start();
    }
    cluster.ready().await;
    let client = cluster.client();
    for number in 0..KEYS {
        client.put(&key(number), &value(number)).await;
    }
    cluster
}

/// Flips a bit in the middle of the largest table, and in so many mebibytes more, four behind each other.
fn damage(node: &Node, more: u64) {
    let table = tables(node).pop().expect("a table on disk");
    let file = std::fs::File::options().read(true).write(true).open(&table).unwrap();
    let bytes = table.metadata().unwrap().len();
    assert!(bytes > 8 << 20, "{bytes} bytes");
    for number in 0..=more {
        let at = (bytes / 2 + number * (4 << 20)) % bytes;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
}

async fn until_mended(cluster: &mut Cluster, at: usize) {
    let aside = cluster.nodes[at].data_dir.join("store.damaged");
    until("the damage is noticed", async || {
        cluster.nodes[at].log().contains("the store is damaged").then_some(())
    })
    .await;
    until("the node is filled anew, and what was put aside is gone", async || {
        let has_filled = cluster.nodes[at].log().contains("every group is whole again");
        (has_filled && !aside.exists()).then_some(())
    })
    .await;
    assert!(cluster.nodes[at].is_running(), "it is the same process");
    cluster.until_equal().await;
    let (_, events) = run(&["--endpoints", &cluster.nodes[at].client, "events"]);
    assert!(events.contains("has put its damaged store aside"), "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_rotted_while_its_node_was_down_is_mended() {
    let mut cluster = filled().await;
    let at = cluster.follower().await;
    assert!(cluster.nodes[at].stop().await.success());
    damage(&cluster.nodes[at], 8);
    cluster.client().put("meanwhile/k", "v").await;
    cluster.nodes[at].start();
    until_mended(&mut cluster, at).await;
    let data_dir = cluster.nodes[at].data_dir.display().to_string();
    assert!(cluster.nodes[at].stop().await.success());
    let (code, said) = run(&["doctor", &data_dir]);
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaders_store_that_rots_is_mended_while_everybody_is_served() {
    let mut cluster = filled().await;
    let at = cluster.leader(None).await;
    // Its blocks are not in memory any more.
    assert!(cluster.nodes[at].stop().await.success());
    cluster.nodes[at].start();
    cluster.nodes[at].ready().await;
    damage(&cluster.nodes[at], 8);
    let client = cluster.client();
    let reading = async {
        let mut rounds = 0;
        loop {
            for number in 0..KEYS {
                // Whoever answers answers this.
                let read = client.get(&key(number)).await;
                assert!(read == Some(value(number)), "key {number} is wrong");
            }
            client.put("round", &rounds.to_string()).await;
            rounds += 1;
        }
    };
    tokio::select! {
        () = reading => unreachable!("it goes on for ever"),
        () = until_mended(&mut cluster, at) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_opened_is_mended() {
    let mut cluster = filled().await;
    let at = cluster.follower().await;
    assert!(cluster.nodes[at].stop().await.success());
    std::fs::remove_file(tables(&cluster.nodes[at]).pop().expect("a table on disk")).unwrap();
    cluster.nodes[at].start();
    until("the node is filled anew", async || {
        cluster.nodes[at].log().contains("every group is whole again").then_some(())
    })
    .await;
    assert!(cluster.nodes[at].is_running());
    cluster.nodes[at].ready().await;
}

/// A read is refused when it has waited for a leader as long as requests do: ten election timeouts. What is not done then was not about to be.
async fn has_no_leader_for_long(node: &Node) {
    assert!(node.only().try_get("anything").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_copy_is_not_given_up() {
    let mut cluster = filled().await;
    let (at, others) = (0, [1, 2]);
    assert!(cluster.nodes[at].stop().await.success());
    // In somebody's value; what cannot be opened is of no use to anybody, and put aside at once.
    damage(&cluster.nodes[at], 0);
    for other in others {
        cluster.nodes[other].kill();
    }
    cluster.nodes[at].start();
    until("the damage is noticed", async || {
        cluster.nodes[at].log().contains("the store is damaged").then_some(())
    })
    .await;
    has_no_leader_for_long(&cluster.nodes[at]).await;
    assert!(cluster.nodes[at].is_running(), "it keeps what it has");
    assert!(!cluster.nodes[at].data_dir.join("store.damaged").exists());
    for other in others {
        cluster.nodes[other].start();
    }
    until_mended(&mut cluster, at).await;
}

/// Flips a bit of what a stopped node's log has held for long.
fn damage_log(node: &Node) {
    let segment = Segment::newest(node);
    let (_, inside) = segment.middle();
    segment.flip(inside);
}

/// For the so many-th time.
async fn until_remembered(cluster: &mut Cluster, at: usize, times: usize) {
    until("the node is filled anew, and what was put aside is gone", async || {
        let said = cluster.nodes[at].log();
        let times_of = |what: &str| said.matches(what).count();
        // Two folders each time.
        let is_filled = times_of("every group is whole again") == 2 * times;
        (is_filled && times_of("the log is damaged and was put aside") == times).then_some(())
    })
    .await;
    assert!(cluster.nodes[at].is_running(), "it is the same process");
    let aside = ["log.damaged", "store.damaged"].map(|name| cluster.nodes[at].data_dir.join(name));
    assert!(aside.iter().all(|aside| !aside.exists()));
    cluster.until_equal().await;
    let (_, events) = run(&["--endpoints", &cluster.nodes[at].client, "events"]);
    assert!(events.contains("has put its damaged log aside"), "{events}");
}

/// Forty writes, so that the log's newest segment has a middle.
async fn written(cluster: &Cluster, round: &str) {
    for number in 0..40 {
        cluster.client().put(&format!("{round}/{number}"), round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_log_rotted_asks_the_others_what_it_promised_and_votes_again() {
    let mut cluster = Cluster::partitioned(3, 2).await;
    written(&cluster, "first").await;
    let at = cluster.leader(None).await;
    cluster.nodes[at].kill();
    damage_log(&cluster.nodes[at]);
    let (code, said) = run(&["doctor", &cluster.nodes[at].data_dir.display().to_string()]);
    assert!(code == Some(1) && said.contains("DAMAGE log") && said.contains("Start the node"), "{said}");
    written(&cluster, "meanwhile").await;
    cluster.nodes[at].start();
    until_remembered(&mut cluster, at, 1).await;
    // The store as well: what repairs it needs a log that is whole.
    until("files are written", async || {
        cluster.nodes[at].only().maintenance().defragment(pb::DefragmentRequest {}).await.ok()
    })
    .await;
    cluster.nodes[at].kill();
    damage_log(&cluster.nodes[at]);
    let mut tables = tables(&cluster.nodes[at]);
    std::fs::write(tables.pop().expect("a table on disk"), "nothing").unwrap();
    cluster.nodes[at].start();
    until_remembered(&mut cluster, at, 2).await;
    // It votes: with one of the others it is a majority.
    let other = (at + 1) % 3;
    cluster.nodes[other].kill();
    written(&cluster, "last").await;
    for round in ["first", "meanwhile", "last"] {
        assert_eq!(cluster.client().get(&format!("{round}/39")).await.as_deref(), Some(round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_log_rotted_and_who_had_joined_asks_those_who_are_members_now() {
    let mut cluster = Cluster::partitioned(3, 2).await;
    written(&cluster, "first").await;
    let at = cluster.add("n4");
    cluster.nodes[at].start();
    cluster.nodes[at].ready().await;
    // It was told of a founder that is gone by now, and takes its place.
    let endpoint = cluster.nodes[1].client.clone();
    let removed = async || {
        let asked = ["node", "remove", "n1", "--wait", "--endpoints", &endpoint];
        (run(&asked).0 == Some(0)).then_some(())
    };
    until("n1 is removed", removed).await;
    drop(cluster.nodes.remove(0));
    let at = at - 1;
    written(&cluster, "second").await;
    cluster.nodes[at].kill();
    damage_log(&cluster.nodes[at]);
    written(&cluster, "meanwhile").await;
    cluster.nodes[at].start();
    until_remembered(&mut cluster, at, 1).await;
    cluster.nodes[0].kill();
    written(&cluster, "last").await;
    assert_eq!(cluster.nodes[at].log().matches("has joined").count(), 1, "it is the node that it was");
}

/// As by a mistake that hits all: each node for itself would ask the others, and no two may take each other for a new cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_logs_are_damaged_nobody_begins_anew_and_nothing_is_deleted() {
    let mut cluster = Cluster::partitioned(3, 2).await;
    written(&cluster, "first").await;
    for node in &mut cluster.nodes {
        node.kill();
        damage_log(node);
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    for node in &cluster.nodes {
        until("the log is put aside", async || {
            node.log().contains("the log is damaged and was put aside").then_some(())
        })
        .await;
    }
    until("they have asked each other", async || {
        let has_asked = |node: &Node| node.log().contains("fetching everything from the others");
        cluster.nodes.iter().all(has_asked).then_some(())
    })
    .await;
    has_no_leader_for_long(&cluster.nodes[0]).await;
    for node in &cluster.nodes {
        assert!(!node.data_dir.join("ADMITTED").exists(), "{} takes part in nothing", node.name);
        assert!(["log.damaged", "store.damaged"].iter().all(|name| node.data_dir.join(name).exists()));
    }
}
