//! Three nodes of the real binary, killed and paused while clients write, watch and keep leases alive.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::pb;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::client::{Client, put_of};
use support::load::{self, Load, Watcher};
use support::{Cluster, until};

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 60;
const MANY: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_pauses_lose_no_acknowledged_write_and_no_event() {
    kills_and_pauses(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_where_connections_and_worker_have_several_threads() {
    kills_and_pauses(3).await;
}

async fn kills_and_pauses(threads: u32) {
    // As it is in etcd, no revision may be missing; over many partitions some are, when their sequencer dies.
    let mut cluster = Cluster::set(3, &[("--partitions", 1), ("--threads", threads)]).await;
    let client = cluster.client();
    let watcher = Watcher::start(&client).await;
    let load = Load::start(&client);
    load.goes_on(MANY).await;
    for is_leader in [true, false, true] {
        let at = if is_leader { cluster.leader(None).await } else { cluster.follower().await };
        load.books.take_gap();
        cluster.nodes[at].kill();
        load.goes_on(SOME).await;
        let whom = if is_leader { "leader" } else { "follower" };
        println!("kill -9 of the {whom}: longest write gap {:?}", load.books.take_gap());
        cluster.nodes[at].start();
        cluster.nodes[at].ready().await;
        load.goes_on(SOME).await;
    }

    // A paused leader keeps its connections; the others must notice all the same, and when it comes back it must not
    // acknowledge, or answer reads, as if nothing had happened: the load's books would show it.
    let paused = cluster.leader(None).await;
    load.books.take_gap();
    cluster.nodes[paused].pause();
    // Forwarded before anybody can know: whatever it comes to, the client should hear of it once there is a new leader.
    let (asked, through) = (Instant::now(), cluster.nodes[(paused + 1) % 3].only());
    let outcome =
        through.try_put("through a follower", "v").await.map_err(|status| status.message().to_owned());
    println!("the leader is paused: a write through a follower: {outcome:?} after {:?}", asked.elapsed());
    let next = cluster.leader(Some(paused)).await;
    assert_ne!(paused, next);
    load.goes_on(MANY).await;
    println!("the leader is paused: longest write gap {:?}", load.books.take_gap());
    cluster.nodes[paused].resume();
    cluster.nodes[paused].ready().await;
    load.goes_on(SOME).await;

    load.books.take_gap();
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.ready().await;
    load.goes_on(MANY).await;
    println!("kill -9 of all three: longest write gap {:?}", load.books.take_gap());

    let acknowledged = load.finish().await;
    println!("{} keys acknowledged", acknowledged.len());
    load::check(&cluster, &acknowledged).await;
    let newest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap();
    load::compare(&watcher.up_to(newest).await, &acknowledged);
}

/// Keeps a lease alive through whichever node answers; counts the answers.
async fn keep(client: Client, lease: i64, answers: Arc<AtomicU64>) {
    let mut last = Instant::now();
    loop {
        let (requests, stream) = tokio::sync::mpsc::channel(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        requests.send(pb::LeaseKeepAliveRequest { id: lease }).await.unwrap();
        if let Ok(stream) = client.lease().lease_keep_alive(stream).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(answer)) = stream.message().await {
                assert!(answer.ttl > 0, "the lease is lost, {:?} after its last keep-alive", last.elapsed());
                last = Instant::now();
                answers.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(200)).await;
                if requests.send(pb::LeaseKeepAliveRequest { id: lease }).await.is_err() {
                    break;
                }
            }
        }
        client.turn();
        tokio::time::sleep(support::LOOK).await;
    }
}

async fn grant(client: &Client, ttl: i64, id: i64, key: &str) {
    let request = pb::LeaseGrantRequest { ttl, id };
    // A repeated grant whose first try was carried out finds the lease there.
    until("the lease is granted", async || match client.lease().lease_grant(request).await {
        Ok(answer) => (answer.into_inner().ttl == ttl).then_some(()),
        Err(status) => (status.code() == tonic::Code::FailedPrecondition).then_some(()),
    })
    .await;
    let put = pb::PutRequest { lease: id, ..put_of(key, "leased") };
    client.insist(put, |to, put| async move { to.kv().put(put).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_leader_kills_a_lease_lives_while_it_is_kept_alive_and_no_longer() {
    const KEPT: i64 = 71;
    const LEFT: i64 = 72;
    const LEFT_SECONDS: u64 = 4;
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    let watcher = Watcher::start(&client).await;
    grant(&client, 10, KEPT, "kept").await;
    let asked = Instant::now();
    grant(&client, LEFT_SECONDS as i64, LEFT, "left").await;
    let answers = Arc::<AtomicU64>::default();
    let keeper = tokio::spawn(keep(client.another(0), KEPT, answers.clone()));
    for _ in 0..3 {
        let at = cluster.leader(None).await;
        cluster.nodes[at].kill();
        let before = answers.load(Ordering::Relaxed);
        until("the lease is kept alive by the next leader", async || {
            assert!(!keeper.is_finished(), "the lease was lost");
            (answers.load(Ordering::Relaxed) >= before + 5).then_some(())
        })
        .await;
        cluster.nodes[at].start();
        cluster.nodes[at].ready().await;
    }
    let gone = watcher.event("left", |seen| seen.value.is_none()).await;
    let lived = gone.when - asked;
    println!("a lease of {LEFT_SECONDS} s that nobody kept alive was gone after {lived:?}");
    assert!(lived >= Duration::from_secs(LEFT_SECONDS), "gone after {lived:?}");
    assert_eq!(client.get("left").await, None);

    assert!(!keeper.is_finished(), "the lease was lost");
    let request = pb::LeaseTimeToLiveRequest { id: KEPT, keys: true };
    let time =
        client.insist(request, |to, ask| async move { to.lease().lease_time_to_live(ask).await }).await;
    assert!(time.ttl > 0, "{time:?}");
    assert_eq!(time.keys, vec!["kept"]);
    assert_eq!(client.get("kept").await.as_deref(), Some("leased"));
    keeper.abort();
    until("the lease is revoked", async || {
        match client.lease().lease_revoke(pb::LeaseRevokeRequest { id: KEPT }).await {
            // A repeated revoke may find it gone.
            Ok(_) => Some(()),
            Err(status) => (status.code() == tonic::Code::NotFound).then_some(()),
        }
    })
    .await;
    watcher.event("kept", |seen| seen.value.is_none()).await;
    assert_eq!(client.get("kept").await, None);
}
