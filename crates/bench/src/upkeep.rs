//! What clients feel while a cluster keeps house: while forgotten history is removed, a replica is filled anew from a snapshot, and files are read for damage.
//!
//! Three nodes with many keys, and an open loop that leaves the machine room, so that a latency is not a queue of the generator's making. The p99 of each stage is held against
//! that of the cluster at rest. Of the node that is filled its own clients are measured by themselves, from the moment on at which it can be connected with.

use crate::Failure;
use crate::cluster::{Cluster, System};
use crate::keys::PREFIX;
use crate::many::{compact, settled};
use quorate_api::pb::RangeRequest;
use quorate_api::pb::kv_client::KvClient;
use quorate_load::{
    Endpoint as Node, Keys, Kind, Line, Load, Measured, Observer, Stop, Times, fill, measure,
};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tonic::transport::Endpoint;

const NODES: usize = 3;
const VALUE_BYTES: usize = 256;
/// 95 gets and 5 puts of a hundred, in all.
const RATE: f64 = 3_000.0;
const CLIENTS: usize = 48;
const LINES_PER_NODE: usize = 4;
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a stage is measured that does not end by itself.
const WINDOW: Duration = Duration::from_secs(5);
const STAGE_MAX: Duration = Duration::from_secs(600);
/// What is wanted: a p99 of no more than so many times that at rest.
const TIMES_MAX: f64 = 2.0;
/// A node that starts is looked at so often.
const LOOK: Duration = Duration::from_millis(5);
/// One that took so long to start, or to be filled, never will.
const LIMIT: Duration = Duration::from_secs(120);

/// A stage, and what its clients felt.
struct Stage {
    name: &'static str,
    measured: Measured,
}

/// Told when a load is prepared.
struct Prepared<'a>(&'a Notify);

impl Observer for Prepared<'_> {
    fn prepared(&mut self) {
        self.0.notify_one();
    }
}

/// Measures it once, and prints what came out; and whether all is as wanted.
pub(crate) async fn run(
    program: &Path,
    parent: &Path,
    partitions: u32,
    count: u64,
) -> Result<(Value, bool), Failure> {
    let mut cluster = Cluster::start(System::Quorate, program, parent, NODES, partitions).await?;
    let keys = Keys::new(PREFIX, count, 1);
    println!("{NODES} nodes, {partitions} partition(s), {count} keys; {RATE:.0} operations a second");
    fill(&cluster.lines().await?, &keys, VALUE_BYTES).await?;
    settled(&cluster).await;
    let mut stages = vec![stage("at rest", &all(&cluster).await?, &keys, 1.0, WARM_UP, nothing()).await?];

    fill(&cluster.lines().await?, &keys, VALUE_BYTES).await?;
    settled(&cluster).await;
    let removing = async {
        match compact(&cluster).await? {
            Some(problem) => Err(problem.into()),
            None => Ok(()),
        }
    };
    stages.push(stage("history is removed", &all(&cluster).await?, &keys, 1.0, WARM_UP, removing).await?);
    settled(&cluster).await;

    let filled = (cluster.leader().await? + 1) % NODES;
    cluster.kill(filled);
    cluster.forget(filled)?;
    cluster.restart(filled)?;
    reachable(&cluster, filled).await?;
    let others: Vec<usize> = (0..NODES).filter(|node| *node != filled).collect();
    let (others, own) = (lines_to(&cluster, &others).await?, lines_to(&cluster, &[filled]).await?);
    let is_whole = || whole(&cluster, filled);
    // How long that takes is the node's to say; both groups of clients are measured until then.
    let (others, own) = tokio::join!(
        stage("a replica is filled: others' clients", &others, &keys, 2.0 / 3.0, Duration::ZERO, is_whole()),
        stage("a replica is filled: its own", &own, &keys, 1.0 / 3.0, Duration::ZERO, is_whole()),
    );
    stages.extend([others?, own?]);
    settled(&cluster).await;

    // The first reading of all files begins with the process.
    for node in 0..NODES {
        cluster.terminate(node)?;
        cluster.ended(node).await?;
        cluster.restart(node)?;
        cluster.takes_writes(node).await?;
    }
    stages.push(
        stage("files are read for damage", &all(&cluster).await?, &keys, 1.0, WARM_UP, nothing()).await?,
    );
    Ok(report(&stages, partitions, count))
}

