//! A whole node of three that is told anything by the other two.
//!
//! An input is a list of steps. Between hostile messages the others may answer as nodes do whose replicas agree to everything, so that the node comes
//! to lead. A fault is a refusal, too: a leader whose entries make no sense cannot be followed.

use super::{Target, codec, consensus, nothing};
use crate::grow::grow;
use quorate_node::{Cluster, Host, Life, Options, PeerMessage, Standing, Ticket};
use quorate_storage::memory::MemoryEngine;
use quorate_types::request::{PutLease, PutRequest};
use quorate_types::{Encode, Fault, Incarnation, KeyspaceId, Member, NodeId, Request, wire_enum};
use std::collections::BTreeMap;

/// What happens to it.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Message {
        from: NodeId,
        message: PeerMessage,
    },
    /// Time goes on, and the others are silent.
    Ticks {
        count: u8,
    },
    /// Time goes on, and the others agree to everything.
    Friendly {
        rounds: u8,
    },
    Put,
    PeerLost {
        node: NodeId,
    },
    Request {
        keyspace: KeyspaceId,
        request: Request,
    },
}

wire_enum!(Step {
    0 => Message { from, message }, 1 => Ticks { count }, 2 => Friendly { rounds }, 3 => Put, 4 => PeerLost { node },
    5 => Request { keyspace, request },
});

pub(super) const HOST: Target = Target {
    name: "host",
    what: "messages to a whole node from its peers, in any order and of any content",
    seed: |random| {
        let mut steps = Vec::new();
        if random.between(0, 3) > 0 {
            steps.push(Step::Friendly { rounds: 60 });
        }
        for _ in 0..random.between(1, 6) {
            let from = NodeId(2 + random.between(0, 2));
            steps.push(match random.between(0, 4) {
                0 => Step::Put,
                1 => Step::Friendly { rounds: 3 },
                _ => Step::Message { from, message: grow(random) },
            });
        }
        steps.encoded_vec()
    },
    mend: nothing,
    run: |bytes| {
        let Some(steps) = codec::round::<Vec<Step>>(bytes) else { return false };
        // All of what several partitions need happens only where there are several.
        let mut node = Node::new(1 + steps.len() as u32 % 3);
        for step in steps.into_iter().take(32) {
            if node.take_step(step).is_err() {
                break;
            }
        }
        true
    },
    gate: 200,
};

struct Node {
    host: Host<MemoryEngine>,
    engine: MemoryEngine,
    tickets: u64,
}

impl Node {
    fn new(partitions: u32) -> Self {
        let ids = [NodeId(1), NodeId(2), NodeId(3)];
        let members = ids.map(|id| Member::new(id, format!("n{id}"), format!("127.0.0.1:{id}")));
        let life = |id: &NodeId| (*id, Life { incarnation: Incarnation(id.0), is_original: true });
        let standing = Standing::Admitted(ids[1..].iter().map(life).collect());
        let options = Options { incarnation: Incarnation(1), partitions, ..Options::new(NodeId(1), 7) };
        let engine = MemoryEngine::default();
        let cluster = Cluster::of_founders(members.into());
        let host = Host::new(options, standing, engine.clone(), cluster, BTreeMap::new());
        Self { host: host.expect("there is nothing that could be wrong"), engine, tickets: 0 }
    }

    fn take_step(&mut self, step: Step) -> Result<(), Fault> {
        match step {
            Step::Message { from, message } => self.host.receive(from, Incarnation(from.0), message)?,
            Step::Ticks { count } => {
                for _ in 0..count {
                    self.host.tick()?;
                    self.settle()?;
                }
            }
            Step::Friendly { rounds } => {
                for _ in 0..rounds {
                    self.host.tick()?;
                    for (from, message) in self.settle()? {
                        self.host.receive(from, Incarnation(from.0), message)?;
                    }
                }
            }
            Step::Put => {
                let (key, value) = ("d/1".into(), Some("v".into()));
                let put = PutRequest { key, value, lease: PutLease::Detach, previous: true };
                self.request(KeyspaceId::DEFAULT, Request::Put(put))?;
            }
            Step::PeerLost { node } => self.host.peer_lost(node),
            Step::Request { keyspace, request } => self.request(keyspace, request)?,
        }
        self.settle().map(drop)
    }

    fn request(&mut self, keyspace: KeyspaceId, request: Request) -> Result<(), Fault> {
        self.tickets += 1;
        self.host.request(Ticket(self.tickets), keyspace, request)
    }

    /// Carries out what it wants, and gives what the others would say.
    fn settle(&mut self) -> Result<Vec<(NodeId, PeerMessage)>, Fault> {
        let mut answers = Vec::new();
        // Nothing asks for more and more of itself.
        for _ in 0..100 {
            let effects = self.host.take()?;
            let errands = self.host.errands();
            let has_run = !errands.is_empty();
            for errand in errands {
                self.host.errand_done(errand.run())?;
            }
            answers.extend(effects.send.into_iter().filter_map(|(to, message)| Some((to, answer(message)?))));
            if effects.flush {
                quorate_mvcc::engine::Engine::flush(&self.engine)?;
                self.host.flushed();
            }
            match effects.persist {
                Some((write, _)) => self.host.persisted(write),
                None if has_run => {}
                None => break,
            }
        }
        Ok(answers)
    }
}

fn answer(message: PeerMessage) -> Option<PeerMessage> {
    match message {
        PeerMessage::Group { group, message, .. } => {
            // The term is said to be new to nobody: then no sequencer is newer.
            let meta = message.term();
            Some(PeerMessage::Group { group, meta, message: consensus::answer(message)? })
        }
        PeerMessage::Alive => Some(PeerMessage::Alive),
        _ => None,
    }
}
