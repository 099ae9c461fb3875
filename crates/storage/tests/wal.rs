//! The log against a naive twin: random batches over many groups, rotation, compaction, crashes, damage.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_consensus::Recovered;
use quorate_storage::disk::{Disk, MemoryDisk};
use quorate_storage::wal::{OpenError, Wal, WalOptions};
use quorate_types::{
    Bytes, Entry, EntryKind, GroupId, HardState, Index, KeyspaceId, LogWrite, NodeId, PartitionId, Position,
    Term,
};
use std::collections::BTreeMap;

const OPTIONS: WalOptions = WalOptions { segment_bytes: 4_096 };

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

type Model = BTreeMap<GroupId, Recovered>;

fn group(number: u64) -> GroupId {
    GroupId { keyspace: KeyspaceId(1), partition: PartitionId(number as u32) }
}

/// What a write means, as simply as it can be said.
fn note(model: &mut Model, id: GroupId, write: &LogWrite) {
    if write.is_removal() {
        model.remove(&id);
        return;
    }
    let state = model.entry(id).or_default();
    if let Some(position) = write.restart {
        *state = Recovered { hard_state: state.hard_state, start: position, entries: Vec::new() };
    }
    state.hard_state = write.hard_state.unwrap_or(state.hard_state);
    if let Some(first) = write.entries.first() {
        state.entries.retain(|entry| entry.index < first.index);
        state.entries.extend(write.entries.iter().cloned());
    }
    if let Some(position) = write.compact {
        state.entries.retain(|entry| entry.index > position.index);
        state.start = state.start.max(position);
    }
}

fn random_write(random: &mut Random, state: &Recovered) -> LogWrite {
    let last = state.entries.last().map_or(state.start, Entry::position);
    let term = Term(last.term.0.max(1) + u64::from(random.below(10) == 0));
    let mut write = LogWrite::default();
    if random.below(60) == 0 {
        return LogWrite::removal();
    }
    if random.below(3) == 0 {
        let (vote, commit) = (Some(NodeId(random.below(3) + 1)), last.index);
        write.hard_state = Some(HardState { term, vote, commit });
    }
    if random.below(60) == 0 {
        // Never at the start, which has no term.
        write.restart = Some(Position { term, index: Index(last.index.0 + 1 + random.below(20)) });
        return write;
    }
    let overwritten = if random.below(8) == 0 { random.below(state.entries.len() as u64 + 1) } else { 0 };
    let term = if overwritten > 0 { Term(last.term.0 + 1) } else { term };
    let first = last.index.0 - overwritten + 1;
    for index in first..first + random.below(4) {
        let data = Bytes::from(vec![index as u8; random.below(200) as usize]);
        write.entries.push(Entry { term, index: Index(index), kind: EntryKind::Write, data });
    }
    if write.entries.is_empty() && !state.entries.is_empty() && random.below(3) == 0 {
        let at = random.below(state.entries.len() as u64) as usize;
        write.compact = Some(state.entries[at].position());
    }
    write
}

fn same(model: &Model, found: &Model) -> bool {
    let view = |state: &Recovered| (state.hard_state, state.start, state.entries.clone());
    let of = |model: &Model| -> Vec<_> { model.iter().map(|(id, state)| (*id, view(state))).collect() };
    of(model) == of(found)
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let disk = MemoryDisk::default();
    let mut wal = Wal::open(disk.clone(), 7, OPTIONS).unwrap().0;
    let mut now = Model::new();
    // Every state since the last sync, the synced one first: a crash may leave any of them.
    let mut possible = vec![Model::new()];
    for _ in 0..150 {
        match random.below(20) {
            0..12 => {
                let mut writes = Vec::new();
                for _ in 0..=random.below(3) {
                    let id = group(random.below(5));
                    let write = random_write(&mut random, &now.get(&id).cloned().unwrap_or_default());
                    if !write.is_empty() {
                        note(&mut now, id, &write);
                        writes.push((id, write));
                    }
                }
                wal.append(&writes).unwrap();
                possible.push(now.clone());
            }
            12..18 => {
                wal.sync().unwrap();
                possible = vec![now.clone()];
            }
            _ => {
                let chance = random.below(5);
                disk.crash(|| random.below(4) < chance);
                let (opened, found, _) = Wal::open(disk.clone(), 7, OPTIONS)
                    .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                wal = opened;
                let at = possible.iter().position(|model| same(model, &found));
                assert!(at.is_some(), "seed {seed}: recovered what was never there, or lost what was synced");
                now = found;
                possible = vec![now.clone()];
            }
        }
        for id in wal.pinned(16_384) {
            let state = &now[&id];
            if let Some(last) = state.entries.last().map(Entry::position) {
                let write = LogWrite { compact: Some(last), ..LogWrite::default() };
                note(&mut now, id, &write);
                wal.append(&[(id, write)]).unwrap();
                possible.push(now.clone());
            }
        }
    }
    wal.sync().unwrap();
    drop(wal);
    let (_, found, _) = Wal::open(disk, 7, OPTIONS).unwrap();
    assert!(same(&now, &found), "seed {seed}: a clean reopening differs");
}

