//! Drawing revisions from afar: what a node whose partitions' leaders draw says to the sequencer's node, and the answer.
//!
//! A node has one [`DrawAsk`] under way, for all its leaders; what comes meanwhile goes with the next. So the sequencer sees them in order and needs to remember one
//! answer for each node: an ask that is repeated, because the answer was lost, is given the same.
//!
//! Invariants:
//! * A revision is used only for a request that the asking node had when it asked. So no request gets a revision that was given out before it began,
//!   which is what makes blocks of revisions that are drawn in advance wrong.
//! * What is evaluated uses its revisions in the order in which they were given out.
//! * Every revision ends: applied, or told to be unused, or forgotten when another leader of its partition registers.

use quorate_types::{GroupId, PartitionId, Position, Revision, Term, TxnId, wire_enum, wire_struct};

/// A node's question. Lost: repeated. Of a former life of the node: it has another `life`, and asks anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrawAsk {
    /// Drawn when the node's process began.
    pub life: u64,
    /// Counts the asks of this life.
    pub number: u64,
    /// The sequencer that is asked.
    pub epoch: Term,
    /// What the node's leaders have to say of revisions they were given before.
    pub ended: Vec<Ended>,
    /// Leaders that have shown that they lead.
    pub registrations: Vec<Registration>,
    /// Revisions that are wanted.
    pub draws: Vec<Draw>,
    /// Transactions over partitions with all their votes.
    pub decisions: Vec<Decision>,
}

wire_struct!(DrawAsk { life, number, epoch, ended, registrations, draws, decisions });

impl DrawAsk {
    /// Whether nothing is asked or told.
    pub(crate) fn is_empty(&self) -> bool {
        self.ended.is_empty()
            && self.registrations.is_empty()
            && self.draws.is_empty()
            && self.decisions.is_empty()
    }
}

/// A leader registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Of which group.
    pub group: GroupId,
    /// Its term.
    pub term: Term,
    /// The newest revision in its log.
    pub newest: Revision,
    /// All of that log is applied.
    pub position: Position,
    /// The lowest floor of what is prepared there.
    pub inherited: Option<Revision>,
    /// Transactions that were decided there and may not have ended everywhere: their parts will be applied, whoever leads.
    pub decided: Vec<Revision>,
}

wire_struct!(Registration { group, term, newest, position, inherited, decided });

/// What became of revisions that a leader was given, or took part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Of which group.
    pub group: GroupId,
    /// The leader's term.
    pub term: Term,
    /// Its part of these is applied.
    pub applied: Vec<Revision>,
    /// These are transactions that it has decided.
    pub decided: Vec<Revision>,
    /// These it was given, and will never use.
    pub unused: Vec<Revision>,
    /// The log is applied up to here.
    pub position: Position,
    /// The lowest floor of what it found prepared when it registered and has not seen the end of.
    pub inherited: Option<Revision>,
}

wire_struct!(Ended { group, term, applied, decided, unused, position, inherited });

/// Requests that wait for revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// In which group.
    pub group: GroupId,
    /// The leader's term.
    pub term: Term,
    /// How many seem to change something; none is a question for the newest revision.
    pub count: u32,
}

wire_struct!(Draw { group, term, count });

/// A transaction over partitions that can be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its home.
    pub home: GroupId,
    /// Which.
    pub id: TxnId,
    /// All that take part, and the terms in which they voted.
    pub terms: Vec<(PartitionId, Term)>,
    /// The partitions in which keys change; none: no revision is wanted.
    pub changed: Vec<PartitionId>,
    /// So many partitions the keyspace had when it was told apart who takes part. The coordinator may not know of one that has been split off since.
    pub partitions: u64,
}

wire_struct!(Decision { home, id, terms, changed, partitions });

/// The sequencer's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrawAnswer {
    /// Of the ask.
    pub life: u64,
    /// Of the ask.
    pub number: u64,
    /// Who answers.
    pub epoch: Term,
    /// Of each registration: whether it counts.
    pub registered: Vec<bool>,
    /// Of each draw: the first revision, of as many as were asked for one after the other; or, of none, the newest. `None`: not the
    /// registered leader.
    pub drawn: Vec<Option<Revision>>,
    /// Of each decision.
    pub decided: Vec<Verdict>,
}

wire_struct!(DrawAnswer { life, number, epoch, registered, drawn, decided });

/// What the sequencer says to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not all who take part are still in the terms they voted in, or there are more partitions.
    Stale,
    /// They are, and this is the newest revision.
    Reads(Revision),
    /// They are, and this revision is the transaction's.
    Draws(Revision),
}

wire_enum!(Verdict { 0 => Stale, 1 => Reads(revision), 2 => Draws(revision) });
