//! The state machine's flushes, and the snapshots of it that are offered and fetched.

use super::node::Node;
use super::{Event, TICK, World};
use quorate_consensus::{Consensus, SnapshotFetch, SnapshotMeta};
use quorate_types::{Index, NodeId};

impl World {
    /// The state machine becomes durable, and the log gives up some of what is in it.
    pub(super) fn flush(&mut self, at: usize) {
        let back = self.random.between(0, 4);
        let Node { options, state: Some(state), running: Some(running), .. } = &mut self.nodes[at] else {
            return;
        };
        *state = self.invariants.position_at(running.applied);
        options.configuration = running.configuration.clone();
        running.raft.compact(Index(running.applied.0.saturating_sub(back)));
        self.note(|world| format!("n{} flushes", world.nodes[at].id));
        self.drain(at);
    }

    pub(super) fn offer(&mut self, at: usize, life: u64, to: NodeId) {
        let Node { id, lives, state: Some(_), running: Some(running), .. } = &mut self.nodes[at] else {
            return;
        };
        if *lives == life {
            let (id, position) = (*id, self.invariants.position_at(running.applied));
            let configuration = running.raft.configuration_at(position.index).clone();
            running.raft.offer_snapshot(to, SnapshotMeta { position, configuration });
            self.note(|_| format!("n{id} offers n{to} a snapshot at {position}"));
            self.drain(at);
        }
    }

    pub(super) fn begin_fetch(&mut self, at: usize, fetch: SnapshotFetch) {
        let delay = if self.is_healed { 8 } else { self.random.between(0, 20 * TICK) };
        let node = &mut self.nodes[at];
        node.state = None;
        let life = node.lives;
        let Some(running) = &mut node.running else { return };
        running.raft.state_lost();
        running.fetching = Some(fetch.clone());
        self.note(|world| format!("n{} begins to fetch {fetch:?}", world.nodes[at].id));
        self.schedule(delay, Event::Fetched { at, life, fetch });
    }

    pub(super) fn fetched(&mut self, at: usize, life: u64, fetch: SnapshotFetch) {
        let is_failed = !self.is_healed && self.chance(200);
        if self.nodes[at].lives != life {
            return;
        }
        let Node { id, options, state, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let id = *id;
        if running.fetching.as_ref() != Some(&fetch) {
            return;
        }
        running.fetching = None;
        if is_failed {
            running.raft.fetch_failed();
        } else {
            let position = fetch.meta.position;
            let committed = self.invariants.position_at(position.index);
            assert_eq!(position, committed, "n{id} installs a snapshot that was never committed");
            let members = self.invariants.configuration_at(position.index);
            assert_eq!(fetch.meta.configuration, *members, "n{id} installs a snapshot of other members");
            *state = Some(position);
            options.configuration = members.clone();
            running.configuration = members.clone();
            running.applied = position.index;
            running.raft.restored(fetch.meta);
            self.counts.snapshots += 1;
        }
        self.note(|_| format!("n{id} ends its fetch, failed {is_failed}"));
        self.drain(at);
        if !self.is_healed && self.chance(200) {
            self.crash(at); // Before the log is restarted after the snapshot.
        }
        self.check_kept();
    }
}
