//! Files of the data directory: texts with a checksum at their end, the journals of the store and of events.

use super::Target;
use quorate::untrusted;
use quorate_consensus::random::Random;
use quorate_node::Cluster;
use quorate_types::{Member, NodeId};
use std::path::Path;
use tempfile::TempDir;
use twox_hash::XxHash3_64;

thread_local! {
    static FOLDER: TempDir = scratch();
}

/// In memory where that can be had, for files are made durable.
fn scratch() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let made = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    made.expect("there is room for a few small files")
}

fn in_scratch<T>(work: impl FnOnce(&Path) -> T) -> T {
    FOLDER.with(|folder| work(folder.path()))
}

/// A text and its checksum.
fn sealed(body: &str) -> Vec<u8> {
    format!("{body}checksum={:08x}\n", crc32c::crc32c(body.as_bytes())).into_bytes()
}

fn mend_text(bytes: &mut Vec<u8>) {
    const MARK: &[u8] = b"checksum=";
    let Some(end) = bytes.windows(MARK.len()).rposition(|part| part == MARK) else { return };
    let checksum = crc32c::crc32c(&bytes[..end]);
    bytes.truncate(end);
    bytes.extend_from_slice(format!("checksum={checksum:08x}\n").as_bytes());
}

pub(super) const IDENTITY: Target = Target {
    name: "identity",
    what: "IDENTITY of a data directory: whose it is, and of a node that joined what it was told",
    seed: |random| {
        let member = |id: u64| Member {
            zone: "north".into(),
            weight: 1 + id as u32,
            ..Member::new(NodeId(id), format!("n{id}"), "127.0.0.1:1")
        };
        let members = (1..=random.between(1, 4)).map(member).collect();
        let cluster = Cluster { members, first_voters: vec![NodeId(1), NodeId(random.draw())] };
        let joined = (random.between(0, 3) > 0).then_some(&cluster);
        in_scratch(|folder| untrusted::good_identity(folder, joined))
    },
    mend: mend_text,
    run: |bytes| in_scratch(|folder| untrusted::identity(folder, bytes)),
    gate: 2_000,
};

pub(super) const STANDING: Target = Target {
    name: "standing",
    what: "ADMITTED and MISSED of a data directory",
    seed: |random| {
        let mut body = "admitted=yes\nby=2\n".to_owned();
        for _ in 0..random.between(0, 4) {
            let word = ["original", "later"][random.between(0, 2) as usize];
            body.push_str(&format!("{word}={:x} {:x}\n", random.between(1, 9), random.draw()));
        }
        sealed(&body)
    },
    mend: mend_text,
    run: |bytes| in_scratch(|folder| untrusted::standing(folder, bytes)),
    gate: 2_000,
};

pub(super) const REPAIR: Target = Target {
    name: "repair",
    what: "REPAIR of a data directory: what the next start does with the store",
    seed: |random| {
        let word = ["check", "leave", "put-aside", "forget"][random.between(0, 4) as usize];
        let mut body = format!("store={word}\nwhy=reading row 00: malformed\n");
        for _ in 0..random.between(0, 4) {
            body.push_str(&format!("time={}\ngroup=1/{}\n", random.draw() >> 30, random.between(0, 9)));
        }
        if random.between(0, 2) == 0 {
            body.push_str("forgotten=yes\n");
        }
        sealed(&body)
    },
    mend: mend_text,
    run: |bytes| in_scratch(|folder| untrusted::repair(folder, bytes)),
    gate: 2_000,
};

pub(super) const EVENTS: Target = Target {
    name: "events",
    what: "the journal of events of a data directory",
    seed: |random| {
        let line = |n: u64, random: &mut Random| {
            let kind = ["election", "silence", "member", "of-a-later-version"][random.between(0, 4) as usize];
            let json = format!(
                "{{\"n\":{n},\"at\":{},\"kind\":\"{kind}\",\"what\":\"n1 leads {{}}\",\"why\":\"n2 is silent\",\
                 \"groups\":[[\"default\",{},{n}]],\"mark\":{n}}}",
                random.draw() >> 24,
                random.between(0, 9)
            );
            format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
        };
        (1..=random.between(1, 5)).map(|n| line(n, random)).collect::<String>().into_bytes()
    },
    mend: |bytes| {
        for line in bytes.split_mut(|byte| *byte == b'\n') {
            let Some((checksum, json)) = line.split_at_mut_checked(9) else { continue };
            checksum.copy_from_slice(format!("{:08x} ", crc32c::crc32c(json)).as_bytes());
        }
    },
    run: |bytes| in_scratch(|folder| untrusted::events(folder, bytes)),
    gate: 2_000,
};

pub(super) const JOURNAL: Target = Target {
    name: "store-journal",
    what: "the newest journal of the ordered store, as it is looked through before fjall reads it",
    seed: |random| {
        let batches = random.between(1, 5);
        let mut journal: Vec<u8> = (0..batches).flat_map(|number| batch(3 + number, random)).collect();
        journal.resize(journal.len() + random.between(0, 40) as usize, 0);
        journal
    },
    mend: |bytes| mend_journal(bytes),
    run: untrusted::store_journal,
    gate: 10_000,
};

fn batch(number: u64, random: &mut Random) -> Vec<u8> {
    let items = random.between(0, 4) as u32;
    let mut batch = vec![1];
    batch.extend(items.to_le_bytes());
    batch.extend(number.to_le_bytes());
    let begin = batch.len();
    for _ in 0..items {
        if random.between(0, 5) == 0 {
            batch.push(4);
            batch.extend(1u64.to_le_bytes());
            continue;
        }
        let (key, value) =
            (vec![b'k'; random.between(0, 9) as usize], vec![b'v'; random.between(0, 30) as usize]);
        batch.extend([2, 0, 0]);
        batch.extend(1u64.to_le_bytes());
        batch.extend((key.len() as u16).to_le_bytes());
        batch.extend((value.len() as u32).to_le_bytes());
        batch.extend((value.len() as u32).to_le_bytes());
        batch.extend(key);
        batch.extend(value);
    }
    let checksum = XxHash3_64::oneshot(&batch[begin..]);
    batch.push(3);
    batch.extend(checksum.to_le_bytes());
    batch.extend(b"FJL\x03");
    batch
}

/// Makes the checksum right of each batch whose end is where a mark of an end is.
fn mend_journal(bytes: &mut [u8]) {
    const MARK: &[u8] = b"FJL\x03";
    let mut begin = 0;
    let mut at = 0;
    while at + MARK.len() <= bytes.len() {
        let (items, checksum) = (begin + 13, at.saturating_sub(8));
        if bytes[at..].starts_with(MARK) && items < checksum {
            let right = XxHash3_64::oneshot(&bytes[items..checksum - 1]).to_le_bytes();
            bytes[checksum..at].copy_from_slice(&right);
            begin = at + MARK.len();
        }
        at += 1;
    }
}
