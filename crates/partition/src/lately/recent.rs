//! The changes of late, by which a read is told that it was overtaken.

use quorate_types::{Key, KeyRange, Revision};
use std::collections::VecDeque;

/// Changes that a read may be overtaken by and still be kept, if they are of other keys.
const RECENT_MAX: usize = 512;
/// A change of a longer key is not remembered: no read that it may have overtaken is kept.
pub(super) const RECENT_KEY_BYTES_MAX: usize = 1_024;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// How many changes were noted.
    noted: u64,
    /// The last of them.
    changes: VecDeque<Change>,
    /// The newest revision of these,
    newest: Revision,
    /// the newest that may be missing among them,
    unseen: Revision,
    /// and the number of the last that is missing.
    dropped: u64,
}

/// A change of late: its number, when it was made, and of what.
#[derive(Debug)]
struct Change {
    number: u64,
    revision: Revision,
    key: Key,
}

/// What had been noted when a read began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

impl Recent {
    pub(super) fn mark(&self) -> Mark {
        Mark(self.noted)
    }

    /// Nothing is known of changes up to this revision.
    pub(super) fn miss(&mut self, revision: Revision) {
        self.unseen = self.unseen.max(revision);
    }

    pub(super) fn note(&mut self, key: &Key, revision: Revision) {
        self.noted += 1;
        self.newest = self.newest.max(revision);
        let mut forgotten = None;
        if key.len() > RECENT_KEY_BYTES_MAX {
            forgotten = Some((self.noted, revision));
        } else {
            let key = Key::copy_from_slice(key);
            self.changes.push_back(Change { number: self.noted, revision, key });
            if self.changes.len() > RECENT_MAX {
                forgotten = self.changes.pop_front().map(|change| (change.number, change.revision));
            }
        }
        if let Some((number, revision)) = forgotten {
            self.dropped = self.dropped.max(number);
            self.unseen = self.unseen.max(revision);
        }
    }

    /// Whether something in the range is newer than `at`, or may be.
    pub(super) fn is_overtaken(&self, range: &KeyRange, at: Revision) -> bool {
        let is_newer = |change: &Change| change.revision > at && range.contains(&change.key);
        at < self.unseen || (at < self.newest && self.changes.iter().any(is_newer))
    }

    /// Whether something in the range was applied after `mark`, or may have been.
    pub(super) fn has_changed(&self, range: &KeyRange, mark: Mark) -> bool {
        let since = self.changes.iter().rev().take_while(|change| change.number > mark.0);
        mark.0 < self.dropped || { since }.any(|change| range.contains(&change.key))
    }
}
