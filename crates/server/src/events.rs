//! What happened on this node and what the cluster decided, as far as this node saw it, with the time of day and the reason; kept for days.
//!
//! The worker tells of what the host noticed ([`Told`]); [`telling`] puts it into words with names and reasons, and [`recorder`], a thread of its
//! own, folds what happens to many groups at once and appends it to the [`journal`]. `GET /events` serves it (`services/events.rs`), and `quorate events`
//! puts all nodes' together (`cli/events/`).
//!
//! Invariants:
//!
//! * Nobody waits for it: what cannot be taken in time is counted and left out, and a disk that takes nothing costs events, not the node.
//! * The same fact has the same words and the same mark on every node that tells it: by them doubles are known.
//!
//! Caveats: the journal is not synced: what the machine had not written when its power failed is missing. The last moments (a fifth of a second) of a process that is
//! killed is missing likewise. The time is that of the node's clock.

pub mod journal;
pub mod recorder;
pub mod telling;

use quorate_node::Notice;
use quorate_types::{KeyspaceMap, Member, NodeId};
use serde::{Deserialize, Serialize};

/// Where in a sentence the groups go that it is about.
pub const GROUPS: &str = "{}";
/// Bytes of a sentence or a reason; longer ones are cut.
const TEXT_BYTES_MAX: usize = 1_024;

/// What the recorder is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// What the host noticed.
    Notice(Notice),
    /// A keyspace's map, new or changed.
    Map(Box<KeyspaceMap>),
    /// All members.
    Members(Vec<Member>),
    /// The connection from a peer broke.
    ConnectionLost(NodeId),
    /// Writes are refused, and why; or taken again.
    Space(Option<String>),
    /// The process has begun.
    Started,
    /// It was told to stop.
    Stopping,
    /// It has stopped in order.
    Stopped,
    /// Its store is damaged, and is to be given up.
    Suspect(String),
    /// Its store was put aside for that, and is filled anew.
    PutAside(crate::repair::Aside),
    /// It stops because of this.
    Failed(String),
}

/// Of what kind an event is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Who leads what.
    Election,
    /// Who is not heard, and heard again.
    Silence,
    /// Who joins, leaves, is lost or back, and what is ordered about nodes.
    Member,
    /// Groups that go from node to node.
    Move,
    /// A node's replicas: snapshots fetched, replicas thrown away.
    Replica,
    /// Partitions that are split.
    Split,
    /// Keyspaces that come and go.
    Keyspace,
    /// Space for writes.
    Space,
    /// Disks that have stopped answering, and answer again.
    Disk,
    /// Nodes' processes: starts, stops, failures.
    Process,
    /// What a node should not have been sent.
    Refused,
    /// Of a later version.
    #[serde(other)]
    #[value(skip)]
    Unknown,
}

impl Kind {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Election => "election",
            Self::Silence => "silence",
            Self::Member => "member",
            Self::Move => "move",
            Self::Replica => "replica",
            Self::Split => "split",
            Self::Keyspace => "keyspace",
            Self::Space => "space",
            Self::Disk => "disk",
            Self::Process => "process",
            Self::Refused => "refused",
            Self::Unknown => "other",
        }
    }
}

/// A group that something happened to: its keyspace's name, its partition, and its [`Record::mark`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Group(pub String, pub u32, pub Option<u64>);

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    /// Its place in the node's journal, from 1 on.
    #[serde(default)]
    pub n: u64,
    /// When, in milliseconds since 1970, by the node's clock.
    pub at: u64,
    /// Of what kind.
    pub kind: Kind,
    /// What happened; [`GROUPS`] stands for the groups.
    pub what: String,
    /// Why; empty if that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// To which groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// What tells it from the same happening again, the same on every node: a term, the revision of a row, an id. Without one, the same at nearly the same
    /// time is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u64>,
}

impl Record {
    /// One about no group.
    pub fn new(at: u64, kind: Kind, what: impl Into<String>, why: impl Into<String>) -> Self {
        let (what, why) = (cut(what.into()), cut(why.into()));
        Self { n: 0, at, kind, what, why, groups: Vec::new(), mark: None }
    }

    /// The same, about a group.
    fn of(mut self, group: Group) -> Self {
        self.groups.push(group);
        self
    }

    /// The same, with a mark.
    fn marked(mut self, mark: u64) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Takes the other in if that is the same but for the groups. Returns whether it is.
    fn takes(&mut self, other: &Self) -> bool {
        let is_same = self.kind == other.kind && self.what == other.what && self.why == other.why;
        if !is_same || self.mark != other.mark {
            return false;
        }
        for group in &other.groups {
            if !self.groups.contains(group) {
                self.groups.push(group.clone());
            }
        }
        true
    }
}

fn cut(mut text: String) -> String {
    let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}
