//! What would be if nodes came, went, or were heavier: the table that the planner would give, and what had to move for it.

use super::picture::{Node, Picture, in_order};
use crate::services::ring::StandingTold;
use quorate_placement::{Move, NodeId, Plan};
use quorate_types::member::{TEXT_BYTES_MAX, WEIGHT_MAX};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// One change of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add { name: String, zone: String, weight: u32 },
    Remove { name: String },
    Weight { name: String, weight: u32 },
    Zone { name: String, zone: String },
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, of) = text.split_once('=').ok_or("it is CHANGE=NODE, such as remove=n3")?;
        let mut parts = of.split(':');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (name, second, third) = (next(), next(), next());
        if name.is_empty() {
            return Err("it names no node".into());
        }
        let texts = [&name, &second];
        if texts.iter().any(|text| text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control)) {
            return Err(format!("names and zones are plain text of at most {TEXT_BYTES_MAX} bytes"));
        }
        let given = of.split(':').count();
        match what {
            "add" if given <= 3 => {
                let weight = if given < 3 { 1 } else { parse_weight(&third)? };
                Ok(Self::Add { name, zone: second, weight })
            }
            "add" => Err("it is add=NAME, add=NAME:ZONE or add=NAME:ZONE:WEIGHT".into()),
            "remove" if given == 1 => Ok(Self::Remove { name }),
            "remove" => Err("it is remove=NAME".into()),
            "weight" if given == 2 => Ok(Self::Weight { name, weight: parse_weight(&second)? }),
            "weight" => Err("it is weight=NAME:WEIGHT".into()),
            "zone" if given == 2 => Ok(Self::Zone { name, zone: second }),
            "zone" => Err("it is zone=NAME:ZONE".into()),
            _ => Err(format!("«{what}» is none of add, remove, weight, zone")),
        }
    }
}

fn parse_weight(text: &str) -> Result<u32, String> {
    let weight = text.parse().ok().filter(|weight| (1..=WEIGHT_MAX).contains(weight));
    weight.ok_or_else(|| format!("«{text}» is no weight; one is 1 to {WEIGHT_MAX}"))
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone_words = |zone: &str| match zone {
            "" => "a zone of its own".to_owned(),
            zone => format!("zone {zone}"),
        };
        match self {
            Self::Add { name, zone, weight: 1 } => write!(f, "{name} joins in {}", zone_words(zone)),
            Self::Add { name, zone, weight } => {
                write!(f, "{name} joins in {} with weight {weight}", zone_words(zone))
            }
            Self::Remove { name } => write!(f, "{name} goes"),
            Self::Weight { name, weight } => write!(f, "{name} has weight {weight}"),
            Self::Zone { name, zone } => write!(f, "{name} is in {}", zone_words(zone)),
        }
    }
}

/// A picture of what would be, and the way there.
#[derive(Clone, Debug)]
pub(crate) struct WhatIf {
    pub(super) changes: Vec<Change>,
    pub(super) after: Picture,
    /// The rows that change; `partition` is a position in the picture's.
    pub(super) moves: Vec<Move>,
    /// How many replicas have to be made.
    pub(super) replicas_moved: usize,
    /// How many would have to be made whatever the table, for every node to have its share. The plan moves more only where no table
    /// moves fewer: where a row can go is for its zones to say, too.
    pub(super) least: usize,
    pub(super) leaders_moved: usize,
    /// Their bytes, where the partitions' sizes are known.
    pub(super) bytes: Option<u64>,
}

/// From whom to whom replicas go. `None`: they are made anew, since there were too few; or are dropped, since there were too many.
pub(super) type Flows = BTreeMap<(Option<NodeId>, Option<NodeId>), usize>;

impl WhatIf {
    /// What becomes of `now` after these changes, with so many replicas.
    ///
    /// A node that would join is drawn with a number of its own when it does, so which partitions it gets may be others then; how many, not.
    pub(super) fn of(now: &Picture, changes: Vec<Change>, replicas: usize) -> Result<Self, String> {
        let mut after = Picture { replicas, ..now.clone() };
        for change in &changes {
            apply(change, &mut after.nodes)?;
        }
        in_order(&mut after.nodes);
        let plan = after.plan().map_err(|error| error.to_string())?;
        let (replicas_moved, leaders_moved) = (plan.replicas_moved(), plan.leaders_moved());
        let least = least(&after, &plan);
        let Plan { table, moves, .. } = plan;
        let bytes: Option<u64> = moves
            .iter()
            .map(|change| Some(now.partitions[change.partition].bytes? * change.joins.len() as u64))
            .sum();
        for (partition, row) in after.partitions.iter_mut().zip(table) {
            partition.row = row;
            partition.target = None;
        }
        Ok(Self { changes, after, moves, replicas_moved, least, leaders_moved, bytes })
    }

