//! What one node says at one look: members and places, its replicas, and what it uses.

use super::durations::Durations;
use crate::cli::{http_bytes, http_call, ring};
use crate::services::ring::RingTold;
use serde::Deserialize;
use tonic::codegen::http::{Method, StatusCode};
use tonic::transport::Channel;

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) ring: RingTold,
    pub(super) keyspaces: Vec<Keyspace>,
    pub(super) used: Used,
}

#[derive(Deserialize)]
struct Told {
    keyspaces: Vec<Keyspace>,
}

/// Of what `/partitions` says, what is shown.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Keyspace {
    pub(super) keyspace: u32,
    pub(super) name: String,
    pub(super) partitions: Vec<Partition>,
}

/// A replica. What is not there is not known: it has not been opened.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Partition {
    pub(super) partition: u32,
    pub(super) splitting: Option<Splitting>,
    pub(super) leader: Option<String>,
    pub(super) term: Option<u64>,
    #[serde(default)]
    pub(super) committed: u64,
    #[serde(default)]
    pub(super) applied: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Splitting {
    pub(super) child: u32,
}

/// What a node uses, as its metrics say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Used {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: f64,
    pub(super) store_bytes: f64,
    pub(super) watches: f64,
    /// Of clients, and how long they took.
    pub(super) writes: Durations,
    pub(super) reads: Durations,
}

impl Answer {
    /// Asks one node.
    pub(super) async fn of(channel: Channel) -> Result<Self, String> {
        let ring = ring::ask_by(channel.clone()).await?;
        let (status, told) = http_call(channel.clone(), Method::GET, "/partitions", Vec::new()).await?;
        let (_, metrics) = http_bytes(channel, Method::GET, "/metrics", Vec::new()).await?;
        if status != StatusCode::OK {
            return Err(format!("it answers {status} for /partitions"));
        }
        let told: Told =
            serde_json::from_value(told).map_err(|error| format!("its answer makes no sense: {error}"))?;
        Ok(Self { ring, keyspaces: told.keyspaces, used: Used::parse(&String::from_utf8_lossy(&metrics)) })
    }
}

impl Used {
    /// From a page for Prometheus. What is not there is 0.
    pub(crate) fn parse(page: &str) -> Self {
        let mut used = Self::default();
        for line in page.lines() {
            let Some((name, value)) = line.split_once(' ') else { continue };
            if let Some((durations, bound)) = used.durations(name) {
                durations.push(bound, value.parse().unwrap_or(0));
                continue;
            }
            let place = match name {
                "process_cpu_seconds_total" => &mut used.cpu_seconds,
                "process_resident_memory_bytes" => &mut used.resident_bytes,
                "etcd_mvcc_db_total_size_in_bytes" => &mut used.store_bytes,
                "etcd_debugging_mvcc_watcher_total" => &mut used.watches,
                _ => continue,
            };
            *place = value.parse().unwrap_or(0.0);
        }
        used
    }

    /// Which of them a bucket's name means, and its bound.
    fn durations(&mut self, name: &str) -> Option<(&mut Durations, f64)> {
        let (name, labels) = name.split_once("_bucket{le=\"")?;
        let bound = labels.strip_suffix("\"}")?;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        match name {
            "quorate_write_seconds" => Some((&mut self.writes, bound)),
            "quorate_read_seconds" => Some((&mut self.reads, bound)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_found_in_the_metrics() {
        let metrics = crate::metrics::Metrics::default();
        metrics.watches.set(7);
        metrics.store_bytes.set(4_096);
        [0.001, 0.001, 1.0].into_iter().for_each(|seconds| metrics.write_seconds.observe(seconds));
        let used = Used::parse(&metrics.text());
        assert_eq!((used.watches, used.store_bytes), (7.0, 4_096.0));
        assert_eq!(used.reads.pace(1.0), None);
        let writes = used.writes.pace(1.0).unwrap();
        assert_eq!(writes.per_second, 3.0);
        assert!(writes.p50_millis > 0.5 && writes.p50_millis <= 1.0, "{writes:?}");
        assert!(writes.p99_millis > 500.0, "{writes:?}");
        assert!(used.resident_bytes > 0.0);
        assert_eq!(Used::parse("# nothing\nprocess_cpu_seconds_total x\n"), Used::default());
    }
}
