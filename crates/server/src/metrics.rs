//! Counters for Prometheus, under etcd's names where the meaning is the same.

use crate::runtime::standing::Standing;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use quorate_types::{GroupId, KeyspaceId};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

type Float = Gauge<f64, AtomicU64>;

/// What the node counts. Gauges are set when somebody asks.
pub struct Metrics {
    registry: Registry,
    /// Changes of leader seen, of any group.
    pub leader_changes: Counter,
    /// Replicas found to have become something else than others.
    pub replicas_diverged: Counter,
    /// Time that making the log durable took.
    pub log_sync_seconds: Histogram,
    /// Time from a client's request that may change something to its answer.
    pub write_seconds: Histogram,
    /// The same for requests that only read.
    pub read_seconds: Histogram,
    /// Whether this node knows all leaders of the default keyspace.
    pub has_leader: Gauge,
    /// Whether this node leads it, or gives its partitions their revisions.
    pub is_leader: Gauge,
    /// Committed entries.
    pub committed: Gauge,
    /// Applied entries.
    pub applied: Gauge,
    /// Committed but not yet applied.
    pub pending: Gauge,
    /// Newest revision.
    pub revision: Gauge,
    /// Bytes of the ordered store on disk.
    pub store_bytes: Gauge,
    /// Open watches.
    pub watches: Gauge,
    /// Open watch streams.
    pub watch_streams: Gauge,
    /// Live leases; on the leader.
    pub leases: Gauge,
    groups: Groups,
    quotas: Quotas,
    /// Resident memory.
    pub resident_bytes: Gauge,
    /// Processor time used so far.
    pub cpu_seconds: Float,
}

impl Default for Metrics {
    fn default() -> Self {
        let leader_changes = Counter::default();
        let replicas_diverged = Counter::default();
        let log_sync_seconds = Histogram::new(exponential_buckets(0.000_125, 2.0, 17));
        let mut registry = Registry::default();
        registry.register(
            "quorate_replicas_diverged",
            "Replicas found to have become something else than others",
            replicas_diverged.clone(),
        );
        registry.register("etcd_server_leader_changes_seen", "Leader changes seen", leader_changes.clone());
        registry.register(
            "etcd_disk_wal_fsync_duration_seconds",
            "Time to make the log durable",
            log_sync_seconds.clone(),
        );
        let mut requests = |name: &str, help: &str| {
            let seconds = Histogram::new(exponential_buckets(0.000_062_5, std::f64::consts::SQRT_2, 36));
            registry.register(name, help, seconds.clone());
            seconds
        };
        let write_seconds = requests("quorate_write_seconds", "Time that clients' writes took");
        let read_seconds = requests("quorate_read_seconds", "Time that clients' reads took");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let has_leader = gauge("etcd_server_has_leader", "Whether a leader is known");
        let is_leader = gauge("etcd_server_is_leader", "Whether this node leads");
        let committed = gauge("etcd_server_proposals_committed_total", "Committed entries");
        let applied = gauge("etcd_server_proposals_applied_total", "Applied entries");
        let pending = gauge("etcd_server_proposals_pending", "Committed entries not yet applied");
        let revision = gauge("etcd_debugging_mvcc_current_revision", "Newest revision");
        let store_bytes = gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the ordered store on disk");
        let watches = gauge("etcd_debugging_mvcc_watcher_total", "Open watches");
        let watch_streams = gauge("etcd_debugging_mvcc_watch_stream_total", "Open watch streams");
        let leases = gauge("quorate_leases", "Live leases, on the leader");
        let resident_bytes = gauge("process_resident_memory_bytes", "Resident memory");
        let groups = Groups::registered(&mut registry);
        let quotas = Quotas::registered(&mut registry);
        let cpu_seconds = Float::default();
        registry.register("process_cpu_seconds_total", "Processor time used", cpu_seconds.clone());
        Self {
            registry,
            leader_changes,
            replicas_diverged,
            log_sync_seconds,
            write_seconds,
            read_seconds,
            has_leader,
            is_leader,
            committed,
            applied,
            pending,
            revision,
            store_bytes,
            watches,
            watch_streams,
            leases,
            groups,
            quotas,
            resident_bytes,
            cpu_seconds,
        }
    }
}

/// Of each replica on this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct GroupLabels {
    keyspace: u32,
    partition: u32,
}

impl GroupLabels {
    fn of(group: GroupId) -> Self {
        Self { keyspace: group.keyspace.0, partition: group.partition.0 }
    }
}

/// Of each keyspace that has a quota.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyspaceLabels {
    keyspace: u32,
}

/// Gauges that every keyspace with a quota has.
struct Quotas {
    used_bytes: Family<KeyspaceLabels, Gauge>,
    quota_bytes: Family<KeyspaceLabels, Gauge>,
    /// Whose gauges there are.
    told: Mutex<BTreeSet<KeyspaceId>>,
}

