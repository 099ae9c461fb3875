//! The file system without FUSE: a tree as it is seen, and the part of it that is on disk, which is the backing directory.
//!
//! A file or directory is a node with a number. It has a *place* (directory and name) as it is seen, and one on disk. The backing directory
//! has it where it is on disk, or, if it has no place there, under its number in [`NAMELESS`]. So the backing directory is at any time what a
//! power failure would leave if nothing more was written.
//!
//! Caveats: no links, no owners; modes are durable at once; every file is kept open.

use crate::content::{Content, Landing, PAGE};
use crate::names::Change;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// In the backing directory: what has no place on disk. Not shown.
pub const NAMELESS: &str = ".faultfs";
/// Pages in memory of one file; then they are written back, as a kernel does before its memory is full.
const CACHED_PAGES_MAX: usize = 65_536;

/// The number of a node. Those from before a power failure never come again.
pub type Ino = u64;

/// The mounted directory.
pub const ROOT: Ino = 1;

/// A directory and a name in it.
pub type Slot = (Ino, OsString);

pub(crate) enum Kind {
    File(Content),
    Directory {
        /// As it is seen.
        entries: BTreeMap<OsString, Ino>,
        /// On disk.
        durable: BTreeMap<OsString, Ino>,
    },
}

pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) place: Option<Slot>,
    pub(crate) durable: Option<Slot>,
    opened: u32,
    mode: u32,
    modified: SystemTime,
}

/// What a node is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub ino: Ino,
    /// Length of a file.
    pub size: u64,
    /// Pages that it takes.
    pub pages: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Permissions.
    pub mode: u32,
    /// When it was last written.
    pub modified: SystemTime,
}

/// How the disk behaves besides its faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether a sync promises no more than POSIX: that of a file does not make its name durable, that of a directory only the names in it. If not, it
    /// is as on ext4: every sync makes all changes of names durable, and a rename over a file writes the new one's data first.
    pub is_strict: bool,
    /// Bytes that fit; `None` for as many as the file system of the backing directory takes.
    pub capacity: Option<u64>,
    /// Whether writing a page again needs new space, as on a file system that copies on write.
    pub rewrites_take_space: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { is_strict: true, capacity: None, rewrites_take_space: false }
    }
}

/// The file system.
pub struct Volume {
    pub(crate) backing: PathBuf,
    pub(crate) nodes: BTreeMap<Ino, Node>,
    /// Changes of names that are not on disk, oldest first.
    pub(crate) pending: Vec<Change>,
    /// How the disk behaves.
    pub options: Options,
    pub(crate) next: Ino,
}

/// What the system said of the backing directory.
pub(crate) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

impl Volume {
    /// Over what a backing directory holds.
    pub fn open(backing: &Path, options: Options) -> io::Result<Self> {
        let backing = backing.canonicalize()?;
        let mut volume =
            Self { backing, nodes: BTreeMap::new(), pending: Vec::new(), options, next: ROOT + 1 };
        volume.load()?;
        Ok(volume)
    }

    /// Forgets everything that is not on disk.
    pub(crate) fn load(&mut self) -> io::Result<()> {
        self.nodes.clear();
        self.pending.clear();
        let nameless = self.backing.join(NAMELESS);
        if nameless.exists() {
            std::fs::remove_dir_all(&nameless)?;
        }
        std::fs::create_dir(&nameless)?;
        let root = self.backing.clone();
        self.load_directory(ROOT, &root, None)
    }

