//! Programs that start others, or mount something, and are ended with all of that, also when a test fails.

use super::{LOOK, signal};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Who is told to end has so long to end what it has started, and to unmount.
pub const ENDING_MAX: Duration = Duration::from_secs(20);

/// A process that ends what it has started when it is told to. Dropped, it is told to; then it is killed, and what is mounted below its folder is let go.
pub struct Starter {
    child: Child,
    folder: Option<PathBuf>,
}

impl Starter {
    pub fn new(child: Child, folder: Option<&Path>) -> Self {
        Self { child, folder: folder.map(Path::to_owned) }
    }
}

impl Deref for Starter {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Starter {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        end(&mut self.child);
        for place in self.folder.iter().flat_map(|folder| mounted_below(folder)) {
            // Left by one that was killed; where we may not unmount, it could not mount.
            let _ = Command::new("umount").args(["--lazy", &place]).stderr(Stdio::null()).status();
        }
    }
}

/// How it ended: by itself before, when it was told to, or killed.
pub fn end(child: &mut Child) -> Option<ExitStatus> {
    if let Ok(Some(status)) = child.try_wait() {
        return Some(status);
    }
    signal(child.id(), "TERM");
    let begun = Instant::now();
    while begun.elapsed() < ENDING_MAX {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(LOOK);
    }
    // It may have ended just now.
    let _ = child.kill();
    child.wait().ok()
}

/// What is mounted below a folder.
pub fn mounted_below(folder: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = table.lines().filter_map(|line| line.split(' ').nth(1));
    places.filter(|place| Path::new(place).starts_with(folder)).map(str::to_owned).collect()
}
