//! Members that come, are lost for good, drain and leave, while everything else goes on; and where the groups must be in the end.
//!
//! At most one member at a time is lost for good and not replaced yet: what a majority takes with it is gone. Somebody gives the orders that
//! an operator would: a lost member is told to leave some time after, so that a node which lost its disk is not kept waiting for it.
//!
//! In half of these worlds, and in half of those that begin with five members, partitions are dealt: each is held by three, and led by whom its row
//! says. Then any node is called, whatever it holds, and who is lost is replaced by others that hold something already.
//!
//! Caveat: watches are only for nodes that have all of a keyspace, and without dealing calls, too.

use super::World;
use super::node::{Node, Running};
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
/// With so many replicas of each partition where they are dealt.
const DEALT_REPLICAS: u64 = 3;
/// Not with many partitions: each is led on another node, and transactions over all of them take their locks one after the other.
const DEALT_PARTITIONS_MAX: u32 = 4;
/// After the last move calls are to be served again within this.
pub(super) const SETTLED_TICKS: u64 = 200;

/// Who gives these orders.
#[derive(Debug)]
pub(super) struct Members {
    /// Of its own: runs without such orders are what they are without it.
    random: Random,
    founders: u64,
    /// Whether partitions are dealt over all members.
    is_dealt: bool,
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
    /// When leaderships were handed over, since the cluster healed.
    pub(super) handed_over: Vec<u64>,
}

/// The rows as whoever has applied most knows them.
struct View {
    applied: u64,
    members: Vec<Member>,
    places: BTreeMap<GroupId, Place>,
}

impl Members {
    pub(super) fn new(seed: u64, founders: u64, partitions: u32) -> Self {
        let mut random = Random::new(seed ^ 0x6d65_6d62);
        let can_deal = partitions <= DEALT_PARTITIONS_MAX && Random::new(seed ^ 0x6465_616c).chance(500);
        let is_large = founders > DEALT_REPLICAS && can_deal;
        let happen = (founders == 3 || is_large) && random.chance(400);
        let mut rate = |max: u64| if random.chance(700) { 1 + random.below(max) } else { 0 };
        Self {
            rate: if happen { 1 + rate(6) } else { 0 },
            lose: rate(700),
            drain: rate(500),
            joiners: 1 + rate(2).min(1) + rate(2).min(1),
            grace_ticks: 100 + rate(300),
            random,
            founders,
            is_dealt: is_large || (happen && can_deal),
            next_ticket: FIRST_TICKET,
            joining: None,
            lost: BTreeSet::new(),
            removed: BTreeSet::new(),
            ordered: BTreeMap::new(),
            seen: 0,
            moved_tick: 0,
            handed_over: Vec::new(),
        }
    }

    /// None at all.
    pub(super) fn none(founders: u64) -> Self {
        Self { rate: 0, is_dealt: false, ..Self::new(0, founders, 1) }
    }

    pub(super) fn happen(&self) -> bool {
        self.rate > 0
    }

    /// Whether groups are moved between members.
    pub(super) fn move_groups(&self) -> bool {
        self.happen() || self.is_dealt
    }

    pub(super) fn are_dealt(&self) -> bool {
        self.is_dealt
    }

    /// How many members shall hold each partition.
    fn replicas(&self) -> u64 {
        if self.is_dealt { DEALT_REPLICAS } else { self.founders }
    }

    pub(super) fn set(&self, options: &mut Options) {
        options.replicas = self.replicas() as usize;
        options.spread_replicas = self.is_dealt;
        if self.happen() {
            options.grace_ticks = self.grace_ticks;
        }
    }

    /// What a node is told of the cluster whenever it starts: a founder who founded it, whatever has become of them, and a node that came
    /// later who was there then.
    pub(super) fn told(&self, node: &Node) -> quorate_node::Cluster {
        let founders = (1..=self.founders).map(|id| member(NodeId(id)));
        let cluster = quorate_node::Cluster::of_founders(founders.collect());
        match node.welcomed_by.is_empty() {
            true => cluster,
            false => quorate_node::Cluster {
                members: node.welcomed_by.iter().copied().map(member).collect(),
                ..cluster
            },
        }
    }
}

fn member(id: NodeId) -> Member {
    Member::new(id, id.to_string(), "")
}

impl World {
    /// When leaderships were handed over, since the cluster healed.
    pub(crate) fn hand_overs(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.handed_over.iter().copied()
    }

    /// Whether the node has a part in all groups of the keyspace, for all it knows.
    pub(super) fn is_holder(&self, at: usize) -> bool {
        let (node, can_lack) = (&self.nodes[at], self.members.move_groups());
        let Some(running) = node.running.as_ref().filter(|_| can_lack) else { return true };
        let mut groups =
            running.host.places().iter().filter(|(id, _)| id.keyspace == KeyspaceId::DEFAULT).peekable();
        // One that has not heard of any is a founder of a new cluster, or has just joined.
        let is_told = groups.peek().is_some() || node.id.0 <= self.members.founders;
        is_told && groups.all(|(_, place)| place.voters.contains(&node.id))
    }

