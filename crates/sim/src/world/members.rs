//! Members that come, are lost for good, drain and leave, while everything else goes on; and where the groups must be in the end.
//!
//! At most one member at a time is lost for good and not replaced yet: what a majority takes with it is gone. Somebody gives the orders that
//! an operator would: a lost member is told to leave some time after, so that a node which lost its disk is not kept waiting for it.
//!
//! Caveat: a node answers clients of a keyspace only while it has all of its groups, so calls and watches are for such nodes.

use super::{Node, World};
use crate::checker::Violation;
use crate::random::Random;
use quorate_node::{Options, Standing, Ticket};
use quorate_types::member::Standing as Judgement;
use quorate_types::request::{PutLease, PutRequest};
use quorate_types::{Encode, GroupId, KeyspaceId, Member, NodeId, PartitionId, Place, Request};
use std::collections::{BTreeMap, BTreeSet};

/// Tickets of these orders are above all others.
const FIRST_TICKET: u64 = 1 << 41;
/// An order that shows no effect is given again after so long.
const AGAIN_TICKS: u64 = 60;
/// After the last move calls are to be served again within this.
pub(super) const SETTLED_TICKS: u64 = 200;

/// Who gives these orders.
#[derive(Debug)]
pub(super) struct Members {
    /// Of its own: runs without such orders are what they are without it.
    random: Random,
    founders: u64,
    /// So many nodes join.
    joiners: u64,
    grace_ticks: u64,
    /// How often something is ordered, in thousandths of a tick.
    rate: u64,
    lose: u64,
    drain: u64,
    next_ticket: u64,
    /// A node whose row is wanted, and when it was asked for.
    joining: Option<(NodeId, u64)>,
    /// Dead for good.
    pub(super) lost: BTreeSet<NodeId>,
    /// Their rows are gone.
    pub(super) removed: BTreeSet<NodeId>,
    /// Standings that were ordered and do not show yet, and when.
    ordered: BTreeMap<NodeId, (Judgement, u64)>,
    /// How far the meta group was applied anywhere.
    seen: u64,
    /// When a move was last seen under way.
    pub(super) moved_tick: u64,
}

/// The rows as whoever has applied most knows them.
struct View {
    applied: u64,
    members: Vec<Member>,
    places: BTreeMap<GroupId, Place>,
}

impl Members {
    pub(super) fn new(seed: u64, founders: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6d65_6d62);
        let happen = founders == 3 && random.chance(400);
        let mut rate = |max: u64| if random.chance(700) { 1 + random.below(max) } else { 0 };
        Self {
            rate: if happen { 1 + rate(6) } else { 0 },
            lose: rate(700),
            drain: rate(500),
            joiners: 1 + rate(2).min(1) + rate(2).min(1),
            grace_ticks: 100 + rate(300),
            random,
            founders,
            next_ticket: FIRST_TICKET,
            joining: None,
            lost: BTreeSet::new(),
            removed: BTreeSet::new(),
            ordered: BTreeMap::new(),
            seen: 0,
            moved_tick: 0,
        }
    }

    /// None at all.
    pub(super) fn none(founders: u64) -> Self {
        Self { rate: 0, ..Self::new(0, founders) }
    }

    pub(super) fn happen(&self) -> bool {
        self.rate > 0
    }

    pub(super) fn set(&self, options: &mut Options) {
        options.replicas = self.founders as usize;
        if self.happen() {
            options.grace_ticks = self.grace_ticks;
        }
    }

    /// What a node is told of the cluster.
    pub(super) fn told(&self, nodes: &[Node]) -> quorate_node::Cluster {
        let founders = (1..=self.founders).map(|id| member(NodeId(id)));
        let cluster = quorate_node::Cluster::of_founders(founders.collect());
        let members = nodes.iter().map(|node| node.id).filter(|id| !self.removed.contains(id));
        quorate_node::Cluster { members: members.map(member).collect(), ..cluster }
    }
}

fn member(id: NodeId) -> Member {
    Member::new(id, id.to_string(), "")
}

