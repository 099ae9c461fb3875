//! Changes of names: in order, each whole or not at all, on disk when their directory is synced.
//!
//! Two changes that touch the same directory reach the disk in their order. A change touches the directories of its names, and a directory that it
//! removes, so that this is empty on disk, too. That is what a journalling file system gives at least; that one of those keeps the order
//! over all directories is not relied on unless [`Options::is_strict`](crate::volume::Options::is_strict) is off.

use crate::content::{Content, Landing};
use crate::random::Random;
use crate::volume::{Ino, Kind, NAMELESS, Node, ROOT, Slot, Volume, errno};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;

/// Changes that are not on disk; then they are written, as a kernel does every few seconds.
const PENDING_MAX: usize = 10_000;

/// A change that is seen and not on disk.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Add { at: Slot, ino: Ino },
    Remove { at: Slot, ino: Ino, is_directory: bool },
    Move { from: Slot, to: Slot, ino: Ino, replaced: Option<Ino>, is_directory: bool },
}

impl Change {
    pub(crate) fn ino(&self) -> Ino {
        match self {
            Self::Add { ino, .. } | Self::Remove { ino, .. } | Self::Move { ino, .. } => *ino,
        }
    }

    fn touched(&self) -> Vec<Ino> {
        match self {
            Self::Add { at, .. } => vec![at.0],
            Self::Remove { at, ino, is_directory } => {
                std::iter::once(at.0).chain(is_directory.then_some(*ino)).collect()
            }
            Self::Move { from, to, replaced, is_directory, .. } => {
                [from.0, to.0].into_iter().chain(replaced.filter(|_| *is_directory)).collect()
            }
        }
    }
}

impl Volume {
    /// Makes an empty file or directory.
    pub fn create(&mut self, parent: Ino, name: &OsStr, mode: u32, is_directory: bool) -> Result<Ino, Errno> {
        if self.node(parent)?.place.is_none() && parent != ROOT {
            return Err(Errno::NOENT);
        }
        if self.directory(parent)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        if parent == ROOT && name == NAMELESS {
            return Err(Errno::PERM);
        }
        let (ino, path) = (self.next, self.backing.join(NAMELESS).join(self.next.to_string()));
        let make = || -> io::Result<Node> {
            let kind = if is_directory {
                std::fs::create_dir(&path)?;
                Kind::Directory { entries: BTreeMap::new(), durable: BTreeMap::new() }
            } else {
                let file = File::options().read(true).write(true).create_new(true).open(&path)?;
                Kind::File(Content::open(file)?)
            };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            let mut node = Node::new(kind, None, &path.metadata()?);
            node.place = Some((parent, name.to_owned()));
            Ok(node)
        };
        let node = make().map_err(|error| errno(&error))?;
        self.next += 1;
        self.nodes.insert(ino, node);
        self.directory_mut(parent)?.insert(name.to_owned(), ino);
        self.change(Change::Add { at: (parent, name.to_owned()), ino })?;
        Ok(ino)
    }

    /// Removes a file, or a directory that is empty.
    pub fn remove(&mut self, parent: Ino, name: &OsStr, is_directory: bool) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?;
        match &self.node(ino)?.kind {
            Kind::File(_) if is_directory => return Err(Errno::NOTDIR),
            Kind::Directory { .. } if !is_directory => return Err(Errno::ISDIR),
            Kind::Directory { entries, .. } if !entries.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.directory_mut(parent)?.remove(name);
        self.node_mut(ino)?.place = None;
        self.change(Change::Remove { at: (parent, name.to_owned()), ino, is_directory })
    }

    /// Moves a file or directory, in the place of what is there unless `is_new`.
    pub fn rename(&mut self, from: Slot, to: Slot, is_new: bool) -> Result<(), Errno> {
        let ino = self.lookup(from.0, &from.1)?;
        let is_directory = matches!(self.node(ino)?.kind, Kind::Directory { .. });
        if self.node(to.0)?.place.is_none() && to.0 != ROOT {
            return Err(Errno::NOENT);
        }
        if to.0 == ROOT && to.1 == NAMELESS {
            return Err(Errno::PERM);
        }
        let mut above = Some(to.0);
        while let Some(at) = above.take() {
            if at == ino {
                return Err(Errno::INVAL);
            }
            above = self.node(at)?.place.as_ref().map(|(parent, _)| *parent);
        }
        let replaced = self.directory(to.0)?.get(&to.1).copied();
        if let Some(replaced) = replaced {
            if is_new {
                return Err(Errno::EXIST);
            }
            if replaced == ino {
                return Ok(());
            }
            match &self.node(replaced)?.kind {
                Kind::File(_) if is_directory => return Err(Errno::NOTDIR),
                Kind::Directory { .. } if !is_directory => return Err(Errno::ISDIR),
                Kind::Directory { entries, .. } if !entries.is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            }
            self.node_mut(replaced)?.place = None;
        }
        self.directory_mut(from.0)?.remove(&from.1);
        self.directory_mut(to.0)?.insert(to.1.clone(), ino);
        self.node_mut(ino)?.place = Some(to.clone());
        self.change(Change::Move { from, to, ino, replaced, is_directory })
    }

