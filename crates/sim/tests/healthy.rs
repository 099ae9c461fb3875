//! Where nothing fails, revisions have no holes, over several partitions as over one: a revision is drawn only for what changes
//! something, and what was drawn for happens.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_sim::checker;
use quorate_sim::world::World;
use quorate_types::Revision;

#[test]
fn without_faults_revisions_have_no_holes_over_partitions() {
    for (seed, partitions) in [(0, 2), (1, 3), (2, 4), (3, 8), (5, 16)] {
        let mut world = World::healthy(seed, partitions);
        world.run_with_faults().unwrap();
        world.heal_and_finish().unwrap();
        checker::check(&world).unwrap();
        let made: Vec<Revision> = world.history.revisions.keys().copied().collect();
        let all: Vec<Revision> = (2..2 + made.len() as u64).map(Revision).collect();
        assert_eq!(made, all, "seed {seed}, {partitions} partitions");
        let summary = world.summary();
        assert!(summary.transactions.decided > 20, "seed {seed} met transactions: {summary:?}");
        assert_eq!(summary.transactions.inherited, 0);
    }
}
