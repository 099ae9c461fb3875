//! Two partitions of one keyspace on one node: they share the rows of their keys and nothing else.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod support;

use quorate_mvcc::engine::{Engine, Table};
use quorate_mvcc::{Compactor, layout};
use quorate_partition::snapshot::{Chunk, InstallError, Installer};
use quorate_partition::{Evaluated, Opened, Partition, Publication, ReadError};
use quorate_types::{
    Answer, Command, Decode, Effect, Encode, Entry, EntryKind, GroupId, Index, Key, KeyRange, KeyspaceId,
    PartitionId, Rejection, Request, Revision, Slot, SlotSet, Stamp, Term, Tick,
};
use std::iter::once;
use support::{TestEngine, limits, range};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

fn group(partition: u32) -> GroupId {
    GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) }
}

/// Partition 0 has the keys below `a/`, partition 1 all others.
fn slots(partition: u32) -> SlotSet {
    let a = Slot::of(b"a/").0;
    let first = SlotSet::from_ranges(once(a..a + 1));
    if partition == 0 { first } else { SlotSet::all().subtract(&first) }
}

/// A node with both.
struct Node {
    engine: TestEngine,
    publication: Publication,
    partitions: Vec<Partition<TestEngine>>,
}

fn open(publication: &Publication, engine: &TestEngine, partition: u32) -> Opened<TestEngine> {
    let initial = slots(partition);
    Partition::open_among(publication, engine.clone(), group(partition), initial, limits()).unwrap()
}

impl Node {
    fn new(engine: TestEngine) -> Self {
        let publication = Publication::by_owner();
        let open = |partition| open(&publication, &engine, partition).ready().unwrap();
        Self { partitions: vec![open(0), open(1)], engine, publication }
    }

    fn apply(&mut self, partition: u32, effects: Vec<Effect>) {
        let replica = &mut self.partitions[partition as usize];
        let data = Command { group: group(partition), effects }.encoded();
        let index = replica.applied().index.next();
        let entry = Entry { term: Term(1), index, kind: EntryKind::Write, data };
        replica.apply(&[entry], Tick(0)).unwrap();
    }

    fn put(&mut self, revision: u64, key: &str) {
        let slot = Slot::of(key.as_bytes());
        let partition = u32::from(!slots(0).contains(slot));
        let revision = Revision(revision);
        let put = Effect::Put {
            slot,
            stamp: Stamp { revision, sub: 0 },
            key: Key::copy_from_slice(key.as_bytes()),
            value: revision.to_string().into(),
            create: Revision(2),
            version: 1,
            lease: None,
            previous_lease: None,
        };
        self.apply(partition, vec![put]);
    }

    /// Both have many changes, in turns; each has compacted.
    fn grown() -> Self {
        let mut node = Self::new(TestEngine::default());
        for revision in 2..80 {
            node.put(revision, ["a/1", "b/1", "a/2", "c"][revision as usize % 4]);
        }
        node.apply(0, vec![Effect::Compact { revision: Revision(40) }]);
        node.apply(1, vec![Effect::Compact { revision: Revision(30) }]);
        node.publication.advance(Revision(79));
        node
    }

