//! A mounted file system, and what can be done to it meanwhile.

use crate::faults::{Effect, Faults, On, Rule, RuleId, matches};
use crate::fuse::Answerer;
use crate::power::Unsynced;
use crate::volume::{Options, Volume};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the kernel's questions and our orders meet in.
pub(crate) struct Shared {
    volume: Mutex<Volume>,
    pub(crate) faults: Faults,
}

impl Shared {
    pub(crate) fn volume(&self) -> MutexGuard<'_, Volume> {
        self.volume.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Orders to a file system; clones are of the same one.
#[derive(Clone)]
pub struct Controls {
    pub(crate) shared: Arc<Shared>,
}

impl Controls {
    fn new(backing: &Path, options: Options) -> io::Result<Self> {
        let volume = Mutex::new(Volume::open(backing, options)?);
        Ok(Self { shared: Arc::new(Shared { volume, faults: Faults::default() }) })
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Adds a rule for always.
    pub fn always(&self, on: On, path: &str, effect: Effect) -> RuleId {
        self.faults().add(Rule { on, path: path.to_owned(), times: None, effect })
    }

    /// Adds a rule for so many calls, or pages.
    pub fn times(&self, times: u32, on: On, path: &str, effect: Effect) -> RuleId {
        self.faults().add(Rule { on, path: path.to_owned(), times: Some(times), effect })
    }

    /// The power fails and comes back. Whoever uses the file system should have been killed: what is open is stale.
    pub fn power_failure(&self, unsynced: Unsynced) -> io::Result<()> {
        Ok(self.shared.volume().power_failure(unsynced)?)
    }

    /// Makes everything durable.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(self.shared.volume().sync_all()?)
    }

    /// How many bytes fit from now on; what is there stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.volume().options.capacity = bytes;
    }

    /// Whether writing a page again needs new space.
    pub fn set_rewrites_take_space(&self, rewrites_take_space: bool) {
        self.shared.volume().options.rewrites_take_space = rewrites_take_space;
    }

    /// Bytes that files take.
    pub fn used(&self) -> u64 {
        self.shared.volume().used()
    }

    /// Flips bits on disk in every file that the pattern means and that is so long; how many were. Pages in memory hide it until a power failure.
    pub fn flip(&self, path: &str, offset: u64, mask: u8) -> io::Result<usize> {
        self.damage(path, offset + 1, |file| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset)?;
            file.write_all_at(&[byte[0] ^ mask], offset)
        })
    }

    /// Writes zeros on disk, likewise.
    pub fn zero(&self, path: &str, offset: u64, length: u64) -> io::Result<usize> {
        self.damage(path, offset + length, |file| file.write_all_at(&vec![0; length as usize], offset))
    }

    fn damage(
        &self,
        path: &str,
        length_min: u64,
        damage: impl Fn(&std::fs::File) -> io::Result<()>,
    ) -> io::Result<usize> {
        let mut volume = self.shared.volume();
        let mut damaged = 0;
        for (ino, _) in volume.files().into_iter().filter(|(_, name)| matches(path, name)) {
            let file = volume.file_mut(ino)?.store();
            if file.metadata()?.len() >= length_min {
                damage(file)?;
                damaged += 1;
            }
        }
        Ok(damaged)
    }
}

/// A mounted file system. It is unmounted when this is dropped, whoever still uses it; what was not synced is lost.
pub struct Disk {
    controls: Controls,
    mountpoint: PathBuf,
    /// Ends by itself when the file system is unmounted and closed by all.
    _session: fuser::BackgroundSession,
}

fn settings() -> fuser::Config {
    let mut settings = fuser::Config::default();
    settings.mount_options =
        vec![fuser::MountOption::FSName("faultfs".into()), fuser::MountOption::Subtype("faultfs".into())];
    settings
}

/// How `fusermount3`, or `fusermount`, begins what it says.
const REFUSER: &str = "fusermount";
/// And how it says that it may not.
const REFUSALS: [&str; 3] = ["not permitted", "ermission denied", "not allowed"];