impl World {
    /// Whether the node has a part in all groups of the keyspace, for all it knows.
    pub(super) fn is_holder(&self, at: usize) -> bool {
        let (node, happen) = (&self.nodes[at], self.members.happen());
        let Some(running) = node.running.as_ref().filter(|_| happen) else { return true };
        let mut groups =
            running.host.places().iter().filter(|(id, _)| id.keyspace == KeyspaceId::DEFAULT).peekable();
        // One that has not heard of any is a founder of a new cluster, or has just joined.
        let is_told = groups.peek().is_some() || node.id.0 <= self.members.founders;
        is_told && groups.all(|(_, place)| place.voters.contains(&node.id))
    }

    fn view(&self) -> Option<View> {
        let mut newest: Option<View> = None;
        for running in self.nodes.iter().filter_map(|node| node.running.as_ref()) {
            let statuses = running.host.status();
            let Some(meta) = statuses.iter().find(|status| status.group == GroupId::META) else { continue };
            let applied = meta.consensus.applied.0;
            if newest.as_ref().is_none_or(|view| view.applied < applied) {
                let (members, places) = (running.host.members(), running.host.places().clone());
                newest = Some(View { applied, members, places });
            }
        }
        newest.filter(|view| view.places.contains_key(&GroupId::META))
    }

    /// Looks where everything is, and orders something now and then.
    pub(super) fn order_members(&mut self) -> Result<(), Violation> {
        if !self.members.happen() {
            return Ok(());
        }
        // While those who have applied most are down, nobody can tell.
        let seen = self.members.seen;
        let Some(view) = self.view().filter(|view| view.applied >= seen) else { return Ok(()) };
        self.members.seen = view.applied;
        self.note_view(&view);
        if let Some((id, asked)) = self.members.joining {
            if view.members.iter().any(|member| member.id == id) {
                self.members.joining = None;
                self.begin_node(id);
            } else if self.now > asked + AGAIN_TICKS && self.is_faulty {
                self.members.joining = Some((id, self.now));
                self.put_member(member(id))?;
            }
        }
        for (id, (standing, asked)) in self.members.ordered.clone() {
            match view.members.iter().find(|member| member.id == id) {
                Some(member) if member.standing != standing => {
                    if self.now > asked + AGAIN_TICKS {
                        self.members.ordered.insert(id, (standing, self.now));
                        self.put_member(Member { standing, ..member.clone() })?;
                    }
                }
                _ => {
                    self.members.ordered.remove(&id);
                }
            }
        }
        let rate = self.members.rate;
        if !self.is_faulty || !self.members.random.chance(rate) {
            return Ok(());
        }
        let joined = self.nodes.len() as u64 - self.members.founders;
        if joined < self.members.joiners && self.members.joining.is_none() && self.members.random.chance(600)
        {
            let id = NodeId(self.nodes.len() as u64 + 1);
            self.members.joining = Some((id, self.now));
            return self.put_member(member(id));
        }
        if self.members.random.chance(self.members.lose) {
            self.lose_for_good(&view);
        }
        self.judge(&view)
    }

    fn note_view(&mut self, view: &View) {
        if view.places.values().any(|place| place.target.is_some()) {
            self.members.moved_tick = self.now;
        }
        for node in &self.nodes {
            if !view.members.iter().any(|member| member.id == node.id) && self.members.removed.insert(node.id)
            {
                self.counts.members_removed += 1;
            }
        }
        // Whoever was removed is switched off by its operator some time.
        let removed: Vec<usize> = (0..self.nodes.len())
            .filter(|at| {
                let node = &self.nodes[*at];
                self.members.removed.contains(&node.id) && !self.members.lost.contains(&node.id)
            })
            .collect();
        for at in removed {
            if !self.is_faulty || self.members.random.chance(10) {
                self.end_node(at);
            }
        }
    }

    fn begin_node(&mut self, id: NodeId) {
        let node = Node::new(id, Standing::Admitted(BTreeMap::new()), self.members.random.below(100) + 950);
        self.nodes.push(node);
        self.counts.members_joined += 1;
    }

    /// The node never comes back.
    fn end_node(&mut self, at: usize) {
        self.crash(at);
        self.nodes[at].down_until = u64::MAX;
        self.nodes[at].is_forgetful = false;
        self.nodes[at].resuming.clear();
        self.members.lost.insert(self.nodes[at].id);
    }

