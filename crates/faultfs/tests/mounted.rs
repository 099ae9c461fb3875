//! Through the kernel: it behaves as any other file system does, until it is told otherwise.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_faultfs::faults::{Effect, On};
use quorate_faultfs::power::Unsynced;
use quorate_faultfs::random::Random;
use quorate_faultfs::volume::Options;
use rustix::io::Errno;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use support::Mounted;

const OPERATIONS: u32 = 4_000;
const SEEDS: u64 = 3;

/// One of a few paths, so that operations meet.
fn draw_path(random: &mut Random) -> String {
    let name = |random: &mut Random| ["a", "b", "c"][random.below(3) as usize];
    let mut path = name(random).to_owned();
    while random.is_one_in(2, 5) {
        path = format!("{path}/{}", name(random));
    }
    path
}

/// What an operation came to, as far as a file system is free of choice in it.
fn told<T: std::fmt::Debug>(outcome: io::Result<T>) -> String {
    match outcome {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?}", error.raw_os_error()),
    }
}

/// Everything below a directory.
fn tree(root: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if name == ".faultfs" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                found.push((name, None));
            } else {
                found.push((name, Some(fs::read(&path).unwrap())));
            }
        }
    }
    found.sort();
    found
}

/// Does the same thing, drawn from the seed, wherever `root` is.
fn step(root: &Path, random: &mut Random) -> String {
    let path = draw_path(random);
    let at = root.join(&path);
    let write = |at: &Path, random: &mut Random, append: bool| {
        let mut file = File::options().create(true).write(true).truncate(false).append(append).open(at)?;
        let offset = random.below(20_000);
        let bytes = vec![random.draw() as u8; random.below(9_000) as usize];
        if append {
            file.write_all(&bytes)?
        } else {
            file.write_all_at(&bytes, offset)?
        }
        if random.is_one_in(1, 3) {
            file.sync_data()?;
        }
        file.metadata().map(|metadata| metadata.len())
    };
    let outcome = match random.below(12) {
        0 => told(fs::create_dir(&at)),
        1 => told(fs::remove_dir(&at)),
        2 => told(fs::remove_file(&at)),
        3 | 4 => {
            let to = draw_path(random);
            format!("to {to}: {}", told(fs::rename(&at, root.join(&to))))
        }
        5 => told(write(&at, random, true)),
        6 | 7 => told(write(&at, random, false)),
        8 => {
            let length = random.below(30_000);
            told(File::options().write(true).open(&at).and_then(|file| file.set_len(length)))
        }
        9 => told(fs::read(&at).map(|bytes| (bytes.len(), bytes))),
        10 => told(File::options().write(true).create_new(true).open(&at).map(drop)),
        _ => {
            let synced = File::open(&at).and_then(|file| file.sync_all());
            told(synced)
        }
    };
    format!("{path}: {outcome}")
}

#[test]
fn random_operations_come_to_the_same_as_on_the_machines_own_file_system() {
    for seed in 0..SEEDS {
        let Some(Mounted { disk, backing, root, .. }) = &Mounted::new(Options::default()) else { return };
        let twin = tempfile::tempdir().unwrap();
        let (mut ours, mut theirs) = (Random::new(seed), Random::new(seed));
        for number in 0..OPERATIONS {
            let (ours, theirs) = (step(root, &mut ours), step(twin.path(), &mut theirs));
            assert!(ours == theirs, "seed {seed}, operation {number}: {ours:.200} instead of {theirs:.200}");
            if number % 500 == 499 {
                assert!(tree(root) == tree(twin.path()), "seed {seed}, after operation {number}");
            }
        }
        disk.sync_all().unwrap();
        assert!(tree(backing) == tree(twin.path()), "seed {seed}: what is on disk");
        disk.power_failure(Unsynced::Lost).unwrap();
        assert!(tree(root) == tree(twin.path()), "seed {seed}: after a power failure");
    }
}

#[test]
fn a_file_without_a_name_is_there_while_it_is_open_and_locks_exclude() {
    let Some(Mounted { backing, root, .. }) = &Mounted::new(Options::default()) else { return };
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(root.join("f")).unwrap();
    file.write_all_at(b"data", 0).unwrap();
    file.sync_all().unwrap();
    File::open(root).unwrap().sync_all().unwrap();
    fs::remove_file(root.join("f")).unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"data");
    assert!(backing.join("f").exists(), "that it was removed is not on disk");
    File::open(root).unwrap().sync_all().unwrap();
    assert!(!backing.join("f").exists());
    file.read_exact_at(&mut bytes, 0).unwrap();

    let lock = File::create(root.join("LOCK")).unwrap();
    lock.try_lock().unwrap();
    let other = File::open(root.join("LOCK")).unwrap();
    assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
    drop(lock);
    other.try_lock().unwrap();
}

