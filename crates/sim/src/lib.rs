//! Whole clusters of the real deciding code in a simulated world, from one seed.
//!
//! Everything that decides is the program's own: the hosts, their consensus, partitions, watches, the
//! write-ahead log. The world around them is simulated: a network that loses, repeats, reorders, delays and cuts; disks that
//! forget what was not synced; processes that die and come back. First everything may fail and nothing may be
//! wrong; then faults stop, everything must finish, and
//! groups that have nothing to do must sleep and wake.
//!
//! * [`world`]: nodes, network, disks, time, pauses.
//! * [`clients`]: random calls, and what was answered; [`watchers`]: random watches, and what each promise means for them.
//! * [`history`] and [`applied`]: what happened, by revision and by entry.
//! * [`Transactions`]: how those over partitions ended.
//! * [`quorums`]: that the configurations of each group are one lineage.
//! * [`states`]: which rare states were reached.
//! * [`checker`]: what must hold of it, with a model of the key space ([`quorate_checker`]) and what is promised of [`leases`].
//!
//! A seed gives the same run, to the bit, every time; a failure names its seed.

pub mod applied;
pub mod checker;
pub mod clients;
pub mod history;
mod leases;
mod quorums;
pub mod random;
pub mod states;
mod transactions;
mod watchers;
pub mod world;

use checker::Violation;
use random::Random;
use std::collections::BTreeMap;
pub use transactions::Transactions;
use world::World;

/// What one run did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Ticks of simulated time.
    pub ticks: u64,
    /// Calls answered.
    pub answered: u64,
    /// Calls whose outcome stayed unknown.
    pub unknown: u64,
    /// Calls rejected.
    pub rejected: u64,
    /// Revisions written.
    pub revisions: u64,
    /// Processes killed.
    pub crashes: u64,
    /// Processes stopped for a while.
    pub pauses: u64,
    /// Nodes that came back with an empty disk.
    pub disks_lost: u64,
    /// Disks that hung.
    pub hangs: u64,
    /// Processes that ended because their disks failed.
    pub disks_failed: u64,
    /// Disks that had little space left.
    pub disks_short: u64,
    /// Disks that had none.
    pub disks_full: u64,
    /// Logs in which a bit flipped.
    pub logs_spoilt: u64,
    /// Of these, logs that were given up.
    pub logs_forgotten: u64,
    /// Rows of stores in which a bit flipped.
    pub rotten: u64,
    /// Stores that were given up for that, and filled anew.
    pub stores_mended: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Events that watchers were told.
    pub watched: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Partitions that were split off others.
    pub splits: u64,
    /// Nodes that joined.
    pub members_joined: u64,
    /// Members that died for good.
    pub members_lost: u64,
    /// Members whose rows were removed.
    pub members_removed: u64,
    /// Replicas thrown away because their groups are elsewhere.
    pub moves: u64,
    /// Groups whose voters became others, the meta group among them.
    pub voters_replaced: u64,
    /// Over several partitions.
    pub transactions: Transactions,
    /// Of each kind of queue the most that there was in one place, and its bound.
    pub largest: BTreeMap<&'static str, (usize, usize)>,
    /// Digest of everything that happened, in order.
    pub trace: u64,
}

/// How many partitions a run has that does not say.
const PARTITIONS_DRAWN: [u32; 10] = [1, 1, 2, 2, 3, 3, 4, 4, 8, 16];

/// How many partitions a run has: as many as asked for; of 0, what the seed says.
pub fn partitions_of(seed: u64, asked: u32) -> u32 {
    match asked {
        // By a generator of its own: the seed's last digits say other things.
        0 => PARTITIONS_DRAWN[Random::new(!seed).below(PARTITIONS_DRAWN.len() as u64) as usize],
        asked => asked,
    }
}

/// Runs one seed, over so many partitions; 0 is for the seed to say.
pub fn run(seed: u64, partitions: u32) -> Result<Summary, Violation> {
    let mut world = World::new(seed, partitions_of(seed, partitions));
    world.run_with_faults()?;
    world.heal_and_finish()?;
    world.sleep_and_wake()?;
    let expired = checker::check(&world)?;
    let voters_replaced = quorums::check(&world)?;
    Ok(Summary { expired, voters_replaced, ..world.summary() })
}
