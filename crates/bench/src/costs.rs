//! Whose processor time a load takes: by node and by the threads' names.
//!
//! The leader is told apart from the others because they do different work: it decides, they follow. Threads of one name are one role (the connections'
//! threads are many).
//!
//! Caveat: what threads took that ended meanwhile is missing here; the sum over processes (`process.rs`) has it.

use crate::Failure;
use crate::cluster::Cluster;
use crate::process;
use std::collections::BTreeMap;

/// Microseconds by the names of threads.
pub(crate) type Threads = BTreeMap<String, f64>;

/// Processor time per operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Costs {
    /// Of the node that leads.
    pub(crate) leader: Threads,
    /// Of each other node, in the mean.
    pub(crate) follower: Threads,
}

impl Costs {
    /// What each thread of either took, by `combine`: it is given the numbers of all.
    pub(crate) fn combined(all: &[Self], combine: impl Fn(Vec<f64>) -> f64) -> Self {
        let of = |side: fn(&Self) -> &Threads| {
            let names = all.iter().flat_map(|costs| side(costs).keys());
            let numbers =
                |name: &String| all.iter().filter_map(|costs| side(costs).get(name).copied()).collect();
            names.map(|name| (name.clone(), combine(numbers(name)))).collect()
        };
        Self { leader: of(|costs| &costs.leader), follower: of(|costs| &costs.follower) }
    }
}

/// A measurement that has begun.
pub(crate) struct Meter {
    leader: u32,
    before: BTreeMap<u32, Threads>,
}

impl Meter {
    /// Begins to measure those of the cluster's processes that are alive.
    pub(crate) fn start(cluster: &Cluster, leader: usize) -> Self {
        let pids = cluster.pids();
        Self { leader: pids[leader], before: pids.iter().map(|&pid| (pid, process::threads(pid))).collect() }
    }

    /// What so many operations took each.
    pub(crate) fn stop(&self, operations: f64) -> Result<Costs, Failure> {
        let mut costs = Costs::default();
        let alive = self.before.iter().filter(|(_, threads)| !threads.is_empty());
        let followers = alive.filter(|(pid, _)| **pid != self.leader).count() as f64;
        for (&pid, before) in &self.before {
            let is_leader = pid == self.leader;
            let (side, share) =
                if is_leader { (&mut costs.leader, 1.0) } else { (&mut costs.follower, followers) };
            for (name, micros) in process::threads(pid) {
                let took = micros - before.get(&name).copied().unwrap_or(0.0);
                *side.entry(name).or_default() += took / operations.max(1.0) / share;
            }
        }
        if costs.leader.is_empty() {
            return Err("the leader is gone, or this system does not say what its threads took".into());
        }
        Ok(costs)
    }
}
