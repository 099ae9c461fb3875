//! The numbers a partition keeps to.

/// Bounds and units of a partition. The same on every node of a cluster, though nothing breaks while they
/// differ: only the leader's count, because entries carry what it decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ticks in a second, to turn times to live into ticks.
    pub ticks_per_second: u64,
    /// What a new leader adds to every lease: its holder may have been unable to renew for so long
    /// while nobody led.
    pub election_timeout_ticks: u64,
    /// A shorter time to live is raised to this.
    pub lease_ttl_seconds_min: u64,
    /// A longer time to live is refused.
    pub lease_ttl_seconds_max: u64,
    /// Leases that live longer than this have their remaining time recorded so often; and a lease is
    /// thrown back by at most this much when the leader changes.
    pub lease_checkpoint_seconds: u64,
    /// Leases in one checkpoint command; the rest waits for the next.
    pub lease_checkpoints_max: usize,
    /// A command that takes more bytes is refused.
    pub entry_bytes_max: usize,
    /// Bytes of newest versions kept in memory at the leader, so that a put reads nothing.
    pub cache_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ticks_per_second: 50,
            election_timeout_ticks: 40,
            lease_ttl_seconds_min: 2,
            lease_ttl_seconds_max: 9_000_000_000,
            lease_checkpoint_seconds: 300,
            lease_checkpoints_max: 1_000,
            entry_bytes_max: 64 << 20,
            cache_bytes_max: 32 << 20,
        }
    }
}
