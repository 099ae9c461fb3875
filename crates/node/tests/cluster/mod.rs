//! Three hosts, or as many as a test wants, each with a log and a store that forget in a crash what was not made durable. Messages arrive in the tick they are sent in.

#![allow(dead_code)] // Each test uses a part.

use quorate_consensus::{Message, Role};
use quorate_mvcc::engine::Engine;
use quorate_node::administration::Step;
use quorate_node::effects::Applied;
use quorate_node::{
    Administration, Grant, GroupStatus, Host, NewKeyspace, Notice, Options, Order, PeerMessage, Refused,
    Standing, Ticket, WriteId,
};
use quorate_storage::disk::MemoryDisk;
use quorate_storage::memory::MemoryEngine;
use quorate_storage::wal::{Wal, WalOptions};
use quorate_types::request::{PutLease, PutRequest, RangeRequest};
use quorate_types::{
    Answer, Bytes, Encode, EntryKind, GroupId, Incarnation, KeyRange, KeyspaceId, KeyspaceMap, Member,
    NodeId, Rejection, Reply, Request, Revision, Rules, Term,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Outcome = Result<Reply, Rejection>;

/// What becomes of a message on its way: from which node, to which.
pub(crate) type Tampering = Box<dyn FnMut(usize, usize, &mut PeerMessage)>;

/// Whether a message gets lost: from which node, to which, and what it is.
pub(crate) type Loss = Box<dyn Fn(usize, usize, &PeerMessage) -> bool>;

pub(crate) struct Running {
    pub(crate) host: Host<MemoryEngine>,
    pub(crate) wal: Wal<MemoryDisk>,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: MemoryDisk,
    pub(crate) engine: MemoryEngine,
    pub(crate) standing: Standing,
    pub(crate) running: Option<Running>,
    /// The newest write that a stopped disk was given.
    pub(crate) unreported: Option<WriteId>,
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) answers: BTreeMap<Ticket, Outcome>,
    pub(crate) next_ticket: u64,
    /// Read barriers that were passed or failed.
    pub(crate) grants: BTreeMap<Ticket, Result<Grant, Rejection>>,
    /// Nodes that nothing comes from or goes to.
    pub(crate) cut: Vec<usize>,
    /// Which messages get lost between the others.
    pub(crate) losing: Option<Loss>,
    /// Messages are changed, as by memory in which bits flip.
    pub(crate) tampering: Option<Tampering>,
    /// What hosts thought worth a line.
    pub(crate) notices: Vec<(usize, Notice)>,
    /// What each node's watchers were told.
    pub(crate) told: Vec<Vec<(KeyspaceId, Applied)>>,
    /// So many of the nodes founded the cluster.
    pub(crate) founders: usize,
    /// Nodes that are no members any more.
    pub(crate) removed: Vec<NodeId>,
    /// What a test wants to be different.
    pub(crate) tune: fn(&mut Options),
    /// Of Xorshift, for what crashes keep.
    pub(crate) random: u64,
    /// Whether flushes are carried out.
    pub(crate) flushes: bool,
    /// How often each node's store was flushed.
    pub(crate) flushed: BTreeMap<usize, u64>,
    /// Nodes whose disks have stopped: writes are taken and not reported.
    pub(crate) hung: BTreeSet<usize>,
}

impl Node {
    fn new(id: NodeId, standing: Standing) -> Self {
        let (disk, engine) = (MemoryDisk::default(), MemoryEngine::default());
        Self { id, disk, engine, standing, running: None, unreported: None }
    }
}

