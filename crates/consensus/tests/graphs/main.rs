//! Who leads when some of the links between three, four or five nodes fail, and the others go on.
//!
//! Over all graphs of such links (of one-way links among five nodes, a sample), with a leader at each node before: where some node still reaches a quorum, both ways and directly,
//! a leader is found that can commit, within four election timeouts; it commits what is proposed from then on, and
//! is not replaced for twenty more. Where no node does, nobody leads, and nobody begins a term ([`trial`]).
//!
//! Raft has one exception, and the tests count its cases and find no other: a *constrained election*. Whoever reaches a quorum lacks
//! entries that a voter it cannot do without has, and in Raft nobody gets entries but from a leader ([`start::electable`]).
//!
//! The scenarios are of Ng, Haridi and Carbone, "Omni-Paxos: Breaking the Barriers of Partial Connectivity", EuroSys 2023; Cloudflare's
//! outage of November 2020 began with the chained one.
//!
//! * `QUORATE_SEEDS=50` takes as many draws of the timeouts for each case, and of graphs where those are drawn (100,000 with one-way links
//!   among five nodes).
//!
//! Caveats: each message takes one tick; none is lost or late on a link that is there. That comes with `tests/random`.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

#[path = "../fast/mod.rs"]
mod fast;
mod graph;
mod network;
mod start;
mod trial;

use graph::{Graph, NODES_MAX};
use network::Owner;
use quorate_consensus::random::Random;
use start::{Logs, Start};
use trial::{Tally, Verdict};

/// One-way links among five nodes: so many graphs of 2^20 are drawn.
const DRAWN: u64 = 2_000;
/// Two graphs in a row, of each number of nodes.
const PAIRS: u64 = 300;

fn rounds() -> u64 {
    let Ok(text) = std::env::var("QUORATE_SEEDS") else { return 1 };
    text.parse().unwrap_or_else(|_| panic!("QUORATE_SEEDS must be a number, not {text:?}"))
}

/// Tries all of them, with each owner in turn; `expected` says of how many starts [`Verdict::ALL`] are right.
fn check_all(name: &str, graphs: &[Graph], expected: [u64; 4]) {
    let mut tally = Tally::default();
    for (at, start) in Start::all(graphs).iter().enumerate() {
        for round in 0..rounds() {
            tally.add_start(start, Owner::ALL[(at as u64 + round) as usize % Owner::ALL.len()], round);
        }
    }
    assert_eq!(tally.counts(name), expected.map(|count| count * rounds()));
}

#[test]
fn links_among_three_fail() {
    check_all("links among three", &Graph::undirected(3), [4, 20, 4, 0]);
}

#[test]
fn links_among_four_fail() {
    check_all("links among four", &Graph::undirected(4), [22, 60, 36, 2]);
}

#[test]
fn links_among_five_fail() {
    check_all("links among five", &Graph::undirected(5), [28, 438, 189, 5]);
}

#[test]
fn links_among_three_fail_one_way() {
    check_all("one-way links among three", &Graph::directed(3), [84, 86, 30, 0]);
}

#[test]
fn links_among_four_fail_one_way() {
    check_all("one-way links among four", &Graph::directed(4), [3390, 920, 1318, 100]);
}

#[test]
fn links_among_five_fail_one_way() {
    let mut random = Random::new(5);
    let mut tally = Tally::default();
    for round in 0..DRAWN * rounds() {
        let graph = Graph::drawn(5, &mut random);
        let logs = Logs::ALL[random.between(0, Logs::ALL.len() as u64) as usize];
        tally.add_start(&Start { graph, logs }, Owner::ALL[round as usize % Owner::ALL.len()], round);
    }
    let counts = tally.counts("one-way links among five, drawn");
    assert!(counts.iter().all(|count| *count > 0), "something never happened: {tally}");
}

/// What one partition left behind, terms and logs that differ and leaders known to some, is where the next begins.
#[test]
fn links_fail_while_others_come_back() {
    for size in 3..=NODES_MAX {
        let mut random = Random::new(size as u64);
        let mut tally = Tally::default();
        for round in 0..PAIRS * rounds() {
            let graphs = [Graph::drawn(size, &mut random), Graph::drawn(size, &mut random)];
            tally.add_pair(graphs, Owner::ALL[round as usize % Owner::ALL.len()], round);
        }
        let [_, stayed, found, _] = tally.counts(&format!("two graphs of {size}"));
        assert!(stayed > 0 && found > 0, "something never happened: {tally}");
    }
}

#[test]
fn the_scenarios_of_the_omni_paxos_paper() {
    let verdict = |size, links: &[(usize, usize)], logs| {
        let mut graph = Graph::empty(size);
        for (a, b) in links {
            graph.link(*a, *b);
            graph.link(*b, *a);
        }
        let mut tally = Tally::default();
        for owner in Owner::ALL {
            tally.add_start(&Start { graph, logs }, owner, 0);
        }
        let one = tally.counts("scenario").iter().position(|count| *count == Owner::ALL.len() as u64);
        Verdict::ALL[one.expect("all owners come to the same")]
    };
    // Quorum loss: all have lost all but one, who still hears the leader, and so might never stand.
    assert_eq!(verdict(5, &[(1, 0), (1, 2), (1, 3), (1, 4)], Logs::Equal), Verdict::Found);
    // The same, and the leader is gone: the only one who reaches a quorum is behind.
    assert_eq!(verdict(5, &[(1, 2), (1, 3), (1, 4)], Logs::Equal), Verdict::Found);
    assert_eq!(verdict(5, &[(1, 2), (1, 3), (1, 4)], Logs::Behind), Verdict::Constrained);
    // Chained: the ends do not hear each other, and could depose each other for ever.
    assert_eq!(verdict(3, &[(0, 2), (2, 1)], Logs::Equal), Verdict::Stayed);
}
