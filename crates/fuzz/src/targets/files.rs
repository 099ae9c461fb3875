//! Files of the data directory: texts with a checksum at their end, the journal of events.

use super::Target;
use quorate::untrusted;
use quorate_consensus::random::Random;
use quorate_node::Cluster;
use quorate_types::{Member, NodeId};
use std::path::Path;
use tempfile::TempDir;

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
