//! A pass over the rows of a keyspace, for all its groups whose snapshots go to the same node.
//!
//! Each group's follower asks for chunk after chunk; those that have come to the same row are read for together ([`SnapshotSource::section`]), and
//! what is read for one that did not ask is put aside until it does. So that they stay together, nobody is read for while another one is behind, which is read for
//! first, and nobody while as much is put aside as may be: then the others have to ask first. One that does not do so for long goes on in a pass of its own.
//!
//! A chunk may be lost, and asked for again: it is kept until its follower asks with the cursor behind it. One that asks for anything else has begun
//! anew, and goes on in a pass of its own, too.

use quorate_mvcc::engine::{Engine, Table};
use quorate_partition::snapshot::{Bounds, Chunk, Cursor, Reading, SnapshotSource, View};
use quorate_types::{Bytes, GroupId, Position, Tick};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a pass puts aside, in full chunks: rows of one group often stand together, and the others are read past them.
const ASIDE_CHUNKS_MAX: usize = 16;
/// A pass that is further than this is not joined, also in full chunks: whoever begins is waited for meanwhile.
const JOIN_CHUNKS_MAX: usize = 128;
/// Who asks waits no longer for others: half of the time after which it gives up. A receiver's store that is behind keeps all of them from asking.
const WAIT_TICKS_MAX: u64 = 250;

/// A group and which of its snapshots, at the node that the pass is for.
pub(crate) type Name = (GroupId, Position);

/// The pass.
pub(crate) struct Pass<E: Engine> {
    pub(crate) view: Arc<View<E>>,
    pub(crate) readers: BTreeMap<Name, Reader<E>>,
    /// One section at a time.
    pub(crate) is_reading: bool,
    /// How far it is.
    pub(crate) bytes: usize,
}

/// One group's part in it.
pub(crate) struct Reader<E: Engine> {
    pub(crate) source: Arc<SnapshotSource<E>>,
    /// What the follower asked with last: it has all up to there.
    at: Option<Cursor>,
    /// What comes after that, as far as it was read.
    chunks: VecDeque<Aside>,
    /// The first of them was sent, and is kept in case it is asked for again.
    is_sent: bool,
    /// The follower waits since then.
    asking: Option<Tick>,
    /// It was read for before others since it asked, and gets what there is.
    was_read_for: bool,
    pub(crate) has_asked: bool,
    pub(crate) last_used: Tick,
}

/// A chunk that was read.
struct Aside {
    chunk: Chunk,
    bytes: usize,
}

/// What is to be done for one that asks.
pub(crate) enum Step<E: Engine> {
    /// Send it this.
    Send { after: Option<Cursor>, chunk: Chunk },
    /// Read this.
    Read(Work<E>),
    /// Nothing yet.
    Wait,
    /// Go on without those first.
    Leave(Vec<Name>),
}

/// A section to be read.
pub(crate) struct Work<E: Engine> {
    /// Before others for the first.
    pub(crate) wanted: Vec<Wanted<E>>,
    pub(crate) until: Option<Cursor>,
    pub(crate) bounds: Bounds,
}

/// Whom it is read for.
pub(crate) struct Wanted<E: Engine> {
    pub(crate) name: Name,
    pub(crate) source: Arc<SnapshotSource<E>>,
    pub(crate) after: Option<Cursor>,
    /// What it has of its next chunk.
    pub(crate) bytes: usize,
}

impl<E: Engine> Wanted<E> {
    pub(crate) fn reading(&self) -> Reading<'_, E> {
        Reading { source: &self.source, after: self.after.clone(), bytes: self.bytes }
    }
}

impl<E: Engine> Reader<E> {
    pub(crate) fn new(source: SnapshotSource<E>, now: Tick) -> Self {
        Self {
            source: Arc::new(source),
            at: None,
            chunks: VecDeque::new(),
            is_sent: false,
            asking: None,
            was_read_for: false,
            has_asked: false,
            last_used: now,
        }
    }

