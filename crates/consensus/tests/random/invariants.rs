//! What must never be wrong, whatever fails. Each check names where the property comes from.

use crate::disk::Disk;
use quorate_consensus::Configuration;
use quorate_types::{Bytes, Entry, EntryKind, Index, LogWrite, NodeId, Position, Term};
use std::collections::BTreeMap;

/// What has happened so far, over all replicas and all their lives.
pub(crate) struct Invariants {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Every entry that any log ever held: the term of the one before it, and its bytes.
    entries: BTreeMap<Position, (Term, Bytes)>,
    /// The term of each committed entry, from index 1.
    committed: Vec<Term>,
    /// The configurations of committed entries, after the first.
    configurations: Vec<(Index, Configuration)>,
}

/// What a replica would come back with if it crashed now.
pub(crate) struct Durable {
    pub(crate) id: NodeId,
    pub(crate) last: Position,
    pub(crate) holds_committed: bool,
    pub(crate) configuration: Configuration,
}

/// Whether one configuration may come right after another: one step, so that their quorums meet (thesis, 4.3).
fn follows(before: &Configuration, next: &Configuration) -> bool {
    if before.is_joint() {
        *next == before.left()
    } else {
        next.outgoing == before.voters || !next.is_joint() && next.voters == before.voters
    }
}

impl Invariants {
    pub(crate) fn new(first: Configuration) -> Self {
        Self {
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            entries: BTreeMap::new(),
            committed: Vec::new(),
            configurations: vec![(Index::START, first)],
        }
    }

    /// The newest committed configuration.
    pub(crate) fn configuration(&self) -> &Configuration {
        self.configuration_at(self.committed())
    }

    /// The configuration as of a committed entry.
    pub(crate) fn configuration_at(&self, index: Index) -> &Configuration {
        let found = self.configurations.iter().rfind(|(at, _)| *at <= index);
        &found.expect("the first one is there from the beginning").1
    }

    /// How many changes were committed.
    pub(crate) fn changes(&self) -> u64 {
        self.configurations.len() as u64 - 1
    }

    /// What is in effect where this is the log: what its newest entry about it says, committed or not (thesis, 4.1).
    pub(crate) fn configuration_of<'a>(&'a self, log: &'a Disk) -> &'a Configuration {
        match log.configurations.last() {
            Some((_, configuration)) => configuration,
            None => self.configuration_at(log.start.index),
        }
    }

    /// One lineage of configurations: in every log each is one step from the one before.
    fn changes_by_steps(&self, id: NodeId, log: &Disk, index: Index) {
        let at = log.configurations.iter().position(|(at, _)| *at == index);
        let at = at.unwrap_or_else(|| panic!("n{id} has no configuration at {index}"));
        let before = match at.checked_sub(1) {
            Some(before) => &log.configurations[before].1,
            None => self.configuration_at(log.start.index),
        };
        let next = &log.configurations[at].1;
        assert!(follows(before, next), "n{id} has {next:?} at {index} right after {before:?}");
    }

    /// The newest index that any replica ever took for committed.
    pub(crate) fn committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// The newest committed entry's place.
    pub(crate) fn committed_position(&self) -> Option<Position> {
        self.committed.last().map(|term| Position { term: *term, index: self.committed() })
    }

    /// The committed entry at an index.
    pub(crate) fn position_at(&self, index: Index) -> Position {
        let term = index.0.checked_sub(1).map_or(Term(0), |at| self.committed[at as usize]);
        Position { term, index }
    }

    /// Election safety (Raft paper, 5.2): at most one leader a term; and leader completeness (5.4): it
    /// holds everything committed before. Returns whether this leader is news.
    pub(crate) fn leads(&mut self, term: Term, id: NodeId, log: &Disk) -> bool {
        let is_news = !self.leaders.contains_key(&term);
        let known = *self.leaders.entry(term).or_insert(id);
        assert_eq!(known, id, "two leaders of term {term}");
        // What a newer leader committed need not be held by one that only now learns of its election.
        if is_news && self.leaders.keys().next_back() == Some(&term) {
            for index in 1..=self.committed.len() as u64 {
                let position = self.position_at(Index(index));
                assert!(log.holds(position), "n{id} leads term {term} without the committed {position}");
            }
        }
        is_news
    }

