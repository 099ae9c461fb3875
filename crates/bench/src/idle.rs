//! What a cluster costs that nothing is asked of, with every node up and after the leader's end.

use crate::Failure;
use crate::cluster::Cluster;
use crate::costs::Meter;
use crate::keys;
use crate::point::{Metric, Outcome};
use crate::process;
use quorate_api::pb::PutRequest;
use quorate_api::pb::kv_client::KvClient;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// How many keys are being put at once.
const WRITERS: usize = 64;
/// An attempt that a node without a leader does not answer is given up after this long.
const ATTEMPT: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(60);
/// From the last write to the measurement: groups sleep after a second, and what is flushed and cut is done by then.
const REST: Duration = Duration::from_secs(10);

/// Puts a key in every partition and measures the rest that follows.
pub(crate) async fn run(cluster: &Cluster, partitions: u32, duration: Duration) -> Result<Outcome, Failure> {
    let channels = cluster.connect(cluster.endpoints().len()).await?;
    let times = put_everywhere(&channels, partitions, Instant::now()).await?;
    rest(cluster, &times, duration).await
}

/// Kills the leader, puts a key in every partition as soon as its next leader lets it, and measures the rest that follows.
pub(crate) async fn survivors(
    cluster: &mut Cluster,
    partitions: u32,
    duration: Duration,
) -> Result<Outcome, Failure> {
    let leader = cluster.leader().await?;
    // So that what is lost was used before.
    put_everywhere(&cluster.connect(cluster.endpoints().len()).await?, partitions, Instant::now()).await?;
    let mut channels = cluster.connect(cluster.endpoints().len()).await?;
    channels.remove(leader);
    let killed = Instant::now();
    cluster.kill(leader);
    let times = put_everywhere(&channels, partitions, killed).await?;
    rest(cluster, &times, duration).await
}

/// Measures after a while; the outcome has the times of the first and of the last write, too.
async fn rest(cluster: &Cluster, writes: &[Duration], duration: Duration) -> Result<Outcome, Failure> {
    let leader = cluster.leader().await?;
    tokio::time::sleep(REST).await;
    let pids = cluster.pids();
    let meter = Meter::start(cluster, leader);
    let cpu_before = process::cpu_micros(&pids);
    tokio::time::sleep(duration).await;
    let seconds = duration.as_secs_f64();
    let millis = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let metrics = [
        (Metric::FirstWrite, millis(writes.iter().min())),
        (Metric::LastWrite, millis(writes.iter().max())),
        (Metric::CpuPerSecond, (process::cpu_micros(&pids) - cpu_before) / seconds),
        (Metric::Rss, process::rss(&pids) as f64),
    ];
    Ok(Outcome { metrics: metrics.into(), costs: meter.stop(seconds)?, ..Outcome::default() })
}

/// Puts one key in each partition, through each of these connections in turn, until it is there: when that was.
async fn put_everywhere(
    channels: &[Channel],
    partitions: u32,
    begun: Instant,
) -> Result<Vec<Duration>, Failure> {
    let keys = Arc::new(keys::one_each(partitions)?);
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let (keys, channel) = (keys.clone(), channels[writer % channels.len()].clone());
        tasks.spawn(async move {
            let mut client = KvClient::new(channel);
            let mut times = Vec::new();
            for key in keys.iter().skip(writer).step_by(WRITERS) {
                let put = PutRequest { key: key.clone().into(), value: "x".into(), ..Default::default() };
                while !matches!(tokio::time::timeout(ATTEMPT, client.put(put.clone())).await, Ok(Ok(_))) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                times.push(begun.elapsed());
            }
            times
        });
    }
    let all = tokio::time::timeout(LIMIT, tasks.join_all()).await;
    Ok(all.map_err(|_| "no write in some partition within 60 s")?.concat())
}
