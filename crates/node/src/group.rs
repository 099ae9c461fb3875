//! One replica on this node: its consensus, its partition, and everything that waits for either.
//!
//! Invariants:
//! * Requests are evaluated only while this replica leads and its term's fence is applied: then the
//!   partition holds everything that earlier leaders committed.
//! * A reply to a write leaves only when an entry with the very position that the proposal was given has
//!   been applied here. Another entry at that index means that the write never happened.
//! * An answer that rests on entries not yet committed (a failed compare, or a refusal: no such key, lease or revision) waits for those entries and
//!   for a read barrier begun after the evaluation.

use crate::digests::Digests;
use crate::effects::{IfBehind, Ticket};
use crate::host::precedence::Precedence;
use crate::peer::{PartAsk, PeerMessage};
use quorate_consensus::{Raft, ReadId, Role};
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::Installer;
use quorate_partition::{Partition, Reader};
use quorate_types::{
    Answer, Footprint, GroupId, Index, KeyRange, KeyspaceId, LeaseId, NodeId, PartitionId, Position,
    PreState, Rejection, Request, Revision, Term, Tick, TxnId,
};
use std::collections::{BTreeMap, VecDeque};

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client of this node.
    Local(Ticket),
    /// The gateway of another node.
    Remote(NodeId, Ticket),
    /// Nobody: this node's own housekeeping.
    Own,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) origin: Origin,
    pub(crate) request: Request,
    /// When it came in, for leases: a renewal counts from here.
    pub(crate) received: Tick,
    pub(crate) deadline: Tick,
}

/// What is done once the barrier is passed and the index applied.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    /// This was the answer.
    Reply(Origin, (Revision, Answer)),
    /// This is why not.
    Refuse(Origin, Rejection),
    /// The rows of members are not old.
    Roster,
    /// Rows that say that this node has no part in a group are not old.
    Leaving,
    /// A call for leases' remaining times, answered from the leader's timers.
    Lease(Work),
    /// A read barrier of this node's client.
    Grant(Caller),
    /// This node has caught up in this group, as far as this round of its admission asks.
    Admission(GroupId, u64),
    /// The group's leadership is shown in this epoch of the sequencer: it registers.
    Register(GroupId, Term),
    /// The sequencer of this epoch, here, was in office after that: now it may register.
    Registered(GroupId, Term),
    /// The same for the leaders on another node that this ask of it names.
    Registrations(NodeId, u64, Term),
    /// The sequencer of this epoch was in office when these groups had proposed so much.
    Office(Term, Vec<(GroupId, Index)>),
    /// The sequencer's office is confirmed; next, what the answer rests on has to be applied in its own group.
    Sequenced {
        /// Which.
        group: GroupId,
        /// The newest entry that the answer rests on.
        after: Position,
        /// The sequencer's epoch in which it was given.
        epoch: Term,
        /// The answer.
        then: Box<Then>,
        /// What to do again when the barrier fails.
        again: Option<Box<Work>>,
    },
    /// The sequencer's office is confirmed for a read over partitions.
    Question(Box<Question>),
    /// This partition has applied what that read needs.
    Reading(u64, PartitionId),
    /// What a transaction found or prepared here, in this epoch, is there to stay: this is the vote.
    Vote(TxnId, Term, Box<PreState>),
    /// A transaction is decided here.
    Decided(KeyspaceId, TxnId),
    /// A transaction's commit is in the log here for good.
    Finished(TxnId),
}

/// A client of this node that wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) ticket: Ticket,
    pub(crate) if_behind: IfBehind,
}

/// What waits until a transaction gives its locks back.
#[derive(Clone, Debug)]
pub(crate) enum Blocked {
    /// A request.
    Work(Work),
    /// The coordinator's own locks for an attempt at what is under way since then.
    Home(TxnId, Footprint, Tick),
    /// A participant's locks.
    Prepare(Prepare),
}

/// What a participant is asked to lock.
#[derive(Clone, Debug)]
pub(crate) struct Prepare {
    pub(crate) txn: TxnId,
    pub(crate) footprint: Footprint,
    /// The transaction is under way since then.
    pub(crate) since: Tick,
    /// Nobody waits for the vote after that, however often it is tried.
    pub(crate) until: Tick,
    /// Whether it may wait for others to give their locks back.
    pub(crate) waits: bool,
    /// The newest revision that its coordinator knows of.
    pub(crate) at: Revision,
}

/// A read over partitions that waits at their leaders' node.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Who asked; `None` is this node.
    pub(crate) from: Option<NodeId>,
    pub(crate) reading: u64,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) ranges: Vec<KeyRange>,
    pub(crate) revision: Revision,
    pub(crate) epoch: Term,
    pub(crate) deadline: Tick,
}

