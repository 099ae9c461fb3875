//! The demo's writers, and what must be there of what they wrote.

use super::START_MAX;
use crate::cli::{Target, prefix_end};
use quorate_api::pb;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How many write at a time.
pub(super) const WRITERS: usize = 8;
/// Directories for each partition: some get more than others, as they are dealt out by a hash.
const DIRECTORIES_EACH: usize = 8;

/// What the writers have done so far.
pub(super) struct Progress {
    begun: Instant,
    pub(super) acknowledged: Mutex<BTreeMap<String, String>>,
    pub(super) count: AtomicU64,
    /// When the last write was acknowledged, and the longest gap since it was last asked for; in microseconds since the start.
    last: AtomicU64,
    gap: AtomicU64,
    pub(super) stop: AtomicBool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            acknowledged: Mutex::default(),
            count: AtomicU64::new(0),
            last: AtomicU64::new(0),
            gap: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    fn acknowledged_now(&self) {
        let now = self.begun.elapsed().as_micros() as u64;
        let last = self.last.swap(now, Ordering::Relaxed);
        self.gap.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on other gaps count.
    pub(super) fn forget_gaps(&self) {
        self.gap.store(0, Ordering::Relaxed);
    }

    /// The longest time without a write acknowledged, one that still lasts with them.
    pub(super) fn longest_gap(&self) -> Duration {
        let now = self.begun.elapsed().as_micros() as u64;
        let lasting = now.saturating_sub(self.last.load(Ordering::Relaxed));
        Duration::from_micros(lasting.max(self.gap.load(Ordering::Relaxed)))
    }
}

/// Where a line goes. A directory is in one partition, so several partitions need several.
fn key_of(number: usize, partitions: u32) -> String {
    match partitions {
        1 => format!("demo/{number:08}"),
        _ => format!("demo/{:04}/{number:08}", number % (partitions as usize * DIRECTORIES_EACH)),
    }
}

/// Writes lines until told to stop; what fails is written again, through the next node.
pub(super) async fn write(
    writer: usize,
    target: Target,
    partitions: u32,
    lines: Arc<Vec<String>>,
    progress: Arc<Progress>,
) {
    let mut at = writer;
    let mut number = writer;
    let mut channel = None;
    while !progress.stop.load(Ordering::Relaxed) {
        let key = key_of(number, partitions);
        let value = lines[number % lines.len()].clone();
        let Some(connected) = channel.clone() else {
            channel = target.connect_to(&target.endpoints[at % target.endpoints.len()]).await.ok();
            if channel.is_none() {
                at += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            continue;
        };
        let mut client = pb::kv_client::KvClient::new(connected);
        let put =
            pb::PutRequest { key: key.clone().into(), value: value.clone().into(), ..Default::default() };
        match client.put(put).await {
            Ok(_) => {
                progress.acknowledged_now();
                progress.acknowledged.lock().await.insert(key, value);
                number += WRITERS;
            }
            // Whether it was carried out or not: writing the same again is right in both cases.
            Err(_) => {
                channel = None;
                at += 1;
            }
        }
    }
}

/// Compares what every node has with what was acknowledged.
pub(super) async fn check(target: &Target, acknowledged: &BTreeMap<String, String>) -> Result<(), String> {
    for endpoint in &target.endpoints {
        let problem = |what: &str, error: &dyn std::fmt::Display| format!("{what} at {endpoint}: {error}");
        let channel = target.connect_to(endpoint).await.map_err(|error| error.to_string())?;
        let mut client = pb::kv_client::KvClient::new(channel).max_decoding_message_size(1 << 30);
        let mut found = BTreeMap::new();
        let mut next = b"demo/".to_vec();
        loop {
            let request = pb::RangeRequest {
                key: next.clone().into(),
                range_end: prefix_end(b"demo/").into(),
                limit: 5_000,
                ..Default::default()
            };
            let page = client
                .range(request)
                .await
                .map_err(|error| problem("reading", &error.message()))?
                .into_inner();
            if let Some(last) = page.kvs.last() {
                next = [&last.key[..], &[0]].concat();
            }
            for pair in page.kvs {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                found.insert(text(&pair.key), text(&pair.value));
            }
            if !page.more {
                break;
            }
        }
        let missing = acknowledged.iter().filter(|(key, value)| found.get(*key) != Some(value)).count();
        if missing > 0 {
            return Err(format!(
                "{missing} of {} acknowledged writes are missing at {endpoint}",
                acknowledged.len()
            ));
        }
    }
    Ok(())
}

/// Compares the histories of nodes that have all of it, up to what the first has.
pub(super) async fn check_histories(target: &Target) -> Result<(), String> {
    let problem = |error: &dyn std::fmt::Display| format!("reading at {}: {error}", target.endpoints[0]);
    let channel = target.connect_to(&target.endpoints[0]).await.map_err(|error| problem(&error))?;
    let range = pb::RangeRequest { key: "demo/".into(), ..Default::default() };
    let answer = pb::kv_client::KvClient::new(channel).range(range).await;
    let header = answer.map_err(|error| problem(&error.message()))?.into_inner().header;
    let newest = header.map_or(0, |header| header.revision);
    let mut hashes = Vec::new();
    for endpoint in &target.endpoints {
        hashes.push(hash_at(target, endpoint, newest).await?);
    }
    if hashes.iter().any(|hash| *hash != hashes[0]) {
        return Err(format!("the nodes' histories differ: {hashes:?}"));
    }
    Ok(())
}

/// The hash of a node's history up to a revision, as soon as all of that is there.
async fn hash_at(target: &Target, endpoint: &str, revision: i64) -> Result<u32, String> {
    let begun = Instant::now();
    loop {
        let channel = target.connect_to(endpoint).await.map_err(|error| error.to_string())?;
        let mut client = pb::maintenance_client::MaintenanceClient::new(channel);
        match client.hash_kv(pb::HashKvRequest { revision }).await {
            Ok(answer) => return Ok(answer.into_inner().hash),
            Err(status) if begun.elapsed() > START_MAX => {
                return Err(format!("hashing at {endpoint}: {}", status.message()));
            }
            // What was read there is there; what else there is by that revision may be on its way.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
