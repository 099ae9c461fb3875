//! The ways of requests through the deciding code, so many times each, for counting what they take: `cargo xtask instructions`.
//!
//! `cargo run --release -p quorate-node --example hot_paths -- PATH OPERATIONS`; with no words it says which paths there are, a line each.
//!
//! Three hosts in one thread, with one partition, or eight on the ways that are named so. A put goes all its way: it is routed and evaluated, encoded for the log and for two followers, decoded there,
//! framed for the logs, acknowledged, applied to stores in memory and answered. A get is a read barrier and the read behind it, over
//! eight partitions on another node than the leaders'. Nothing depends on
//! time, addresses or chance, so two runs take the same instructions, but for what the allocator and the start of a program do.
//!
//! Caveat: sockets, gRPC, threads, disks and the store's files are not in it.

#![allow(clippy::unwrap_used)] // A measurement, with nobody to hand an error to.

use quorate_consensus::Role;
use quorate_mvcc::engine::Engine;
use quorate_node::{Cluster, Grant, Host, IfBehind, Options, PeerMessage, Standing, Ticket};
use quorate_storage::disk::Disk;
use quorate_storage::memory::MemoryEngine;
use quorate_storage::wal::{Wal, WalOptions};
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, Operation, PutLease, PutRequest, RangeRequest, TxnRequest,
};
use quorate_types::{
    Bytes, Decode, Encode, Incarnation, Input, KeyRange, KeyspaceId, Member, NodeId, Rejection, Reply,
    Request,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::io;

const TICKS_PER_SECOND: u64 = 50;
/// Operations that are under way at once, where it says many.
const MANY: u64 = 16;
const KEYS: u64 = 1_000;
const VALUE_BYTES: usize = 256;
/// Keys of a range.
const ROW: u64 = 100;
/// A second of the hosts' time goes by after so many operations, so that logs are cut and stores flushed as in life.
const OPERATIONS_PER_SECOND: u64 = 1_000;
const PATHS: [&str; 9] = [
    "put",
    "put-many",
    "cas-many",
    "get",
    "get-many",
    "range",
    "put-eight-many",
    "get-eight-many",
    "range-eight",
];

/// A disk that takes everything and has nothing: a log is read only at a start. One in memory would count its own copying.
#[derive(Default)]
struct Nowhere(BTreeSet<String>);

impl Disk for Nowhere {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.iter().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Err(io::Error::other(format!("{name} was not kept")))
    }

    fn create(&mut self, name: &str, _length: u64) -> io::Result<()> {
        self.0.insert(name.to_owned());
        Ok(())
    }

    fn write_at(&mut self, _name: &str, _offset: u64, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }

    fn sync(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name);
        Ok(())
    }
}

struct Node {
    host: Host<MemoryEngine>,
    wal: Wal<Nowhere>,
    engine: MemoryEngine,
}

struct World {
    nodes: Vec<Node>,
    leader: usize,
    reader: usize,
    tickets: u64,
    replies: Vec<(Ticket, Result<Reply, Rejection>)>,
    grants: Vec<(Ticket, Result<Grant, Rejection>)>,
}

impl World {
    fn new(partitions: u32) -> Self {
        let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let members = voters.iter().map(|id| Member::new(*id, id.to_string(), "")).collect();
        let cluster = Cluster::of_founders(members);
        let node = |id: &NodeId| {
            // Sleeping and waking are not what is counted.
            let options = Options { hibernate_after_ticks: None, partitions, ..Options::new(*id, id.0 * 7) };
            let (wal, logs, _) = Wal::open(Nowhere::default(), id.0, WalOptions::default()).unwrap();
            let engine = MemoryEngine::default();
            let host = Host::new(options, Standing::New, engine.clone(), cluster.clone(), logs).unwrap();
            Node { host, wal, engine }
        };
        let nodes = voters.iter().map(node).collect();
        let mut world =
            Self { nodes, leader: 0, reader: 0, tickets: 0, replies: Vec::new(), grants: Vec::new() };
        (0..4 * TICKS_PER_SECOND).for_each(|_| world.tick());
        let leads = |node: &Node| {
            let statuses = node.host.status().into_iter();
            let mut of_keys = statuses.filter(|status| status.group.keyspace == KeyspaceId::DEFAULT);
            of_keys.all(|status| matches!(status.consensus.role, Role::Leader { .. }))
        };
        world.leader = world.nodes.iter().position(leads).expect("somebody leads all partitions");
        world.reader = if partitions > 1 { (world.leader + 1) % 3 } else { world.leader };
        world
    }

    fn tick(&mut self) {
        for node in &mut self.nodes {
            node.host.tick().unwrap();
        }
        self.deliver();
    }