#[test]
fn what_was_synced_survives_every_crash() {
    let seeds = std::env::var("SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    for seed in 0..seeds {
        run(seed);
    }
}

/// A log of ten synced frames.
fn filled() -> (MemoryDisk, Vec<u8>) {
    let disk = MemoryDisk::default();
    let mut wal = Wal::open(disk.clone(), 7, OPTIONS).unwrap().0;
    for index in 1..=10 {
        let data = Bytes::from_static(b"something worth keeping");
        let entry = Entry { term: Term(1), index: Index(index), kind: EntryKind::Write, data };
        wal.append(&[(group(1), LogWrite { entries: vec![entry], ..LogWrite::default() })]).unwrap();
        wal.sync().unwrap();
    }
    let name = disk.list().unwrap().pop().unwrap();
    let bytes = disk.read(&name).unwrap();
    (disk, bytes)
}

#[test]
fn damage_to_durable_frames_is_never_taken_for_a_torn_tail() {
    let (disk, bytes) = filled();
    let name = disk.list().unwrap().pop().unwrap();
    // The last frame is vouched for by the mark behind it.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (_, whole, report) = Wal::open(disk.clone(), 7, OPTIONS).unwrap();
    assert!(report.segments[0].torn.is_none());
    for byte in 0..=end {
        for bit in [0, 7] {
            disk.flip(&name, byte, bit);
            match Wal::open(disk.clone(), 7, OPTIONS) {
                Err(OpenError::Corrupt { .. } | OpenError::Newer { .. } | OpenError::Foreign { .. }) => {}
                Err(error) => panic!("byte {byte}: {error}"),
                // Padding between frames is not covered, and says nothing.
                Ok((_, found, _)) => assert!(same(&whole, &found), "byte {byte} was damaged and not noticed"),
            }
            disk.flip(&name, byte, bit);
        }
    }
    assert_eq!(report.segments.len(), 1);
    assert_eq!(report.segments[0].groups[&group(1)], (Index(1), Index(10)));
}

#[test]
fn a_mark_that_the_power_took_or_that_is_of_an_earlier_end_claims_nothing() {
    let (disk, bytes) = filled();
    let name = disk.list().unwrap().pop().unwrap();
    // It was written after the last sync: all of that is there without it.
    let (_, whole, _) = Wal::open(disk.clone(), 7, OPTIONS).unwrap();
    disk.crash(|| false);
    let (mut wal, found, report) = Wal::open(disk.clone(), 7, OPTIONS).unwrap();
    assert!(same(&whole, &found) && report.segments[0].torn.is_none());
    // A frame over the mark that is torn: behind what was durable, nothing else.
    let entry =
        Entry { term: Term(1), index: Index(11), kind: EntryKind::Write, data: vec![7; 2_000].into() };
    wal.append(&[(group(1), LogWrite { entries: vec![entry], ..LogWrite::default() })]).unwrap();
    let mut sectors = 0;
    disk.crash(|| {
        sectors += 1;
        sectors > 1
    });
    let (_, found, report) = Wal::open(disk.clone(), 7, OPTIONS).unwrap();
    assert!(same(&whole, &found) && report.segments[0].torn.is_some());
    assert!(disk.read(&name).unwrap() == bytes, "what was torn is zeroed, and the end marked again");
}

#[test]
fn after_a_failed_write_nothing_more_is_taken() {
    let disk = MemoryDisk::default();
    let mut wal = Wal::open(disk.clone(), 7, OPTIONS).unwrap().0;
    let hard_state = Some(HardState { term: Term(1), vote: None, commit: Index(0) });
    let write = [(group(1), LogWrite { hard_state, ..LogWrite::default() })];
    disk.fail_after(1);
    wal.append(&write).unwrap();
    assert!(wal.sync().is_err());
    disk.fail_after(1_000);
    assert!(wal.append(&write).is_err() && wal.sync().is_err(), "a disk that failed once is not asked again");
}

#[test]
fn a_log_of_another_node_or_a_newer_program_is_refused() {
    let (disk, _) = filled();
    assert!(matches!(Wal::open(disk.clone(), 8, OPTIONS), Err(OpenError::Foreign { .. })));
    let name = disk.list().unwrap().pop().unwrap();
    // A version that a later program wrote, with the checksum that belongs to it.
    let mut bytes = disk.read(&name).unwrap();
    bytes[8] = 9;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..40]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    let mut newer = disk.clone();
    newer.write_at(&name, 0, &bytes[..40]).unwrap();
    assert!(matches!(Wal::open(disk, 7, OPTIONS), Err(OpenError::Newer { found: 9, .. })));
}

