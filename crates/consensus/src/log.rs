//! The group's log since its last compaction, in memory.
//!
//! Invariants: entries are contiguous and begin right after `start`; terms never fall along the log;
//! nothing at or below the commit index is ever replaced (the caller passes it, [`Log::append`] asserts
//! it). The configuration in effect is what the newest entry of kind [`EntryKind::Config`] says, so it comes and goes with that entry
//! (thesis, 4.1). Entry data is shared, never copied. Ideas: Raft paper, 5.3; matching by position, section 5.3.

use crate::Configuration;
use quorate_types::{Entry, EntryKind, Index, Position, Term};
use std::collections::VecDeque;

/// The entries after `start`.
#[derive(Clone, Debug)]
pub struct Log {
    start: Position,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Never empty: the one in effect at the start (or before), then that of each entry which says one.
    configurations: VecDeque<(Index, Configuration)>,
}

impl Log {
    /// A log that begins after `start`, where `configuration` is in effect. Panics when the entries are not contiguous from there: what was
    /// recovered was checked by the storage, so a gap is our own mistake.
    pub fn new(start: Position, configuration: Configuration, entries: Vec<Entry>) -> Self {
        let configurations = VecDeque::from([(start.index, configuration)]);
        let mut log = Self { start, entries: VecDeque::new(), bytes: 0, configurations };
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

    /// Where the configuration in effect stands, and what it is.
    pub fn configuration(&self) -> (Index, &Configuration) {
        let (index, configuration) = &self.configurations[self.configurations.len() - 1];
        (*index, configuration)
    }

    /// The configuration in effect at `index`, which is not before the start.
    pub fn configuration_at(&self, index: Index) -> &Configuration {
        assert!(
            index >= self.start.index,
            "configuration at {index} of a log that starts after {}",
            self.start
        );
        let after = self.configurations.partition_point(|(at, _)| *at <= index);
        &self.configurations[after - 1].1
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
        if entry.kind == EntryKind::Config {
            let configuration = Configuration::from_entry(&entry).expect("checked when it came in");
            self.configurations.push_back((entry.index, configuration));
        }
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
        while self.configuration().0 >= index {
            self.configurations.pop_back();
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
        while self.configurations.get(1).is_some_and(|(at, _)| *at <= self.start.index) {
            self.configurations.pop_front();
        }
        (self.start != before).then_some(self.start)
    }

    /// Forgets entries up to a position that it holds, where a snapshot says that this configuration is in effect.
    pub fn rebase(&mut self, position: Position, configuration: Configuration) {
        assert_eq!(self.term_at(position.index), Some(position.term), "the log does not hold {position}");
        self.compact(position.index);
        self.configurations[0] = (position.index, configuration);
    }

    /// Forgets everything and begins after `position`: a snapshot took the entries' place.
    pub fn restart(&mut self, position: Position, configuration: Configuration) {
        *self = Self::new(position, configuration, Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Bytes, Encode, NodeId};

    fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
        let entry = |(at, term): (usize, &u64)| Entry {
            term: Term(*term),
            index: Index(first + at as u64),
            kind: EntryKind::Write,
            data: Bytes::from_static(b"data"),
        };
        terms.iter().enumerate().map(entry).collect()
    }

    fn members(voters: &[u64]) -> Configuration {
        Configuration::of_voters(voters.iter().copied().map(NodeId).collect())
    }

    fn log(entries: Vec<Entry>) -> Log {
        Log::new(Position::default(), members(&[1, 2, 3]), entries)
    }

    fn terms(log: &Log) -> Vec<u64> {
        log.entries.iter().map(|entry| entry.term.0).collect()
    }

    #[test]
    fn a_late_shorter_append_keeps_the_matching_suffix() {
        let mut log = log(entries(1, &[1, 1, 2, 2]));
        assert_eq!(log.append(entries(1, &[1, 1]), Index(0)), None);
        assert_eq!(terms(&log), [1, 1, 2, 2]);
    }

    #[test]
    fn a_conflict_replaces_the_rest_and_the_bytes_stay_right() {
        let mut log = log(entries(1, &[1, 1, 2, 2]));
        assert_eq!(log.append(entries(2, &[1, 3]), Index(2)), Some(Index(3)));
        assert_eq!(terms(&log), [1, 1, 3]);
        assert_eq!(log.bytes(), log.entries.iter().map(Entry::size).sum::<usize>());
    }

    #[test]
    #[should_panic(expected = "would replace a committed one")]
    fn a_committed_entry_is_never_replaced() {
        log(entries(1, &[1, 1])).append(entries(2, &[2]), Index(2));
    }

    #[test]
    fn compaction_moves_the_start_and_keeps_its_term() {
        let mut log = log(entries(1, &[1, 2, 3]));
        assert_eq!(log.compact(Index(2)), Some(Position { term: Term(2), index: Index(2) }));
        assert_eq!(log.compact(Index(1)), None);
        assert_eq!((log.term_at(Index(1)), log.term_at(Index(2))), (None, Some(Term(2))));
        assert_eq!(log.slice(Index(3), Index(9), 0).len(), 1);
        log.restart(Position { term: Term(5), index: Index(9) }, members(&[1]));
        assert_eq!((log.last().index, log.bytes()), (Index(9), 0));
    }

    #[test]
    fn a_hint_skips_terms_newer_than_asked() {
        let log = log(entries(1, &[1, 2, 4, 4]));
        assert_eq!(log.hint(Index(9), Term(3)), Position { term: Term(2), index: Index(2) });
        assert_eq!(log.hint(Index(u64::MAX), Term(0)), Position::default());
    }

    #[test]
    fn the_configuration_comes_and_goes_with_its_entry() {
        let changes = |index: u64, term: u64, voters: &[u64]| Entry {
            term: Term(term),
            index: Index(index),
            kind: EntryKind::Config,
            data: members(voters).encoded(),
        };
        let mut log = log(entries(1, &[1]));
        log.append(vec![changes(2, 1, &[1, 2]), changes(3, 1, &[1])], Index(0));
        assert_eq!(log.configuration(), (Index(3), &members(&[1])));
        log.append(entries(3, &[2]), Index(0));
        assert_eq!(log.configuration(), (Index(2), &members(&[1, 2])), "what was cut off is not in effect");
        log.compact(Index(2));
        log.append(vec![changes(4, 2, &[4])], Index(0));
        assert_eq!(
            log.configuration_at(Index(3)),
            &members(&[1, 2]),
            "the entry is gone, what it said is not"
        );
        assert_eq!(log.configuration_at(Index(4)), &members(&[4]));
        log.append(entries(4, &[3]), Index(0));
        assert_eq!(log.configuration(), (Index(2), &members(&[1, 2])));
    }
}