impl Quotas {
    fn registered(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| {
            let family = Family::default();
            registry.register(name, help, family.clone());
            family
        };
        Self {
            used_bytes: family("quorate_keyspace_used_bytes", "Bytes that count for the keyspace's quota"),
            quota_bytes: family("quorate_keyspace_quota_bytes", "The keyspace's quota"),
            told: Mutex::default(),
        }
    }

    fn tell(&self, standing: &Standing) {
        let here: BTreeSet<KeyspaceId> = standing.used_bytes.keys().copied().collect();
        let gone = std::mem::replace(&mut *self.told.lock(), here.clone());
        for KeyspaceId(keyspace) in gone.difference(&here).copied() {
            self.used_bytes.remove(&KeyspaceLabels { keyspace });
            self.quota_bytes.remove(&KeyspaceLabels { keyspace });
        }
        for (id, used_bytes) in &standing.used_bytes {
            let labels = KeyspaceLabels { keyspace: id.0 };
            self.used_bytes.get_or_create(&labels).set(signed(*used_bytes));
            let quota_bytes = standing.quota_bytes(*id).unwrap_or(0);
            self.quota_bytes.get_or_create(&labels).set(signed(quota_bytes));
        }
    }
}

/// Gauges that every replica has.
struct Groups {
    has_leader: Family<GroupLabels, Gauge>,
    is_leader: Family<GroupLabels, Gauge>,
    term: Family<GroupLabels, Gauge>,
    committed: Family<GroupLabels, Gauge>,
    applied: Family<GroupLabels, Gauge>,
    log_bytes: Family<GroupLabels, Gauge>,
    held_back: Family<GroupLabels, Gauge>,
    /// Whose gauges there are.
    told: Mutex<BTreeSet<GroupLabels>>,
}

impl Groups {
    fn registered(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| {
            let family = Family::default();
            registry.register(name, help, family.clone());
            family
        };
        Self {
            has_leader: family("quorate_partition_has_leader", "Whether a leader of the partition is known"),
            is_leader: family("quorate_partition_is_leader", "Whether this node leads the partition"),
            term: family("quorate_partition_term", "The partition's term"),
            committed: family("quorate_partition_committed_index", "Committed entries of the partition"),
            applied: family("quorate_partition_applied_index", "Applied entries of the partition"),
            log_bytes: family("quorate_partition_log_bytes", "Bytes of the partition's log in memory"),
            held_back: family(
                "quorate_partition_held_back_revisions",
                "Revisions that watches and serializable reads of the keyspace do not see here because the partition is late",
            ),
            told: Mutex::default(),
        }
    }
}

impl Groups {
    /// Lets go of replicas that are not here any more, as their keyspace was deleted.
    fn keep_only(&self, standing: &Standing) {
        let here: BTreeSet<GroupLabels> =
            standing.groups.iter().map(|status| GroupLabels::of(status.group)).collect();
        let gone = std::mem::replace(&mut *self.told.lock(), here.clone());
        let Self { has_leader, is_leader, term, committed, applied, log_bytes, held_back, told: _ } = self;
        for labels in gone.difference(&here) {
            for family in [has_leader, is_leader, term, committed, applied, log_bytes, held_back] {
                family.remove(labels);
            }
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Metrics {
    /// How the groups stand; etcd's names are about the keyspace that stock clients talk to.
    pub fn tell(&self, standing: &Standing, keyspace: KeyspaceId) {
        if let Some(summary) = standing.summary(keyspace) {
            self.has_leader.set(summary.is_led.into());
            self.is_leader.set(summary.is_serving.into());
            self.committed.set(signed(summary.committed));
            self.applied.set(signed(summary.applied));
            self.pending.set(signed(summary.committed.saturating_sub(summary.applied)));
            self.leases.set(summary.leases as i64);
        }
        self.quotas.tell(standing);
        self.groups.keep_only(standing);
        for status in &standing.groups {
            let (labels, consensus) = (GroupLabels::of(status.group), &status.consensus);
            let set = |family: &Family<GroupLabels, Gauge>, value: i64| {
                family.get_or_create(&labels).set(value);
            };
            set(&self.groups.has_leader, consensus.leader.is_some().into());
            set(&self.groups.is_leader, status.is_serving.into());
            set(&self.groups.term, signed(consensus.term.0));
            set(&self.groups.committed, signed(consensus.commit.0));
            set(&self.groups.applied, signed(consensus.applied.0));
            set(&self.groups.log_bytes, consensus.log_bytes as i64);
            let held_back = standing.held_back.get(&status.group.keyspace);
            let held_back = held_back.filter(|held| held.partition == status.group.partition);
            set(&self.groups.held_back, held_back.map_or(0, |held| signed(held.newest.0 - held.settled.0)));
        }
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self) -> String {
        self.read_process();
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn read_process(&self) {
        let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
        // Fields after the command's closing bracket: 12 and 13 are user and system time in hundredths of
        // a second, 22 is resident pages of 4 KiB (proc(5)).
        let Some((_, rest)) = stat.rsplit_once(')') else { return };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0);
        self.cpu_seconds.set((number(11) + number(12)) as f64 / 100.0);
        self.resident_bytes.set(number(21) * 4096);
    }
}