impl Cluster {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(3, seed)
    }

    pub(crate) fn of(size: usize, seed: u64) -> Self {
        Self::with(size, seed, |_| {})
    }

    /// With other options.
    pub(crate) fn with(size: usize, seed: u64, tune: fn(&mut Options)) -> Self {
        let mut cluster = Self {
            nodes: (1..=size as u64).map(|id| Node::new(NodeId(id), Standing::New)).collect(),
            answers: BTreeMap::new(),
            grants: BTreeMap::new(),
            cut: Vec::new(),
            losing: None,
            tampering: None,
            notices: Vec::new(),
            told: (0..size).map(|_| Vec::new()).collect(),
            next_ticket: 0,
            founders: size,
            removed: Vec::new(),
            tune,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            flushes: true,
            flushed: BTreeMap::new(),
            hung: BTreeSet::new(),
        };
        (0..size).for_each(|at| cluster.start(at));
        cluster.seconds(4);
        cluster
    }

    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    pub(crate) fn start(&mut self, at: usize) {
        let seed = self.draw(u64::MAX);
        let cluster = founded_by(self.founders as u64);
        let members =
            self.nodes.iter().filter(|node| !self.removed.contains(&node.id)).map(|node| member(node.id));
        let cluster = quorate_node::Cluster { members: members.collect(), ..cluster };
        let (tune, replicas) = (self.tune, self.founders);
        let node = &mut self.nodes[at];
        let wal_options = WalOptions { segment_bytes: 16 << 10 };
        let (wal, logs, _) = Wal::open(node.disk.clone(), node.id.0, wal_options).unwrap();
        let mut options = Options {
            incarnation: Incarnation(node.id.0),
            log_bytes_target: 4 << 10,
            log_bytes_max: 16 << 10,
            compaction_rows_per_tick: 7,
            clear_rows: 7,
            replicas,
            ..Options::new(node.id, seed)
        };
        tune(&mut options);
        let host = Host::new(options, node.standing.clone(), node.engine.clone(), cluster, logs).unwrap();
        node.running = Some(Running { host, wal });
    }

    /// One node more: first its row, which node `via` asks for, then it begins with nothing.
    pub(crate) fn join(&mut self, via: usize) -> usize {
        let id = NodeId(self.nodes.len() as u64 + 1);
        self.put_member(via, &member(id));
        self.nodes.push(Node::new(id, Standing::Admitted(BTreeMap::new())));
        self.told.push(Vec::new());
        self.start(self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    pub(crate) fn put_member(&mut self, via: usize, member: &Member) {
        let (key, value) = (Member::row_key(member.id), Some(member.encoded()));
        let put = PutRequest { key, value, lease: PutLease::Detach, previous: false };
        self.request(via, KeyspaceId::SYSTEM, Request::Put(put)).unwrap();
    }

    pub(crate) fn crash(&mut self, at: usize) {
        self.crash_unnoticed(at);
        for node in &mut self.nodes {
            if let Some(running) = &mut node.running {
                running.host.peer_lost(NodeId(at as u64 + 1));
            }
        }
    }

    /// No connection is seen to break.
    pub(crate) fn crash_unnoticed(&mut self, at: usize) {
        self.nodes[at].running = None;
        let mut random = self.draw(u64::MAX);
        self.nodes[at].disk.crash(|| {
            random = random.rotate_left(1);
            random & 1 == 0
        });
        let unflushed = self.nodes[at].engine.unflushed() as u64;
        let kept = self.draw(unflushed + 1) as usize;
        self.nodes[at].engine.crash(kept);
    }

    pub(crate) fn host(&mut self, at: usize) -> &mut Host<MemoryEngine> {
        &mut self.nodes[at].running.as_mut().unwrap().host
    }

    /// Makes the store durable and tells the host, whether it was asked for or not.
    pub(crate) fn flush(&mut self, at: usize) {
        self.nodes[at].engine.flush().unwrap();
        self.host(at).flushed();
    }

    pub(crate) fn tick(&mut self) {
        for node in &mut self.nodes {
            if let Some(running) = &mut node.running {
                running.host.tick().unwrap();
            }
        }
        self.deliver();
    }

    /// Everything that needs no time happens.
    pub(crate) fn deliver(&mut self) {
        loop {
            let mut sent = Vec::new();
            for (at, node) in self.nodes.iter_mut().enumerate() {
                let Some(Running { host, wal }) = &mut node.running else { continue };
                loop {
                    let mut has_run = false;
                    let effects = host.take().unwrap();
                    for errand in host.errands() {
                        host.errand_done(errand.run()).unwrap();
                        has_run = true;
                    }
                    if let Some(standing) = effects.standing {
                        node.standing = standing;
                        host.standing_recorded();
                    }
                    sent.extend(effects.send.into_iter().map(|(to, message)| (node.id, to, message)));
                    self.notices.extend(effects.notices.into_iter().map(|notice| (at, notice)));
                    self.answers.extend(effects.replies);
                    self.grants.extend(effects.grants);
                    self.told[at].extend(effects.applied);
                    if effects.flush && self.flushes {
                        node.engine.flush().unwrap();
                        *self.flushed.entry(at).or_default() += 1;
                        host.flushed();
                    }
                    let Some((write, writes)) = effects.persist else {
                        if has_run {
                            continue;
                        }
                        break;
                    };
                    wal.append(&writes).unwrap();
                    if self.hung.contains(&at) {
                        node.unreported = Some(write);
                        continue;
                    }
                    wal.sync().unwrap();
                    host.persisted(write);
                    host.release_log(wal.pinned(32 << 10));
                }
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, mut message) in sent {
                let (sender, receiver) = (from.0 as usize - 1, to.0 as usize - 1);
                let is_cut = [sender, receiver].iter().any(|at| self.cut.contains(at));
                if is_cut || self.losing.as_ref().is_some_and(|is_lost| is_lost(sender, receiver, &message)) {
                    continue;
                }
                if let Some(tamper) = &mut self.tampering {
                    tamper(sender, receiver, &mut message);
                }
                if let Some(running) = &mut self.nodes[receiver].running {
                    running.host.receive(from, Incarnation(from.0), message).unwrap();
                }
            }
        }
    }

    /// A disk that had stopped answers.
    pub(crate) fn resume_disk(&mut self, at: usize) {
        self.hung.remove(&at);
        let node = &mut self.nodes[at];
        if let (Some(write), Some(Running { host, wal })) = (node.unreported.take(), &mut node.running) {
            wal.sync().unwrap();
            host.persisted(write);
        }
        self.deliver();
    }

    pub(crate) fn seconds(&mut self, count: u64) {
        (0..count * 50).for_each(|_| self.tick());
    }

    /// From now on these messages get lost, and no others.
    pub(crate) fn lose(&mut self, is_lost: impl Fn(usize, usize, &PeerMessage) -> bool + 'static) {
        self.losing = Some(Box::new(is_lost));
    }

    pub(crate) fn status(&mut self, at: usize, group: GroupId) -> GroupStatus {
        let statuses = self.host(at).status();
        statuses.into_iter().find(|status| status.group == group).expect("the node has the group")
    }

    /// The node is told to take over a group, as if its leader had been asked to hand over, and does.
    #[track_caller]
    pub(crate) fn take_over(&mut self, at: usize, group: GroupId) {
        let status = self.status(at, group).consensus;
        if matches!(status.role, Role::Leader { .. }) {
            return;
        }
        let from = status.leader.expect("somebody leads");
        let message =
            PeerMessage::Group { group, meta: Term(0), message: Message::TimeoutNow { term: status.term } };
        self.host(at).receive(from, Incarnation(from.0), message).unwrap();
        self.deliver();
        // It may have handed over again already, to where the sequencer is.
        assert!(self.status(at, group).consensus.term > status.term, "node {} leads {group}", at + 1);
    }

    pub(crate) fn ask(&mut self, at: usize, keyspace: KeyspaceId, request: Request) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.host(at).request(ticket, keyspace, request).unwrap();
        ticket
    }

    pub(crate) fn answer(&mut self, ticket: Ticket) -> Outcome {
        for _ in 0..400 {
            if let Some(outcome) = self.answers.remove(&ticket) {
                return outcome;
            }
            self.tick();
        }
        panic!("{ticket:?} was not answered");
    }

    pub(crate) fn request(&mut self, at: usize, keyspace: KeyspaceId, request: Request) -> Outcome {
        let ticket = self.ask(at, keyspace, request);
        self.answer(ticket)
    }

    pub(crate) fn put(
        &mut self,
        keyspace: KeyspaceId,
        key: &str,
        bytes: usize,
    ) -> Result<Revision, Rejection> {
        self.request(0, keyspace, put(key, bytes)).map(|reply| reply.revision)
    }

    pub(crate) fn order(&mut self, at: usize, order: Order) -> Result<Vec<KeyspaceMap>, Refused> {
        let (mut order, mut request) = Administration::begin(order)?;
        loop {
            let reply = self.request(at, KeyspaceId::SYSTEM, request).unwrap();
            match order.answered(reply)? {
                Step::Ask(next) => request = next,
                Step::Done(maps) => return Ok(maps),
            }
        }
    }

    pub(crate) fn create(
        &mut self,
        name: &str,
        partitions: u32,
        quota_bytes: Option<u64>,
    ) -> Result<KeyspaceId, Refused> {
        let order = Order::Create(new(name, partitions, quota_bytes));
        let created = self.order(0, order)?;
        self.seconds(2);
        Ok(created[0].id)
    }

    pub(crate) fn delete(&mut self, name: &str) -> Result<KeyspaceId, Refused> {
        Ok(self.order(0, Order::Delete { name: name.to_owned() })?[0].id)
    }

    pub(crate) fn names(&mut self) -> Vec<String> {
        self.order(1, Order::List).unwrap().into_iter().map(|map| map.name).collect()
    }
}

