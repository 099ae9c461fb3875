//! Why an order about nodes comes to nothing, in words that say what to do.

use super::Which;
use quorate_types::member::MEMBERS_MAX;
use quorate_types::{Malformed, Member};
use std::fmt;

/// Why an order was not carried out. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderRefused {
    /// There is no such member.
    NotFound(Which),
    /// Another has the name.
    NameTaken(Member),
    /// Another has the address.
    AddressTaken(Member),
    /// It joins again, but the cluster has placed replicas on what it was.
    HasData {
        /// As the cluster knows it.
        member: Member,
        /// How many replicas.
        replicas: usize,
    },
    /// The member that it would be makes no sense.
    Senseless(&'static str),
    /// The cluster is new: its founders' rows are not there yet.
    NotYet,
    /// [`MEMBERS_MAX`] are there.
    TooMany,
    /// Nobody would be left.
    LastActive(Member),
    /// Nobody would be left to take what it has.
    TooFew {
        /// Which.
        member: Member,
        /// Active members without it.
        left: usize,
        /// How many the groups are on.
        replicas: usize,
    },
    /// The order does not fit what the member is now.
    Unfit {
        /// As it is.
        member: Member,
        /// Why not, and what would.
        why: &'static str,
    },
    /// Others changed the members each time.
    Contended,
    /// What is stored is not what this version writes.
    Malformed(Malformed),
}

/// A member, for people.
fn named(member: &Member) -> String {
    if member.name.is_empty() {
        format!("node {} at {}", member.id, member.peer)
    } else {
        format!("node {} ({})", member.name, member.id)
    }
}

impl fmt::Display for OrderRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(which) => write!(f, "no node is called {which}, and none has that id"),
            Self::NameTaken(other) => write!(
                f,
                "the name {} belongs to {} at {}; give this node another --name",
                other.name,
                named(other),
                other.peer
            ),
            Self::AddressTaken(other) => write!(f, "the address {} belongs to {}", other.peer, named(other)),
            Self::HasData { member, replicas } => write!(
                f,
                "{} at {} is a member, and {replicas} replicas are placed on it: start it with its data directory. If that is \
                 lost, quorate node remove {} first, then join again",
                named(member),
                member.peer,
                member.name
            ),
            Self::Senseless(why) => write!(f, "{why}"),
            Self::NotYet => write!(f, "the cluster is new and not ready yet; try again"),
            Self::TooMany => write!(f, "a cluster has no more than {MEMBERS_MAX} nodes; remove one first"),
            Self::LastActive(member) => {
                write!(f, "{} is the last active node: nothing could take what it has", named(member))
            }
            Self::TooFew { member, left, replicas } => write!(
                f,
                "without {} there are {left} active nodes, too few for {replicas} replicas of everything: what it has would stay on it \
                 until another node joins. Join one first, or insist with --force",
                named(member)
            ),
            Self::Unfit { member, why } => write!(f, "{} {why}", named(member)),
            Self::Contended => {
                write!(f, "others change the nodes at the same time; nothing has happened, try again")
            }
            Self::Malformed(cause) => write!(f, "reading the nodes: {cause}"),
        }
    }
}

impl std::error::Error for OrderRefused {}

impl From<Malformed> for OrderRefused {
    fn from(cause: Malformed) -> Self {
        Self::Malformed(cause)
    }
}
