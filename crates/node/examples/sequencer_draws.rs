//! What a revision costs: drawing it, and hearing that it is applied.
//!
//! `cargo run --release -p quorate-node --example sequencer_draws`
//!
//! Draws go to the partitions in turn, and so many are under way at any time: each is confirmed that many draws later, as under load. A
//! mark is raised as soon as it is wanted; committing it is not in the numbers (one entry for each thousand revisions at least). Each time is that of
//! the best of several runs.
//!
//! Caveat: everything is in the processor's caches, and nobody else uses them.

#![allow(clippy::unwrap_used)] // A measurement, with nobody to hand an error to.

use quorate_node::sequencer::Sequencer;
use quorate_types::{GroupId, KeyspaceId, NodeId, PartitionId, Position, Revision, Term};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

const RUNS: usize = 7;
const DRAWS: u32 = 200_000;
const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

fn group(partition: u32) -> GroupId {
    GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) }
}

/// Nanoseconds for each revision that changes something in so many partitions.
fn measure(partitions: u32, parts: u32, under_way: usize) -> f64 {
    let mut sequencer = Sequencer::new(Term(1));
    sequencer.open(KEYSPACE, None);
    for partition in 0..partitions {
        let leader = (NodeId(1), Term(1));
        sequencer.register(group(partition), leader, Revision::FIRST, Position::default()).unwrap();
    }
    let mut waiting: VecDeque<(u32, Revision)> = VecDeque::with_capacity(under_way + 1);
    let mut touched = Vec::new();
    let begun = Instant::now();
    for number in 0..DRAWS {
        if sequencer.wants_mark(KEYSPACE) {
            for (keyspace, mark) in sequencer.marks_wanted() {
                sequencer.marked(keyspace, mark);
            }
        }
        let home = number % partitions;
        touched.clear();
        touched.extend((home..home + parts).map(|part| (PartitionId(part % partitions), Term(1))));
        waiting.push_back((home, black_box(sequencer.draw(group(home), &touched).unwrap())));
        if waiting.len() > under_way {
            let (home, revision) = waiting.pop_front().unwrap();
            // As a leader does that has applied the decision, then its part.
            if parts > 1 {
                sequencer.decided(group(home), revision);
            }
            for part in home..home + parts {
                sequencer.applied(group(part % partitions), revision);
            }
        }
    }
    begun.elapsed().as_nanos() as f64 / f64::from(DRAWS)
}

fn main() {
    println!("nanoseconds a revision: drawn, and confirmed by each partition that it changes");
    println!("{:>10} {:>16} {:>12} {:>12}", "partitions", "under way at once", "in one", "in two");
    for partitions in [16, 256, 1024] {
        for under_way in [1, 64, 1_024, 16_384] {
            let best =
                |parts| (0..RUNS).map(|_| measure(partitions, parts, under_way)).fold(f64::MAX, f64::min);
            println!("{partitions:>10} {under_way:>16} {:>9.0} ns {:>9.0} ns", best(1), best(2));
        }
    }
}
