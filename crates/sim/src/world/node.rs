//! A node: what its disks hold, and the process, if one is running.

use super::network::Flying;
use super::parts::PartWatch;
use super::rot::Rot;
use super::space::Short;
use super::splits::Orders;
use crate::applied::Shadow;
use crate::watchers;
use quorate_node::{Done, Errand, Host, Standing, Ticket, WriteId};
use quorate_partition::watch::Watches;
use quorate_storage::disk::MemoryDisk;
use quorate_storage::front::Front;
use quorate_storage::memory::MemoryEngine;
use quorate_storage::wal::Wal;
use quorate_types::{GroupId, Incarnation, NodeId, WatchRequest};
use std::collections::BTreeMap;

/// The ordered store, with what was written lately in memory.
pub(super) type Store = Front<MemoryEngine>;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) disk: MemoryDisk,
    pub(super) engine: Store,
    /// Of the disk; another one is made when it is lost.
    pub(super) incarnation: Incarnation,
    /// What the disk says besides.
    pub(super) standing: Standing,
    /// It has given up its log, and knows it.
    pub(super) has_forgotten: bool,
    /// It has lost a disk and has not been admitted since.
    pub(super) is_forgetful: bool,
    /// A row of this store has rotted at some time.
    pub(super) has_rotted: bool,
    /// A row of its store has rotted, and how far it is with that.
    pub(super) rot: Option<Rot>,
    /// Its log's disk takes what is written and reports nothing until then.
    pub(super) hung_until: u64,
    /// Its log's disk is about to fail, or does.
    pub(super) is_failing: bool,
    /// Its disk has little space, or none.
    pub(super) short: Option<Short>,
    /// A bit of its log has flipped since it was killed.
    pub(super) is_spoilt: bool,
    /// The members when it joined; nobody of a founder's.
    pub(super) welcomed_by: Vec<NodeId>,
    pub(super) running: Option<Running>,
    /// The tick at which it comes back.
    pub(super) down_until: u64,
    /// It stands still until then, as under SIGSTOP: what it is sent waits for it, what is on its disk stays.
    pub(super) paused_until: Option<u64>,
    /// Ticks of its clock in a thousand of ours.
    pub(super) rate: u64,
    /// How much of its next tick has passed, in thousandths.
    pub(super) time: u64,
    /// Watches that its clients had when it died.
    pub(super) resuming: Vec<WatchRequest>,
    /// What it may still apply.
    pub(super) shadows: BTreeMap<GroupId, Shadow>,
}

impl Node {
    /// Down, with an empty disk.
    pub(super) fn new(id: NodeId, standing: Standing, rate: u64) -> Self {
        Self {
            id,
            disk: MemoryDisk::default(),
            engine: store(id, MemoryEngine::default()),
            incarnation: Incarnation(id.0),
            standing,
            has_forgotten: false,
            is_forgetful: false,
            has_rotted: false,
            rot: None,
            hung_until: 0,
            is_failing: false,
            short: None,
            is_spoilt: false,
            welcomed_by: Vec::new(),
            running: None,
            down_until: 0,
            paused_until: None,
            rate,
            time: 0,
            resuming: Vec::new(),
            shadows: BTreeMap::new(),
        }
    }
}

/// Of a node that has so much on its disk, and nothing in memory. Some nodes write to it with every batch, others hardly ever before they are asked to.
pub(super) fn store(id: NodeId, on_disk: MemoryEngine) -> Store {
    let layer_bytes = [1, 600, 6_000, 60_000][id.0 as usize % 4];
    Front::new(on_disk, layer_bytes)
}

/// Its process.
pub(super) struct Running {
    pub(super) host: Host<Store>,
    pub(super) wal: Wal<MemoryDisk>,
    /// Appended and not yet synced: the newest write, and when the sync is done.
    pub(super) syncing: Option<(WriteId, u64)>,
    /// When the flush under way will be reported, and whether what was there when it began is all that it took.
    pub(super) flush_due: Option<(u64, bool)>,
    /// When they are run.
    pub(super) errands: Vec<(u64, Errand<Store>)>,
    /// When the host is told of those that were run.
    pub(super) done: Vec<(u64, Done<Store>)>,
    pub(super) watches: Watches,
    /// The bound of each of their streams.
    pub(super) stream_queue_bytes_max: usize,
    pub(super) watchers: watchers::Clients,
    /// Those that watch some of the slots that are held here.
    pub(super) part: Option<PartWatch>,
    /// Messages that came while it stood still.
    pub(super) mail: Vec<Flying>,
    /// Calls likewise.
    pub(super) inbox: Vec<usize>,
    /// Calls that this process owes an answer.
    pub(super) open: BTreeMap<Ticket, usize>,
    pub(super) orders: Orders,
}
