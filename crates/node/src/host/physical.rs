//! Compactions whose callers want to hear when the space is given back.
//!
//! As in etcd that is the space of the node that is asked. So this node waits, not the leader, whose answer says that the compaction is decided and applied there: when it
//! has come, the caller is answered as soon as the history is removed from the store here, which may take minutes. Who leads meanwhile makes no difference, because every node removes history at its
//! own pace. Until the leader has answered the call is one like any other, with the deadline of any other.
//!
//! Caveat: a caller who gives up is not noticed; his call is forgotten when the removal is done, or the keyspace is not here any more.

use super::Host;
use crate::effects::Ticket;
use quorate_mvcc::engine::Engine;
use quorate_types::{KeyspaceId, Rejection, Reply, Request, Revision};
use std::collections::BTreeMap;

/// Those of this node's clients.
#[derive(Default)]
pub(super) struct PhysicalCalls(BTreeMap<Ticket, Call>);

struct Call {
    keyspace: KeyspaceId,
    revision: Revision,
    /// The leader's answer, when it has come.
    reply: Option<Reply>,
}

impl<E: Engine> Host<E> {
    /// Remembers a client's request if it is one of these. False if there are too many.
    pub(super) fn note_physical(&mut self, ticket: Ticket, keyspace: KeyspaceId, request: &Request) -> bool {
        let Request::Compact { revision, physical: true } = *request else { return true };
        if self.physical.0.len() >= self.options.waiting_max {
            return false;
        }
        // One that makes no sense is refused by the leader.
        let revision = Revision(u64::try_from(revision).unwrap_or(0));
        self.physical.0.insert(ticket, Call { keyspace, revision, reply: None });
        true
    }

    /// Answers a client of this node; later, if he wants to wait for something that is not done.
    pub(super) fn reply_here(&mut self, ticket: Ticket, outcome: Result<Reply, Rejection>) {
        // Nearly always there are none.
        if !self.physical.0.is_empty()
            && let Some(call) = self.physical.0.get_mut(&ticket)
        {
            match outcome {
                Ok(reply) => {
                    call.reply = Some(reply);
                    return;
                }
                Err(_) => drop(self.physical.0.remove(&ticket)),
            }
        }
        self.out.replies.push((ticket, outcome));
    }

    /// Answers those for whom everything is removed here.
    pub(super) fn tick_physical(&mut self) {
        let is_done = |call: &Call| {
            let removed = self.physically_compacted(call.keyspace);
            call.reply.is_some()
                && (removed >= Some(call.revision) || self.groups_of(call.keyspace).next().is_none())
        };
        let calls = self.physical.0.iter().filter(|(_, call)| is_done(call));
        for ticket in calls.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            if let Some(reply) = self.physical.0.remove(&ticket).and_then(|call| call.reply) {
                self.out.replies.push((ticket, Ok(reply)));
            }
        }
    }
}
