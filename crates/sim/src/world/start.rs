//! How a process starts: its log is opened, and a host made of what the disks hold.

use super::World;
use super::node::{Node, Running};
use super::splits::Orders;
use crate::applied::Shadow;
use crate::checker::Violation;
use crate::random::Random;
use crate::watchers;
use quorate_consensus::Recovered;
use quorate_node::{Host, Options};
use quorate_partition::watch::Watches;
use quorate_storage::disk::MemoryDisk;
use quorate_storage::wal::{Wal, WalOptions};
use quorate_types::{GroupId, Index, KeyspaceId, Revision, reached};
use std::collections::BTreeMap;

/// Small, so that there are several.
const SEGMENT_BYTES: u64 = 32 << 10;

/// A process that cannot start is started again after so long.
const START_AGAIN_TICKS: u64 = 10;
/// Fewer than clients ask for at once.
const WAITING_MAX_SMALL: usize = 4;
const INFLIGHT_MAX_SMALL: usize = 12;

impl World {
    pub(super) fn start(&mut self, at: usize) -> Result<(), Violation> {
        let cluster = self.members.told(&self.nodes[at]);
        let salt = self.random.below(u64::MAX);
        let options = self.options(&self.nodes[at], salt);
        let (wal, recovered) = match self.open_log(at) {
            Ok(opened) => opened,
            // With another incarnation, and perhaps told of others.
            Err(_) if self.forgets(at) => return self.start(at),
            // It tries again, until there is space.
            Err(_) if self.nodes[at].is_full() => {
                reached!("no-space-to-start");
                self.nodes[at].down_until = self.now + START_AGAIN_TICKS;
                return Ok(());
            }
            Err(violation) => return Err(violation),
        };
        self.nodes[at].is_spoilt = false;
        let node = &mut self.nodes[at];
        let logs = recovered.clone();
        let host = match Host::new(options, node.standing.clone(), node.engine.clone(), cluster, recovered) {
            Ok(host) => host,
            Err(fault) if fault.is_damage() && self.sees_rot(at) => {
                // With that store it serves nobody.
                self.give_up_store(at)?;
                return self.start(at);
            }
            Err(fault) => {
                return Err(self.violation(format!("a node that only crashed does not start: {fault}")));
            }
        };
        let revision = host.reader(KeyspaceId::DEFAULT).map_or(Revision::FIRST, |reader| reader.revision());
        let applied: BTreeMap<GroupId, Index> =
            host.status().into_iter().map(|status| (status.group, status.consensus.applied)).collect();
        let shadow = |(group, recovered): (&GroupId, &Recovered)| {
            (*group, Shadow::new(recovered, applied.get(group).copied().unwrap_or_default()))
        };
        node.shadows = logs.iter().map(shadow).collect();
        let limits = watchers::limits(&mut self.random);
        let mut running = Running {
            stream_queue_bytes_max: limits.stream_queue_bytes_max,
            host,
            wal,
            syncing: None,
            flush_due: None,
            errands: Vec::new(),
            done: Vec::new(),
            watches: Watches::new(limits, revision),
            watchers: watchers::Clients::default(),
            part: None,
            mail: Vec::new(),
            inbox: Vec::new(),
            open: BTreeMap::new(),
            orders: Orders::default(),
        };
        let resuming = std::mem::take(&mut node.resuming);
        if !resuming.is_empty() && self.random.chance(800) {
            let id = running.watchers.open(&mut self.random, &mut running.watches);
            if let (Ok(id), Some(reader)) = (id, running.host.reader(KeyspaceId::DEFAULT)) {
                for request in resuming {
                    let start = request.start_revision.unwrap_or(i64::MAX);
                    let compacted = reader.compacted().map_or(0, |compacted| compacted.0 as i64);
                    reached!("watch-resumed", start <= reader.revision().0 as i64);
                    reached!("watch-resumed-after-compaction", start < compacted);
                    let created = running.watchers.create(id, request, &mut running.watches, &reader);
                    assert!(created.is_ok(), "a few watches are within the limits: {created:?}");
                }
            }
        }
        self.nodes[at].running = Some(running);
        Ok(())
    }

    /// A node's log, and what each group had in it.
    pub(super) fn open_log(
        &self,
        at: usize,
    ) -> Result<(Wal<MemoryDisk>, BTreeMap<GroupId, Recovered>), Violation> {
        let node = &self.nodes[at];
        let options = WalOptions { segment_bytes: SEGMENT_BYTES };
        match Wal::open(node.disk.clone(), node.id.0, options) {
            Ok((wal, recovered, _)) => Ok((wal, recovered)),
            Err(error) => Err(self.violation(format!("a log that only crashed is refused: {error}"))),
        }
    }

    /// Limits are small, so that they are met.
    fn options(&self, node: &Node, salt: u64) -> Options {
        let mut options = Options::new(node.id, salt);
        options.incarnation = node.incarnation;
        options.has_forgotten = node.has_forgotten;
        self.members.set(&mut options);
        options.log_bytes_target = 1 << 10;
        // Small in half of the runs, so that followers fall behind and need snapshots.
        options.log_bytes_max = self.log_bytes_max();
        if !self.random_of_bounds().chance(800) {
            (options.waiting_max, options.inflight_max) = (WAITING_MAX_SMALL, INFLIGHT_MAX_SMALL);
        }
        options.snapshot_chunk_bytes = 256;
        options.snapshot_bytes_per_tick = 2_048;
        options.snapshot_idle_ticks = 100;
        options.read_behind_max = 20;
        // More than one batch of an errand in some.
        options.compaction_rows_per_tick = if self.seed % 5 == 4 { 300 } else { 5 };
        options.compaction_sweep_part = [0, 4, 64][self.seed as usize % 3];
        options.digest_ticks = 20;
        options.checkpoint_entries = 8;
        options.clear_rows = 50;
        options.lease_read = self.is_reading_by_lease;
        options.hibernate_after_ticks = self.hibernate_after_ticks;
        if !self.seed.is_multiple_of(4) {
            options.partition.lease_checkpoint_seconds = 1;
        }
        options.partitions = self.partitions;
        options.spread_leaders = self.are_leaders_spread();
        options
    }

    /// Of a group's log in memory.
    pub(super) fn log_bytes_max(&self) -> usize {
        if self.seed.is_multiple_of(2) { 2 << 10 } else { 16 << 10 }
    }

    /// Of its own: other runs are what they are without it.
    fn random_of_bounds(&self) -> Random {
        Random::new(self.seed ^ 0x626f_756e)
    }

    /// In half of the runs leaders stay where they are and draw from afar. Not with many partitions: transactions over all of them take their locks
    /// one after the other, and every message takes a tick.
    pub(super) fn are_leaders_spread(&self) -> bool {
        self.seed & 8 != 0 && self.partitions <= 4
    }
}