#[test]
fn segments_that_nothing_needs_go_away() {
    let disk = MemoryDisk::default();
    let mut wal = Wal::open(disk, 7, OPTIONS).unwrap().0;
    for index in 1..=500 {
        let position = Position { term: Term(1), index: Index(index) };
        let data = Bytes::from(vec![1; 100]);
        let entry = Entry { term: Term(1), index: Index(index), kind: EntryKind::Write, data };
        let write = LogWrite { entries: vec![entry], compact: Some(position), ..LogWrite::default() };
        wal.append(&[(group(1), write)]).unwrap();
        wal.sync().unwrap();
        assert!(wal.bytes() <= 3 * OPTIONS.segment_bytes, "{} bytes after {index} entries", wal.bytes());
    }
}

#[test]
fn a_lost_first_sector_is_not_taken_for_an_unfinished_segment() {
    let (disk, _) = filled();
    let name = disk.list().unwrap().pop().unwrap();
    let mut damaged = disk.clone();
    damaged.write_at(&name, 0, &[0; 512]).unwrap();
    assert!(matches!(Wal::open(disk, 7, OPTIONS), Err(OpenError::Corrupt { .. })));
}

/// An entry of the first group; when it compacts, it gives up what was before.
fn entry(index: u64, compacts: bool) -> [(GroupId, LogWrite); 1] {
    let position = Position { term: Term(1), index: Index(index) };
    let data = Bytes::from(vec![1; 200]);
    let entry = Entry { term: Term(1), index: Index(index), kind: EntryKind::Write, data };
    let compact = compacts.then_some(position);
    [(group(1), LogWrite { entries: vec![entry], compact, ..LogWrite::default() })]
}

/// Writes entries from the first on until there is a second segment; returns the next index.
fn fill_a_segment(wal: &mut Wal<MemoryDisk>, disk: &MemoryDisk) -> u64 {
    for index in 1..100 {
        wal.append(&entry(index, false)).unwrap();
        wal.sync().unwrap();
        if disk.list().unwrap().len() == 2 {
            return index + 1;
        }
    }
    panic!("a segment does not hold so much");
}

#[test]
fn a_segment_whose_making_was_cut_short_behind_its_header_does_not_count() {
    let mut disk = MemoryDisk::default();
    let mut wal = Wal::open(disk.clone(), 7, OPTIONS).unwrap().0;
    // Of a group in which nothing happens any more each segment's first frame tells.
    let vote = HardState { term: Term(5), vote: Some(NodeId(3)), commit: Index(0) };
    wal.append(&[(group(2), LogWrite { hard_state: Some(vote), ..LogWrite::default() })]).unwrap();
    wal.sync().unwrap();
    let next = fill_a_segment(&mut wal, &disk);
    drop(wal);
    let name = disk.list().unwrap().pop().unwrap();
    let bytes = disk.read(&name).unwrap().len();
    disk.write_at(&name, 40, &vec![0; bytes - 40]).unwrap();
    let (mut wal, found, _) = Wal::open(disk.clone(), 7, OPTIONS).unwrap();
    assert!(found[&group(2)].hard_state == vote && !disk.list().unwrap().contains(&name));
    // Until the segment with the vote is gone. What the second one held is gone with it.
    for index in next - 1..next + 100 {
        wal.append(&entry(index, true)).unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    let (_, found, _) = Wal::open(disk, 7, OPTIONS).unwrap();
    assert_eq!(found[&group(2)].hard_state, vote);
}

#[test]
fn a_segments_name_is_durable_before_what_is_in_it_counts() {
    let disk = MemoryDisk::default();
    let mut wal = Wal::open(disk.clone(), 7, OPTIONS).unwrap().0;
    let next = fill_a_segment(&mut wal, &disk);
    // As if the process had died between the making of the segment and the sync of its name.
    disk.forget_name_of(&disk.list().unwrap().pop().unwrap());
    drop(wal);
    let mut wal = Wal::open(disk.clone(), 7, OPTIONS).unwrap().0;
    wal.append(&entry(next, false)).unwrap();
    wal.sync().unwrap();
    disk.crash(|| false);
    let (_, found, _) = Wal::open(disk, 7, OPTIONS).unwrap();
    let last = found[&group(1)].entries.last().map(|entry| entry.index);
    assert_eq!(last, Some(Index(next)), "what was acknowledged is there");
}

#[test]
fn a_torn_tail_that_is_full_of_lengths_does_not_hold_up_the_start() {
    // Each eighth byte begins what could be a frame of 1 MiB, so that reading the checksums of all of them is reading some hundred GB.
    const BYTES: usize = 8 << 20;
    let mut disk = MemoryDisk::default();
    let options = WalOptions { segment_bytes: BYTES as u64 };
    drop(Wal::open(disk.clone(), 7, options).unwrap());
    let (_, _, report) = Wal::open(disk.clone(), 7, options).unwrap();
    let (name, end) = (&report.segments[0].file, report.segments[0].bytes);
    let garbage = [0, 0, 16, 0, 1, 2, 3, 4].repeat(BYTES / 8);
    disk.write_at(name, end, &garbage[end as usize..]).unwrap();
    let (_, _, report) = Wal::open(disk, 7, options).unwrap();
    assert_eq!(report.segments[0].torn.map(|(at, _)| at), Some(end));
}
