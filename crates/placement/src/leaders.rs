//! The second flow: who leads each partition, among the nodes that hold it.
//!
//! As the first, with one unit for each partition: to stay costs nothing, to move costs 1, and a node's share follows its weight,
//! as far as it holds replicas. Here shares cannot always be met: whoever holds no replica of a partition cannot lead it. So
//! more than a share flows, too, but costs more than all moves together, and the farther above the share, the more.

use crate::flow::{Edge, Network, Vertex};
use crate::share::{Share, Taker, Zone, divide};

/// A node goes above its share by quarters of it, each dearer than the one before; more than this many are all one.
const STEPS: u32 = 8;

/// What the second flow found.
pub(crate) struct Leaders {
    /// For each partition the position of its leader's node; none where the row is empty.
    pub(crate) leaders: Vec<Option<usize>>,
    /// Each node's fair share.
    pub(crate) shares: Vec<Share>,
}

/// Chooses a leader for each row of `table` among its nodes, near to the old `leading`.
pub(crate) fn choose(table: &[Vec<usize>], weights: &[u32], leading: &[Option<usize>]) -> Leaders {
    let mut held = vec![0_u64; weights.len()];
    table.iter().flatten().for_each(|&node| held[node] += 1);
    let led = table.iter().filter(|row| !row.is_empty()).count() as u64;
    let takers = weights.iter().zip(&held).map(|(&weight, &cap)| Taker { weight: weight.into(), cap });
    let whole = Zone { takers: takers.collect(), low: 0, high: led };
    let shares = divide(&[whole], led).concat();

    let mut network = Network::default();
    let (source, sink, spare) = (network.vertex(), network.vertex(), network.vertex());
    let at_node: Vec<Vertex> = weights.iter().map(|_| network.vertex()).collect();
    let mut edges: Vec<Vec<(usize, Edge)>> = Vec::with_capacity(table.len());
    for (partition, (row, old)) in table.iter().zip(leading).enumerate() {
        let start = network.vertex();
        network.edge(source, start, 1, 0);
        // Begin with another replica in each row, or the first nodes would lead everything at first.
        let turned = (0..row.len()).map(|at| row[(partition + at) % row.len()]);
        let to_nodes =
            turned.map(|node| (node, network.edge(start, at_node[node], 1, i32::from(*old != Some(node)))));
        edges.push(to_nodes.collect());
    }
    let dear = table.len() as i32 + 1;
    let mut left = led;
    for (node, share) in shares.iter().enumerate() {
        network.edge(at_node[node], sink, share.floor(), 0);
        left -= share.floor();
        if share.has_rest() {
            network.edge(at_node[node], spare, 1, 0);
        }
        let step = share.floor() / 4 + 1;
        (1..STEPS).for_each(|above| _ = network.edge(at_node[node], sink, step, dear * above as i32));
        network.edge(at_node[node], sink, led, dear * STEPS as i32);
    }
    network.edge(spare, sink, left, 0);

    let flow = network.solve(source, sink);
    assert_eq!(flow.total, led, "every row has a node, and a node may lead all");
    let leader =
        |row: &Vec<(usize, Edge)>| row.iter().find(|(_, edge)| flow.over(*edge) > 0).map(|found| found.0);
    Leaders { leaders: edges.iter().map(leader).collect(), shares }
}
