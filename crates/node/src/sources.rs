//! Snapshots kept for followers that fell behind the log.
//!
//! The leader keeps a view of its store and sends a chunk for each pull, so many bytes a tick over all groups. Groups of one keyspace that go to
//! the same node at about the same time share a view, and are read for in one pass ([`crate::pass`]).

use crate::errands::Errand;
use crate::pass::{Name, Pass, Reader, Step, Work};
use crate::peer::PeerMessage;
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::{Chunk, Cursor, Section, SnapshotSource, View};
use quorate_types::{Fault, GroupId, NodeId, Tick};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Pulls waiting; more are dropped and asked for again.
const PULLS_MAX: usize = 256;
/// Sections being read at a time: one is read while what came of the one before leaves. More would only wait for each other.
const READS_MAX: usize = 2;
/// Passes of several groups, each of which puts something aside. With more, groups are read for alone.
const SHARED_MAX: usize = 4;

/// A pass, in the order in which they began.
pub(crate) type PassId = u64;

/// Snapshots kept for followers.
pub(crate) struct Sources<E: Engine> {
    passes: BTreeMap<PassId, (NodeId, Pass<E>)>,
    next: PassId,
    /// Where each is read.
    kept: BTreeMap<(NodeId, Name), PassId>,
    /// Those that wait for a chunk, in the order in which they asked.
    asking: VecDeque<(NodeId, Name)>,
    /// What may be read this tick. Less than nothing after a section that was larger than what was left.
    budget: i64,
    /// Sections being read.
    reads: usize,
    chunk_bytes: usize,
}

impl<E: Engine> Sources<E> {
    pub(crate) fn new(chunk_bytes: usize) -> Self {
        let (passes, kept, asking) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Self { passes, next: 0, kept, asking, budget: 0, reads: 0, chunk_bytes }
    }

    /// The views that a snapshot of this group could be taken from, to be read together with what else goes to that node.
    pub(crate) fn views(&self, group: GroupId, to: NodeId) -> Vec<Arc<View<E>>> {
        let is_shared = |pass: &Pass<E>| pass.readers.len() > 1;
        let has_room = self.passes.values().filter(|(_, pass)| is_shared(pass)).count() < SHARED_MAX;
        let fitting = self.passes.values().filter(|(node, pass)| {
            *node == to
                && pass.is_young(self.chunk_bytes)
                && (has_room || is_shared(pass))
                && pass.readers.keys().all(|(other, _)| other.keyspace == group.keyspace && *other != group)
        });
        fitting.map(|(_, pass)| Arc::clone(&pass.view)).collect()
    }

    /// Keeps a snapshot for `to`, in place of an older one of the group.
    pub(crate) fn keep(&mut self, to: NodeId, source: SnapshotSource<E>, now: Tick) {
        let name = (source.group(), source.position());
        if let Some(pass) = self.pass_of(to, &name) {
            if let Some(kept) = pass.readers.get_mut(&name) {
                kept.last_used = now;
            }
            return;
        }
        self.remove(|node, (group, _)| *node == to && *group == source.group());
        let sharing = self.passes.iter().find(|(_, (node, pass))| {
            *node == to && Arc::ptr_eq(&pass.view, source.view()) && pass.is_young(self.chunk_bytes)
        });
        let id = sharing.map(|(id, _)| *id);
        let id = id.unwrap_or_else(|| self.begin(to, Pass::new(Arc::clone(source.view()))));
        if let Some((_, pass)) = self.passes.get_mut(&id) {
            pass.readers.insert(name, Reader::new(source, now));
            self.kept.insert((to, name), id);
        }
    }

    /// A follower's pull.
    pub(crate) fn pull(
        &mut self,
        from: NodeId,
        name: Name,
        cursor: Option<Cursor>,
        now: Tick,
    ) -> Option<(NodeId, PeerMessage)> {
        let chunk_bytes = self.chunk_bytes;
        let Some(pass) = self.pass_of(from, &name) else { return Some(gone(from, &name)) };
        let is_young = pass.is_young(chunk_bytes);
        let Some(reader) = pass.readers.get_mut(&name) else { return Some(gone(from, &name)) };
        let begins = !reader.has_asked;
        let is_expected = reader.ask(cursor, now);
        if !is_expected || (begins && !is_young) {
            self.leave(from, &name);
        }
        if self.asking.len() < PULLS_MAX && !self.asking.contains(&(from, name)) {
            self.asking.push_back((from, name));
        }
        None
    }

    /// A tick's worth of reading may be done.
    pub(crate) fn refill(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.budget = self.budget.min(0).saturating_add(bytes);
    }

