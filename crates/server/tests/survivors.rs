//! What is left when nodes burn, and when a node's store is damaged, under the real binary.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use support::damage::tables;
use support::{Cluster, Node, run, until};

fn said(node: &Node, args: &[&str]) -> (Option<i32>, String) {
    run(&[&["--endpoints", &node.client], args].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_when_it_is_told_to_and_the_dead_are_filled_anew() {
    let mut cluster = Cluster::partitioned(3, 2).await;
    let client = cluster.client();
    for number in 0..20 {
        client.put(&format!("d{number}/k"), "before").await;
    }
    let (code, words) = said(&cluster.nodes[0], &["partitions", "recover", "system", "--yes"]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("there is nothing to recover"), "{words}");
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let survivor = &cluster.nodes[0];
    let shown = until("the loss is noticed", async || {
        let (code, words) = said(survivor, &["partitions", "recover"]);
        // Each group notices it at its own time.
        let all = ["system", "default/0", "default/1"];
        let is_lost = |name: &&str| words.contains(&format!("{name} has lost its quorum"));
        (code == Some(0) && all.iter().all(is_lost)).then_some(words)
    })
    .await;
    assert!(shown.contains("Nothing was done") && shown.contains("n1: log ends at entry"), "{shown}");
    let (code, words) = said(survivor, &["partitions", "recover", "system"]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("confirmed"), "{words}");
    let (code, words) = said(survivor, &["partitions", "recover", "all", "--yes"]);
    assert_eq!(code, Some(0), "{words}");
    for name in ["system", "default/0", "default/1"] {
        assert!(words.contains(&format!("{name} goes on with what n1 has")), "{words}");
    }
    let alone = survivor.only();
    until("it serves", async || alone.try_put("after/k", "alone").await.ok()).await;
    for number in 0..20 {
        assert_eq!(alone.get(&format!("d{number}/k")).await.as_deref(), Some("before"));
    }
    let (_, events) = said(survivor, &["events"]);
    assert!(events.contains("goes on with what n1 has"), "{events}");
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.ready().await;
    cluster.until_equal().await;
    // They count again.
    until("three vote in everything", async || {
        let (_, words) = said(&cluster.nodes[1], &["-o", "json", "partitions", "recover"]);
        assert!(!words.contains("default/"), "nothing is lost: {words}");
        let (code, words) = said(&cluster.nodes[0], &["node", "list"]);
        (code == Some(0) && !words.contains("learner")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_given_up_when_the_operator_says_so_and_filled_from_the_others() {
    let mut cluster = Cluster::partitioned(3, 2).await;
    let client = cluster.client();
    // More than the store keeps in memory, so that there are tables on disk.
    let value = "v".repeat(1 << 20);
    for number in 0..40 {
        client.put(&format!("d{number}/k"), &format!("{number} {value}")).await;
    }
    let at = 2;
    assert!(cluster.nodes[at].stop().await.success());
    let table = tables(&cluster.nodes[at]).pop().expect("a table on disk");
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&table, &bytes).unwrap();
    let data_dir = cluster.nodes[at].data_dir.display().to_string();
    let (code, words) = run(&["doctor", &data_dir]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("DAMAGE") && words.contains("--rebuild-store"), "{words}");
    let (code, words) = run(&["doctor", "--rebuild-store", &data_dir]);
    assert_eq!(code, Some(0), "{words}");
    let (code, again) = run(&["doctor", "--rebuild-store", &data_dir]);
    assert_eq!(code, Some(1), "once is enough: {again}");
    client.put("meanwhile/k", "v").await;
    cluster.nodes[at].start();
    cluster.nodes[at].ready().await;
    cluster.until_equal().await;
    assert!(
        !cluster.nodes[at].log().contains("data directory is empty"),
        "it keeps its votes and asks nobody"
    );
    let (_, events) = said(&cluster.nodes[at], &["events"]);
    assert!(events.contains("--rebuild-store") && events.contains("has fetched"), "{events}");
    // It is needed, and has what it needs.
    cluster.nodes[0].kill();
    let other = cluster.nodes[1].only();
    until("two go on", async || other.try_put("d1/more", "v").await.ok()).await;
}
