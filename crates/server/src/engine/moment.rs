//! What the tree holds at one moment, to be read without asking the tree.
//!
//! The crate keeps its list of files behind a lock, which it holds while it writes a new list to the disk and syncs it: whoever reads through the tree waits for that, some hundred
//! milliseconds where the disk is busy. So a list is taken from it whenever it has changed, and read from as long as somebody wants that moment: files of a list stay until it is dropped. The
//! list's types have no names outside their crate.

use lsm_tree::table::filter::standard_bloom::Builder as Filter;
use lsm_tree::{AbstractTree, AnyTree, InternalValue, SeqNo, Slice, Tree};
use std::ops::Bound;

/// Bounds of keys in the tree.
pub(super) type TreeRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);
type Get = dyn Fn(&[u8]) -> lsm_tree::Result<Option<Slice>> + Send + Sync;
type Found = Box<dyn DoubleEndedIterator<Item = lsm_tree::Result<InternalValue>>>;

/// The files of one moment.
pub(super) struct Moment {
    get: Box<Get>,
    rows: Box<dyn Fn(&TreeRange) -> Found + Send + Sync>,
}

impl Moment {
    /// What the tree holds now. May wait for the disk.
    pub(super) fn of(tree: &AnyTree) -> Self {
        // Should files come between these two, then all their rows stand in memory, too, until whoever brings them has taken this moment again.
        let files = tree.current_version();
        let whole = tree.get_version_history_lock().latest_version();
        let get = move |key: &[u8]| {
            let hash = Filter::get_hash(key);
            // Newest first. What is in files only is all there is: the tree's own memory is not used.
            let runs = files.iter_levels().flat_map(|level| level.iter());
            for table in runs.filter_map(|run| run.get_for_key(key)) {
                if let Some(found) = table.get(key, SeqNo::MAX, hash)? {
                    return Ok((!found.is_tombstone()).then_some(found.value));
                }
            }
            Ok(None)
        };
        let rows = move |range: &TreeRange| -> Found {
            Box::new(Tree::create_internal_range(whole.clone(), range, SeqNo::MAX, None))
        };
        Self { get: Box::new(get), rows: Box::new(rows) }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> lsm_tree::Result<Option<Slice>> {
        (self.get)(key)
    }

    /// What a range holds.
    pub(super) fn rows(&self, range: &TreeRange) -> Found {
        (self.rows)(range)
    }
}
