//! SIGTERM and a new start of each node in turn, while clients write: what an upgrade looks like to them.
//!
//! `cargo xtask rolling` runs it on a release build and shows what it prints; `QUORATE_ROLLING_ROUNDS` says how often each node is restarted.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use support::Cluster;
use support::load::{self, Load, Watcher};

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_no_acknowledged_write() {
    roll(Cluster::started(3).await).await;
}

/// With partitions, revisions are drawn from another group, so more has to be handed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_five_nodes_with_partitions_loses_no_acknowledged_write() {
    roll(Cluster::partitioned(5, 4).await).await;
}

/// How often each node is restarted.
fn rounds() -> usize {
    std::env::var("QUORATE_ROLLING_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number of rounds"))
}

async fn roll(mut cluster: Cluster) {
    let client = cluster.client();
    let watcher = Watcher::start(&client).await;
    let load = Load::start(&client);
    load.goes_on(SOME).await;
    let size = cluster.nodes.len();
    // The leader among them, and whoever leads after it.
    for at in (0..size).cycle().take(rounds() * size) {
        let role = if cluster.leader(None).await == at { "leader" } else { "follower" };
        load.goes_on(SOME).await;
        let (calm, _) = (load.books.take_gap(), client.tries().take());
        let status = cluster.nodes[at].stop().await;
        assert!(status.success(), "{}: {status}", cluster.nodes[at].name);
        load.goes_on(SOME).await;
        let stopping = load.books.take_gap();
        cluster.nodes[at].start();
        cluster.nodes[at].ready().await;
        load.goes_on(SOME).await;
        let starting = load.books.take_gap();
        let (repeated, most) = client.tries().take();
        println!(
            "{} of {size} ({role}): longest write gap {calm:?} before, {stopping:?} while it stops, {starting:?} while it starts; \
             {repeated} calls repeated elsewhere, none more than {most} tries",
            cluster.nodes[at].name
        );
        // What fails at one node succeeds at another: a client that goes through its endpoints once is served.
        assert!(most <= size as u64, "a call was tried {most} times, more than there are nodes");
    }
    let acknowledged = load.finish().await;
    println!("{} keys acknowledged", acknowledged.len());
    load::check(&cluster, &acknowledged).await;
    let newest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap();
    load::compare_but_gaps(&watcher.up_to(newest).await, &acknowledged);
}
