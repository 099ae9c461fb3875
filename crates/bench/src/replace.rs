//! A node dies for good: how long until a spare has what it had, and what clients feel of that.
//!
//! Three of four nodes hold everything. One that leads nothing is killed, so that what is measured is the copying and not a change of leaders. Clients
//! in closed loops put small values before and during it.

use crate::Failure;
use crate::cluster::{Cluster, System};
use crate::http;
use hdrhistogram::Histogram;
use quorate_api::pb::PutRequest;
use quorate_api::pb::kv_client::KvClient;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

const NODES: usize = 4;
const REPLICAS: &str = "3";
/// A node that is silent for so long is replaced.
const GRACE_SECONDS: &str = "5";
const VALUE_BYTES: u64 = 16 << 10;
const LOADERS: u64 = 16;
const CLIENTS: u64 = 8;
/// How long the load is measured before the kill.
const BEFORE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);
/// How often a put is tried while loading.
const TRIES_MAX: u32 = 50;
const LIMIT: Duration = Duration::from_secs(600);

/// Measures it with so many megabytes, and prints what came out.
pub(crate) async fn run(
    program: &Path,
    parent: &Path,
    partitions: u32,
    megabytes: u64,
) -> Result<Value, Failure> {
    let more = ["--replicas", REPLICAS, "--grace-period", GRACE_SECONDS];
    let mut cluster = Cluster::start_with(System::Quorate, program, parent, NODES, partitions, &more).await?;
    println!(
        "{NODES} nodes, everything on {REPLICAS}; loading {megabytes} MB into {partitions} partition(s)"
    );
    let channels = cluster.connect(NODES).await?;
    load(&channels, megabytes << 20).await?;
    let (before, _) = clients(&channels, BEFORE, || async { Ok(false) }).await?;

    let list = http::get(&cluster.endpoints()[0], "/nodes").await?;
    let told = list["nodes"].as_array().ok_or("the node's list of nodes makes no sense")?;
    let is_follower =
        |node: &&Value| node["replicas"].as_u64() > Some(0) && node["leads"].as_u64() == Some(0);
    let victim = told.iter().find(is_follower).ok_or("every node that holds something leads something")?;
    let (id, name) = (victim["id"].clone(), victim["name"].as_str().unwrap_or_default().to_owned());
    let number: usize = name.trim_start_matches('n').parse()?;
    let asked = cluster.endpoints()[(number + 1) % NODES].clone();
    cluster.kill(number);
    let killed = Instant::now();
    println!("{name} is killed");
    let living: Vec<Channel> = channels
        .into_iter()
        .enumerate()
        .filter(|(node, _)| *node != number)
        .map(|(_, channel)| channel)
        .collect();
    let told = || {
        let (asked, id) = (asked.clone(), id.clone());
        async move {
            let list = http::get(&asked, "/nodes").await?;
            let told = list["nodes"].as_array().into_iter().flatten().find(|node| node["id"] == id).cloned();
            let told = told.ok_or("the killed node is not in the list any more")?;
            Ok::<_, Failure>((told, list["moves"].as_u64()))
        }
    };
    // From the kill on every write waits for both voters that are left; what copying adds to that is told apart.
    let (missing, _) =
        clients(&living, LIMIT, || async { Ok(told().await?.0["standing"] == "lost") }).await?;
    let lost = Instant::now();
    println!("{:>6.1} s  it is taken for lost", killed.elapsed().as_secs_f64());
    let (during, _) = clients(&living, LIMIT, || async {
        let (told, moves) = told().await?;
        Ok(told["replicas"].as_u64() == Some(0) && moves == Some(0))
    })
    .await?;
    let took = lost.elapsed();
    let rate = megabytes as f64 / took.as_secs_f64();
    println!(
        "{:>6.1} s  everything is on {REPLICAS} nodes again: {:.1} s after that, {rate:.0} MB/s",
        killed.elapsed().as_secs_f64(),
        took.as_secs_f64()
    );
    let millis = |times: &Histogram<u64>, share| times.value_at_quantile(share) as f64 / 1e6;
    println!("puts of {CLIENTS} clients:");
    for (when, times) in [("before", &before), ("one node missing", &missing), ("while copying", &during)] {
        let ratio = millis(times, 0.99) / millis(&before, 0.99);
        let (p50, p99) = (millis(times, 0.5), millis(times, 0.99));
        println!("  {when:<16}  p50 {p50:>6.2} ms  p99 {p99:>6.2} ms ({ratio:.1}x)  {} puts", times.len());
    }
    Ok(json!({
        "megabytes": megabytes, "partitions": partitions, "seconds": took.as_secs_f64(), "megabytes_per_second": rate,
        "p99_before_ms": millis(&before, 0.99), "p99_missing_ms": millis(&missing, 0.99),
        "p99_during_ms": millis(&during, 0.99),
    }))
}

/// Puts so many bytes, over many directories.
async fn load(channels: &[Channel], bytes: u64) -> Result<(), Failure> {
    let mut tasks: JoinSet<Result<(), tonic::Status>> = JoinSet::new();
    for loader in 0..LOADERS {
        let mut client = KvClient::new(channels[loader as usize % channels.len()].clone());
        tasks.spawn(async move {
            let mut random = (loader + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for number in (loader..bytes / VALUE_BYTES).step_by(LOADERS as usize) {
                // Not to be compressed away.
                let value: Vec<u8> = (0..VALUE_BYTES / 8)
                    .flat_map(|_| {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        random.to_le_bytes()
                    })
                    .collect();
                let key = format!("load/{:03}/{number:08}", number % 256);
                let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
                // A new cluster of more nodes than copies moves groups first. Written twice it is the same.
                let mut tries = 0;
                while let Err(status) = client.put(put.clone()).await {
                    tries += 1;
                    if tries == TRIES_MAX {
                        return Err(status);
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
            Ok(())
        });
    }
    while let Some(loaded) = tasks.join_next().await {
        loaded??;
    }
    Ok(())
}

/// Clients put until `is_over` says so, or for so long; how long each put took, and how many failed.
async fn clients<Looked: Future<Output = Result<bool, Failure>>>(
    channels: &[Channel],
    limit: Duration,
    mut is_over: impl FnMut() -> Looked,
) -> Result<(Histogram<u64>, u64), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks: JoinSet<Result<(Histogram<u64>, u64), Failure>> = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = KvClient::new(channels[number as usize % channels.len()].clone());
        let stop = stop.clone();
        tasks.spawn(async move {
            let (mut times, mut errors, mut count) = (Histogram::new(3)?, 0, 0u64);
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                let key = format!("live/{number}/{}", count % 1_000);
                let put = PutRequest { key: key.into(), value: vec![b'v'; 256].into(), ..Default::default() };
                let begun = Instant::now();
                match client.put(put).await {
                    Ok(_) => times.record(begun.elapsed().as_nanos() as u64)?,
                    Err(_) => errors += 1,
                }
            }
            Ok((times, errors))
        });
    }
    let begun = Instant::now();
    while begun.elapsed() < limit && !is_over().await? {
        tokio::time::sleep(LOOK).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut all, mut errors) = (Histogram::new(3)?, 0);
    while let Some(ended) = tasks.join_next().await {
        let (times, failed) = ended??;
        all.add(times)?;
        errors += failed;
    }
    Ok((all, errors))
}
