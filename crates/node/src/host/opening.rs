//! A group is opened: its state from the store, its consensus from the log.

use super::Host;
use super::precedence::Precedence;
use crate::digests::Digests;
use crate::effects::Notice;
use crate::group::{Group, State};
use quorate_consensus::{Consensus, Raft, Role};
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::Installer;
use quorate_partition::{Opened, Partition};
use quorate_types::{Entry, Fault, GroupId, Index, LogWrite, Position, Revision, Term};
use std::collections::{BTreeMap, VecDeque};

impl<E: Engine> Host<E> {
    pub(super) fn open_group(&mut self, id: GroupId) -> Result<(), Fault> {
        self.open_group_from(id, None)
    }

    /// The same, where what it had before was just given up: its state comes with a snapshot.
    pub(super) fn open_group_from(
        &mut self,
        id: GroupId,
        given_up: Option<Installer<E>>,
    ) -> Result<(), Fault> {
        let configuration = self.stored_configuration(id)?;
        let mut recovered = self.unopened.remove(&id).unwrap_or_default();
        let limits = self.options.partition.clone();
        // Nobody was told of what it applied in an earlier life.
        let begins_split = Partition::is_split(&self.engine, id)? && !self.is_sequenced(id.keyspace);
        if begins_split {
            let keyspace = self.keyspace(id.keyspace)?;
            keyspace.is_split = true;
            keyspace.publication.together();
        }
        // It may have compacted less than the others.
        self.stop_compaction(id.keyspace);
        let keyspace = self.keyspace(id.keyspace)?;
        keyspace.is_compaction_due = true;
        let publication = keyspace.publication.clone();
        let engine = self.engine.clone();
        let has_rows = Partition::has_state(&self.engine, id)? || Partition::is_incomplete(&self.engine, id)?;
        let clear = self.slots_to_clear(id, has_rows);
        let opened = if self.is_without_state(id)? {
            Opened::Incomplete
        } else {
            let opened =
                Partition::open_among(&publication, engine, id, self.original_slots(id), limits.clone());
            match opened {
                Ok(opened) => opened,
                // The log is another file: what this replica promised and holds from there on is as it was, and what it applied before others have,
                // as after a snapshot that was cut short. So it goes on voting, does not lead, and is given a state.
                Err(fault) if fault.is_damage() && !configuration.is_alone(self.options.id) => {
                    self.out.notices.push(Notice::Damaged { group: id, what: fault.to_string() });
                    Opened::Incomplete
                }
                Err(fault) => return Err(fault),
            }
        };
        let (state, reader, applied) = match opened {
            Opened::Ready(mut partition) => {
                partition.set_rules(self.router.rules(id.keyspace));
                let (reader, applied) = (partition.reader(), partition.applied());
                (State::Ready(*partition), reader, applied)
            }
            Opened::Incomplete => {
                let installer = match given_up {
                    Some(installer) => installer,
                    None => Installer::begin_among(&publication, self.engine.clone(), id, &clear, limits)?,
                };
                self.compact_anew(id.keyspace)?;
                let reader = installer.reader();
                (State::Installing(Some(installer)), reader, recovered.start)
            }
        };
        if !recovered.is_legible() {
            return Err(Fault::new(
                format!("opening group {id}"),
                "an entry about its members is illegible, or a term or index beyond all measure",
            ));
        }
        if applied.index < recovered.start.index {
            return Err(Fault::damage(
                format!("opening group {id}"),
                format!(
                    "the store holds its state at {applied}, but the log begins after {}: the store lost writes that it \
                     had confirmed",
                    recovered.start
                ),
            ));
        }
        let mut positions =
            std::iter::once(recovered.start).chain(recovered.entries.iter().map(Entry::position));
        if !positions.any(|position| position == applied) {
            // A snapshot was put in place and the node stopped before the log restarted after it. The log may be shorter, or hold
            // entries that the snapshot's history has replaced.
            recovered.start = applied;
            recovered.entries.clear();
            self.extra_writes.push((id, LogWrite { restart: Some(applied), ..LogWrite::default() }));
        }
        let has_begun = recovered.start != Position::default() || !recovered.entries.is_empty();
        if !has_begun && let Some(place) = self.roster.places.get(&id) {
            // What begins with nothing begins where the group is.
            recovered.hard_state.term = recovered.hard_state.term.max(Term::first_of(place.lineage));
        }
        let options = quorate_consensus::Options {
            heartbeat_ticks: self.options.heartbeat_ticks,
            election_ticks_min: self.options.election_ticks_min,
            election_ticks_max: self.options.election_ticks_max,
            configuration,
            hibernate_after_ticks: self.options.hibernate_after_ticks,
            // Nine tenths of the time that followers honour the leader: room for clocks a tenth apart.
            lease_read: self.options.lease_read.then(|| self.options.election_ticks_min * 9 / 10),
            ..quorate_consensus::Options::new(
                self.options.id,
                Vec::new(),
                self.options.seed ^ (u64::from(id.keyspace.0) << 32) ^ u64::from(id.partition.0),
            )
        };
        let mut raft = Raft::new(options, recovered, applied.index);
        if let State::Installing(_) = state {
            raft.state_lost();
        }
        let is_returning = matches!(state, State::Installing(_)) && !has_begun && self.is_returning(id);
        let awaits_rows = self.is_apart(id);
        if is_returning || awaits_rows || !self.admission.is_admitted() {
            raft.withhold_votes();
        }
        // It was not here when they fell silent.
        for node in self.down() {
            raft.node_down(node, self.delay_after(node, &raft.configuration().voters));
        }
        let group = Group {
            id,
            raft,
            state,
            reader,
            role: Role::Follower { leader: None },
            leader: None,
            term: Term(0),
            is_serving: false,
            registered: None,
            registering: None,
            acks: BTreeMap::new(),
            unconfirmed: VecDeque::new(),
            office: Index::START,
            received: Revision::default(),
            drawing: VecDeque::new(),
            drawing_asked: 0,
            blocked: VecDeque::new(),
            precedence: Precedence::default(),
            questions: BTreeMap::new(),
            part_asks: Vec::new(),
            held_since: BTreeMap::new(),
            ended: BTreeMap::new(),
            proposed: Position::default(),
            waiting: VecDeque::new(),
            handed_by: None,
            forwarded: BTreeMap::new(),
            reads: BTreeMap::new(),
            waits: BTreeMap::new(),
            held: VecDeque::new(),
            persisted: quorate_consensus::WriteId(0),
            flushing: None,
            flushed: Index::START,
            is_pinning: false,
            is_splitting: false,
            is_returning,
            awaits_rows,
            is_split_proposed: false,
            digests: Digests::default(),
        };
        self.groups.insert(id, group);
        self.note_slots_of(id);
        if begins_split {
            self.note_untold(id)?;
        }
        self.dirty.insert(id);
        Ok(())
    }
}
