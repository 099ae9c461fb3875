//! The ordered store: rows and their keys, snapshots of a partition, entries that are applied to one.
//!
//! Seals and the checksum of a snapshot are made right by the targets, so that what stands behind them is read.

use super::{Target, codec, nothing};
use crate::grow::{grow, text};
use quorate_consensus::random::Random;
use quorate_mvcc::Compactor;
use quorate_mvcc::engine::{Batch, Engine, Read, Table};
use quorate_mvcc::layout;
use quorate_partition::snapshot::{Chunk, ChunkRow, Installer};
use quorate_partition::{Evaluated, Limits, Partition};
use quorate_storage::memory::MemoryEngine;
use quorate_types::request::{Operation, PutLease, PutRequest, RangeRequest, TxnRequest};
use quorate_types::{
    Bytes, Command, Decode, Encode, Entry, EntryKind, GroupId, Index, KeyRange, LeaseId, Position, Request,
    Revision, SlotSet, Term, Tick,
};
use twox_hash::XxHash3_64;

const GROUP: GroupId = GroupId::FIRST;

pub(super) const LAYOUT: Target = Target {
    name: "layout",
    what: "row keys of the store and values of its change feed",
    seed: |random| {
        let (key, stamp) = (text(random), grow(random));
        match random.between(0, 3) {
            0 => layout::version_row(GROUP.keyspace, &key, stamp).to_vec(),
            1 => layout::change_row(GROUP.keyspace, stamp).to_vec(),
            _ => layout::change_value(layout::ChangeKind::Put, quorate_types::Slot::of(&key), &key),
        }
    },
    mend: nothing,
    run: |bytes| {
        let row = Bytes::copy_from_slice(bytes);
        let mut is_accepted = layout::check_version(&row).is_ok();
        if let Ok(stamp) = layout::split_change(&row) {
            let keyspace = u32::from_be_bytes([row[0], row[1], row[2], row[3]]);
            assert_eq!(layout::change_row(quorate_types::KeyspaceId(keyspace), stamp), row);
            is_accepted = true;
        }
        if let Ok((kind, slot, key)) = layout::split_change_value(&row) {
            assert_eq!(layout::change_value(kind, slot, &key), row);
            is_accepted = true;
        }
        if let Ok(group) = layout::split_state(&row) {
            assert_eq!(layout::state_row(group, &row[layout::GROUP_BYTES..]), row);
        }
        for table in Table::ALL {
            // Nobody has sealed it.
            assert!(layout::slot(table, &row).is_ok() || layout::unseal(table, b"", row.clone()).is_err());
        }
        is_accepted
    },
    gate: 20_000,
};

/// A partition that leads and has had some requests, and its log.
fn lived(random: &mut Random) -> (Partition<MemoryEngine>, Vec<Entry>) {
    let mut partition = empty();
    let mut log = Vec::new();
    partition.lead(Tick(0));
    for step in 1..=random.between(1, 12) {
        let key = || -> Bytes { format!("d/{}", step % 5).into() };
        let lease = LeaseId::new(1 + (step % 3) as i64).expect("it is not 0");
        let put =
            |lease| Request::Put(PutRequest { key: key(), value: Some("v".into()), lease, previous: true });
        let request = match random.between(0, 6) {
            0 => Request::LeaseGrant { lease, ttl_seconds: 60 },
            1 => put(PutLease::Attach(lease)),
            2 => Request::DeleteRange(quorate_types::request::DeleteRequest {
                range: KeyRange::Single(key()),
                previous: false,
            }),
            3 => Request::Compact { revision: partition.revision().0 as i64, physical: false },
            4 => Request::LeaseRevoke { lease },
            _ => put(PutLease::Detach),
        };
        let index = Index(log.len() as u64 + 1);
        if let Ok(Evaluated::Changes { kind, data, .. }) = partition.evaluate(&request, index) {
            let entry = Entry { term: Term(1), index, kind, data };
            partition.apply(std::slice::from_ref(&entry), Tick(0)).expect("the leader has evaluated it");
            log.push(entry);
        }
    }
    (partition, log)
}

fn empty() -> Partition<MemoryEngine> {
    open(&MemoryEngine::default()).expect("there is nothing that could be wrong")
}

fn open(engine: &MemoryEngine) -> Option<Partition<MemoryEngine>> {
    Partition::open(engine.clone(), GROUP, SlotSet::all(), Limits::default()).ok()?.ready()
}

/// Reads it in all ways, writes, and reads what it sends to others; nothing needs to succeed.
fn use_all(mut partition: Partition<MemoryEngine>) {
    let all = KeyRange::all();
    let reader = partition.reader();
    let newest = reader.revision();
    let _ = reader.range(&RangeRequest::new(all.clone()), newest);
    let _ = reader.range(&RangeRequest { revision: Some(1), ..RangeRequest::new(all.clone()) }, newest);
    let _ = reader.hash_kv(0);
    let _ = reader.sizes();
    let _ = reader.changes(Revision(1), 1 << 16);
    let source = partition.snapshot();
    let mut after = None;
    for _ in 0..100 {
        let Ok(chunk) = source.chunk(after, 64) else { break };
        if chunk.last {
            break;
        }
        after = Some(chunk.cursor);
    }
    partition.lead(Tick(1));
    let index = Index(partition.applied().index.0.saturating_add(1));
    let put =
        PutRequest { key: "d/1".into(), value: Some("w".into()), lease: PutLease::Keep, previous: true };
    let range = Operation::Range(RangeRequest::new(all));
    let txn = TxnRequest { success: vec![range, Operation::Put(put)], ..TxnRequest::default() };
    let _ = partition.evaluate(&Request::Txn(txn), index);
    for lease in partition.leases() {
        partition.time_to_live(lease, Tick(2), true);
    }
    partition.expired(Tick(1 << 40), 10);
    let _ = partition.checkpoints(Tick(1 << 40), index);
    let engine = partition.engine().clone();
    if let Ok(mut compactor) = Compactor::open(&engine, GROUP.keyspace) {
        let _ = compactor.step(&engine, partition.compacted(), 100);
    }
}

