//! What a request comes to, decided by the leader.
//!
//! Evaluating reads the state as if everything pending were applied and gives an entry that carries effects;
//! or it finds that nothing changes. A revision is drawn only in the first case. An answer is worked out
//! here too, and is sent when the entry is applied; or, if nothing changes, when all entries pending now
//! are applied and a read barrier has shown that this replica still leads.

use crate::error::ReadError;
use crate::overlay::{Ahead, LeaseFate};
use crate::partition::Partition;
use crate::range;
use crate::txn;
use crate::view::View;
use crate::writer::{Writer, Written};
use quorate_mvcc::engine::Engine;
use quorate_types::request::PutLease;
use quorate_types::{
    Answer, Bytes, Command, Effect, Encode, EntryKind, Fault, Index, Key, LeaseId, Rejection, Request,
    Revision, Tick,
};
use std::collections::BTreeSet;

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluated {
    /// This must enter the log at the index it was evaluated for; its effects already count for what is
    /// evaluated next. Answer when it is applied.
    Changes {
        /// Of the entry.
        kind: EntryKind,
        /// The encoded [`Command`].
        data: Bytes,
        /// Of the reply, which lacks only the term.
        reply: (Revision, Answer),
    },
    /// Nothing changes. Answer when what was pending at this moment is applied and leadership is confirmed.
    Unchanged {
        /// Of the reply, which lacks only the term.
        reply: (Revision, Answer),
    },
}

impl<E: Engine> Partition<E> {
    /// Evaluates `request` for the entry that will stand at `index`. With [`Evaluated::Changes`] the caller
    /// guarantees that the entry is proposed there next, or calls [`Partition::follow`].
    ///
    /// The requests that look at the clock are not for here: see [`Partition::keep_alive`],
    /// [`Partition::time_to_live`] and [`Partition::leases`]. Panics on them, and while not leading.
    pub fn evaluate(&mut self, request: &Request, index: Index) -> Result<Evaluated, ReadError> {
        let (kind, written, reply) = self.work_out(request)?;
        self.register(kind, index, written, reply)
    }

    /// Whether [`Partition::evaluate`] would draw a revision now. A guess in advance, for those that have to ask for one elsewhere: what is
    /// evaluated before the answer comes may prove it wrong. Panics while not leading.
    pub fn would_draw(&self, request: &Request) -> Result<bool, Fault> {
        match request {
            Request::Put(put) if put.value.is_some() && put.lease == PutLease::Detach => Ok(true),
            request if request.is_read_only() => Ok(false),
            Request::LeaseGrant { .. }
            | Request::LeaseKeepAlive { .. }
            | Request::LeaseTimeToLive { .. }
            | Request::Leases
            | Request::Compact { .. } => Ok(false),
            request => match self.work_out(request) {
                Ok((_, written, _)) => Ok(written.revision.is_some()),
                Err(ReadError::Rejection(_)) => Ok(false),
                Err(ReadError::Fault(fault)) => Err(fault),
            },
        }
    }

    /// What a request changes, and its answer.
    fn work_out(&self, request: &Request) -> Result<(EntryKind, Written, (Revision, Answer)), ReadError> {
        if self.no_space && needs_space(request) {
            return Err(Rejection::NoSpace.into());
        }
        let view = self.ahead();
        let mut writer = Writer::new(&view, view.overlay.revisions());
        let lease_exists = |lease| self.lease_exists(lease);
        let mut kind = EntryKind::Write;
        let answer = match request {
            Request::Range(request) => {
                let at = range::revision_asked(&view, request.revision)?;
                Answer::Range(range::answer(&view, request, at)?)
            }
            Request::Put(request) => {
                if let PutLease::Attach(lease) = request.lease
                    && !lease_exists(lease)
                {
                    return Err(Rejection::LeaseNotFound(lease).into());
                }
                Answer::Put(writer.put(request)?)
            }
            Request::DeleteRange(request) => Answer::DeleteRange(writer.delete_range(request)?),
            Request::Txn(request) => {
                let path = txn::choose(&view, request)?;
                txn::check(&view, &path, &lease_exists)?;
                Answer::Txn(txn::execute(&mut writer, &path)?)
            }
            Request::Compact { revision, physical: _ } => {
                writer.push(Effect::Compact { revision: check_compact(&view, *revision)? });
                Answer::Compact
            }
            Request::LeaseGrant { lease, ttl_seconds } => {
                kind = EntryKind::Lease;
                let asked = u64::try_from(*ttl_seconds).unwrap_or(0);
                if asked > self.limits.lease_ttl_seconds_max {
                    return Err(Rejection::LeaseTtlTooLarge.into());
                }
                if lease_exists(*lease) {
                    return Err(Rejection::LeaseExists(*lease).into());
                }
                let ttl_seconds = asked.max(self.limits.lease_ttl_seconds_min);
                writer.push(Effect::LeaseGrant { lease: *lease, ttl_seconds });
                Answer::LeaseGrant { lease: *lease, ttl_seconds }
            }
            Request::LeaseRevoke { lease } => {
                kind = EntryKind::Lease;
                if !lease_exists(*lease) {
                    return Err(Rejection::LeaseNotFound(*lease).into());
                }
                for key in self.keys_of(&view, *lease)? {
                    writer.delete(key, Some(*lease));
                }
                writer.push(Effect::LeaseRemove { lease: *lease });
                Answer::LeaseRevoke
            }
            Request::LeaseKeepAlive { .. } | Request::LeaseTimeToLive { .. } | Request::Leases => {
                panic!("{request:?} looks at the clock and is not for evaluating")
            }
        };
        let revision = writer.revision();
        Ok((kind, writer.finish(), (revision, answer)))
    }

