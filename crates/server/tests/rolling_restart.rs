//! SIGTERM and a new start of each node in turn, while clients write: what an upgrade looks like to them.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use support::Cluster;
use support::load::{self, Load, Watcher};

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_no_acknowledged_write() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    let watcher = Watcher::start(&client).await;
    let load = Load::start(&client);
    load.goes_on(SOME).await;
    // The leader among them, and whoever leads after it.
    for at in 0..3 {
        let role = if cluster.leader(None).await == at { "leader" } else { "follower" };
        load.goes_on(SOME).await;
        let calm = load.books.take_gap();
        let status = cluster.nodes[at].stop().await;
        assert!(status.success(), "{}: {status}", cluster.nodes[at].name);
        load.goes_on(SOME).await;
        let stopping = load.books.take_gap();
        cluster.nodes[at].start();
        cluster.nodes[at].ready().await;
        load.goes_on(SOME).await;
        let starting = load.books.take_gap();
        println!(
            "{} ({role}): longest write gap {calm:?} before, {stopping:?} while it stops, {starting:?} while it starts",
            cluster.nodes[at].name
        );
    }
    let acknowledged = load.finish().await;
    println!("{} keys acknowledged", acknowledged.len());
    load::check(&cluster, &acknowledged).await;
    let newest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap();
    load::compare_but_gaps(&watcher.up_to(newest).await, &acknowledged);
}
