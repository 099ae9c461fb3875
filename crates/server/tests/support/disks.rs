//! Clusters whose data directories are on disks of ours, which lose, refuse and delay what they are told to.

use super::Cluster;
use quorate_faultfs::disk::Disk;
use quorate_faultfs::power::Unsynced;
use quorate_faultfs::volume::Options;
use std::io::{ErrorKind, Write};
use std::path::Path;
use tempfile::TempDir;

/// Nodes, each on a file system of its own, which is its data directory.
pub struct OnDisks {
    // Dropped in this order: what is used cannot be taken away.
    pub cluster: Cluster,
    pub disks: Vec<Disk>,
    _folder: TempDir,
}

/// A file system of ours on folders that are made for it; `None`, said loudly, where nothing can be mounted. What fails otherwise is no reason to skip a test.
pub fn mounted(backing: &Path, mountpoint: &Path) -> Option<Disk> {
    std::fs::create_dir(backing).unwrap();
    std::fs::create_dir(mountpoint).unwrap();
    match Disk::mount(backing, mountpoint, Options::default()) {
        Ok(disk) => Some(disk),
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => {
            // Not through print macros, which the test harness would keep to itself; at once, as others write, too.
            let said = format!("SKIPPED: nothing can be mounted here: {error}\n");
            let _ = std::io::stderr().write_all(said.as_bytes());
            None
        }
        Err(error) => panic!("mounting: {error}"),
    }
}

impl OnDisks {
    /// So many nodes, none of them started; `None`, said loudly, where nothing can be mounted.
    pub fn new(size: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::new(size);
        let mut disks = Vec::new();
        for node in &mut cluster.nodes {
            let backing = folder.path().join(format!("{}.backing", node.name));
            let mountpoint = folder.path().join(&node.name);
            disks.push(mounted(&backing, &mountpoint)?);
            node.settings.insert("--data-dir", mountpoint.display().to_string());
            node.settings.insert("--partitions", "2".to_owned());
            node.data_dir = mountpoint;
        }
        Some(Self { cluster, disks, _folder: folder })
    }

    /// Starts all nodes, and waits until they answer.
    pub async fn start(&mut self) {
        for node in &mut self.cluster.nodes {
            node.start();
        }
        self.cluster.ready().await;
    }

    /// The power of a node fails.
    pub fn power_failure(&mut self, at: usize, unsynced: Unsynced) {
        self.cluster.nodes[at].kill();
        self.disks[at].power_failure(unsynced).unwrap();
    }
}

impl Drop for OnDisks {
    fn drop(&mut self) {
        for disk in &self.disks {
            // A process whose call hangs cannot be killed.
            disk.faults().clear_all();
        }
    }
}
