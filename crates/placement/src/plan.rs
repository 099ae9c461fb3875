//! The table of replicas and leaders, and what has to move for it.
//!
//! Few things have to be placed (partitions x replicas), by one authority, and everybody knows the table anyway. So it need not be
//! a hash that everybody can compute, and can be the best there is: first a flow for replicas (`replicas.rs`), then one for
//! leaders among them (`leaders.rs`). Distinct nodes and evenly filled zones come before balance, balance before movement.
//!
//! Invariants:
//! * A row has distinct nodes, rising, as many as wanted; fewer only where there are fewer nodes.
//! * No zone has more than `ceil(replicas / zones)` of a row, unless other zones have too few nodes.
//! * An active node has its fair share of replicas, rounded down or up; no table that keeps to this moves fewer.
//! * The table depends on what is asked, not on the order in which members are named; and a plan of a plan's table moves nothing.
//!
//! From: Dynamo's third strategy (DeCandia et al. 2007, 6.2), fixed partitions and a table; and Garage's layout (Quentin,
//! Dufour, Mory, "Optimal data placement for Garage"), which computes the table by flows with zones and least movement.
//!
//! Caveats: fairness is among members and zones as they are; a zone that must hold a replica of everything holds it, however
//! light its nodes. Loads count partitions, not their size or use. Everything is moved that balance asks for, however many at a
//! time are wise: the caller carries moves out one after the other, and may plan anew in between.

use crate::node::check;
use crate::share::Share;
use crate::{Member, Node, NodeId, PARTITIONS_MAX, PlacementError, REPLICAS_MAX, Ring, Standing};
use crate::{leaders, replicas};
use std::collections::{BTreeMap, BTreeSet};

/// Virtual nodes of the ring that says who is asked first. It need not be even, for shares are the flow's affair; but with few
/// of them the same nodes follow each other everywhere: with 16, two of 12 nodes shared 1 to 30 of 256 partitions, with 64 it
/// is 4 to 18.
const TOKENS: u32 = 64;

/// Who holds a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Nodes with a replica.
    pub replicas: Vec<NodeId>,
    /// Which of them shall lead; in an old table, which leads.
    pub leader: Option<NodeId>,
}

/// What changes for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The row of the table.
    pub partition: usize,
    /// Nodes that get a replica.
    pub joins: Vec<NodeId>,
    /// Nodes that give theirs away, or lost it.
    pub leaves: Vec<NodeId>,
    /// The new leader, if it is another one than before.
    pub leader: Option<NodeId>,
}

/// What an active node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The node.
    pub node: NodeId,
    /// Its replicas.
    pub replicas: u64,
    /// How many of those lead.
    pub leaders: u64,
    /// Thousandths of a replica that would be its fair share.
    pub replicas_fair_milli: u64,
    /// Thousandths of a leader that would be its fair share.
    pub leaders_fair_milli: u64,
}

/// How far nodes are from their fair shares, in thousandths of them: 1,000 is exact. Nodes whose share is less than one
/// replica do not count, for they cannot come near it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The fullest node, rounded up.
    pub most_per_mille: u64,
    /// The emptiest node, rounded down.
    pub least_per_mille: u64,
}

impl Balance {
    /// Of nodes that each have so many, and so many thousandths as their fair share.
    ///
    /// ```
    /// use quorate_placement::Balance;
    ///
    /// let balance = Balance::of([(11, 10_000), (9, 10_000)].into_iter());
    /// assert_eq!(balance, Balance { most_per_mille: 1_100, least_per_mille: 900 });
    /// ```
    pub fn of(loads: impl Iterator<Item = (u64, u64)> + Clone) -> Self {
        let counting = loads.filter(|(_, fair)| *fair >= 1_000);
        let most = counting.clone().map(|(load, fair)| (load * 1_000_000).div_ceil(fair)).max();
        let least = counting.map(|(load, fair)| load * 1_000_000 / fair).min();
        Self { most_per_mille: most.unwrap_or(1_000), least_per_mille: least.unwrap_or(1_000) }
    }
}

/// A table, how even it is, and what it takes to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// A row for each partition.
    pub table: Vec<Assignment>,
    /// The rows that change, rising.
    pub moves: Vec<Move>,
    /// Rows with fewer replicas than wanted, or with some on draining nodes, since there are too few others.
    pub under_replicated: Vec<usize>,
    /// The active nodes, by id.
    pub loads: Vec<Load>,
}

impl Plan {
    /// How many replicas have to be made.
    pub fn replicas_moved(&self) -> usize {
        self.moves.iter().map(|change| change.joins.len()).sum()
    }

    /// How many leaders change.
    pub fn leaders_moved(&self) -> usize {
        self.moves.iter().filter(|change| change.leader.is_some()).count()
    }

    /// How even replicas are.
    pub fn replica_balance(&self) -> Balance {
        Balance::of(self.loads.iter().map(|load| (load.replicas, load.replicas_fair_milli)))
    }

    /// How even leaders are.
    pub fn leader_balance(&self) -> Balance {
        Balance::of(self.loads.iter().map(|load| (load.leaders, load.leaders_fair_milli)))
    }
}

