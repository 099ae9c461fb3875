//! Whatever followers do, each is given just what a scan for its group alone gives, and those that go together cost one pass.

use super::*;
use crate::errands::{Done, Outcome};
use quorate_partition::snapshot::ChunkRow;
use quorate_partition::{Limits, Partition, Publication};
use quorate_storage::memory::MemoryEngine;
use quorate_types::{
    Command, Effect, Encode, Entry, EntryKind, Key, KeyspaceId, PartitionId, Revision, SLOTS, Slot, SlotSet,
    Stamp, Term,
};

const PARTITIONS: u16 = 4;

const CHUNK: usize = 400;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A keyspace in which rows of one partition often stand together.
struct Node {
    partitions: Vec<Partition<MemoryEngine>>,
    revision: u64,
}

fn slots(partition: u16) -> SlotSet {
    let width = SLOTS / PARTITIONS;
    SlotSet::from_ranges(std::iter::once(partition * width..(partition + 1) * width))
}

impl Node {
    fn new(random: &mut Random) -> Self {
        let (engine, publication) = (MemoryEngine::default(), Publication::by_owner());
        let open = |partition| {
            let group =
                GroupId { keyspace: KeyspaceId::DEFAULT, partition: PartitionId(u32::from(partition)) };
            let (engine, initial) = (engine.clone(), slots(partition));
            Partition::open_among(&publication, engine, group, initial, Limits::default())
                .unwrap()
                .ready()
                .unwrap()
        };
        let mut node = Self { partitions: (0..PARTITIONS).map(open).collect(), revision: 1 };
        for directory in 0..1 + random.below(30) {
            for number in 0..random.below(40) {
                node.put(&format!("{directory}/{number}"), random.below(150) as usize);
            }
        }
        node
    }

    fn put(&mut self, key: &str, bytes: usize) {
        self.revision += 1;
        let (slot, revision) = (Slot::of(key.as_bytes()), Revision(self.revision));
        let put = Effect::Put {
            slot,
            stamp: Stamp { revision, sub: 0 },
            key: Key::copy_from_slice(key.as_bytes()),
            value: vec![b'v'; bytes].into(),
            create: revision,
            version: 1,
            lease: None,
            previous_lease: None,
        };
        let partition = (0..PARTITIONS).find(|partition| slots(*partition).contains(slot)).unwrap();
        let replica = &mut self.partitions[usize::from(partition)];
        let group = GroupId { keyspace: KeyspaceId::DEFAULT, partition: PartitionId(u32::from(partition)) };
        let data = Command { group, effects: vec![put] }.encoded();
        let index = replica.applied().index.next();
        replica.apply(&[Entry { term: Term(1), index, kind: EntryKind::Write, data }], Tick(0)).unwrap();
    }
}

/// One that fetches.
struct Follower {
    to: NodeId,
    name: Name,
    alone: Vec<ChunkRow>,
    end: Cursor,
    begins: u64,
    cursor: Option<Cursor>,
    rows: Vec<ChunkRow>,
    is_done: bool,
    /// It is not heard until then.
    silent_until: u64,
}

impl Follower {
    /// What a host does when a snapshot is wanted.
    fn new(sources: &mut Sources<MemoryEngine>, node: &Node, partition: usize, to: NodeId, now: u64) -> Self {
        let partition = &node.partitions[partition];
        let mut shared = None;
        for view in sources.views(partition.snapshot().group(), to) {
            shared = shared.or(partition.snapshot_in(&view).unwrap());
        }
        let source = shared.unwrap_or_else(|| partition.snapshot());
        let whole = source.chunk_of(None, usize::MAX, usize::MAX).unwrap();
        assert!(whole.last);
        let name = (source.group(), source.position());
        sources.keep(to, source, Tick(now));
        let (alone, end) = (whole.rows, whole.cursor);
        Self {
            to,
            name,
            alone,
            end,
            begins: now,
            cursor: None,
            rows: Vec::new(),
            is_done: false,
            silent_until: now,
        }
    }

    fn take(&mut self, after: Option<Cursor>, chunk: Chunk) {
        // An answer to an earlier question, which came late.
        if after != self.cursor || self.is_done {
            return;
        }
        let place = |cursor: &Cursor| (cursor.table, cursor.key.clone());
        assert!(chunk.last || after.as_ref().map(place) < Some(place(&chunk.cursor)), "it leads on");
        assert!(chunk.bytes() < 2 * CHUNK + 300, "{} bytes in a chunk", chunk.bytes());
        self.rows.extend(chunk.rows);
        self.is_done = chunk.last;
        self.cursor = Some(chunk.cursor);
        if self.is_done {
            assert_eq!(self.rows, self.alone);
            assert_eq!(self.cursor.as_ref(), Some(&self.end), "and its checksum is that of all rows");
        }
    }
}

/// The errands under way are run one at a time, in any order; returns what was looked at.
fn run(sources: &mut Sources<MemoryEngine>, errands: &mut Vec<Errand<MemoryEngine>>, at: usize) -> usize {
    let Done(Outcome::Read { pass, work, read }) = errands.swap_remove(at).run() else { panic!("a read") };
    let bytes = read.as_ref().unwrap().bytes;
    assert!(sources.has_read(pass, &work, read).is_none());
    bytes
}

