//! What a file holds: its backing file, which is the disk, and pages in memory, which are the page cache.
//!
//! A write goes to *dirty* pages. A sync writes them to the backing file and forgets them. After a failed sync they are *lost*: the file still reads as if they
//! had been written, because the cache has them, but they count as clean and no later sync writes them (as ext4 behaves since Linux
//! 4.13). A lost page that is written again is dirty again, all of it.
//!
//! Invariants: the backing file is `durable_size` long. Of it counts what is before `limit`, the shortest that the file was cut to since the
//! last sync; the rest reads as zeros. No page begins at or behind `size`.

use crate::random::Random;
use rustix::fs::SeekFrom;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What the cache is kept in, and space is counted in.
pub const PAGE: usize = 4096;
/// What a disk writes as a whole.
pub const SECTOR: usize = 512;

type Page = Box<[u8]>;

/// Where a page goes that is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// Where it belongs.
    Home,
    /// Nowhere, though the disk says that it is written.
    Nowhere,
    /// In the place of another page.
    At(u64),
}

/// A file's bytes, as they are seen and as they are on disk.
#[derive(Debug)]
pub struct Content {
    store: File,
    size: u64,
    durable_size: u64,
    limit: u64,
    dirty: BTreeMap<u64, Page>,
    lost: BTreeMap<u64, Page>,
    /// Pages that take space.
    taken: BTreeSet<u64>,
}

fn page_of(offset: u64) -> u64 {
    offset / PAGE as u64
}

fn begin_of(page: u64) -> u64 {
    page * PAGE as u64
}

impl Content {
    /// Of a file as it is on disk.
    pub fn open(store: File) -> io::Result<Self> {
        let size = store.metadata()?.len();
        let taken = data_pages(&store, size)?;
        Ok(Self {
            store,
            size,
            durable_size: size,
            limit: size,
            dirty: BTreeMap::new(),
            lost: BTreeMap::new(),
            taken,
        })
    }

    /// Its length as it is seen.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many pages take space.
    pub fn pages_taken(&self) -> u64 {
        self.taken.len() as u64
    }

    /// How many pages are only in memory.
    pub fn pages_cached(&self) -> usize {
        self.dirty.len() + self.lost.len()
    }

    /// The backing file, for damage at rest.
    pub fn store(&self) -> &File {
        &self.store
    }

