//! How long nobody can write when the leader is killed, or paused.
//!
//! From the signal on, a put begins every few milliseconds at each surviving node, over connections that were there before, and none is given up: the gap ends with the first
//! that is acknowledged. So it is what the cluster needs, not how long a client waits before it asks again.

use crate::Failure;
use crate::cluster::Cluster;
use crate::disturbance::Watch;
use crate::point::{Kind, Metric, Outcome};
use crate::report::middle;
use quorate_api::pb::PutRequest;
use quorate_api::pb::kv_client::KvClient;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(5);
/// So many attempts of a node are under way at once; then no more begin.
const ATTEMPTS_MAX: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(30);

/// Kills or pauses the leader so many times, and puts the cluster together again after each: medians.
pub(crate) async fn run(cluster: &mut Cluster, kind: Kind, times: u32) -> Result<Outcome, Failure> {
    let (mut first, mut last, mut others) = (Vec::new(), Vec::new(), 0.0f64);
    for _ in 0..times {
        let leader = cluster.leader().await?;
        let mut channels = cluster.connect(cluster.endpoints().len()).await?;
        let paused = channels.remove(leader);
        let mut survivors = cluster.pids();
        survivors.remove(leader);
        let watch = Watch::start(&survivors);
        let begun = Instant::now();
        match kind {
            Kind::Paused => cluster.pause(leader)?,
            _ => cluster.kill(leader),
        }
        let gaps = gaps(channels, begun).await?;
        others = others.max(watch.stop(&survivors));
        drop(paused);
        match kind {
            Kind::Paused => cluster.resume(leader)?,
            _ => cluster.restart(leader)?,
        }
        for node in 0..cluster.endpoints().len() {
            cluster.takes_writes(node).await?;
        }
        first.extend(gaps.iter().min().map(|gap| gap.as_secs_f64() * 1e3));
        last.extend(gaps.iter().max().map(|gap| gap.as_secs_f64() * 1e3));
    }
    let metrics = [(Metric::FirstWrite, middle(first)), (Metric::LastWrite, middle(last))];
    Ok(Outcome { metrics: metrics.into(), others, ..Outcome::default() })
}

/// When each of these took its first write.
async fn gaps(channels: Vec<Channel>, begun: Instant) -> Result<Vec<Duration>, Failure> {
    let mut nodes = JoinSet::new();
    for channel in channels {
        nodes.spawn(async move {
            first_write(channel).await;
            begun.elapsed()
        });
    }
    let all = tokio::time::timeout(LIMIT, nodes.join_all()).await;
    all.map_err(|_| "a surviving node took no write within 30 s of the leader's end".into())
}

async fn first_write(channel: Channel) {
    let put = PutRequest { key: "bench-gap".into(), value: "x".into(), ..Default::default() };
    let mut attempts = JoinSet::new();
    let mut again = tokio::time::interval(AGAIN);
    loop {
        tokio::select! {
            _ = again.tick(), if attempts.len() < ATTEMPTS_MAX => {
                let (mut client, put) = (KvClient::new(channel.clone()), put.clone());
                attempts.spawn(async move { client.put(put).await.is_ok() });
            }
            Some(ended) = attempts.join_next() => {
                // Those that the old leader was asked for fail, all at once.
                if matches!(ended, Ok(true)) {
                    return;
                }
            }
        }
    }
}