    /// Answers pulls with what is there, and begins to read what is not, as far as the rate limit allows.
    pub(crate) fn serve(&mut self, now: Tick) -> (Vec<Errand<E>>, Vec<(NodeId, PeerMessage)>) {
        let (mut errands, mut out) = (Vec::new(), Vec::new());
        for (to, name) in std::mem::take(&mut self.asking) {
            match self.step(to, &name, now) {
                Some((_, Step::Send { after, chunk })) => {
                    let (group, position) = name;
                    out.push((to, PeerMessage::SnapshotChunk { group, position, after, chunk }));
                }
                Some((pass, Step::Read(work))) => {
                    self.reads += 1;
                    errands.push(Errand::read(pass, work));
                    self.asking.push_back((to, name));
                }
                Some((_, Step::Wait | Step::Leave(_))) => self.asking.push_back((to, name)),
                None => {}
            }
        }
        (errands, out)
    }

    fn step(&mut self, to: NodeId, name: &Name, now: Tick) -> Option<(PassId, Step<E>)> {
        let may_read = self.budget > 0 && self.reads < READS_MAX;
        let id = *self.kept.get(&(to, *name))?;
        loop {
            let (_, pass) = self.passes.get_mut(&id)?;
            match pass.step(name, self.chunk_bytes, may_read, now) {
                Step::Leave(others) => others.iter().for_each(|other| self.leave(to, other)),
                step => return Some((id, step)),
            }
        }
    }

    /// A section has been read that [`Self::serve`] wanted.
    pub(crate) fn has_read(
        &mut self,
        id: PassId,
        work: &Work<E>,
        read: Result<Section, Fault>,
    ) -> Option<(NodeId, PeerMessage)> {
        self.reads -= 1;
        // It may have been forgotten meanwhile.
        let (to, pass) = self.passes.get_mut(&id)?;
        let (to, first) = (*to, work.wanted.first()?.name);
        let Ok(section) = read else {
            pass.has_read(&first, 0, false);
            // A damaged row: this replica has nothing to send.
            self.remove(|node, name| *node == to && *name == first);
            return Some(gone(to, &first));
        };
        pass.has_read(&first, section.bytes, work.until.is_none());
        let is_last = section.chunks.first().and_then(|chunks| chunks.last()).is_some_and(|chunk| chunk.last);
        let mut bytes = 0;
        for (wanted, chunks) in work.wanted.iter().zip(section.chunks) {
            bytes += chunks.iter().map(Chunk::bytes).sum::<usize>();
            pass.add(wanted, chunks, self.chunk_bytes);
        }
        // One that gave little was as much work: its rows are few among many others.
        let least = if is_last { 1 } else { self.chunk_bytes / 2 };
        let charged = i64::try_from(bytes.max(least)).unwrap_or(i64::MAX);
        self.budget = self.budget.saturating_sub(charged);
        None
    }

    /// The group is not here any more.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.remove(|_, (kept, _)| *kept == group);
    }

    /// Drops what nobody asked for lately; says which followers it was kept for.
    pub(crate) fn drop_idle(&mut self, now: Tick, idle_ticks: u64) -> Vec<(GroupId, NodeId)> {
        let mut idle = Vec::new();
        for (to, pass) in self.passes.values() {
            let of_pass = pass.readers.iter().filter(|(_, reader)| now.since(reader.last_used) > idle_ticks);
            idle.extend(of_pass.map(|(name, _)| (*to, *name)));
        }
        self.remove(|node, name| idle.contains(&(*node, *name)));
        idle.into_iter().map(|(to, (group, _))| (group, to)).collect()
    }

    fn remove(&mut self, which: impl Fn(&NodeId, &Name) -> bool) {
        let gone: Vec<_> =
            self.kept.iter().filter(|((to, name), _)| which(to, name)).map(|(key, id)| (*key, *id)).collect();
        for ((to, name), id) in gone {
            self.kept.remove(&(to, name));
            self.asking.retain(|asking| *asking != (to, name));
            if let Some((_, pass)) = self.passes.get_mut(&id) {
                pass.readers.remove(&name);
                if pass.readers.is_empty() {
                    self.passes.remove(&id);
                }
            }
        }
    }

    fn pass_of(&mut self, to: NodeId, name: &Name) -> Option<&mut Pass<E>> {
        let id = self.kept.get(&(to, *name))?;
        self.passes.get_mut(id).map(|(_, pass)| pass)
    }

    fn begin(&mut self, to: NodeId, pass: Pass<E>) -> PassId {
        self.next += 1;
        self.passes.insert(self.next, (to, pass));
        self.next
    }

    /// From now on it is read for alone.
    fn leave(&mut self, to: NodeId, name: &Name) {
        let shared = self.pass_of(to, name).filter(|pass| pass.readers.len() > 1);
        if let Some(own) = shared.and_then(|pass| pass.leave(name)) {
            let id = self.begin(to, own);
            self.kept.insert((to, *name), id);
        }
    }
}

fn gone(to: NodeId, &(group, position): &Name) -> (NodeId, PeerMessage) {
    (to, PeerMessage::SnapshotGone { group, position })
}

#[cfg(test)]
mod tests;
