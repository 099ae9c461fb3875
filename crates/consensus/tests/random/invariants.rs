//! What must never be wrong, whatever fails. Each check names where the property comes from.

use crate::disk::Disk;
use quorate_types::{Bytes, Entry, Index, LogWrite, NodeId, Position, Term};
use std::collections::BTreeMap;

/// What has happened so far, over all replicas and all their lives.
#[derive(Default)]
pub(crate) struct Invariants {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Every entry that any log ever held: the term of the one before it, and its bytes.
    entries: BTreeMap<Position, (Term, Bytes)>,
    /// The term of each committed entry, from index 1.
    committed: Vec<Term>,
}

/// What a replica would come back with if it crashed now.
pub(crate) struct Durable {
    pub(crate) id: NodeId,
    pub(crate) last: Position,
    pub(crate) holds_committed: bool,
}

impl Invariants {
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
    /// it (5.4.1): the others are those whose logs end earlier, or whom nobody with a quorum would miss.
    pub(crate) fn is_kept(&self, disks: &[Durable]) {
        let Some(committed) = self.committed_position() else { return };
        let quorum = disks.len() / 2 + 1;
        let holders = disks.iter().filter(|disk| disk.holds_committed).count();
        assert!(holders >= quorum, "{committed} is committed, but only {holders} disks hold it");
        for disk in disks.iter().filter(|disk| !disk.holds_committed) {
            let voters = disks.iter().filter(|voter| voter.last <= disk.last).count();
            assert!(
                voters < quorum,
                "n{} does not hold the committed entry {committed}, but {voters} would vote for it",
                disk.id
            );
        }
    }
}
