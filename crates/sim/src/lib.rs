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
//! * [`checker`]: what must hold of it, with a [`model`] of the key space and what is promised of [`leases`].
//!
//! A seed gives the same run, to the bit, every time; a failure names its seed.

pub mod applied;
pub mod checker;
pub mod clients;
pub mod history;
mod leases;
pub mod model;
pub mod random;
mod watchers;
pub mod world;

use checker::Violation;
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
    /// Snapshots installed.
    pub snapshots: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Events that watchers were told.
    pub watched: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Digest of everything that happened, in order.
    pub trace: u64,
}

/// Runs one seed, over so many partitions.
pub fn run(seed: u64, partitions: u32) -> Result<Summary, Violation> {
    let mut world = World::new(seed, partitions);
    world.run_with_faults()?;
    world.heal_and_finish()?;
    world.sleep_and_wake()?;
    let expired = checker::check(&world)?;
    Ok(Summary { expired, ..world.summary() })
}
