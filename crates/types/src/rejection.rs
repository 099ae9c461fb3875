//! A "no" to the client.

use crate::{LeaseId, Revision, wire_enum};
use std::fmt;

/// Why a request was not carried out. `api` maps each to etcd's gRPC status and text, once.
///
/// Whether the request may have been carried out all the same is part of the meaning: only
/// [`Rejection::Unknown`] leaves it open; after every other one nothing has happened and nothing will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A put that keeps value or lease, of a key that does not exist.
    KeyNotFound,
    /// The revision asked for is no longer kept.
    Compacted {
        /// What was asked for; may be negative.
        asked: i64,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The revision asked for has not been reached.
    FutureRevision {
        /// What was asked for.
        asked: i64,
        /// The newest there is.
        newest: Revision,
    },
    /// No such lease.
    LeaseNotFound(LeaseId),
    /// A lease of that id exists.
    LeaseExists(LeaseId),
    /// A time to live over the limit (9,000,000,000 s as in etcd).
    LeaseTtlTooLarge,
    /// The command that the request turned into is larger than an entry may be, or a key does not fit into the store.
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The space quota is used up: reads and deletes go on, writes do not.
    NoSpace,
    /// Too much is waiting already; try again.
    Busy,
    /// No leader is known, or it could not be reached in time; nothing has happened.
    NoLeader,
    /// The leader changed before the request entered the log; nothing has happened.
    LeaderChanged,
    /// The request was in flight when the leader changed, stopped or fell silent: it may have been carried out or not.
    Unknown,
    /// No answer in time, before the request entered the log; nothing has happened.
    Timeout,
    /// This node's copy is being filled by a snapshot or is shutting down.
    Unavailable,
    /// The keyspace does not exist.
    KeyspaceNotFound,
    /// Transactions on the same keys kept each other from finishing until the time was over; nothing has happened.
    Contended,
}

wire_enum!(Rejection {
    0 => KeyNotFound, 1 => Compacted { asked, oldest }, 2 => FutureRevision { asked, newest },
    3 => LeaseNotFound(lease), 4 => LeaseExists(lease), 5 => LeaseTtlTooLarge, 6 => TooLarge { bytes, bytes_max },
    7 => NoSpace, 8 => Busy, 9 => NoLeader, 10 => LeaderChanged, 11 => Unknown, 12 => Timeout, 13 => Unavailable,
    14 => KeyspaceNotFound, 15 => Contended,
});

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyNotFound => write!(f, "key not found"),
            Self::Compacted { asked, oldest } => {
                write!(f, "revision {asked} is compacted, {oldest} is the oldest")
            }
            Self::FutureRevision { asked, newest } => {
                write!(f, "revision {asked} is in the future, {newest} is the newest")
            }
            Self::LeaseNotFound(lease) => write!(f, "lease {lease} not found"),
            Self::LeaseExists(lease) => write!(f, "lease {lease} already exists"),
            Self::LeaseTtlTooLarge => write!(f, "time to live too large"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "command of {bytes} bytes is over the limit of {bytes_max}")
            }
            Self::NoSpace => write!(f, "space quota used up"),
            Self::Busy => write!(f, "too many requests"),
            Self::NoLeader => write!(f, "no leader"),
            Self::LeaderChanged => write!(f, "leader changed"),
            Self::Unknown => write!(
                f,
                "outcome unknown: the leader changed or fell silent while the request was in flight"
            ),
            Self::Timeout => write!(f, "timed out"),
            Self::Unavailable => write!(f, "this replica cannot serve now"),
            Self::KeyspaceNotFound => write!(f, "keyspace not found"),
            Self::Contended => {
                write!(f, "too many transactions on the same keys at once; nothing has happened, try again")
            }
        }
    }
}

impl std::error::Error for Rejection {}