#[test]
fn after_a_failed_sync_the_data_reads_well_and_is_gone_for_good() {
    let Some(Mounted { disk, root, .. }) = &Mounted::new(Options::default()) else { return };
    let path = root.join("f");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[1; 5000], 0).unwrap();
    file.sync_all().unwrap();
    File::open(root).unwrap().sync_all().unwrap();
    file.write_all_at(&[2; 100], 0).unwrap();
    let rule = disk.times(1, On::Sync, "f", Effect::Fail(Errno::IO));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert_eq!(disk.faults().hits(rule), 1);
    file.sync_data().unwrap();
    assert_eq!(fs::read(&path).unwrap()[..100], [2; 100], "the cache has it");
    // A page that is written again is written as a whole.
    file.write_all_at(&[3; 100], 4500).unwrap();
    file.sync_data().unwrap();
    disk.power_failure(Unsynced::Lost).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!((bytes.len(), &bytes[..100], &bytes[4500..4600]), (5000, &[1; 100][..], &[3; 100][..]));
    assert!(file.sync_data().is_err(), "what was open is stale");
}

#[test]
fn space_runs_out_and_comes_back() {
    let capacity = Some(1 << 20);
    let Some(Mounted { disk, root, .. }) = &Mounted::new(Options { capacity, ..Options::default() }) else {
        return;
    };
    let free = || rustix::fs::statvfs(root).map(|found| found.f_bavail * found.f_frsize).unwrap();
    assert_eq!(free(), 1 << 20);
    let mut file = File::create(root.join("f")).unwrap();
    let error = file.write_all(&vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
    assert_eq!((file.metadata().unwrap().len(), free()), (1 << 20, 0));
    file.write_all_at(&[2; 4096], 8192).unwrap();
    file.sync_all().unwrap();
    disk.set_rewrites_take_space(true);
    assert!(file.write_all_at(&[3; 4096], 8192).is_err(), "it would be copied");
    disk.set_rewrites_take_space(false);
    file.set_len(8192).unwrap();
    assert_eq!(free(), (1 << 20) - 8192);
    disk.set_capacity(Some(4096));
    assert_eq!(free(), 0, "less than what is used");
    assert!(file.write_all_at(&[1], 8192).is_err());
    disk.set_capacity(None);
    file.write_all_at(&[1], 8192).unwrap();
    drop(file);
    fs::remove_file(root.join("f")).unwrap();
    assert_eq!(disk.used(), 0);
}

#[test]
fn calls_fail_fall_short_hang_and_lie_as_they_are_told_to() {
    let Some(Mounted { disk, backing, root, .. }) = &Mounted::new(Options::default()) else { return };
    let path = root.join("d/f");
    fs::create_dir(root.join("d")).unwrap();
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    let short = disk.times(1, On::Write, "*/f", Effect::Short(3));
    assert_eq!(file.write(b"abcdef").unwrap(), 3);
    disk.faults().clear(short);
    file.write_all_at(&[7; 3 * 4096], 0).unwrap();
    file.sync_all().unwrap();

    for (on, others) in [(On::Read, On::Write), (On::Write, On::Read)] {
        let id = disk.always(on, "d/*", Effect::Fail(Errno::IO));
        disk.always(others, "elsewhere", Effect::Fail(Errno::IO));
        assert_eq!(file.read_at(&mut [0], 0).is_err(), on == On::Read);
        assert_eq!(file.write_at(&[7], 0).is_err(), on == On::Write);
        assert!(disk.faults().clear(id));
    }
    let name = disk.always(On::Name, "d/g", Effect::Fail(Errno::ROFS));
    assert!(File::create(root.join("d/g")).is_err());
    disk.faults().clear(name);

    let flip = disk.always(On::Read, "*", Effect::Flip { offset: 5000, mask: 0x81 });
    assert_eq!(fs::read(&path).unwrap()[5000], 7 ^ 0x81);
    disk.faults().clear(flip);
    assert_eq!(fs::read(&path).unwrap()[5000], 7);
    assert_eq!((disk.flip("d/f", 5000, 1).unwrap(), disk.flip("d/f", 1 << 20, 1).unwrap()), (1, 0));
    assert_eq!(fs::read(&path).unwrap()[5000], 6);
    disk.zero("*", 4096, 512).unwrap();
    assert_eq!(fs::read(&path).unwrap()[4090..4610], [vec![7; 6], vec![0; 512], vec![7; 2]].concat());

    disk.times(1, On::Sync, "*", Effect::Misdirect(1));
    file.write_all_at(&[8; 4096], 0).unwrap();
    file.sync_all().unwrap();
    disk.times(1, On::Sync, "*", Effect::Lose);
    file.write_all_at(&[9; 4096], 8192).unwrap();
    file.sync_all().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes, [[7; 4096], [8; 4096], [7; 4096]].concat());

    let delay = disk.times(1, On::Sync, "*", Effect::Delay(Duration::from_millis(1)));
    file.sync_all().unwrap();
    assert_eq!(disk.faults().hits(delay), 1);
    let hang = disk.always(On::Sync, "*", Effect::Hang);
    let waiting = std::thread::spawn(move || file.sync_all());
    while disk.faults().hanging() == 0 {
        std::thread::yield_now();
    }
    // Everything else goes on.
    fs::write(root.join("other"), "x").unwrap();
    assert!(!waiting.is_finished());
    disk.faults().clear(hang);
    waiting.join().unwrap().unwrap();
    assert!(!backing.join("other").exists());
}