    /// Whether clients call the node: where partitions are dealt any that knows where they are.
    pub(super) fn is_called(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let is_told = || {
            let places = node.running.as_ref().map(|running| running.host.places());
            places.is_some_and(|places| places.keys().any(|id| id.keyspace == KeyspaceId::DEFAULT))
        };
        if self.members.is_dealt {
            node.id.0 <= self.members.founders || is_told()
        } else {
            self.is_holder(at)
        }
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
        if !self.members.move_groups() {
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
        if !self.is_faulty {
            return self.settle_members(&view);
        }
        if !self.members.random.chance(rate) {
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

    /// What an operator does when all is quiet: one that was to be emptied and is dead for good is let go, and where too few are left to hold
    /// everything, they hold it again. Else a node that has forgotten what it promised waits for the dead one for ever.
    fn settle_members(&mut self, view: &View) -> Result<(), Violation> {
        let is_active = |member: &&Member| member.standing == Judgement::Active;
        let actives = view.members.iter().filter(is_active).count() as u64;
        for member in view.members.iter().filter(|member| member.standing == Judgement::Draining) {
            let is_lost = self.members.lost.contains(&member.id);
            if self.members.ordered.contains_key(&member.id)
                || (!is_lost && actives >= self.members.replicas())
            {
                continue;
            }
            let standing = if is_lost { Judgement::Leaving } else { Judgement::Active };
            self.members.ordered.insert(member.id, (standing, self.now));
            self.put_member(Member { standing, ..member.clone() })?;
        }
        Ok(())
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
        let mut node =
            Node::new(id, Standing::Admitted(BTreeMap::new()), self.members.random.below(100) + 950);
        let here = self.nodes.iter().map(|node| node.id).filter(|id| !self.members.removed.contains(id));
        node.welcomed_by = here.chain([id]).collect();
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

    /// Whether some group has so few voters, as any node knows it, that none of them may forget what it has: by its row, or, while they are replaced, by a
    /// log. A row may have another target by then.
    pub(super) fn is_on_few(&self, id: NodeId) -> bool {
        let are_few = |voters: &Vec<NodeId>| voters.len() < 3 && voters.contains(&id);
        let knows = |running: &Running| {
            running.host.places().iter().any(|(group, place)| {
                let in_log = running.host.configuration(*group);
                are_few(&place.voters)
                    || place.target.as_ref().is_some_and(are_few)
                    || in_log.is_some_and(|it| are_few(&it.voters) || are_few(&it.outgoing))
            })
        };
        self.members.move_groups() && self.nodes.iter().filter_map(|node| node.running.as_ref()).any(knows)
    }

    /// Whether a node that forgets all that it has can ask somebody: one that it is told of whenever it starts, who is a member and stays one,
    /// also if `gone` leaves.
    pub(super) fn can_ask(&self, node: &Node, gone: Option<NodeId>) -> bool {
        let running = || self.nodes.iter().filter_map(|node| node.running.as_ref());
        let leaving: Vec<NodeId> = running()
            .flat_map(|running| running.host.members())
            .filter(|member| member.standing == Judgement::Leaving)
            .map(|member| member.id)
            .collect();
        let stays = |id: &NodeId| {
            let is_leaving =
                leaving.contains(id) || matches!(self.members.ordered.get(id), Some((Judgement::Leaving, _)));
            let is_away = is_leaving || self.members.removed.contains(id) || self.members.lost.contains(id);
            *id != node.id && Some(*id) != gone && !is_away
        };
        self.members.told(node).members.iter().any(|member| stays(&member.id))
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
        // Where partitions are dealt, who has something already gets more.
        let enough = view.members.iter().filter(can).count() as u64 > self.members.replicas();
        let has_spare =
            view.members.iter().any(|member| is_spare(&member)) || (self.members.is_dealt && enough);
        let is_delicate = self.nodes.iter().any(Node::is_poor);
        // In the middle of a move, too, now and then; but while there is a target those of an earlier one may count, who are in no row.
        let is_too_much = is_moving && (!self.members.lost.is_empty() || self.members.random.chance(500));
        if !is_replaced || !has_spare || is_delicate || is_too_much {
            return;
        }
        let at = self.members.random.below(self.nodes.len() as u64) as usize;
        let id = self.nodes[at].id;
        // Of two voters, or of two that are to be, none may go.
        if self.nodes[at].running.is_some() && !self.members.lost.contains(&id) && !self.is_on_few(id) {
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
        let may_drain = self.members.random.chance(self.members.drain) && actives > self.members.replicas();
        let is_asked =
            |node: &Node| (node.is_forgetful || node.is_spoilt) && !self.can_ask(node, Some(member.id));
        let may_drain = may_drain && !self.nodes.iter().any(is_asked);
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
        if !self.members.move_groups() {
            return Ok(());
        }
        let Some(view) = self.view() else { return Ok(()) };
        for (id, place) in &view.places {
            if place.target.is_some() {
                let lost = &self.members.lost;
                return Err(self.violation(format!(
                    "group {id} was not moved: {:?}, {:?}, dead for good are {lost:?}",
                    view.places, view.members
                )));
            }
        }
        if self.members.is_dealt {
            self.check_dealt(&view)?;
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

    /// Each partition is held by as many members as there shall be, none of them dead, and led by whom its row says.
    fn check_dealt(&self, view: &View) -> Result<(), Violation> {
        let active = view.members.iter().filter(|member| member.standing == Judgement::Active).count() as u64;
        if active <= self.members.replicas() {
            return Ok(());
        }
        for (id, place) in view.places.iter().filter(|(id, _)| **id != GroupId::META) {
            let has_dead = place.voters.iter().any(|voter| self.members.lost.contains(voter));
            if place.voters.len() as u64 != self.members.replicas() || has_dead {
                return Err(
                    self.violation(format!("group {id} is held by too few: {place:?}, {:?}", view.members))
                );
            }
            let leads = |leader: NodeId| self.leader_of(*id).is_some_and(|at| self.nodes[at].id == leader);
            if !place.leader.is_some_and(leads) {
                return Err(self.violation(format!("group {id} is not led by whom its row says: {place:?}")));
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
