//! What nodes say to each other, all groups together.

use crate::Ticket;
use crate::admission::AdmissionAnswer;
use crate::draws::{DrawAnswer, DrawAsk};
use crate::transaction::TxnMessage;
use quorate_consensus::Message;
use quorate_partition::snapshot::{Chunk, Cursor};
use quorate_types::{
    Decode, Encode, GroupId, Incarnation, Index, Input, KeyRange, KeyspaceId, Malformed, NodeId, Output,
    PartitionId, Position, Rejection, Reply, Request, Revision, Term, wire_enum,
};

/// A message between two nodes. All may be lost. None is repeated by the transport; a repetition would do
/// no harm to any but [`PeerMessage::Request`], which would be carried out twice.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// Between two replicas of a group.
    Group {
        /// Which.
        group: GroupId,
        /// The sender's term in the meta group when it said so, for those who need to know that no newer sequencer had
        /// its vote by then.
        meta: Term,
        /// What.
        message: Message,
    },
    /// Gateway to leader: do this for my client. Lost, or the connection breaks: the gateway finds out
    /// ([`PeerMessage::Awaiting`]), answers "unknown" when it may have changed something and asks again when not. Tickets are never used twice, also
    /// not by the gateway's next life: a late reply must not answer another request.
    Request {
        /// The gateway's name for it.
        ticket: Ticket,
        /// The group that the gateway routed it to.
        group: GroupId,
        /// What.
        request: Request,
    },
    /// Gateway to leader, every so often: I wait for these. Lost: the next one says it. Repeated, or before the request itself: at worst the gateway
    /// takes a request for lost that is not.
    Awaiting {
        /// The gateway's names for them.
        tickets: Vec<Ticket>,
    },
    /// The answer: of these I know nothing, so what was asked or answered got lost, if it is said twice. Lost: asked again. Late: they are answered.
    NotInHand {
        /// The gateway's names for them.
        tickets: Vec<Ticket>,
    },
    /// Leader to gateway.
    Reply {
        /// The gateway's name for it.
        ticket: Ticket,
        /// How it ended.
        outcome: Outcome,
    },
    /// Follower to the leader that offered a snapshot: send the chunk after `cursor`. Repeated until it comes.
    SnapshotPull {
        /// Of which group.
        group: GroupId,
        /// Of which snapshot: its last entry.
        position: Position,
        /// Where to go on; the start if there is none.
        cursor: Option<Cursor>,
    },
    /// Leader to follower: rows of the snapshot.
    SnapshotChunk {
        /// Of which group.
        group: GroupId,
        /// Of which snapshot.
        position: Position,
        /// What it was asked for: the cursor of the pull.
        after: Option<Cursor>,
        /// The rows.
        chunk: Chunk,
    },
    /// A node with a new directory to every member: may I take part? Repeated until all have answered.
    AdmissionAsk {
        /// The directory.
        incarnation: Incarnation,
    },
    /// The answer. Lost: asked for again. Late: it names the directory it was about.
    AdmissionAnswer(AdmissionAnswer),
    /// To the other members of groups: what the sender's replicas had become at these entries. Lost: the next one says it. Late: whoever remembers that entry compares.
    Digests {
        /// Group, entry, digest after it.
        digests: Vec<(GroupId, (Index, u64))>,
    },
    /// To every member, each second while it lasts: my disk runs full. Lost: the next one says it.
    SpaceShort,
    /// To the sequencer's node: I want to read these ranges of a keyspace, all of it if none. Lost: asked again.
    ReadAsk {
        /// The reader's name for it, never used twice by its node's life.
        reading: u64,
        /// Which keyspace.
        keyspace: KeyspaceId,
        /// Of which keys.
        ranges: Vec<KeyRange>,
        /// The reader's term in the meta group, after the read came.
        term: Term,
        /// Whether the revision must be no older than the question. If not, the question is how far all partitions are applied.
        confirmed: bool,
        /// Then: the reader knows so much already, and wants to hear of more.
        known: Revision,
    },
    /// The answer. Late: the reader has forgotten it or asked again, and any answer is good.
    ReadAnswer {
        /// The reader's name for it.
        reading: u64,
        /// What to apply, and at which revision to read.
        answer: ReadAnswer,
    },
    /// From the sequencer's node to that of a partition's leader: tell the reader up to which entry it must apply. Lost: the reader asks
    /// the sequencer again.
    PartAsk {
        /// What is read.
        part: PartAsk,
    },
    /// From there to the reader.
    PartAnswer {
        /// The reader's name for it.
        reading: u64,
        /// At which revision it is read, by whose word.
        at: (Revision, Term),
        /// Which partition.
        partition: PartitionId,
        /// Up to which entry.
        position: Position,
    },
    /// To whoever may not know: these lead. Lost: who is asked wrongly says so again.
    Leaders {
        /// Which groups, and the nodes.
        leaders: Vec<(GroupId, NodeId)>,
    },
    /// From a node with partitions' leaders to the sequencer's.
    Draw {
        /// What.
        ask: DrawAsk,
    },
    /// The answer.
    Drawn {
        /// What.
        answer: DrawAnswer,
    },
    /// About a transaction over partitions, to the leader of one of them.
    Txn {
        /// Whose leader.
        to: GroupId,
        /// What.
        message: TxnMessage,
    },
    /// To every member, each `heartbeat_ticks`: this node lives, whatever its groups have to say. One for all groups. Lost: the next one
    /// says it. Late: the sender is taken for alive a little longer.
    Alive,
    /// Leader to follower: that snapshot is not kept any more.
    SnapshotGone {
        /// Of which group.
        group: GroupId,
        /// Of which snapshot.
        position: Position,
    },
}

