//! Changes of names: in order, each whole or not at all, on disk when their directory is synced.
//!
//! Two changes that touch the same directory reach the disk in their order. A change touches the directories of its names, and a directory that it
//! removes, so that this is empty on disk, too. That is what a journalling file system gives at least; that one of those keeps the order
//! over all directories is not relied on unless [`Options::is_strict`](crate::volume::Options::is_strict) is off.

use crate::content::Landing;
use crate::random::Random;
use crate::volume::{Ino, Kind, NAMELESS, Slot, Volume, errno};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;

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

    fn durable_names(&mut self, directory: Ino) -> Option<&mut std::collections::BTreeMap<OsString, Ino>> {
        match &mut self.nodes.get_mut(&directory)?.kind {
            Kind::Directory { durable, .. } => Some(durable),
            Kind::File(_) => None,
        }
    }
}
