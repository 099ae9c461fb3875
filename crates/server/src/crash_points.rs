//! All crash points: at which steps a test can have the process end, and what has happened by then.
//!
//! `QUORATE_CRASH_AT=log.frame.written:3` ends the process when it passes that point for the third time, as kill -9 does: nothing is written, sent, flushed or
//! dropped after it. Together with a disk that loses what was not synced (`docs/faultfs.md`) it is a failure of the power at that very moment.
//! `crates/server/tests/crash_points.rs` does so at each of them.
//!
//! Debug builds have them. In a release build they are nothing ([`quorate_types::crash_point()`]), and one that is told of them refuses to start.

/// Where to end, and at which passage if not at the first.
const VARIABLE: &str = "QUORATE_CRASH_AT";

/// Names, and what has happened by then; what follows in a line has not happened yet. They stand in the order in which they are passed.
pub const ALL: &[(&str, &str)] = &[
    ("directory.part_made", "a folder of the data directory is there; its name is not durable"),
    ("directory.parts_named", "all folders of the data directory are there, durably"),
    ("file.draft_made", "of a small file (IDENTITY, ADMITTED, REPAIR, ...) an empty draft is there"),
    ("file.draft_written", "the draft is written; not synced"),
    ("file.draft_durable", "the draft is durable; the file is what it was"),
    ("file.renamed", "the draft has taken the file's place; not durably"),
    ("file.durable", "the file is what it should be, durably; nobody acts on it"),
    ("join.told", "the cluster has taken this node in; nothing of that is in the data directory"),
    ("join.admitted", "the node that joined has recorded that it takes part; it has not said a word"),
    (
        "standing.recorded",
        "it is recorded that the node takes part, or who else has a new directory; nothing is sent",
    ),
    (
        "life.ended",
        "a node that forgot what it promised takes part no more; its directory is still called what it was",
    ),
    ("log.open.read", "the log is read; nothing is changed"),
    ("log.open.unfinished_removed", "a segment whose making was cut short is removed; not durably"),
    ("log.open.tail_cleared", "zeros are where a torn tail was; not synced"),
    ("log.open.rewritten", "the newest segment is written again; not synced"),
    ("log.open.synced", "the newest segment is durable; its name may not be"),
    ("log.open.named", "the newest segment is durable with its name; its end is not marked"),
    ("log.open.marked", "the log is open; nothing that it held is replayed"),
    ("log.batch.taken", "the log's thread has taken a batch; nothing of it is written"),
    ("log.frame.ready", "a frame is laid out and there is room for it; it is not written"),
    ("log.frame.written", "the frame is written; not synced"),
    ("log.frame.synced", "the frame is durable; its end is not marked"),
    ("log.frame.marked", "the frame's end is marked; nobody is told"),
    ("log.batch.durable", "the batch is durable; the worker is not told"),
    ("log.batch.told", "the worker is told; groups that hold old segments are not"),
    ("log.file.made", "an empty file for a segment is there"),
    ("log.file.filling", "some of its zeros are durable"),
    ("log.spare.filled", "the spare file is filled; nobody knows it"),
    ("log.spare.taken", "the spare file has a segment's name; not durably"),
    ("log.segment.wanted", "the newest segment is full and durable; there is no next one"),
    ("log.segment.created", "the next segment is there, full of zeros"),
    ("log.segment.headed", "the next segment's header is written; not synced"),
    ("log.segment.begun", "its first frame is written, too; not synced"),
    ("log.segment.synced", "the next segment is durable; its name is not"),
    ("log.segment.named", "the next segment is durable with its name; its end is not marked"),
    ("log.segment.marked", "the next segment is whole; what it was made for is not in it"),
    ("log.cut.decided", "a group needs its oldest entries no more; that is not written"),
    ("log.cut.segment_needless", "that is durable, and nobody needs the oldest segment; it is there"),
    ("log.cut.segment_removed", "the oldest segment is removed; not durably"),
    ("log.cut.segment_gone", "it is gone for good; the next may be needless, too"),
    ("round.begun", "the worker knows what is to be sent, written and answered; nothing of it is done"),
    ("round.sent", "messages have left; nothing is written"),
    ("round.logged_here", "the worker has written the log itself, durably; no group knows it"),
    ("round.log_ordered", "the log's thread has been given what is to be written; nobody is answered"),
    ("round.answered", "a reply is on its way to its caller"),
    ("round.flush_ordered", "the store is to be flushed; that has not begun"),
    ("apply.begun", "entries are committed; nothing of them is applied"),
    ("apply.prepare", "a part of a transaction is in the batch; not written"),
    ("apply.decide", "the decision of a transaction is in the batch; not written"),
    ("apply.commit", "the end of a part of a transaction is in the batch; not written"),
    ("apply.forget", "that a decision may be forgotten is in the batch; not written"),
    ("apply.members", "who the members are is in the batch; not written"),
    ("apply.split", "a split is in the batch; not written"),
    ("apply.batched", "all that the entries do is in one batch; not written"),
    ("store.batch.ready", "a batch is the store's; not written"),
    ("store.batch.written", "the batch can be read; it is in memory"),
    ("apply.written", "what the entries do is in the store; nobody can read it"),
    ("apply.published", "it can be read; nobody is answered"),
    ("split.proposed", "the split entry is in the leader's memory; nowhere else"),
    ("split.applied", "the child's rows are in the store; its group is not open"),
    ("split.opened", "the child's group is open; it has no leader"),
    ("split.finishing", "the child's leader serves; the map does not say so"),
    ("store.open.checked", "which files the store has is as it was written; it is not open"),
    ("store.open.tree", "its tree is open; its name may not be durable"),
    ("store.open.named", "the store is open; nothing has been read"),
    ("store.flush.begun", "the store is to be made durable; it is not"),
    ("store.spill.begun", "rows in memory are sealed; nothing of them is in a file"),
    ("store.load.written", "they are in files; these do not count"),
    ("store.spill.loaded", "the files count, durably; the rows are in memory as well"),
    ("store.flush.durable", "it is; nobody knows"),
    ("store.flush.told", "the worker is told; no log is cut"),
    ("store.reclaim.written", "what was in memory is in files; nothing is merged"),
    ("store.reclaim.merged", "everything is merged"),
    ("store.rest.spilled", "a store at rest has written what was in memory to files"),
    ("snapshot.offered", "a follower is behind the log, and a snapshot for it is held; it is not told"),
    ("snapshot.section_read", "rows of a snapshot are read; not sent"),
    (
        "snapshot.state_marked",
        "the state that a snapshot is to replace is marked as worth nothing; not durably",
    ),
    ("snapshot.mark_durable", "the mark is durable; all old rows are there"),
    ("snapshot.rows_removed", "some of the old rows are gone"),
    ("snapshot.rows_gone", "all of them are; no new one is there"),
    ("snapshot.chunk_written", "rows of the snapshot are written; not synced"),
    ("snapshot.rows_durable", "all of them are durable; the mark is there"),
    ("snapshot.unmarked", "the mark is removed; not durably"),
    ("snapshot.durable", "the new state is durable; the log is that of the old one"),
    ("snapshot.in_place", "the group goes on from the new state; the log does not say so"),
    (
        "compaction.step_done",
        "some history that may be forgotten is removed, and how far that went is written",
    ),
    (
        "compaction.read_through",
        "the same of versions that are read through; how far that went is not written",
    ),
    ("compaction.pass_batched", "the rest of it is in a batch; not written"),
    ("compaction.pass_done", "all of it is removed; not durably"),
    ("removal.rows_removed", "some rows of a deleted keyspace are removed"),
    ("removal.rows_gone", "all of them are; the store is not flushed"),
    ("removal.logs_needless", "the store is flushed; the logs of its groups are there"),
    ("discard.begun", "a replica that has to be elsewhere is closed and marked; its rows are there"),
    ("discard.rows_gone", "its rows are removed; the mark is there"),
    ("discard.unmarked", "the mark is removed; the store is not flushed"),
    ("discard.log_needless", "the store is flushed; the replica's log is there"),
    (
        "repair.ordered",
        "it is written down that the next start is to do something about the store; that start has not begun",
    ),
    ("repair.store_marked", "a new store waits for snapshots of all groups; not durably"),
    ("repair.store_made", "the new store is durable, beside the damaged one"),
    ("repair.groups_recorded", "it is written down what the damaged store held"),
    ("repair.store_aside", "the damaged store is put aside; there is none in its place"),
    ("repair.store_exchanged", "the new one is in its place; not durably"),
    ("repair.store_named", "it is, durably; the order stands"),
    ("repair.order_gone", "the order is gone"),
    ("forget.part_aside", "a damaged log, or the store after it, is put aside; not durably"),
    ("forget.store_made", "an empty store is in its place; the node's life has not ended"),
    ("forget.life_begun", "a new life has begun; the order to forget stands"),
    ("repair.carried_out", "what was ordered is done and written down; nothing is open"),
    ("repair.whole", "every group is whole again; what was put aside is there"),
    ("repair.aside_removed", "something that was put aside is removed; it is written down that it is there"),
];

