//! Puts and gets by clients in closed loops.

use crate::Failure;
use crate::cluster::Cluster;
use crate::point::{Kind, Outcome};
use crate::process;
use hdrhistogram::Histogram;
use quorate_api::pb::kv_client::KvClient;
use quorate_api::pb::{PutRequest, RangeRequest};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

const KEYS: u64 = 10_000;
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

/// Measures puts or gets.
pub(crate) async fn run(
    cluster: &Cluster,
    kind: Kind,
    clients: usize,
    directories: u64,
    duration: Duration,
) -> Result<Outcome, Failure> {
    let channels = cluster.connect(cluster.endpoints().len() * CONNECTIONS_PER_NODE).await?;
    if kind == Kind::Get {
        fill(&channels, directories).await?;
    }
    let pids = cluster.pids();
    let from = Instant::now() + WARM_UP;
    let until = from + duration;
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let channel = channels[client % channels.len()].clone();
        tasks.spawn(closed_loop(kind, client as u64, directories, channel, from, until));
    }
    tokio::time::sleep_until(from.into()).await;
    let cpu_before = process::cpu_micros(&pids);
    tokio::time::sleep_until(until.into()).await;
    let cpu = process::cpu_micros(&pids) - cpu_before;
    let rss = process::rss(&pids);
    let mut histogram = new_histogram()?;
    let mut errors = 0;
    while let Some(times) = tasks.join_next().await {
        let times = times??;
        histogram.add(times.histogram)?;
        errors += times.errors;
    }
    Ok(outcome(&histogram, duration, cpu, rss, errors))
}

/// With one directory as it was before there were partitions, so that figures can be compared.
fn key_of(number: u64, directories: u64) -> Vec<u8> {
    match directories {
        1 => format!("bench/{number:010}").into_bytes(),
        _ => format!("bench/{:05}/{number:010}", number % directories).into_bytes(),
    }
}

/// Puts every key that a get may ask for, unless they are there.
async fn fill(channels: &[Channel], directories: u64) -> Result<(), Failure> {
    let mut client = KvClient::new(channels[0].clone());
    let all = RangeRequest { count_only: true, range_end: "bench0".into(), ..Default::default() };
    let all = RangeRequest { key: "bench/".into(), ..all };
    if client.range(all).await?.into_inner().count >= KEYS as i64 {
        return Ok(());
    }
    let mut tasks: JoinSet<Result<(), tonic::Status>> = JoinSet::new();
    for filler in 0..FILLERS {
        let mut client = KvClient::new(channels[filler as usize % channels.len()].clone());
        tasks.spawn(async move {
            for number in (filler..KEYS).step_by(FILLERS as usize) {
                let value = vec![b'v'; VALUE_BYTES];
                let put = PutRequest {
                    key: key_of(number, directories).into(),
                    value: value.into(),
                    ..Default::default()
                };
                client.put(put).await?;
            }
            Ok(())
        });
    }
    while let Some(filled) = tasks.join_next().await {
        filled??;
    }
    Ok(())
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
    }
}

async fn closed_loop(
    kind: Kind,
    seed: u64,
    directories: u64,
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
        let key = key_of(random % KEYS, directories);
        let begun = Instant::now();
        if begun >= until {
            return Ok(times);
        }
        let answered = if kind == Kind::Put {
            let value = vec![b'v'; VALUE_BYTES];
            let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
            client.put(put).await.is_ok()
        } else {
            client.range(RangeRequest { key: key.into(), ..Default::default() }).await.is_ok()
        };
        let ended = Instant::now();
        if !answered {
            times.errors += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else if begun >= from && ended <= until {
            times.histogram.record((ended - begun).as_nanos() as u64)?;
        }
    }
}