    /// The follower asks for what comes after `cursor`. Returns whether that is where it can be.
    pub(crate) fn ask(&mut self, cursor: Option<Cursor>, now: Tick) -> bool {
        self.last_used = now;
        self.has_asked = true;
        self.asking = self.asking.or(Some(now));
        if cursor == self.at {
            // What was sent is lost, or late.
            self.is_sent = false;
            return true;
        }
        self.was_read_for = false;
        let sent = self.chunks.front().filter(|_| self.is_sent);
        let is_next = sent.is_some_and(|sent| Some(&sent.chunk.cursor) == cursor.as_ref());
        self.is_sent = false;
        self.at = cursor;
        if is_next {
            self.chunks.pop_front();
        } else {
            self.chunks.clear();
        }
        is_next
    }

    /// Where reading goes on.
    fn cursor(&self) -> Option<&Cursor> {
        self.chunks.back().map(|aside| &aside.chunk.cursor).or(self.at.as_ref())
    }

    /// Its row, if others stand there, too.
    fn place(&self) -> Option<(Table, &Bytes)> {
        self.cursor().map(|cursor| (cursor.table, &cursor.key))
    }

    /// Whether others have nothing to do with it: it has not begun, or reads its own rows of State, or has read all.
    fn is_apart(&self) -> bool {
        !self.has_asked || self.cursor().is_some_and(|cursor| cursor.table == Table::State)
    }

    /// The chunk that is being filled: the last, unless it is sent, full, or the end.
    fn open(&mut self, chunk_bytes: usize) -> Option<&mut Aside> {
        let is_sent = self.is_sent && self.chunks.len() == 1;
        self.chunks.back_mut().filter(|last| !is_sent && last.bytes < chunk_bytes && !last.chunk.last)
    }

    /// What is kept for when it asks.
    fn aside_bytes(&self) -> usize {
        self.chunks.iter().skip(usize::from(self.is_sent)).map(|aside| aside.bytes).sum()
    }

    /// Whether the first chunk may go: nothing more would come to it, or it has waited for a section.
    fn is_ready(&mut self, chunk_bytes: usize) -> bool {
        let is_whole = self.chunks.len() > 1 || self.open(chunk_bytes).is_none();
        !self.chunks.is_empty() && (is_whole || self.was_read_for)
    }

    fn send(&mut self) -> Step<E> {
        let Some(first) = self.chunks.front() else { return Step::Wait };
        (self.is_sent, self.asking, self.was_read_for) = (true, None, false);
        Step::Send { after: self.at.clone(), chunk: first.chunk.clone() }
    }

    fn wanted(&mut self, name: Name, chunk_bytes: usize) -> Wanted<E> {
        let bytes = self.open(chunk_bytes).map_or(0, |open| open.bytes);
        Wanted { name, source: Arc::clone(&self.source), after: self.cursor().cloned(), bytes }
    }

    /// What is put aside goes; it is read again.
    fn drop_aside(&mut self) {
        self.chunks.truncate(usize::from(self.is_sent));
    }

    fn add(&mut self, after: Option<&Cursor>, chunks: Vec<Chunk>, chunk_bytes: usize) {
        // It may have begun anew meanwhile.
        if self.cursor() != after {
            return;
        }
        for chunk in chunks {
            let bytes = chunk.bytes();
            match self.open(chunk_bytes) {
                Some(open) => {
                    open.bytes += bytes;
                    open.chunk.rows.extend(chunk.rows);
                    (open.chunk.cursor, open.chunk.last) = (chunk.cursor, chunk.last);
                }
                None => self.chunks.push_back(Aside { chunk, bytes }),
            }
        }
    }
}

impl<E: Engine> Pass<E> {
    pub(crate) fn new(view: Arc<View<E>>) -> Self {
        Self { view, readers: BTreeMap::new(), is_reading: false, bytes: 0 }
    }

    /// Whether another group may join.
    pub(crate) fn is_young(&self, chunk_bytes: usize) -> bool {
        self.bytes < JOIN_CHUNKS_MAX.saturating_mul(chunk_bytes)
    }

    /// What is put aside.
    pub(crate) fn aside_bytes(&self) -> usize {
        self.readers.values().map(Reader::aside_bytes).sum()
    }