/// Measures the clients of these lines, at a part of the rate, until something is done.
async fn stage(
    name: &'static str,
    lines: &[Line],
    keys: &Keys,
    part: f64,
    warm_up: Duration,
    done: impl Future<Output = Result<(), Failure>>,
) -> Result<Stage, Failure> {
    let clients = (CLIENTS as f64 * part) as usize;
    let load = Load {
        rate: Some(RATE * part),
        are_keys_there: true,
        ..Load::new(Kind::Mixed, clients, keys.clone())
    };
    let times = Times { warm_up, duration: STAGE_MAX };
    let (stop, prepared) = (Stop::default(), Notify::new());
    let mut observer = Prepared(&prepared);
    let done = async {
        prepared.notified().await;
        tokio::time::sleep(warm_up).await;
        let done = done.await;
        stop.stop();
        done
    };
    let (measured, done) = tokio::join!(measure(lines, &load, times, &stop, &mut observer), done);
    done?;
    Ok(Stage { name, measured: measured? })
}

/// Nothing is done for a while.
async fn nothing() -> Result<(), Failure> {
    tokio::time::sleep(WINDOW).await;
    Ok(())
}

async fn all(cluster: &Cluster) -> Result<Vec<Line>, Failure> {
    lines_to(cluster, &(0..NODES).collect::<Vec<_>>()).await
}

async fn lines_to(cluster: &Cluster, nodes: &[usize]) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for node in nodes.iter().cycle().take(nodes.len() * LINES_PER_NODE) {
        lines.push(Line::connect(Node::new(&cluster.endpoints()[*node], None)?).await?);
    }
    Ok(lines)
}

/// Waits until a node that was started can be connected with, and answers.
async fn reachable(cluster: &Cluster, node: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    while crate::http::get(&cluster.endpoints()[node], "/version").await.is_err() {
        if begun.elapsed() > LIMIT {
            return Err("a node that was started cannot be connected with".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Waits until a node reads from a copy of its own, which it has not while that is being filled.
async fn whole(cluster: &Cluster, node: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    let url = &cluster.endpoints()[node];
    while crate::http::get(url, "/health").await?["health"] != "true" {
        if begun.elapsed() > LIMIT {
            return Err("a node that was emptied is not filled after two minutes".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    // And reads from it.
    let channel = Endpoint::from_shared(url.clone())?.connect().await?;
    let read = RangeRequest { key: "ready".into(), serializable: true, ..Default::default() };
    KvClient::new(channel).range(read).await?;
    Ok(())
}

/// Prints it; as an object, and whether all is as wanted.
fn report(stages: &[Stage], partitions: u32, count: u64) -> (Value, bool) {
    let millis = |stage: &Stage, quantile| stage.measured.micros(quantile) / 1e3;
    let at_rest = millis(&stages[0], 0.99);
    let mut is_met = true;
    let mut told = Vec::new();
    for stage in stages {
        let (p50, p99, longest) =
            (millis(stage, 0.5), millis(stage, 0.99), stage.measured.micros_max() / 1e3);
        let (times, measured) = (p99 / at_rest, &stage.measured);
        let failed = measured.errors;
        is_met &= times <= TIMES_MAX && failed == 0;
        println!(
            "  {:<37} {:>6.1} s  p50 {p50:>6.2} ms  p99 {p99:>7.2} ms ({times:>5.1}x)  longest {longest:>6.0} ms  {failed} of {} failed",
            stage.name,
            measured.span.as_secs_f64(),
            measured.operations + failed,
        );
        told.push(json!({
            "stage": stage.name, "seconds": measured.span.as_secs_f64(), "operations": measured.operations, "failed": failed,
            "problem": measured.problem, "p50_ms": p50, "p99_ms": p99, "longest_ms": longest, "times_at_rest": times,
        }));
    }
    println!(
        "  wanted: no more than {TIMES_MAX:.0}x, and nothing fails: {}",
        if is_met { "met" } else { "not met" }
    );
    (json!({"partitions": partitions, "keys": count, "rate": RATE, "is_met": is_met, "stages": told}), is_met)
}
