//! One replica of a group of three that is told anything: what is hostile or senseless is ignored (`quorate_consensus::Consensus::step`).
//!
//! An input is a list of steps. Between hostile messages the other two may answer as replicas do, so that it comes to lead, commits, and takes
//! snapshots.

use super::{Target, codec, nothing};
use crate::grow::grow;
use quorate_consensus::raft::Raft;
use quorate_consensus::{Consensus, Message, Options, ReadId, Recovered, SnapshotMeta};
use quorate_types::{Bytes, Encode, EntryKind, Index, NodeId, wire_enum};

const ID: NodeId = NodeId(1);

/// What happens to it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Message {
        from: NodeId,
        message: Message,
    },
    Ticks {
        count: u8,
    },
    /// The others answer as they should, for so many rounds of a tick.
    Friendly {
        rounds: u8,
    },
    Propose,
    Read,
    Change {
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
    },
    Transfer,
    Compact,
    PeerLost,
    PeerForgot,
    Wake,
}

wire_enum!(Step {
    0 => Message { from, message }, 1 => Ticks { count }, 2 => Friendly { rounds }, 3 => Propose, 4 => Read,
    5 => Change { voters, learners }, 6 => Transfer, 7 => Compact, 8 => PeerLost, 9 => PeerForgot, 10 => Wake,
});

pub(super) const RAFT: Target = Target {
    name: "raft",
    what: "messages to a replica of a group, in any order and of any content",
    seed: |random| {
        let mut steps = Vec::new();
        if random.between(0, 3) > 0 {
            steps.push(Step::Friendly { rounds: 60 });
        }
        for _ in 0..random.between(1, 8) {
            let from = NodeId(2 + random.between(0, 2));
            steps.push(match random.between(0, 3) {
                0 => grow(random),
                _ => Step::Message { from, message: grow(random) },
            });
        }
        steps.encoded_vec()
    },
    mend: nothing,
    run: |bytes| {
        let Some(steps) = codec::round::<Vec<Step>>(bytes) else { return false };
        let mut replica = Replica::new();
        steps.into_iter().take(64).for_each(|step| replica.take_step(step));
        true
    },
    gate: 1_500,
};

struct Replica {
    raft: Raft,
    applied: Index,
    reads: u64,
}

impl Replica {
    fn new() -> Self {
        let voters = vec![ID, NodeId(2), NodeId(3)];
        let options = Options { hibernate_after_ticks: Some(50), ..Options::new(ID, voters, 7) };
        Self { raft: Raft::new(options, Recovered::default(), Index::START), applied: Index::START, reads: 0 }
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Message { from, message } => self.raft.step(from, message),
            Step::Ticks { count } => (0..count).for_each(|_| {
                self.raft.tick();
                self.settle();
            }),
            Step::Friendly { rounds } => {
                for _ in 0..rounds {
                    self.raft.tick();
                    for (from, answer) in self.settle() {
                        self.raft.step(from, answer);
                    }
                }
            }
            Step::Propose => drop(self.raft.propose(EntryKind::Write, Bytes::from_static(b"data"))),
            Step::Read => {
                self.reads += 1;
                self.raft.read(ReadId(self.reads));
            }
            Step::Change { voters, learners } => drop(self.raft.change(voters, learners)),
            Step::Transfer => self.raft.transfer(None),
            Step::Compact => self.raft.compact(self.applied),
            Step::PeerLost => self.raft.peer_lost(NodeId(2), 3),
            Step::PeerForgot => self.raft.peer_forgot(NodeId(2)),
            Step::Wake => self.raft.wake(),
        }
        self.settle();
    }

    /// Carries out what it wants, and gives what replicas would answer.
    fn settle(&mut self) -> Vec<(NodeId, Message)> {
        let mut answers = Vec::new();
        // Nothing asks for more and more of itself.
        for _ in 0..100 {
            let effects = self.raft.take();
            let later = effects.send_after.into_iter().map(|(_, to, message)| (to, message));
            let sent = effects.send_now.into_iter().chain(later);
            answers.extend(sent.filter_map(|(to, message)| Some((to, answer(message)?))));
            if let Some(last) = effects.apply.last() {
                self.applied = last.index;
                self.raft.applied(last.index);
            }
            for to in effects.snapshots_wanted {
                let configuration = self.raft.configuration_at(self.applied).clone();
                let position = quorate_types::Position { term: self.raft.term(), index: self.applied };
                self.raft.offer_snapshot(to, SnapshotMeta { position, configuration });
            }
            if let Some(fetch) = effects.fetch {
                self.raft.state_lost();
                self.applied = fetch.meta.position.index;
                self.raft.restored(fetch.meta);
            }
            match effects.persist {
                Some((write, _)) => self.raft.persisted(write),
                None => break,
            }
        }
        answers
    }
}

/// What a replica answers that agrees to everything.
pub(super) fn answer(message: Message) -> Option<Message> {
    Some(match message {
        Message::VoteRequest { term, pre, .. } => Message::VoteResponse { term, granted: true, pre },
        Message::Append { term, previous, entries, .. } => {
            Message::Appended { term, matched: entries.last().map_or(previous.index, |entry| entry.index) }
        }
        Message::Heartbeat { term, commit, round } => {
            Message::HeartbeatResponse { term, round, last: commit, withholds: false }
        }
        Message::SnapshotOffer { term, meta } => Message::Appended { term, matched: meta.position.index },
        _ => return None,
    })
}
