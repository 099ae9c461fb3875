//! A log as it follows from the writes that a replica hands out.

use quorate_consensus::{Configuration, Recovered};
use quorate_types::{Entry, EntryKind, HardState, Index, LogWrite, Position, Term};

/// What a disk holds, or what is in memory when all writes that were handed out are counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) start: Position,
    pub(crate) entries: Vec<Entry>,
    /// What entries since the last restart said, also those that are compacted.
    pub(crate) configurations: Vec<(Index, Configuration)>,
}

impl Disk {
    pub(crate) fn write(&mut self, write: &LogWrite) {
        if let Some(position) = write.restart {
            self.restart(position);
        }
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(first) = write.entries.first() {
            let end = self.last().index.next();
            assert!(
                first.index > self.start.index && first.index <= end,
                "entry {} written to a log from {} to {}",
                first.position(),
                self.start,
                self.last()
            );
            self.entries.truncate((first.index.0 - self.start.index.0 - 1) as usize);
            self.configurations.retain(|(at, _)| *at < first.index);
            for entry in &write.entries {
                assert_eq!(entry.index, self.last().index.next(), "a gap in a write");
                if entry.kind == EntryKind::Config {
                    self.configurations.push((entry.index, Configuration::from_entry(entry).unwrap()));
                }
                self.entries.push(entry.clone());
            }
        }
        if let Some(position) = write.compact {
            assert_eq!(self.term_at(position.index), Some(position.term), "compacted to {position}");
            self.entries.drain(..(position.index.0 - self.start.index.0) as usize);
            self.start = position;
        }
    }

    /// A snapshot took the entries' place.
    pub(crate) fn restart(&mut self, position: Position) {
        self.start = position;
        self.entries.clear();
        self.configurations.clear();
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.start, Entry::position)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.start.index.0 + 1)?;
        self.entries.get(offset as usize)
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// Whether the entry is here, or was before it was compacted.
    pub(crate) fn holds(&self, position: Position) -> bool {
        position.index < self.start.index || self.term_at(position.index) == Some(position.term)
    }

    pub(crate) fn recovered(&self) -> Recovered {
        Recovered { hard_state: self.hard_state, start: self.start, entries: self.entries.clone() }
    }
}
