//! One writer, many watchers: how long an event takes from the writer's hand to each watcher.

use crate::Failure;
use crate::cluster::Cluster;
use crate::load::{WARM_UP, new_histogram, outcome};
use crate::point::Outcome;
use crate::process;
use quorate_api::pb::kv_client::KvClient;
use quorate_api::pb::watch_client::WatchClient;
use quorate_api::pb::watch_request::RequestUnion;
use quorate_api::pb::{PutRequest, WatchCreateRequest, WatchRequest};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const CONNECTIONS_PER_NODE: usize = 4;
const KEY: &str = "bench-watched";

/// Measures the fan-out to so many watchers. A value says when it was sent, in nanoseconds since `origin`.
pub(crate) async fn run(cluster: &Cluster, watchers: usize, duration: Duration) -> Result<Outcome, Failure> {
    let channels = cluster.connect(cluster.endpoints().len() * CONNECTIONS_PER_NODE).await?;
    let pids = cluster.pids();
    let origin = Instant::now();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let (ready, mut readies) = mpsc::unbounded_channel();
    for watcher in 0..watchers {
        let channel = channels[watcher % channels.len()].clone();
        tasks.spawn(watch(channel, origin, ready.clone(), arrived.clone()));
    }
    drop((ready, arrived));
    for _ in 0..watchers {
        let created = tokio::time::timeout(Duration::from_secs(10), readies.recv()).await?;
        created.ok_or("a watch ended before it was created")?;
    }
    let writer = channels[0].clone();
    tasks.spawn(async move {
        let mut client = KvClient::new(writer);
        loop {
            let value = (origin.elapsed().as_nanos() as u64).to_be_bytes().to_vec();
            client.put(PutRequest { key: KEY.into(), value: value.into(), ..Default::default() }).await?;
        }
    });
    let from = Instant::now() + WARM_UP;
    let until = from + duration;
    let mut histogram = new_histogram()?;
    let mut cpu_before = None;
    let end = tokio::time::sleep_until(until.into());
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            arrival = arrivals.recv() => {
                let nanos: u64 = arrival.ok_or("every watch ended")?;
                if Instant::now() >= from {
                    cpu_before.get_or_insert_with(|| process::cpu_micros(&pids));
                    histogram.record(nanos)?;
                }
            }
        }
    }
    let cpu_now = process::cpu_micros(&pids);
    let rss = process::rss(&pids);
    tasks.shutdown().await;
    Ok(outcome(&histogram, duration, cpu_now - cpu_before.unwrap_or(cpu_now), rss, 0))
}

/// Tells of the watch's creation, then of every event: how long it was on its way.
async fn watch(
    channel: Channel,
    origin: Instant,
    ready: mpsc::UnboundedSender<()>,
    arrived: mpsc::UnboundedSender<u64>,
) -> Result<(), Failure> {
    let create = WatchCreateRequest { key: KEY.into(), ..Default::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The sender stays alive: a stream of requests that ends is a watch that ends.
    let (requests, stream) = mpsc::channel(1);
    requests.send(request).await?;
    let mut answers = WatchClient::new(channel).watch(ReceiverStream::new(stream)).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if answer.created {
            ready.send(())?;
        }
        let now = origin.elapsed().as_nanos() as u64;
        for pair in answer.events.iter().filter_map(|event| event.kv.as_ref()) {
            if let Ok(sent) = <[u8; 8]>::try_from(pair.value.as_ref()) {
                arrived.send(now.saturating_sub(u64::from_be_bytes(sent)))?;
            }
        }
    }
    Ok(())
}
