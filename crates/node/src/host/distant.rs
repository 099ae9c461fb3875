//! Groups that have no replica on this node: who leads them, and requests for them.
//!
//! Who leads such a group is hearsay: the sequencer's node tells all members who registers, and whoever is asked in vain tells whom it knows to lead. Nothing rests on it: who is asked wrongly
//! refuses. Without any word the holders are asked in turns.

use super::Host;
use crate::effects::Ticket;
use crate::group::{Origin, Then, Work, may_change};
use crate::peer::PeerMessage;
use crate::transaction::{Phase, Share, TxnMessage};
use quorate_mvcc::engine::Engine;
use quorate_types::{Answer, Fault, GroupId, KeyspaceId, NodeId, Rejection, Revision, Tick, TxnId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Between two attempts to find the leader, in ticks.
const SEEK_TICKS: u64 = 3;

/// One of them.
#[derive(Default)]
pub(super) struct Distant {
    /// Requests that wait for a leader.
    waiting: VecDeque<Work>,
    /// Requests sent to who may lead: to whom, and what.
    pub(super) forwarded: BTreeMap<Ticket, (NodeId, Work)>,
    /// Which of the holders is asked next when nobody is known to lead.
    next: usize,
    /// Who has refused some of them in this tick.
    refused: (Tick, BTreeSet<NodeId>),
    /// Who was asked for votes in this tick because somebody said that it leads.
    asked: (Tick, BTreeSet<NodeId>),
}

impl Distant {
    pub(super) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }
}

impl<E: Engine> Host<E> {
    /// Who leads a group, as far as is known or heard.
    pub fn leader_of(&self, id: GroupId) -> Option<NodeId> {
        match self.groups.get(&id) {
            Some(group) => group.leader,
            None => self.leaders.get(&id).copied().filter(|leader| self.liveness.is_reachable(*leader)),
        }
    }

    /// Whether a group has no replica here, and is not to get one.
    pub(super) fn is_distant(&self, id: GroupId) -> bool {
        !self.groups.contains_key(&id)
            && self.roster.places.get(&id).is_some_and(|place| !place.holds(self.options.id))
    }

    /// Sends a request to the leader of a group that is not here.
    pub(super) fn send_afar(&mut self, id: GroupId, work: Work) {
        let Origin::Local(ticket) = work.origin else {
            // Whoever sent it here was wrong.
            if let Origin::Remote(node, _) = work.origin {
                self.tell_leader(id, node);
            }
            return self.reply(work.origin, Err(Rejection::LeaderChanged));
        };
        let Some(to) = self.leader_of(id).or_else(|| self.next_holder(id)) else {
            let distant = self.distant.entry(id).or_default();
            if distant.waiting.len() < self.options.waiting_max {
                distant.waiting.push_back(work);
            } else {
                self.reply(work.origin, Err(Rejection::Busy));
            }
            return;
        };
        let forwarded = &mut self.distant.entry(id).or_default().forwarded;
        if forwarded.len() >= self.options.inflight_max {
            return self.reply(work.origin, Err(Rejection::Busy));
        }
        let message = PeerMessage::Request { ticket, group: id, request: work.request.clone() };
        forwarded.insert(ticket, (to, work));
        self.out.send.push((to, message));
    }

    pub(super) fn next_holder(&mut self, id: GroupId) -> Option<NodeId> {
        let place = self.roster.places.get(&id)?;
        let holders: Vec<NodeId> =
            place.voters.iter().copied().filter(|voter| self.liveness.is_reachable(*voter)).collect();
        let distant = self.distant.entry(id).or_default();
        distant.next = distant.next.wrapping_add(1);
        holders.get(distant.next.checked_rem(holders.len())?).copied()
    }

    /// Tells a node that asked here in vain who leads.
    pub(super) fn tell_leader(&mut self, id: GroupId, node: NodeId) {
        if let Some(leader) = self.leader_of(id).filter(|leader| *leader != self.options.id) {
            self.out.send.push((node, PeerMessage::Leaders { leaders: vec![(id, leader)] }));
        }
    }

