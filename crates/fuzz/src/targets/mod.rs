//! What is fuzzed.
//!
//! * [`codec`]: our own form: messages, entries, rows of the cluster.
//! * [`log`]: the write-ahead log.
//! * [`frames`]: what goes over a connection from a peer, and how that begins.
//! * [`store`]: rows of the ordered store, snapshots, applied entries.
//! * [`consensus`]: a replica of a group that is told anything.
//! * [`host`]: a whole node that is told anything by its peers.
//! * [`files`]: small files of the data directory.
//! * [`clients`]: what clients and operators send.

mod clients;
mod codec;
mod consensus;
mod files;
mod frames;
mod host;
mod log;
mod store;

use quorate_consensus::random::Random;

/// Something that reads bytes it did not write.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called.
    pub name: &'static str,
    /// What the bytes are, and who hands them over.
    pub what: &'static str,
    /// Makes a good input.
    pub seed: fn(&mut Random) -> Vec<u8>,
    /// Makes checksums right again, where the form has any.
    pub mend: fn(&mut Vec<u8>),
    /// Reads, and panics if something is wrong. Returns whether the bytes were accepted.
    pub run: fn(&[u8]) -> bool,
    /// Mutations that the gate executes: so many that it takes a second or less in a debug build.
    pub gate: u64,
}

/// The form has no checksum.
fn nothing(_: &mut Vec<u8>) {}

/// All of them.
pub static TARGETS: &[Target] = &[
    codec::PEER,
    codec::ENTRY,
    codec::MAP,
    codec::RULES,
    codec::SLOTS,
    codec::MEMBER,
    codec::PLACE,
    codec::RECORD,
    log::WRITES,
    log::SEGMENTS,
    frames::FRAMES,
    frames::HELLO,
    store::LAYOUT,
    store::ROWS,
    store::SNAPSHOT,
    store::APPLY,
    files::IDENTITY,
    files::STANDING,
    files::REPAIR,
    files::EVENTS,
    consensus::RAFT,
    host::HOST,
    clients::ETCD,
    clients::JSON,
    clients::SETTINGS,
    clients::WORDS,
];
