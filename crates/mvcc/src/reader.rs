//! Reading the key space as of a revision.
//!
//! Versions stand newest first, so a key at a revision is the first of its rows that is not newer. A
//! key with a long history would make an iteration walk over all of it; after a few rows of one key the
//! iterator seeks instead.
//!
//! Caveat: an iteration may be made of several scans, each of a moment of its own. That is sound because
//! what a key was at a revision never changes; the one thing that can be missing is history that
//! was compacted meanwhile, so a caller checks the compacted revision again when it has what it wanted.
//!
//! The partitions of a keyspace share its rows. A key space may be limited to the slots of one of them; that steps over the
//! others' rows, so it costs reading those too, and is for the few reads that must not see them.

use crate::engine::{Read, Rows, Table};
use crate::layout::{self, ChangeKind};
use quorate_types::{
    Bytes, Changes, Event, Fault, Key, KeyRange, KeyValue, KeyspaceId, Record, Revision, Slot, SlotSet, Stamp,
};
use std::ops::Bound;

/// Rows of one key that are stepped over before the iterator seeks past the rest.
const SKIPPED_MAX: u32 = 8;
/// Changes in other slots that are stepped over before a page ends.
const OTHERS_MAX: usize = 10_000;

/// The key space of one keyspace, or what is in some of its slots.
#[derive(Debug)]
pub struct KeySpace<'a, R> {
    read: &'a R,
    keyspace: KeyspaceId,
    /// `None` is every slot.
    slots: Option<&'a SlotSet>,
}

impl<R> Clone for KeySpace<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for KeySpace<'_, R> {}

/// A part of the change feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Whole revisions, ascending.
    pub changes: Vec<Changes>,
    /// Where to go on; `None` when everything that was asked for is here.
    pub next: Option<Revision>,
}

impl<'a, R: Read> KeySpace<'a, R> {
    /// All keys of `keyspace` in this store.
    pub fn new(read: &'a R, keyspace: KeyspaceId) -> Self {
        Self { read, keyspace, slots: None }
    }

    /// Only the keys in `slots`. Whoever asks for a single key knows where it belongs, so this is about
    /// [`KeySpace::range`] and [`KeySpace::changes`].
    pub fn within(self, slots: &'a SlotSet) -> Self {
        Self { slots: Some(slots).filter(|slots| !slots.is_all()), ..self }
    }

    /// The same without that limit.
    pub fn of_all(self) -> Self {
        Self { slots: None, ..self }
    }

    fn has(&self, slot: Slot) -> bool {
        self.slots.is_none_or(|slots| slots.contains(slot))
    }

    /// The newest version of `key` at or before `at`.
    pub fn version(&self, key: &[u8], at: Revision) -> Result<Option<(Stamp, Record)>, Fault> {
        let rows = layout::version_rows_at(self.keyspace, key, at);
        let Some((row, sealed)) = self.read.first(Table::Version, rows)? else { return Ok(None) };
        let (_, stamp) =
            layout::split_version(&row).map_err(|cause| layout::damaged(Table::Version, &row, cause))?;
        Ok(Some((stamp, layout::decode(Table::Version, &row, sealed)?)))
    }

    /// `key` at `at`; `None` when it did not exist then.
    pub fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Fault> {
        Ok(match self.version(key, at)? {
            Some((stamp, Record::Value(stored))) => Some(KeyValue::new(key.clone(), stamp, stored)),
            Some((_, Record::Tombstone { .. })) | None => None,
        })
    }

