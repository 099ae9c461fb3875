//! fjall's newest journal is cut at the first batch that makes no sense, before fjall reads it; in an older one that is damage.
//!
//! After the power has failed sectors of what was not synced are there or not, in any order. fjall itself does not open a store in which a batch is there in part and something follows; and where it drops
//! the end of one journal it goes on with the next, so that rows are missing in the middle.
//!
//! A journal is synced before the next one is begun, and before rows of it go to tables. So what a failure of the power leaves behind is in the newest, and when that is cut the store
//! is what it was at some moment, in all its tables: the log has what came later, and whoever opens a group sees whether it goes back far enough (if not, the store has lost what it had confirmed, which is
//! damage). Cutting an older one would leave tables with rows from after that moment.
//!
//! ```text
//! batch    1, number of items u32, sequence number u64          little endian
//!          items: 2, kind u8, compression u8, tree u64, key length u16, value length u32, stored length u32, key, value
//!             or  4, tree u64
//!          3, XXH3 of the items u64, "FJL", 3
//! journal  batches, then zeros
//! ```

use quorate_types::{Fault, Malformed, crash_point};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_64;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const START_BYTES: usize = 1 + 4 + 8;
const ITEM_HEADER: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
const CLEAR_BYTES: usize = 1 + 8;
const MAGIC: [u8; 4] = *b"FJL\x03";
const END_BYTES: usize = 1 + 8 + MAGIC.len();

/// What was cut off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The journal.
    pub(super) file: PathBuf,
    /// Where its first bad batch began.
    pub(super) offset: u64,
}

/// Looks through the journals of a store that is not open, and cuts the newest; what was cut, if anything. The rest of the newest is written again: after a sync that failed in an earlier life
/// the system may have it in memory only and count it as written, and what is read is relied on from now on.
///
/// # Errors
/// Damage in an older one. A journal cannot be read or cut.
pub(super) fn mend(store: &Path) -> Result<Option<Cut>, Fault> {
    let fault = |error| Fault::new(format!("reading the journals of {}", store.display()), error);
    let journals = journals(store).map_err(fault)?;
    let Some((active, sealed)) = journals.split_last() else { return Ok(None) };
    let damaged = |file: &Path, what| Fault::new(format!("reading {}", file.display()), Malformed(what));
    let mut newest = None;
    for file in sealed {
        if !matches!(batches(&std::fs::read(file).map_err(fault)?, &mut newest), Batches::Whole(_)) {
            return Err(damaged(file, "a batch that was synced"));
        }
    }
    let bytes = std::fs::read(active).map_err(fault)?;
    let (end, is_cut) = match batches(&bytes, &mut newest) {
        Batches::Whole(end) => (end, false),
        Batches::Until(end) => (end, true),
        Batches::Contradictory => {
            return Err(damaged(active, "the number of its first batch, or of the last one before it"));
        }
    };
    let settle = || {
        let file = File::options().write(true).open(active)?;
        if is_cut {
            file.set_len(end as u64)?;
            crash_point("store.journal.cut");
        }
        file.write_all_at(&bytes[..end], 0)?;
        crash_point("store.journal.rewritten");
        file.sync_all()
    };
    settle().map_err(fault)?;
    Ok(is_cut.then(|| Cut { file: active.clone(), offset: end as u64 }))
}

/// Has what the journals of an open store hold written. One that cannot be opened is left out: all that it had may be in tables by now, or there are no descriptors left, and
/// whoever needs it durable has fjall say so afterwards.
///
/// # Errors
/// What could not be written is not known, as ever after that.
pub(super) fn sync(store: &Path) -> io::Result<()> {
    let mut opened = journals(store).into_iter().flatten().filter_map(|journal| File::open(journal).ok());
    opened.try_for_each(|file| file.sync_data())
}

/// The oldest first.
fn journals(store: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|is| is == "jnl")) {
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// What a journal holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Batches {
    /// Batches up to here, and zeros.
    Whole(usize),
    /// Something else from here on.
    Until(usize),
    /// The first of them is not newer than those of the journal before.
    Contradictory,
}

/// Their numbers have no checksum and only grow: where one does not it may be that of the batch before that is wrong, so both go. `newest` is the last
/// number so far.
pub(crate) fn batches(bytes: &[u8], newest: &mut Option<u64>) -> Batches {
    const ZEROS: [u8; 4096] = [0; 4096];
    let (mut end, mut before) = (0, 0);
    while let Some((length, number)) = whole_batch(&bytes[end..]) {
        if newest.replace(number).is_some_and(|newest| newest >= number) {
            return if end == 0 { Batches::Contradictory } else { Batches::Until(before) };
        }
        (before, end) = (end, end + length);
    }
    // Nearly all of a new one; compared in pieces that is quick, in a debug build, too.
    let is_unused = bytes[end..].chunks(ZEROS.len()).all(|part| *part == ZEROS[..part.len()]);
    if is_unused { Batches::Whole(end) } else { Batches::Until(end) }
}