    /// What is next for this one, which asks.
    pub(crate) fn step(&mut self, name: &Name, chunk_bytes: usize, may_read: bool, now: Tick) -> Step<E> {
        let Some(reader) = self.readers.get_mut(name) else { return Step::Wait };
        if reader.is_ready(chunk_bytes) {
            return reader.send();
        }
        if self.is_reading {
            return Step::Wait;
        }
        let aside = self.aside_bytes();
        let aside_max = ASIDE_CHUNKS_MAX.saturating_mul(chunk_bytes);
        let waited_for = self.waited_for(name, aside >= aside_max);
        let is_asking = |name: &Name| self.readers.get(name).is_some_and(|other| other.asking.is_some());
        let silent: Vec<Name> = waited_for.iter().filter(|name| !is_asking(name)).copied().collect();
        let Some(reader) = self.readers.get_mut(name) else { return Step::Wait };
        if !waited_for.is_empty() {
            if reader.aside_bytes() > 0 {
                return reader.send();
            }
            let has_waited = reader.asking.is_some_and(|since| now.since(since) >= WAIT_TICKS_MAX);
            return if has_waited && !silent.is_empty() { Step::Leave(silent) } else { Step::Wait };
        }
        if !may_read {
            return Step::Wait;
        }
        self.is_reading = true;
        Step::Read(self.work(name, chunk_bytes, aside_max.saturating_sub(aside)))
    }

    /// Whom it has to wait for before anything is read for it: those behind it, or else those that have what is put aside.
    fn waited_for(&self, name: &Name, is_full: bool) -> Vec<Name> {
        let Some(reader) = self.readers.get(name).filter(|reader| !reader.is_apart()) else {
            return Vec::new();
        };
        let others = self.readers.iter().filter(|(other, _)| *other != name);
        let behind: Vec<Name> = others
            .clone()
            .filter(|(_, other)| !other.is_apart() && other.place() < reader.place())
            .map(|(name, _)| *name)
            .collect();
        if !behind.is_empty() || !is_full {
            return behind;
        }
        others.filter(|(_, other)| other.aside_bytes() > 0).map(|(name, _)| *name).collect()
    }

    /// The section for this one and those that are where it is.
    fn work(&mut self, name: &Name, chunk_bytes: usize, others_bytes: usize) -> Work<E> {
        let mut work =
            Work { wanted: Vec::new(), until: None, bounds: Bounds::new(chunk_bytes, others_bytes) };
        let Some(own) = self.readers.get_mut(name) else { return work };
        let is_apart = own.is_apart();
        work.wanted.push(own.wanted(*name, chunk_bytes));
        let place = work.wanted[0].after.clone();
        let place = place.as_ref().map(|cursor| (cursor.table, &cursor.key));
        let others = self.readers.iter_mut().filter(|(other, reader)| *other != name && !reader.is_apart());
        for (other, reader) in others.filter(|_| !is_apart) {
            if reader.place() == place {
                work.wanted.push(reader.wanted(*other, chunk_bytes));
            } else if work.until.as_ref().is_none_or(|until| reader.place() < Some((until.table, &until.key)))
            {
                work.until = reader.cursor().cloned();
            }
        }
        work
    }

    /// What was read for this one, and so many others.
    pub(crate) fn add(&mut self, wanted: &Wanted<E>, chunks: Vec<Chunk>, chunk_bytes: usize) {
        if let Some(reader) = self.readers.get_mut(&wanted.name) {
            reader.add(wanted.after.as_ref(), chunks, chunk_bytes);
        }
    }

    /// A section has ended that was read for this one before others.
    pub(crate) fn has_read(&mut self, name: &Name, bytes: usize, was_foremost: bool) {
        self.is_reading = false;
        self.bytes = self.bytes.saturating_add(if was_foremost { bytes } else { 0 });
        if let Some(reader) = self.readers.get_mut(name) {
            reader.was_read_for = reader.asking.is_some();
        }
    }

    /// This one goes on by itself.
    pub(crate) fn leave(&mut self, name: &Name) -> Option<Self> {
        let mut reader = self.readers.remove(name)?;
        reader.drop_aside();
        let mut own = Self::new(Arc::clone(&self.view));
        own.readers.insert(*name, reader);
        // Nobody joins it, wherever it is.
        own.bytes = usize::MAX;
        Some(own)
    }
}
