//! The write-ahead log: one for all groups of a node, so that one fdatasync serves all that is queued.
//!
//! ```text
//! segment: NNNNNNNNNNNNNNNN.log, made full of zeros so that syncing does not change the file's size
//!   0   8  magic "QUORWAL\0"
//!   8   4  format version, LE         12  4  CRC32C of bytes 0..12 and 16..40, LE
//!  16   8  identity of the owner     24  8  sequence number of the segment
//!  32   8  where the segment before ended
//!  40      frames, each at a multiple of 8:
//!   0   4  length of the payload; 0 is the end
//!   4   4  CRC32C of what follows, begun with identity, sequence number and the frame's own offset
//!   8   8  sequence number, 16  8  offset: everything before this place was durable when the frame was written
//!  24      payload: a list of (group, LogWrite)
//! mark: behind the last frame, a frame's header with length 0; the next frame overwrites it
//! ```
//!
//! Rules:
//! * A frame that does not check out is a torn tail if no later frame, or mark, claims that its place was durable
//!   already: then the log ends there, and what lies behind is zeroed. If one does, committed data is
//!   damaged: the log is not opened.
//! * A mark is written after each sync and not synced itself: a process that dies leaves it, and so does a machine after a while.
//! * Bytes of another segment, another place or another node never pass, because the checksum covers all three.
//! * A segment begins with a frame that says where every group stands, so older segments can go once
//!   nothing in them is needed.
//! * A group that is removed ([`LogWrite::removal`]) is not named again, and pins no segment. Segments go oldest first, so the
//!   removal outlives what it removes.
//! * After the first error nothing more is written: what reached the disk is unknown. The next start writes what it reads of the newest
//!   segment again before it counts: a system that could not write it may have it in memory, and say that it is written.
//!
//! Caveat: damage to the last frame in the moments after it was synced, together with a failure of the power that takes the mark, looks like a torn
//! tail. Only the peers could tell.

use crate::disk::Disk;
use quorate_consensus::Recovered;
use quorate_types::codec::{Decode, Encode};
use quorate_types::{
    Bytes, Entry, Fault, GroupId, HardState, Index, LogWrite, Position, crash_point, reached,
};
use std::collections::BTreeMap;
use std::io;

const MAGIC: [u8; 8] = *b"QUORWAL\0";
/// Of the layout above.
pub const FORMAT: u32 = 1;
const HEADER: usize = 40;
const FRAME_HEADER: usize = 24;

/// The log's numbers.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// Size of a segment; one that begins with a larger frame is larger.
    pub segment_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20 }
    }
}

