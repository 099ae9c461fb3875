//! Real files behind the log's disk seam.

use quorate_storage::disk::Disk;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const ZEROS: usize = 1 << 20;

/// A directory of real files, kept open while they are written.
#[derive(Debug)]
pub struct FileDisk {
    directory: PathBuf,
    open: HashMap<String, File>,
}

impl FileDisk {
    /// The directory, which must exist.
    pub fn open(directory: &Path) -> io::Result<Self> {
        std::fs::read_dir(directory)?;
        Ok(Self { directory: directory.to_owned(), open: HashMap::new() })
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if !self.open.contains_key(name) {
            let file = File::options().read(true).write(true).open(self.directory.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        self.open.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.directory.join(name))
    }

    fn create(&mut self, name: &str, length: u64) -> io::Result<()> {
        let path = self.directory.join(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        // Real zeros, not a hole: a sync of data within them has no file size or block map to write as well,
        // which halves its time.
        let zeros = vec![0; ZEROS];
        let mut at = 0;
        while at < length {
            let part = ZEROS.min((length - at) as usize);
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        self.open.retain(|_, _| false);
        self.open.insert(name.to_owned(), file);
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