    /// Everything that needs no time happens.
    fn deliver(&mut self) {
        loop {
            let mut batches: BTreeMap<(u64, u64), Vec<PeerMessage>> = BTreeMap::new();
            for (at, Node { host, wal, engine }) in self.nodes.iter_mut().enumerate() {
                loop {
                    let effects = host.take().unwrap();
                    let errands = host.errands();
                    let has_run = !errands.is_empty();
                    for errand in errands {
                        host.errand_done(errand.run()).unwrap();
                    }
                    if effects.standing.is_some() {
                        host.standing_recorded();
                    }
                    for (to, message) in effects.send {
                        batches.entry((at as u64 + 1, to.0)).or_default().push(message);
                    }
                    self.replies.extend(effects.replies);
                    self.grants.extend(effects.grants);
                    black_box(effects.applied);
                    if effects.flush {
                        engine.flush().unwrap();
                        host.flushed();
                    }
                    match effects.persist {
                        Some((write, writes)) => {
                            wal.append(&writes).unwrap();
                            wal.sync().unwrap();
                            host.persisted(write);
                        }
                        None if has_run => {}
                        None => break,
                    }
                }
            }
            if batches.is_empty() {
                return;
            }
            for ((from, to), batch) in batches {
                let frame = Bytes::from(batch.encoded_vec());
                for message in Vec::<PeerMessage>::decode(&mut Input::new(frame)).unwrap() {
                    let host = &mut self.nodes[to as usize - 1].host;
                    host.receive(NodeId(from), Incarnation(from * 7), message).unwrap();
                }
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn leader(&mut self) -> &mut Host<MemoryEngine> {
        &mut self.nodes[self.leader].host
    }

    fn reader(&mut self) -> &mut Host<MemoryEngine> {
        &mut self.nodes[self.reader].host
    }

    /// Writes that are under way together.
    fn write(&mut self, requests: impl IntoIterator<Item = Request>) {
        let mut asked = 0;
        for request in requests {
            let ticket = self.ticket();
            self.leader().request(ticket, KeyspaceId::DEFAULT, request).unwrap();
            asked += 1;
        }
        self.deliver();
        let replies = std::mem::take(&mut self.replies);
        assert_eq!(replies.len(), asked, "everything is answered at once");
        replies.into_iter().for_each(|(_, reply)| _ = black_box(reply.unwrap()));
    }

    /// Reads that are under way together.
    fn read(&mut self, ranges: Vec<RangeRequest>) {
        for range in &ranges {
            let ticket = self.ticket();
            self.reader()
                .barrier(ticket, KeyspaceId::DEFAULT, vec![range.range.clone()], IfBehind::Wait)
                .unwrap();
        }
        self.deliver();
        let grants = std::mem::take(&mut self.grants);
        assert_eq!(grants.len(), ranges.len(), "every barrier is passed at once");
        let reader = self.reader().reader(KeyspaceId::DEFAULT).unwrap();
        for ((_, grant), range) in grants.into_iter().zip(ranges) {
            black_box(reader.range(&range, grant.unwrap().revision).unwrap());
        }
    }
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("bench/{:010}", number % KEYS))
}

fn put_of(number: u64) -> PutRequest {
    let value = Some(Bytes::from(vec![number as u8; VALUE_BYTES]));
    PutRequest { key: key(number), value, lease: PutLease::Detach, previous: false }
}

/// Puts a key if it is there.
fn swap(number: u64) -> Request {
    let range = KeyRange::Single(key(number));
    let compare =
        Compare { range: range.clone(), result: CompareResult::Greater, target: CompareTarget::Version(0) };
    let (success, failure) =
        (vec![Operation::Put(put_of(number))], vec![Operation::Range(RangeRequest::new(range))]);
    Request::Txn(TxnRequest { compares: vec![compare], success, failure })
}

fn get(number: u64) -> RangeRequest {
    RangeRequest::new(KeyRange::Single(key(number)))
}

fn row(number: u64) -> RangeRequest {
    let first = number % (KEYS - ROW);
    let range = KeyRange::Between(key(first), key(first + ROW));
    RangeRequest::new(range)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, operations) = match arguments.as_slice() {
        [] => return PATHS.iter().for_each(|path| println!("{path}")),
        [path, operations] if PATHS.contains(&path.as_str()) => {
            (path.as_str(), operations.parse::<u64>().unwrap())
        }
        _ => {
            eprintln!("hot_paths PATH OPERATIONS; the paths are {}", PATHS.join(", "));
            std::process::exit(2);
        }
    };
    let mut world = World::new(if path.contains("-eight") { 8 } else { 1 });
    for first in (0..KEYS).step_by(MANY as usize) {
        world.write((first..first + MANY).map(|number| Request::Put(put_of(number))));
    }
    let step = if path.ends_with("-many") { MANY } else { 1 };
    let mut second = 0;
    for first in (0..operations).step_by(step as usize) {
        let numbers = first..first + step;
        match path {
            "put" | "put-many" | "put-eight-many" => {
                world.write(numbers.map(|number| Request::Put(put_of(number))))
            }
            "cas-many" => world.write(numbers.map(swap)),
            "range" | "range-eight" => world.read(numbers.map(row).collect()),
            _ => world.read(numbers.map(get).collect()),
        }
        if first / OPERATIONS_PER_SECOND > second {
            second += 1;
            (0..TICKS_PER_SECOND).for_each(|_| world.tick());
        }
    }
}