fn in_a_pass(sources: &Sources<MemoryEngine>) -> usize {
    let all = sources.passes.values();
    let aside = all.clone().map(|(_, pass)| pass.aside_bytes()).max().unwrap_or(0);
    assert!(aside < 17 * CHUNK + 20_000, "{aside} bytes are put aside");
    assert_eq!(sources.kept.len(), all.map(|(_, pass)| pass.readers.len()).sum::<usize>());
    sources.passes.len()
}

#[test]
fn each_is_given_what_a_scan_of_its_own_gives_whatever_happens() {
    let mut shared = 0;
    for seed in 1..120 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let mut node = Node::new(&mut random);
        let mut sources = Sources::new(CHUNK);
        let (mut errands, mut followers) = (Vec::new(), Vec::<Follower>::new());
        let loss = random.below(4) * 10;
        let mut waiting: Vec<(usize, u64)> = (0..usize::from(PARTITIONS))
            .flat_map(|partition| (1..3).map(move |to| (partition, to)))
            .map(|(partition, to)| (partition, to * 1_000 + random.below(2) * random.below(60)))
            .collect();
        let mut now = 0;
        while !waiting.is_empty() || followers.iter().any(|follower| !follower.is_done) {
            now += 1;
            assert!(now < 20_000, "seed {seed} does not end");
            sources.refill(CHUNK * random.below(12) as usize);
            waiting.retain(|&(partition, to_and_when)| {
                let (to, when) = (NodeId(to_and_when / 1_000), to_and_when % 1_000);
                if when <= now {
                    followers.push(Follower::new(&mut sources, &node, partition, to, now));
                }
                when > now
            });
            if random.below(3) == 0 {
                node.put(&format!("{}/new", random.below(30)), 50);
            }
            for follower in &mut followers {
                if follower.is_done || follower.silent_until > now {
                    continue;
                }
                match random.below(400) {
                    0 => follower.silent_until = now + random.below(600),
                    1 => (follower.cursor, follower.rows) = (None, Vec::new()),
                    _ => {}
                }
                if random.below(100) >= loss {
                    let lost = sources.pull(follower.to, follower.name, follower.cursor.clone(), Tick(now));
                    assert!(lost.is_none());
                }
            }
            for _ in 0..random.below(4) {
                let (more, answers) = sources.serve(Tick(now));
                errands.extend(more);
                for (to, answer) in answers {
                    let PeerMessage::SnapshotChunk { group, position, after, chunk } = answer else {
                        panic!("nothing is gone: {answer:?}")
                    };
                    let follower =
                        followers.iter_mut().find(|it| it.to == to && it.name == (group, position));
                    if random.below(100) >= loss {
                        follower.unwrap().take(after, chunk);
                    }
                }
                shared += followers.len().saturating_sub(in_a_pass(&sources));
                if !errands.is_empty() {
                    let at = random.below(errands.len() as u64) as usize;
                    run(&mut sources, &mut errands, at);
                }
            }
        }
        assert!(followers.iter().all(|follower| follower.begins <= now));
        assert_eq!(sources.drop_idle(Tick(now + 10), 5).len(), followers.len());
        assert_eq!(in_a_pass(&sources), 0);
    }
    assert!(shared > 1_000);
}

#[test]
fn those_that_go_together_cost_one_pass_and_one_that_stays_behind_another() {
    for (is_late, passes) in [(false, 1), (true, 2)] {
        let mut random = Random(77);
        let mut node = Node::new(&mut random);
        for number in 0..2_000 {
            node.put(&format!("{}/{number}", number / 30), 100);
        }
        let mut sources = Sources::new(CHUNK);
        let mut followers: Vec<Follower> = (0..usize::from(PARTITIONS))
            .map(|partition| Follower::new(&mut sources, &node, partition, NodeId(1), 0))
            .collect();
        assert_eq!(in_a_pass(&sources), 1);
        let whole: usize =
            followers.iter().map(|it| it.alone.iter().map(ChunkRow::bytes).sum::<usize>()).sum();
        let (mut errands, mut looked_at, mut now) = (Vec::new(), 0, 0);
        while followers.iter().any(|follower| !follower.is_done) {
            now += 1;
            sources.refill(1 << 20);
            for (at, follower) in followers.iter().enumerate() {
                let is_away = is_late && at == 0 && looked_at < whole / 2;
                if !follower.is_done && !is_away {
                    let lost = sources.pull(follower.to, follower.name, follower.cursor.clone(), Tick(now));
                    assert!(lost.is_none());
                }
            }
            let (more, answers) = sources.serve(Tick(now));
            errands.extend(more);
            for (_, answer) in answers {
                let PeerMessage::SnapshotChunk { group, after, chunk, .. } = answer else {
                    panic!("{answer:?}")
                };
                followers.iter_mut().find(|it| it.name.0 == group).unwrap().take(after, chunk);
            }
            while !errands.is_empty() {
                looked_at += run(&mut sources, &mut errands, 0);
            }
        }
        let most = whole * passes * 21 / 20;
        assert!(looked_at <= most, "{looked_at} bytes were looked at, of {whole}");
    }
}
