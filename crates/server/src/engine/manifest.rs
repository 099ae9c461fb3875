//! Which files of rows a tree has, `lsm-tree` writes into a file of its own, `vN`, and the checksum of that beside its name into `current`. It does not compare the two when it opens the tree: a bit of
//! that file that flips costs it rows without a word, or all the memory that there is. So they are compared here first.

use quorate_types::{Fault, Malformed};
use std::io::ErrorKind;
use std::path::Path;
use twox_hash::XxHash3_128;

/// The number of the file, its checksum, and by what that was made; little endian.
const CURRENT_BYTES: usize = 8 + 16 + 1;
/// The only one there is: XXH3, 128 bits.
const XXH3: u8 = 0;

/// Checks a tree that is not open.
///
/// # Errors
/// Damage, if the list is not what was written. A tree that cannot be read is a fault, one that is not there has nothing wrong.
pub(super) fn check(tree: &Path) -> Result<(), Fault> {
    // One that was being made when the process died has no tables, and is made anew.
    let has_tables =
        || std::fs::read_dir(tree.join("tables")).is_ok_and(|mut tables| tables.next().is_some());
    if tree.join("current").exists() || has_tables() { check_list(tree) } else { Ok(()) }
}

fn check_list(tree: &Path) -> Result<(), Fault> {
    let damaged =
        |what: &'static str| Fault::new(format!("opening the tree {}", tree.display()), Malformed(what));
    let read = |name: &str| {
        let path = tree.join(name);
        std::fs::read(&path).map_err(|error| {
            let doing = format!("reading {}", path.display());
            if error.kind() == ErrorKind::NotFound {
                Fault::damage(doing, error)
            } else {
                Fault::new(doing, error)
            }
        })
    };
    let current = read("current")?;
    let current: [u8; CURRENT_BYTES] =
        current.try_into().map_err(|_| damaged("which list of its tables counts"))?;
    let (number, rest) = current.split_at(8);
    let (checksum, kind) = rest.split_at(16);
    let number = number.iter().rev().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    let checksum = checksum.iter().rev().fold(0u128, |checksum, byte| (checksum << 8) | u128::from(*byte));
    let list = read(&format!("v{number}"))?;
    if kind != [XXH3] || XxHash3_128::oneshot(&list) != checksum {
        return Err(damaged("the list of its tables, whose checksum does not match"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::DiskEngine;
    use quorate_mvcc::engine::{Batch, Engine, Table};

    #[test]
    fn lists_that_are_not_what_was_written_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        check(&tree).unwrap();
        {
            let engine = DiskEngine::open(dir.path(), 1 << 20).unwrap();
            let mut batch = Batch::default();
            batch.put(Table::Version, vec![1], vec![2]);
            engine.write(batch).unwrap();
            engine.reclaim().unwrap();
        }
        check(&tree).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(&tree)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
            .filter(|name| name.starts_with('v'))
            .collect();
        names.sort_by_key(|name| name[1..].parse::<u64>().unwrap());
        for name in ["current", names.last().unwrap()] {
            let path = tree.join(name);
            let whole = std::fs::read(&path).unwrap();
            for at in 0..whole.len() {
                let mut damaged = whole.clone();
                damaged[at] ^= 4;
                std::fs::write(&path, damaged).unwrap();
                assert!(check(&tree).unwrap_err().is_damage(), "{name}, byte {at}");
            }
            std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
            assert!(check(&tree).unwrap_err().is_damage(), "{name} is short");
            std::fs::remove_file(&path).unwrap();
            assert!(check(&tree).unwrap_err().is_damage(), "{name} is gone");
            std::fs::write(&path, whole).unwrap();
        }
        check(&tree).unwrap();
    }
}
