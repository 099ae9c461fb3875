//! What is drawn: the nodes of a cluster, the table of one keyspace, and how far each node is from its fair share.
//!
//! A picture is of the cluster as it is or of one that might be (`what_if.rs`). It is put together from what the nodes say, and shown by
//! `text.rs`, `svg.rs` and `json.rs`, which compute nothing of their own.

use crate::cli::columns::natural;
use crate::services::ring::{RingTold, StandingTold};
use quorate_placement::{
    Assignment, Balance, Load, Member, Node as Placed, NodeId, PlacementError, Plan, Standing, plan,
};
use quorate_types::SLOTS;
use std::collections::{BTreeMap, BTreeSet};

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// What people call it; its id in hex as long as it has no name.
    pub(super) name: String,
    /// Empty: a zone of its own.
    pub(super) zone: String,
    pub(super) weight: u32,
    pub(super) standing: StandingTold,
}

/// A partition and its row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) id: u32,
    /// Runs of slots, first and last.
    pub(super) ranges: Vec<[u16; 2]>,
    /// Who holds it, and who leads it as far as anybody knows.
    pub(super) row: Assignment,
    /// Who shall hold it, while it is being moved.
    pub(super) target: Option<Vec<NodeId>>,
    /// Its size, where that was asked for.
    pub(super) bytes: Option<u64>,
}

impl Partition {
    pub(super) fn slots(&self) -> u32 {
        self.ranges.iter().map(|[first, last]| u32::from(last - first) + 1).sum()
    }
}

/// A keyspace on the nodes of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(super) keyspace: u32,
    pub(super) name: String,
    /// By zone, then by name.
    pub(super) nodes: Vec<Node>,
    /// By id.
    pub(super) partitions: Vec<Partition>,
    /// How many replicas each partition shall have.
    pub(super) replicas: usize,
}

/// How a picture's table is, seen from its nodes.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// Of each node, in the picture's order. One that nothing is placed on has a share of 0.
    pub(super) loads: Vec<Load>,
    /// How even replicas are.
    pub(super) replicas: Balance,
    pub(super) leaders: Balance,
    /// Positions of partitions that have fewer replicas on nodes that are not lost than they shall have.
    pub(super) under_replicated: Vec<usize>,
    /// Positions of partitions that are being moved.
    pub(super) moving: Vec<usize>,
}

impl Picture {
    /// One for each keyspace, from what the nodes say: the newest members and places, and of each partition the newest leader.
    ///
    /// Each shall have as many replicas as its partitions have at most, if nothing else is asked for.
    pub(crate) fn of(told: &[RingTold], replicas: Option<usize>) -> Vec<Self> {
        let Some(newest) = told.iter().max_by_key(|told| told.revision) else { return Vec::new() };
        let members = newest.members.iter().filter_map(|member| {
            Some(Node {
                id: parse_id(&member.id)?,
                name: if member.name.is_empty() { member.id.clone() } else { member.name.clone() },
                zone: member.zone.clone(),
                weight: member.weight,
                standing: member.standing,
            })
        });
        let mut nodes: Vec<Node> = members.collect();
        in_order(&mut nodes);
        let leaders = newest_leaders(told);
        let pictures = newest.keyspaces.iter().map(|keyspace| {
            let partitions = keyspace.partitions.iter().map(|place| Partition {
                id: place.partition,
                ranges: place.ranges.iter().copied().filter(is_run).collect(),
                row: Assignment {
                    replicas: parse_ids(&place.voters),
                    leader: leaders.get(&(keyspace.keyspace, place.partition)).map(|(_, leader)| *leader),
                },
                target: place.target.as_ref().map(|target| parse_ids(target)),
                bytes: None,
            });
            let mut partitions: Vec<Partition> = partitions.collect();
            partitions.sort_unstable_by_key(|partition| partition.id);
            let most = partitions.iter().map(|partition| partition.row.replicas.len()).max().unwrap_or(1);
            Self {
                keyspace: keyspace.keyspace,
                name: keyspace.name.clone(),
                nodes: nodes.clone(),
                partitions,
                replicas: replicas.unwrap_or(most.max(1)),
            }
        });
        pictures.collect()
    }

    /// What the planner would do with it.
    pub(super) fn plan(&self) -> Result<Plan, PlacementError> {
        let members: Vec<Member> = self.nodes.iter().map(Node::member).collect();
        let old: Vec<Assignment> = self.partitions.iter().map(|partition| partition.row.clone()).collect();
        plan(&members, self.partitions.len(), self.replicas, &old)
    }

