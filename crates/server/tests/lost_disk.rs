//! Disks that are lost, and disks that fill up, under the real binary.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::pb::kv_client::KvClient;
use quorate_api::pb::{self, request_op, response_op};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use support::client::{prefix_end, put_of};
use support::load::{self, Load};
use support::{Cluster, run, until};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 100;

/// What a node says that ends, or has no state to read.
const STOPPED: &str = "etcdserver: server stopped";

/// Directories with some keys each.
const GROUPS: usize = 100;
const GROUP_KEYS: usize = 100;
const VALUE: &str = "a value that takes some room, for what is to be sent is to take some time: 0123456789 0123456789 0123456789 0123456789";

/// Each node in turn loses its data directory while clients write. When it has been filled by the others it counts again: the
/// cluster goes on with it and one other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_may_lose_its_disk_one_after_the_other() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&cluster.client());
    for at in 0..3 {
        load.goes_on(SOME).await;
        cluster.nodes[at].kill();
        std::fs::remove_dir_all(&cluster.nodes[at].data_dir).unwrap();
        cluster.nodes[at].start();
        cluster.nodes[at].ready().await;
        let admissions = 2; // One in each life.
        until("the node takes part again", async || {
            let log = cluster.nodes[at].log();
            (log.matches("takes part in the cluster").count() == admissions).then_some(())
        })
        .await;
        assert!(cluster.nodes[at].log().contains("data directory is empty"), "{}", cluster.nodes[at].log());
        // Without one of the others, it is needed.
        let other = (at + 1) % 3;
        cluster.nodes[other].kill();
        load.goes_on(SOME).await;
        cluster.nodes[other].start();
        cluster.nodes[other].ready().await;
    }
    let acknowledged = load.finish().await;
    load::check(&cluster, &acknowledged).await;
}

/// A founder is told in its settings who was there in the beginning. With an empty directory it hears from the others who is there now: it does not
/// wait for the one that was removed, and asks the one that came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_lost_its_disk_asks_those_who_are_members_now() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&cluster.client());
    let at = cluster.add("n4");
    cluster.nodes[at].start();
    cluster.nodes[at].ready().await;
    let endpoints = cluster.endpoints().join(",");
    let (code, said) = run(&["--endpoints", &endpoints, "node", "replace", "n3", "n4", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    cluster.nodes.remove(2).kill();
    load.goes_on(SOME).await;
    let founder = &mut cluster.nodes[0];
    founder.kill();
    std::fs::remove_dir_all(&founder.data_dir).unwrap();
    founder.start();
    founder.ready().await;
    until("the node takes part again", async || {
        (founder.log().matches("takes part in the cluster").count() == 2).then_some(())
    })
    .await;
    // Without the other founder it is needed, and heard by the one that came.
    cluster.nodes[1].kill();
    load.goes_on(SOME).await;
    cluster.nodes[1].start();
    let acknowledged = load.finish().await;
    cluster.ready().await;
    load::check(&cluster, &acknowledged).await;
}

/// Clients of a node that lost its disk are answered from the moment on at which they can connect: by leaders, or when it has been filled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_being_filled_answers_what_it_is_asked() {
    let mut cluster = Cluster::partitioned(3, 4).await;
    let client = cluster.client();
    for group in 0..GROUPS {
        let put = |at| Some(request_op::Request::RequestPut(put_of(&format!("{group}/{at:03}"), VALUE)));
        let success = (0..GROUP_KEYS).map(|at| pb::RequestOp { request: put(at) }).collect();
        client.kv().txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    }
    for _ in 0..2 {
        let at = cluster.follower().await;
        let node = &mut cluster.nodes[at];
        node.kill();
        std::fs::remove_dir_all(&node.data_dir).unwrap();
        let admissions = node.log().matches("takes part in the cluster").count() + 1;
        node.start();
        let address = node.client.clone();
        until("the node can be connected with", async || TcpStream::connect(&address).await.ok()).await;
        let kv = KvClient::new(node.only().patient_channel());
        let is_filled = AtomicBool::new(false);
        let asks = (0..8usize).map(|way| ask(kv.clone(), way, &is_filled));
        let filled = async {
            until("the node takes part again", async || {
                (node.log().matches("takes part in the cluster").count() == admissions).then_some(())
            })
            .await;
            // And when it reads its own copies.
            let own = pb::RangeRequest { key: "0/000".into(), serializable: true, ..Default::default() };
            until("it reads by itself", async || kv.clone().range(own.clone()).await.ok()).await;
            is_filled.store(true, Ordering::Relaxed);
        };
        tokio::join!(filled, futures_util::future::join_all(asks));
    }
}