/// How long the batch is that begins here, and its number.
fn whole_batch(bytes: &[u8]) -> Option<(usize, u64)> {
    let field = |from: usize, length: usize| bytes.get(from..from.checked_add(length)?);
    let number = |from: usize, length: usize| {
        Some(field(from, length)?.iter().rev().fold(0u64, |number, byte| (number << 8) | u64::from(*byte)))
    };
    if *bytes.first()? != START {
        return None;
    }
    let items = number(1, 4)?;
    let mut at = START_BYTES;
    for _ in 0..items {
        let length = match *bytes.get(at)? {
            ITEM => {
                let (key, stored) = (number(at + 11, 2)?, number(at + 17, 4)?);
                ITEM_HEADER + usize::try_from(key + stored).ok()?
            }
            CLEAR => CLEAR_BYTES,
            _ => return None,
        };
        field(at, length)?;
        at += length;
    }
    let end = field(at, END_BYTES)?;
    let is_whole = end[0] == END
        && number(at + 1, 8)? == XxHash3_64::oneshot(&bytes[START_BYTES..at])
        && end[END_BYTES - MAGIC.len()..] == MAGIC;
    is_whole.then_some((at + END_BYTES, number(5, 8)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::FjallEngine;
    use quorate_mvcc::engine::{Batch, Engine, Read, Table};

    const BATCHES: u8 = 20;

    /// A store whose batches are all in its journal, and where each ends.
    fn written() -> (tempfile::TempDir, PathBuf, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let engine = FjallEngine::open(dir.path(), 1 << 20).unwrap();
        for number in 0..BATCHES {
            let mut batch = Batch::default();
            // Not to be compressed away.
            let value =
                (0..5_000u32).flat_map(|at| (at ^ u32::from(number)).wrapping_mul(0x9e37_79b9).to_be_bytes());
            batch.put(Table::Version, vec![number], value.take(5_000).collect::<Vec<u8>>());
            batch.delete(Table::Change, vec![number]);
            engine.write(batch).unwrap();
        }
        engine.flush().unwrap();
        drop(engine);
        let journal = dir.path().join("0.jnl");
        let bytes = std::fs::read(&journal).unwrap();
        let mut ends = Vec::new();
        while let Some((length, _)) = whole_batch(&bytes[ends.last().copied().unwrap_or(0)..]) {
            ends.push(ends.last().copied().unwrap_or(0) + length);
        }
        assert!(ends.len() >= usize::from(BATCHES), "{ends:?}");
        (dir, journal, ends)
    }

    fn rows(path: &Path) -> usize {
        let engine = FjallEngine::open(path, 1 << 20).unwrap();
        (0..BATCHES).filter(|number| engine.get(Table::Version, &[*number]).unwrap().is_some()).count()
    }

    #[test]
    fn whole_journals_are_left_alone() {
        let (dir, journal, _) = written();
        let before = std::fs::read(&journal).unwrap();
        assert_eq!(mend(dir.path()).unwrap(), None);
        assert_eq!(std::fs::read(&journal).unwrap(), before);
        assert_eq!(mend(&dir.path().join("nothing")).unwrap(), None);
    }

    #[test]
    fn what_follows_a_bad_batch_goes_and_what_is_before_it_stays() {
        for flip in [0, 1, 13, 14, 300, 4_950] {
            let (dir, journal, ends) = written();
            let mut bytes = std::fs::read(&journal).unwrap();
            let begins = ends[ends.len() - 4];
            bytes[begins + flip] ^= 1;
            std::fs::write(&journal, &bytes).unwrap();
            let cut = mend(dir.path()).unwrap();
            assert_eq!(cut, Some(Cut { file: journal, offset: begins as u64 }), "byte {flip}");
            assert_eq!(mend(dir.path()).unwrap(), None);
            assert_eq!(rows(dir.path()), usize::from(BATCHES) - 3, "byte {flip}");
        }
    }

    #[test]
    fn a_journal_that_is_not_the_newest_was_synced() {
        let (dir, journal, ends) = written();
        let mut bytes = std::fs::read(&journal).unwrap();
        let after = dir.path().join("1.jnl");
        // Those of a next one would have higher numbers.
        std::fs::copy(&journal, &after).unwrap();
        assert!(mend(dir.path()).unwrap_err().is_damage());
        std::fs::write(&after, vec![0; 10_000]).unwrap();
        assert_eq!(mend(dir.path()).unwrap(), None);
        // The power failed right after the next one was begun.
        std::fs::write(&after, &bytes[..ends[0] - 1]).unwrap();
        assert_eq!(mend(dir.path()).unwrap(), Some(Cut { file: after, offset: 0 }));
        bytes[ends[5] + 20] ^= 1;
        std::fs::write(&journal, &bytes).unwrap();
        assert!(mend(dir.path()).unwrap_err().is_damage());
        assert_eq!(std::fs::read(&journal).unwrap(), bytes, "and is left alone");
    }

    #[test]
    fn numbers_that_do_not_grow_are_wrong_here_or_before() {
        for (bit, is_larger) in [(1 << 6, true), (1, false)] {
            let (dir, journal, ends) = written();
            let mut bytes = std::fs::read(&journal).unwrap();
            let (before, begins) = (ends[ends.len() - 5], ends[ends.len() - 4]);
            let number = &mut bytes[begins + 5];
            *number = if is_larger { *number | bit } else { 0 };
            std::fs::write(&journal, &bytes).unwrap();
            let offset = mend(dir.path()).unwrap().map(|cut| cut.offset);
            // The larger one shows by the one after it.
            assert_eq!(offset, Some(if is_larger { begins } else { before } as u64));
        }
    }

    #[test]
    fn a_batch_that_was_not_finished_goes() {
        let (dir, journal, ends) = written();
        let bytes = std::fs::read(&journal).unwrap();
        for cut in [ends[5] + 1, ends[5] + 700, ends[6] - 1] {
            // Zeros in place of what did not reach the disk.
            let mut torn = bytes.clone();
            torn[cut..].fill(0);
            std::fs::write(&journal, torn).unwrap();
            assert_eq!(mend(dir.path()).unwrap().map(|cut| cut.offset), Some(ends[5] as u64));
        }
    }
}
