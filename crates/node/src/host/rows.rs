//! Changing rows of the system keyspace on this node's own account: each by a transaction that finds what was read or changes nothing.

use super::Host;
use crate::effects::Ticket;
use crate::group::{Origin, Work};
use crate::peer::PeerMessage;
use quorate_mvcc::engine::Engine;
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, TxnRequest,
};
use quorate_types::{Bytes, Fault, GroupId, Key, KeyRange, Request, Revision};

/// Under this name a node asks what it wants no answer to; no client's call has it.
const UNANSWERED: Ticket = Ticket(u64::MAX);

pub(super) fn put(key: Key, value: Bytes) -> Operation {
    Operation::Put(PutRequest { key, value: Some(value), lease: PutLease::Detach, previous: false })
}

pub(super) fn delete(range: KeyRange) -> Operation {
    Operation::DeleteRange(DeleteRequest { range, previous: false })
}

/// The key was last changed by this revision; `None`: it is not there.
pub(super) fn is_as_read(key: Key, modified: Option<Revision>) -> Compare {
    let modified = modified.map_or(0, |modified| i64::try_from(modified.0).unwrap_or(i64::MAX));
    Compare {
        range: KeyRange::Single(key),
        result: CompareResult::Equal,
        target: CompareTarget::Modified(modified),
    }
}

impl<E: Engine> Host<E> {
    /// The value of a key of the system keyspace as it is applied here, and the revision that changed it last.
    pub(super) fn read_row(&self, key: &Key) -> Result<Option<(Bytes, Revision)>, Fault> {
        let found = self.scan_meta(KeyRange::Single(key.clone()))?.into_iter().next();
        Ok(found.map(|pair| (pair.value, pair.modified)))
    }

    /// Asks the meta group's leader for a change, whichever node that is. Whether it came about shows in what is applied; who wants it asks
    /// again until then.
    pub(super) fn change_rows(
        &mut self,
        compares: Vec<Compare>,
        success: Vec<Operation>,
    ) -> Result<(), Fault> {
        let request = Request::Txn(TxnRequest { compares, success, failure: Vec::new() });
        let Some(meta) = self.groups.get(&GroupId::META) else { return Ok(()) };
        if meta.is_serving {
            let deadline = self.now.after(self.options.request_ticks_max);
            let work = Work { origin: Origin::Own, request, received: self.now, deadline };
            return self.serve(GroupId::META, work);
        }
        if let Some(leader) = meta.leader.filter(|leader| *leader != self.options.id) {
            let message = PeerMessage::Request { ticket: UNANSWERED, group: GroupId::META, request };
            self.out.send.push((leader, message));
        }
        Ok(())
    }
}
