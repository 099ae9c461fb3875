//! One consensus group, as a synchronous state machine behind [`Consensus`].
//!
//! The engine is told what happens (a tick, a message, a proposal, a write that became durable) and
//! asked with [`Consensus::take`] what it wants done. It has no clock, socket, disk, task or ambient
//! randomness; the same inputs give the same effects. Raft ([`raft::Raft`]) is the engine today; Paxos
//! may join it behind the same trait.

pub mod configuration;
pub mod effects;
pub mod log;
pub mod message;
pub mod options;
pub mod progress;
pub mod raft;
pub mod random;

pub use configuration::Configuration;
pub use effects::{Effects, ReadOutcome, Role, SnapshotFetch, Status};
pub use message::Message;
pub use options::Options;
pub use raft::Raft;

use quorate_types::{Bytes, Entry, EntryKind, Index, LogWrite, NodeId, Position, Term};

/// Names one write handed to the shell, ascending within a group. The shell reports it durable with
/// [`Consensus::persisted`]; reporting one reports all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// Names one read barrier, unique within the process that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

quorate_types::wire_newtype!(ReadId);

/// Why a proposal was not taken. Nothing has entered the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// Another replica leads, if one is known.
    NotLeader(Option<NodeId>),
    /// Leadership is being handed over.
    Transferring,
    /// So many bytes are proposed and not yet committed that more would only grow memory.
    Full,
}

/// Why a change of members was not taken. Nothing has entered the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// Nothing can be proposed at all.
    Refused(ProposeError),
    /// The leader's first entry is not committed, so an earlier leader's change may yet turn up as committed.
    Unfenced,
    /// An earlier change is not committed, or its joint configuration is not left.
    InFlight,
    /// No voter is named, or somebody twice.
    Malformed,
    /// This one would vote without holding nearly all of the log ([`Consensus::matched`] tells how much): let it learn first.
    Behind(NodeId),
}

/// After the connection to a leader broke: an election with nobody in its way is over within so many ticks.
pub const HURRIED_TICKS_MAX: u64 = 4;

/// What a snapshot of the state machine stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry it contains.
    pub position: Position,
    /// The group's members at that entry ([`Consensus::configuration_at`]).
    pub configuration: Configuration,
}

quorate_types::wire_struct!(SnapshotMeta { position, configuration });

/// One replica of one group.
pub trait Consensus {
    /// Time goes on by one tick.
    fn tick(&mut self);

    /// Time went by that ticks did not count, because the process was paused or busy. A leader answers no read from its lease
    /// until a quorum has answered it anew, and heartbeats at the next tick. To be called before anything that came in meanwhile is passed on.
    fn slept(&mut self);

    /// A message came in. Messages may be lost, late, repeated and reordered; hostile or senseless
    /// ones are ignored, never a panic.
    fn step(&mut self, from: NodeId, message: Message);

    /// Whether [`Consensus::propose`] would take an entry now.
    fn can_propose(&self) -> Result<(), ProposeError>;

    /// Appends an entry if this replica leads. The place it was given may still be taken by another
    /// leader's entry: it holds only if an entry with this very position comes out in [`Effects::apply`].
    fn propose(&mut self, kind: EntryKind, data: Bytes) -> Result<Position, ProposeError>;

    /// Makes these the group's voters and learners, if this replica leads: at once where the voters stay, else through a configuration
    /// that is joint of the old voters and the new, and that the leader leaves by itself. In effect as soon as it is appended; done when
    /// an entry of kind [`EntryKind::Config`] that names just these is applied, as a proposal is. A leader that is no voter
    /// any more steps down then.
    fn change(&mut self, voters: Vec<NodeId>, learners: Vec<NodeId>) -> Result<Position, ChangeError>;

    /// The members, as of the end of the log: committed or not, these count.
    fn configuration(&self) -> &Configuration;

    /// The members as of an index from the start of the log to its end; what a snapshot of the state at that index must carry.
    fn configuration_at(&self, index: Index) -> &Configuration;

    /// Whether this leader may offer `to` a snapshot that is older than what is applied: the log goes on from there, and it holds all that was committed
    /// before this term, the entry by which `to` came, and what `to` has acknowledged. One from before a replica left and came again would be taken back
    /// by what its former life acknowledged and voted for.
    fn may_offer(&self, to: NodeId, position: Position) -> bool;

    /// Asks for a read barrier; the answer comes in [`Effects::reads`], always: ready with an index at which
    /// every write acknowledged before this call is contained, or failed. Works on leaders (a round of heartbeats proves the
    /// leadership, started after this call) and followers (forwarded to the leader).
    fn read(&mut self, id: ReadId);

    /// The same for a read that another node has: `asker` said, after the read came there, that it was in this term of the group. It is as good as its
    /// word in a round of heartbeats, so that in a group of three none is needed.
    fn read_for(&mut self, asker: NodeId, term: Term, id: ReadId);

    /// The write and all before it are durable.
    fn persisted(&mut self, write: WriteId);

    /// The state machine contains everything up to `index`.
    fn applied(&mut self, index: Index);

    /// Drops entries up to `index` from memory and, through the next write, from the log. The caller has
    /// made what they did durable elsewhere. Ignored beyond what is applied.
    fn compact(&mut self, index: Index);

    /// The connection to this node broke (process death shows so at once). A follower of it stops honouring
    /// its lease and campaigns after `delay` ticks instead of waiting out the timeout. The owner chooses the delay: one for
    /// all groups, and [`HURRIED_TICKS_MAX`] apart for each survivor, so that the same one comes first in all of them.
    fn peer_lost(&mut self, node: NodeId, delay: u64);

