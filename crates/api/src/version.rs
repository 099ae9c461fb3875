//! What we say we are.

/// The etcd release whose behaviour we follow. Clients read it: Patroni wants three numbers, Kubernetes
/// decides by it whether progress requests can be relied on (3.5.13 and later).
pub const ETCD: &str = "3.5.21";
/// The cluster version that goes with it.
pub const ETCD_CLUSTER: &str = "3.5.0";
/// Our own.
pub const OWN: &str = env!("CARGO_PKG_VERSION");
