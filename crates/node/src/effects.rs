//! All that a node can ask of its shell.

use crate::PeerMessage;
use crate::admission::Standing;
use quorate_consensus::Role;
use quorate_types::{
    Changes, Fault, GroupId, Index, KeyspaceId, LogWrite, Member, NodeId, Position, Rejection, Reply,
    Revision, SlotSet, Term,
};
use std::sync::Arc;

/// Names one client call; drawn by the shell, unique within the process's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

quorate_types::wire_newtype!(Ticket);

/// Names one write to the node's log, ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// A read barrier that was passed: this node's copy of the keyspace as of the revision contains every write
/// acknowledged before the barrier was asked for, of the keys that it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// To read as of.
    pub revision: Revision,
    /// The keyspace's term.
    pub term: Term,
    /// Where else keys of those ranges are.
    pub reach: Reach,
}

impl Grant {
    /// Leaders are to answer.
    pub(crate) fn of_leaders(keyspace: KeyspaceId) -> Self {
        Self { keyspace, revision: Revision::default(), term: Term::default(), reach: Reach::Leader }
    }
}

/// What is done with a read where the copy here is far behind ([`crate::Options::read_behind_max`]), or not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfBehind {
    /// It waits for the copy here.
    Wait,
    /// Leaders are to answer it: [`Reach::Leader`].
    AskLeaders,
}

/// Where keys are that are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All on this node.
    Here,
    /// Not to be read here, because this node has no replica of them or of other partitions, or one that is far behind: leaders answer, asked by [`crate::Host::request`]. What
    /// barrier was passed does not count.
    Leader,
}

/// What to do: [`Effects::standing`] before anything else, the rest in any order. Messages that promise something are held back by the host itself until
/// [`crate::Host::persisted`] says that the write they wait for is durable.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages to peers; may be lost.
    pub send: Vec<(NodeId, PeerMessage)>,
    /// Must become durable, in order of ids, then be reported.
    pub persist: Option<(WriteId, Vec<(GroupId, LogWrite)>)>,
    /// Answers to [`crate::Host::request`], each ticket once.
    pub replies: Vec<(Ticket, Result<Reply, Rejection>)>,
    /// Answers to [`crate::Host::barrier`], each ticket once.
    pub grants: Vec<(Ticket, Result<Grant, Rejection>)>,
    /// What was applied, for those who watch; whole revisions, ascending within a keyspace.
    pub applied: Vec<(KeyspaceId, Applied)>,
    /// The ordered store should be flushed; report with [`crate::Host::flushed`].
    pub flush: bool,
    /// Must become durable in the data directory before anything here is sent; report with [`crate::Host::standing_recorded`].
    pub standing: Option<Standing>,
    /// All members of the cluster, this node among them, when that has changed and at the start: whom the shell is to be connected with.
    pub members: Option<Vec<Member>>,
    /// What an operator wants to know.
    pub notices: Vec<Notice>,
    /// Something stored makes no sense: the store should be given up ([`crate::Host::leave_store`]).
    pub suspect: Option<Fault>,
}

