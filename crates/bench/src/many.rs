//! A million keys: what they take in memory and on disk, how long a node with them needs to start again, and what it takes to forget what was
//! overwritten.

use crate::Failure;
use crate::cluster::{Cluster, System};
use crate::disturbance::Watch;
use crate::keys::PREFIX;
use crate::point::{Metric, Outcome};
use crate::process;
use quorate_api::pb::kv_client::KvClient;
use quorate_api::pb::maintenance_client::MaintenanceClient;
use quorate_api::pb::{CompactionRequest, DefragmentRequest, RangeRequest};
use quorate_load::{Keys, Kind, Line, Load, Measured, Stop, Times, fill};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

const VALUE_BYTES: usize = 256;
/// What the disk holds is looked at when it has stayed the same for so long, or after the limit.
const SETTLED: Duration = Duration::from_secs(2);
const SETTLED_MAX: Duration = Duration::from_secs(30);
/// A change of the disk by less than such a part is none.
const SAME: f64 = 0.01;
const LOOK: Duration = Duration::from_millis(200);
const RESTART_MAX: Duration = Duration::from_secs(120);
/// Between two attempts to reach a node that starts.
const AGAIN: Duration = Duration::from_millis(2);
/// Those who feel the compaction: open loops over all nodes.
const WRITERS: usize = 48;
const WRITES: f64 = 200.0;
const BEFORE: Duration = Duration::from_secs(5);
const COMPACTION_MAX: Duration = Duration::from_secs(600);

/// Fills an empty cluster with so many keys and measures it.
pub(crate) async fn keys(cluster: &mut Cluster, count: u64) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let watch = Watch::start(&cluster.pids());
    fill(&cluster.lines().await?, &Keys::new(PREFIX, count, 1), VALUE_BYTES).await?;
    let filled = begun.elapsed();
    let others = watch.stop(&cluster.pids());
    settled(cluster).await;
    let mut outcome = Outcome { others, ..Outcome::default() };
    outcome.metrics.extend([
        (Metric::FillSeconds, filled.as_secs_f64()),
        (Metric::Rss, process::rss(&cluster.pids()) as f64),
        (Metric::Disk, cluster.disk() as f64),
    ]);
    for (metric, is_killed) in [(Metric::Restart, false), (Metric::RestartKilled, true)] {
        let (took, others) = restart(cluster, is_killed).await?;
        outcome.metrics.insert(metric, took.as_secs_f64() * 1e3);
        outcome.others = outcome.others.max(others);
    }
    Ok(outcome)
}