pub(crate) fn member(id: NodeId) -> Member {
    Member::new(id, format!("n{}", id.0), format!("host{}:2380", id.0))
}

/// A cluster of the nodes 1 to `size`.
pub(crate) fn founded_by(size: u64) -> quorate_node::Cluster {
    quorate_node::Cluster::of_founders((1..=size).map(NodeId).map(member).collect())
}

pub(crate) fn new(name: &str, partitions: u32, quota_bytes: Option<u64>) -> NewKeyspace {
    NewKeyspace { name: name.to_owned(), partitions, rules: Rules::default(), quota_bytes }
}

pub(crate) fn put(key: &str, bytes: usize) -> Request {
    let value = Some(Bytes::from(vec![b'v'; bytes]));
    Request::Put(PutRequest { key: key.to_owned().into(), value, lease: PutLease::Detach, previous: false })
}

pub(crate) fn get(key: &str) -> Request {
    Request::Range(RangeRequest::new(KeyRange::Single(key.to_owned().into())))
}

pub(crate) fn count(outcome: Outcome) -> u64 {
    let Answer::Range(answer) = outcome.unwrap().answer else { panic!("not a range") };
    answer.count
}

/// What replicas of this group say to each other.
pub(crate) fn of_group(message: &PeerMessage, id: GroupId) -> Option<&Message> {
    match message {
        PeerMessage::Group { group, message, .. } if *group == id => Some(message),
        _ => None,
    }
}

/// Whether the message brings an entry of this kind to a replica of this group.
pub(crate) fn brings(message: &PeerMessage, id: GroupId, kind: EntryKind) -> bool {
    match of_group(message, id) {
        Some(Message::Append { entries, .. }) => entries.iter().any(|entry| entry.kind == kind),
        _ => false,
    }
}
