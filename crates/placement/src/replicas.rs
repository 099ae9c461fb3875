//! The first flow: which nodes hold each partition.
//!
//! ```text
//! source --R--> partition --base--> (partition, zone) --1--> node --floor(share)----------> sink
//!                   |                     ^                   |                              ^
//!                   +--extras--> (extra) -1                   +--1--> spare --what is left---+
//! ```
//!
//! An edge to a node costs nothing if the node holds the partition already, and 1 otherwise: the cheapest flow moves least.
//! A node's share is divided by [`share`](crate::share); it gets the whole part and, if there is a rest, one more at most,
//! through `spare`, which lets through just as many as are missing. So the greatest flow fills every node with its share, rounded
//! down or up, and which of them round up is the flow's choice: those that hold the most already.
//!
//! Such a flow always exists: the fair shares themselves, of each partition the same fraction, are one that is not whole, and
//! where capacities are whole there is a whole one, too.

use crate::flow::{Edge, Network, Vertex};
use crate::share::{Share, Taker, Zone, divide};
use crate::zones::Spread;
use crate::{NodeId, Ring};
use std::collections::BTreeSet;

/// What the first flow found.
pub(crate) struct Replicas {
    /// For each partition the positions of its nodes on the ring, rising.
    pub(crate) table: Vec<Vec<usize>>,
    /// Each node's fair share.
    pub(crate) shares: Vec<Share>,
}

/// Spreads `wanted` replicas of each partition over the ring's nodes, near to what `holds` them now.
pub(crate) fn spread(ring: &Ring, weights: &[u32], wanted: usize, holds: &[BTreeSet<NodeId>]) -> Replicas {
    let partitions = holds.len() as u64;
    let nodes = ring.nodes();
    let zone_of = ring.zone_of();
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); ring.zones()];
    (0..nodes.len()).for_each(|node| members[zone_of[node]].push(node));
    let spread = Spread::new(wanted, members.iter().map(Vec::len).collect());
    let total = partitions * spread.replicas as u64;
    let shares = shares(&members, weights, &spread, partitions);

    let mut network = Network::default();
    let (source, sink, spare) = (network.vertex(), network.vertex(), network.vertex());
    let at_node: Vec<Vertex> = nodes.iter().map(|_| network.vertex()).collect();
    let mut edges: Vec<Vec<(usize, Edge)>> = Vec::with_capacity(holds.len());
    for (partition, held) in holds.iter().enumerate() {
        let start = network.vertex();
        network.edge(source, start, spread.replicas as u64, 0);
        let extra = match spread.has_base() {
            true => network.vertex(),
            false => start,
        };
        if spread.has_base() {
            network.edge(start, extra, spread.extras as u64, 0);
        }
        // Edges stand in the order in which the partition meets nodes and zones on the ring: what is new goes to the
        // first that has room, so that the replicas of a node are with many others and not always with the same.
        let mut at_zone: Vec<Option<Vertex>> = vec![None; ring.zones()];
        let mut to_nodes = Vec::with_capacity(nodes.len());
        for node in ring.walk(&(partition as u32).to_be_bytes()) {
            let zone = zone_of[node];
            let at_zone = *at_zone[zone].get_or_insert_with(|| {
                // A zone of one node needs no vertex: its one edge says how much goes there.
                let is_single = spread.size(zone) == 1;
                if is_single {
                    return if spread.base(zone) > 0 { start } else { extra };
                }
                let vertex = network.vertex();
                if spread.base(zone) > 0 {
                    network.edge(start, vertex, spread.base(zone) as u64, 0);
                }
                if spread.may_have_extra(zone) {
                    network.edge(extra, vertex, 1, 0);
                }
                vertex
            });
            let moves = i32::from(!held.contains(&nodes[node].id));
            to_nodes.push((node, network.edge(at_zone, at_node[node], 1, moves)));
        }
        edges.push(to_nodes);
    }
    let mut left = total;
    for (node, share) in shares.iter().enumerate() {
        network.edge(at_node[node], sink, share.floor(), 0);
        left -= share.floor();
        if share.has_rest() {
            network.edge(at_node[node], spare, 1, 0);
        }
    }
    network.edge(spare, sink, left, 0);

    let flow = network.solve(source, sink);
    assert_eq!(flow.total, total, "the fair shares are a flow, so all replicas have a place");
    let table = edges.iter().map(|to_nodes| {
        let mut row: Vec<usize> =
            to_nodes.iter().filter(|(_, edge)| flow.over(*edge) > 0).map(|(node, _)| *node).collect();
        row.sort_unstable();
        row
    });
    Replicas { table: table.collect(), shares }
}

/// The fair share of each node, which holds a partition once at most, in zones that hold no more and no less than they must.
fn shares(members: &[Vec<usize>], weights: &[u32], spread: &Spread, partitions: u64) -> Vec<Share> {
    let zones: Vec<Zone> = members
        .iter()
        .enumerate()
        .map(|(zone, nodes)| Zone {
            takers: nodes
                .iter()
                .map(|&node| Taker { weight: weights[node].into(), cap: partitions })
                .collect(),
            low: partitions * spread.base(zone) as u64,
            high: partitions * spread.most(zone) as u64,
        })
        .collect();
    let divided = divide(&zones, partitions * spread.replicas as u64);
    let mut of_nodes: Vec<(usize, Share)> =
        members.iter().flatten().copied().zip(divided.into_iter().flatten()).collect();
    of_nodes.sort_unstable_by_key(|(node, _)| *node);
    of_nodes.into_iter().map(|(_, share)| share).collect()
}