    /// The keys of `range` that existed at `at`, ascending.
    pub fn range(&self, range: &KeyRange, at: Revision) -> Pairs<'a, R> {
        let (start, end) = layout::version_rows(self.keyspace, range);
        Pairs {
            space: *self,
            rows: self.read.scan(Table::Version, (start, end.clone())),
            end,
            at,
            current: Bytes::new(),
            answered: false,
            skipped: 0,
            rows_left: u64::MAX,
            is_over: false,
        }
    }

    /// The pair that a change at `modified` replaced or removed: the key right before that revision.
    /// `None` when there was none, or when `compacted` lies in between.
    pub fn previous(
        &self,
        key: &Key,
        modified: Revision,
        compacted: Option<Revision>,
    ) -> Result<Option<KeyValue>, Fault> {
        // Physical compaction happens at another time on each replica; what is forgotten is decided by
        // the logical one, so that all replicas give a watcher the same answer.
        if compacted.is_some_and(|compacted| modified.previous() < compacted) {
            return Ok(None);
        }
        self.get(key, modified.previous())
    }

    /// What changed from `from` to `through`, both included, in whole revisions; at least one if there is
    /// any, and no more after `revisions_max` of them or `bytes_max` bytes of events. Of some slots only there may be none in
    /// a page that does not reach `through`, because so much else is in between. `None` when a version
    /// is gone that a change row names: that history was compacted while it was being read.
    pub fn changes(
        &self,
        from: Revision,
        through: Revision,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Page>, Fault> {
        let mut page = Page::default();
        let (mut events, mut subs) = (Vec::<Event>::new(), Vec::new());
        let mut revision = from;
        let (mut bytes, mut others) = (0, 0);
        for row in self.read.scan(Table::Change, layout::change_rows(self.keyspace, from)) {
            let (row, sealed) = row?;
            let damaged = |cause| layout::damaged(Table::Change, &row, cause);
            let stamp = layout::split_change(&row).map_err(damaged)?;
            if stamp.revision > through {
                break;
            }
            let value = layout::open(Table::Change, &row, sealed)?;
            let (kind, slot, key) = layout::split_change_value(&value).map_err(damaged)?;
            if stamp.revision != revision {
                if !events.is_empty() {
                    let (events, subs) = (std::mem::take(&mut events), std::mem::take(&mut subs));
                    page.changes.push(Changes::part(revision, events, subs));
                }
                let is_full = page.changes.len() >= revisions_max || bytes >= bytes_max;
                if (is_full && !page.changes.is_empty()) || others >= OTHERS_MAX {
                    page.next = Some(stamp.revision);
                    return Ok(Some(page));
                }
            }
            revision = stamp.revision;
            if !self.has(slot) {
                others += 1;
                continue;
            }
            let event = match kind {
                ChangeKind::Delete => Event::Delete { key, modified: revision },
                ChangeKind::Put => {
                    let row = layout::version_row(self.keyspace, &key, stamp);
                    let Some(sealed) = self.read.get(Table::Version, &row)? else { return Ok(None) };
                    match layout::decode(Table::Version, &row, sealed)? {
                        Record::Value(stored) => Event::Put(KeyValue::new(key, stamp, stored)),
                        Record::Tombstone { .. } => {
                            let cause = quorate_types::Malformed("a put's version, which is a tombstone");
                            return Err(layout::damaged(Table::Version, &row, cause));
                        }
                    }
                }
            };
            bytes += event.size();
            events.push(event);
            subs.push(stamp.sub);
        }
        if !events.is_empty() {
            page.changes.push(Changes::part(revision, events, subs));
        }
        Ok(Some(page))
    }
}

/// The pairs of a range at a revision, ascending by key. Ends after the first error.
pub struct Pairs<'a, R> {
    space: KeySpace<'a, R>,
    rows: Rows<'a>,
    end: Bound<Bytes>,
    at: Revision,
    /// Keyspace and escaped key of the rows now passing by.
    current: Bytes,
    /// The version that counts was met; the rest of this key's rows are older.
    answered: bool,
    skipped: u32,
    /// How many more rows may be looked at.
    rows_left: u64,
    is_over: bool,
}

impl<R: Read> Pairs<'_, R> {
    /// Looks at so many rows at most, a seek past old versions counting as [`SKIPPED_MAX`] of them: a range without a pair may have any number of versions.
    pub fn at_most(self, rows: u64) -> Self {
        Self { rows_left: rows, ..self }
    }

    /// Whether it ended because it had looked at as many rows as it may, and not because there are no more pairs.
    pub fn is_cut_off(&self) -> bool {
        self.rows_left == 0
    }

    fn skip(&mut self) {
        self.skipped += 1;
        if self.skipped < SKIPPED_MAX {
            return;
        }
        self.skipped = 0;
        self.rows_left = self.rows_left.saturating_sub(SKIPPED_MAX.into());
        let start = if self.answered {
            layout::seek_past(&self.current)
        } else {
            layout::seek_at(&self.current, self.at)
        };
        // The bounds of an empty rest must stay in order: an ordered map panics on inverted ones.
        if let Bound::Excluded(end) = &self.end
            && start >= *end
        {
            self.rows = Box::new(std::iter::empty());
            return;
        }
        self.rows = self.space.read.scan(Table::Version, (Bound::Included(start), self.end.clone()));
    }

    fn step(&mut self) -> Result<Option<KeyValue>, Fault> {
        loop {
            if self.rows_left == 0 {
                return Ok(None);
            }
            let Some(row) = self.rows.next() else { return Ok(None) };
            self.rows_left -= 1;
            let (row, sealed) = row?;
            let damaged = |cause| layout::damaged(Table::Version, &row, cause);
            let (name, stamp) = layout::split_version(&row).map_err(damaged)?;
            if name != self.current {
                self.current = name;
                self.answered = false;
                self.skipped = 0;
            }
            if self.answered || stamp.revision > self.at {
                self.skip();
                continue;
            }
            self.answered = true;
            self.skipped = 0;
            if let Record::Value(stored) = layout::decode(Table::Version, &row, sealed)?
                && self.space.has(stored.slot)
            {
                let key = layout::unescape(&self.current).map_err(damaged)?;
                return Ok(Some(KeyValue::new(key, stamp, stored)));
            }
        }
    }
}

impl<R: Read> Iterator for Pairs<'_, R> {
    type Item = Result<KeyValue, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let item = self.step().transpose();
        self.is_over = !matches!(item, Some(Ok(_)));
        item
    }
}
