//! Partitions that are split in the middle of everything, and what must have become of it in the end.

use super::World;
use super::node::Running;
use crate::checker::Violation;
use crate::random::Random;
use quorate_node::administration::Step;
use quorate_node::{Administration, Order, Ticket};
use quorate_types::{GroupId, KeyspaceId, NodeId, PartitionId, Rejection, Reply, Request};
use std::collections::{BTreeMap, BTreeSet};

/// Partitions that a run ends with at most, so that they are split again while others go on as they are.
const PARTITIONS_MAX: usize = 24;
/// The same where leaders stay where they are, or partitions are dealt.
const SPREAD_PARTITIONS_MAX: usize = 6;
/// Tickets of orders are above all calls'.
const FIRST_TICKET: u64 = 1 << 40;

/// Who gives the orders.
#[derive(Debug)]
pub(super) struct Splits {
    /// Of its own: runs without splits are what they are without it.
    random: Random,
    /// How often a split is ordered, in thousandths of a tick.
    rate: u64,
    /// How often a node then hears nothing of the map or of a partition for a while, in thousandths of the orders.
    late: u64,
    next_ticket: u64,
}

impl Splits {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed_5917);
        let rate = if random.chance(500) { 1 + random.below(12) } else { 0 };
        let late = if random.chance(600) { random.below(700) } else { 0 };
        Self { random, rate, late, next_ticket: FIRST_TICKET }
    }

    /// How often something happens that only a keyspace of several partitions knows, where they come from splits alone.
    pub(super) fn rate(&mut self, max: u64) -> u64 {
        if self.happen() && self.random.chance(600) { self.random.below(max) } else { 0 }
    }

    /// None at all.
    pub(super) fn none() -> Self {
        Self { rate: 0, ..Self::new(0) }
    }

    pub(super) fn happen(&self) -> bool {
        self.rate > 0
    }
}

/// What one node was ordered.
#[derive(Debug, Default)]
pub(super) struct Orders {
    asked: BTreeMap<Ticket, Administration>,
    to_ask: Vec<(Administration, Request)>,
}

impl Orders {
    /// An answer came, if it is one to an order: what it leads to is asked in the next tick.
    pub(super) fn answered(&mut self, ticket: Ticket, outcome: &Result<Reply, Rejection>) -> bool {
        let Some(mut order) = self.asked.remove(&ticket) else { return ticket.0 >= FIRST_TICKET };
        if let Ok(reply) = outcome
            && let Ok(Step::Ask(request)) = order.answered(reply.clone())
        {
            self.to_ask.push((order, request));
        }
        true
    }
}

impl World {
    /// Now and then one of the partitions is to be split.
    pub(super) fn split_something(&mut self) -> Result<(), Violation> {
        let rate = self.splits.rate;
        let are_apart = self.are_leaders_spread() || self.members.are_dealt();
        let most = if are_apart { SPREAD_PARTITIONS_MAX } else { PARTITIONS_MAX };
        if self.splits.random.chance(rate) && self.groups().len() < most {
            let at = self.splits.random.below(self.nodes.len() as u64) as usize;
            let known = self.groups().len() as u64;
            let any = PartitionId(self.splits.random.below(known) as u32);
            let partition = Some(any).filter(|_| self.splits.random.chance(500));
            let order = Administration::begin(Order::Split { name: "default".into(), partition });
            if let (Ok(order), Some(running)) = (order, self.awake(at)) {
                running.orders.to_ask.push(order);
            }
            self.be_late();
        }
        for at in 0..self.nodes.len() {
            let orders = self.awake(at).map(|running| std::mem::take(&mut running.orders.to_ask));
            for (order, request) in orders.unwrap_or_default() {
                self.splits.next_ticket += 1;
                let ticket = Ticket(self.splits.next_ticket);
                let Some(Running { host, orders, .. }) = self.awake(at) else { continue };
                orders.asked.insert(ticket, order);
                let asked = host.request(ticket, KeyspaceId::SYSTEM, request);
                self.settle(at, asked)?;
            }
        }
        Ok(())
    }

    /// One node hears nothing of the map, or of one partition, while splits go on elsewhere: it has the new map and not the state, or a
    /// snapshot's state and not the map.
    fn be_late(&mut self) {
        let groups = self.all_groups();
        let random = &mut self.splits.random;
        if !random.chance(self.splits.late) {
            return;
        }
        let group = if random.chance(400) {
            GroupId::META
        } else {
            groups[random.below(groups.len() as u64) as usize]
        };
        let node = NodeId(1 + random.below(self.nodes.len() as u64));
        let until = self.now + 20 + random.below(300);
        self.muted.insert((group, node), (until, random.chance(300)));
    }

    /// After healing no split is half done, and all nodes have the partitions that the map names.
    pub(super) fn check_splits(&mut self) -> Result<(), Violation> {
        let mut found: Option<usize> = None;
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            let Some(map) = running.host.maps().find(|map| map.id == KeyspaceId::DEFAULT) else {
                return Err(self.violation(format!("node {} has no map", node.id)));
            };
            if map.partitions.iter().any(|partition| partition.child().is_some()) {
                return Err(self.violation(format!("at {} a split is not finished: {map:?}", node.id)));
            }
            let named: BTreeSet<PartitionId> = map.partitions.iter().map(|partition| partition.id).collect();
            let statuses = running.host.status().into_iter();
            let open: BTreeSet<PartitionId> = statuses
                .filter(|status| status.group.keyspace == KeyspaceId::DEFAULT)
                .map(|status| status.group.partition)
                .collect();
            if self.members.lost.contains(&node.id) {
                continue;
            }
            if self.placed(node, &named) != open || *found.get_or_insert(named.len()) != named.len() {
                return Err(self.violation(format!("node {} has {open:?} open of {named:?}", node.id)));
            }
        }
        self.counts.splits = (found.unwrap_or_default() as u64).saturating_sub(u64::from(self.partitions));
        Ok(())
    }
}