    /// Somebody says who leads.
    pub(super) fn on_leaders(&mut self, leaders: Vec<(GroupId, NodeId)>) -> Result<(), Fault> {
        for (id, leader) in leaders {
            let is_of_members = self.members.contains(&leader);
            let is_mapped = self.router.partitions(id.keyspace).contains(&id.partition);
            if self.groups.contains_key(&id) || !is_mapped || !is_of_members {
                continue;
            }
            if self.leaders.insert(id, leader) != Some(leader) {
                let (now, distant) = (self.now, self.distant.entry(id).or_default());
                if distant.asked.0 != now {
                    distant.asked = (now, BTreeSet::new());
                }
                // Where several take each other for the leader, each of the answers would have all of them asked again.
                if distant.asked.1.insert(leader) {
                    self.ask_again_for_votes(id);
                }
                self.seek(id)?;
            }
        }
        Ok(())
    }

    /// What leaders that registered lately are told to all members.
    pub(super) fn tell_leaders(&mut self) {
        let news = std::mem::take(&mut self.leaders_news);
        if !news.is_empty() {
            let leaders: Vec<(GroupId, NodeId)> = news.into_iter().collect();
            let message = PeerMessage::Leaders { leaders };
            self.out.send.extend(self.members.iter().map(|member| (*member, message.clone())));
        }
    }

    /// An attempt has waited in vain for votes: who is said to lead groups elsewhere may not, and who is asked wrongly and knows nobody says nothing. The
    /// holders are asked in turns until one of them knows.
    pub(super) fn doubt_leaders(&mut self, keyspace: KeyspaceId, txn: TxnId) {
        let Some(attempt) = self.attempts.get(&(keyspace, txn)) else { return };
        let silent = attempt.shares.iter().filter(|(_, share)| share.is_asked && share.vote.is_none());
        for partition in silent.map(|(partition, _)| *partition).collect::<Vec<_>>() {
            let id = GroupId { keyspace, partition };
            if self.is_distant(id) {
                // It may lead and keep the attempt waiting for locks: it is told before it is doubted.
                self.tell(keyspace, partition, TxnMessage::Finish { id: txn, effects: None });
                self.leaders.remove(&id);
            }
        }
    }

    /// Attempts that asked the wrong node for a vote ask the right one.
    fn ask_again_for_votes(&mut self, id: GroupId) {
        let is_open = |share: &Share| share.is_asked && share.vote.is_none();
        let mut asks: Vec<(TxnId, TxnMessage)> = Vec::new();
        for ((keyspace, txn), attempt) in &self.attempts {
            if *keyspace == id.keyspace
                && attempt.phase == Phase::Collecting
                && txn.home != id.partition
                && let Some(share) = attempt.shares.get(&id.partition).filter(|share| is_open(share))
            {
                let footprint = share.footprint.clone();
                let (wait, waited) = (attempt.in_order, self.now.since(attempt.work.received));
                let at = self.newest_at(*keyspace, txn.home);
                asks.push((*txn, TxnMessage::Prepare { id: *txn, footprint, wait, waited, at }));
            }
        }
        for (_, ask) in asks {
            self.tell(id.keyspace, id.partition, ask);
        }
    }

    /// Sends what waits for a group's leader, where one is known by now.
    fn seek(&mut self, id: GroupId) -> Result<(), Fault> {
        let Some(distant) = self.distant.get_mut(&id) else { return Ok(()) };
        for work in std::mem::take(&mut distant.waiting) {
            self.dispatch_again(id, work)?;
        }
        Ok(())
    }

