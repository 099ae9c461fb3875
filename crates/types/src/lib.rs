//! The words the whole program shares: ids, keys, slots, revisions, requests, replies, log entries,
//! and their stored and wire form.
//!
//! This crate knows nothing of consensus, storage, clocks or sockets. Everything that crosses a seam
//! between two other crates, or that is written to a disk or a peer, has its type here, so that the
//! format of a thing stands beside its meaning.
//!
//! * [`ids`]: who and where: nodes, groups, leases, terms, indexes, ticks.
//! * [`revision`]: the order of changes in a keyspace.
//! * [`key`], [`slot`] and [`slots`]: ranges of keys, which hash bucket a key belongs to, and sets of those.
//! * [`rules`]: which keys of a keyspace are not placed by their directory.
//! * [`map`]: what partitions a keyspace has.
//! * [`member`] and [`place`]: what nodes a cluster has, and which of them have the replicas of a group.
//! * [`record`]: what is stored of a key.
//! * [`request`] and [`reply`]: what a client asks and gets, free of any wire API.
//! * [`watch`]: what a client asks to be told.
//! * [`transaction`]: transactions over several partitions.
//! * [`entry`] and [`command`]: what the replicated log carries (effects, never requests).
//! * [`codec`]: how all of these become bytes.
//! * [`crash_point()`]: where tests have the process end.
//! * [`probe`]: names for states that a simulation must have been in.

pub mod codec;
pub mod command;
pub mod crash_point;
pub mod entry;
pub mod event;
pub mod fault;
pub mod ids;
pub mod key;
pub mod map;
pub mod member;
pub mod place;
pub mod probe;
pub mod record;
pub mod rejection;
pub mod reply;
pub mod request;
pub mod revision;
pub mod rules;
pub mod slot;
pub mod slots;
pub mod transaction;
pub mod watch;

pub use bytes::Bytes;
pub use codec::{Decode, Encode, Input, Malformed, Output};
pub use command::{Command, Effect, Split};
pub use crash_point::crash_point;
pub use entry::{Entry, EntryKind, HardState, LogWrite, Position};
pub use event::{Changes, Event};
pub use fault::Fault;
pub use ids::{ClusterId, GroupId, Incarnation, Index, KeyspaceId, LeaseId, NodeId, PartitionId, Term, Tick};
pub use key::{Key, KeyRange};
pub use map::{KeyspaceMap, KeyspaceState, MapError, PartitionMap, PartitionState, SplitError};
pub use member::Member;
pub use place::Place;
pub use record::{KeyValue, Record};
pub use rejection::Rejection;
pub use reply::{Answer, Reply};
pub use request::Request;
pub use revision::{Revision, Stamp};
pub use rules::{Rule, RuleError, Rules};
pub use slot::{SLOTS, Slot};
pub use slots::SlotSet;
pub use transaction::{Committed, Decide, Footprint, KnownLease, Part, PastRange, PreState, Prepared, TxnId};
pub use watch::WatchRequest;
