//! What is measured, and what comes out.

use crate::cluster::System;
use crate::costs::Costs;
use std::collections::BTreeMap;

/// A sort of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Writes of 256 bytes to 10 000 keys
    Put,
    /// Linearizable reads of the same keys
    Get,
    /// Serializable reads of the same keys
    GetSerializable,
    /// Transactions that compare and swap one key
    Cas,
    /// Transactions that compare and put two keys of one directory
    Txn,
    /// The same over two directories that are in two partitions of quorate's; not for etcd
    Txn2,
    /// 95 of 100 are linearizable reads, the others writes
    Mixed,
    /// Linearizable reads of 100 keys in a row
    Range,
    /// A writer in a closed loop, and clients that watch what it writes; an operation is an event that arrived
    Watch,
    /// The same with 100 writes a second
    Fanout,
    /// Lives of 1 000 leases prolonged
    KeepAlive,
    /// One lock, taken and given back by each client in turn
    Lock,
    /// From killing the leader (SIGKILL) to the next write that succeeds
    #[value(alias = "failover")]
    Killed,
    /// From pausing the leader (SIGSTOP) to the next write that succeeds
    Paused,
    /// A million keys: memory, disk, and a node that starts again
    Keys,
    /// The same keys overwritten and compacted, and with etcd defragmented: what a writer feels, and what space comes back
    Compaction,
    /// What the cluster costs while nothing is asked of it, after a write in every partition
    Idle,
    /// From killing the leader to a write in every partition, and what the others cost at rest after it
    Survivors,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Get => "get",
            Kind::GetSerializable => "get-serializable",
            Kind::Cas => "cas",
            Kind::Txn => "txn",
            Kind::Txn2 => "txn2",
            Kind::Mixed => "mixed",
            Kind::Range => "range",
            Kind::Watch => "watch",
            Kind::Fanout => "fanout",
            Kind::KeepAlive => "keep-alive",
            Kind::Lock => "lock",
            Kind::Killed => "killed",
            Kind::Paused => "paused",
            Kind::Keys => "keys",
            Kind::Compaction => "compaction",
            Kind::Idle => "idle",
            Kind::Survivors => "survivors",
        }
    }

    /// The load of clients that it is; the other kinds are measured once on a cluster.
    pub(crate) fn load(self) -> Option<quorate_load::Kind> {
        use quorate_load::Kind as Load;
        Some(match self {
            Kind::Put => Load::Put,
            Kind::Get => Load::Get,
            Kind::GetSerializable => Load::GetSerializable,
            Kind::Cas => Load::Cas,
            Kind::Txn | Kind::Txn2 => Load::Txn,
            Kind::Mixed => Load::Mixed,
            Kind::Range => Load::Range,
            Kind::Watch | Kind::Fanout => Load::Watch,
            Kind::KeepAlive => Load::KeepAlive,
            Kind::Lock => Load::Lock,
            _ => return None,
        })
    }

    /// Whether it can be measured again on the same cluster.
    pub(crate) fn is_repeatable(self) -> bool {
        self.load().is_some() || matches!(self, Kind::Killed | Kind::Paused)
    }

    /// Whether it needs more than one node.
    pub(crate) fn needs_survivors(self) -> bool {
        matches!(self, Kind::Killed | Kind::Paused | Kind::Survivors)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// A measurement on a cluster of some size. No clients are there where their number says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) kind: Kind,
    pub(crate) nodes: usize,
    pub(crate) clients: usize,
}

impl std::fmt::Display for Point {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Point { kind, nodes, clients } = self;
        let text = match clients {
            0 => format!("{nodes} nodes {kind}"),
            clients => format!("{nodes} nodes {kind} {clients}"),
        };
        formatter.pad(&text)
    }
}

/// Something that a measurement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Operations a second.
    Rate,
    /// Microseconds that half of the operations took at most, corrected for coordinated omission, as the next ones.
    P50,
    P99,
    P999,
    /// Of 99 in 100, as the clients felt it: not corrected.
    P99Felt,
    /// The longest.
    Longest,
    /// Processor time of all servers for an operation, in microseconds.
    CpuPerOp,
    /// The same for a second in which nothing is asked.
    CpuPerSecond,
    /// Resident memory of all servers at the end, in bytes.
    Rss,
    /// What all data directories take on the disk, in bytes.
    Disk,
    /// Milliseconds until the first write succeeds anywhere.
    FirstWrite,
    /// And until the last of those who wrote has succeeded: on every surviving node, or in every partition.
    LastWrite,
    /// Milliseconds from starting a node that was told to stop until it serves a linearizable read.
    Restart,
    /// The same of one that was killed.
    RestartKilled,
    /// Seconds that the keys took to be written, and to be overwritten.
    FillSeconds,
    OverwriteSeconds,
    /// Seconds that a compaction takes, defragmentation included where there is one.
    CompactSeconds,
    /// The longest write meanwhile, in milliseconds.
    Stall,
    /// The longest write in as much time before, in milliseconds.
    StallBefore,
    /// What was on the disk before, and is there no more.
    DiskBefore,
    SpaceBack,
}