    fn lose_for_good(&mut self, view: &View) {
        let holds = |id: &NodeId| view.places.values().any(|place| place.holds(*id));
        let is_replaced = !self.members.lost.iter().any(holds);
        let is_moving = view.places.values().any(|place| place.target.is_some());
        let can = |member: &&Member| {
            let node = self.nodes.iter().find(|node| node.id == member.id);
            member.standing == Judgement::Active && node.is_some_and(|node| node.running.is_some())
        };
        let is_spare = |member: &&Member| can(member) && !holds(&member.id);
        let has_spare = view.members.iter().any(|member| is_spare(&member));
        let is_delicate = self.nodes.iter().any(|node| node.is_forgetful);
        // In the middle of a move, too, now and then; but while there is a target those of an earlier one may count, who are in no row.
        let is_too_much = is_moving && (!self.members.lost.is_empty() || self.members.random.chance(500));
        if !is_replaced || !has_spare || is_delicate || is_too_much {
            return;
        }
        let at = self.members.random.below(self.nodes.len() as u64) as usize;
        let id = self.nodes[at].id;
        if self.nodes[at].running.is_some() && !self.members.lost.contains(&id) {
            self.end_node(at);
            self.counts.members_lost += 1;
        }
    }

    /// Somebody is to hold nothing, or something again; one that is dead for good is to leave.
    fn judge(&mut self, view: &View) -> Result<(), Violation> {
        let at = self.members.random.below(view.members.len() as u64) as usize;
        let member = view.members[at].clone();
        let is_lost = self.members.lost.contains(&member.id);
        let actives =
            view.members.iter().filter(|member| member.standing == Judgement::Active).count() as u64;
        let may_drain = self.members.random.chance(self.members.drain) && actives > self.members.founders;
        let standing = match member.standing {
            Judgement::Lost if is_lost => Judgement::Leaving,
            Judgement::Active if may_drain && self.members.random.chance(250) => Judgement::Leaving,
            Judgement::Active if may_drain => Judgement::Draining,
            Judgement::Draining => Judgement::Active,
            _ => return Ok(()),
        };
        self.members.ordered.insert(member.id, (standing, self.now));
        self.put_member(Member { standing, ..member })
    }

    fn put_member(&mut self, member: Member) -> Result<(), Violation> {
        let at = self.members.random.below(self.nodes.len() as u64) as usize;
        self.members.next_ticket += 1;
        let ticket = Ticket(self.members.next_ticket);
        let (key, value) = (Member::row_key(member.id), Some(member.encoded()));
        let put = Request::Put(PutRequest { key, value, lease: PutLease::Detach, previous: false });
        let Some(running) = self.awake(at) else { return Ok(()) };
        let asked = running.host.request(ticket, KeyspaceId::SYSTEM, put);
        self.settle(at, asked)
    }

    /// After healing everything is where the rows say, with nobody on the way, and nothing is on a member that is dead for good.
    pub(super) fn check_members(&self) -> Result<(), Violation> {
        if !self.members.happen() {
            return Ok(());
        }
        let Some(view) = self.view() else { return Ok(()) };
        for (id, place) in &view.places {
            if place.target.is_some() {
                return Err(
                    self.violation(format!("group {id} was not moved: {place:?}, {:?}", view.members))
                );
            }
        }
        for node in self.nodes.iter().filter(|node| !self.members.lost.contains(&node.id)) {
            let Some(running) = &node.running else { continue };
            for status in running.host.status() {
                let place = view.places.get(&status.group);
                if status.group != GroupId::META && place.is_none_or(|place| !place.holds(node.id)) {
                    return Err(self.violation(format!("{} kept its replica of {}", node.id, status.group)));
                }
            }
        }
        Ok(())
    }

    /// The partitions that a node has to have, of these.
    pub(super) fn placed(&self, node: &Node, named: &BTreeSet<PartitionId>) -> BTreeSet<PartitionId> {
        let places = node.running.as_ref().map(|running| running.host.places());
        let holds = |partition: &PartitionId| {
            let id = GroupId { keyspace: KeyspaceId::DEFAULT, partition: *partition };
            places.and_then(|places| places.get(&id)).is_some_and(|place| place.holds(node.id))
        };
        named.iter().copied().filter(holds).collect()
    }
}

/// Whether the answer is to one of these orders.
pub(super) fn is_order(ticket: Ticket) -> bool {
    ticket.0 >= FIRST_TICKET
}
