//! The program: everything that touches the world.
//!
//! * [`config`], [`data_dir`], [`serve`]: how a node is set up, started and stopped.
//! * [`belonging`]: which cluster a node belongs to, and how it joins one.
//! * [`membership`]: the members of the cluster, as clients are told.
//! * [`runtime`]: the shell around the deciding code.
//! * [`services`]: etcd's API over gRPC, health and metrics over HTTP.
//! * [`engine`], [`disk`]: the real ordered store and the real files.
//! * [`events`]: what happened on this node, and why, kept for days.
//! * [`repair`]: what is done about a damaged store.
//! * [`crash_points`]: where tests have the process end.
//! * [`space`]: what happens when the disk is nearly full.
//! * [`tls`]: certificates and keys, for clients and between nodes.
//! * [`cli`], [`demo`], [`chaos`]: the commands for people.
//! * [`untrusted`]: the readers of foreign bytes, for fuzzing.

pub mod belonging;
pub mod chaos;
pub mod cli;
pub mod config;
pub mod crash_points;
pub mod data_dir;
pub mod demo;
pub mod disk;
pub mod engine;
pub mod events;
pub mod membership;
pub mod metrics;
mod port;
pub mod priority;
pub mod repair;
pub mod runtime;
pub mod serve;
pub mod services;
pub mod space;
pub mod tls;
#[doc(hidden)]
pub mod untrusted;