    /// The changes in words.
    pub(super) fn words(&self) -> String {
        self.changes.iter().map(Change::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Whether this is the least, as a part of a sentence.
    pub(super) fn least_words(&self) -> String {
        match self.replicas_moved.saturating_sub(self.least) {
            0 => "the least there is".into(),
            _ => format!("shares alone ask for {}", self.least),
        }
    }

    /// [`flows`](Self::flows) by names, the widest first.
    pub(super) fn ways(&self, now: &Picture) -> Vec<(usize, String, String)> {
        let name = |id| match now.nodes.iter().any(|node| node.id == id) {
            true => now.name_of(id),
            false => self.after.name_of(id),
        };
        let ways = self.flows(now).into_iter().map(|((from, to), count)| {
            (count, from.map_or("(new)".into(), name), to.map_or("(dropped)".into(), name))
        });
        let mut ways: Vec<(usize, String, String)> = ways.collect();
        ways.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| (&a.1, &a.2).cmp(&(&b.1, &b.2))));
        ways
    }

    /// From whom to whom replicas go: what a node gives up is taken over by one in its zone, as far as there is one.
    pub(super) fn flows(&self, now: &Picture) -> Flows {
        let zone_of = |id: NodeId| {
            let nodes = self.after.nodes.iter().chain(&now.nodes);
            nodes.into_iter().find(|node| node.id == id).map(Node::zone_key)
        };
        let mut flows = Flows::new();
        for change in &self.moves {
            let mut joins = change.joins.clone();
            let mut rest = Vec::new();
            for leaves in &change.leaves {
                match joins.iter().position(|joins| zone_of(*joins) == zone_of(*leaves)) {
                    Some(at) => *flows.entry((Some(*leaves), Some(joins.remove(at)))).or_default() += 1,
                    None => rest.push(*leaves),
                }
            }
            let mut joins = joins.into_iter();
            for leaves in rest {
                *flows.entry((Some(leaves), joins.next())).or_default() += 1;
            }
            joins.for_each(|joins| *flows.entry((None, Some(joins))).or_default() += 1);
        }
        flows
    }
}

fn apply(change: &Change, nodes: &mut Vec<Node>) -> Result<(), String> {
    let position = |nodes: &[Node], name: &str| {
        let known = || nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = nodes.iter().position(|node| node.name == name);
        found.ok_or_else(|| format!("--if: no node is called {name}; there are {}", known()))
    };
    match change {
        Change::Add { name, zone, weight } => {
            if nodes.iter().any(|node| node.name == *name) {
                return Err(format!("--if: there is a node {name} already"));
            }
            let is_free = |id: &u64| nodes.iter().all(|node| node.id != NodeId(*id));
            let id = NodeId((1..).find(is_free).unwrap_or(u64::MAX));
            let (name, zone) = (name.clone(), zone.clone());
            nodes.push(Node { id, name, zone, weight: *weight, standing: StandingTold::Active });
        }
        Change::Remove { name } => {
            nodes.remove(position(nodes, name)?);
        }
        Change::Weight { name, weight } => {
            let at = position(nodes, name)?;
            nodes[at].weight = *weight;
        }
        Change::Zone { name, zone } => {
            let at = position(nodes, name)?;
            nodes[at].zone.clone_from(zone);
        }
    }
    Ok(())
}

