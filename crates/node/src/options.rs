//! The numbers a node runs by.

use quorate_mvcc::SWEEP_PART;
use quorate_types::{Incarnation, NodeId, Rules};

/// How a node counts time and what bounds it keeps. Times are in ticks; the shell says how long a tick
/// is by how often it calls [`crate::Host::tick`].
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub id: NodeId,
    /// This data directory.
    pub incarnation: Incarnation,
    /// This directory is not the node's first, which was given up with all that it had promised: the node asks the others, and begins no cluster.
    pub has_forgotten: bool,
    /// Seed of the random election timeouts; different on every node.
    pub seed: u64,
    /// Ticks in a second.
    pub ticks_per_second: u64,
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: u64,
    /// The shortest election timeout.
    pub election_ticks_min: u64,
    /// No election timeout is this long.
    pub election_ticks_max: u64,
    /// Whether a leader may answer reads from its lease, without a round of heartbeats. Right only
    /// while no two nodes' clocks run apart by more than a tenth.
    pub lease_read: bool,
    /// A group in which nothing was asked for so long sleeps; `None`: never.
    pub hibernate_after_ticks: Option<u64>,
    /// A request not answered by then is rejected.
    pub request_ticks_max: u64,
    /// Requests waiting for a leader, per group; more are refused as busy.
    pub waiting_max: usize,
    /// Requests in flight in one group; more are refused as busy.
    pub inflight_max: usize,
    /// When the logs of all groups have so many bytes that the store does not hold durably, it is flushed, and they are cut...
    pub log_bytes_target: usize,
    /// ...unless a follower still needs them; but no group's log may then be larger than this.
    pub log_bytes_max: usize,
    /// Bytes of one chunk of a snapshot.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of snapshots sent per tick, over all groups: the rate limit.
    pub snapshot_bytes_per_tick: usize,
    /// A snapshot nobody asked for in so many ticks is dropped.
    pub snapshot_idle_ticks: u64,
    /// Leases ended per tick and group, so that a million that run out together do not stop the rest.
    pub expiries_per_tick: usize,
    /// A replica that has more entries than that to apply before a read has it answered by the leader, unless its own copy is insisted on.
    pub read_behind_max: u64,
    /// Rows of forgotten history looked at in a tick, in batches of 128 at most.
    pub compaction_rows_per_tick: usize,
    /// Forgotten history is looked for change by change, until the store has fewer rows than so many times these: then by reading everything. 0 is never.
    pub compaction_sweep_part: u64,
    /// Rows looked at per step when those of a replica that is given up are removed.
    pub clear_rows: usize,
    /// How many members shall hold each group; with fewer members it is what there is.
    pub replicas: usize,
    /// Groups that are moved at the same time.
    pub moves_max: usize,
    /// A member that was not heard for so long is taken for lost, with all it has.
    pub grace_ticks: u64,
    /// With how many partitions the default keyspace of a new cluster is made.
    pub partitions: u32,
    /// And with which placement rules.
    pub rules: Rules,
    /// With more members than replicas, partitions are dealt over all of them, instead of being together on some.
    pub spread_replicas: bool,
    /// Partitions' leaders stay where they are and draw revisions over the network, instead of going to the sequencer's node.
    pub spread_leaders: bool,
    /// How often replicas tell each other what they have become.
    pub digest_ticks: u64,
    /// After so many entries a replica remembers what it had become. The same on all nodes, or they do not meet.
    pub checkpoint_entries: u64,
    /// What partitions keep to.
    pub partition: quorate_partition::Limits,
}

impl Options {
    /// The defaults of the server, with a directory named after the seed: ticks of 20 ms, heartbeats every 100 ms, elections after 500 to
    /// 800 ms of silence, hibernation after a second.
    pub fn new(id: NodeId, seed: u64) -> Self {
        let ticks_per_second = 50;
        Self {
            id,
            incarnation: Incarnation(seed),
            has_forgotten: false,
            seed,
            ticks_per_second,
            heartbeat_ticks: 5,
            election_ticks_min: 25,
            election_ticks_max: 40,
            lease_read: false,
            hibernate_after_ticks: Some(ticks_per_second),
            request_ticks_max: 6 * ticks_per_second,
            waiting_max: 10_000,
            inflight_max: 50_000,
            log_bytes_target: 32 << 20,
            log_bytes_max: 64 << 20,
            snapshot_chunk_bytes: 512 << 10,
            snapshot_bytes_per_tick: 4 << 20,
            snapshot_idle_ticks: 30 * ticks_per_second,
            expiries_per_tick: 64,
            read_behind_max: 4_096,
            compaction_rows_per_tick: 4_000,
            compaction_sweep_part: SWEEP_PART,
            clear_rows: 4_000,
            replicas: 3,
            moves_max: 8,
            grace_ticks: 300 * ticks_per_second,
            partitions: 1,
            spread_replicas: false,
            spread_leaders: false,
            rules: Rules::default(),
            digest_ticks: 5 * ticks_per_second,
            checkpoint_entries: 256,
            partition: quorate_partition::Limits::default(),
        }
    }
}