    /// Renews `lease` as of `received`, the tick at which this node got the request. The answer has the granted
    /// time to live, or none when the lease is unknown or its end is proposed. Changes something only if the lease's
    /// remaining time was recorded since its last renewal. Panics while not leading.
    pub fn keep_alive(
        &mut self,
        lease: LeaseId,
        received: Tick,
        index: Index,
    ) -> Result<Evaluated, ReadError> {
        let view = self.ahead();
        let revision = view.revision();
        let fate = view.overlay.lease(lease);
        let answer = |ttl_seconds| (revision, Answer::LeaseKeepAlive { ttl_seconds });
        let ttl_seconds = match (fate, self.leases.row(lease)) {
            (Some(LeaseFate::Removed | LeaseFate::Copied), _)
            | (None | Some(LeaseFate::Checkpointed { .. }), None) => {
                return Ok(Evaluated::Unchanged { reply: answer(None) });
            }
            // Its time starts when the grant is applied, which this answer waits for.
            (Some(LeaseFate::Granted { ttl_seconds }), _) => {
                return Ok(Evaluated::Unchanged { reply: answer(Some(ttl_seconds)) });
            }
            (None | Some(LeaseFate::Checkpointed { .. }), Some(row)) => row.ttl_seconds,
        };
        let needs_record = match fate {
            Some(LeaseFate::Checkpointed { remaining_seconds }) => remaining_seconds < ttl_seconds,
            _ => self.leases.needs_record(lease),
        };
        let reply = answer(Some(ttl_seconds));
        let evaluated = if needs_record {
            let mut writer = Writer::new(&view, view.overlay.revisions());
            writer.push(Effect::LeaseCheckpoint { lease, remaining_seconds: ttl_seconds });
            let written = writer.finish();
            self.register(EntryKind::Lease, index, written, reply)?
        } else {
            Evaluated::Unchanged { reply }
        };
        self.leases.renew(lease, received, &self.limits);
        Ok(evaluated)
    }

    /// The remaining time of long leases, when it is time to record it. The answer is for nobody. Nothing
    /// while following.
    pub fn checkpoints(&mut self, now: Tick, index: Index) -> Result<Option<Evaluated>, ReadError> {
        if !self.is_leading() {
            return Ok(None);
        }
        let due = self.leases.due_checkpoints(now, &self.limits);
        let view = self.ahead();
        let revision = view.revision();
        let mut writer = Writer::new(&view, view.overlay.revisions());
        for (lease, remaining_seconds) in due {
            writer.push(Effect::LeaseCheckpoint { lease, remaining_seconds });
        }
        let written = writer.finish();
        if written.effects.is_empty() {
            return Ok(None);
        }
        let reply = (revision, Answer::LeaseKeepAlive { ttl_seconds: None });
        self.register(EntryKind::Lease, index, written, reply).map(Some)
    }

    /// The keys that belong to `lease` once everything pending is applied, ascending.
    pub(crate) fn keys_of(&self, view: &Ahead<'_, E>, lease: LeaseId) -> Result<BTreeSet<Key>, Fault> {
        let mut keys = BTreeSet::new();
        for key in self.leases.keys(lease).chain(view.overlay.attached(lease)) {
            if view.get(key, view.revision())?.is_some_and(|pair| pair.lease == Some(lease)) {
                keys.insert(key.clone());
            }
        }
        Ok(keys)
    }

    fn register(
        &mut self,
        kind: EntryKind,
        index: Index,
        written: Written,
        reply: (Revision, Answer),
    ) -> Result<Evaluated, ReadError> {
        if written.effects.is_empty() {
            return Ok(Evaluated::Unchanged { reply });
        }
        assert!(
            index > self.head.position.index,
            "evaluated for index {index}, and {} is applied",
            self.head.position
        );
        let mut command = Command { group: self.group, effects: written.effects };
        let data = command.encoded();
        // Before anything is registered: an entry that can be written must be one that can be sent and read.
        if data.len() > self.limits.entry_bytes_max {
            return Err(Rejection::TooLarge {
                bytes: data.len() as u64,
                bytes_max: self.limits.entry_bytes_max as u64,
            }
            .into());
        }
        for effect in &command.effects {
            if let Effect::LeaseRemove { lease } = effect {
                self.leases.ending(*lease);
            }
        }
        let effects = std::mem::take(&mut command.effects);
        if let Some(overlay) = &mut self.overlay {
            overlay.register(index, Written { effects, ..written });
        }
        Ok(Evaluated::Changes { kind, data, reply })
    }
}

/// The revision to compact to. Zero is accepted once, on a key space that was never compacted, because etcd stores
/// "never" as -1.
pub(crate) fn check_compact<V: View>(view: &V, asked: i64) -> Result<Revision, Rejection> {
    let newest = view.revision();
    let oldest = view.compacted();
    if asked <= oldest.map_or(-1, |oldest| oldest.0 as i64) {
        return Err(Rejection::Compacted { asked, oldest: oldest.unwrap_or(Revision::FIRST) });
    }
    if asked > newest.0 as i64 {
        return Err(Rejection::FutureRevision { asked, newest });
    }
    Ok(Revision(asked as u64))
}

/// What a full store refuses: the same requests as etcd. Deletes, compaction and revocation go on, or space
/// would never come back.
pub(crate) fn needs_space(request: &Request) -> bool {
    match request {
        Request::Put(_) | Request::LeaseGrant { .. } => true,
        Request::Txn(txn) => txn::has_put(txn),
        _ => false,
    }
}