pub(super) const ROWS: Target = Target {
    name: "store-rows",
    what: "rows of a partition in the store, from which it is opened; their seals are right",
    seed: |random| {
        let (partition, _) = lived(random);
        let mut rows = Vec::new();
        for table in Table::ALL {
            for row in partition.engine().scan(table, layout::rows(table, GROUP)) {
                let (row, sealed) = row.expect("memory does not fail");
                let value = layout::open(table, &row, sealed).expect("it was just written");
                rows.push(ChunkRow { table, key: row.slice(layout::prefix_bytes(table)..), value });
            }
        }
        rows.encoded_vec()
    },
    mend: nothing,
    run: |bytes| {
        let Some(rows) = codec::round::<Vec<ChunkRow>>(bytes) else { return false };
        let engine = MemoryEngine::default();
        let mut batch = Batch::default();
        for ChunkRow { table, key, value } in rows {
            let row = layout::with_suffix(table, GROUP, &key);
            let sealed = layout::seal(table, &row, value.to_vec());
            batch.put(table, row, sealed);
        }
        engine.write(batch).expect("memory does not fail");
        open(&engine).map(use_all).is_some()
    },
    gate: 1_000,
};

/// A snapshot, and the entry that it was said to be of.
type Offered = (Position, Vec<Chunk>);

pub(super) const SNAPSHOT: Target = Target {
    name: "snapshot",
    what: "chunks of a snapshot from another node",
    seed: |random| {
        let partition = loop {
            let (partition, log) = lived(random);
            // One that nothing was applied to is offered to nobody.
            if !log.is_empty() {
                break partition;
            }
        };
        let source = partition.snapshot();
        let mut chunks: Vec<Chunk> = Vec::new();
        while chunks.last().is_none_or(|chunk| !chunk.last) {
            let after = chunks.last().map(|chunk| chunk.cursor.clone());
            chunks.push(source.chunk(after, 100).expect("memory does not fail"));
        }
        (source.position(), chunks).encoded_vec()
    },
    mend: |bytes| {
        let Ok((position, mut chunks)) = Offered::from_bytes(Bytes::copy_from_slice(bytes)) else { return };
        let mut checksum = 0;
        for chunk in &mut chunks {
            for row in &mut chunk.rows {
                let key = layout::with_suffix(row.table, GROUP, &row.key);
                let value = row.value.slice(..row.value.len().saturating_sub(4));
                row.value = layout::seal(row.table, &key, value.to_vec());
                checksum = chained(checksum, row);
            }
            chunk.cursor.checksum = checksum;
        }
        *bytes = (position, chunks).encoded_vec();
    },
    run: |bytes| {
        let Some((position, chunks)) = codec::round::<Offered>(bytes) else { return false };
        let engine = MemoryEngine::default();
        let installer = Installer::begin(engine, GROUP, &SlotSet::all(), Limits::default());
        let mut installer = installer.expect("memory does not fail");
        installer.clear().expect("memory does not fail");
        if chunks.into_iter().any(|chunk| installer.add(chunk).is_err())
            || installer.make_durable(position).is_err()
        {
            return false;
        }
        let Ok(partition) = installer.finish() else { return false };
        use_all(partition);
        true
    },
    gate: 1_000,
};

/// As `quorate_partition::snapshot` chains rows.
fn chained(before: u64, row: &ChunkRow) -> u64 {
    let mut lengths = [0; 9];
    lengths[0] = row.table as u8;
    lengths[1..].copy_from_slice(&(row.key.len() as u64).to_be_bytes());
    let hash = XxHash3_64::oneshot_with_seed(before, &lengths);
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot_with_seed(hash, &row.key), &row.value)
}

pub(super) const APPLY: Target = Target {
    name: "apply",
    what: "committed entries, as a leader sent them, that a replica applies",
    seed: |random| {
        let (_, mut log) = lived(random);
        for _ in 0..random.between(0, 3) {
            log.push(codec::entry(random));
        }
        let mut bytes = log.encoded_vec();
        renumber(&mut bytes);
        bytes
    },
    mend: renumber,
    run: |bytes| {
        let Some(entries) = codec::round::<Vec<Entry>>(bytes) else { return false };
        let mut partition = empty();
        partition.lead(Tick(0));
        for entry in &entries {
            if partition.apply(std::slice::from_ref(entry), Tick(3)).is_err() {
                return true;
            }
        }
        let (digest, position, engine) =
            (partition.digest(), partition.applied(), partition.engine().clone());
        use_all(partition);
        if let Some(again) = open(&engine) {
            assert_eq!((again.digest(), again.applied()), (digest, position));
        }
        true
    },
    gate: 1_000,
};

/// Puts entries in order and names the group, so that more than the first is applied.
fn renumber(bytes: &mut Vec<u8>) {
    let Ok(mut entries) = Vec::<Entry>::from_bytes(Bytes::copy_from_slice(bytes)) else { return };
    for (index, entry) in (1..).zip(&mut entries) {
        entry.index = Index(index);
        if matches!(entry.kind, EntryKind::Write | EntryKind::Lease)
            && let Ok(command) = Command::from_bytes(entry.data.clone())
        {
            entry.data = Command { group: GROUP, ..command }.encoded();
        }
    }
    *bytes = entries.encoded_vec();
}
