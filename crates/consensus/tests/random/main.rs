//! One group of three or five replicas, or of changing members among five or seven nodes, under everything that the trait allows, from a seed.
//!
//! A seed draws a world (how often messages are lost, repeated and late, how slow disks are, how often
//! nodes crash and links are cut, whether reads go by lease) and then every event in it. First anything
//! may fail and nothing may be wrong ([`invariants`]); then faults stop, and a leader must be found, all
//! must catch up, new proposals must commit and every read must have been answered ([`world`]).
//!
//! Only the `Consensus` trait is used: what a replica's log holds is known from the writes it hands out.
//!
//! * `QUORATE_SEEDS=5000` runs more seeds, `QUORATE_SEED=17` one seed, with its trace when it fails.
//!
//! Caveats: entries are opaque and snapshots are only positions; that a snapshot's bytes arrive whole is
//! for the node's tests. `docs/consensus.md` lists the bugs that were planted to see this fail.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod counts;
mod disk;
mod invariants;
mod world;

use counts::Counts;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use world::World;

/// Seeds of each test, unless the environment says otherwise.
const SEEDS: u64 = 400;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

fn check(voters: u64, spares: u64, test: &str) {
    let one = variable("QUORATE_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..variable("QUORATE_SEEDS").unwrap_or(SEEDS),
    };
    let mut counts = Counts::default();
    for seed in seeds {
        let mut world = World::new(voters, spares, seed, one.is_some());
        let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
        if let Err(panic) = outcome {
            for line in &world.trace {
                println!("{line}");
            }
            println!("seed {seed} failed; to replay it:");
            println!("QUORATE_SEED={seed} cargo test -p quorate-consensus --test random {test}");
            resume_unwind(panic);
        }
        counts.add(&world.counts);
    }
    println!("{voters} voters, {spares} spares: {counts:?}");
    // A world in which nothing happens proves nothing.
    let has_changed = spares == 0 || counts.changes > 0 && counts.resignations > 0;
    assert!(one.is_some() || counts.is_eventful() && has_changed, "something never happened: {counts:?}");
}

#[test]
fn three_voters() {
    check(3, 0, "three_voters");
}

#[test]
fn five_voters() {
    check(5, 0, "five_voters");
}

#[test]
fn members_among_five() {
    check(3, 2, "members_among_five");
}

#[test]
fn members_among_seven() {
    check(3, 4, "members_among_seven");
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in 0..3 {
        let trace = || {
            let mut world = World::new(3, 2, seed, true);
            world.run();
            world.trace
        };
        assert!(trace() == trace(), "two runs of seed {seed} differ");
    }
}