    fn keys(&self, newest: u64) -> Result<Vec<Key>, Rejection> {
        let reader = self.publication.reader(self.engine.clone(), KEYSPACE);
        match reader.range(&range(KeyRange::all()), Revision(newest)) {
            Ok((_, answer)) => Ok(answer.pairs.into_iter().map(|pair| pair.key).collect()),
            Err(ReadError::Rejection(rejection)) => Err(rejection),
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
    }

    /// The versions and changes in the slots of a partition, and its state.
    fn rows_of(&self, partition: u32) -> Vec<(Table, (Key, Key))> {
        let is_ours = |table: Table, row: &Key, value: &Key| match table {
            Table::State => row.starts_with(&layout::state_row(group(partition), b"")),
            _ => {
                let opened = layout::open(table, row, value.clone()).unwrap();
                slots(partition).contains(layout::slot(table, &opened).unwrap())
            }
        };
        let rows = self.engine.dump().into_iter();
        rows.filter(|(table, (row, value))| is_ours(*table, row, value)).collect()
    }
}

#[test]
fn readers_see_both_as_far_as_the_owner_says_and_a_leader_only_its_own() {
    let mut node = Node::new(TestEngine::default());
    node.put(2, "a/1");
    node.put(3, "b/1");
    let reader = node.publication.reader(node.engine.clone(), KEYSPACE);
    assert_eq!(reader.revision(), Revision(1));
    node.publication.advance(Revision(3));
    node.publication.advance(Revision(2));
    assert_eq!(reader.revision(), Revision(3));
    assert_eq!(node.keys(3), Ok(vec!["a/1".into(), "b/1".into()]));
    assert_eq!(node.keys(2), Ok(vec!["a/1".into()]));
    let changes = reader.changes(Revision(2), usize::MAX).unwrap().changes;
    assert_eq!(changes.iter().map(|changes| changes.revision.0).collect::<Vec<_>>(), [2, 3]);
    for (partition, own) in [(0, "a/1"), (1, "b/1")] {
        node.partitions[partition].lead(Tick(0));
        let all = Request::Range(range(KeyRange::all()));
        let Ok(Evaluated::Unchanged { reply: (_, Answer::Range(answer)) }) =
            node.partitions[partition].evaluate(&all, Index(2))
        else {
            panic!("a range is answered")
        };
        assert_eq!(answer.pairs.iter().map(|pair| &pair.key[..]).collect::<Vec<_>>(), [own.as_bytes()]);
    }
}

#[test]
fn history_is_removed_as_far_as_both_have_compacted_and_refused_from_where_one_has() {
    let node = Node::grown();
    let reader = node.publication.reader(node.engine.clone(), KEYSPACE);
    // A read that a compaction overtook takes the newest revision there is now; where there is none that may be read, it is
    // to come again.
    let all = range(KeyRange::all());
    assert_eq!(reader.range(&all, Revision(35)).unwrap().0, Revision(79));
    let behind = Publication::by_owner();
    for partition in 0..2 {
        assert!(open(&behind, &node.engine, partition).ready().is_some());
    }
    behind.advance(Revision(36));
    let refused = behind.reader(node.engine.clone(), KEYSPACE).range(&all, Revision(35));
    assert!(matches!(refused, Err(ReadError::Rejection(Rejection::Busy))), "{refused:?}");
    assert_eq!(reader.compacted(), Some(Revision(40)));
    let hash = reader.hash_kv(0).unwrap();
    assert_eq!((hash.through, hash.compacted), (Revision(79), Some(Revision(40))));
    let least = node.partitions.iter().map(Partition::compacted).min().unwrap();
    let mut compactor = Compactor::open(&node.engine, KEYSPACE).unwrap();
    while !compactor.step(&node.engine, least, 7).unwrap() {}
    assert_eq!(compactor.finished(), Some(Revision(30)));
    assert_eq!(reader.hash_kv(0).unwrap(), hash);
    assert_eq!(node.keys(79).unwrap().len(), 4);
}

#[test]
fn a_partition_opens_with_the_slots_it_had_and_beside_newer_changes_of_others() {
    let node = Node::grown();
    node.engine.flush().unwrap();
    for partition in 0..2u32 {
        // The other one has a change at the end, and this one a head that lies before it.
        let none = SlotSet::none();
        let opened = Partition::open(node.engine.clone(), group(partition), none, limits()).unwrap();
        assert_eq!(**opened.ready().unwrap().slots(), slots(partition));
    }
    // One change of its own after its head is one too many.
    let engine = node.engine.crash(usize::MAX);
    let head = layout::state_row(group(0), b"head");
    let mut older = Node::new(TestEngine::default());
    older.put(2, "a/1");
    let value = older.engine.dump().into_iter().find(|(_, (row, _))| *row == head).unwrap().1.1;
    let mut batch = quorate_mvcc::engine::Batch::default();
    batch.put(Table::State, head, value);
    engine.write(batch).unwrap();
    assert!(Partition::open(engine.clone(), group(0), slots(0), limits()).is_err());
    assert!(Partition::open(engine, group(1), slots(1), limits()).is_ok());
}

#[test]
fn a_snapshot_replaces_one_partition_and_leaves_the_other_alone() {
    for (rows_max, bytes_max) in [(1, 1 << 20), (3, 100), (20_000, 1 << 20)] {
        let source = Node::grown();
        let snapshot = source.partitions[0].snapshot();
        let mut target = Node::grown();
        target.put(80, "c");
        target.put(81, "a/9");
        let others = target.rows_of(1);
        let mut compactor = Compactor::open(&target.engine, KEYSPACE).unwrap();
        compactor.step(&target.engine, Some(Revision(2)), 1_000).unwrap();
        let reader = target.publication.reader(target.engine.clone(), KEYSPACE);
        let replica = target.partitions.remove(0);
        let mut installer = replica.into_installer(&slots(0)).unwrap();
        assert_eq!(target.keys(79), Err(Rejection::Unavailable));
        assert_eq!(Compactor::open(&target.engine, KEYSPACE).unwrap().finished(), None);
        while !installer.clear_some(rows_max).unwrap() {
            assert_eq!(target.rows_of(1), others);
        }
        assert_eq!(target.rows_of(0).len(), 1, "the mark alone");
        assert_eq!(target.rows_of(1), others);
        let mut empty = 0;
        while !installer.is_complete() {
            let chunk = snapshot.chunk_of(installer.cursor().cloned(), bytes_max, rows_max).unwrap();
            empty += usize::from(chunk.rows.is_empty());
            installer.add(Chunk::from_bytes(chunk.encoded()).unwrap()).unwrap();
        }
        assert!(rows_max > 1 || empty > 10, "{empty} chunks that hold nothing and lead on");
        installer.make_durable(snapshot.position()).unwrap();
        let replica = installer.finish().unwrap();
        assert_eq!((replica.digest(), &**replica.slots()), (source.partitions[0].digest(), &slots(0)));
        assert_eq!((target.rows_of(0), target.rows_of(1)), (source.rows_of(0), others));
        assert!(reader.is_available());
        assert_eq!(target.keys(80).unwrap().len(), 4);
    }
}

#[test]
fn a_keyspace_is_unavailable_until_the_last_of_its_partitions_is_whole() {
    let source = Node::grown();
    let node = Node::grown();
    let publication = Publication::by_owner();
    let mut installers: Vec<_> = (0..2)
        .map(|partition| {
            let (engine, group) = (node.engine.clone(), group(partition));
            Installer::begin_among(&publication, engine, group, &slots(partition), limits()).unwrap()
        })
        .collect();
    let reader = publication.reader(node.engine.clone(), KEYSPACE);
    // Begun anew, which counts once.
    let first = installers.remove(0).restart(&slots(0)).unwrap();
    installers.insert(0, first);
    for installer in &mut installers {
        installer.clear().unwrap();
    }
    for (partition, mut installer) in installers.into_iter().enumerate() {
        assert!(!reader.is_available());
        let snapshot = source.partitions[partition].snapshot();
        let chunk = snapshot.chunk(None, usize::MAX).unwrap();
        installer.add(chunk).unwrap();
        installer.make_durable(snapshot.position()).unwrap();
        installer.finish().unwrap();
    }
    // And its owner has said how far they are.
    assert!(!reader.is_available());
    publication.advance(Revision(79));
    assert!(reader.is_available());
    assert_eq!(reader.compacted(), Some(Revision(40)));
    assert_eq!(node.engine.dump(), source.engine.dump());
}

#[test]
fn chunks_that_lead_nowhere_or_back_are_refused() {
    let source = Node::grown().partitions.remove(0).snapshot();
    let engine = TestEngine::default();
    let clear = slots(0);
    let mut installer = Installer::begin(engine, group(0), &clear, limits()).unwrap();
    installer.clear().unwrap();
    let first = source.chunk_of(None, 1 << 20, 10).unwrap();
    installer.add(first.clone()).unwrap();
    let nothing = Chunk { rows: Vec::new(), ..first.clone() };
    assert!(matches!(installer.add(nothing), Err(InstallError::Mismatch(_))));
    let mut next = source.chunk_of(installer.cursor().cloned(), 1 << 20, 30).unwrap();
    assert!(!next.rows.is_empty());
    // A cursor before the rows it comes with.
    next.cursor.key = first.cursor.key;
    assert!(matches!(installer.add(next), Err(InstallError::Mismatch(_))));
}