/// How many replicas have to be made at least, whatever the table: what each node lacks of its share rounded down, and each partition of
/// its replicas.
fn least(before: &Picture, plan: &Plan) -> usize {
    let held = |id: NodeId| {
        before.partitions.iter().filter(|partition| partition.row.replicas.contains(&id)).count()
    };
    let lacking = plan.loads.iter().map(|load| {
        let share = usize::try_from(load.replicas_fair_milli / 1_000).unwrap_or(usize::MAX);
        share.saturating_sub(held(load.node))
    });
    let may_hold = |id: &&NodeId| plan.loads.iter().any(|load| load.node == **id);
    let short = before.partitions.iter().zip(&plan.table).map(|(partition, row)| {
        let kept = partition.row.replicas.iter().filter(may_hold).count();
        row.replicas.iter().filter(may_hold).count().saturating_sub(kept)
    });
    lacking.sum::<usize>().max(short.sum())
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::{cluster, nine};
    use super::*;

    fn change(text: &str) -> Change {
        text.parse().unwrap()
    }

    #[test]
    fn changes_are_read_and_said() {
        let check = |text: &str, words: &str| assert_eq!(change(text).to_string(), words);
        check("add=n10:west:2", "n10 joins in zone west with weight 2");
        check("add=n10:west", "n10 joins in zone west");
        check("add=n10", "n10 joins in a zone of its own");
        check("remove=n3", "n3 goes");
        check("weight=n3:40", "n3 has weight 40");
        check("zone=n3:west", "n3 is in zone west");
        check("zone=n3:", "n3 is in a zone of its own");
        for senseless in
            ["", "n3", "remove=", "remove=a:b", "weight=n3", "weight=n3:0", "weight=n3:x", "add=a:b:c:d"]
        {
            assert!(senseless.parse::<Change>().is_err(), "{senseless}");
        }
    }

    #[test]
    fn a_node_that_joins_gets_its_share_and_nothing_else_moves() {
        let now = nine(256);
        let joined = WhatIf::of(&now, vec![change("add=n10:west:1")], 3).unwrap();
        assert_eq!((joined.replicas_moved, joined.least), (64, 64));
        let figures = joined.after.figures();
        assert_eq!(figures.loads.iter().map(|load| load.replicas).sum::<u64>(), 768);
        let flows = joined.flows(&now);
        assert_eq!(flows.values().sum::<usize>(), 64);
        let to: Vec<Option<NodeId>> = flows.keys().map(|(_, to)| *to).collect();
        assert!(to.iter().all(|to| *to == Some(NodeId(10))), "{flows:?}");
    }

    #[test]
    fn what_a_node_that_goes_had_is_made_anew_in_its_zone() {
        let now = nine(256);
        let held = now.figures().loads.iter().find(|load| load.node == NodeId(2)).unwrap().replicas as usize;
        let gone = WhatIf::of(&now, vec![change("remove=n2")], 3).unwrap();
        assert_eq!((gone.replicas_moved, gone.least), (held, held));
        assert!(gone.after.nodes.iter().all(|node| node.name != "n2"));
        let from: Vec<Option<NodeId>> = gone.flows(&now).into_keys().map(|(from, _)| from).collect();
        assert_eq!(from, [Some(NodeId(2)); 2]);
    }

    #[test]
    fn more_replicas_are_made_anew_and_fewer_are_dropped() {
        let now = cluster(&[("a", "", 1), ("b", "", 1), ("c", "", 1), ("d", "", 1)], 16, 2);
        let more = WhatIf::of(&now, Vec::new(), 3).unwrap();
        assert_eq!((more.replicas_moved, more.least), (16, 16));
        assert!(more.flows(&now).keys().all(|(from, _)| from.is_none()));
        let fewer = WhatIf::of(&more.after, Vec::new(), 2).unwrap();
        assert_eq!((fewer.replicas_moved, fewer.least), (0, 0));
        assert!(fewer.flows(&more.after).keys().all(|(_, to)| to.is_none()));
    }

    #[test]
    fn bytes_are_told_where_all_sizes_are_known() {
        let mut now = nine(16);
        let bytes = |now: &Picture| WhatIf::of(now, vec![change("remove=n2")], 3).unwrap().bytes;
        assert_eq!(bytes(&now), None);
        now.partitions.iter_mut().for_each(|partition| partition.bytes = Some(10));
        assert_eq!(
            bytes(&now),
            Some(10 * WhatIf::of(&now, vec![change("remove=n2")], 3).unwrap().replicas_moved as u64)
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let now = nine(16);
        let refused = |text: &str| WhatIf::of(&now, vec![change(text)], 3).unwrap_err();
        assert!(refused("add=n1").contains("already"));
        assert!(refused("weight=x:2").contains("there are n1, "), "{}", refused("weight=x:2"));
        assert!(WhatIf::of(&now, Vec::new(), 0).is_err());
    }
}
