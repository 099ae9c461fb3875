//! Requests that this node has sent to leaders elsewhere, and what becomes of them when no answer comes.
//!
//! A client waits for each of them, so none may wait for an answer that cannot come. There are three ways in which one is found out:
//!
//! * The connection from that node breaks, or it is down ([`Host::forwards_lost`]).
//! * It tells twice, asked every so often, that it has not got the request in hand: the request or the answer got lost between two connections, or its
//!   process began anew before anybody noticed that it was gone. Once is not enough: the answer may be on its way, or the request be still.
//! * The request's deadline, when all else fails.
//!
//! What may have changed something is then answered "unknown", anything else is asked again.

use super::Host;
use crate::effects::Ticket;
use crate::peer::PeerMessage;
use quorate_mvcc::engine::Engine;
use quorate_types::{NodeId, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// After so many ticks it is asked what became of a request, and again after as many.
const ASK_TICKS: u64 = 5;
/// Requests asked about at a time, of each node; the others' turn comes when the oldest are answered.
const ASKED_MAX: usize = 1_024;

/// What other nodes wait for here.
#[derive(Default)]
pub(super) struct InHand {
    /// Of this node's own: those that another one has told not to have, and when it did first.
    doubted: BTreeMap<(NodeId, Ticket), Tick>,
    /// Until when it is answered.
    requests: BTreeMap<(NodeId, Ticket), Tick>,
}

impl InHand {
    /// A request came from another node.
    pub(super) fn take(&mut self, from: NodeId, ticket: Ticket, deadline: Tick) {
        self.requests.insert((from, ticket), deadline);
    }

    /// It is answered.
    pub(super) fn answered(&mut self, from: NodeId, ticket: Ticket) {
        self.requests.remove(&(from, ticket));
    }
}

impl<E: Engine> Host<E> {
    /// Every so often: asks what became of what was sent to other nodes a while ago.
    pub(super) fn tick_awaiting(&mut self) {
        let now = self.now;
        if !now.0.is_multiple_of(ASK_TICKS) {
            return;
        }
        self.in_hand.requests.retain(|_, deadline| now < *deadline);
        let here = self.groups.values().flat_map(|group| &group.forwarded);
        let afar = self.distant.values().flat_map(|distant| &distant.forwarded);
        let mut asked: BTreeMap<NodeId, BTreeSet<Ticket>> = BTreeMap::new();
        for (ticket, (to, work)) in here.chain(afar) {
            if now.since(work.received) >= ASK_TICKS {
                asked.entry(*to).or_default().insert(*ticket);
            }
        }
        let is_asked = |(to, ticket): &(NodeId, Ticket)| asked.get(to).is_some_and(|of| of.contains(ticket));
        self.in_hand.doubted.retain(|of, _| is_asked(of));
        for (to, tickets) in asked {
            let tickets = tickets.into_iter().take(ASKED_MAX).collect();
            self.out.send.push((to, PeerMessage::Awaiting { tickets }));
        }
    }

    /// Another node waits for these answers.
    pub(super) fn on_awaiting(&mut self, from: NodeId, mut tickets: Vec<Ticket>) {
        tickets.retain(|ticket| !self.in_hand.requests.contains_key(&(from, *ticket)));
        if !tickets.is_empty() {
            self.out.send.push((from, PeerMessage::NotInHand { tickets }));
        }
    }

    /// Another node was asked about these, and knows nothing of them.
    pub(super) fn on_not_in_hand(&mut self, from: NodeId, tickets: Vec<Ticket>) {
        for ticket in tickets {
            let now = self.now;
            let first = *self.in_hand.doubted.entry((from, ticket)).or_insert(now);
            // The same answer may come twice.
            if now.since(first) < ASK_TICKS {
                continue;
            }
            self.in_hand.doubted.remove(&(from, ticket));
            if let Some((id, work)) = self.take_forwarded(from, ticket) {
                self.ask_anew(id, from, work);
            }
        }
    }

    /// What was sent to this node is not waited for any longer: it may have been done or not.
    pub(super) fn forwards_lost(&mut self, node: NodeId) {
        self.distant_lost(node);
        let mut lost = Vec::new();
        for (id, group) in &self.groups {
            let of_node = group.forwarded.iter().filter(|(_, (to, _))| *to == node);
            lost.extend(of_node.map(|(ticket, _)| (*id, *ticket)));
        }
        for (id, ticket) in lost {
            self.forward_failed(id, ticket);
        }
    }
}
