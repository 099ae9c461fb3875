//! Events on disk: two files of bounded size, the newer of which takes the place of the older when it is full.
//!
//! ```text
//! DATA_DIR/events/
//!   journal       lines: CRC-32C of the rest in 8 hex digits, a space, a record as JSON
//!   journal.old   what was the journal before
//! ```
//!
//! A line that is not whole (the process or the machine ended while it was written) or that is damaged is left out when the journal is read. Numbers go on
//! over restarts.

use super::Record;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

/// Of each of the two files.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// No node tells so much. A line with a larger number is damaged, though its checksum matches: the next one could not be counted.
const NUMBER_MAX: u64 = 1 << 53;

/// A node's events.
#[derive(Debug)]
pub struct Journal {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    /// The number of the next record.
    next: u64,
    /// The last line may not be whole: the next begins on one of its own.
    is_torn: bool,
}

/// Some of the records, oldest first.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// They.
    pub records: Vec<Record>,
    /// There are more behind them.
    pub has_more: bool,
    /// The number of the newest record there is; 0 if there is none.
    pub last: u64,
}

impl Journal {
    /// Opens the journal in a folder, and says what its last record is. The folder is made if it is not there.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<(Self, Option<Record>)> {
        std::fs::create_dir_all(folder)?;
        let newest = read(&current(folder))?;
        let is_torn = newest.last().is_some_and(|byte| *byte != b'\n');
        let older = || Some(records(&read(&former(folder)).ok()?).last()?.clone());
        let last = records(&newest).last().cloned().or_else(older);
        let file = File::options().create(true).append(true).open(current(folder))?;
        let next = last.as_ref().map_or(1, |record| record.n + 1);
        let folder = folder.to_owned();
        let inner = Inner { folder, file, bytes: newest.len() as u64, bytes_max, next, is_torn };
        Ok((Self { inner: Mutex::new(inner) }, last))
    }

    /// Appends records and gives them their numbers.
    pub fn append(&self, records: impl IntoIterator<Item = Record>) -> Result<()> {
        let mut inner = self.inner.lock();
        let mut lines = Vec::new();
        for mut record in records {
            record.n = inner.next;
            inner.next += 1;
            let json = serde_json::to_string(&record).map_err(Error::other)?;
            lines.extend(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes());
        }
        if inner.bytes > 0 && inner.bytes + lines.len() as u64 > inner.bytes_max {
            std::fs::rename(current(&inner.folder), former(&inner.folder))?;
            inner.file = File::options().create(true).append(true).open(current(&inner.folder))?;
            (inner.bytes, inner.is_torn) = (0, false);
        }
        if inner.is_torn {
            lines.insert(0, b'\n');
        }
        // Until it is known that all of it is there.
        inner.is_torn = true;
        inner.file.write_all(&lines)?;
        inner.is_torn = false;
        inner.bytes += lines.len() as u64;
        Ok(())
    }

    /// The records behind number `after` that are not from before `since`, so many at most.
    pub fn read(&self, after: u64, since: u64, limit: usize) -> Result<Page> {
        let (older, newer, last) = {
            let inner = self.inner.lock();
            let last = inner.next - 1;
            if after >= last {
                return Ok(Page { records: Vec::new(), has_more: false, last });
            }
            (read(&former(&inner.folder))?, read(&current(&inner.folder))?, last)
        };
        let mut found = records(&older);
        found.extend(records(&newer));
        found.retain(|record| record.n > after && record.at >= since);
        let has_more = found.len() > limit;
        found.truncate(limit);
        Ok(Page { records: found, has_more, last })
    }
}

fn current(folder: &Path) -> PathBuf {
    folder.join("journal")
}

fn former(folder: &Path) -> PathBuf {
    folder.join("journal.old")
}

/// A file that is not there is an empty one.
fn read(path: &Path) -> Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// Whole lines.
pub(crate) fn records(bytes: &[u8]) -> Vec<Record> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter_map(record).collect()
}

