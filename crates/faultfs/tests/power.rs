//! What is there after a power failure, on the volume itself: all that was promised, nothing that never was, and each rename whole.
//!
//! The judge knows of each file where it was and what it held since the last sync, and which of that was promised; not how the volume does it.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_faultfs::content::{Landing, SECTOR};
use quorate_faultfs::power::Unsynced;
use quorate_faultfs::random::Random;
use quorate_faultfs::volume::{Ino, Options, ROOT, Volume};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

const SEEDS: u64 = 150;
const LIVES: u64 = 4;
const OPERATIONS: u64 = 60;
const DIRECTORIES: [&str; 3] = ["x", "y", "z"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A directory's place in [`DIRECTORIES`], and a name in it.
type Place = (usize, &'static str);

/// What the judge knows of a file, which begins with its number.
struct Known {
    ino: Ino,
    /// Where it was, oldest first, and which directories the change to it touched. The first is where it is on disk at least.
    places: Vec<(Option<Place>, BTreeSet<usize>)>,
    now: Vec<u8>,
    synced: Vec<u8>,
    /// The shortest it was since it was synced.
    limit: usize,
}

impl Known {
    fn place(&self) -> Option<Place> {
        self.places.last().unwrap().0
    }

    /// Whether the bytes are a mixture, by sectors, of what may be on disk.
    fn may_hold(&self, bytes: &[u8]) -> bool {
        let cut = &self.synced[..self.limit.min(self.synced.len())];
        let lengths = [cut.len(), self.synced.len(), self.now.len()];
        let is_length =
            (*lengths.iter().min().unwrap()..=*lengths.iter().max().unwrap()).contains(&bytes.len());
        is_length
            && bytes.chunks(SECTOR).enumerate().all(|(at, sector)| {
                [cut, &self.synced, &self.now].iter().any(|version| {
                    let begin = (at * SECTOR).min(version.len());
                    let end = (at * SECTOR + sector.len()).min(version.len());
                    sector.starts_with(&version[begin..end])
                        && sector[end - begin..].iter().all(|byte| *byte == 0)
                })
            })
    }
}

struct Judge {
    volume: Volume,
    directories: Vec<Ino>,
    files: BTreeMap<u64, Known>,
    next: u64,
    has_synced_names: bool,
}

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

impl Judge {
    fn new(backing: &std::path::Path) -> Self {
        let mut volume = Volume::open(backing, Options::default()).unwrap();
        for directory in DIRECTORIES {
            volume.create(ROOT, name(directory), 0o755, true).unwrap();
        }
        volume.sync(ROOT, |_| Landing::Home).unwrap();
        let mut judge = Self {
            volume,
            directories: Vec::new(),
            files: BTreeMap::new(),
            next: 1,
            has_synced_names: false,
        };
        judge.find_directories();
        judge
    }

    fn find_directories(&mut self) {
        let find = |directory: &&str| self.volume.lookup(ROOT, name(directory)).unwrap();
        self.directories = DIRECTORIES.iter().map(find).collect();
    }

    fn at(&self, place: Place) -> Option<u64> {
        self.files.iter().find(|(_, known)| known.place() == Some(place)).map(|(number, _)| *number)
    }

    fn moved(&mut self, number: u64, to: Option<Place>, touched: &[usize]) {
        let known = self.files.get_mut(&number).unwrap();
        known.places.push((to, touched.iter().copied().collect()));
    }

    fn step(&mut self, random: &mut Random) {
        let mut draw = || (random.below(3) as usize, NAMES[random.below(4) as usize]);
        let (place, other) = (draw(), draw());
        let (directory, number) = (self.directories[place.0], self.at(place));
        match (random.below(10), number) {
            (0..=2, None) => {
                let ino = self.volume.create(directory, name(place.1), 0o644, false).unwrap();
                let number = self.next;
                self.next += 1;
                self.volume.write(ino, Some(0), &number.to_le_bytes()).unwrap();
                self.volume.sync(ino, |_| Landing::Home).unwrap();
                let bytes = number.to_le_bytes().to_vec();
                let places = vec![(None, BTreeSet::new()), (Some(place), BTreeSet::from([place.0]))];
                let limit = bytes.len();
                self.files.insert(number, Known { ino, places, now: bytes.clone(), synced: bytes, limit });
            }
            (0..=2, Some(number)) => {
                let known = self.files.get_mut(&number).unwrap();
                let offset = random.below(12_000) as usize + 8;
                let bytes = vec![random.draw() as u8; random.below(9_000) as usize + 1];
                self.volume.write(known.ino, Some(offset as u64), &bytes).unwrap();
                known.now.resize(known.now.len().max(offset + bytes.len()), 0);
                known.now[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            (3, Some(number)) => {
                let known = self.files.get_mut(&number).unwrap();
                let length = random.below(16_000) as usize + 8;
                self.volume.resize(known.ino, length as u64).unwrap();
                known.now.resize(length, 0);
                known.limit = known.limit.min(length);
            }
            (4 | 5, Some(number)) => {
                let known = self.files.get_mut(&number).unwrap();
                self.volume.sync(known.ino, |_| Landing::Home).unwrap();
                (known.synced, known.limit) = (known.now.clone(), known.now.len());
            }
            (6, Some(number)) => {
                self.volume.remove(directory, name(place.1), false).unwrap();
                self.moved(number, None, &[place.0]);
            }
            (7 | 8, Some(number)) if place != other => {
                let replaced = self.at(other);
                let to = (self.directories[other.0], name(other.1).to_owned());
                self.volume.rename((directory, name(place.1).to_owned()), to, false).unwrap();
                let touched = [place.0, other.0];
                if let Some(replaced) = replaced {
                    self.moved(replaced, None, &touched);
                }
                self.moved(number, Some(other), &touched);
            }
            (9, _) => {
                self.volume.sync(directory, |_| Landing::Home).unwrap();
                self.has_synced_names = true;
                for known in self.files.values_mut() {
                    let last = known.places.iter().rposition(|(_, touched)| touched.contains(&place.0));
                    known.places.drain(..last.unwrap_or(0));
                }
            }
            _ => {}
        }
    }

    /// The power fails; what is there must be what may be.
    fn fail(&mut self, unsynced: Unsynced) {
        self.volume.power_failure(unsynced).unwrap();
        self.find_directories();
        let mut found = BTreeMap::new();
        for (at, directory) in self.directories.iter().enumerate() {
            for (entry, attributes) in self.volume.entries(*directory).unwrap() {
                let bytes = self.volume.read(attributes.ino, 0, attributes.size as usize).unwrap();
                let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                let place = (at, *NAMES.iter().find(|name| **name == entry).unwrap());
                let twice = found.insert(number, (place, attributes.ino, bytes));
                assert!(twice.is_none(), "file {number} is at {place:?} and at {twice:?}");
            }
        }
        for (number, known) in &mut self.files {
            let found = found.remove(number);
            let place = found.as_ref().map(|(place, ..)| *place);
            let places: Vec<_> = known.places.iter().map(|(place, _)| *place).collect();
            assert!(places.contains(&place), "file {number} is at {place:?}, was at {places:?}");
            if unsynced == Unsynced::Lost && !self.has_synced_names {
                assert_eq!(place, places[0], "file {number}: nobody has synced its directory");
            }
            let Some((_, ino, bytes)) = found else {
                known.places.clear();
                continue;
            };
            let is_right = match unsynced {
                Unsynced::Lost => bytes == known.synced,
                Unsynced::Some(_) => known.may_hold(&bytes),
            };
            assert!(is_right, "file {number}: {} bytes that it never held so", bytes.len());
            let limit = bytes.len();
            let places = vec![(place, BTreeSet::new())];
            *known = Known { ino, places, now: bytes.clone(), synced: bytes, limit };
        }
        assert!(found.is_empty(), "never written: {found:?}");
        self.files.retain(|_, known| !known.places.is_empty());
        self.has_synced_names = false;
    }
}

#[test]
fn a_power_failure_leaves_what_was_promised_and_nothing_that_never_was() {
    let mut kept = 0;
    for seed in 0..SEEDS {
        let folder = tempfile::tempdir().unwrap();
        let mut judge = Judge::new(folder.path());
        let mut random = Random::new(seed);
        for life in 0..LIVES {
            for _ in 0..OPERATIONS {
                judge.step(&mut random);
            }
            println!("seed {seed}, life {life}");
            judge.fail(if random.is_one_in(1, 3) { Unsynced::Lost } else { Unsynced::Some(random.draw()) });
        }
        kept += judge.files.len();
    }
    assert!(kept > SEEDS as usize, "{kept} files were left to look at");
}

#[test]
fn strict_promises_are_those_of_posix_and_others_those_of_ext4() {
    for is_strict in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { is_strict, ..Options::default() };
        let mut volume = Volume::open(folder.path(), options).unwrap();
        let ino = volume.create(ROOT, name("f"), 0o644, false).unwrap();
        volume.write(ino, Some(0), b"data").unwrap();
        volume.sync(ino, |_| Landing::Home).unwrap();
        let directory = volume.create(ROOT, name("d"), 0o755, true).unwrap();
        volume.create(directory, name("g"), 0o644, false).unwrap();
        volume.sync(directory, |_| Landing::Home).unwrap();
        volume.power_failure(Unsynced::Lost).unwrap();
        // A file's sync says nothing of its name, a directory's nothing of its own.
        assert_eq!(volume.lookup(ROOT, name("f")).is_ok(), !is_strict);
        assert_eq!(volume.lookup(ROOT, name("d")).is_ok(), !is_strict);
    }
}

#[test]
fn some_failures_keep_part_of_a_write_and_some_tear_a_page() {
    let (mut outcomes, mut torn) = (BTreeSet::new(), 0);
    for seed in 0..200 {
        let folder = tempfile::tempdir().unwrap();
        let mut volume = Volume::open(folder.path(), Options::default()).unwrap();
        let ino = volume.create(ROOT, name("f"), 0o644, false).unwrap();
        volume.write(ino, Some(0), &[1; 3 * 4096]).unwrap();
        volume.sync_all().unwrap();
        volume.write(ino, Some(0), &[2; 3 * 4096]).unwrap();
        volume.power_failure(Unsynced::Some(seed)).unwrap();
        let ino = volume.lookup(ROOT, name("f")).unwrap();
        let bytes = volume.read(ino, 0, 3 * 4096).unwrap();
        let pages = bytes.chunks(4096).map(|page| (page.contains(&1), page.contains(&2)));
        let pages: Vec<(bool, bool)> = pages.collect();
        torn += usize::from(pages.contains(&(true, true)));
        outcomes.insert(pages);
    }
    assert!(torn > 20, "{torn} of 200 failures tear a page");
    // A later page may be there without an earlier one.
    assert!(outcomes.contains(&vec![(true, false), (false, true), (false, true)]), "{outcomes:?}");
    assert!(outcomes.contains(&vec![(false, true), (false, true), (true, false)]), "{outcomes:?}");
}
