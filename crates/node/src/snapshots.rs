//! Snapshots as they are fetched, in chunks, by followers that fell behind the log. Who sends them: [`crate::sources`].
//!
//! The follower asks for the next chunk when it has stored the last, and asks again when none comes: a broken
//! connection costs the chunk under way, not the snapshot. While one chunk is written the next is already asked for. A chunk may hold no rows and
//! only lead on. Rows are read and written beside the host, by [`crate::errands`]. The old state is given up when the fetch
//! begins (it is of no use to anyone), and until the new one is whole this replica applies and serves
//! nothing and does not ask for votes; a crash in between is noticed at the next start. While the old rows are removed the first chunk is asked for now
//! and then, so that the snapshot is kept.

use crate::errands::{Errand, Shared};
use crate::peer::PeerMessage;
use quorate_consensus::SnapshotFetch;
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::{Chunk, Cursor, Installer};
use quorate_types::{GroupId, NodeId, Tick};

/// A pull is repeated when no chunk came for so many ticks.
const PULL_AGAIN_TICKS: u64 = 10;
/// A fetch whose old rows are still being removed says that it wants the snapshot, so many times while that is kept.
const PULLS_EARLY: u64 = 3;
/// A fetch whose sender is silent for so many pulls in a row is given up.
const PULLS_UNANSWERED_MAX: u32 = 50;
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

    /// Whether something is still to come from who sends it.
    pub(crate) fn needs_sender(&self) -> bool {
        !self.is_last_here
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
    pub(crate) fn is_overdue(&mut self, now: Tick, idle_ticks: u64) -> Result<bool, String> {
        if !self.is_cleared {
            return Ok(now.since(self.asked) >= idle_ticks / PULLS_EARLY);
        }
        let is_asking = self.needs_sender() && self.ahead.is_none();
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
        self.bytes += chunk.bytes() as u64;
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
            let position = self.fetch.meta.position;
            Errand::write(group, self.installer.clone(), self.ahead.take()?, position)
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
