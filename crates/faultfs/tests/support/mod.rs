//! Mounting for tests, where the machine allows it.

#![allow(dead_code, unreachable_pub)]

use quorate_faultfs::disk::Disk;
use quorate_faultfs::volume::Options;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use tempfile::TempDir;

/// A mounted file system in folders of its own.
pub struct Mounted {
    pub disk: Disk,
    pub backing: PathBuf,
    pub root: PathBuf,
    // Dropped after what is mounted in it.
    _folder: TempDir,
}

impl Mounted {
    /// `None`, said loudly, where nothing can be mounted.
    pub fn new(options: Options) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (backing, root) = (folder.path().join("backing"), folder.path().join("root"));
        std::fs::create_dir(&backing).unwrap();
        std::fs::create_dir(&root).unwrap();
        match Disk::mount(&backing, &root, options) {
            Ok(disk) => Some(Self { disk, backing, root, _folder: folder }),
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => {
                // Not through print macros, which the test harness would keep to itself; at once, as others write, too.
                let said = format!("SKIPPED: nothing can be mounted here: {error}\n");
                let _ = std::io::stderr().write_all(said.as_bytes());
                None
            }
            Err(error) => panic!("mounting: {error}"),
        }
    }
}
