//! One partition of a keyspace: evaluating requests, applying what was committed, leases, watches.
//!
//! * [`evaluate`]: the leader turns a request into effects; only then is a revision drawn.
//! * [`footprint`] and [`transactions`]: its share in transactions over several partitions.
//! * [`apply`]: every replica makes committed effects part of its state, without deciding anything.
//! * [`publication`] and [`reader`]: any thread reads the applied state, what was read lately from memory (`lately`).
//! * [`split`]: a part of the keys becomes another partition's.
//! * [`snapshot`]: the whole state, sent to a replica that fell behind.
//! * [`watch`]: who hears of which change.
//!
//! The crate knows no clock (time is the leader's ticks), no network and no other partition.

pub mod apply;
mod cache;
mod compare;
pub mod error;
pub mod evaluate;
pub mod footprint;
mod lately;
mod lease;
pub mod limits;
mod locks;
mod overlay;
mod part_reader;
pub mod partition;
pub mod publication;
mod range;
pub mod reader;
mod recall;
pub mod snapshot;
pub mod split;
mod state;
pub mod transactions;
mod txn;
mod view;
pub mod watch;
mod writer;

pub use apply::{Applied, Share};
pub use error::ReadError;
pub use evaluate::Evaluated;
pub use footprint::{Places, Touched};
pub use limits::Limits;
pub use locks::Claim;
pub use part_reader::PartReader;
pub use partition::{Opened, Partition};
pub use publication::Publication;
pub use reader::{HashKv, Reader};
