//! Who can send to whom, and all the ways in which that can be.

use quorate_consensus::random::Random;

/// Nodes in the largest graph.
pub(crate) const NODES_MAX: usize = 5;

/// Which node's messages reach which other; nodes are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Graph {
    pub(crate) size: usize,
    /// Bit `b` of the number at `a`: what `a` sends to `b` arrives.
    reach: [u8; NODES_MAX],
}

impl Graph {
    pub(crate) fn empty(size: usize) -> Self {
        Self { size, reach: [0; NODES_MAX] }
    }

    pub(crate) fn complete(size: usize) -> Self {
        Self::with(size, |_, _| true)
    }

    fn with(size: usize, mut is_link: impl FnMut(usize, usize) -> bool) -> Self {
        let mut graph = Self::empty(size);
        for (from, to) in pairs(size) {
            if is_link(from, to) {
                graph.link(from, to);
            }
        }
        graph
    }

    pub(crate) fn link(&mut self, from: usize, to: usize) {
        self.reach[from] |= 1 << to;
    }

    /// All graphs whose links go both ways.
    pub(crate) fn undirected(size: usize) -> Vec<Self> {
        let edges: Vec<_> = pairs(size).filter(|(from, to)| from < to).collect();
        let graph = |bits: u32| {
            let mut graph = Self::empty(size);
            for (_, (a, b)) in edges.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0) {
                graph.link(*a, *b);
                graph.link(*b, *a);
            }
            graph
        };
        (0..1 << edges.len()).map(graph).collect()
    }

    /// All graphs.
    pub(crate) fn directed(size: usize) -> Vec<Self> {
        let links: Vec<_> = pairs(size).collect();
        let graph = |bits: u32| {
            let mut graph = Self::empty(size);
            for (_, (from, to)) in links.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0) {
                graph.link(*from, *to);
            }
            graph
        };
        (0..1 << links.len()).map(graph).collect()
    }

    /// A graph in which each link is there with the same probability: one, two or three of four.
    pub(crate) fn drawn(size: usize, random: &mut Random) -> Self {
        let quarters = random.between(1, 4);
        Self::with(size, |_, _| random.between(0, 4) < quarters)
    }

    pub(crate) fn has(&self, from: usize, to: usize) -> bool {
        self.reach[from] & (1 << to) != 0
    }

    pub(crate) fn has_both(&self, a: usize, b: usize) -> bool {
        self.has(a, b) && self.has(b, a)
    }

    pub(crate) fn quorum(&self) -> usize {
        self.size / 2 + 1
    }

    /// Whether this node can send to, and be answered by, enough others to decide with them.
    pub(crate) fn is_quorum_connected(&self, at: usize) -> bool {
        let others = (0..self.size).filter(|other| *other != at && self.has_both(at, *other));
        others.count() + 1 >= self.quorum()
    }

    pub(crate) fn has_quorum(&self) -> bool {
        (0..self.size).any(|at| self.is_quorum_connected(at))
    }

    /// The same graph with every node under its new number.
    pub(crate) fn renamed(&self, names: &[usize]) -> Self {
        let mut graph = Self::empty(self.size);
        for (from, to) in pairs(self.size).filter(|(from, to)| self.has(*from, *to)) {
            graph.link(names[from], names[to]);
        }
        graph
    }

    /// A number that no other graph of the size has.
    pub(crate) fn number(&self) -> u64 {
        self.reach.iter().fold(0, |number, reach| number << NODES_MAX | u64::from(*reach))
    }
}

fn pairs(size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..size).flat_map(move |from| (0..size).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

/// All orders of the nodes that leave the first `fixed` in their places.
pub(crate) fn orders(size: usize, fixed: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![(0..fixed).collect::<Vec<usize>>()];
    for _ in fixed..size {
        let longer = |order: Vec<usize>| {
            let rest: Vec<usize> = (0..size).filter(|node| !order.contains(node)).collect();
            rest.into_iter().map(move |next| [order.as_slice(), &[next]].concat())
        };
        orders = orders.into_iter().flat_map(longer).collect();
    }
    orders
}
