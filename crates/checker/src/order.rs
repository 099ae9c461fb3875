//! Real time: whoever asks after an answer was given sees at least what that answer saw (Herlihy and Wing 1990).
//!
//! Revisions are the order in which writes took effect, so this is a comparison of numbers and no search. Whatever unit times are in, no two
//! things happen at the same: only what was answered *before* something was asked bounds it.

use quorate_types::Revision;

/// A revision that somebody was told of.
#[derive(Clone, Copy, Debug)]
pub struct Sight<B> {
    /// When.
    pub answered: u64,
    /// Which.
    pub revision: Revision,
    /// By what, for who reads about it.
    pub by: B,
}

/// The newest revision that had been told of, at any time.
#[derive(Debug)]
pub struct Floors<B> {
    /// In order of time; the revisions only grow.
    newest: Vec<Sight<B>>,
}

impl<B: Copy> Floors<B> {
    /// Of everything that anybody was told.
    pub fn new(mut sights: Vec<Sight<B>>) -> Self {
        sights.sort_by_key(|sight| (sight.answered, sight.revision));
        let mut newest: Vec<Sight<B>> = Vec::new();
        for sight in sights {
            if newest.last().is_none_or(|last| last.revision < sight.revision) {
                newest.push(sight);
            }
        }
        Self { newest }
    }

    /// What had been told of when something was asked.
    pub fn at(&self, asked: u64) -> Option<&Sight<B>> {
        let before = self.newest.partition_point(|sight| sight.answered < asked);
        before.checked_sub(1).map(|at| &self.newest[at])
    }

    /// What had been told of before, although it is newer than what was seen then. A write is newer than all that was told before it.
    pub fn above(&self, asked: u64, seen: Revision, is_write: bool) -> Option<&Sight<B>> {
        self.at(asked).filter(|floor| seen < floor.revision || (is_write && seen == floor.revision))
    }

    /// When anybody was first told of this revision or a newer one.
    pub fn first_told(&self, revision: Revision) -> Option<u64> {
        let at = self.newest.partition_point(|sight| sight.revision < revision);
        self.newest.get(at).map(|sight| sight.answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_bounds_what_is_asked_later() {
        let sight = |answered, revision, by| Sight { answered, revision: Revision(revision), by };
        let floors = Floors::new(vec![sight(30, 5, 'c'), sight(10, 4, 'a'), sight(20, 3, 'b')]);
        let check = |asked, seen, is_write, expected: Option<char>| {
            let found = floors.above(asked, Revision(seen), is_write).map(|floor| floor.by);
            assert_eq!(found, expected, "asked {asked}, seen {seen}");
        };
        check(10, 1, false, None);
        check(11, 3, false, Some('a'));
        check(11, 4, false, None);
        check(11, 4, true, Some('a'));
        check(25, 3, false, Some('a'));
        check(31, 4, false, Some('c'));
        check(31, 6, true, None);
        assert_eq!(floors.first_told(Revision(2)), Some(10));
        assert_eq!(floors.first_told(Revision(5)), Some(30));
        assert_eq!(floors.first_told(Revision(6)), None);
    }
}