/// Something that waits for an index to be applied.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    /// The entry at the index must be of this term; otherwise another leader's took its place.
    pub(crate) term: Option<Term>,
    /// A quorum must have held it while in no newer term of the meta group than this epoch of the sequencer.
    pub(crate) confirm: Option<Term>,
    pub(crate) deadline: Tick,
    pub(crate) then: Then,
}

/// A read barrier under way.
#[derive(Clone, Debug)]
pub(crate) struct ReadWait {
    /// The newest entry that the answer rests on.
    pub(crate) after: Position,
    pub(crate) deadline: Tick,
    pub(crate) then: Then,
    /// What to do again when the barrier fails; `None` asks for the barrier again.
    pub(crate) again: Option<Work>,
}

/// The state machine of a replica.
#[allow(clippy::large_enum_variant)] // One a group, and nearly always the large one.
pub(crate) enum State<E: Engine> {
    /// Whole.
    Ready(Partition<E>),
    /// Given up for a snapshot that is not all there yet; the installer is with the fetch while one is under
    /// way, and here between fetches.
    Installing(Option<Installer<E>>),
}

impl<E: Engine> State<E> {
    /// The partition, unless a snapshot is taking its place.
    pub(crate) fn partition(&self) -> Option<&Partition<E>> {
        match self {
            Self::Ready(partition) => Some(partition),
            Self::Installing(_) => None,
        }
    }
}

/// One replica.
pub(crate) struct Group<E: Engine> {
    pub(crate) id: GroupId,
    pub(crate) raft: Raft,
    pub(crate) state: State<E>,
    pub(crate) reader: Reader<E>,
    pub(crate) role: Role,
    pub(crate) leader: Option<NodeId>,
    pub(crate) term: Term,
    /// Leads, and the fence is applied.
    pub(crate) is_serving: bool,
    /// The sequencer's epoch that this leader may draw revisions in.
    pub(crate) registered: Option<Term>,
    /// The epoch for which that is being arranged.
    pub(crate) registering: Option<Term>,
    /// What each follower held while in no newer term of the meta group than the epoch.
    pub(crate) acks: BTreeMap<NodeId, Index>,
    /// Applied, and not yet confirmed in this epoch; by index.
    pub(crate) unconfirmed: VecDeque<(Index, Term, Wait)>,
    /// Confirmed in this epoch up to here by a barrier of the meta group, whoever holds it.
    pub(crate) office: Index,
    /// The newest revision that it was given by a sequencer on another node.
    pub(crate) received: Revision,
    /// Requests that wait for that sequencer's word.
    pub(crate) drawing: VecDeque<Work>,
    /// For so many of them, the first ones, it is asked.
    pub(crate) drawing_asked: usize,
    /// What waits for locks.
    pub(crate) blocked: VecDeque<Blocked>,
    /// Who of them goes first.
    pub(crate) precedence: Precedence,
    /// Reads that wait for prepared transactions, by who asks and its name for it: what is asked again takes the place of what was asked before.
    pub(crate) questions: BTreeMap<(Option<NodeId>, u64), Question>,
    /// The same that a sequencer on another node asks, until when.
    pub(crate) part_asks: Vec<(PartAsk, Tick)>,
    /// Since when locks of other partitions' transactions are held, or when their end was last asked for.
    pub(crate) held_since: BTreeMap<TxnId, Tick>,
    /// Other partitions' transactions that ended here, and when.
    pub(crate) ended: BTreeMap<TxnId, Tick>,
    /// The newest entry proposed in this term.
    pub(crate) proposed: Position,
    /// Requests that wait for a leader.
    pub(crate) waiting: VecDeque<Work>,
    /// Who handed it over to this node last, and when.
    pub(crate) handed_by: Option<(NodeId, Tick)>,
    /// Requests forwarded to the leader: to whom, and what.
    pub(crate) forwarded: BTreeMap<Ticket, (NodeId, Work)>,
    pub(crate) reads: BTreeMap<ReadId, ReadWait>,
    pub(crate) waits: BTreeMap<Index, Vec<Wait>>,
    /// Messages that wait for one of this group's writes.
    pub(crate) held: VecDeque<(quorate_consensus::WriteId, NodeId, PeerMessage)>,
    /// The newest of this group's writes that is durable.
    pub(crate) persisted: quorate_consensus::WriteId,
    /// Applied when the flush under way began, if one is.
    pub(crate) flushing: Option<Index>,
    /// The store holds everything up to here durably.
    pub(crate) flushed: Index,
    /// The node's log asks this group to let go of old entries.
    pub(crate) is_pinning: bool,
    /// What it owns is not what the map gives it, or will not be when what is proposed is applied: nothing is evaluated here.
    pub(crate) is_splitting: bool,
    /// It votes when it has been given a state, not earlier.
    pub(crate) is_returning: bool,
    /// It votes when the rows are known to be current: they may say that the group was gone on with elsewhere.
    pub(crate) awaits_rows: bool,
    /// This leader has appended a split entry that is not applied yet.
    pub(crate) is_split_proposed: bool,
    pub(crate) digests: Digests,
}