fn record(line: &[u8]) -> Option<Record> {
    let (checksum, json) = line.split_at_checked(9)?;
    let checksum = std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?;
    let is_whole = u32::from_str_radix(checksum, 16).ok()? == crc32c::crc32c(json);
    let record: Option<Record> = if is_whole { serde_json::from_slice(json).ok() } else { None };
    record.filter(|record| record.n <= NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Group, Kind};
    use super::*;

    fn some(at: u64) -> Record {
        Record::new(at, Kind::Election, "n1 leads {}", "").of(Group("default".into(), 3, Some(at)))
    }

    fn times(journal: &Journal, after: u64, since: u64, limit: usize) -> (Vec<u64>, bool, u64) {
        let page = journal.read(after, since, limit).unwrap();
        (page.records.iter().map(|record| record.at).collect(), page.has_more, page.last)
    }

    #[test]
    fn what_is_appended_is_read_after_a_restart_and_numbers_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, last) = Journal::open(&folder.path().join("events"), 1 << 20).unwrap();
        assert_eq!((last, times(&journal, 0, 0, 10)), (None, (vec![], false, 0)));
        journal.append([some(10), some(20), some(30)]).unwrap();
        drop(journal);
        let (journal, last) = Journal::open(&folder.path().join("events"), 1 << 20).unwrap();
        assert_eq!(last, Some(Record { n: 3, ..some(30) }));
        journal.append([some(40)]).unwrap();
        assert_eq!(times(&journal, 0, 0, 10), (vec![10, 20, 30, 40], false, 4));
        assert_eq!(times(&journal, 1, 0, 2), (vec![20, 30], true, 4));
        assert_eq!(times(&journal, 0, 25, 10), (vec![30, 40], false, 4));
        assert_eq!(times(&journal, 4, 0, 10), (vec![], false, 4));
    }

    #[test]
    fn it_stays_within_its_bounds_and_forgets_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(folder.path(), 1_000).unwrap();
        for at in 1..=100 {
            journal.append([some(at)]).unwrap();
            let bytes = |path: PathBuf| std::fs::metadata(path).map_or(0, |found| found.len());
            assert!(bytes(current(folder.path())) <= 1_000 && bytes(former(folder.path())) <= 1_000);
        }
        let (kept, _, last) = times(&journal, 0, 0, 1_000);
        assert!(kept.len() >= 8 && kept.len() < 25, "{kept:?}");
        assert_eq!(kept, (101 - kept.len() as u64..=100).collect::<Vec<_>>());
        assert_eq!(last, 100);
        // When everything has just gone to the former file, numbers are known from there.
        std::fs::rename(current(folder.path()), former(folder.path())).unwrap();
        assert_eq!(Journal::open(folder.path(), 1_000).unwrap().1.unwrap().n, 100);
    }

    #[test]
    fn a_torn_line_costs_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let whole = {
            let (journal, _) = Journal::open(folder.path(), 1 << 20).unwrap();
            journal.append([some(1), some(2)]).unwrap();
            std::fs::read(current(folder.path())).unwrap()
        };
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in 0..whole.len() {
            std::fs::write(current(folder.path()), &whole[..end]).unwrap();
            let (journal, _) = Journal::open(folder.path(), 1 << 20).unwrap();
            journal.append([some(9)]).unwrap();
            let (kept, ..) = times(&journal, 0, 0, 10);
            // A line that lacks only its end is whole.
            let expected = match end {
                _ if end + 1 >= whole.len() => vec![1, 2, 9],
                _ if end + 1 >= first => vec![1, 9],
                _ => vec![9],
            };
            assert_eq!(kept, expected, "cut at {end}");
        }
        let mut damaged = whole.clone();
        damaged[first / 2] ^= 1;
        std::fs::write(current(folder.path()), damaged).unwrap();
        assert_eq!(times(&Journal::open(folder.path(), 1 << 20).unwrap().0, 0, 0, 10).0, [2]);
    }
}
