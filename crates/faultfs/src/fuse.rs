//! The volume as the kernel asks for it.
//!
//! The kernel caches nothing: files are opened for direct I/O and names are looked up each time, so what a rule says applies to the very next call. Calls come one
//! after the other, on one thread; one that is to wait does so on a thread of its own. Locks are the kernel's.
//!
//! Caveats: files cannot be mapped shared. While a sync hangs, the kernel lets nobody write that file, and the process that waits cannot be
//! killed.

use crate::content::PAGE;
use crate::disk::Shared;
use crate::faults::{Met, On};
use crate::volume::{Attributes, Ino, Volume};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// What the kernel is told may be believed for so long.
const NO_TIME: Duration = Duration::ZERO;
/// The number of files that there could be, for who asks.
const FILES: u64 = 1 << 20;
/// `O_APPEND`.
const APPEND: i32 = 0o2000;

type Outcome<T> = Result<T, rustix::io::Errno>;
type Listing = Arc<Vec<(OsString, Attributes)>>;

/// What answers the kernel.
pub(crate) struct Answerer {
    pub(crate) shared: Arc<Shared>,
    /// Directories are read as they were when they were opened.
    listings: Mutex<(u64, HashMap<u64, Listing>)>,
}

fn refusal(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn described(attributes: Attributes) -> FileAttr {
    let Attributes { ino, size, pages, is_directory, mode, modified } = attributes;
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: pages * (PAGE as u64 / 512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: if is_directory { FileType::Directory } else { FileType::RegularFile },
        perm: mode as u16,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

fn below(parent: &str, name: &OsStr) -> String {
    let name = name.to_string_lossy();
    if parent.is_empty() { name.into_owned() } else { format!("{parent}/{name}") }
}

impl Answerer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, listings: Mutex::default() }
    }

    fn path(&self, ino: INodeNo) -> String {
        self.shared.volume().path(ino.0)
    }

    /// Does something to a file as the rules allow, now or later; `answer` is told how it went.
    fn meet<T>(
        &self,
        on: On,
        path: &str,
        range: Range<u64>,
        work: impl FnOnce(&Shared, &Met) -> Outcome<T> + Send + 'static,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let met = self.shared.faults.meet(on, path, range);
        let act = move |shared: &Shared, met: &Met| {
            let outcome = if on == On::Sync {
                work(shared, met)
            } else {
                met.fail.map_or(Ok(()), Err).and_then(|()| work(shared, met))
            };
            answer(outcome.map_err(refusal));
        };
        if !met.waits() {
            return act(&self.shared, &met);
        }
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            shared.faults.wait(&met);
            act(&shared, &met);
        });
    }

    /// The same for what only looks, or reads and writes no file.
    fn volume<T>(
        &self,
        on: On,
        path: &str,
        work: impl FnOnce(&mut Volume) -> Outcome<T> + Send + 'static,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        self.meet(on, path, 0..0, |shared, _| work(&mut shared.volume()), answer);
    }

    fn make(&self, parent: INodeNo, name: &OsStr, mode: u32, is_directory: bool, reply: ReplyEntry) {
        let path = below(&self.path(parent), name);
        let name = name.to_owned();
        self.volume(
            On::Name,
            &path,
            move |volume| {
                let ino = volume.create(parent.0, &name, mode, is_directory)?;
                volume.attributes(ino)
            },
            |made| match made {
                Ok(made) => reply.entry(&NO_TIME, &described(made), Generation(0)),
                Err(error) => reply.error(error),
            },
        );
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, is_directory: bool, reply: ReplyEmpty) {
        let path = below(&self.path(parent), name);
        let name = name.to_owned();
        let work = move |volume: &mut Volume| volume.remove(parent.0, &name, is_directory);
        self.volume(On::Name, &path, work, |done| answer_empty(done, reply));
    }

    fn synced(&self, ino: Ino, reply: ReplyEmpty) {
        let path = self.shared.volume().path(ino);
        let named = path.clone();
        self.meet(
            On::Sync,
            &path,
            0..0,
            move |shared, met| {
                let mut volume = shared.volume();
                if let Some(error) = met.fail {
                    volume.lose(ino);
                    return Err(error);
                }
                volume.sync(ino, |page| shared.faults.landing(&named, page))
            },
            |done| answer_empty(done, reply),
        );
    }
}

