//! The numbers a replica runs by.

use crate::Configuration;
use quorate_types::NodeId;

/// How one replica counts time and what bounds it keeps. Times are in ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// This replica.
    pub id: NodeId,
    /// The newest members that the state machine has applied, or got with a snapshot. Before any change, who voted when the group began:
    /// the same on every replica, also on those that join later. Newer ones are in the log.
    pub configuration: Configuration,
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: u64,
    /// The shortest election timeout, and how long a leader that was heard is honoured.
    pub election_ticks_min: u64,
    /// No election timeout is this long.
    pub election_ticks_max: u64,
    /// Seed of the random election timeouts, and of the names of forwarded reads; different on every replica
    /// and at every start.
    pub seed: u64,
    /// Appends on their way to one follower; then it is paused.
    pub inflight_messages_max: usize,
    /// Bytes of entries in one append; a single larger entry still goes.
    pub append_bytes_max: usize,
    /// Bytes proposed and not yet committed; more are refused as full.
    pub uncommitted_bytes_max: usize,
    /// When set, reads may be answered for so many ticks after a round that a quorum answered began. Right
    /// only while no clock runs so fast that this many ticks here exceed `election_ticks_min` there.
    pub lease_read: Option<u64>,
    /// When set, a group in which nothing was asked for so long stops its heartbeats and timers until something is. Only where the
    /// owner watches over the nodes, and says so with [`crate::Consensus::node_down`].
    pub hibernate_after_ticks: Option<u64>,
}

impl Options {
    /// The defaults in a group that these voters began: heartbeats every 5 ticks, elections after 25 to 40, no lease reads, no hibernation.
    pub fn new(id: NodeId, voters: Vec<NodeId>, seed: u64) -> Self {
        Self {
            id,
            configuration: Configuration::of_voters(voters),
            heartbeat_ticks: 5,
            election_ticks_min: 25,
            election_ticks_max: 40,
            seed,
            inflight_messages_max: 256,
            append_bytes_max: 1 << 20,
            uncommitted_bytes_max: 64 << 20,
            lease_read: None,
            hibernate_after_ticks: None,
        }
    }

    /// What is wrong with these numbers, if anything, in words for an operator.
    pub fn validate(&self) -> Result<(), &'static str> {
        if !self.configuration.is_valid() {
            Err("there are no voters, or a member is named twice")
        } else if self.heartbeat_ticks == 0 || self.heartbeat_ticks >= self.election_ticks_min {
            Err("heartbeat_ticks must be at least 1 and less than election_ticks_min")
        } else if self.election_ticks_min >= self.election_ticks_max {
            Err("election_ticks_min must be less than election_ticks_max")
        } else if self.inflight_messages_max == 0
            || self.append_bytes_max == 0
            || self.uncommitted_bytes_max == 0
        {
            Err("inflight_messages_max, append_bytes_max and uncommitted_bytes_max must be at least 1")
        } else if self.lease_read.is_some_and(|ticks| ticks >= self.election_ticks_min) {
            Err("lease_read must be less than election_ticks_min")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_senseless_numbers_are_named() {
        let good = Options::new(NodeId(1), vec![NodeId(1), NodeId(2)], 7);
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(Options { id: NodeId(3), ..good.clone() }.validate(), Ok(()), "it joins later");
        assert!(
            Options { configuration: Configuration::of_voters(Vec::new()), ..good.clone() }
                .validate()
                .is_err()
        );
        assert!(
            Options { configuration: Configuration::of_voters(vec![NodeId(1); 2]), ..good.clone() }
                .validate()
                .is_err()
        );
        assert!(Options { heartbeat_ticks: 25, ..good.clone() }.validate().is_err());
        assert!(Options { lease_read: Some(25), ..good }.validate().is_err());
    }
}