/// Has the process end where the environment says.
///
/// # Errors
/// What it says makes no sense, or this is a release build.
#[cfg(debug_assertions)]
pub fn arm() -> Result<(), String> {
    armed::arm()
}

/// Refuses what cannot be done: this is a release build.
///
/// # Errors
/// The environment names a crash point.
#[cfg(not(debug_assertions))]
pub fn arm() -> Result<(), String> {
    match std::env::var_os(VARIABLE) {
        None => Ok(()),
        Some(_) => Err(format!("{VARIABLE}: only debug builds have crash points, this is a release build")),
    }
}

#[cfg(debug_assertions)]
mod armed {
    use super::{ALL, VARIABLE};
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Where to end, and at which passage.
    static AT: OnceLock<(String, u64)> = OnceLock::new();
    static PASSAGES: AtomicU64 = AtomicU64::new(0);

    pub(super) fn arm() -> Result<(), String> {
        let Ok(said) = std::env::var(VARIABLE) else { return Ok(()) };
        let at = parse(&said).map_err(|why| format!("{VARIABLE}={said}: {why}"))?;
        eprintln!("quorate: will end at crash point {}, passage {}", at.0, at.1);
        assert!(AT.set(at).is_ok(), "it is armed once");
        quorate_types::crash_point::on_crash_point(reached);
        Ok(())
    }

