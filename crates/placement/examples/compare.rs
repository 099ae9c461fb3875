//! Plain rings, rendezvous and jump hashing against the planned table, as a table in Markdown: how even, what moves, how long.
//!
//! `cargo run --release -p quorate-placement --example compare` (`docs/placement.md` explains what it prints.)

use quorate_placement::{Assignment, Member, Node, NodeId, Ring, plan};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 256;
const REPLICAS: usize = 3;
/// Everything is run with this many sets of keys and of node ids, and averaged: a ring's arcs are luck, too.
const SALTS: u32 = 5;

type Table = Vec<Vec<NodeId>>;

#[derive(Clone, Copy)]
enum Algorithm {
    /// Virtual nodes for each unit of weight.
    Ring(u32),
    Rendezvous,
    Jump,
    Flow,
}

impl Algorithm {
    fn name(self) -> String {
        match self {
            Self::Ring(1) => "ring, 1 token".into(),
            Self::Ring(tokens) => format!("ring, {tokens} virtual nodes"),
            Self::Rendezvous => "weighted rendezvous".into(),
            Self::Jump => "jump hash".into(),
            Self::Flow => "flow".into(),
        }
    }

    /// The table on `nodes`; only the flow looks at the one before.
    fn place(self, nodes: &[Node], salt: u32, old: &[Vec<NodeId>]) -> Table {
        match self {
            Self::Ring(tokens) => {
                let ring = Ring::new(nodes, tokens).expect("a small ring");
                keys(salt).map(|key| ring.replicas(&key.to_be_bytes(), REPLICAS)).collect()
            }
            Self::Rendezvous => keys(salt).map(|key| rendezvous(nodes, key)).collect(),
            Self::Jump => keys(salt).map(|key| jumps(nodes, key)).collect(),
            Self::Flow => {
                let members: Vec<Member> = nodes.iter().cloned().map(Member::from).collect();
                let old: Vec<Assignment> =
                    old.iter().map(|row| Assignment { replicas: row.clone(), leader: None }).collect();
                let found = plan(&members, PARTITIONS, REPLICAS, &old).expect("a small cluster");
                found.table.into_iter().map(|row| row.replicas).collect()
            }
        }
    }

    /// Bytes that must be known to find a replica.
    fn bytes(self, nodes: &[Node]) -> usize {
        let weight: u32 = nodes.iter().map(|node| node.weight).sum();
        match self {
            Self::Ring(tokens) => (tokens * weight) as usize * 16,
            Self::Rendezvous => nodes.len() * 16,
            Self::Jump => weight as usize * 8,
            Self::Flow => PARTITIONS * REPLICAS * 8,
        }
    }
}

fn keys(salt: u32) -> impl Iterator<Item = u64> {
    (0..PARTITIONS as u64).map(move |partition| u64::from(salt) << 32 | partition)
}