    fn change(&mut self, change: Change) -> Result<(), Errno> {
        self.pending.push(change);
        if self.pending.len() > PENDING_MAX {
            self.commit(None)?;
        }
        self.sweep();
        Ok(())
    }

    /// Brings the changes in a directory to disk, and those that must be there before; or all.
    pub(crate) fn commit(&mut self, directory: Option<Ino>) -> Result<(), Errno> {
        let changes = std::mem::take(&mut self.pending);
        let mut wanted: BTreeSet<Ino> = directory.into_iter().collect();
        let mut is_due = vec![false; changes.len()];
        for (change, is_due) in changes.iter().zip(&mut is_due).rev() {
            let touched = change.touched();
            *is_due = directory.is_none() || touched.iter().any(|ino| wanted.contains(ino));
            if *is_due {
                wanted.extend(touched);
            }
        }
        let mut outcome = Ok(());
        for (change, is_due) in changes.into_iter().zip(is_due) {
            if is_due && outcome.is_ok() {
                outcome = self.apply(&change);
                if outcome.is_ok() {
                    continue;
                }
            }
            self.pending.push(change);
        }
        outcome
    }

    /// The power fails while changes are being written: in each directory those up to some moment reach the disk.
    pub(crate) fn commit_some(&mut self, random: &mut Random) -> Result<(), Errno> {
        let mut over = BTreeSet::new();
        let mut is_over = false;
        let usual = random.below(8) + 1;
        for change in std::mem::take(&mut self.pending) {
            let touched = change.touched();
            let stays_out = is_over || touched.iter().any(|ino| over.contains(ino));
            if stays_out || random.is_one_in(1, 1 << usual) {
                is_over = !self.options.is_strict;
                over.extend(touched);
            } else {
                self.apply(&change)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, change: &Change) -> Result<(), Errno> {
        let done = match change {
            Change::Add { at, ino } => self.put(*ino, at),
            Change::Remove { at, .. } => self.displace(at),
            Change::Move { from, to, ino, replaced, .. } => {
                if !self.options.is_strict
                    && replaced.is_some()
                    && let Ok(content) = self.file_mut(*ino)
                {
                    content.sync(|_| Landing::Home).map_err(|error| errno(&error))?;
                }
                self.displace(to).and_then(|()| {
                    if let Some(names) = self.durable_names(from.0) {
                        names.remove(&from.1);
                    }
                    self.put(*ino, to)
                })
            }
        };
        done.map_err(|error| errno(&error))
    }

    /// Gives a node its place on disk, which is free.
    fn put(&mut self, ino: Ino, at: &Slot) -> io::Result<()> {
        std::fs::rename(self.store_path(ino), self.store_path(at.0).join(&at.1))?;
        if let Some(names) = self.durable_names(at.0) {
            names.insert(at.1.clone(), ino);
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.durable = Some(at.clone());
        }
        Ok(())
    }

    /// Takes its place on disk from whatever has it.
    fn displace(&mut self, at: &Slot) -> io::Result<()> {
        let Some(ino) = self.durable_names(at.0).and_then(|names| names.get(&at.1).copied()) else {
            return Ok(());
        };
        std::fs::rename(self.store_path(ino), self.backing.join(NAMELESS).join(ino.to_string()))?;
        if let Some(names) = self.durable_names(at.0) {
            names.remove(&at.1);
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.durable = None;
        }
        Ok(())
    }

    fn durable_names(&mut self, directory: Ino) -> Option<&mut BTreeMap<OsString, Ino>> {
        match &mut self.nodes.get_mut(&directory)?.kind {
            Kind::Directory { durable, .. } => Some(durable),
            Kind::File(_) => None,
        }
    }
}
