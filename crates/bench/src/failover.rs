//! How long nobody can write when the leader is killed.

use crate::Failure;
use crate::cluster::Cluster;
use crate::costs::Costs;
use crate::point::Outcome;
use crate::process;
use quorate_api::pb::PutRequest;
use quorate_api::pb::kv_client::KvClient;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// An attempt that a node without a leader does not answer is given up after this long.
const ATTEMPT: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(30);

/// Kills the leader; the gap ends with the first write that a survivor acknowledges.
pub(crate) async fn run(cluster: &mut Cluster) -> Result<Outcome, Failure> {
    let leader = cluster.leader().await?;
    let channels = cluster.connect(cluster.endpoints().len()).await?;
    let killed = Instant::now();
    cluster.kill(leader);
    let mut tasks = JoinSet::new();
    for (_, channel) in channels.into_iter().enumerate().filter(|&(node, _)| node != leader) {
        tasks.spawn(async move {
            let mut client = KvClient::new(channel);
            let put = PutRequest { key: "bench-gap".into(), value: "x".into(), ..Default::default() };
            while !matches!(tokio::time::timeout(ATTEMPT, client.put(put.clone())).await, Ok(Ok(_))) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            killed.elapsed()
        });
    }
    let first = tokio::time::timeout(LIMIT, tasks.join_next()).await;
    let gap = first.map_err(|_| "no write within 30 s of the leader's end")?.ok_or("no survivors")??;
    let micros = gap.as_micros() as f64;
    let rss = process::rss(&cluster.pids());
    let costs = Costs::default();
    Ok(Outcome { ops_per_second: 0.0, p50: micros, p99: micros, cpu_per_op: 0.0, rss, errors: 0, costs })
}