fn answer_empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Answerer {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = below(&self.path(parent), name);
        let name = name.to_owned();
        self.volume(
            On::Any,
            &path,
            move |volume| volume.attributes(volume.lookup(parent.0, &name)?),
            |found| match found {
                Ok(found) => reply.entry(&NO_TIME, &described(found), Generation(0)),
                Err(error) => reply.error(error),
            },
        );
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.volume(
            On::Any,
            &self.path(ino),
            move |volume| volume.attributes(ino.0),
            |found| match found {
                Ok(found) => reply.attr(&NO_TIME, &described(found)),
                Err(error) => reply.error(error),
            },
        );
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let on = if size.is_some() { On::Write } else { On::Any };
        self.volume(
            on,
            &self.path(ino),
            move |volume| {
                if let Some(size) = size {
                    volume.resize(ino.0, size)?;
                }
                if let Some(mode) = mode {
                    volume.set_mode(ino.0, mode)?;
                }
                match modified {
                    Some(TimeOrNow::SpecificTime(time)) => volume.set_modified(ino.0, time)?,
                    Some(TimeOrNow::Now) => volume.set_modified(ino.0, SystemTime::now())?,
                    None => {}
                }
                volume.attributes(ino.0)
            },
            |found| match found {
                Ok(found) => reply.attr(&NO_TIME, &described(found)),
                Err(error) => reply.error(error),
            },
        );
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.make(parent, name, mode & 0o7777 & !umask, false, reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.make(parent, name, mode & 0o7777 & !umask, true, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, false, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, true, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) || flags.contains(RenameFlags::RENAME_WHITEOUT) {
            return reply.error(Errno::EINVAL);
        }
        let is_new = flags.contains(RenameFlags::RENAME_NOREPLACE);
        // A rule may mean either name; that it becomes is the one that people know.
        let path = below(&self.path(newparent), newname);
        let (from, to) = ((parent.0, name.to_owned()), (newparent.0, newname.to_owned()));
        let work = move |volume: &mut Volume| volume.rename(from, to, is_new);
        self.volume(On::Name, &path, work, |done| answer_empty(done, reply));
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.volume(
            On::Any,
            &self.path(ino),
            move |volume| volume.opened(ino.0),
            |opened| match opened {
                Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
                Err(error) => reply.error(error),
            },
        );
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let path = below(&self.path(parent), name);
        let name = name.to_owned();
        self.volume(
            On::Name,
            &path,
            move |volume| {
                let ino = volume.create(parent.0, &name, mode & 0o7777 & !umask, false)?;
                volume.opened(ino)?;
                volume.attributes(ino)
            },
            |made| match made {
                Ok(made) => {
                    let flags = FopenFlags::FOPEN_DIRECT_IO;
                    reply.created(&NO_TIME, &described(made), Generation(0), FileHandle(0), flags);
                }
                Err(error) => reply.error(error),
            },
        );
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.meet(
            On::Read,
            &self.path(ino),
            offset..offset + u64::from(size),
            move |shared, met| {
                let mut bytes = shared.volume().read(ino.0, offset, size as usize)?;
                for (at, mask) in &met.flips {
                    if let Some(byte) = bytes.get_mut((at - offset) as usize) {
                        *byte ^= mask;
                    }
                }
                Ok(bytes)
            },
            |read| match read {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(error),
            },
        );
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let offset = (flags.0 & APPEND == 0).then_some(offset);
        let bytes = data.to_vec();
        self.meet(
            On::Write,
            &self.path(ino),
            0..0,
            move |shared, met| {
                let length = met.short.map_or(bytes.len(), |short| short.min(bytes.len()));
                shared.volume().write(ino.0, offset, &bytes[..length])
            },
            |written| match written {
                Ok(written) => reply.written(written as u32),
                Err(error) => reply.error(error),
            },
        );
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.volume().released(ino.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.synced(ino.0, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.synced(ino.0, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let listing = self.shared.volume().entries(ino.0);
        match listing {
            Ok(listing) => {
                let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
                listings.0 += 1;
                let handle = listings.0;
                listings.1.insert(handle, Arc::new(listing));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(refusal(error)),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listing = self.listings.lock().unwrap_or_else(PoisonError::into_inner).1.get(&fh.0).cloned();
        self.volume(
            On::Any,
            &self.path(ino),
            |_| Ok(()),
            move |met| {
                let listing = match (met, listing) {
                    (Ok(()), Some(listing)) => listing,
                    (Err(error), _) => return reply.error(error),
                    (_, None) => return reply.error(Errno::EBADF),
                };
                for (at, (name, attributes)) in listing.iter().enumerate().skip(offset as usize) {
                    let kind =
                        if attributes.is_directory { FileType::Directory } else { FileType::RegularFile };
                    if reply.add(INodeNo(attributes.ino), at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            },
        );
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.volume(
            On::Any,
            "",
            |volume| volume.space(),
            |space| match space {
                Ok((all, free)) => {
                    let (all, free) = (all / PAGE as u64, free / PAGE as u64);
                    reply.statfs(all, free, free, FILES, FILES, PAGE as u32, 255, PAGE as u32);
                }
                Err(error) => reply.error(error),
            },
        );
    }
}
