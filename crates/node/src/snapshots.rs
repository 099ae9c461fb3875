//! Snapshots: kept for followers that fell behind the log, and fetched by them in chunks.
//!
//! The leader keeps a view of its store and sends a chunk for each pull, so many bytes a tick. The
//! follower asks for the next chunk when it has stored the last, and asks again when none comes: a broken
//! connection costs the chunk under way, not the snapshot. A chunk may hold no rows and only lead on. The old state is given up when the fetch
//! begins (it is of no use to anyone), and until the new one is whole this replica applies and serves
//! nothing and does not ask for votes; a crash in between is noticed at the next start.

use crate::peer::PeerMessage;
use quorate_consensus::SnapshotFetch;
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::{Chunk, Cursor, InstallError, Installer, SnapshotSource};
use quorate_types::{Fault, GroupId, NodeId, Position, Tick};
use std::collections::{BTreeMap, VecDeque};

/// A pull is repeated when no chunk came for so many ticks.
const PULL_AGAIN_TICKS: u64 = 10;
/// Pulls waiting for the rate limit; more are dropped and asked for again.
const PULLS_MAX: usize = 256;
/// A fetch whose sender is silent for so many pulls in a row is given up.
const PULLS_UNANSWERED_MAX: u32 = 50;

/// Snapshots kept for followers.
pub(crate) struct Sources<E: Engine> {
    kept: BTreeMap<(GroupId, Position), Kept<E>>,
    pulls: VecDeque<(NodeId, GroupId, Position, Option<Cursor>)>,
    budget: usize,
}

struct Kept<E: Engine> {
    source: SnapshotSource<E>,
    wanted_by: Vec<NodeId>,
    last_used: Tick,
}

impl<E: Engine> Sources<E> {
    pub(crate) fn new() -> Self {
        Self { kept: BTreeMap::new(), pulls: VecDeque::new(), budget: 0 }
    }

    /// Keeps a snapshot for `to`, or shares one that is kept already at the same position.
    pub(crate) fn keep(
        &mut self,
        group: GroupId,
        to: NodeId,
        source: SnapshotSource<E>,
        now: Tick,
    ) -> Position {
        let position = source.position();
        let kept = self.kept.entry((group, position)).or_insert(Kept {
            source,
            wanted_by: Vec::new(),
            last_used: now,
        });
        kept.last_used = now;
        if !kept.wanted_by.contains(&to) {
            kept.wanted_by.push(to);
        }
        position
    }

    /// Queues a follower's pull.
    pub(crate) fn pull(&mut self, from: NodeId, group: GroupId, position: Position, cursor: Option<Cursor>) {
        let pull = (from, group, position, cursor);
        if self.pulls.len() < PULLS_MAX && !self.pulls.contains(&pull) {
            self.pulls.push_back(pull);
        }
    }

    /// A tick's worth of sending may be used.
    pub(crate) fn refill(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// Answers pulls as far as the rate limit allows.
    pub(crate) fn serve(&mut self, chunk_bytes: usize, now: Tick) -> Vec<(NodeId, PeerMessage)> {
        let mut out = Vec::new();
        while self.budget > 0
            && let Some((to, group, position, after)) = self.pulls.pop_front()
        {
            let chunk = self.kept.get_mut(&(group, position)).and_then(|kept| {
                kept.last_used = now;
                kept.source.chunk(after.clone(), chunk_bytes).ok()
            });
            out.push((
                to,
                match chunk {
                    Some(chunk) => {
                        // One that is neither full nor the last was as much work: its rows are few among many others.
                        let least = if chunk.last { 1 } else { chunk_bytes / 2 };
                        self.budget = self.budget.saturating_sub(size(&chunk).max(least));
                        PeerMessage::SnapshotChunk { group, position, after, chunk }
                    }
                    None => PeerMessage::SnapshotGone { group, position },
                },
            ));
        }
        out
    }

    /// The group is not here any more.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.kept.retain(|(kept, _), _| *kept != group);
        self.pulls.retain(|(_, pulled, ..)| *pulled != group);
    }

    /// Drops what nobody asked for lately; says which followers it was kept for.
    pub(crate) fn drop_idle(&mut self, now: Tick, idle_ticks: u64) -> Vec<(GroupId, NodeId)> {
        let mut dropped = Vec::new();
        self.kept.retain(|(group, _), kept| {
            let is_idle = now.since(kept.last_used) > idle_ticks;
            if is_idle {
                dropped.extend(kept.wanted_by.iter().map(|node| (*group, *node)));
            }
            !is_idle
        });
        dropped
    }
}

/// A snapshot being fetched.
pub(crate) struct Fetching<E: Engine> {
    pub(crate) fetch: SnapshotFetch,
    installer: Installer<E>,
    asked: Tick,
    unanswered: u32,
    pub(crate) bytes: u64,
}

/// How a fetch goes on.
pub(crate) enum Step {
    /// Ask for the next chunk.
    Pull,
    /// All rows are there.
    Complete,
    /// Not the chunk that was asked for.
    Ignore,
    /// It cannot be used.
    Failed(String),
}

impl<E: Engine> Fetching<E> {
    pub(crate) fn new(fetch: SnapshotFetch, installer: Installer<E>, now: Tick) -> Self {
        Self { fetch, installer, asked: now, unanswered: 0, bytes: 0 }
    }

    /// The pull to send now.
    pub(crate) fn pull(&mut self, group: GroupId, now: Tick) -> (NodeId, PeerMessage) {
        self.asked = now;
        let position = self.fetch.meta.position;
        let cursor = self.installer.cursor().cloned();
        (self.fetch.from, PeerMessage::SnapshotPull { group, position, cursor })
    }

    /// Whether the last pull should be repeated; an error when it was in vain too often.
    pub(crate) fn is_overdue(&mut self, now: Tick) -> Result<bool, String> {
        if now.since(self.asked) < PULL_AGAIN_TICKS {
            return Ok(false);
        }
        self.unanswered += 1;
        if self.unanswered > PULLS_UNANSWERED_MAX {
            return Err(format!("{} does not send it", self.fetch.from));
        }
        Ok(true)
    }

    /// Takes a chunk.
    pub(crate) fn add(&mut self, after: Option<Cursor>, chunk: Chunk) -> Result<Step, Fault> {
        if after.as_ref() != self.installer.cursor() || self.installer.is_complete() {
            return Ok(Step::Ignore);
        }
        self.unanswered = 0;
        self.bytes += size(&chunk) as u64;
        match self.installer.add(chunk) {
            Err(InstallError::Fault(fault)) => Err(fault),
            Err(error @ InstallError::Mismatch(_)) => Ok(Step::Failed(error.to_string())),
            Ok(()) if self.installer.is_complete() => Ok(Step::Complete),
            Ok(()) => Ok(Step::Pull),
        }
    }

    pub(crate) fn into_installer(self) -> Installer<E> {
        self.installer
    }
}

/// About how many bytes a chunk takes.
fn size(chunk: &Chunk) -> usize {
    chunk.rows.iter().map(|row| row.key.len() + row.value.len() + 16).sum()
}
