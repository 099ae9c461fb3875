//! What is measured, and what comes out.

use crate::cluster::System;
use crate::costs::Costs;

/// A sort of load.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Writes of 256 bytes to 10 000 keys
    Put,
    /// Linearizable reads of the same keys
    Get,
    /// Transactions that compare and put two keys of one directory
    Txn,
    /// The same over two directories that are in two partitions of quorate's; not for etcd
    Txn2,
    /// One writer, and clients that watch what it writes, with several directories everything; an operation is an event that arrived
    Watch,
    /// From killing the leader (SIGKILL) to the next write that succeeds
    Failover,
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
            Kind::Txn => "txn",
            Kind::Txn2 => "txn2",
            Kind::Watch => "watch",
            Kind::Failover => "failover",
            Kind::Idle => "idle",
            Kind::Survivors => "survivors",
        }
    }

    /// Whether clients in closed loops make this load; the other kinds are measured once on a cluster.
    pub(crate) fn is_load(self) -> bool {
        matches!(self, Kind::Put | Kind::Get | Kind::Txn | Kind::Txn2 | Kind::Watch)
    }

    /// Whether it ends with one node less.
    pub(crate) fn kills(self) -> bool {
        matches!(self, Kind::Failover | Kind::Survivors)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// A load on a cluster of some size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) kind: Kind,
    pub(crate) nodes: usize,
    pub(crate) clients: usize,
}

/// What one measurement found. Times are microseconds; for a failover, p50 and p99 are the gap. At rest an operation is a second that goes by, p50 is when
/// the first partition took a write, p99 the last.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) ops_per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Processor time of all servers, per operation.
    pub(crate) cpu_per_op: f64,
    /// Resident memory of all servers at the end, in bytes.
    pub(crate) rss: u64,
    pub(crate) errors: u64,
    /// Processor time per operation, by node and thread.
    pub(crate) costs: Costs,
}

/// One measurement of one system.
pub(crate) struct Measured {
    pub(crate) system: System,
    pub(crate) round: u32,
    pub(crate) point: Point,
    pub(crate) result: Outcome,
}
