//! Maximum flow of least cost through a network with whole capacities.
//!
//! Primal-dual: the shortest ways from the source, by cost, become potentials; then as much flows as can over edges that lie on
//! shortest ways (Dinic's algorithm); then again, with longer ways. When nothing more flows, the flow is the greatest, and of
//! the least cost of those. There are as many rounds as there are different lengths of ways, and with costs of 0 and 1 these
//! are few; so whatever fits at no cost flows in the first round, and the later ones only see what has to change.
//!
//! Invariant: after each round no edge with room has a negative reduced cost (`cost + potential(from) - potential(to)`), which
//! is what makes the flow the cheapest of its size.
//!
//! Ties go to the edge that was added first, so the order of adding is the order of preference.
//!
//! From: Ford and Fulkerson, "Flows in Networks" (1962); Edmonds and Karp (1972) for potentials; Dinic (1970).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Where an edge comes from or goes to.
pub(crate) type Vertex = u32;

const UNREACHED: u64 = u64::MAX;
const NO_LEVEL: u32 = u32::MAX;

/// An edge, or the way back over it.
#[derive(Clone, Copy)]
struct Arc {
    to: Vertex,
    /// What more can flow.
    room: u32,
    cost: i32,
    /// The way back.
    back: u32,
}

/// A network that is still being drawn.
#[derive(Default)]
pub(crate) struct Network {
    vertices: u32,
    /// From, to, capacity, cost.
    edges: Vec<(Vertex, Vertex, u32, i32)>,
}

/// An edge of a network, to ask for its flow.
#[derive(Clone, Copy)]
pub(crate) struct Edge(usize);

impl Network {
    pub(crate) fn vertex(&mut self) -> Vertex {
        self.vertices += 1;
        self.vertices - 1
    }

    /// An edge of a cost that is not negative.
    pub(crate) fn edge(&mut self, from: Vertex, to: Vertex, capacity: u64, cost: i32) -> Edge {
        assert!(cost >= 0, "cost {cost} of an edge");
        let capacity = u32::try_from(capacity).expect("capacities are numbers of replicas");
        self.edges.push((from, to, capacity, cost));
        Edge(self.edges.len() - 1)
    }

    /// Lets as much flow from `source` to `sink` as can, as cheaply as can be.
    pub(crate) fn solve(self, source: Vertex, sink: Vertex) -> Flow {
        let vertices = self.vertices as usize;
        // Arcs stand together by the vertex they leave, in the order in which they were added.
        let mut first = vec![0_u32; vertices + 1];
        for &(from, to, ..) in &self.edges {
            first[from as usize + 1] += 1;
            first[to as usize + 1] += 1;
        }
        for at in 0..vertices {
            first[at + 1] += first[at];
        }
        let mut next = first.clone();
        let mut arcs = vec![Arc { to: 0, room: 0, cost: 0, back: 0 }; self.edges.len() * 2];
        let mut place_of = Vec::with_capacity(self.edges.len());
        for &(from, to, capacity, cost) in &self.edges {
            let forth = next[from as usize];
            next[from as usize] += 1;
            let back = next[to as usize];
            next[to as usize] += 1;
            arcs[forth as usize] = Arc { to, room: capacity, cost, back };
            arcs[back as usize] = Arc { to: from, room: 0, cost: -cost, back: forth };
            place_of.push(forth);
        }
        let mut solver = Solver { first, arcs, potential: vec![0; vertices], source, sink };
        let mut total = 0;
        while solver.raise_potentials() {
            total += solver.fill();
        }
        Flow { total, arcs: solver.arcs, place_of }
    }
}

/// A greatest flow of least cost.
pub(crate) struct Flow {
    /// How much flows from source to sink.
    pub(crate) total: u64,
    arcs: Vec<Arc>,
    place_of: Vec<u32>,
}

impl Flow {
    /// How much flows over `edge`.
    pub(crate) fn over(&self, edge: Edge) -> u64 {
        let back = self.arcs[self.place_of[edge.0] as usize].back;
        self.arcs[back as usize].room.into()
    }
}

struct Solver {
    /// Where each vertex's arcs begin.
    first: Vec<u32>,
    arcs: Vec<Arc>,
    potential: Vec<i64>,
    source: Vertex,
    sink: Vertex,
}

impl Solver {
    fn arcs_of(&self, vertex: Vertex) -> std::ops::Range<usize> {
        self.first[vertex as usize] as usize..self.first[vertex as usize + 1] as usize
    }

    fn reduced(&self, from: Vertex, arc: Arc) -> i64 {
        i64::from(arc.cost) + self.potential[from as usize] - self.potential[arc.to as usize]
    }