    fn load_directory(&mut self, ino: Ino, path: &Path, place: Option<Slot>) -> io::Result<()> {
        let mut entries = BTreeMap::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if ino == ROOT && name == NAMELESS {
                continue;
            }
            let (kind, child) = (entry.file_type()?, self.next);
            let place = Some((ino, name.clone()));
            self.next += 1;
            if kind.is_dir() {
                self.load_directory(child, &entry.path(), place)?;
            } else if kind.is_file() {
                let file = File::options().read(true).write(true).open(entry.path())?;
                let metadata = file.metadata()?;
                self.nodes.insert(child, Node::new(Kind::File(Content::open(file)?), place, &metadata));
            } else {
                continue;
            }
            entries.insert(name, child);
        }
        let kind = Kind::Directory { durable: entries.clone(), entries };
        self.nodes.insert(ino, Node::new(kind, place, &path.metadata()?));
        Ok(())
    }

    pub(crate) fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::STALE)
    }

    pub(crate) fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::STALE)
    }

    fn file(&self, ino: Ino) -> Result<&Content, Errno> {
        match &self.node(ino)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory { .. } => Err(Errno::ISDIR),
        }
    }

    pub(crate) fn file_mut(&mut self, ino: Ino) -> Result<&mut Content, Errno> {
        match &mut self.node_mut(ino)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory { .. } => Err(Errno::ISDIR),
        }
    }

    pub(crate) fn directory(&self, ino: Ino) -> Result<&BTreeMap<OsString, Ino>, Errno> {
        match &self.node(ino)?.kind {
            Kind::Directory { entries, .. } => Ok(entries),
            Kind::File(_) => Err(Errno::NOTDIR),
        }
    }

    pub(crate) fn directory_mut(&mut self, ino: Ino) -> Result<&mut BTreeMap<OsString, Ino>, Errno> {
        match &mut self.node_mut(ino)?.kind {
            Kind::Directory { entries, .. } => Ok(entries),
            Kind::File(_) => Err(Errno::NOTDIR),
        }
    }

    /// Where the backing directory has it.
    pub(crate) fn store_path(&self, ino: Ino) -> PathBuf {
        if ino == ROOT {
            return self.backing.clone();
        }
        match self.nodes.get(&ino).and_then(|node| node.durable.as_ref()) {
            Some((parent, name)) => self.store_path(*parent).join(name),
            None => self.backing.join(NAMELESS).join(ino.to_string()),
        }
    }

    /// Its path below the mount point as it is seen, or as it is on disk if it is not seen any more.
    pub fn path(&self, ino: Ino) -> String {
        let place = self.nodes.get(&ino).and_then(|node| node.place.as_ref().or(node.durable.as_ref()));
        match place {
            Some((ROOT, name)) => name.to_string_lossy().into_owned(),
            Some((parent, name)) => format!("{}/{}", self.path(*parent), name.to_string_lossy()),
            None => String::new(),
        }
    }

    /// What a directory has under a name.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Ino, Errno> {
        self.directory(parent)?.get(name).copied().ok_or(Errno::NOENT)
    }

    /// What a node is like.
    pub fn attributes(&self, ino: Ino) -> Result<Attributes, Errno> {
        let node = self.node(ino)?;
        let (size, pages, is_directory) = match &node.kind {
            Kind::File(content) => (content.size(), content.pages_taken(), false),
            Kind::Directory { .. } => (PAGE as u64, 1, true),
        };
        Ok(Attributes { ino, size, pages, is_directory, mode: node.mode, modified: node.modified })
    }

    /// What is in a directory.
    pub fn entries(&self, ino: Ino) -> Result<Vec<(OsString, Attributes)>, Errno> {
        let entries = self.directory(ino)?.iter();
        entries.map(|(name, ino)| Ok((name.clone(), self.attributes(*ino)?))).collect()
    }

    /// Somebody uses it, also when it has no name any more.
    pub fn opened(&mut self, ino: Ino) -> Result<(), Errno> {
        self.node_mut(ino)?.opened += 1;
        Ok(())
    }

    /// Nobody does that did; one from before a power failure is nobody's.
    pub fn released(&mut self, ino: Ino) {
        if let Ok(node) = self.node_mut(ino) {
            node.opened = node.opened.saturating_sub(1);
            self.sweep();
        }
    }

    /// The bytes of a range, as far as the file goes.
    pub fn read(&self, ino: Ino, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
        self.file(ino)?.read(offset, length).map_err(|error| errno(&error))
    }

    /// Writes as much as there is space for, at the end if there is no offset; how many bytes.
    pub fn write(&mut self, ino: Ino, offset: Option<u64>, bytes: &[u8]) -> Result<usize, Errno> {
        let content = self.file(ino)?;
        let offset = offset.unwrap_or_else(|| content.size());
        let mut length = bytes.len();
        if self.options.capacity.is_some() {
            let (_, free) = self.space()?;
            let rewrites = self.options.rewrites_take_space;
            length = content.fitting(offset, length, free / PAGE as u64, rewrites);
            if length == 0 && !bytes.is_empty() {
                return Err(Errno::NOSPC);
            }
        }
        let content = self.file_mut(ino)?;
        content.write(offset, &bytes[..length]).map_err(|error| errno(&error))?;
        if content.pages_cached() > CACHED_PAGES_MAX {
            content.sync(|_| Landing::Home).map_err(|error| errno(&error))?;
            content.drop_lost();
        }
        self.node_mut(ino)?.modified = SystemTime::now();
        Ok(length)
    }

    /// Cuts a file or makes it longer.
    pub fn resize(&mut self, ino: Ino, size: u64) -> Result<(), Errno> {
        self.file_mut(ino)?.resize(size);
        self.node_mut(ino)?.modified = SystemTime::now();
        Ok(())
    }

    /// Sets permissions.
    pub fn set_mode(&mut self, ino: Ino, mode: u32) -> Result<(), Errno> {
        let path = self.store_path(ino);
        self.node_mut(ino)?.mode = mode & 0o7777;
        let set = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777));
        set.map_err(|error| errno(&error))
    }

    /// Sets when it was last written.
    pub fn set_modified(&mut self, ino: Ino, modified: SystemTime) -> Result<(), Errno> {
        self.node_mut(ino)?.modified = modified;
        Ok(())
    }

    /// Makes a file durable, or the names in a directory.
    pub fn sync(&mut self, ino: Ino, landing: impl FnMut(u64) -> Landing) -> Result<(), Errno> {
        let is_strict = self.options.is_strict;
        match &mut self.node_mut(ino)?.kind {
            Kind::File(content) => {
                content.sync(landing).map_err(|error| errno(&error))?;
                if !is_strict {
                    self.commit(None)?;
                }
            }
            Kind::Directory { .. } => self.commit(is_strict.then_some(ino))?,
        }
        self.sweep();
        Ok(())
    }

    /// A sync failed: what was to be written will not be. Names stay to be written: their journal is written again.
    pub fn lose(&mut self, ino: Ino) {
        if let Ok(content) = self.file_mut(ino) {
            content.lose();
        }
    }

    /// Makes everything durable.
    pub fn sync_all(&mut self) -> Result<(), Errno> {
        for node in self.nodes.values_mut() {
            if let Kind::File(content) = &mut node.kind {
                content.sync(|_| Landing::Home).map_err(|error| errno(&error))?;
            }
        }
        self.commit(None)?;
        self.sweep();
        Ok(())
    }

    /// How many bytes fit, and how many are free.
    pub fn space(&self) -> Result<(u64, u64), Errno> {
        let Some(capacity) = self.options.capacity else {
            let found = rustix::fs::statvfs(&self.backing)?;
            return Ok((
                found.f_blocks.saturating_mul(found.f_frsize),
                found.f_bavail.saturating_mul(found.f_frsize),
            ));
        };
        Ok((capacity, capacity.saturating_sub(self.used())))
    }

    /// Bytes that files take.
    pub fn used(&self) -> u64 {
        let pages = self.nodes.values().filter(|node| node.is_alive()).map(|node| match &node.kind {
            Kind::File(content) => content.pages_taken(),
            Kind::Directory { .. } => 0,
        });
        pages.sum::<u64>() * PAGE as u64
    }

    /// Every file, as it is seen.
    pub fn files(&self) -> Vec<(Ino, String)> {
        let is_seen = |(_, node): &(&Ino, &Node)| node.place.is_some() && matches!(node.kind, Kind::File(_));
        self.nodes.iter().filter(is_seen).map(|(ino, _)| (*ino, self.path(*ino))).collect()
    }

    /// Removes what is nobody's, and on disk has no name and will get none.
    pub(crate) fn sweep(&mut self) {
        let is_gone = |node: &Node| !node.is_alive() && node.durable.is_none();
        let gone: Vec<Ino> = self
            .nodes
            .iter()
            .filter(|(ino, node)| **ino != ROOT && is_gone(node))
            .map(|(ino, _)| *ino)
            .collect();
        if gone.is_empty() {
            return;
        }
        let wanted: BTreeSet<Ino> = self.pending.iter().map(Change::ino).collect();
        for ino in gone.into_iter().filter(|ino| !wanted.contains(ino)) {
            let path = self.store_path(ino);
            let removed = match self.nodes.remove(&ino).map(|node| node.kind) {
                Some(Kind::File(_)) => std::fs::remove_file(&path),
                Some(Kind::Directory { .. }) => std::fs::remove_dir(&path),
                None => Ok(()),
            };
            assert!(removed.is_ok(), "removing {} from the backing directory: {removed:?}", path.display());
        }
    }
}

impl Node {
    pub(crate) fn new(kind: Kind, place: Option<Slot>, metadata: &std::fs::Metadata) -> Self {
        Self {
            kind,
            durable: place.clone(),
            place,
            opened: 0,
            mode: metadata.permissions().mode() & 0o7777,
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// Whether anybody can still use it.
    pub(crate) fn is_alive(&self) -> bool {
        self.place.is_some() || self.opened > 0
    }
}
