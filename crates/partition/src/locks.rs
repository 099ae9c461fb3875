//! What transactions over partitions hold locked at a leader.
//!
//! A lock is on a key, a whole range (empty ones too: phantoms), or a lease; exclusive or shared. The table has no memory of its
//! own: a leader builds it from the prepared transactions in its state when its term begins, adds what it prepares, and
//! takes out what it has appended the end of, because whatever is evaluated next sees that entry's changes
//! in the overlay. While nothing is held, asking costs nothing.

use quorate_types::{Footprint, Key, KeyRange, LeaseId, PartitionId, Revision, Term, TxnId};
use std::collections::BTreeMap;
use std::ops::Bound;

/// One transaction's locks here.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) footprint: Footprint,
    /// If it commits, then above this.
    pub(crate) floor: Revision,
    /// Prepared: the log has it, or will have.
    pub(crate) is_prepared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Shared,
    Exclusive,
}

/// The locks of all transactions at one leader.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    held: BTreeMap<TxnId, Held>,
    /// Locks on single keys.
    keys: BTreeMap<Key, Vec<(TxnId, Mode)>>,
    /// Locks on ranges; few.
    ranges: Vec<(TxnId, KeyRange, Mode)>,
    leases: BTreeMap<LeaseId, Vec<(TxnId, Mode)>>,
}

impl LockTable {
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Everybody who holds something, and what.
    pub(crate) fn holders(&self) -> impl Iterator<Item = (TxnId, &Footprint)> {
        self.held.iter().map(|(id, held)| (*id, &held.footprint))
    }

    pub(crate) fn get(&self, id: TxnId) -> Option<&Held> {
        self.held.get(&id)
    }

    /// Takes the locks; the caller has asked [`LockTable::conflicts`].
    pub(crate) fn hold(&mut self, id: TxnId, held: Held) {
        let footprint = &held.footprint;
        let shared = footprint.shared.iter().map(|range| (range, Mode::Shared));
        for (range, mode) in footprint.exclusive.iter().map(|range| (range, Mode::Exclusive)).chain(shared) {
            match range {
                KeyRange::Single(key) => self.keys.entry(key.clone()).or_default().push((id, mode)),
                range => self.ranges.push((id, range.clone(), mode)),
            }
        }
        let shared = footprint.leases_shared.iter().map(|lease| (*lease, Mode::Shared));
        let exclusive = footprint.leases_exclusive.iter().map(|lease| (*lease, Mode::Exclusive));
        for (lease, mode) in exclusive.chain(shared) {
            self.leases.entry(lease).or_default().push((id, mode));
        }
        let before = self.held.insert(id, held);
        assert!(before.is_none(), "transaction {id} holds its locks twice");
    }

    /// Gives a transaction's locks back; returns whether it held any.
    pub(crate) fn release(&mut self, id: TxnId) -> bool {
        let Some(held) = self.held.remove(&id) else { return false };
        let footprint = held.footprint;
        for range in footprint.exclusive.iter().chain(&footprint.shared) {
            if let KeyRange::Single(key) = range
                && let Some(holders) = self.keys.get_mut(key)
            {
                holders.retain(|(holder, _)| *holder != id);
                if holders.is_empty() {
                    self.keys.remove(key);
                }
            }
        }
        self.ranges.retain(|(holder, ..)| *holder != id);
        for lease in footprint.leases_exclusive.iter().chain(&footprint.leases_shared) {
            if let Some(holders) = self.leases.get_mut(lease) {
                holders.retain(|(holder, _)| *holder != id);
                if holders.is_empty() {
                    self.leases.remove(lease);
                }
            }
        }
        true
    }

    /// Whether a transaction holds something that whoever touches `footprint` has to wait for.
    pub(crate) fn conflicts(&self, footprint: &Footprint) -> bool {
        if self.held.is_empty() {
            return false;
        }
        footprint.exclusive.iter().any(|range| self.covers(range, Mode::Shared, None))
            || footprint.shared.iter().any(|range| self.covers(range, Mode::Exclusive, None))
            || footprint
                .past
                .iter()
                .any(|past| self.covers(&past.range, Mode::Exclusive, Some(past.revision)))
            || footprint.leases_exclusive.iter().any(|lease| self.leases.contains_key(lease))
            || footprint.leases_shared.iter().any(|lease| {
                self.leases
                    .get(lease)
                    .is_some_and(|held| held.iter().any(|(_, mode)| *mode == Mode::Exclusive))
            })
            || (footprint.compact.is_some()
                && self.held.values().any(|held| held.footprint.compact.is_some()))
    }

    /// Whether a read of these ranges as of `at` has to wait: a transaction that may change one of them is prepared and may have been
    /// given a revision that is not above `at`.
    pub(crate) fn hides(&self, ranges: &[KeyRange], at: Revision) -> bool {
        !self.held.is_empty() && ranges.iter().any(|range| self.covers(range, Mode::Exclusive, Some(at)))
    }