/// How it is said that a policy of the system denies it, other than for want of a right.
const DENIED: &str = "EACCES: Permission denied";

/// What we may not mount ourselves `fusermount3` is asked to, where there is one; that it refuses, too, comes as words without a kind, as does all else that
/// goes wrong with mounting. A device whose driver is not there is none.
fn as_refusal(error: io::Error) -> io::Error {
    let has_no_driver =
        [Errno::NODEV, Errno::NXIO].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    let words = error.to_string();
    let is_refusal = error.raw_os_error().is_none()
        && (words.ends_with(DENIED)
            || words.trim_start().starts_with(REFUSER)
                && REFUSALS.iter().any(|refusal| words.contains(refusal)));
    match error.kind() {
        ErrorKind::Other if is_refusal => {
            io::Error::new(ErrorKind::PermissionDenied, words.trim().to_owned())
        }
        _ if has_no_driver => io::Error::new(ErrorKind::NotFound, error),
        _ => error,
    }
}

impl Disk {
    /// Shows a directory at another one, both of which exist. Needs `/dev/fuse` and the right to mount; without, the error is `PermissionDenied` or `NotFound`.
    pub fn mount(backing: &Path, mountpoint: &Path, options: Options) -> io::Result<Self> {
        let controls = Controls::new(backing, options)?;
        let answerer = Answerer::new(controls.shared.clone());
        let session = fuser::spawn_mount(answerer, mountpoint, &settings()).map_err(as_refusal)?;
        Ok(Self { controls, mountpoint: mountpoint.to_owned(), _session: session })
    }

    /// Where it is.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }
}

impl std::ops::Deref for Disk {
    type Target = Controls;

    fn deref(&self) -> &Controls {
        &self.controls
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever hangs could not even be killed.
        self.controls.faults().clear_all();
        // One that is gone already was unmounted by somebody else.
        let _ = rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH);
    }
}

/// Shows a directory at another one until it is unmounted; then everything is made durable. `controlled` is given the controls before.
pub fn serve(
    backing: &Path,
    mountpoint: &Path,
    options: Options,
    controlled: impl FnOnce(Controls) -> io::Result<()>,
) -> io::Result<()> {
    // A server that was killed leaves a mount that answers nobody.
    let is_dead = |error: io::Error| error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error());
    if std::fs::metadata(mountpoint).is_err_and(is_dead) {
        rustix::mount::unmount(mountpoint, UnmountFlags::DETACH)?;
    }
    let controls = Controls::new(backing, options)?;
    let session = fuser::Session::new(Answerer::new(controls.shared.clone()), mountpoint, &settings())?;
    controlled(controls.clone())?;
    session.run()?;
    controls.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test is skipped for want of a right, not because mounting is broken.
    #[test]
    fn only_a_refusal_is_one() {
        let check = |error: io::Error, expected| assert_eq!(as_refusal(error).kind(), expected);
        let other = |words: &str| io::Error::other(words.to_owned());
        check(other("fusermount3: mount failed: Operation not permitted\n"), ErrorKind::PermissionDenied);
        check(other("fusermount3: mount failed: Permission denied\n"), ErrorKind::PermissionDenied);
        check(
            other("fusermount3: failed to open /dev/fuse: Permission denied\n"),
            ErrorKind::PermissionDenied,
        );
        check(
            other("Error calling mount() at \"m\": EACCES: Permission denied"),
            ErrorKind::PermissionDenied,
        );
        check(other("fusermount3: unknown option 'x'\n"), ErrorKind::Other);
        check(other("Error calling mount() at \"m\": EINVAL: not permitted"), ErrorKind::Other);
        check(other(""), ErrorKind::Other);
        check(io::Error::from_raw_os_error(Errno::NXIO.raw_os_error()), ErrorKind::NotFound);
        check(io::Error::from_raw_os_error(Errno::PERM.raw_os_error()), ErrorKind::PermissionDenied);
        check(io::Error::from_raw_os_error(Errno::IO.raw_os_error()), io::Error::from(Errno::IO).kind());
    }
}