    /// A vote left its voter. One a term, over all lives of the voter (5.2).
    pub(crate) fn votes(&mut self, voter: NodeId, term: Term, candidate: NodeId) {
        let first = *self.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(first, candidate, "n{voter} voted twice in term {term}");
    }

    /// Log matching (5.3), by induction: an entry of a position has the same bytes and the same
    /// predecessor in every log that ever holds it. `log` is the one that the write made.
    pub(crate) fn appends(&mut self, id: NodeId, log: &Disk, write: &LogWrite) {
        for entry in &write.entries {
            if entry.kind == EntryKind::Config {
                self.changes_by_steps(id, log, entry.index);
            }
            // What the same write compacted was checked when it was written first.
            let Some(before) = log.term_at(entry.index.previous()) else { continue };
            let known = self.entries.entry(entry.position()).or_insert_with(|| (before, entry.data.clone()));
            assert!(
                *known == (before, entry.data.clone()),
                "n{id} holds another entry {} than was seen before, or after another one",
                entry.position()
            );
        }
    }

    /// An entry that nobody but its writer saw was lost.
    pub(crate) fn forgets(&mut self, position: Position) {
        self.entries.remove(&position);
    }

    /// A replica says that everything up to `commit` is committed. Returns whether that is news.
    pub(crate) fn commits(&mut self, id: NodeId, commit: Index, log: &Disk) -> bool {
        let known = self.committed();
        if commit <= known {
            let position = self.position_at(commit);
            assert!(log.holds(position), "n{id} takes another entry than {position} for committed");
            return false;
        }
        assert!(log.holds(self.position_at(known)), "n{id} commits {commit} without {known}");
        for index in known.0 + 1..=commit.0 {
            let term = log.term_at(Index(index));
            if let Some((at, next)) = log.configurations.iter().find(|(at, _)| at.0 == index) {
                let (_, before) = &self.configurations[self.configurations.len() - 1];
                assert!(follows(before, next), "{next:?} is committed at {at} right after {before:?}");
                self.configurations.push((*at, next.clone()));
            }
            self.committed.push(term.unwrap_or_else(|| panic!("n{id} commits {index} and does not hold it")));
        }
        true
    }

    /// State machine safety (5.4.3): replicas apply the same entry at an index.
    pub(crate) fn applies(&self, id: NodeId, entry: &Entry) {
        assert!(entry.index <= self.committed(), "n{id} applies {} uncommitted", entry.position());
        let position = self.position_at(entry.index);
        assert_eq!(entry.position(), position, "n{id} applies something else than was committed");
        assert_eq!(self.entries.get(&position).map(|(_, data)| data), Some(&entry.data));
    }

    /// What is committed is on the disks of a quorum, and whoever could be elected if all crashed now holds
    /// it (5.4.1): the others are those whose logs end earlier, or whom nobody with a quorum would miss. Which are the voters of each is
    /// for its own log to say.
    pub(crate) fn is_kept(&self, disks: &[Durable]) {
        let Some(committed) = self.committed_position() else { return };
        let disk = |id: NodeId| &disks[(id.0 - 1) as usize];
        // When a joint configuration is committed, the one that follows may be what counts already.
        let configuration = self.configuration().left();
        assert!(
            configuration.agreed(|voter| disk(voter).holds_committed),
            "{committed} is committed, but no quorum of {configuration:?} holds it"
        );
        for candidate in disks.iter().filter(|disk| !disk.holds_committed) {
            let configuration = &candidate.configuration;
            let wins = configuration.agreed(|voter| disk(voter).last <= candidate.last);
            assert!(
                !wins,
                "n{} does not hold the committed entry {committed}, but a quorum of {configuration:?} would vote for it",
                candidate.id
            );
        }
    }
}
