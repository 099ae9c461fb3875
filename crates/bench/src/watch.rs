//! One writer, many watchers: how long an event takes from the writer's hand to each watcher.

use crate::Failure;
use crate::cluster::Cluster;
use crate::costs::Meter;
use crate::load::{WARM_UP, new_histogram, outcome};
use crate::point::Outcome;
use crate::process;
use quorate_api::pb::kv_client::KvClient;
use quorate_api::pb::watch_client::WatchClient;
use quorate_api::pb::watch_request::RequestUnion;
use quorate_api::pb::{PutRequest, WatchCreateRequest, WatchRequest};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const CONNECTIONS_PER_NODE: usize = 4;
const KEY: &str = "bench-watched";
/// Measurements so far.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Measures the fan-out to so many watchers. A value says when it was sent, in nanoseconds since `origin`, and how many were sent before it in this
/// measurement.
///
/// With one directory there is one key, and that is watched. With several the writer takes one after the other, and everybody watches everything: each
/// watcher has to be told of every write, once and in order, or the run fails.
pub(crate) async fn run(
    cluster: &Cluster,
    watchers: usize,
    directories: u64,
    duration: Duration,
) -> Result<Outcome, Failure> {
    let channels = cluster.connect_leader_first(cluster.endpoints().len() * CONNECTIONS_PER_NODE).await?;
    let pids = cluster.pids();
    let leader = cluster.leader().await?;
    let origin = Instant::now();
    // A write of an earlier measurement may still be under way.
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let (ready, mut readies) = mpsc::unbounded_channel();
    for watcher in 0..watchers {
        let channel = channels[watcher % channels.len()].clone();
        let origin = (origin, run);
        tasks.spawn(watch(channel, watcher, directories, origin, ready.clone(), arrived.clone()));
    }
    drop((ready, arrived));
    for _ in 0..watchers {
        let created = tokio::time::timeout(Duration::from_secs(10), readies.recv()).await?;
        created.ok_or("a watch ended before it was created")?;
    }
    let writer = channels[0].clone();
    tasks.spawn(async move {
        let mut client = KvClient::new(writer);
        for number in 0u64.. {
            let now = origin.elapsed().as_nanos() as u64;
            let value = [run.to_be_bytes(), now.to_be_bytes(), number.to_be_bytes()].concat();
            let key = match directories {
                1 => KEY.to_owned(),
                _ => format!("{KEY}/{:05}/k", number % directories),
            };
            client.put(PutRequest { key: key.into(), value: value.into(), ..Default::default() }).await?;
        }
        Ok(())
    });
    let from = Instant::now() + WARM_UP;
    let until = from + duration;
    let mut histogram = new_histogram()?;
    let mut before = None;
    let mut told = vec![0u64; watchers];
    let end = tokio::time::sleep_until(until.into());
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            Some(ended) = tasks.join_next() => {
                ended??;
                return Err("the writer or a watch ended by itself".into());
            }
            arrival = arrivals.recv() => {
                let (watcher, nanos): (usize, u64) = arrival.ok_or("every watch ended")?;
                told[watcher] += 1;
                if Instant::now() >= from {
                    before.get_or_insert_with(|| (process::cpu_micros(&pids), Meter::start(cluster, leader)));
                    histogram.record(nanos)?;
                }
            }
        }
    }
    if let Some(deaf) = told.iter().position(|told| *told == 0) {
        return Err(format!("watcher {deaf} was told of nothing").into());
    }
    let (cpu_before, meter) = before.ok_or("nobody was told of anything in the time that is measured")?;
    let cpu = process::cpu_micros(&pids) - cpu_before;
    let costs = meter.stop(1.0)?;
    let rss = process::rss(&pids);
    tasks.shutdown().await;
    Ok(outcome(&histogram, duration, cpu, &costs, rss, 0))
}

/// Tells of the watch's creation, then of every event: how long it was on its way.
async fn watch(
    channel: Channel,
    watcher: usize,
    directories: u64,
    (origin, run): (Instant, u64),
    ready: mpsc::UnboundedSender<()>,
    arrived: mpsc::UnboundedSender<(usize, u64)>,
) -> Result<(), Failure> {
    let everything =
        WatchCreateRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let create = match directories {
        1 => WatchCreateRequest { key: KEY.into(), ..Default::default() },
        _ => everything,
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The sender stays alive: a stream of requests that ends is a watch that ends.
    let (requests, stream) = mpsc::channel(1);
    requests.send(request).await?;
    let mut answers = WatchClient::new(channel).watch(ReceiverStream::new(stream)).await?.into_inner();
    let mut expected = 0;
    while let Some(answer) = answers.message().await? {
        if answer.created {
            ready.send(())?;
        }
        let now = origin.elapsed().as_nanos() as u64;
        for pair in answer.events.iter().filter_map(|event| event.kv.as_ref()) {
            let words = pair.value.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word));
            let &[of_run, sent, number] = words.collect::<Vec<u64>>().as_slice() else { continue };
            if of_run != run {
                continue;
            }
            if number != expected {
                return Err(format!("a watch was told of write {number}, not of {expected}").into());
            }
            expected += 1;
            arrived.send((watcher, now.saturating_sub(sent)))?;
        }
    }
    Ok(())
}
