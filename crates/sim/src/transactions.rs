//! What became of transactions over partitions, counted from the entries that were applied: to see that runs meet them.

use quorate_types::{Committed, Decide, Decode, Entry, EntryKind, GroupId, Prepared, Term, TxnId, reached};
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transactions {
    /// Decided, by an entry of their home partition, with a share for another.
    pub decided: u64,
    /// Shares prepared by other partitions; a transaction may be tried more than once.
    pub prepared: u64,
    /// Of those, committed.
    pub committed: u64,
    /// Of those, given back: locks were in the way, or somebody died.
    pub aborted: u64,
    /// Of those that ended, by another leader than the one that prepared, who had to ask how it ended.
    pub inherited: u64,
}

impl Transactions {
    /// An entry of `group` was applied for the first time; `open` is what is prepared and not ended.
    pub(crate) fn note(
        &mut self,
        group: GroupId,
        entry: &Entry,
        open: &mut BTreeMap<(GroupId, TxnId), Term>,
    ) {
        let data = entry.data.clone();
        let ended = match entry.kind {
            EntryKind::Prepare => {
                if let Ok(Prepared { id, .. }) = Prepared::from_bytes(data) {
                    self.prepared += 1;
                    open.insert((group, id), entry.term);
                }
                None
            }
            EntryKind::Decide => {
                let decide = Decide::from_bytes(data);
                let has_others = matches!(decide, Ok(Decide::Commit { others, .. }) if !others.is_empty());
                self.decided += u64::from(has_others);
                None
            }
            EntryKind::Commit => {
                self.committed += 1;
                Committed::from_bytes(data).ok().map(|committed| committed.id)
            }
            EntryKind::Abort => {
                self.aborted += 1;
                TxnId::from_bytes(data).ok()
            }
            _ => None,
        };
        if let Some(term) = ended.and_then(|id| open.remove(&(group, id))) {
            let is_inherited = term != entry.term;
            reached!("committed-by-other-leader", is_inherited && entry.kind == EntryKind::Commit);
            reached!("given-back-by-other-leader", is_inherited && entry.kind == EntryKind::Abort);
            self.inherited += u64::from(is_inherited);
        }
    }
}

impl AddAssign for Transactions {
    fn add_assign(&mut self, other: Self) {
        self.decided += other.decided;
        self.prepared += other.prepared;
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.inherited += other.inherited;
    }
}