    /// Adds the distances from the source to the potentials; false if the sink cannot be reached.
    fn raise_potentials(&mut self) -> bool {
        let mut distance = vec![UNREACHED; self.potential.len()];
        distance[self.source as usize] = 0;
        // Most edges have a reduced cost of 0: those wait in a plain stack, the others in a heap.
        let mut here = vec![self.source];
        let mut farther: BinaryHeap<Reverse<(u64, Vertex)>> = BinaryHeap::new();
        let mut length = 0;
        loop {
            let from = match here.pop() {
                Some(vertex) => vertex,
                None => match farther.pop() {
                    Some(Reverse((found, vertex))) => {
                        if found > distance[vertex as usize] {
                            continue;
                        }
                        length = found;
                        vertex
                    }
                    None => break,
                },
            };
            if distance[self.sink as usize] <= length {
                // Everything that is not settled yet is at least as far as the sink.
                break;
            }
            for at in self.arcs_of(from) {
                let arc = self.arcs[at];
                if arc.room == 0 {
                    continue;
                }
                let reduced = self.reduced(from, arc);
                assert!(reduced >= 0, "an edge with room has the reduced cost {reduced}");
                let found = length + reduced as u64;
                if found < distance[arc.to as usize] {
                    distance[arc.to as usize] = found;
                    if reduced == 0 {
                        here.push(arc.to);
                    } else {
                        farther.push(Reverse((found, arc.to)));
                    }
                }
            }
        }
        let most = distance[self.sink as usize];
        if most == UNREACHED {
            return false;
        }
        for (potential, distance) in self.potential.iter_mut().zip(distance) {
            *potential += distance.min(most) as i64;
        }
        true
    }

    /// As much as can flow over arcs of reduced cost 0.
    fn fill(&mut self) -> u64 {
        let mut total = 0;
        while let Some(mut levels) = self.levels() {
            total += self.block(&mut levels);
        }
        total
    }

    /// How many arcs of reduced cost 0 each vertex is from the source; nothing if the sink cannot be reached over such.
    fn levels(&self) -> Option<Vec<u32>> {
        let mut levels = vec![NO_LEVEL; self.potential.len()];
        levels[self.source as usize] = 0;
        let mut reached = vec![self.source];
        let mut next = 0;
        while next < reached.len() {
            let from = reached[next];
            next += 1;
            if levels[from as usize] >= levels[self.sink as usize] {
                break;
            }
            for at in self.arcs_of(from) {
                let arc = self.arcs[at];
                if arc.room > 0 && levels[arc.to as usize] == NO_LEVEL && self.reduced(from, arc) == 0 {
                    levels[arc.to as usize] = levels[from as usize] + 1;
                    reached.push(arc.to);
                }
            }
        }
        (levels[self.sink as usize] != NO_LEVEL).then_some(levels)
    }

    /// Fills the ways that go up one level with each arc, until none has room.
    fn block(&mut self, levels: &mut [u32]) -> u64 {
        let mut total = 0;
        let mut current: Vec<u32> = self.first[..self.potential.len()].to_vec();
        let mut way: Vec<u32> = Vec::new();
        loop {
            let at = way.last().map_or(self.source, |&arc| self.arcs[arc as usize].to);
            if at == self.sink {
                let amount = way.iter().map(|&arc| self.arcs[arc as usize].room).min().unwrap_or(0);
                for &arc in &way {
                    self.arcs[arc as usize].room -= amount;
                    let back = self.arcs[arc as usize].back;
                    self.arcs[back as usize].room += amount;
                }
                total += u64::from(amount);
                way.clear();
                continue;
            }
            let end = self.first[at as usize + 1];
            let goes_up = (current[at as usize]..end).find(|&arc| {
                let arc = self.arcs[arc as usize];
                arc.room > 0
                    && levels[arc.to as usize] == levels[at as usize].wrapping_add(1)
                    && self.reduced(at, arc) == 0
            });
            current[at as usize] = goes_up.unwrap_or(end);
            match goes_up {
                Some(arc) => way.push(arc),
                None if way.pop().is_some() => levels[at as usize] = NO_LEVEL,
                None => return total,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small random networks against trying every set of edges of capacity 1.
    #[test]
    fn the_flow_is_the_greatest_and_the_cheapest() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..400 {
            let vertices = 3 + random(4) as u32;
            let edges: Vec<(u32, u32, i32)> = (0..2 + random(9))
                .map(|_| (random(vertices.into()) as u32, random(vertices.into()) as u32, random(4) as i32))
                .filter(|(from, to, _)| from != to)
                .collect();
            let sink = vertices - 1;
            let mut network = Network::default();
            (0..vertices).for_each(|_| _ = network.vertex());
            let ids: Vec<Edge> =
                edges.iter().map(|&(from, to, cost)| network.edge(from, to, 1, cost)).collect();
            let flow = network.solve(0, sink);
            let cost: i32 = ids.iter().zip(&edges).map(|(id, edge)| flow.over(*id) as i32 * edge.2).sum();

            let best = (0..1_u32 << edges.len()).filter_map(|chosen| {
                let mut surplus = vec![0_i64; vertices as usize];
                let mut cost = 0;
                for (at, &(from, to, each)) in edges.iter().enumerate() {
                    if chosen >> at & 1 == 1 {
                        surplus[from as usize] += 1;
                        surplus[to as usize] -= 1;
                        cost += each;
                    }
                }
                let balanced = (1..sink).all(|vertex| surplus[vertex as usize] == 0);
                (balanced && surplus[0] >= 0).then_some((Reverse(surplus[0]), cost))
            });
            let (Reverse(total), least) = best.min().unwrap();
            assert_eq!((flow.total as i64, cost), (total, least), "round {round}: {edges:?}");
        }
    }
}
