//! Whole clusters of the real deciding code in a simulated world, from one seed.
//!
//! Everything that decides is the program's own: the hosts, their consensus, partitions, watches, the
//! write-ahead log. The world around them is simulated: a network that loses, repeats, reorders, delays and cuts; disks that
//! forget what was not synced; processes that die and come back. First everything may fail and nothing may be
//! wrong; then faults stop and everything must finish.
//!
//! * [`world`]: nodes, network, disks, time.
//! * [`clients`]: random calls, and what was answered.
//! * [`checker`]: what must hold of it.
//!
//! A seed gives the same run, to the bit, every time; a failure names its seed.

pub mod checker;
pub mod clients;
pub mod random;
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
    /// Nodes that came back with an empty disk.
    pub disks_lost: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Terms served.
    pub elections: u64,
    /// Events that watchers were told.
    pub watched: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Digest of everything that happened, in order.
    pub trace: u64,
}

/// Runs one seed.
pub fn run(seed: u64) -> Result<Summary, Violation> {
    let mut world = World::new(seed);
    world.run_with_faults()?;
    world.heal_and_finish()?;
    checker::check(&world)?;
    Ok(world.summary())
}