impl Metric {
    /// What programs call it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Metric::Rate => "ops_per_second",
            Metric::P50 => "p50_us",
            Metric::P99 => "p99_us",
            Metric::P999 => "p999_us",
            Metric::P99Felt => "p99_felt_us",
            Metric::Longest => "longest_us",
            Metric::CpuPerOp => "cpu_us_per_op",
            Metric::CpuPerSecond => "cpu_us_per_second",
            Metric::Rss => "rss_bytes",
            Metric::Disk => "disk_bytes",
            Metric::FirstWrite => "first_write_ms",
            Metric::LastWrite => "last_write_ms",
            Metric::Restart => "restart_ms",
            Metric::RestartKilled => "restart_killed_ms",
            Metric::FillSeconds => "fill_seconds",
            Metric::OverwriteSeconds => "overwrite_seconds",
            Metric::CompactSeconds => "compact_seconds",
            Metric::Stall => "stall_ms",
            Metric::StallBefore => "stall_before_ms",
            Metric::DiskBefore => "disk_before_bytes",
            Metric::SpaceBack => "space_back_bytes",
        }
    }

    /// Whether more of it is better.
    pub(crate) fn is_gain(self) -> bool {
        matches!(self, Metric::Rate | Metric::SpaceBack)
    }

    /// A number of it for people.
    pub(crate) fn shown(self, number: f64) -> String {
        match self {
            Metric::Rss | Metric::Disk | Metric::DiskBefore | Metric::SpaceBack => {
                format!("{:.0} MiB", number / f64::from(1 << 20))
            }
            Metric::Rate => format!("{number:.0}/s"),
            Metric::FillSeconds | Metric::OverwriteSeconds | Metric::CompactSeconds => {
                format!("{number:.1} s")
            }
            Metric::FirstWrite | Metric::LastWrite | Metric::Restart | Metric::RestartKilled => {
                format!("{number:.0} ms")
            }
            Metric::Stall | Metric::StallBefore => format!("{number:.0} ms"),
            Metric::CpuPerOp => format!("{number:.1} us"),
            _ => format!("{number:.0} us"),
        }
    }

    /// What people call it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Metric::Rate => "rate",
            Metric::P50 => "p50",
            Metric::P99 => "p99",
            Metric::P999 => "p99.9",
            Metric::P99Felt => "p99 felt",
            Metric::Longest => "longest",
            Metric::CpuPerOp => "cpu/op",
            Metric::CpuPerSecond => "cpu/s",
            Metric::Rss => "rss",
            Metric::Disk => "disk",
            Metric::FirstWrite => "first write",
            Metric::LastWrite => "last write",
            Metric::Restart => "restart",
            Metric::RestartKilled => "restart killed",
            Metric::FillSeconds => "filled in",
            Metric::OverwriteSeconds => "overwritten in",
            Metric::CompactSeconds => "compacted in",
            Metric::Stall => "stall",
            Metric::StallBefore => "stall before",
            Metric::DiskBefore => "disk before",
            Metric::SpaceBack => "space back",
        }
    }
}

/// What one measurement found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) metrics: BTreeMap<Metric, f64>,
    /// Operations that were refused or not answered.
    pub(crate) errors: u64,
    /// The same as a part of all, where a load was measured.
    pub(crate) failed: f64,
    /// The first of the errors.
    pub(crate) problem: Option<String>,
    /// Processor time per operation, by node and thread.
    pub(crate) costs: Costs,
    /// What part of the machine's processors somebody else had.
    pub(crate) others: f64,
}

/// One measurement of one system.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) system: System,
    pub(crate) round: u32,
    pub(crate) point: Point,
    pub(crate) outcome: Outcome,
    /// Somebody else had more of the machine than is allowed, every time it was tried.
    pub(crate) is_disturbed: bool,
}
