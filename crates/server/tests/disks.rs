//! Disks that lose what was not synced, fail, fill up and hang under the real binary: no acknowledged write is lost, nobody is told anything wrong, and when the
//! disk is well again the node is, too.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_faultfs::faults::{Effect, On};
use quorate_faultfs::power::Unsynced;
use rustix::io::Errno;
use support::client::Client;
use support::disks::OnDisks;
use support::load::{self, Load};
use support::until;
use tonic::Code;

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 60;
const POWER_FAILURES: u64 = 4;

async fn started(size: usize) -> Option<OnDisks> {
    let mut on = OnDisks::new(size)?;
    on.start().await;
    Some(on)
}

async fn check(on: &OnDisks, load: Load) {
    let acknowledged = load.finish().await;
    println!("{} keys acknowledged", acknowledged.len());
    load::check(&on.cluster, &acknowledged).await;
    on.cluster.until_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_of_all_nodes_fails_and_no_acknowledged_write_is_lost() {
    let Some(mut on) = started(3).await else { return };
    let load = Load::start(&on.cluster.client());
    for failure in 0..POWER_FAILURES {
        load.goes_on(SOME).await;
        for node in &mut on.cluster.nodes {
            node.kill();
        }
        for at in 0..3 {
            let seed = failure * 3 + at as u64;
            on.power_failure(at, if failure == 0 { Unsynced::Lost } else { Unsynced::Some(seed) });
        }
        on.start().await;
    }
    load.goes_on(SOME).await;
    check(&on, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_sync_fails_stops_and_the_others_go_on() {
    let Some(mut on) = started(3).await else { return };
    let load = Load::start(&on.cluster.client());
    load.goes_on(SOME).await;
    let at = on.cluster.leader(None).await;
    on.disks[at].times(1, On::Sync, "log/*.log", Effect::Fail(Errno::IO));
    let status = on.cluster.nodes[at].ended().await;
    assert!(!status.success(), "{status}");
    load.goes_on(SOME).await;
    on.cluster.nodes[at].start();
    on.cluster.nodes[at].ready().await;
    load.goes_on(SOME).await;
    for at in 0..3 {
        on.power_failure(at, Unsynced::Lost);
    }
    on.start().await;
    load.goes_on(SOME).await;
    check(&on, load).await;
}

/// After a failed sync the kernel has in its cache what the disk has not, and says of later syncs that they succeeded. A node that is
/// started again reads it, and must not rely on it before it has written it once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_sync_has_lost_is_written_again_before_it_counts() {
    let Some(mut on) = OnDisks::new(3) else { return };
    for node in &mut on.cluster.nodes {
        node.settings.insert("--partitions", "1".to_owned());
    }
    on.start().await;
    // Over several pages, so that what comes after it in the log does not take it along.
    let value = "v".repeat(30_000);
    let mut tries = 0;
    let (at, other, key) = until("a write outlives its leader's failed sync", async || {
        tries += 1;
        let at = on.cluster.leader(None).await;
        let (away, other) = ((at + 1) % 3, (at + 2) % 3);
        on.cluster.nodes[away].kill();
        let key = format!("k{tries}");
        on.disks[at].times(1, On::Sync, "log/*.log", Effect::Fail(Errno::IO));
        let outcome = on.cluster.nodes[at].only().try_put(&key, &value).await;
        assert!(outcome.is_err(), "{outcome:?}");
        on.cluster.nodes[at].ended().await;
        on.cluster.nodes[at].start();
        on.cluster.nodes[at].ready().await;
        // Whoever reads it was told of it, so it is there for good.
        if on.cluster.nodes[at].only().get(&key).await.is_some() {
            return Some((at, other, key));
        }
        on.cluster.nodes[away].start();
        on.cluster.nodes[away].ready().await;
        None
    })
    .await;
    on.cluster.nodes[other].kill();
    on.power_failure(at, Unsynced::Lost);
    for node in [at, (at + 1) % 3] {
        on.cluster.nodes[node].start();
    }
    on.cluster.nodes[at].ready().await;
    let read = on.cluster.nodes[at].only().get(&key).await;
    assert!(read == Some(value), "{key} was there and is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_which_a_part_cannot_be_read_answers_nobody_wrongly_and_is_filled_anew() {
    let Some(mut on) = OnDisks::new(3) else { return };
    for node in &mut on.cluster.nodes {
        node.settings.insert("--cache-bytes", (1 << 20).to_string());
    }
    on.start().await;
    let client = on.cluster.client();
    let value = |number: u32| format!("{number} {}", "v".repeat(100_000));
    for number in 0..50 {
        client.put(&format!("k{number}"), &value(number)).await;
    }
    let at = on.cluster.leader(None).await;
    // To tables, and out of memory.
    let mut maintenance = on.cluster.nodes[at].only().maintenance();
    until("tables are written", async || {
        maintenance.defragment(quorate_api::pb::DefragmentRequest {}).await.ok()
    })
    .await;
    assert!(on.cluster.nodes[at].stop().await.success());
    on.cluster.nodes[at].start();
    on.cluster.nodes[at].ready().await;
    // One: a second could meet the new store when that is opened.
    let rule = on.disks[at].times(1, On::Read, "store/tree/tables/*", Effect::Fail(Errno::IO));
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    for number in 0..50 {
        let outcome = on.cluster.nodes[at].only().try_get(&format!("k{number}")).await;
        if let Ok(read) = &outcome {
            assert!(*read == Some(value(number)), "k{number} is wrong");
        }
        let told = outcome.map_or_else(|status| status.code().to_string(), |_| "right".to_owned());
        *outcomes.entry(told).or_default() += 1;
    }
    println!("reading at the node whose store fails: {outcomes:?}");
    assert!(on.disks[at].faults().hits(rule) > 0, "nothing was read from the disk");
    let others = Client::new((1..3).map(|by| on.cluster.nodes[(at + by) % 3].client.clone()).collect());
    others.put("after", "v").await;
    for number in 0..50 {
        assert!(others.get(&format!("k{number}")).await == Some(value(number)), "k{number} is wrong");
    }
    // What cannot be read is fetched from the others, and written where it can be.
    until("the node is filled anew", async || {
        on.cluster.nodes[at].log().contains("every group is whole again").then_some(())
    })
    .await;
    on.cluster.nodes[at].ready().await;
    assert_eq!(on.cluster.nodes[at].only().get("after").await.as_deref(), Some("v"));
    on.cluster.until_equal().await;
}

const RESERVE: u64 = 32 << 20;

async fn until_refused(client: &Client) {
    until("writes are refused", async || {
        let status = client.try_put("full", "v").await.err()?;
        (status.code() == Code::ResourceExhausted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_refuse_writes_until_there_is_space_again() {
    let Some(mut on) = OnDisks::new(3) else { return };
    for node in &mut on.cluster.nodes {
        node.settings.insert("--disk-reserve-bytes", RESERVE.to_string());
    }
    on.start().await;
    let client = on.cluster.client();
    client.put("before", "v").await;
    let fill = |on: &OnDisks, at: usize| on.disks[at].set_capacity(Some(on.disks[at].used() + RESERVE / 2));
    let follower = on.cluster.follower().await;
    fill(&on, follower);
    until("the follower notices", async || {
        on.cluster.nodes[follower].log().contains("space is short").then_some(())
    })
    .await;
    client.put("a follower is full", "v").await;
    for at in 0..3 {
        fill(&on, at);
    }
    until_refused(&client).await;
    for node in &on.cluster.nodes {
        assert_eq!(node.only().get("before").await.as_deref(), Some("v"), "{} reads", node.name);
    }
    for disk in &on.disks {
        disk.set_capacity(None);
    }
    until("writes are taken again", async || client.try_put("after", "v").await.ok()).await;
    assert!(on.cluster.nodes.iter_mut().all(support::Node::is_running));
    on.cluster.until_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_finds_no_space_stops_its_node_and_acknowledges_nothing() {
    let Some(mut on) = OnDisks::new(3) else { return };
    for node in &mut on.cluster.nodes {
        // Nobody sees it coming.
        node.settings.insert("--disk-reserve-bytes", "0".to_owned());
    }
    on.start().await;
    let load = Load::start(&on.cluster.client());
    load.goes_on(SOME).await;
    let full = |on: &OnDisks, at: usize| {
        on.disks[at].set_rewrites_take_space(true);
        on.disks[at].set_capacity(Some(on.disks[at].used() / 2));
    };
    let leader = on.cluster.leader(None).await;
    full(&on, leader);
    let status = on.cluster.nodes[leader].ended().await;
    assert!(!status.success(), "{status}");
    load.goes_on(SOME).await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for at in others {
        full(&on, at);
    }
    // Then the last has nothing to write.
    until("another one stops", async || {
        others.iter().any(|at| !on.cluster.nodes[*at].is_running()).then_some(())
    })
    .await;
    for disk in &on.disks {
        disk.set_capacity(None);
    }
    for at in others {
        on.cluster.nodes[at].kill();
    }
    on.start().await;
    load.goes_on(SOME).await;
    check(&on, load).await;
}

/// Of a mebibyte: after a few of them the store is flushed and the log cut, so that the store alone has the oldest.
fn large(number: usize) -> String {
    format!("{number} {}", "v".repeat(1 << 20))
}

/// Puts so many more; `acknowledged` are the numbers of all.
async fn put_large(client: &Client, acknowledged: &mut Vec<usize>, more: usize) {
    let first = acknowledged.last().map_or(0, |last| last + 1);
    for number in first..first + more {
        client.put(&format!("k{number}"), &large(number)).await;
        acknowledged.push(number);
    }
}

async fn find_large(client: &Client, acknowledged: &[usize]) {
    for number in acknowledged {
        assert!(client.get(&format!("k{number}")).await == Some(large(*number)), "k{number} is lost");
    }
}

/// It has nobody to be filled from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_of_a_node_alone_fails_and_no_acknowledged_write_is_lost() {
    let Some(mut on) = started(1).await else { return };
    let (client, mut acknowledged) = (on.cluster.client(), Vec::new());
    for unsynced in [Unsynced::Lost, Unsynced::Some(1), Unsynced::Some(2)] {
        put_large(&client, &mut acknowledged, 25).await;
        on.power_failure(0, unsynced);
        on.start().await;
        find_large(&client, &acknowledged).await;
    }
}

/// As above for the store, of a node that has nobody to be filled from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_sync_of_the_store_has_lost_is_written_again() {
    let Some(mut on) = started(1).await else { return };
    let (client, mut acknowledged) = (on.cluster.client(), Vec::new());
    on.disks[0].times(1, On::Sync, "store/tree/tables/*", Effect::Fail(Errno::IO));
    until("the store is flushed", async || {
        let number = acknowledged.len();
        match client.try_put(&format!("k{number}"), &large(number)).await {
            Ok(_) => acknowledged.push(number),
            Err(_) => return Some(()),
        }
        None
    })
    .await;
    on.cluster.nodes[0].ended().await;
    on.start().await;
    put_large(&client, &mut acknowledged, 40).await;
    on.power_failure(0, Unsynced::Lost);
    on.start().await;
    find_large(&client, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_hangs_holds_nobody_up() {
    let Some(on) = started(3).await else { return };
    let at = on.cluster.follower().await;
    let others = Client::new((1..3).map(|by| on.cluster.nodes[(at + by) % 3].client.clone()).collect());
    let load = Load::start(&others);
    load.goes_on(SOME).await;
    load.books.take_gap();
    on.disks[at].always(On::Any, "*", Effect::Hang);
    until("a call hangs", async || (on.disks[at].faults().hanging() > 0).then_some(())).await;
    load.goes_on(SOME).await;
    println!("longest write gap {:?}", load.books.take_gap());
    assert!(on.disks[at].faults().hanging() > 0, "it hangs still");
    on.disks[at].faults().clear_all();
    check(&on, load).await;
}

/// Its process lives and sends heartbeats: nobody replaces it but itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_is_replaced_while_it_hangs() {
    let Some(on) = started(3).await else { return };
    for (calls, files) in [(On::Sync, "log/*.log"), (On::Any, "*")] {
        let at = on.cluster.leader(None).await;
        let others = Client::new((1..3).map(|by| on.cluster.nodes[(at + by) % 3].client.clone()).collect());
        let load = Load::start(&others);
        load.goes_on(SOME).await;
        load.books.take_gap();
        on.disks[at].always(calls, files, Effect::Hang);
        until("a call hangs", async || (on.disks[at].faults().hanging() > 0).then_some(())).await;
        load.goes_on(SOME).await;
        println!("{calls:?} of {files} hang: longest write gap {:?}", load.books.take_gap());
        assert!(on.disks[at].faults().hanging() > 0, "it hangs still");
        assert_ne!(on.cluster.leader(Some(at)).await, at);
        on.disks[at].faults().clear_all();
        check(&on, load).await;
    }
}