impl<E: Engine> Group<E> {
    /// The partition, unless a snapshot is taking its place.
    pub(crate) fn partition(&self) -> Option<&Partition<E>> {
        self.state.partition()
    }

    /// The same, to change it.
    pub(crate) fn partition_mut(&mut self) -> Option<&mut Partition<E>> {
        match &mut self.state {
            State::Ready(partition) => Some(partition),
            State::Installing(_) => None,
        }
    }

    /// Applied up to here; the start while a snapshot is taking the state's place.
    pub(crate) fn applied(&self) -> Index {
        self.partition().map_or(Index::START, |partition| partition.applied().index)
    }

    /// Whether it will take long until that index is applied: there is no state to apply it to, or so many entries are missing.
    pub(crate) fn is_far_behind(&self, index: Index, entries: u64) -> bool {
        self.partition().is_none_or(|partition| index.0 > partition.applied().index.0 + entries)
    }

    /// Whether it needs every tick: it does not hibernate, or something waits here.
    pub(crate) fn is_awake(&self) -> bool {
        let is_waited_for = !(self.waiting.is_empty()
            && self.drawing.is_empty()
            && self.forwarded.is_empty()
            && self.reads.is_empty()
            && self.waits.is_empty());
        is_waited_for || !quorate_consensus::Consensus::is_hibernating(&self.raft)
    }

    /// When its leases ask for a tick, though it may sleep.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        self.partition().filter(|_| self.is_serving).and_then(Partition::next_due)
    }

    /// Requests not yet answered.
    pub(crate) fn inflight(&self) -> usize {
        self.waits.len() + self.reads.len() + self.blocked.len()
    }

    /// What waited for a sequencer's word is begun anew.
    pub(crate) fn wait_again(&mut self, now: Tick) {
        self.drawing_asked = 0;
        for work in std::mem::take(&mut self.drawing) {
            match (&work.origin, &work.request) {
                // The end of a lease; it is due again.
                (Origin::Own, Request::LeaseRevoke { lease }) => {
                    if let Some(partition) = self.partition_mut() {
                        partition.end_again(*lease, now);
                    }
                }
                _ => self.waiting.push_back(work),
            }
        }
    }

    pub(crate) fn status(&self) -> GroupStatus {
        GroupStatus {
            group: self.id,
            consensus: quorate_consensus::Consensus::status(&self.raft),
            revision: self.reader.revision(),
            digest: self.partition().map(Partition::digest),
            is_serving: self.is_serving,
            is_registered: self.registered.is_some(),
            leases: match self.partition() {
                Some(partition) if self.is_serving => partition.leases().len(),
                _ => 0,
            },
        }
    }
}

/// How a replica stands, for `quorate status`, metrics and tests.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Which.
    pub group: GroupId,
    /// Its consensus.
    pub consensus: quorate_consensus::Status,
    /// Its newest applied revision.
    pub revision: Revision,
    /// Digest of everything applied: equal on all replicas that have applied equally far. `None` while a
    /// snapshot is taking the state's place.
    pub digest: Option<u64>,
    /// Whether it leads and answers.
    pub is_serving: bool,
    /// Whether it may draw revisions from the sequencer; of several partitions only such a leader answers.
    pub is_registered: bool,
    /// Live leases; counted on the leader only.
    pub leases: usize,
}

/// Whether the leader's timers answer it, behind a barrier.
pub(crate) fn is_timer_call(request: &Request) -> bool {
    matches!(request, Request::LeaseTimeToLive { .. } | Request::Leases)
}

/// Whether asking a second time could do harm, because the first may have been carried out.
pub(crate) fn may_change(request: &Request) -> bool {
    !(request.is_read_only() || is_timer_call(request) || matches!(request, Request::LeaseKeepAlive { .. }))
}

/// Whether a refusal says something about the state, so that it must be as fresh as any other answer. A leader that was deposed
/// without noticing may miss keys and leases that others have acknowledged, or see some that will never be.
pub(crate) fn rests_on_state(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::KeyNotFound
            | Rejection::Compacted { .. }
            | Rejection::FutureRevision { .. }
            | Rejection::LeaseNotFound(_)
            | Rejection::LeaseExists(_)
    )
}

/// A lease that ran out, as the request that ends it.
pub(crate) fn revocation(lease: LeaseId) -> Request {
    Request::LeaseRevoke { lease }
}
