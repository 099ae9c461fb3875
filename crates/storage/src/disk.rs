//! The seam to files: one flat directory of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A directory of files, as far as the log needs one.
pub trait Disk {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// All bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Makes a file of `length` zeros; an existing one of that name is replaced. Durable, name and zeros, after
    /// [`Disk::sync`] and [`Disk::sync_directory`].
    fn create(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Writes within the file, or right behind its end.
    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file's bytes durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    fn sync_directory(&mut self) -> io::Result<()>;

    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// What a disk writes all or none of.
const SECTOR: usize = 512;

/// A disk in memory; clones are the same disk. [`MemoryDisk::crash`] loses, keeps or tears what was not synced.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<String, File>,
    /// Names that a crash brings back or takes away.
    durable_names: BTreeMap<String, File>,
    operations_until_fault: Option<u64>,
    /// There is no room for another file.
    is_full: bool,
    syncs: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
}

impl MemoryDisk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine dies. Each sector that was written but not synced survives or not, as `survives` says;
    /// files whose creation was not synced are gone.
    pub fn crash(&self, mut survives: impl FnMut() -> bool) {
        let mut inner = self.lock();
        let names: Vec<String> = inner.durable_names.keys().cloned().collect();
        let mut files = BTreeMap::new();
        for name in names {
            let file = inner.files.get(&name).or_else(|| inner.durable_names.get(&name));
            let Some(file) = file else { continue };
            let mut bytes = file.durable.clone();
            bytes.resize(file.now.len().max(bytes.len()), 0);
            for at in (0..file.now.len()).step_by(SECTOR) {
                let end = (at + SECTOR).min(file.now.len());
                if bytes[at..end] != file.now[at..end] && survives() {
                    bytes[at..end].copy_from_slice(&file.now[at..end]);
                }
            }
            files.insert(name, File { now: bytes.clone(), durable: bytes });
        }
        let is_full = inner.is_full;
        *inner = Inner { durable_names: files.clone(), files, is_full, ..Inner::default() };
    }

    /// A process dies, and nothing else: what it wrote and named reaches the disk in time.
    pub fn kill(&self) {
        let mut inner = self.lock();
        let mut files = inner.files.clone();
        files.values_mut().for_each(|file| file.durable.clone_from(&file.now));
        let is_full = inner.is_full;
        *inner = Inner { durable_names: files.clone(), files, is_full, ..Inner::default() };
    }

    /// The file's name is not durable, as before the directory was synced.
    pub fn forget_name_of(&self, name: &str) {
        self.lock().durable_names.remove(name);
    }

    /// Flips one bit, on the platter as well.
    pub fn flip(&self, name: &str, byte: usize, bit: u8) {
        let mut inner = self.lock();
        if let Some(file) = inner.files.get_mut(name) {
            for bytes in [&mut file.now, &mut file.durable] {
                if let Some(byte) = bytes.get_mut(byte) {
                    *byte ^= 1 << bit;
                }
            }
        }
    }

    /// After so many more changes everything fails.
    pub fn fail_after(&self, operations: u64) {
        self.lock().operations_until_fault = Some(operations);
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        self.lock().operations_until_fault = None;
    }

    /// There is no room for another file, or there is again.
    pub fn fill(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// How often something was synced.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }
}

impl Inner {
    fn check(&mut self) -> io::Result<()> {
        match &mut self.operations_until_fault {
            Some(0) => Err(io::Error::other("a fault was planted")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.lock().file(name)?.now.clone())
    }

    fn create(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.check()?;
        if inner.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = File { now: vec![0; length as usize], durable: Vec::new() };
        inner.files.insert(name.to_owned(), file);
        Ok(())
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.check()?;
        let file = inner.file(name)?;
        let end = offset as usize + bytes.len();
        if file.now.len() < end {
            file.now.resize(end, 0);
        }
        file.now[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.check()?;
        inner.syncs += 1;
        let file = inner.file(name)?;
        file.durable.clone_from(&file.now);
        let file = file.clone();
        if let Some(named) = inner.durable_names.get_mut(name) {
            *named = file;
        }
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.check()?;
        inner.durable_names = inner.files.clone();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.check()?;
        inner.files.remove(name);
        Ok(())
    }
}
