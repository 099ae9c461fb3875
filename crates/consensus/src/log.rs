//! The group's log since its last compaction, in memory.
//!
//! Invariants: entries are contiguous and begin right after `start`; terms never fall along the log;
//! nothing at or below the commit index is ever replaced (the caller passes it, [`Log::append`] asserts
//! it). Entry data is shared, never copied. Ideas: Raft paper, 5.3; matching by position, section 5.3.

use quorate_types::{Entry, Index, Position, Term};
use std::collections::VecDeque;

/// The entries after `start`.
#[derive(Clone, Debug, Default)]
pub struct Log {
    start: Position,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Log {
    /// A log that begins after `start`. Panics when the entries are not contiguous from there: what was
    /// recovered was checked by the storage, so a gap is our own mistake.
    pub fn new(start: Position, entries: Vec<Entry>) -> Self {
        let mut log = Self { start, entries: VecDeque::new(), bytes: 0 };
        for entry in entries {
            log.push(entry);
        }
        log
    }

    /// The place before the first entry.
    pub fn start(&self) -> Position {
        self.start
    }

    /// The last entry's place, or the start.
    pub fn last(&self) -> Position {
        self.entries.back().map_or(self.start, Entry::position)
    }

    /// Bytes of entries held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The term at `index`; `None` before the start (compacted) and after the end.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// The entry at `index`, if held.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.start.index.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Entries from `from` up to and including `to`, at least one if there is one, then only as many as
    /// fit in `bytes_max`.
    pub fn slice(&self, from: Index, to: Index, bytes_max: usize) -> Vec<Entry> {
        assert!(from > self.start.index, "slice from {from} in a log that starts after {}", self.start);
        let mut out = Vec::new();
        let mut bytes = 0;
        let mut index = from;
        while index <= to
            && let Some(entry) = self.get(index)
        {
            bytes += entry.size();
            if !out.is_empty() && bytes > bytes_max {
                break;
            }
            out.push(entry.clone());
            index = index.next();
        }
        out
    }

    /// Appends one entry right after the end.
    pub fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert!(
            entry.index.0 == last.index.0 + 1 && entry.term >= last.term,
            "entry {} does not follow {last}",
            entry.position()
        );
        self.bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// Takes contiguous entries whose predecessor is known to match. What is already here with the same
    /// term stays, also behind the last of `entries`: a late, shorter append must not cut off what was
    /// acknowledged since. The first index that was written is returned, `None` when all was here.
    pub fn append(&mut self, entries: Vec<Entry>, commit: Index) -> Option<Index> {
        let mut first = None;
        for entry in entries {
            if entry.index <= self.start.index || self.term_at(entry.index) == Some(entry.term) {
                continue;
            }
            if entry.index <= self.last().index {
                assert!(
                    entry.index > commit,
                    "entry {} would replace a committed one, commit {commit}",
                    entry.position()
                );
                self.truncate_from(entry.index);
            }
            first = first.or(Some(entry.index));
            self.push(entry);
        }
        first
    }

    fn truncate_from(&mut self, index: Index) {
        while self.last().index >= index
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry.size();
        }
    }

    /// The newest position at or below `index` whose term is at most `term`: where two logs may agree
    /// after a refused append, so that backing up costs one trip per term and not per entry.
    pub fn hint(&self, index: Index, term: Term) -> Position {
        let mut at = index.min(self.last().index);
        while let Some(here) = self.term_at(at) {
            if here <= term || at == self.start.index {
                return Position { term: here, index: at };
            }
            at = at.previous();
        }
        self.start
    }

    /// Forgets entries up to and including `index`; returns the new start, `None` when nothing changed.
    pub fn compact(&mut self, index: Index) -> Option<Position> {
        let before = self.start;
        while self.start.index < index
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= entry.size();
            self.start = entry.position();
        }
        (self.start != before).then_some(self.start)
    }

    /// Forgets everything and begins after `position`: a snapshot took the entries' place.
    pub fn restart(&mut self, position: Position) {
        *self = Self { start: position, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Bytes, EntryKind};

    fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
        let entry = |(at, term): (usize, &u64)| Entry {
            term: Term(*term),
            index: Index(first + at as u64),
            kind: EntryKind::Write,
            data: Bytes::from_static(b"data"),
        };
        terms.iter().enumerate().map(entry).collect()
    }

    fn terms(log: &Log) -> Vec<u64> {
        log.entries.iter().map(|entry| entry.term.0).collect()
    }

    #[test]
    fn a_late_shorter_append_keeps_the_matching_suffix() {
        let mut log = Log::new(Position::default(), entries(1, &[1, 1, 2, 2]));
        assert_eq!(log.append(entries(1, &[1, 1]), Index(0)), None);
        assert_eq!(terms(&log), [1, 1, 2, 2]);
    }

    #[test]
    fn a_conflict_replaces_the_rest_and_the_bytes_stay_right() {
        let mut log = Log::new(Position::default(), entries(1, &[1, 1, 2, 2]));
        assert_eq!(log.append(entries(2, &[1, 3]), Index(2)), Some(Index(3)));
        assert_eq!(terms(&log), [1, 1, 3]);
        assert_eq!(log.bytes(), log.entries.iter().map(Entry::size).sum::<usize>());
    }

    #[test]
    #[should_panic(expected = "would replace a committed one")]
    fn a_committed_entry_is_never_replaced() {
        Log::new(Position::default(), entries(1, &[1, 1])).append(entries(2, &[2]), Index(2));
    }

    #[test]
    fn compaction_moves_the_start_and_keeps_its_term() {
        let mut log = Log::new(Position::default(), entries(1, &[1, 2, 3]));
        assert_eq!(log.compact(Index(2)), Some(Position { term: Term(2), index: Index(2) }));
        assert_eq!(log.compact(Index(1)), None);
        assert_eq!((log.term_at(Index(1)), log.term_at(Index(2))), (None, Some(Term(2))));
        assert_eq!(log.slice(Index(3), Index(9), 0).len(), 1);
        log.restart(Position { term: Term(5), index: Index(9) });
        assert_eq!((log.last().index, log.bytes()), (Index(9), 0));
    }

    #[test]
    fn a_hint_skips_terms_newer_than_asked() {
        let log = Log::new(Position::default(), entries(1, &[1, 2, 4, 4]));
        assert_eq!(log.hint(Index(9), Term(3)), Position { term: Term(2), index: Index(2) });
        assert_eq!(log.hint(Index(u64::MAX), Term(0)), Position::default());
    }
}