/// Places `wanted` replicas of each of `partitions` partitions on `members`, moving as little of the `old` table as balance allows.
///
/// A table without rows for the last partitions, or for any, stands for partitions that are new. It may name nodes that are not
/// members: what they had is lost.
///
/// ```
/// use quorate_placement::{Member, Node, NodeId, plan};
///
/// let node = |id: u64| Node::new(NodeId(id)).in_zone(["a", "b", "c"][id as usize % 3]);
/// let members: Vec<Member> = (1..=9).map(|id| node(id).into()).collect();
/// let first = plan(&members, 256, 3, &[])?;
/// assert!(first.replica_balance().most_per_mille <= 1_020);
///
/// // A node of weight 2 joins: its zone's nodes give it half of theirs, and nothing else moves.
/// let mut members = members;
/// members.push(node(10).with_weight(2).into());
/// let then = plan(&members, 256, 3, &first.table)?;
/// let load = then.loads.last().expect("the new node");
/// assert_eq!((load.node, load.replicas), (NodeId(10), 102)); // 2/5 of 256, rounded
/// assert_eq!(then.replicas_moved(), 102);
/// # Ok::<(), quorate_placement::PlacementError>(())
/// ```
///
/// # Errors
///
/// Refuses members, numbers and tables that make no sense.
pub fn plan(
    members: &[Member],
    partitions: usize,
    wanted: usize,
    old: &[Assignment],
) -> Result<Plan, PlacementError> {
    check(members.iter().map(|member| &member.node))?;
    if partitions == 0 || partitions > PARTITIONS_MAX {
        return Err(PlacementError::Partitions(partitions));
    }
    if wanted == 0 || wanted > REPLICAS_MAX {
        return Err(PlacementError::Replicas(wanted));
    }
    let before = check_table(partitions, old)?;
    let standing: BTreeMap<NodeId, Standing> =
        members.iter().map(|member| (member.node.id, member.standing)).collect();
    // Of weight 1 on the ring: weights decide how much a node gets, and who is asked first need not know them.
    let active = members.iter().filter(|member| member.standing == Standing::Active);
    let ring =
        Ring::new(&active.map(|member| member.node.clone().with_weight(1)).collect::<Vec<Node>>(), TOKENS)?;
    let weight_of: BTreeMap<NodeId, u32> =
        members.iter().map(|member| (member.node.id, member.node.weight)).collect();
    let nodes: Vec<NodeId> = ring.nodes().iter().map(|node| node.id).collect();
    let weights: Vec<u32> = nodes.iter().map(|id| weight_of[id]).collect();

    let replicas = replicas::spread(&ring, &weights, wanted, &before);
    let leading: Vec<Option<usize>> = (0..partitions)
        .map(|at| old.get(at)?.leader.and_then(|leader| nodes.binary_search(&leader).ok()))
        .collect();
    let leaders = leaders::choose(&replicas.table, &weights, &leading);

    let mut table = Vec::with_capacity(partitions);
    let mut moves = Vec::new();
    let mut under_replicated = Vec::new();
    for (at, row) in replicas.table.iter().enumerate() {
        let mut now: BTreeSet<NodeId> = row.iter().map(|&node| nodes[node]).collect();
        if now.len() < wanted {
            under_replicated.push(at);
            // What a draining node holds is better than nothing.
            let draining = before[at].iter().filter(|id| standing.get(id) == Some(&Standing::Draining));
            now.extend(draining.take(wanted - now.len()));
        }
        let leader = leaders.leaders[at].map(|node| nodes[node]);
        let led = old.get(at).and_then(|row| row.leader);
        let change = Move {
            partition: at,
            joins: now.difference(&before[at]).copied().collect(),
            leaves: before[at].difference(&now).copied().collect(),
            leader: leader.filter(|_| leader != led),
        };
        if !change.joins.is_empty() || !change.leaves.is_empty() || change.leader.is_some() {
            moves.push(change);
        }
        table.push(Assignment { replicas: now.into_iter().collect(), leader });
    }
    let loads = nodes.iter().enumerate().map(|(at, &node)| Load {
        node,
        replicas: table.iter().filter(|row| row.replicas.contains(&node)).count() as u64,
        leaders: table.iter().filter(|row| row.leader == Some(node)).count() as u64,
        replicas_fair_milli: milli(replicas.shares[at]),
        leaders_fair_milli: milli(leaders.shares[at]),
    });
    Ok(Plan { loads: loads.collect(), table, moves, under_replicated })
}

/// The nodes of each row of the old table, which may be shorter than the new one.
fn check_table(partitions: usize, old: &[Assignment]) -> Result<Vec<BTreeSet<NodeId>>, PlacementError> {
    if old.len() > partitions {
        return Err(PlacementError::OldTable { rows: old.len(), partitions });
    }
    let mut rows = vec![BTreeSet::new(); partitions];
    for (partition, assignment) in old.iter().enumerate() {
        for &node in &assignment.replicas {
            if !rows[partition].insert(node) {
                return Err(PlacementError::ReplicaTwice { partition, node });
            }
        }
    }
    Ok(rows)
}

/// Thousandths, rounded down, but to no whole number that it is not: a reader can tell what it is rounded to, down and up.
fn milli(share: Share) -> u64 {
    let milli = (share.over * 1_000 / share.under) as u64;
    milli + u64::from(share.has_rest() && milli.is_multiple_of(1_000))
}
