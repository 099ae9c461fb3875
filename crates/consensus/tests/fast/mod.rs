//! A replica whose disk and store keep up with it.

use quorate_consensus::{Consensus, Message, Raft};
use quorate_types::NodeId;

/// Everything that leaves a replica whose disk is fast.
pub(crate) fn taken(raft: &mut Raft) -> Vec<(NodeId, Message)> {
    let mut messages = Vec::new();
    loop {
        let effects = raft.take();
        let (is_written, is_applied) = (effects.persist.is_some(), !effects.apply.is_empty());
        messages.extend(effects.send_now);
        messages.extend(effects.send_after.into_iter().map(|(_, to, message)| (to, message)));
        if let Some((write, _)) = effects.persist {
            raft.persisted(write);
        }
        if let Some(last) = effects.apply.last() {
            raft.applied(last.index);
        }
        if !is_written && !is_applied {
            return messages;
        }
    }
}
