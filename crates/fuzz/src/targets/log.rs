//! The write-ahead log: what a frame holds, and whole segments.
//!
//! An input of the latter is `length of the first file u32 LE, first file, second file`; the files are segments 1 and 2 of a log.

use super::{Target, codec, nothing};
use crate::grow::grow;
use quorate_consensus::random::Random;
use quorate_consensus::{Consensus, Options, raft::Raft};
use quorate_storage::disk::{Disk, MemoryDisk};
use quorate_storage::wal::{self, Wal, WalOptions};
use quorate_types::{
    Encode, Entry, GroupId, HardState, Index, KeyspaceId, LogWrite, NodeId, PartitionId, Position, Term,
};

/// Whose log it is.
const IDENTITY: u64 = 0x0123_4567_89ab_cdef;
const HEADER: usize = 40;
const FRAME_HEADER: usize = 24;
const SMALL: WalOptions = WalOptions { segment_bytes: 1 << 10 };
const FILES: [&str; 2] = ["0000000000000001.log", "0000000000000002.log"];

pub(super) const WRITES: Target = Target {
    name: "log-frame",
    what: "what a frame of the log holds: writes of groups",
    seed: |random| {
        (0..random.between(1, 4)).map(|_| write(random, Index(0))).collect::<Vec<_>>().encoded_vec()
    },
    mend: nothing,
    run: |bytes| codec::round::<Vec<(GroupId, LogWrite)>>(bytes).is_some(),
    gate: 10_000,
};

pub(super) const SEGMENTS: Target = Target {
    name: "log",
    what: "the log's segments on the disk, and a replica that begins with what they hold",
    seed: segments,
    mend: |bytes| mend(bytes),
    run,
    gate: 4_000,
};

fn write(random: &mut Random, last: Index) -> (GroupId, LogWrite) {
    let group = GroupId { keyspace: KeyspaceId(1), partition: PartitionId(random.between(0, 2) as u32) };
    let term = Term(1 + last.0 / 4);
    let entry = |index, random: &mut Random| Entry { term, index: Index(index), ..codec::entry(random) };
    let entries = (1..=random.between(0, 4)).map(|step| entry(last.0 + step, random)).collect();
    let vote = grow(random);
    let hard_state = (random.between(0, 2) == 0).then_some(HardState { term, vote, commit: last });
    let compact =
        (random.between(0, 4) == 0 && last.0 > 0).then_some(Position { term: Term(1), index: Index(1) });
    (group, LogWrite { restart: None, hard_state, entries, compact })
}

fn segments(random: &mut Random) -> Vec<u8> {
    let disk = MemoryDisk::default();
    let (mut wal, ..) = Wal::open(disk.clone(), IDENTITY, SMALL).expect("memory does not fail");
    let mut last = [Index(0); 2];
    while disk.list().expect("memory does not fail").len() < 2 {
        let (group, write) = loop {
            let at = last[random.between(0, 2) as usize];
            let (group, write) = write(random, at);
            if last[group.partition.0 as usize] == at {
                break (group, write);
            }
        };
        let last = &mut last[group.partition.0 as usize];
        *last = write.entries.last().map_or(*last, |entry| entry.index);
        wal.append(&[(group, write)]).expect("memory does not fail");
        if random.between(0, 3) == 0 {
            wal.sync().expect("memory does not fail");
        }
        if random.between(0, 12) == 0 {
            break;
        }
    }
    let read = |name: &str| disk.read(name).unwrap_or_default();
    let first = read(FILES[0]);
    [&(first.len() as u32).to_le_bytes(), &first[..], &read(FILES[1])].concat()
}

/// The two files, as far as they are there.
fn split(bytes: &mut [u8]) -> [&mut [u8]; 2] {
    let Some((length, files)) = bytes.split_first_chunk_mut::<4>() else { return [&mut [], &mut []] };
    let length = (u32::from_le_bytes(*length) as usize).min(files.len());
    let (first, second) = files.split_at_mut(length);
    [first, second]
}

fn mend(bytes: &mut [u8]) {
    for (sequence, file) in (1u64..).zip(split(bytes)) {
        if file.len() < HEADER {
            continue;
        }
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&file[..12]), &file[16..HEADER]);
        file[12..16].copy_from_slice(&checksum.to_le_bytes());
        let mut at = HEADER;
        while at + FRAME_HEADER <= file.len() {
            let length = u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]) as usize;
            let end = at + FRAME_HEADER + length;
            if length == 0 || end > file.len() {
                break;
            }
            let place = [IDENTITY, sequence, at as u64].map(u64::to_le_bytes).concat();
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&place), &file[at + 8..end]);
            file[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
            at = end.next_multiple_of(8);
        }
    }
}

fn run(bytes: &[u8]) -> bool {
    let mut disk = MemoryDisk::default();
    let mut bytes = bytes.to_vec();
    for (name, file) in FILES.into_iter().zip(split(&mut bytes)) {
        if !file.is_empty() {
            disk.create(name, file.len() as u64).expect("memory does not fail");
            disk.write_at(name, 0, file).expect("memory does not fail");
        }
    }
    let inspected = wal::inspect(&disk, IDENTITY);
    let Ok((mut wal, groups, report)) = Wal::open(disk.clone(), IDENTITY, SMALL) else { return false };
    assert_eq!(inspected.ok(), Some(report));
    for recovered in groups.values().filter(|recovered| recovered.is_legible()) {
        let options = Options::new(NodeId(1), vec![NodeId(1), NodeId(2)], 7);
        let mut raft = Raft::new(options, recovered.clone(), recovered.start.index);
        (0..50).for_each(|_| raft.tick());
        drop(raft.take());
    }
    wal.append(&[(
        GroupId::META,
        LogWrite { hard_state: Some(HardState::default()), ..LogWrite::default() },
    )])
    .expect("memory does not fail");
    wal.sync().expect("memory does not fail");
    drop(wal);
    let (_, again, _) = Wal::open(disk, IDENTITY, SMALL).expect("what was written can be read");
    for (group, recovered) in &groups {
        // No entry is at 0, so a start there of some term is nonsense; a next segment does not say it again.
        let is_nonsense = recovered.start.index == Index::START && recovered.start.term > Term(0);
        if *group != GroupId::META && !is_nonsense {
            assert_eq!(again.get(group).map(|found| format!("{found:?}")), Some(format!("{recovered:?}")));
        }
    }
    !groups.is_empty()
}
