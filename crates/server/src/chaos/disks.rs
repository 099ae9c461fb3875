//! Disks of nodes that fail as they are told: each node's data directory is a file system of ours (`docs/faultfs.md`), served by this process.
//!
//! What is stored is in the *backing* directory, which is called as a data directory is without such a disk, so that it is found there when all is over.
//! A look at the mounted one may hang for as long as its disk does: who must not wait looks at the backing one, which has what was synced.

use super::ailments::{Ailment, Calls};
use quorate_consensus::random::Random;
use quorate_faultfs::disk::Disk;
use quorate_faultfs::faults::{Effect, On};
use quorate_faultfs::power::Unsynced;
use quorate_faultfs::volume::{NAMELESS, Options};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Of what is left on a disk that runs full, whatever a node keeps in reserve by default (128 MiB): too little for writes of clients, enough to go on for a while.
const LEFT_BYTES: u64 = 64 << 20;
/// How many bits flip.
const FLIPS: std::ops::Range<u64> = 1..9;

/// A disk with one data directory, the mount point itself. It is unmounted when this is dropped.
pub(super) struct DataDisk {
    disk: Disk,
    backing: PathBuf,
}

/// Whether there can be any: tried in a folder of its own.
pub(super) fn possible(folder: &Path) -> Result<(), String> {
    let (backing, mountpoint) = (folder.join("tried"), folder.join("tried.mounted"));
    let tried = DataDisk::mount(&backing, &mountpoint);
    let outcome = tried.map(drop);
    for left in [backing, mountpoint] {
        // Nobody else has put anything there; what cannot be removed stays.
        let _ = std::fs::remove_dir_all(left);
    }
    outcome
}

impl DataDisk {
    pub(super) fn mount(backing: &Path, mountpoint: &Path) -> Result<Self, String> {
        let fail = |error| format!("mounting {}: {error}", mountpoint.display());
        for folder in [backing, mountpoint] {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let disk = Disk::mount(backing, mountpoint, Options::default()).map_err(fail)?;
        Ok(Self { disk, backing: backing.to_owned() })
    }

    /// Where what was synced is.
    pub(super) fn backing(&self) -> &Path {
        &self.backing
    }

    /// What ails it from now on. Of a power loss or rot the node has to be dead.
    pub(super) fn ail(&self, ailment: &Ailment) -> Result<(), String> {
        let fail = |error| format!("{}: {error}", self.backing.display());
        match ailment {
            Ailment::Full { is_sudden } => {
                let left = if *is_sudden { 0 } else { LEFT_BYTES };
                self.disk.set_rewrites_take_space(*is_sudden);
                self.disk.set_capacity(Some(self.disk.used() + left));
            }
            Ailment::Slow { late, has_late_writes } => {
                self.disk.always(On::Sync, "*", Effect::Delay(*late));
                if *has_late_writes {
                    self.disk.always(On::Write, "*", Effect::Delay(*late));
                }
            }
            Ailment::Hung { is_whole: true } => {
                self.disk.always(On::Any, "*", Effect::Hang);
            }
            Ailment::Hung { is_whole: false } => {
                self.disk.always(On::Sync, "log/*", Effect::Hang);
            }
            Ailment::Failing(calls) => {
                let (on, files) = match calls {
                    Calls::LogSyncs => (On::Sync, "log/*"),
                    Calls::LogWrites => (On::Write, "log/*"),
                    Calls::StoreSyncs => (On::Sync, "store/*"),
                    Calls::StoreWrites => (On::Write, "store/*"),
                };
                self.disk.always(on, files, Effect::Fail(Errno::IO));
            }
            Ailment::PowerLoss(seed) => {
                let unsynced = seed.map_or(Unsynced::Lost, Unsynced::Some);
                self.disk.power_failure(unsynced).map_err(fail)?;
            }
            Ailment::Rot(seed) => {
                self.settle()?;
                // What is in memory would hide it.
                self.disk.power_failure(Unsynced::Lost).map_err(fail)?;
                self.rot(&mut Random::new(*seed))?;
            }
        }
        Ok(())
    }

    /// It is as it should be again, but for what was lost or has rotted.
    pub(super) fn mend(&self) {
        self.disk.faults().clear_all();
        self.disk.set_rewrites_take_space(false);
        self.disk.set_capacity(None);
    }

    /// Makes everything durable.
    pub(super) fn settle(&self) -> Result<(), String> {
        self.disk.sync_all().map_err(|error| format!("{}: {error}", self.backing.display()))
    }

    /// Flips bits in files of the log and the store. Most of both is zeros that wait to be written: those are left alone.
    fn rot(&self, random: &mut Random) -> Result<(), String> {
        let fail = |error: std::io::Error| format!("{}: {error}", self.backing.display());
        let mut files = Vec::new();
        for folder in ["log", "store"] {
            files_below(&self.backing, folder, &mut files).map_err(fail)?;
        }
        files.sort();
        for _ in 0..random.between(FLIPS.start, FLIPS.end) {
            if files.is_empty() {
                break;
            }
            let file = &files[random.between(0, files.len() as u64) as usize];
            let bytes = std::fs::read(self.backing.join(file)).map_err(fail)?;
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
            if used > 0 {
                let (offset, bit) = (random.between(0, used), random.between(0, 8));
                self.disk.flip(file, offset, 1 << bit).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// What is on disk, in another folder, to be looked at without being changed.
    pub(super) fn copy(&self, to: &Path) -> std::io::Result<()> {
        copy(&self.backing, to)
    }
}

fn files_below(root: &Path, folder: &str, files: &mut Vec<String>) -> std::io::Result<()> {
    let path = root.join(folder);
    if !path.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() { files_below(root, &name, files)? } else { files.push(name) }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() == NAMELESS {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