/// What was applied to a keyspace.
#[derive(Debug, Default)]
pub struct Applied {
    /// Changes of keys.
    pub changes: Vec<Changes>,
    /// History before this revision is gone.
    pub compacted: Option<Revision>,
    /// Nothing else has changed up to this revision, which may be beyond that of the last change.
    pub through: Option<Revision>,
    /// The whole state, up to this revision, came by a snapshot or is that of an earlier life; there are no changes to show for it.
    pub replaced: Option<Revision>,
    /// Not all of the keyspace is here: this is for those only who watch slots that are held.
    pub is_in_part: bool,
    /// From here on only these slots are held: some are not any more.
    pub held: Option<Arc<SlotSet>>,
}

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A replica's role, term or leader changed.
    Role {
        /// Whose.
        group: GroupId,
        /// In which term.
        term: Term,
        /// To what.
        role: Role,
    },
    /// This node leads the group and has everything applied: it serves.
    Serving {
        /// Which.
        group: GroupId,
        /// In which term.
        term: Term,
    },
    /// A partition's leader may draw revisions from the sequencer.
    Registered {
        /// Which group's.
        group: GroupId,
        /// Its term.
        term: Term,
        /// The sequencer's.
        epoch: Term,
    },
    /// A keyspace's map is known, new or changed.
    Keyspace {
        /// Which.
        keyspace: KeyspaceId,
        /// How many partitions it has.
        partitions: usize,
    },
    /// A keyspace is deleted: it is not found any more, who watches it is to be told, and what is left of it is being removed.
    KeyspaceDeleted {
        /// Which.
        keyspace: KeyspaceId,
    },
    /// A follower fell behind the log; a snapshot is kept for it.
    SnapshotOffered {
        /// Of which group.
        group: GroupId,
        /// To whom.
        to: NodeId,
        /// The last entry in it.
        position: Position,
    },
    /// This replica fell behind; it fetches a snapshot.
    SnapshotFetching {
        /// Of which group.
        group: GroupId,
        /// From whom.
        from: NodeId,
        /// The last entry in it.
        position: Position,
    },
    /// The snapshot is in place.
    SnapshotInstalled {
        /// Of which group.
        group: GroupId,
        /// The last entry in it.
        position: Position,
        /// Its rows' bytes.
        bytes: u64,
    },
    /// The snapshot could not be had; the leader will offer another.
    SnapshotFailed {
        /// Of which group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// This node's data directory is new; it asks these members before it takes part.
    Asking {
        /// Who has not answered.
        unanswered: Vec<NodeId>,
    },
    /// The cluster remembers this node, so its directory is not its first; it catches up before it votes again.
    CatchingUp,
    /// This node takes part.
    Admitted,
    /// A peer came back with a new data directory.
    Reborn {
        /// Who.
        node: NodeId,
    },
    /// The leader of a group told this node to take it over.
    HandedOver {
        /// Which.
        group: GroupId,
        /// By whom.
        by: NodeId,
    },
    /// A quorum of the group's replicas has become the same, and the one here something else: its state is given up, for theirs.
    Diverged {
        /// Which group.
        group: GroupId,
        /// Seen at this entry.
        index: Index,
    },
    /// Replicas have become different things, and no quorum says what is right.
    DigestsDiffer {
        /// Of which group.
        group: GroupId,
        /// Seen at this entry.
        index: Index,
    },
    /// This node's disk has stopped answering while those of others have not: what is led here is handed over.
    DiskStalled,
    /// It has answered.
    DiskBack,
    /// A member has not been heard for an election timeout.
    Silent {
        /// Who.
        node: NodeId,
    },
    /// A member that was silent is heard again.
    Heard {
        /// Who.
        node: NodeId,
    },
    /// The cluster's rows are known not to be old: what was told of them until now was history, and what is told from now on is news.
    Current,
    /// A member's row was put or removed. Told by every node that applies it.
    Member {
        /// As it was.
        before: Option<Box<Member>>,
        /// As it is.
        now: Option<Box<Member>>,
        /// When, in the system keyspace.
        revision: Revision,
    },
    /// A group's row wants it elsewhere from now on. Told by every node that applies it.
    Moves {
        /// Which.
        group: GroupId,
        /// Who votes in it.
        voters: Vec<NodeId>,
        /// Who shall.
        target: Vec<NodeId>,
        /// When, in the system keyspace.
        revision: Revision,
    },
    /// A group is where its row wanted it. Told by every node that applies it.
    Moved {
        /// Which.
        group: GroupId,
        /// Who voted in it before.
        before: Vec<NodeId>,
        /// Who votes in it now.
        voters: Vec<NodeId>,
        /// When, in the system keyspace.
        revision: Revision,
    },
    /// The meta group's leader, this node, finds a member lost, or back.
    Judged {
        /// Whom.
        node: NodeId,
        /// What it shall count as.
        standing: quorate_types::member::Standing,
    },
    /// What the store holds of a group's state is damaged: it is thrown away and fetched from others.
    Damaged {
        /// Which.
        group: GroupId,
        /// What was found.
        what: String,
    },
    /// A group that had lost its quorum for good goes on with this node alone, as an operator ordered.
    Recovered {
        /// Which.
        group: GroupId,
        /// The lineage that begins.
        lineage: u64,
        /// Where the log ended that it goes on with.
        last: Position,
        /// Up to where that was known to be committed.
        commit: Index,
    },
    /// A group was gone on with elsewhere: what this node had of it counts no more, and is fetched anew or goes.
    Superseded {
        /// Which.
        group: GroupId,
        /// In which lineage.
        lineage: u64,
    },
    /// This node has no part in a group any more; its replica is thrown away.
    Discarded {
        /// Which.
        group: GroupId,
    },
    /// This node was removed from the cluster: nobody hears it any more, and its data are of no use.
    Removed,
    /// A peer sent something that it should not have; it was ignored.
    Suspicious {
        /// Who.
        from: NodeId,
        /// What.
        what: String,
    },
}