    /// Nothing was heard of this node, in no group and not otherwise, for `election_ticks_min` at least. Who follows it campaigns within
    /// `delay` ticks; a leader hibernates without it. Holds until [`Consensus::node_up`].
    fn node_down(&mut self, node: NodeId, delay: u64);

    /// The node is heard again: a group that it leads, or that sleeps without it, wakes.
    fn node_up(&mut self, node: NodeId);

    /// Whether this replica sleeps: it needs no ticks, and wakes by itself when anything else is called that needs it awake.
    fn is_hibernating(&self) -> bool;

    /// Ends hibernation, here and, through the leader, in the whole group.
    fn wake(&mut self);

    /// Stands for election at once, whoever leads: for the first leader of a new group, whom its creator knows to have no rival. Nothing
    /// happens where this replica leads, or may not ask for votes.
    fn stand(&mut self);

    /// Hands leadership to `to`, or to the follower that is furthest when `None`; proposals are refused meanwhile, until done or
    /// an election timeout went by.
    fn transfer(&mut self, to: Option<NodeId>);

    /// A snapshot of the applied state was taken for the follower that [`Effects::snapshots_wanted`]
    /// named; it is offered until the follower has it.
    fn offer_snapshot(&mut self, to: NodeId, meta: SnapshotMeta);

    /// The offered snapshot is gone (sender gave up); the follower is probed anew.
    fn snapshot_failed(&mut self, to: NodeId);

    /// The state machine has given up its state for a snapshot that is yet to come (or a crash left it so).
    /// Until [`Consensus::restored`] nothing is applied, no votes are asked for, and appends are refused in a way
    /// that makes the leader offer a snapshot. The log stays: what was acknowledged is still held.
    fn state_lost(&mut self);

    /// This replica may have made promises that it does not remember, because its disk was lost: until
    /// [`Consensus::give_votes`] it neither votes nor asks for votes. What it acknowledges counts: that it holds.
    fn withhold_votes(&mut self);

    /// Ends what [`Consensus::withhold_votes`] began.
    fn give_votes(&mut self);

    /// Gives up the office, or the wish for it.
    fn step_down(&mut self);

    /// This replica leads, and for an election timeout its disk has not taken what the others have committed without it. It could apply nothing, and so
    /// answer nothing; whoever takes over can.
    fn lags(&self) -> bool;

    /// The group's quorum is lost for good, and this replica is what the group goes on with: alone, with all of its log, whether that was
    /// committed or not, from the first term of this lineage on. What other replicas have counts no more, should they come back. Panics if the
    /// lineage is not newer, and when the state machine waits for a snapshot.
    fn begin_lineage(&mut self, lineage: u64);

    /// The group goes on in this newer lineage without what this replica holds, as somebody said: it takes no part, until its owner opens it anew
    /// with nothing.
    fn superseded(&self) -> Option<u64>;

    /// Nothing that this replica promised and forgot can bind beyond `term`: goes there if it is behind, and votes for
    /// nobody in it.
    fn abstain(&mut self, term: Term);

    /// `node` has lost its disk: a vote of its former life does not elect us any more, and what that acknowledged it does not
    /// hold any more.
    fn peer_forgot(&mut self, node: NodeId);

    /// The end of the log.
    fn last(&self) -> Position;

    /// The state machine now contains, durably, the snapshot that [`Effects::fetch`] named. The log restarts after it.
    fn restored(&mut self, meta: SnapshotMeta);

    /// The snapshot that [`Effects::fetch`] named could not be had; a later offer may be fetched.
    fn fetch_failed(&mut self);

    /// What to do now. To be called after any other call; taking twice in a row gives nothing the second time.
    fn take(&mut self) -> Effects;

    /// The newest term seen.
    fn term(&self) -> Term;

    /// Committed up to here, as far as is known.
    fn commit(&self) -> Index;

    /// Who leads in this term, as far as is known.
    fn leader(&self) -> Option<NodeId>;

    /// On a leader, what it and each of its followers is known to hold; nothing elsewhere.
    fn matched(&self) -> Vec<(NodeId, Index)>;

    /// On a leader, up to where all those followers have the log that have answered lately. Those that wait for a snapshot are left out; if `counts_offered`, only who is yet to be offered
    /// one, and the others will have the log up to where theirs is from.
    fn held_by_answering(&self, counts_offered: bool) -> Option<Index>;

    /// How things stand.
    fn status(&self) -> Status;
}

/// No term and no index gets there. A larger one is made up, and would leave no room for those that follow.
const NUMBER_MAX: u64 = 1 << 62;

/// What is found on disk when a replica starts.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Hard state, as last written.
    pub hard_state: quorate_types::HardState,
    /// The place before the first entry: what was compacted or replaced by a snapshot.
    pub start: Position,
    /// Contiguous, from right after `start`.
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// Whether every entry about the group's members can be read, and terms and indexes can be counted on from where they are. The log does not look
    /// into entries, so whoever opens the group asks.
    pub fn is_legible(&self) -> bool {
        let last = self.entries.last().map_or(self.start, Entry::position);
        let mut changes = self.entries.iter().filter(|entry| entry.kind == EntryKind::Config);
        self.hard_state.term.max(last.term).0 <= NUMBER_MAX
            && last.index.0 <= NUMBER_MAX
            && changes.all(|entry| Configuration::from_entry(entry).is_some())
    }
}

/// Shorthand used by [`Effects`].
pub type Persist = (WriteId, LogWrite);
