//! Real files behind the log's disk seam.
//!
//! Files are created full of real zeros, not as holes: a sync of data within them has no file size or block map to write as well, which
//! halves its time. Filling one takes tens of milliseconds, so the next is filled ahead, by a thread of its own, under the name
//! [`SPARE`]; whoever creates a file of that size renames it. One left behind by a crash is made anew.

use parking_lot::Mutex;
use quorate_storage::disk::Disk;
use quorate_types::crash_point;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Zeros synced at once: the log's own syncs come in between.
const ZEROS: u64 = 1 << 20;
/// Zeros written at once. What is written at once the system may keep as one page of that size, of which every later write and sync looks at all blocks and counts all as written.
const PAGE: usize = 16 << 10;
/// The file filled ahead. Not part of the log.
const SPARE: &str = "spare";

/// A directory of real files, kept open while they are written.
#[derive(Debug)]
pub struct FileDisk {
    directory: PathBuf,
    open: HashMap<String, File>,
    spare: Arc<Mutex<Spare>>,
}

/// The file filled ahead. One thread at a time fills it.
#[derive(Debug, Default)]
enum Spare {
    #[default]
    None,
    Filling,
    /// Filled and durable, with its length.
    Ready(File, u64),
}

impl FileDisk {
    /// The directory, which must exist.
    pub fn open(directory: &Path) -> io::Result<Self> {
        std::fs::read_dir(directory)?;
        Ok(Self { directory: directory.to_owned(), open: HashMap::new(), spare: Arc::default() })
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if !self.open.contains_key(name) {
            let file = File::options().read(true).write(true).open(self.directory.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        self.open.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl FileDisk {
    fn take_spare(&self, length: u64) -> Option<File> {
        let mut spare = self.spare.lock();
        if let Spare::Filling = *spare {
            return None;
        }
        match std::mem::take(&mut *spare) {
            Spare::Ready(file, filled) if filled == length => Some(file),
            _ => None,
        }
    }

    /// Begins filling the next file, unless that is under way. If that cannot be done, it will be tried again by whoever needs it.
    fn fill_spare(&self, length: u64) {
        if !matches!(*self.spare.lock(), Spare::None) {
            return;
        }
        *self.spare.lock() = Spare::Filling;
        let (path, spare) = (self.directory.join(SPARE), self.spare.clone());
        let work = move || {
            let done = filled(&path, length);
            crash_point("log.spare.filled");
            *spare.lock() = match done {
                Ok(file) => Spare::Ready(file, length),
                Err(error) => {
                    // Space may be what is missing.
                    let _ = std::fs::remove_file(&path);
                    tracing::debug!(%error, "cannot fill the next log file ahead");
                    Spare::None
                }
            };
        };
        if let Err(error) = std::thread::Builder::new().name("spare".into()).spawn(work) {
            *self.spare.lock() = Spare::None;
            tracing::debug!(%error, "cannot start the thread that fills the next log file");
        }
    }
}

/// A new file of so many zeros, durable but for its name.
fn filled(path: &Path, length: u64) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    crash_point("log.file.made");
    let zeros = [0; PAGE];
    let mut at = 0;
    while at < length {
        let end = length.min(at + ZEROS);
        while at < end {
            let part = PAGE.min((end - at) as usize);
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        file.sync_data()?;
        crash_point("log.file.filling");
    }
    Ok(file)
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name != SPARE
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.directory.join(name))
    }

    fn create(&mut self, name: &str, length: u64) -> io::Result<()> {
        let file = match self.take_spare(length) {
            Some(file) => {
                std::fs::rename(self.directory.join(SPARE), self.directory.join(name))?;
                crash_point("log.spare.taken");
                file
            }
            None => filled(&self.directory.join(name), length)?,
        };
        self.open.retain(|_, _| false);
        self.open.insert(name.to_owned(), file);
        self.fill_spare(length);
        Ok(())
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        std::fs::remove_file(self.directory.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_begin_as_zeros_whether_filled_ahead_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = FileDisk::open(dir.path()).unwrap();
        for number in 0..4 {
            let name = format!("{number}.log");
            disk.create(&name, 3 << 20).unwrap();
            disk.write_at(&name, 5, b"data").unwrap();
            disk.sync(&name).unwrap();
            let mut expected = vec![0; 3 << 20];
            expected[5..9].copy_from_slice(b"data");
            assert!(disk.read(&name).unwrap() == expected, "file {number}");
            // Half of the time the next one is ready.
            while number % 2 == 0 && !matches!(*disk.spare.lock(), Spare::Ready(..)) {
                std::thread::yield_now();
            }
        }
        disk.create("other.log", 1000).unwrap();
        assert_eq!(disk.read("other.log").unwrap(), vec![0; 1000], "of another length");
        let mut names = disk.list().unwrap();
        names.sort();
        assert_eq!(names, ["0.log", "1.log", "2.log", "3.log", "other.log"]);
    }
}