    /// Every so often: what waits is sent on, what is late is refused, and what is not distant any more goes its ordinary way.
    pub(super) fn tick_distant(&mut self) -> Result<(), Fault> {
        if !self.now.0.is_multiple_of(SEEK_TICKS) {
            return Ok(());
        }
        let now = self.now;
        let mut late = Vec::new();
        for distant in self.distant.values_mut() {
            for work in std::mem::take(&mut distant.waiting) {
                if work.deadline <= now {
                    late.push((work, Rejection::NoLeader));
                } else {
                    distant.waiting.push_back(work);
                }
            }
            for (_, (_, work)) in distant.forwarded.extract_if(.., |_, (_, work)| work.deadline <= now) {
                let rejection =
                    if may_change(&work.request) { Rejection::Unknown } else { Rejection::Timeout };
                late.push((work, rejection));
            }
        }
        for (work, rejection) in late {
            let then = Then::Reply(work.origin, (Revision(0), Answer::Compact));
            self.reject(then, rejection);
        }
        let waiting = self.distant.iter().filter(|(_, distant)| !distant.waiting.is_empty());
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.seek(id)?;
        }
        self.distant.retain(|_, distant| !(distant.waiting.is_empty() && distant.forwarded.is_empty()));
        Ok(())
    }

    /// The answer to a request that was sent afar, if it was one.
    pub(super) fn take_distant(&mut self, from: NodeId, ticket: Ticket) -> Option<(GroupId, Work)> {
        self.distant.iter_mut().find_map(|(id, distant)| {
            let is_from = distant.forwarded.get(&ticket).is_some_and(|(to, _)| *to == from);
            is_from.then(|| distant.forwarded.remove(&ticket)).flatten().map(|(_, work)| (*id, work))
        })
    }

    /// A request that was sent afar did nothing there: it is tried elsewhere.
    pub(super) fn wait_afar(&mut self, id: GroupId, from: NodeId, work: Work) {
        if self.leaders.get(&id) == Some(&from) {
            self.leaders.remove(&id);
        }
        let (now, leader) = (self.now, self.leader_of(id));
        let distant = self.distant.entry(id).or_default();
        if distant.refused.0 != now {
            distant.refused = (now, BTreeSet::new());
        }
        distant.refused.1.insert(from);
        // At once, but not to and fro between two that each take the other for the leader.
        if leader.is_some_and(|leader| !distant.refused.1.contains(&leader)) {
            self.send_afar(id, work);
        } else {
            distant.waiting.push_back(work);
        }
    }

    /// These are the members now; nothing is to be had from others.
    pub(super) fn forget_distant_leaders(&mut self) {
        self.leaders.retain(|_, leader| self.members.contains(leader));
        let sent = self.distant.values().flat_map(|distant| distant.forwarded.values());
        let gone: BTreeSet<NodeId> =
            sent.map(|(to, _)| *to).filter(|to| !self.members.contains(to)).collect();
        for node in gone {
            self.distant_lost(node);
        }
    }

    /// A node is gone, or it is no member any more: what was sent there may have been done or not.
    pub(super) fn distant_lost(&mut self, node: NodeId) {
        let mut lost = Vec::new();
        for (id, distant) in &mut self.distant {
            for (_, (_, work)) in distant.forwarded.extract_if(.., |_, (to, _)| *to == node) {
                lost.push((*id, work));
            }
        }
        for (id, work) in lost {
            self.ask_anew(id, node, work);
        }
    }

    /// The keyspace is deleted.
    pub(super) fn end_distant(&mut self, keyspace: KeyspaceId) {
        self.leaders.retain(|id, _| id.keyspace != keyspace);
        let ended: Vec<(GroupId, Distant)> =
            self.distant.extract_if(.., |id, _| id.keyspace == keyspace).collect();
        for (_, distant) in ended {
            let forwarded = distant.forwarded.into_values().map(|(_, work)| work);
            for work in distant.waiting.into_iter().chain(forwarded) {
                self.reply(work.origin, Err(Rejection::KeyspaceNotFound));
            }
        }
    }
}