    /// Whether somebody holds a lock in this mode or a stronger one on a part of the range; with a revision, only prepared ones that may
    /// commit at it or before it count.
    fn covers(&self, range: &KeyRange, mode: Mode, at: Option<Revision>) -> bool {
        let counts = |id: &TxnId, held: Mode| {
            (held == Mode::Exclusive || mode == Mode::Shared)
                && at.is_none_or(|at| {
                    self.held.get(id).is_some_and(|held| held.is_prepared && held.floor < at)
                })
        };
        let on_keys = match range {
            KeyRange::Single(key) => {
                self.keys.get(key).is_some_and(|held| held.iter().any(|(id, mode)| counts(id, *mode)))
            }
            range => self
                .keys
                .range::<[u8], _>(range.bounds())
                .any(|(_, held)| held.iter().any(|(id, mode)| counts(id, *mode))),
        };
        on_keys || self.ranges.iter().any(|(id, held, mode)| counts(id, *mode) && overlap(range, held))
    }
}

fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    if a.is_empty() || b.is_empty() {
        return false;
    }
    starts_before_end(a, b) && starts_before_end(b, a)
}

/// Whether `a` begins before `b` ends.
fn starts_before_end(a: &KeyRange, b: &KeyRange) -> bool {
    match b.bounds().1 {
        Bound::Unbounded => true,
        Bound::Included(end) => &a.start()[..] <= end,
        Bound::Excluded(end) => &a.start()[..] < end,
    }
}

/// What somebody waits for, as if it were held: who comes later and touches it stands behind.
#[derive(Debug)]
pub struct Claim(LockTable);

impl Claim {
    /// On everything that `footprint` touches.
    pub fn new(footprint: Footprint) -> Self {
        let mut table = LockTable::default();
        let id = TxnId { home: PartitionId(0), term: Term(0), number: 0 };
        table.hold(id, Held { footprint, floor: Revision(0), is_prepared: false });
        Self(table)
    }

    /// Whether whoever touches `asked` has to wait for it.
    pub fn excludes(&self, asked: &Footprint) -> bool {
        self.0.conflicts(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn id(number: u64) -> TxnId {
        TxnId { home: PartitionId(0), term: Term(1), number }
    }

    fn range(text: &str) -> KeyRange {
        match text.split_once("..") {
            Some((start, "")) => KeyRange::From(Key::copy_from_slice(start.as_bytes())),
            Some((start, end)) => KeyRange::Between(
                Key::copy_from_slice(start.as_bytes()),
                Key::copy_from_slice(end.as_bytes()),
            ),
            None => KeyRange::Single(Key::copy_from_slice(text.as_bytes())),
        }
    }

    fn touch(exclusive: &[&str], shared: &[&str]) -> Footprint {
        let ranges = |texts: &[&str]| texts.iter().map(|text| range(text)).collect();
        Footprint { exclusive: ranges(exclusive), shared: ranges(shared), ..Footprint::default() }
    }

    #[test]
    fn locks_conflict_where_they_overlap_and_one_is_exclusive() {
        let check = |held: &Footprint, asked: &Footprint, expected: bool| {
            let mut table = LockTable::default();
            let lock = Held { footprint: held.clone(), floor: Revision(5), is_prepared: true };
            table.hold(id(1), lock);
            assert_eq!(table.conflicts(asked), expected, "{held:?} {asked:?}");
            assert_eq!(Claim::new(held.clone()).excludes(asked), expected, "{held:?} {asked:?}");
            assert!(table.release(id(1)));
            assert!(!table.conflicts(asked) && table.keys.is_empty() && table.ranges.is_empty());
        };
        for (held, asked, overlap) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a..c", "b", true),
            ("a..c", "c", false),
            ("b", "a..c", true),
            ("c", "a..c", false),
            ("a..c", "b..d", true),
            ("a..c", "c..d", false),
            ("c..", "a..c", false),
            ("c..", "a..d", true),
            ("b..a", "a..", false),
            ("x..", "y", true),
        ] {
            check(&touch(&[held], &[]), &touch(&[asked], &[]), overlap);
            check(&touch(&[held], &[]), &touch(&[], &[asked]), overlap);
            check(&touch(&[], &[held]), &touch(&[asked], &[]), overlap);
            check(&touch(&[], &[held]), &touch(&[], &[asked]), false);
        }
    }

    #[test]
    fn a_read_waits_for_what_may_have_committed_before_it_and_for_nothing_else() {
        let mut table = LockTable::default();
        let held = |floor, is_prepared| Held {
            footprint: touch(&["a"], &["s"]),
            floor: Revision(floor),
            is_prepared,
        };
        table.hold(id(1), held(5, true));
        assert!(table.hides(&[range("a")], Revision(6)) && table.hides(&[range("a..")], Revision(6)));
        assert!(!table.hides(&[range("a")], Revision(5)), "it commits above its floor");
        assert!(!table.hides(&[range("s")], Revision(6)), "a shared lock changes nothing");
        table.release(id(1));
        table.hold(id(2), held(5, false));
        assert!(!table.hides(&[range("a")], Revision(6)), "it has no revision before it is decided");
    }
}
