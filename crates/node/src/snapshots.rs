//! Snapshots: kept for followers that fell behind the log, and fetched by them in chunks.
//!
//! The leader keeps a view of its store and sends a chunk for each pull, so many bytes a tick. The
//! follower asks for the next chunk when it has stored the last, and asks again when none comes: a broken
//! connection costs the chunk under way, not the snapshot. While one chunk is written the next is already asked for. A chunk may hold no rows and
//! only lead on. Rows are read and written beside the host, by [`crate::errands`]. The old state is given up when the fetch
//! begins (it is of no use to anyone), and until the new one is whole this replica applies and serves
//! nothing and does not ask for votes; a crash in between is noticed at the next start. While the old rows are removed the first chunk is asked for now
//! and then, so that the snapshot is kept.

use crate::errands::{Errand, Shared};
use crate::peer::PeerMessage;
use quorate_consensus::SnapshotFetch;
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::{Chunk, Cursor, Installer, SnapshotSource};
use quorate_types::{GroupId, NodeId, Position, Tick};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A pull is repeated when no chunk came for so many ticks.
const PULL_AGAIN_TICKS: u64 = 10;
/// Pulls waiting for the rate limit; more are dropped and asked for again.
const PULLS_MAX: usize = 256;
/// The same while old rows are removed: it is too early then.
const PULL_EARLY_TICKS: u64 = 50;
/// A fetch whose sender is silent for so many pulls in a row is given up.
const PULLS_UNANSWERED_MAX: u32 = 50;
/// Chunks being read at a time: one is read while the one before leaves. More would only wait for each other.
const READS_MAX: usize = 2;

/// Snapshots kept for followers.
pub(crate) struct Sources<E: Engine> {
    kept: BTreeMap<(GroupId, Position), Kept<E>>,
    pulls: VecDeque<(NodeId, GroupId, Position, Option<Cursor>)>,
    /// What may be sent this tick. Less than nothing after a chunk that was larger than what was left.
    budget: i64,
    /// Chunks being read.
    reads: usize,
}

struct Kept<E: Engine> {
    source: Arc<SnapshotSource<E>>,
    wanted_by: Vec<NodeId>,
    last_used: Tick,
}

impl<E: Engine> Sources<E> {
    pub(crate) fn new() -> Self {
        Self { kept: BTreeMap::new(), pulls: VecDeque::new(), budget: 0, reads: 0 }
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
            source: Arc::new(source),
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
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.budget = self.budget.min(0).saturating_add(bytes);
    }

    /// Begins to answer pulls, as far as the rate limit allows: chunks to read, and answers that need none.
    pub(crate) fn serve(
        &mut self,
        chunk_bytes: usize,
        now: Tick,
    ) -> (Vec<Errand<E>>, Vec<(NodeId, PeerMessage)>) {
        let (mut errands, mut out) = (Vec::new(), Vec::new());
        while self.budget > 0
            && self.reads < READS_MAX
            && let Some((to, group, position, after)) = self.pulls.pop_front()
        {
            match self.kept.get_mut(&(group, position)) {
                Some(kept) => {
                    kept.last_used = now;
                    self.reads += 1;
                    let source = Arc::clone(&kept.source);
                    errands.push(Errand::read(to, group, source, after, chunk_bytes));
                }
                None => out.push((to, PeerMessage::SnapshotGone { group, position })),
            }
        }
        (errands, out)
    }

