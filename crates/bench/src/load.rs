//! Puts, gets and transactions by clients in closed loops.

use crate::Failure;
use crate::cluster::Cluster;
use crate::costs::{Costs, Meter};
use crate::keys::{KEYS, Keys};
use crate::point::{Kind, Outcome};
use crate::process;
use hdrhistogram::Histogram;
use quorate_api::pb::kv_client::KvClient;
use quorate_api::pb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Clients that put the keys that gets ask for.
const FILLERS: u64 = 64;
const VALUE_BYTES: usize = 256;
const CONNECTIONS_PER_NODE: usize = 4;
/// What runs before a measurement, so that connections and caches are warm.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);

/// Times of the operations that began and ended while measuring, in nanoseconds.
struct Times {
    histogram: Histogram<u64>,
    errors: u64,
}

/// Measures puts, gets or transactions.
pub(crate) async fn run(
    cluster: &Cluster,
    kind: Kind,
    clients: usize,
    keys: &Keys,
    duration: Duration,
) -> Result<Outcome, Failure> {
    let channels = cluster.connect_leader_first(cluster.endpoints().len() * CONNECTIONS_PER_NODE).await?;
    if kind == Kind::Get {
        fill(&channels, keys).await?;
    }
    let pids = cluster.pids();
    let leader = cluster.leader().await?;
    let from = Instant::now() + WARM_UP;
    let until = from + duration;
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let channel = channels[client % channels.len()].clone();
        tasks.spawn(closed_loop(kind, client as u64, keys.clone(), channel, from, until));
    }
    tokio::time::sleep_until(from.into()).await;
    let meter = Meter::start(cluster, leader);
    let cpu_before = process::cpu_micros(&pids);
    tokio::time::sleep_until(until.into()).await;
    let cpu = process::cpu_micros(&pids) - cpu_before;
    // In all; how many operations they were is not known yet.
    let costs = meter.stop(1.0)?;
    let rss = process::rss(&pids);
    let mut histogram = new_histogram()?;
    let mut errors = 0;
    while let Some(times) = tasks.join_next().await {
        let times = times??;
        histogram.add(times.histogram)?;
        errors += times.errors;
    }
    Ok(outcome(&histogram, duration, cpu, &costs, rss, errors))
}

/// Puts every key that a get may ask for, unless they are there.
async fn fill(channels: &[Channel], keys: &Keys) -> Result<(), Failure> {
    let mut client = KvClient::new(channels[0].clone());
    let all = RangeRequest { count_only: true, range_end: "bench0".into(), ..Default::default() };
    let all = RangeRequest { key: "bench/".into(), ..all };
    if client.range(all).await?.into_inner().count >= KEYS as i64 {
        return Ok(());
    }
    let mut tasks: JoinSet<Result<(), tonic::Status>> = JoinSet::new();
    for filler in 0..FILLERS {
        let mut client = KvClient::new(channels[filler as usize % channels.len()].clone());
        let keys = keys.clone();
        tasks.spawn(async move {
            for number in (filler..KEYS).step_by(FILLERS as usize) {
                client.put(put_of(keys.one(number))).await?;
            }
            Ok(())
        });
    }
    while let Some(filled) = tasks.join_next().await {
        filled??;
    }
    Ok(())
}

fn put_of(key: Vec<u8>) -> PutRequest {
    let value = vec![b'v'; VALUE_BYTES];
    PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

/// Compares both keys and puts them. What is compared always holds, so that clients that want the same keys do not get in each other's way by it.
fn txn_of(keys: [Vec<u8>; 2]) -> TxnRequest {
    let compare = |key: &Vec<u8>| Compare {
        result: compare::CompareResult::Greater as i32,
        target: compare::CompareTarget::Version as i32,
        key: key.clone().into(),
        target_union: Some(compare::TargetUnion::Version(-1)),
        ..Default::default()
    };
    let compares = keys.iter().map(compare).collect();
    let put = |key| RequestOp { request: Some(request_op::Request::RequestPut(put_of(key))) };
    TxnRequest { compare: compares, success: keys.into_iter().map(put).collect(), failure: Vec::new() }
}

/// Nanoseconds to three digits.
pub(crate) fn new_histogram() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new(3)?)
}

/// What a histogram of nanoseconds comes to.
pub(crate) fn outcome(
    histogram: &Histogram<u64>,
    duration: Duration,
    cpu: f64,
    costs: &Costs,
    rss: u64,
    errors: u64,
) -> Outcome {
    let operations = histogram.len() as f64;
    Outcome {
        ops_per_second: operations / duration.as_secs_f64(),
        p50: histogram.value_at_quantile(0.5) as f64 / 1e3,
        p99: histogram.value_at_quantile(0.99) as f64 / 1e3,
        cpu_per_op: cpu / operations.max(1.0),
        rss,
        errors,
        costs: Costs::combined(std::slice::from_ref(costs), |micros| micros[0] / operations.max(1.0)),
    }
}

async fn closed_loop(
    kind: Kind,
    seed: u64,
    keys: Keys,
    channel: Channel,
    from: Instant,
    until: Instant,
) -> Result<Times, Failure> {
    let mut client = KvClient::new(channel);
    let mut times = Times { histogram: new_histogram()?, errors: 0 };
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    loop {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let number = random % KEYS;
        let begun = Instant::now();
        if begun >= until {
            return Ok(times);
        }
        let is_answered = match kind {
            Kind::Put => client.put(put_of(keys.one(number))).await.is_ok(),
            Kind::Txn | Kind::Txn2 => {
                let answer = client.txn(txn_of(keys.two(number))).await;
                answer.is_ok_and(|answer| answer.get_ref().succeeded)
            }
            _ => {
                let range = RangeRequest { key: keys.one(number).into(), ..Default::default() };
                client.range(range).await.is_ok()
            }
        };
        let ended = Instant::now();
        if !is_answered {
            times.errors += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else if begun >= from && ended <= until {
            times.histogram.record((ended - begun).as_nanos() as u64)?;
        }
    }
}