    pub(super) fn parse(said: &str) -> Result<(String, u64), String> {
        let (name, passage) = said.split_once(':').unwrap_or((said, "1"));
        if ALL.iter().all(|(known, _)| *known != name) {
            let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
            return Err(format!("there is no such crash point; there are {}", names.join(" ")));
        }
        match passage.parse() {
            Ok(passage) if passage > 0 => Ok((name.to_owned(), passage)),
            _ => Err("which passage must be a number from 1 on".into()),
        }
    }

    fn reached(name: &'static str) {
        let is_here = |(at, passage): &(String, u64)| {
            at == name && PASSAGES.fetch_add(1, Ordering::Relaxed) + 1 == *passage
        };
        if AT.get().is_some_and(is_here) {
            eprintln!("quorate: ends at crash point {name}");
            // It cannot fail: nobody may keep a process from ending itself.
            let _ = kill_process(getpid(), Signal::KILL);
            // Until that has reached all threads this one must not go on.
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn the_table_has_what_the_code_has_and_each_step_has_a_name_of_its_own() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(crates).unwrap() {
            sources(&entry.unwrap().path().join("src"), &mut files);
        }
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for file in files {
            let text = std::fs::read_to_string(file).unwrap();
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let Some((_, rest)) = line.split_once("crash_point(\"") else { continue };
                let (name, _) = rest.split_once('"').expect("a name ends on its line");
                *found.entry(name.to_owned()).or_default() += 1;
            }
        }
        let table: BTreeMap<String, usize> = ALL.iter().map(|(name, _)| ((*name).to_owned(), 1)).collect();
        assert_eq!(table.len(), ALL.len(), "a name stands twice in the table");
        assert_eq!(found, table);
    }

    #[cfg(debug_assertions)]
    #[test]
    fn what_makes_no_sense_is_refused() {
        use super::armed::parse;
        assert_eq!(parse("log.frame.written"), Ok(("log.frame.written".into(), 1)));
        assert_eq!(parse("log.frame.written:3"), Ok(("log.frame.written".into(), 3)));
        assert!(parse("log.frame.writen").unwrap_err().contains("log.frame.written"));
        for bad in ["log.frame.written:0", "log.frame.written:", "log.frame.written:x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