    /// A chunk has been read that [`Self::serve`] wanted.
    pub(crate) fn has_read(&mut self, chunk: Option<&Chunk>, chunk_bytes: usize) {
        self.reads -= 1;
        if let Some(chunk) = chunk {
            // One that is neither full nor the last was as much work: its rows are few among many others.
            let least = if chunk.last { 1 } else { chunk_bytes / 2 };
            let charged = i64::try_from(size(chunk).max(least)).unwrap_or(i64::MAX);
            self.budget = self.budget.saturating_sub(charged);
        }
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
    installer: Shared<E>,
    /// Where the newest chunk that came ends: the next is asked for with it.
    cursor: Option<Cursor>,
    is_last_here: bool,
    /// A chunk that came while the one before is being written.
    ahead: Option<Chunk>,
    is_cleared: bool,
    is_writing: bool,
    asked: Tick,
    unanswered: u32,
    pub(crate) bytes: u64,
}

impl<E: Engine> Fetching<E> {
    pub(crate) fn new(fetch: SnapshotFetch, installer: Installer<E>, now: Tick) -> Self {
        let (cursor, is_cleared) = (installer.cursor().cloned(), installer.is_cleared());
        Self {
            fetch,
            installer: Shared::new(installer),
            cursor,
            is_last_here: false,
            ahead: None,
            is_cleared,
            is_writing: false,
            asked: now,
            unanswered: 0,
            bytes: 0,
        }
    }

    /// The pull to send now, if there is room for what comes.
    pub(crate) fn pull(&mut self, group: GroupId, now: Tick) -> Option<(NodeId, PeerMessage)> {
        if self.is_last_here || self.ahead.is_some() {
            return None;
        }
        self.asked = now;
        let position = self.fetch.meta.position;
        let cursor = self.cursor.clone();
        Some((self.fetch.from, PeerMessage::SnapshotPull { group, position, cursor }))
    }

    /// Whether the last pull should be repeated; an error when it was in vain too often.
    pub(crate) fn is_overdue(&mut self, now: Tick) -> Result<bool, String> {
        if !self.is_cleared {
            return Ok(now.since(self.asked) >= PULL_EARLY_TICKS);
        }
        let is_asking = !self.is_last_here && self.ahead.is_none();
        if !is_asking || now.since(self.asked) < PULL_AGAIN_TICKS {
            return Ok(false);
        }
        self.unanswered += 1;
        if self.unanswered > PULLS_UNANSWERED_MAX {
            return Err(format!("{} does not send it", self.fetch.from));
        }
        Ok(true)
    }

    /// Takes a chunk; returns whether it is the one that was asked for.
    pub(crate) fn add(&mut self, after: Option<Cursor>, chunk: Chunk) -> bool {
        if !self.is_cleared || after != self.cursor || self.is_last_here || self.ahead.is_some() {
            return false;
        }
        self.unanswered = 0;
        self.bytes += size(&chunk) as u64;
        self.cursor = Some(chunk.cursor.clone());
        self.is_last_here = chunk.last;
        self.ahead = Some(chunk);
        true
    }

    /// The write to begin, if old rows are left or a chunk waits for one.
    pub(crate) fn write(&mut self, group: GroupId, clear_rows: usize) -> Option<Errand<E>> {
        if self.is_writing {
            return None;
        }
        let errand = if self.is_cleared {
            Errand::write(group, self.installer.clone(), self.ahead.take()?)
        } else {
            Errand::clear(group, self.installer.clone(), clear_rows)
        };
        self.is_writing = true;
        Some(errand)
    }

    /// Whether chunks can come.
    pub(crate) fn is_cleared(&self) -> bool {
        self.is_cleared
    }

    /// Old rows were removed, all if `is_cleared`: then chunks can come. Returns as [`Self::has_written`].
    pub(crate) fn has_cleared(&mut self, installer: &Shared<E>, is_cleared: bool) -> bool {
        let is_own = self.has_written(installer);
        self.is_cleared |= is_own && is_cleared;
        is_own
    }

    /// A write has ended; returns whether it is one of this fetch, and not of one that was given up.
    pub(crate) fn has_written(&mut self, installer: &Shared<E>) -> bool {
        let is_own = self.installer.is(installer);
        self.is_writing &= !is_own;
        is_own
    }

    /// Waits for the write under way, and lets those that have not begun do nothing.
    pub(crate) fn into_installer(self) -> Installer<E> {
        self.installer.take()
    }
}

/// About how many bytes a chunk takes.
fn size(chunk: &Chunk) -> usize {
    chunk.rows.iter().map(|row| row.key.len() + row.value.len() + 16).sum()
}