/// Mixes two numbers (the finaliser of SplitMix64, twice).
fn mix(a: u64, b: u64) -> u64 {
    let finish = |mut word: u64| {
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    };
    finish(finish(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The first nodes in `order` with a zone each, then, where there are too few zones, with two, and so on.
fn spread<'a>(order: impl Iterator<Item = &'a Node> + Clone) -> Vec<NodeId> {
    let mut chosen: Vec<NodeId> = Vec::new();
    let mut in_zone: BTreeMap<(Option<&str>, u64), usize> = BTreeMap::new();
    for depth in 1.. {
        for node in order.clone() {
            let zone = in_zone
                .entry((node.zone.as_deref(), node.zone.as_ref().map_or(node.id.0, |_| 0)))
                .or_default();
            if chosen.len() < REPLICAS && *zone < depth && !chosen.contains(&node.id) {
                *zone += 1;
                chosen.push(node.id);
            }
        }
        if chosen.len() == REPLICAS {
            break;
        }
    }
    chosen
}

/// Thaler and Ravishankar (1998), with weights as in Schindelhauer and Schomaker (2005).
fn rendezvous(nodes: &[Node], key: u64) -> Vec<NodeId> {
    let score = |node: &Node| {
        let unit = (mix(key, node.id.0) >> 11) as f64 / (1_u64 << 53) as f64;
        -f64::from(node.weight) / unit.max(f64::MIN_POSITIVE).ln()
    };
    let mut order: Vec<(f64, &Node)> = nodes.iter().map(|node| (score(node), node)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    spread(order.iter().map(|(_, node)| *node))
}

/// Lamping and Veach (2014).
fn jump(mut key: u64, buckets: usize) -> usize {
    let (mut at, mut next) = (0, 0_i64);
    while next < buckets as i64 {
        at = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((at + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    at as usize
}

/// Jump hashing with as many buckets a node as its weight; further replicas by hashing again until nodes and zones are others.
fn jumps(nodes: &[Node], key: u64) -> Vec<NodeId> {
    let buckets: Vec<&Node> =
        nodes.iter().flat_map(|node| std::iter::repeat_n(node, node.weight as usize)).collect();
    let tries = (0..64).map(|salt| buckets[jump(mix(key, salt), buckets.len())]);
    spread(tries.chain(nodes))
}

struct Scenario {
    name: &'static str,
    before: Vec<Node>,
    after: Vec<Node>,
}

fn cluster(count: u64, zones: &[&str], weights: &[u32]) -> Vec<Node> {
    let node = |id: u64| {
        let node = Node::new(NodeId(id))
            .with_weight(weights[(id as usize - 1) / zones.len().max(1) % weights.len()]);
        match zones {
            [] => node,
            _ => node.in_zone(zones[id as usize % zones.len()]),
        }
    };
    (1..=count).map(node).collect()
}

fn scenarios() -> Vec<Scenario> {
    let zones = &["a", "b", "c"][..];
    let nine = cluster(9, zones, &[1]);
    let mut lost = nine.clone();
    // The last takes the place of the lost one, which is how jump hashing loses one that is not the last.
    lost.swap_remove(4);
    let weighted = cluster(9, zones, &[1, 2, 4]);
    let mut heavier = weighted.clone();
    heavier[0].weight = 4;
    vec![
        Scenario {
            name: "9 equal nodes, 3 zones; a node more in each zone",
            before: nine.clone(),
            after: cluster(12, zones, &[1]),
        },
        Scenario { name: "9 equal nodes, 3 zones; one is lost", before: nine, after: lost },
        Scenario {
            name: "weights 1, 2, 4 in each of 3 zones; one goes from 1 to 4",
            before: weighted,
            after: heavier,
        },
        Scenario {
            name: "12 nodes without zones; one more",
            before: cluster(12, &[], &[1]),
            after: cluster(13, &[], &[1]),
        },
    ]
}

/// Each node's fair share, in thousandths of a replica.
fn fair(nodes: &[Node]) -> BTreeMap<NodeId, u64> {
    let members: Vec<Member> = nodes.iter().cloned().map(Member::from).collect();
    let found = plan(&members, PARTITIONS, REPLICAS, &[]).expect("a small cluster");
    found.loads.iter().map(|load| (load.node, load.replicas_fair_milli)).collect()
}

/// The fullest and the emptiest node in parts of their share.
fn extremes(table: &Table, fair: &BTreeMap<NodeId, u64>) -> (f64, f64) {
    let parts = fair.iter().map(|(id, milli)| {
        table.iter().filter(|row| row.contains(id)).count() as f64 * 1_000.0 / *milli as f64
    });
    parts.fold((0.0, f64::INFINITY), |(most, least), part| (part.max(most), part.min(least)))
}

fn moved(old: &Table, new: &Table) -> usize {
    old.iter().zip(new).map(|(old, new)| new.iter().filter(|id| !old.contains(id)).count()).sum()
}

/// The fewest replicas that have to be made when shares change so.
fn fewest(before: &BTreeMap<NodeId, u64>, after: &BTreeMap<NodeId, u64>) -> u64 {
    after.iter().map(|(id, milli)| milli.saturating_sub(*before.get(id).unwrap_or(&0))).sum::<u64>() / 1_000
}

/// The same nodes by other names.
fn renamed(nodes: &[Node], salt: u32) -> Vec<Node> {
    nodes
        .iter()
        .map(|node| Node { id: NodeId(node.id.0 + u64::from(salt) * 1_000), ..node.clone() })
        .collect()
}

fn compare(scenario: &Scenario) {
    let least = fewest(&fair(&scenario.before), &fair(&scenario.after));
    println!("\n{} (at least {least} move):\n", scenario.name);
    println!("| algorithm | max / fair | min / fair | then max | min | moved | a table takes | bytes |");
    println!("|---|---|---|---|---|---|---|---|");
    let algorithms = [
        Algorithm::Ring(1),
        Algorithm::Ring(16),
        Algorithm::Ring(256),
        Algorithm::Rendezvous,
        Algorithm::Jump,
        Algorithm::Flow,
    ];
    for algorithm in algorithms {
        let mut sums = [0.0; 5];
        let mut time = Duration::MAX;
        for salt in 0..SALTS {
            let before = renamed(&scenario.before, salt);
            let after = renamed(&scenario.after, salt);
            let begun = Instant::now();
            let old = algorithm.place(&before, salt, &[]);
            time = time.min(begun.elapsed());
            let new = algorithm.place(&after, salt, &old);
            let (first, then) = (extremes(&old, &fair(&before)), extremes(&new, &fair(&after)));
            let found = [first.0, first.1, then.0, then.1, moved(&old, &new) as f64];
            sums.iter_mut().zip(found).for_each(|(sum, each)| *sum += each / f64::from(SALTS));
        }
        let [most, least, then_most, then_least, moved] = sums;
        let bytes = algorithm.bytes(&scenario.before);
        println!(
            "| {} | {most:.2} | {least:.2} | {then_most:.2} | {then_least:.2} | {moved:.0} | {} us | {bytes} |",
            algorithm.name(),
            time.as_micros(),
        );
    }
}

/// Plans at the bound of partitions: from nothing, and for one change.
fn large() {
    const MANY: usize = quorate_placement::PARTITIONS_MAX;
    println!("\n{MANY} partitions x {REPLICAS} on 100 nodes of weights 1, 2 and 4, the fastest of five:\n");
    println!(
        "| zones | from nothing | nothing changes | a node joins | one is lost | one is heavier | ten are lost | from random rows |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for zones in [&[][..], &["a", "b", "c"], &["a", "b", "c", "d", "e"], &["a", "b"]] {
        let nodes = cluster(100, zones, &[1, 2, 4]);
        let members = |nodes: &[Node]| nodes.iter().cloned().map(Member::from).collect::<Vec<Member>>();
        let time = |nodes: &[Node], old: &[Assignment]| {
            let members = members(nodes);
            let each = |_| {
                let begun = Instant::now();
                let found = plan(&members, MANY, REPLICAS, old).expect("a large cluster");
                (begun.elapsed(), found.replicas_moved())
            };
            let (time, moved) = (0..5).map(each).min().expect("five runs");
            format!("{:.1} ms, {moved} moved", time.as_secs_f64() * 1_000.0)
        };
        let old = plan(&members(&nodes), MANY, REPLICAS, &[]).expect("a large cluster").table;
        let random: Vec<Assignment> = (0..MANY as u64)
            .map(|row| {
                let first = mix(row, 0) % 100;
                let replicas = [0, 1, 37].map(|step| NodeId(1 + (first + step) % 100));
                Assignment { replicas: replicas.to_vec(), leader: Some(replicas[0]) }
            })
            .collect();
        let more = cluster(101, zones, &[1, 2, 4]);
        let mut heavier = nodes.clone();
        heavier[0].weight = 4;
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            zones.len(),
            time(&nodes, &[]),
            time(&nodes, &old),
            time(&more, &old),
            time(&nodes[1..], &old),
            time(&heavier, &old),
            time(&nodes[10..], &old),
            time(&nodes, &random),
        );
    }
    let nodes = cluster(quorate_placement::NODES_MAX as u64, &["a", "b", "c", "d", "e"], &[1, 2, 4]);
    let members: Vec<Member> = nodes.into_iter().map(Member::from).collect();
    let begun = Instant::now();
    let old = plan(&members, MANY, REPLICAS, &[]).expect("the largest cluster").table;
    let fresh = begun.elapsed();
    let begun = Instant::now();
    let moved = plan(&members[1..], MANY, REPLICAS, &old).expect("the largest cluster").replicas_moved();
    println!(
        "\nOn {} nodes: {} ms from nothing, {} ms when one is lost ({moved} moved).",
        members.len(),
        fresh.as_millis(),
        begun.elapsed().as_millis()
    );
    // Where the system says so: the most memory that this process had, most of it the last networks.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status")
        && let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))
    {
        println!("\nMost memory of the whole process: {}.", peak.trim());
    }
}

fn main() {
    println!(
        "{PARTITIONS} partitions x {REPLICAS} replicas; the averages of {SALTS} sets of keys and node ids."
    );
    scenarios().iter().for_each(compare);
    large();
}