    /// The bytes of a range, as far as the file goes.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let length = (length as u64).min(self.size.saturating_sub(offset)) as usize;
        let mut bytes = vec![0; length];
        self.read_store(offset, &mut bytes)?;
        for cache in [&self.lost, &self.dirty] {
            for (page, held) in cache.range(page_of(offset)..=page_of(offset + length as u64)) {
                overlay(&mut bytes, offset, begin_of(*page), held);
            }
        }
        Ok(bytes)
    }

    /// What is on disk and still counts; zeros behind it.
    fn read_store(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let counts = self.limit.min(self.durable_size).saturating_sub(offset);
        let length = (bytes.len() as u64).min(counts) as usize;
        self.store.read_exact_at(&mut bytes[..length], offset)
    }

    /// How many of the bytes find space when so many pages are free. `rewrites` is whether a page that has space needs new one to be written again.
    pub fn fitting(&self, offset: u64, length: usize, free: u64, rewrites: bool) -> usize {
        let mut free = free;
        let end = offset + length as u64;
        for page in page_of(offset)..=page_of(end.saturating_sub(1)) {
            let has_space =
                if rewrites { self.dirty.contains_key(&page) } else { self.taken.contains(&page) };
            if has_space {
                continue;
            }
            if free == 0 {
                return begin_of(page).saturating_sub(offset) as usize;
            }
            free -= 1;
        }
        length
    }

    /// Writes, for whoever reads; not to the disk.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let page = page_of(at);
            let next = begin_of(page + 1).min(end);
            let part = &bytes[(at - offset) as usize..(next - offset) as usize];
            if !self.dirty.contains_key(&page) {
                let held = self.page(page)?;
                self.lost.remove(&page);
                self.dirty.insert(page, held);
                self.taken.insert(page);
            }
            let begin = (at - begin_of(page)) as usize;
            if let Some(held) = self.dirty.get_mut(&page) {
                held[begin..begin + part.len()].copy_from_slice(part);
            }
            at = next;
        }
        self.size = self.size.max(end);
        Ok(())
    }

    /// A page that is not dirty, as it is seen.
    fn page(&self, page: u64) -> io::Result<Page> {
        if let Some(held) = self.lost.get(&page) {
            return Ok(held.clone());
        }
        let mut bytes = vec![0; PAGE].into_boxed_slice();
        self.read_store(begin_of(page), &mut bytes)?;
        Ok(bytes)
    }

    /// Cuts the file, or makes it longer with zeros that take no space.
    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            let first_gone = size.div_ceil(PAGE as u64);
            self.dirty.split_off(&first_gone);
            self.lost.split_off(&first_gone);
            self.taken.split_off(&first_gone);
            for cache in [&mut self.dirty, &mut self.lost] {
                if let Some(held) = cache.get_mut(&page_of(size)) {
                    held[(size % PAGE as u64) as usize..].fill(0);
                }
            }
            self.limit = self.limit.min(size);
        }
        self.size = size;
    }

    /// Makes what is seen durable.
    pub fn sync(&mut self, mut landing: impl FnMut(u64) -> Landing) -> io::Result<()> {
        if self.limit < self.durable_size {
            self.store.set_len(self.limit)?;
        }
        self.store.set_len(self.size)?;
        (self.durable_size, self.limit) = (self.size, self.size);
        for (page, held) in std::mem::take(&mut self.dirty) {
            match landing(page) {
                Landing::Home => self.put(page, &held)?,
                Landing::Nowhere => {}
                Landing::At(other) => self.put(other, &held)?,
            }
        }
        Ok(())
    }

    /// A page to the disk, as far as the file goes there.
    fn put(&self, page: u64, held: &[u8]) -> io::Result<()> {
        let length = (held.len() as u64).min(self.durable_size.saturating_sub(begin_of(page)));
        self.store.write_all_at(&held[..length as usize], begin_of(page))
    }

    /// The sync failed: what was dirty counts as clean, and is not on disk.
    pub fn lose(&mut self) {
        self.lost.append(&mut self.dirty);
    }

    /// Reads what is on disk from now on, where a sync has failed.
    pub fn drop_lost(&mut self) {
        self.lost.clear();
    }

    /// The power fails while the cache is being written back: some pages and one of several lengths reach the disk, and mostly of
    /// one page some sectors.
    pub fn survive(&mut self, random: &mut Random) -> io::Result<()> {
        if self.limit < self.durable_size && random.is_one_in(1, 2) {
            self.store.set_len(self.limit)?;
            self.durable_size = self.limit;
        }
        let (shorter, longer) = (self.durable_size.min(self.size), self.durable_size.max(self.size));
        let size = match random.below(3) {
            0 => self.durable_size,
            1 => self.size,
            _ => shorter + random.below(longer - shorter + 1),
        };
        // A length that is cut goes with the order to cut, above.
        if size > self.durable_size {
            self.store.set_len(size)?;
            self.durable_size = size;
        }
        let dirty = std::mem::take(&mut self.dirty);
        // In one of three cases none is.
        let torn = random.below((dirty.len() as u64 * 3).div_ceil(2).max(1)) as usize;
        let of_ten = random.below(11);
        for (at, (page, held)) in dirty.iter().enumerate() {
            if at == torn {
                let mut mixed = vec![0; PAGE];
                let there = self.durable_size.saturating_sub(begin_of(*page)).min(PAGE as u64) as usize;
                self.store.read_exact_at(&mut mixed[..there], begin_of(*page))?;
                for (old, new) in mixed.chunks_mut(SECTOR).zip(held.chunks(SECTOR)) {
                    if random.is_one_in(1, 2) {
                        old.copy_from_slice(new);
                    }
                }
                self.put(*page, &mixed)?;
            } else if random.is_one_in(of_ten, 10) {
                self.put(*page, held)?;
            }
        }
        Ok(())
    }
}

/// Copies what `held`, which is at `begin`, has of the range of `bytes`, which is at `offset`.
fn overlay(bytes: &mut [u8], offset: u64, begin: u64, held: &[u8]) {
    let from = offset.max(begin);
    let to = (offset + bytes.len() as u64).min(begin + held.len() as u64);
    if from < to {
        bytes[(from - offset) as usize..(to - offset) as usize]
            .copy_from_slice(&held[(from - begin) as usize..(to - begin) as usize]);
    }
}

/// The pages of a file on disk that are not holes.
fn data_pages(store: &File, size: u64) -> io::Result<BTreeSet<u64>> {
    let (mut pages, mut at) = (BTreeSet::new(), 0);
    while at < size {
        let data = match rustix::fs::seek(store, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Only a hole is left.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(store, SeekFrom::Hole(data))?;
        pages.extend(page_of(data)..hole.div_ceil(PAGE as u64));
        at = hole;
    }
    Ok(pages)
}