    /// How its table is.
    pub(super) fn figures(&self) -> Figures {
        // Fair shares are those of the best table; where there is none, as without any node that may hold something, there are none.
        let fair: BTreeMap<NodeId, Load> = self
            .plan()
            .map(|plan| plan.loads.into_iter().map(|load| (load.node, load)).collect())
            .unwrap_or_default();
        let mut loads: BTreeMap<NodeId, Load> = BTreeMap::new();
        for node in &self.nodes {
            let fair = fair.get(&node.id);
            let load = Load {
                node: node.id,
                replicas: 0,
                leaders: 0,
                replicas_fair_milli: fair.map_or(0, |fair| fair.replicas_fair_milli),
                leaders_fair_milli: fair.map_or(0, |fair| fair.leaders_fair_milli),
            };
            loads.insert(node.id, load);
        }
        for Partition { row, .. } in &self.partitions {
            for replica in &row.replicas {
                loads.entry(*replica).and_modify(|load| load.replicas += 1);
            }
            if let Some(leader) = row.leader {
                loads.entry(leader).and_modify(|load| load.leaders += 1);
            }
        }
        let live: BTreeSet<NodeId> =
            self.nodes.iter().filter(|node| node.is_there()).map(|node| node.id).collect();
        let is_under = |partition: &Partition| {
            partition.row.replicas.iter().filter(|id| live.contains(id)).count() < self.replicas
        };
        let positions = |is: &dyn Fn(&Partition) -> bool| {
            (0..self.partitions.len()).filter(|at| is(&self.partitions[*at])).collect()
        };
        Figures {
            replicas: Balance::of(loads.values().map(|load| (load.replicas, load.replicas_fair_milli))),
            leaders: Balance::of(loads.values().map(|load| (load.leaders, load.leaders_fair_milli))),
            under_replicated: positions(&is_under),
            moving: positions(&|partition| partition.target.is_some()),
            loads: self.nodes.iter().map(|node| loads[&node.id]).collect(),
        }
    }

    /// The fullest node and the emptiest, in parts of their shares; none where nobody's share is a whole one.
    pub(super) fn extremes(&self, figures: &Figures, of: fn(&Load) -> (u64, u64)) -> Option<(&Node, &Node)> {
        let part = |load: &Load| {
            let (load, fair) = of(load);
            (fair >= 1_000).then(|| load * 1_000_000 / fair)
        };
        let parts =
            || self.nodes.iter().zip(&figures.loads).filter_map(|(node, load)| Some((part(load)?, node)));
        let (fullest, emptiest) =
            (parts().max_by_key(|(part, _)| *part)?, parts().min_by_key(|(part, _)| *part)?);
        Some((fullest.1, emptiest.1))
    }

    /// What people call a node, whether it is known or not.
    pub(super) fn name_of(&self, id: NodeId) -> String {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.map_or_else(|| format!("{:x}", id.0), |node| node.name.clone())
    }

    /// How many zones there are; a node without one is one of its own.
    pub(super) fn zones(&self) -> usize {
        let zones: BTreeSet<(&str, Option<NodeId>)> = self.nodes.iter().map(Node::zone_key).collect();
        zones.len()
    }
}

/// What a node holds, and its share in thousandths.
pub(super) fn replicas(load: &Load) -> (u64, u64) {
    (load.replicas, load.replicas_fair_milli)
}

/// What it leads, likewise.
pub(super) fn leaders(load: &Load) -> (u64, u64) {
    (load.leaders, load.leaders_fair_milli)
}

impl Node {
    /// As placement sees it.
    fn member(&self) -> Member {
        let mut node = Placed::new(self.id).with_weight(self.weight);
        if !self.zone.is_empty() {
            node = node.in_zone(self.zone.as_str());
        }
        let standing = match self.standing {
            StandingTold::Active => Standing::Active,
            StandingTold::Draining | StandingTold::Leaving => Standing::Draining,
            StandingTold::Lost => Standing::Gone,
        };
        Member { node, standing }
    }

    /// Whether what it holds counts.
    pub(super) fn is_there(&self) -> bool {
        self.standing != StandingTold::Lost
    }

    /// What tells zones apart.
    pub(super) fn zone_key(&self) -> (&str, Option<NodeId>) {
        (&self.zone, self.zone.is_empty().then_some(self.id))
    }
}

/// By zone, then by name; those without a zone last.
pub(super) fn in_order(nodes: &mut [Node]) {
    let key = |node: &Node| (node.zone.is_empty(), node.zone.clone(), natural(&node.name), node.id);
    nodes.sort_by_cached_key(key);
}

/// The leader of each partition in the newest term that anybody told of.
fn newest_leaders(told: &[RingTold]) -> BTreeMap<(u32, u32), (u64, NodeId)> {
    let mut newest: BTreeMap<(u32, u32), (u64, NodeId)> = BTreeMap::new();
    for keyspace in told.iter().flat_map(|told| &told.keyspaces) {
        for place in &keyspace.partitions {
            let Some(leader) = place.leader.as_deref().and_then(parse_id) else { continue };
            let known = newest.entry((keyspace.keyspace, place.partition)).or_insert((place.term, leader));
            if place.term > known.0 {
                *known = (place.term, leader);
            }
        }
    }
    newest
}