wire_enum!(PeerMessage {
    0 => Group { group, meta, message },
    1 => Request { ticket, group, request },
    2 => Reply { ticket, outcome },
    3 => SnapshotPull { group, position, cursor },
    4 => SnapshotChunk { group, position, after, chunk },
    5 => SnapshotGone { group, position },
    6 => AdmissionAsk { incarnation },
    7 => AdmissionAnswer(answer),
    8 => SpaceShort,
    10 => ReadAsk { reading, keyspace, ranges, term, confirmed, known },
    11 => ReadAnswer { reading, answer },
    12 => Txn { to, message },
    13 => PartAsk { part },
    14 => PartAnswer { reading, at, partition, position },
    15 => Draw { ask },
    16 => Drawn { answer },
    17 => Leaders { leaders },
    18 => Awaiting { tickets },
    19 => NotInHand { tickets },
    20 => Digests { digests },
    9 => Alive,
});

/// At which revision to read, and what must be applied before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// The keyspace as of this revision.
    pub revision: Revision,
    /// The sequencer's.
    pub epoch: Term,
    /// For each partition concerned, up to which entry.
    pub positions: Vec<(PartitionId, Position)>,
    /// Partitions concerned whose leaders are elsewhere, and tell it themselves.
    pub elsewhere: Vec<PartitionId>,
}

quorate_types::wire_struct!(ReadAnswer { revision, epoch, positions, elsewhere });

/// A read over partitions, as the leader of one of them is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartAsk {
    /// Whom to tell.
    pub reader: NodeId,
    /// The reader's name for it.
    pub reading: u64,
    /// Which partition's leader is asked.
    pub group: GroupId,
    /// Of which keys; all if there are none.
    pub ranges: Vec<KeyRange>,
    /// As of when.
    pub revision: Revision,
    /// By which sequencer's word.
    pub epoch: Term,
    /// The newest revision that this leader was given, which may not have come there yet.
    pub granted: Revision,
}

quorate_types::wire_struct!(PartAsk { reader, reading, group, ranges, revision, epoch, granted });

/// How a forwarded request ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome(pub Result<Reply, Rejection>);

impl Encode for Outcome {
    fn encode(&self, out: &mut impl Output) {
        match &self.0 {
            Ok(reply) => {
                out.push(0);
                reply.encode(out);
            }
            Err(rejection) => {
                out.push(1);
                rejection.encode(out);
            }
        }
    }
}

impl Decode for Outcome {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        match input.byte()? {
            0 => Ok(Self(Ok(Reply::decode(input)?))),
            1 => Ok(Self(Err(Rejection::decode(input)?))),
            _ => Err(Malformed("the outcome of a forwarded request")),
        }
    }
}