/// Reads one group after the other in one of several ways until all is over, and once more.
async fn ask(mut kv: KvClient<Channel>, way: usize, is_over: &AtomicBool) {
    let mut is_last = false;
    for group in (0..GROUPS).cycle().skip(way) {
        let key = format!("{group}/");
        let all = pb::RangeRequest {
            range_end: prefix_end(&key).into(),
            key: key.clone().into(),
            ..Default::default()
        };
        let one = pb::RangeRequest { key: format!("{group}/001").into(), ..Default::default() };
        let found = match way % 4 {
            0 => kv.range(all).await.map(|answer| answer.into_inner().kvs.len()),
            1 => kv.range(one).await.map(|answer| answer.into_inner().kvs.len()),
            way => {
                let range = if way == 2 { all } else { one };
                let range = Some(request_op::Request::RequestRange(range));
                let success = vec![pb::RequestOp { request: range }];
                let answer = kv.txn(pb::TxnRequest { success, ..Default::default() }).await;
                answer.map(|answer| match answer.into_inner().responses.remove(0).response {
                    Some(response_op::Response::ResponseRange(range)) => range.kvs.len(),
                    other => panic!("a range is answered with {other:?}"),
                })
            }
        };
        let expected = if way.is_multiple_of(2) { GROUP_KEYS } else { 1 };
        match found {
            Ok(found) => assert_eq!(found, expected, "{way} {key}"),
            // Leaders may change meanwhile; but this node goes on.
            Err(status) => assert_ne!(status.message(), STOPPED, "{way} {key}"),
        }
        if is_last {
            return;
        }
        is_last = is_over.load(Ordering::Relaxed);
    }
}

/// It knows nobody whom it could ask; but the others know it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_founder_of_a_cluster_that_grew_does_not_begin_it_anew() {
    let mut cluster = Cluster::started(1).await;
    for name in ["n2", "n3"] {
        let at = cluster.add(name);
        cluster.nodes[at].start();
        cluster.nodes[at].ready().await;
    }
    cluster.nodes[0].kill();
    std::fs::remove_dir_all(&cluster.nodes[0].data_dir).unwrap();
    // Nor later, when nobody is there to say it.
    for _ in 0..2 {
        let (code, said) = run(&cluster.nodes[0].arguments());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("takes this node for a member") && said.contains("--join"), "{said}");
        cluster.nodes[1..].iter_mut().for_each(support::Node::kill);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_took_part_does_not_start_without_its_log() {
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    node.kill();
    std::fs::remove_dir_all(node.data_dir.join("log")).unwrap();
    let (code, said) = run(&node.arguments());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is gone") && said.contains("move the whole data directory away"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_ends_with_deleting_and_compacting() {
    let mut cluster = Cluster::new(1);
    let node = &mut cluster.nodes[0];
    node.settings.insert("--quota-bytes", (24 << 20).to_string());
    node.start();
    node.ready().await;
    let client = node.only();
    // Hardly compressible, so that it takes what it says.
    let mut number = 1u64;
    let mut noise = || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        format!("{number:016x}")
    };
    let refusal = until("a write is refused", async || {
        let value: String = (0..32_000).map(|_| noise()).collect();
        client.try_put(&format!("big/{}", noise()), &value).await.err()
    })
    .await;
    assert_eq!(refusal.message(), "etcdserver: mvcc: database space exceeded");
    let all = pb::DeleteRangeRequest { key: "big/".into(), range_end: "big0".into(), ..Default::default() };
    let deleted = client.kv().delete_range(all).await.unwrap().into_inner();
    let revision = deleted.header.unwrap().revision;
    client.kv().compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    until("writes are taken again", async || client.try_put("small", "v").await.ok()).await;
    node.kill();
}

/// A small file system of its own, if this machine lets us make one.
struct Mounted(PathBuf);

impl Mounted {
    fn new(place: PathBuf, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(&place).unwrap();
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "quorate-test"]).arg(&place).output();
        mounted.ok().filter(|output| output.status.success()).map(|_| Self(place))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a node that a failed test has left may still be there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_refuses_writes_until_there_is_space() {
    let mut cluster = Cluster::new(1);
    let Some(mounted) = Mounted::new(cluster.folder.path().join("small"), 600) else {
        println!("SKIPPED: a small file system cannot be mounted here (it takes root)");
        return;
    };
    let node = &mut cluster.nodes[0];
    node.data_dir = mounted.0.join("n1");
    node.settings.insert("--data-dir", node.data_dir.display().to_string());
    node.settings.insert("--disk-reserve-bytes", (300 << 20).to_string());
    node.start();
    node.ready().await;
    let client = node.only();
    client.put("before", "v").await;

    let others = mounted.0.join("others-data");
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "count=320"])
        .arg(format!("of={}", others.display()))
        .output()
        .unwrap();
    assert!(filled.status.success(), "{filled:?}");
    let refusal = until("a write is refused", async || client.try_put("k", "v").await.err()).await;
    assert_eq!(
        (refusal.code(), refusal.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
    assert_eq!(client.get("before").await.as_deref(), Some("v"), "reads go on");
    let status = client.try_status().await.unwrap();
    assert!(status.errors.iter().any(|error| error.contains("NOSPACE")), "{status:?}");

    std::fs::remove_file(&others).unwrap();
    until("writes are taken again", async || client.try_put("k", "v").await.ok()).await;
    assert!(client.try_status().await.unwrap().errors.is_empty());
    assert!(node.is_running());
    node.kill();
}