/// Why the log was not opened. Nothing was changed.
#[derive(Debug)]
pub enum OpenError {
    /// The disk refused.
    Io {
        /// What was tried.
        doing: String,
        /// What it said.
        cause: io::Error,
    },
    /// A later version wrote it.
    Newer {
        /// The segment.
        file: String,
        /// Its format.
        found: u32,
    },
    /// It is another node's.
    Foreign {
        /// The segment.
        file: String,
    },
    /// What is there checks out and makes no sense, or files are missing: not what a disk does.
    Senseless {
        /// The segment.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// Data that was durable is damaged: checksums say so.
    Corrupt {
        /// The segment.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { doing, cause } => write!(f, "{doing}: {cause}"),
            Self::Newer { file, found } => {
                write!(
                    f,
                    "{file} has format {found}, this program knows formats up to {FORMAT}; use a newer one"
                )
            }
            Self::Foreign { file } => write!(f, "{file} was written by another node"),
            Self::Senseless { file, offset, what } => write!(
                f,
                "{file} makes no sense at byte {offset}, and nothing in it is damaged: {what}. Another program may have written it, or a file may be missing; \
                 nothing was changed. If this is not to be cleared up and the cluster has other nodes, move the data directory away and start the node \
                 with an empty one: it is filled from them"
            ),
            Self::Corrupt { file, offset, what } => write!(
                f,
                "{file} is damaged at byte {offset}: {what}. What was durable there is lost on this node. The others \
                 go on without it. If there are others, move the data directory away and start the node with an empty one: it \
                 is filled from them"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// What was found in one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its name.
    pub file: String,
    /// Valid frames.
    pub frames: u64,
    /// Bytes up to the end of the last one.
    pub bytes: u64,
    /// First and last index of each group's entries.
    pub groups: BTreeMap<GroupId, (Index, Index)>,
    /// Where a torn tail was cut, and how much non-zero data lay behind.
    pub torn: Option<(u64, u64)>,
}

/// What was found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Oldest first.
    pub segments: Vec<SegmentReport>,
}

/// A place in the log: segment, then byte.
type Place = (u64, u64);

#[derive(Clone, Debug, Default)]
struct Segment {
    name: String,
    bytes: u64,
    /// The last index of each group's entries in it.
    newest: BTreeMap<GroupId, Index>,
}

/// The log of a node.
#[derive(Debug)]
pub struct Wal<D> {
    disk: D,
    identity: u64,
    options: WalOptions,
    /// By sequence number; the last is written to.
    segments: BTreeMap<u64, Segment>,
    /// Where each group stands, for the first frame of the next segment.
    groups: BTreeMap<GroupId, (HardState, Position)>,
    offset: u64,
    durable: Place,
    buffer: Vec<u8>,
    is_poisoned: bool,
}

struct Frame {
    end: usize,
    payload: Bytes,
}

/// What reading all segments gave.
struct Reading {
    groups: BTreeMap<GroupId, Recovered>,
    segments: BTreeMap<u64, Segment>,
    report: OpenReport,
    /// Of the last segment: where frames end, and whether anything lies behind.
    end: Option<(u64, u64, bool)>,
    /// The frames of that segment, header and all, as they were checked.
    newest: Bytes,
    /// A last segment whose making was not finished.
    unfinished: Option<String>,
}

impl<D: Disk> Wal<D> {
    /// Opens the log, making it if there is none, and gives what each group had in it.
    pub fn open(
        mut disk: D,
        identity: u64,
        options: WalOptions,
    ) -> Result<(Self, BTreeMap<GroupId, Recovered>, OpenReport), OpenError> {
        let reading = read_all(&disk, identity)?;
        crash_point("log.open.read");
        let io = |doing: &str| {
            let doing = doing.to_owned();
            move |cause| OpenError::Io { doing, cause }
        };
        if let Some(name) = &reading.unfinished {
            reached!("unfinished-segment-removed");
            disk.remove(name).map_err(io("removing an unfinished segment"))?;
            crash_point("log.open.unfinished_removed");
            disk.sync_directory().map_err(io("removing an unfinished segment"))?;
        }
        let groups = reading
            .groups
            .iter()
            .map(|(group, recovered)| (*group, (recovered.hard_state, recovered.start)))
            .collect();
        let mut wal = Self {
            disk,
            identity,
            options,
            segments: reading.segments,
            groups,
            offset: 0,
            durable: (0, 0),
            buffer: Vec::new(),
            is_poisoned: false,
        };
        match reading.end {
            None => wal.rotate().map_err(io("making the first segment"))?,
            Some((sequence, end, has_rest)) => {
                let name = wal.segments[&sequence].name.clone();
                if has_rest {
                    // What lies behind must never be taken for frames later on.
                    let length = wal.segments[&sequence].bytes.saturating_sub(end);
                    let zeros = vec![0; length as usize];
                    wal.disk.write_at(&name, end, &zeros).map_err(io("clearing a torn tail"))?;
                    crash_point("log.open.tail_cleared");
                }
                // What was read is relied on from now on, so it must be durable, too. After a sync that failed in an earlier life the
                // system may have it in memory only and count it as written, so a sync alone would not write it.
                wal.disk
                    .write_at(&name, 0, &reading.newest)
                    .map_err(io("writing the newest segment again"))?;
                crash_point("log.open.rewritten");
                wal.disk.sync(&name).map_err(io("syncing the newest segment"))?;
                crash_point("log.open.synced");
                // The process may have died between the two, and left a name that only the system knows.
                wal.disk.sync_directory().map_err(io("syncing the log's folder"))?;
                crash_point("log.open.named");
                wal.offset = end;
                wal.durable = (sequence, end);
                wal.mark().map_err(io("marking the end of the log"))?;
                crash_point("log.open.marked");
            }
        }
        Ok((wal, reading.groups, reading.report))
    }

    /// Appends a batch as one frame. Not durable before [`Wal::sync`].
    pub fn append(&mut self, writes: &[(GroupId, LogWrite)]) -> Result<(), Fault> {
        self.checked("appending to the log", |wal| {
            if writes.is_empty() {
                return Ok(());
            }
            wal.fill(writes)?;
            let current = wal.segments.last_key_value().map_or(0, |(_, segment)| segment.bytes);
            if wal.offset + wal.buffer.len() as u64 > current {
                reached!("rotated-with-unsynced", wal.durable != (wal.sequence(), wal.offset));
                wal.sync_current()?;
                wal.rotate()?;
                wal.fill(writes)?;
            }
            crash_point("log.frame.ready");
            wal.put_frame()?;
            crash_point("log.frame.written");
            wal.note(writes);
            Ok(())
        })
    }

    /// Makes everything appended durable, and removes old segments that nothing needs any more.
    pub fn sync(&mut self) -> Result<(), Fault> {
        self.checked("syncing the log", Self::sync_current)?;
        self.checked("removing old segments", Self::reclaim)
    }

    /// The groups that keep the oldest segment from going, when the log is larger than `bytes_max`.
    pub fn pinned(&self, bytes_max: u64) -> Vec<GroupId> {
        if self.bytes() <= bytes_max {
            return Vec::new();
        }
        reached!("segment-pinned");
        let Some((_, oldest)) = self.segments.first_key_value() else { return Vec::new() };
        self.needing(oldest).collect()
    }

    /// Bytes that the newest segment still takes.
    pub fn room(&self) -> u64 {
        let bytes = self.segments.last_key_value().map_or(0, |(_, segment)| segment.bytes);
        bytes.saturating_sub(self.offset)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    fn checked(&mut self, doing: &str, work: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<(), Fault> {
        if self.is_poisoned {
            return Err(Fault::new(doing, "an earlier write failed, so nothing more is written"));
        }
        work(self).map_err(|cause| {
            reached!("log-poisoned");
            self.is_poisoned = true;
            Fault::new(doing, cause)
        })
    }

    fn sequence(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    /// Lays a frame out in the buffer, for the current place.
    fn fill(&mut self, writes: &[(GroupId, LogWrite)]) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.resize(FRAME_HEADER, 0);
        writes.encode(&mut self.buffer);
        let length = u32::try_from(self.buffer.len() - FRAME_HEADER)
            .map_err(|_| io::Error::other("a batch of over 4 GiB"))?;
        self.buffer[..4].copy_from_slice(&length.to_le_bytes());
        self.buffer[8..16].copy_from_slice(&self.durable.0.to_le_bytes());
        self.buffer[16..24].copy_from_slice(&self.durable.1.to_le_bytes());
        let seed = seed(self.identity, self.sequence(), self.offset);
        let checksum = crc32c::crc32c_append(seed, &self.buffer[8..]);
        self.buffer[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.buffer.resize(self.buffer.len().next_multiple_of(8), 0);
        Ok(())
    }

    fn put_frame(&mut self) -> io::Result<()> {
        let Some(segment) = self.segments.last_entry() else {
            return Err(io::Error::other("there is no segment"));
        };
        self.disk.write_at(&segment.get().name, self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        Ok(())
    }

    fn note(&mut self, writes: &[(GroupId, LogWrite)]) {
        for (group, write) in writes {
            if write.is_removal() {
                self.groups.remove(group);
                for segment in self.segments.values_mut() {
                    segment.newest.remove(group);
                }
                continue;
            }
            let (hard_state, start) = self.groups.entry(*group).or_default();
            *hard_state = write.hard_state.unwrap_or(*hard_state);
            if let Some(position) = write.restart.into_iter().chain(write.compact).max_by_key(|at| at.index) {
                *start = if write.restart.is_some() { position } else { position.max(*start) };
            }
            if let Some(last) = write.entries.last() {
                let Some(mut segment) = self.segments.last_entry() else { continue };
                let newest = segment.get_mut().newest.entry(*group).or_default();
                *newest = (*newest).max(last.index);
            }
        }
    }

    fn sync_current(&mut self) -> io::Result<()> {
        if let Some((sequence, segment)) = self.segments.last_key_value() {
            self.disk.sync(&segment.name)?;
            crash_point("log.frame.synced");
            self.durable = (*sequence, self.offset);
            self.mark()?;
            crash_point("log.frame.marked");
        }
        Ok(())
    }

    /// Says behind the last frame that it was durable, which nothing else vouches for yet.
    fn mark(&mut self) -> io::Result<()> {
        let Some((sequence, segment)) = self.segments.last_key_value() else { return Ok(()) };
        if self.offset + FRAME_HEADER as u64 > segment.bytes {
            return Ok(());
        }
        let mut mark = [0; FRAME_HEADER];
        mark[8..16].copy_from_slice(&self.durable.0.to_le_bytes());
        mark[16..24].copy_from_slice(&self.durable.1.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed(self.identity, *sequence, self.offset), &mark[8..]);
        mark[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.disk.write_at(&segment.name, self.offset, &mark)
    }

    /// Begins a segment. Everything before must be durable.
    fn rotate(&mut self) -> io::Result<()> {
        crash_point("log.segment.wanted");
        let previous_end = self.offset;
        let sequence = self.sequence() + 1;
        let name = format!("{sequence:016x}.log");
        let states: Vec<(GroupId, LogWrite)> = self
            .groups
            .iter()
            .map(|(group, (hard_state, start))| {
                let write =
                    LogWrite { hard_state: Some(*hard_state), compact: Some(*start), ..LogWrite::default() };
                (*group, write)
            })
            .collect();
        let next_frame = self.buffer.len() as u64;
        self.segments.insert(sequence, Segment { name: name.clone(), ..Segment::default() });
        self.offset = HEADER as u64;
        self.fill(&states)?;
        let needed = HEADER as u64 + self.buffer.len() as u64 + next_frame;
        let bytes = self.options.segment_bytes.max(needed);
        self.disk.create(&name, bytes)?;
        crash_point("log.segment.created");
        self.disk.write_at(&name, 0, &header(self.identity, sequence, previous_end))?;
        crash_point("log.segment.headed");
        self.put_frame()?;
        crash_point("log.segment.begun");
        self.disk.sync(&name)?;
        crash_point("log.segment.synced");
        self.disk.sync_directory()?;
        crash_point("log.segment.named");
        if let Some(segment) = self.segments.get_mut(&sequence) {
            segment.bytes = bytes;
        }
        self.durable = (sequence, self.offset);
        self.mark()?;
        crash_point("log.segment.marked");
        Ok(())
    }

    fn needing<'a>(&'a self, segment: &'a Segment) -> impl Iterator<Item = GroupId> + 'a {
        let is_needed = |(group, newest): &(&GroupId, &Index)| {
            self.groups.get(group).is_none_or(|(_, start)| start.index < **newest)
        };
        segment.newest.iter().filter(is_needed).map(|(group, _)| *group)
    }

    fn reclaim(&mut self) -> io::Result<()> {
        while self.segments.len() > 1
            && let Some((sequence, segment)) = self.segments.first_key_value()
            && self.needing(segment).next().is_none()
            // What lets it go must be durable first: the compaction is in frames that may not be synced yet.
            && self.durable == (self.sequence(), self.offset)
        {
            reached!("segment-removed");
            let (sequence, name) = (*sequence, segment.name.clone());
            crash_point("log.cut.segment_needless");
            self.disk.remove(&name)?;
            crash_point("log.cut.segment_removed");
            self.segments.remove(&sequence);
            // One after the other: a crash must not leave an older segment with a newer one gone.
            self.disk.sync_directory()?;
            crash_point("log.cut.segment_gone");
        }
        Ok(())
    }
}

/// Reads a stopped node's log without changing it.
pub fn inspect<D: Disk>(disk: &D, identity: u64) -> Result<OpenReport, OpenError> {
    read_all(disk, identity).map(|reading| reading.report)
}

fn seed(identity: u64, sequence: u64, offset: u64) -> u32 {
    let mut place = [0; 24];
    place[..8].copy_from_slice(&identity.to_le_bytes());
    place[8..16].copy_from_slice(&sequence.to_le_bytes());
    place[16..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c(&place)
}

fn header(identity: u64, sequence: u64, previous_end: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[16..24].copy_from_slice(&identity.to_le_bytes());
    header[24..32].copy_from_slice(&sequence.to_le_bytes());
    header[32..40].copy_from_slice(&previous_end.to_le_bytes());
    let checksum = header_checksum(&header);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn header_checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..HEADER])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The frame at `at`, if a valid one is there.
fn frame_at(bytes: &Bytes, at: usize, identity: u64, sequence: u64) -> Option<Frame> {
    if at + FRAME_HEADER > bytes.len() {
        return None;
    }
    let length = u32_at(bytes, at) as usize;
    let end = at.checked_add(FRAME_HEADER)?.checked_add(length)?;
    if length == 0 || end > bytes.len() {
        return None;
    }
    let checksum = crc32c::crc32c_append(seed(identity, sequence, at as u64), &bytes[at + 8..end]);
    (checksum == u32_at(bytes, at + 4))
        .then(|| Frame { end: end.next_multiple_of(8), payload: bytes.slice(at + FRAME_HEADER..end) })
}

/// Whether a valid mark is at `at`.
fn mark_at(bytes: &Bytes, at: usize, identity: u64, sequence: u64) -> bool {
    let Some(mark) = at.checked_add(FRAME_HEADER).and_then(|end| bytes.get(at..end)) else { return false };
    let checksum = crc32c::crc32c_append(seed(identity, sequence, at as u64), &mark[8..]);
    u32_at(mark, 0) == 0 && u32_at(mark, 4) == checksum
}

fn read_all<D: Disk>(disk: &D, identity: u64) -> Result<Reading, OpenError> {
    let io = |doing: String| move |cause| OpenError::Io { doing, cause };
    let mut names: Vec<(u64, String)> = disk
        .list()
        .map_err(io("listing the log's files".into()))?
        .into_iter()
        .filter_map(|name| Some((u64::from_str_radix(name.strip_suffix(".log")?, 16).ok()?, name)))
        .collect();
    names.sort();
    let mut unfinished = None;
    if let Some((sequence, name)) = names.last() {
        let bytes = Bytes::from(disk.read(name).map_err(io(format!("reading {name}")))?);
        if !has_header(&bytes) {
            // Nothing was ever acknowledged from a segment that was not finished; and every frame behind its
            // first says that the first was durable.
            if vouched_from(&bytes, HEADER - 8, identity, *sequence) {
                reached!("damaged-header-told");
                let what = "the segment's header does not check out".to_owned();
                return Err(OpenError::Corrupt { file: name.clone(), offset: 0, what });
            }
            unfinished = names.pop().map(|(_, name)| name);
        } else if u32_at(&bytes, 8) <= FORMAT
            && u64_at(&bytes, 16) == identity
            && frame_at(&bytes, HEADER, identity, *sequence).is_none()
        {
            // Its making was cut short behind the header. Without its first frame it does not say where groups stand that are idle.
            if vouched_from(&bytes, HEADER, identity, *sequence) {
                reached!("damaged-first-frame-told");
                let what = "the segment's first frame does not check out".to_owned();
                return Err(OpenError::Corrupt { file: name.clone(), offset: HEADER as u64, what });
            }
            unfinished = names.pop().map(|(_, name)| name);
        }
    }
    let mut reading = Reading {
        groups: BTreeMap::new(),
        segments: BTreeMap::new(),
        report: OpenReport::default(),
        end: None,
        newest: Bytes::new(),
        unfinished,
    };
    let mut gaps: BTreeMap<GroupId, u64> = BTreeMap::new();
    let newest = names.last().map(|(sequence, _)| *sequence);
    let mut before: Option<(u64, String, u64)> = None;
    for (sequence, name) in names {
        let bytes = Bytes::from(disk.read(&name).map_err(io(format!("reading {name}")))?);
        let corrupt = |offset: usize, what: &str| OpenError::Corrupt {
            file: name.clone(),
            offset: offset as u64,
            what: what.to_owned(),
        };
        let senseless = |offset: usize, what: &str| OpenError::Senseless {
            file: name.clone(),
            offset: offset as u64,
            what: what.to_owned(),
        };
        let is_newest = newest == Some(sequence);
        if !has_header(&bytes) {
            return Err(corrupt(0, "the segment's header does not check out"));
        }
        if u32_at(&bytes, 8) > FORMAT {
            return Err(OpenError::Newer { file: name, found: u32_at(&bytes, 8) });
        }
        if u64_at(&bytes, 16) != identity {
            return Err(OpenError::Foreign { file: name });
        }
        if u64_at(&bytes, 24) != sequence {
            return Err(senseless(24, "the segment has another number than its name"));
        }
        if let Some((last, last_name, end)) = &before {
            if *last + 1 != sequence {
                return Err(senseless(0, "the segment before it is missing"));
            }
            if u64_at(&bytes, 32) != *end {
                reached!("damage-in-older-segment");
                return Err(OpenError::Corrupt {
                    file: last_name.clone(),
                    offset: *end,
                    what: "frames are missing or damaged from there on, and the next segment exists".into(),
                });
            }
        }
        let mut segment = Segment { name: name.clone(), bytes: bytes.len() as u64, ..Segment::default() };
        let mut report = SegmentReport { file: name.clone(), ..SegmentReport::default() };
        let mut at = HEADER;
        while let Some(frame) = frame_at(&bytes, at, identity, sequence) {
            let writes = Vec::<(GroupId, LogWrite)>::from_bytes(frame.payload)
                .map_err(|error| senseless(at, &error.to_string()))?;
            for (group, write) in writes {
                if let (Some(first), Some(last)) = (write.entries.first(), write.entries.last()) {
                    let newest = segment.newest.entry(group).or_default();
                    *newest = (*newest).max(last.index);
                    let span = report.groups.entry(group).or_insert((first.index, last.index));
                    *span = (span.0.min(first.index), span.1.max(last.index));
                }
                if write.is_removal() {
                    reached!("removed-group-read");
                    // The segments before go first, so what is removed here cannot come up again.
                    reading.groups.remove(&group);
                    gaps.remove(&group);
                    segment.newest.remove(&group);
                    for earlier in reading.segments.values_mut() {
                        earlier.newest.remove(&group);
                    }
                    continue;
                }
                let recovered = reading.groups.entry(group).or_default();
                match fold(recovered, write, gaps.contains_key(&group)).map_err(|what| senseless(at, what))? {
                    Fold::Whole => gaps.remove(&group),
                    Fold::Gap => gaps.insert(group, at as u64),
                };
            }
            report.frames += 1;
            at = frame.end;
        }
        report.bytes = at as u64;
        if is_newest {
            let is_marked = mark_at(&bytes, at, identity, sequence);
            let rest = &bytes[(at + if is_marked { FRAME_HEADER } else { 0 }).min(bytes.len())..];
            let dirty = rest.iter().filter(|byte| **byte != 0).count() as u64;
            if dirty > 0 {
                reached!("damage-told-from-torn", vouched_from(&bytes, at, identity, sequence));
                if vouched_from(&bytes, at, identity, sequence) {
                    return Err(corrupt(
                        at,
                        "a frame does not check out, though a later one says it was durable",
                    ));
                }
                reached!("torn-tail-cut");
                report.torn = Some((at as u64, dirty));
            }
            reading.end = Some((sequence, at as u64, dirty > 0));
            reading.newest = bytes.slice(..at.min(bytes.len()));
        }
        before = Some((sequence, name, at as u64));
        reading.segments.insert(sequence, segment);
        reading.report.segments.push(report);
    }
    if let (Some((group, offset)), Some((_, file, _))) = (gaps.first_key_value(), before) {
        let what = format!("the entries of group {group} begin after a gap");
        return Err(OpenError::Senseless { file, offset: *offset, what });
    }
    Ok(reading)
}

/// Whether a frame or a mark behind `at` says that the place was durable when it was written.
fn vouched_from(bytes: &Bytes, at: usize, identity: u64, sequence: u64) -> bool {
    (at + 8..bytes.len()).step_by(8).any(|later| {
        // What a frame claims is looked at before its checksum is: garbage has lengths, too, and their checksums together take for ever. No frame and no mark
        // claims more than what is before itself.
        let claims = later + FRAME_HEADER <= bytes.len() && {
            let durable: Place = (u64_at(bytes, later + 8), u64_at(bytes, later + 16));
            (sequence, at as u64) < durable && durable <= (sequence, later as u64)
        };
        claims
            && (frame_at(bytes, later, identity, sequence).is_some()
                || mark_at(bytes, later, identity, sequence))
    })
}

fn has_header(bytes: &Bytes) -> bool {
    bytes.len() >= HEADER && bytes[..8] == MAGIC && header_checksum(bytes) == u32_at(bytes, 12)
}

/// How a group stands after a write was added.
enum Fold {
    /// Contiguous from its start.
    Whole,
    /// The segments that held entries before the first are gone. They went because a compaction allowed it,
    /// and that is written further on.
    Gap,
}

fn fold(recovered: &mut Recovered, write: LogWrite, had_gap: bool) -> Result<Fold, &'static str> {
    let mut has_gap = had_gap;
    if let Some(position) = write.restart {
        recovered.start = position;
        recovered.entries.clear();
        has_gap = false;
    }
    if let Some(hard_state) = write.hard_state {
        recovered.hard_state = hard_state;
    }
    if let Some(first) = write.entries.first() {
        let last = recovered.entries.last().map_or(recovered.start, Entry::position);
        if first.index.previous() > last.index || (has_gap && first.index <= recovered.start.index) {
            recovered.entries.clear();
            recovered.start = Position { term: recovered.start.term, index: first.index.previous() };
            has_gap = true;
        }
        if first.index <= recovered.start.index {
            return Err("an entry stands where the log was compacted");
        }
        recovered.entries.truncate((first.index.0 - recovered.start.index.0 - 1) as usize);
        for entry in write.entries {
            let last = recovered.entries.last().map_or(recovered.start, Entry::position);
            if last.index.0.checked_add(1) != Some(entry.index.0) || entry.term < last.term {
                return Err("a group's entries are out of order");
            }
            recovered.entries.push(entry);
        }
    }
    if let Some(position) = write.compact
        && (position.index > recovered.start.index || (has_gap && position.index == recovered.start.index))
    {
        let gone = (position.index.0 - recovered.start.index.0) as usize;
        recovered.entries.drain(..gone.min(recovered.entries.len()));
        if recovered.entries.first().is_some_and(|entry| entry.term < position.term) {
            return Err("the log was compacted in a term after that of the entries that follow");
        }
        reached!("gap-explained-by-compaction", has_gap);
        recovered.start = position;
        has_gap = false;
    }
    Ok(if has_gap { Fold::Gap } else { Fold::Whole })
}