/// Whether it is a run of slots, whatever the node may be that says so.
fn is_run([first, last]: &[u16; 2]) -> bool {
    first <= last && *last < SLOTS
}

fn parse_id(hex: &str) -> Option<NodeId> {
    u64::from_str_radix(hex, 16).ok().map(NodeId)
}

fn parse_ids(hex: &[String]) -> Vec<NodeId> {
    hex.iter().filter_map(|id| parse_id(id)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::services::ring::{KeyspaceTold, MemberTold, PlaceTold};

    /// A cluster whose nodes are in these zones and of these weights, with the table that the planner gives it.
    pub(in crate::cli::ring) fn cluster(
        nodes: &[(&str, &str, u32)],
        partitions: u32,
        replicas: usize,
    ) -> Picture {
        let nodes = nodes.iter().enumerate().map(|(at, (name, zone, weight))| Node {
            id: NodeId(at as u64 + 1),
            name: (*name).to_owned(),
            zone: (*zone).to_owned(),
            weight: *weight,
            standing: StandingTold::Active,
        });
        let mut nodes: Vec<Node> = nodes.collect();
        in_order(&mut nodes);
        let bound =
            |at: u32| (u64::from(quorate_types::SLOTS) * u64::from(at) / u64::from(partitions)) as u16;
        let partitions = (0..partitions).map(|id| Partition {
            id,
            ranges: vec![[bound(id), bound(id + 1) - 1]],
            row: Assignment::default(),
            target: None,
            bytes: None,
        });
        let partitions = partitions.collect();
        let mut picture = Picture { keyspace: 1, name: "default".into(), nodes, partitions, replicas };
        let plan = picture.plan().unwrap();
        picture.partitions.iter_mut().zip(plan.table).for_each(|(partition, row)| partition.row = row);
        picture
    }

    /// Nine nodes in three zones, one of them heavier.
    pub(in crate::cli::ring) fn nine(partitions: u32) -> Picture {
        let names = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"];
        let nodes: Vec<(&str, &str, u32)> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (*name, ["east", "north", "west"][at % 3], 1 + u32::from(at == 3)))
            .collect();
        cluster(&nodes, partitions, 3)
    }

    fn told(node: &str, revision: u64, leader: Option<&str>, term: u64) -> RingTold {
        let member = |id: &str, name: &str, zone: &str| MemberTold {
            id: id.into(),
            name: name.into(),
            peer: String::new(),
            zone: zone.into(),
            weight: 1,
            standing: StandingTold::Active,
        };
        let place = PlaceTold {
            partition: 0,
            ranges: vec![[0, 16_383]],
            voters: vec!["a".into(), "b".into()],
            target: None,
            leader: leader.map(str::to_owned),
            term,
        };
        RingTold {
            node: node.into(),
            revision,
            members: vec![member("a", "n10", ""), member("b", "n9", "z"), member("c", "", "z")],
            keyspaces: vec![KeyspaceTold { keyspace: 1, name: "default".into(), partitions: vec![place] }],
        }
    }

    #[test]
    fn the_newest_answer_names_members_and_the_newest_term_leaders() {
        let mut newest = told("a", 7, Some("a"), 3);
        newest.members[2].standing = StandingTold::Lost;
        let pictures = Picture::of(&[told("b", 6, Some("b"), 4), newest, told("c", 5, None, 9)], None);
        let picture = &pictures[0];
        let names: Vec<&str> = picture.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["c", "n9", "n10"], "by zone, then by name; one without a name has its id");
        assert_eq!(picture.nodes[0].standing, StandingTold::Lost);
        assert_eq!(picture.partitions[0].row.leader, Some(NodeId(0xb)));
        assert_eq!((picture.replicas, picture.zones()), (2, 2));
        assert!(picture.figures().under_replicated.is_empty());
    }

    #[test]
    fn what_a_lost_node_holds_does_not_count() {
        let mut picture = nine(64);
        let figures = picture.figures();
        assert_eq!(figures.under_replicated, [0; 0]);
        assert!(figures.replicas.most_per_mille < 1_060, "{figures:?}");
        picture.nodes[0].standing = StandingTold::Lost;
        let held = figures.loads[0].replicas;
        let figures = picture.figures();
        assert_eq!(figures.under_replicated.len() as u64, held);
        assert_eq!((figures.loads[0].replicas, figures.loads[0].replicas_fair_milli), (held, 0));
    }
}
