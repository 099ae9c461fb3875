//! What comes from other nodes, and what follows when a connection breaks.

use super::Host;
use crate::effects::Notice;
use crate::group::{Origin, Work};
use crate::peer::PeerMessage;
use crate::snapshots::Fetching;
use quorate_consensus::{Consensus, Message};
use quorate_mvcc::engine::Engine;
use quorate_types::{Fault, Incarnation, NodeId, Rejection};

impl<E: Engine> Host<E> {
    /// A peer's message came in; `incarnation` is the data directory it was sent from.
    pub fn receive(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        message: PeerMessage,
    ) -> Result<(), Fault> {
        if self.roster.is_gone(from) || !self.admit_sender(from, incarnation, &message) {
            return Ok(());
        }
        self.heard(from);
        match message {
            PeerMessage::Alive => {}
            PeerMessage::Digests { digests } => self.on_digests(from, digests),
            PeerMessage::SpaceShort => self.on_space_short(from),
            PeerMessage::AdmissionAsk { incarnation } => self.on_admission_ask(from, incarnation),
            PeerMessage::AdmissionAnswer(answer) => self.on_admission_answer(from, incarnation, answer)?,
            PeerMessage::Group { .. } if self.admission.is_mute() => {}
            PeerMessage::Group { group, .. } if self.leaving.contains(group) => {}
            PeerMessage::Group { group: id, meta, message } => {
                if let Message::Appended { matched, term } = message {
                    self.on_acknowledged(id, from, (matched, term), meta);
                }
                // A group that is not here may be one that the maps of this node do not name yet.
                if let Some(group) = self.groups.get_mut(&id) {
                    if let Message::TimeoutNow { .. } = message {
                        group.handed_by = Some((from, self.now));
                        self.out.notices.push(Notice::HandedOver { group: id, by: from });
                    }
                    group.raft.step(from, message);
                    let is_superseded = group.raft.superseded().is_some();
                    self.dirty.insert(id);
                    if is_superseded {
                        return self.on_superseded(id);
                    }
                    self.finish_confirmed(id)?;
                }
            }
            PeerMessage::ReadAsk { reading, keyspace, ranges, term, confirmed: true, .. } => {
                self.on_read_ask(Some((from, term)), reading, keyspace, ranges)?;
            }
            PeerMessage::ReadAsk { reading, keyspace, confirmed: false, known, .. } => {
                self.on_settle_ask(Some(from), reading, keyspace, known)?;
            }
            PeerMessage::Awaiting { tickets } => self.on_awaiting(from, tickets),
            PeerMessage::NotInHand { tickets } => self.on_not_in_hand(from, tickets),
            PeerMessage::Leaders { leaders } => self.on_leaders(leaders)?,
            PeerMessage::PartAsk { part } => self.on_part_ask(part)?,
            PeerMessage::PartAnswer { reading, at, partition, position } => {
                self.on_part_answer(reading, at, partition, position)?;
            }
            PeerMessage::Draw { ask } => self.on_draw(from, ask)?,
            PeerMessage::Drawn { answer } => self.on_drawn(from, answer)?,
            PeerMessage::ReadAnswer { reading, answer } => self.on_read_answer(reading, answer)?,
            PeerMessage::Txn { to, message } => {
                if self.groups.get(&to).is_none_or(|group| !group.is_serving) {
                    self.tell_leader(to, from);
                }
                self.on_txn(to, message)?;
            }
            PeerMessage::Request { ticket, group, request } => {
                let deadline = self.now.after(self.options.request_ticks_max);
                let origin = Origin::Remote(from, ticket);
                self.in_hand.take(from, ticket, deadline);
                let work = Work { origin, request, received: self.now, deadline };
                if self.groups.contains_key(&group) {
                    self.dispatch_again(group, work)?;
                } else {
                    self.tell_leader(group, from);
                    self.reply(origin, Err(Rejection::LeaderChanged));
                }
            }
            PeerMessage::Reply { ticket, outcome } => self.on_reply(from, ticket, outcome.0),
            PeerMessage::SnapshotPull { group, position, cursor } => {
                let refused = self.sources.pull(from, (group, position), cursor, self.now);
                self.out.send.extend(refused);
                self.serve_snapshots();
            }
            PeerMessage::SnapshotChunk { group, position, after, chunk } => {
                let is_ours = |fetching: &&mut Fetching<E>| {
                    fetching.fetch.from == from && fetching.fetch.meta.position == position
                };
                let fetching = self.fetching.get_mut(&group).filter(is_ours);
                if fetching.is_some_and(|fetching| fetching.add(after, chunk)) {
                    self.fetch_on(group);
                }
            }
            PeerMessage::SnapshotGone { group, position } => {
                if let Some(fetching) = self.fetching.get(&group)
                    && fetching.fetch.from == from
                    && fetching.fetch.meta.position == position
                    && fetching.needs_sender()
                {
                    self.fail_fetch(group, format!("{from} does not keep it any more"));
                }
            }
        }
        Ok(())
    }

    /// The connection to a peer broke.
    pub fn peer_lost(&mut self, node: NodeId) {
        self.liveness.lost.insert(node);
        self.forwards_lost(node);
        for (id, delay) in self.delays_after(node) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.raft.peer_lost(node, delay);
            self.dirty.insert(id);
            let is_cut_off = |fetching: &Fetching<E>| fetching.fetch.from == node && fetching.needs_sender();
            if self.fetching.get(&id).is_some_and(is_cut_off) {
                self.fail_fetch(id, format!("the connection to {node} broke"));
            }
        }
    }
}