/// Ends a node that does not lead and starts it: how long until it answers a linearizable read, and what others had of the machine.
async fn restart(cluster: &mut Cluster, is_killed: bool) -> Result<(Duration, f64), Failure> {
    let node = (cluster.leader().await? + 1) % cluster.endpoints().len();
    if is_killed {
        cluster.kill(node);
    } else {
        cluster.terminate(node)?;
        cluster.ended(node).await?;
    }
    let watch = Watch::start(&cluster.pids());
    let begun = Instant::now();
    cluster.restart(node)?;
    let endpoint = cluster.endpoints()[node].clone();
    let serves = async {
        loop {
            if let Ok(channel) = Endpoint::from_shared(endpoint.clone())?.connect().await {
                let read = RangeRequest { key: "ready".into(), ..Default::default() };
                if KvClient::new(channel).range(read).await.is_ok() {
                    return Ok::<_, Failure>(begun.elapsed());
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let took = tokio::time::timeout(RESTART_MAX, serves).await;
    let took = took.map_err(|_| "a node that was started again served nothing for two minutes")??;
    Ok((took, watch.stop(&cluster.pids())))
}

/// Overwrites every key, has the old revisions compacted, and measures what that takes and gives.
pub(crate) async fn compaction(cluster: &mut Cluster, count: u64) -> Result<Outcome, Failure> {
    let lines = cluster.lines().await?;
    let begun = Instant::now();
    fill(&lines, &Keys::new(PREFIX, count, 1), VALUE_BYTES).await?;
    let overwritten = begun.elapsed();
    settled(cluster).await;
    let before = write_during(&lines, async {
        tokio::time::sleep(BEFORE).await;
        Ok(())
    });
    let (before, ()) = before.await?;
    let disk_before = cluster.disk() as f64;
    let watch = Watch::start(&cluster.pids());
    let compacting = async {
        let begun = Instant::now();
        let problem = compact(cluster).await?;
        let told = begun.elapsed();
        // Writers go on: what is done behind their backs is felt, too.
        let at_rest = settled(cluster).await;
        // Who was not told how long it took sees it end on the disk.
        let took = if problem.is_none() { told } else { at_rest.duration_since(begun) };
        Ok((took, problem))
    };
    let (during, (took, problem)) = write_during(&lines, compacting).await?;
    let longest = |measured: &Measured| measured.micros_max() / 1e3;
    let metrics = [
        (Metric::OverwriteSeconds, overwritten.as_secs_f64()),
        (Metric::CompactSeconds, took.as_secs_f64()),
        (Metric::StallBefore, longest(&before)),
        (Metric::Stall, longest(&during)),
        (Metric::DiskBefore, disk_before),
        (Metric::Disk, cluster.disk() as f64),
        (Metric::SpaceBack, disk_before - cluster.disk() as f64),
        (Metric::Rss, process::rss(&cluster.pids()) as f64),
    ];
    let errors = during.errors + during.unanswered + u64::from(problem.is_some());
    let problem = problem.or(during.problem);
    let others = watch.stop(&cluster.pids());
    Ok(Outcome { metrics: metrics.into(), errors, problem, others, ..Outcome::default() })
}

/// Compacts everything up to now, and with etcd defragments one node after the other, as `etcdctl defrag --cluster` does. What the compaction's answer was if
/// it was not that it is done.
pub(crate) async fn compact(cluster: &Cluster) -> Result<Option<String>, Failure> {
    let channels: Vec<Channel> = cluster.connect(cluster.endpoints().len()).await?;
    let mut client = KvClient::new(channels[0].clone());
    let now = client.range(RangeRequest { key: "ready".into(), ..Default::default() }).await?.into_inner();
    let revision = now.header.ok_or("a read's answer has no header")?.revision;
    let compacted = client.compact(CompactionRequest { revision, physical: true }).await;
    let problem = compacted.err().map(|status| format!("the compaction: {status}"));
    if cluster.system() != System::Quorate {
        for channel in channels {
            let done = MaintenanceClient::new(channel).defragment(DefragmentRequest {}).await;
            done.map_err(|status| format!("the defragmentation: {status}"))?;
        }
    }
    Ok(problem)
}

/// Writes at a rate while something is done; what the writers felt, and what was done.
async fn write_during<T>(
    lines: &[Line],
    done: impl Future<Output = Result<T, Failure>>,
) -> Result<(Measured, T), Failure> {
    let load = Load { rate: Some(WRITES), ..Load::new(Kind::Put, WRITERS, Keys::new("stall/", 1_000, 1)) };
    let times = Times { warm_up: Duration::ZERO, duration: COMPACTION_MAX };
    let stop = Stop::default();
    let mut nobody = ();
    let done = async {
        let done = done.await;
        stop.stop();
        done
    };
    let (measured, done) = tokio::join!(quorate_load::measure(lines, &load, times, &stop, &mut nobody), done);
    Ok((measured?, done?))
}

/// Waits until the disk is at rest; since when it is.
pub(crate) async fn settled(cluster: &Cluster) -> Instant {
    let begun = Instant::now();
    let (mut since, mut last) = (Instant::now(), 0.0);
    while begun.elapsed() < SETTLED_MAX && since.elapsed() < SETTLED {
        let now = cluster.disk() as f64;
        if (now - last).abs() > SAME * last {
            (since, last) = (Instant::now(), now);
        }
        tokio::time::sleep(LOOK).await;
    }
    since
}
