//! How much of a keyspace's quota is used.
//!
//! The measure is the bytes of the keyspace's rows in this node's store, history included: keys and values as they are written, before the
//! store packs them. It is an estimate that errs upward:
//!
//! * What is applied is added as it comes.
//! * What compaction removes is not subtracted. Instead all rows are counted anew, some each tick: when the node starts, when a
//!   snapshot has replaced a part, and every [`RECOUNT_SECONDS`] while the quota is used up. What is applied while rows are being
//!   counted is added to the count, also if it was met by it.
//!
//! So a keyspace within its quota costs a sum, and one that is idle costs nothing. The leader refuses by the estimate of its own node. Writes
//! that need space are refused, and taken again by themselves: after deleting and compacting, a recount later.
//!
//! Caveats: a node that has just started takes writes until it has counted. What is being written when the quota is reached goes beyond it.

use super::Host;
use crate::group::Group;
use quorate_mvcc::engine::{Engine, Table};
use quorate_mvcc::layout;
use quorate_types::{Bytes, Changes, Event, Fault, GroupId, KeyspaceId, PartitionId, Tick};
use std::ops::Bound;

/// How often the rows are counted while the quota is used up.
const RECOUNT_SECONDS: u64 = 5;
/// Rows counted a tick, of all keyspaces together.
const ROWS_PER_TICK: usize = 2_000;
/// What a change takes beside its event's size and the key once more: what row keys and records begin with, and seals. Rather too much.
const CHANGE_BYTES: usize = 36;

/// The space that one keyspace takes on this node.
pub(super) struct Usage {
    quota_bytes: u64,
    bytes: u64,
    count: Option<Count>,
    is_count_wanted: bool,
    counted: Tick,
}

/// Counting under way.
struct Count {
    table: usize,
    /// The last row counted.
    after: Option<Bytes>,
    bytes: u64,
}

impl Usage {
    fn is_over(&self) -> bool {
        self.bytes >= self.quota_bytes
    }
}

impl<E: Engine> Host<E> {
    /// About how many bytes the rows of a keyspace take in this node's store; known of those that have a quota.
    pub fn keyspace_bytes(&self, id: KeyspaceId) -> Option<u64> {
        self.usages.get(&id).map(|usage| usage.bytes)
    }

    /// Whether writes to the keyspace are refused by leaders on this node. Never to the system's, which are few and small: without
    /// marks and maps nothing could be deleted either.
    pub(super) fn is_refusing(&self, id: KeyspaceId) -> bool {
        if id == KeyspaceId::SYSTEM {
            return false;
        }
        self.space.is_refusing || self.usages.get(&id).is_some_and(Usage::is_over)
    }

    /// Tells the keyspace's partitions here whether to refuse.
    pub(super) fn refuse_or_not(&mut self, id: KeyspaceId) {
        let is_refusing = self.is_refusing(id);
        let of_keyspace = self.groups.iter_mut().filter(|(group, _)| group.keyspace == id);
        for partition in of_keyspace.filter_map(|(_, group)| Group::partition_mut(group)) {
            partition.set_no_space(is_refusing);
        }
    }

    /// The keyspace's map is known.
    pub(super) fn set_quota(&mut self, id: KeyspaceId, quota_bytes: Option<u64>) {
        let Some(quota_bytes) = quota_bytes else {
            self.usages.remove(&id);
            return;
        };
        let new = Usage { quota_bytes, bytes: 0, count: None, is_count_wanted: true, counted: self.now };
        self.usages.entry(id).or_insert(new).quota_bytes = quota_bytes;
    }

    /// These changes were applied.
    pub(super) fn use_space(&mut self, id: KeyspaceId, changes: &[Changes]) {
        let Some(usage) = self.usages.get_mut(&id) else { return };
        let was_over = usage.is_over();
        let events = changes.iter().flat_map(|changes| changes.events.iter());
        // The key stands in the version's row and in the change's.
        let bytes: usize = events.map(|event| Event::size(event) + event.key().len() + CHANGE_BYTES).sum();
        usage.bytes += bytes as u64;
        if let Some(count) = &mut usage.count {
            count.bytes += bytes as u64;
        }
        if usage.is_over() != was_over {
            self.refuse_or_not(id);
        }
    }

    /// The keyspace's rows were changed otherwise.
    pub(super) fn count_anew(&mut self, id: KeyspaceId) {
        if let Some(usage) = self.usages.get_mut(&id) {
            usage.is_count_wanted = true;
            usage.count = None;
        }
    }

    /// Counts a little.
    pub(super) fn tick_usage(&mut self) -> Result<(), Fault> {
        let (now, recount) = (self.now, RECOUNT_SECONDS * self.options.ticks_per_second);
        let mut rows_left = ROWS_PER_TICK;
        let mut counted = Vec::new();
        for (id, usage) in &mut self.usages {
            let is_due = usage.is_over() && now.since(usage.counted) >= recount;
            if usage.count.is_none() && (usage.is_count_wanted || is_due) {
                usage.is_count_wanted = false;
                usage.count = Some(Count { table: 0, after: None, bytes: 0 });
            }
            let Some(count) = &mut usage.count else { continue };
            if count.step(&self.engine, *id, &mut rows_left)? {
                usage.bytes = count.bytes;
                usage.count = None;
                usage.counted = now;
                counted.push(*id);
            }
        }
        for id in counted {
            self.refuse_or_not(id);
        }
        Ok(())
    }
}

impl Count {
    /// Counts on; whether all rows are counted.
    fn step<E: Engine>(&mut self, engine: &E, id: KeyspaceId, rows_left: &mut usize) -> Result<bool, Fault> {
        while let Some(table) = Table::ALL.get(self.table) {
            let (mut start, _) = layout::rows(*table, GroupId { keyspace: id, partition: PartitionId(0) });
            let last = GroupId { keyspace: id, partition: layout::EVERY_PARTITION };
            let (_, end) = layout::rows(*table, last);
            if let Some(after) = self.after.clone() {
                start = Bound::Excluded(after);
            }
            for row in engine.scan(*table, (start, end)) {
                if *rows_left == 0 {
                    return Ok(false);
                }
                let (key, value) = row?;
                self.bytes += (key.len() + value.len()) as u64;
                self.after = Some(key);
                *rows_left -= 1;
            }
            // The end of this table, not the end of this tick's share.
            self.after = None;
            self.table += 1;
        }
        Ok(true)
    }
}
