//! Which keys are asked for, and which of them are together.

use crate::Failure;
use crate::point::Kind;
use quorate_load::Keys;
use quorate_types::{KeyspaceId, KeyspaceMap, Rules};

/// How many keys there are.
const KEYS: u64 = 10_000;
/// What they begin with; ten digits follow, so that a key has 16 bytes.
pub(crate) const PREFIX: &str = "bench/";
/// Directories that pairs are made of at least, so that these are many also with few partitions.
const PAIRED_MIN: u64 = 64;

/// The keys for a kind of load, over so many directories.
pub(crate) fn keys_for(kind: Kind, directories: u64, partitions: u32) -> Result<Keys, Failure> {
    let keys = Keys::new(PREFIX, KEYS, directories);
    match kind {
        Kind::Txn2 => Ok(keys.with_pairs(pairs(directories.max(PAIRED_MIN), partitions)?)),
        _ => Ok(keys),
    }
}

fn key_in(directory: u64, number: u64) -> Vec<u8> {
    format!("{PREFIX}{directory:05}/{number:010}").into_bytes()
}

/// A key in each partition of a new cluster.
pub(crate) fn one_each(partitions: u32) -> Result<Vec<Vec<u8>>, Failure> {
    Ok(one_of_each(partitions)?.into_iter().map(|(_, key)| key).collect())
}

/// The same, with the partitions' numbers.
pub(crate) fn one_of_each(partitions: u32) -> Result<Vec<(u32, Vec<u8>)>, Failure> {
    let map = KeyspaceMap::new(KeyspaceId::DEFAULT, "default", partitions, Rules::default(), None)?;
    let mut missing: Vec<_> = map.partitions.iter().collect();
    let mut keys = Vec::new();
    for directory in 0.. {
        let key = key_in(directory, 0);
        let slot = map.rules.slot(&key);
        if let Some(at) = missing.iter().position(|partition| partition.slots.contains(slot)) {
            let partition = missing.swap_remove(at);
            keys.push((partition.id.0, key));
        }
        if missing.is_empty() {
            break;
        }
    }
    Ok(keys)
}

/// Each directory with the next one that is in another partition, as a new cluster deals them.
fn pairs(directories: u64, partitions: u32) -> Result<Vec<(u64, u64)>, Failure> {
    let map = KeyspaceMap::new(KeyspaceId::DEFAULT, "default", partitions, Rules::default(), None)?;
    let partition_of = |directory: u64| {
        let slot = map.rules.slot(&key_in(directory, 0));
        map.partitions.iter().find(|partition| partition.slots.contains(slot)).map(|partition| partition.id)
    };
    let other = |first: u64| {
        let mut others = (1..directories).map(|further| (first + further) % directories);
        Some((first, others.find(|second| partition_of(*second) != partition_of(first))?))
    };
    let found: Vec<(u64, u64)> = (0..directories).filter_map(other).collect();
    if found.is_empty() {
        return Err("txn2 is over two partitions: it needs --partitions 2 or more".into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_of_the_keys() {
        let keys = one_each(256).unwrap();
        let slots = keys.iter().map(|key| Rules::default().slot(key).0 / (16_384 / 256));
        let partitions: std::collections::BTreeSet<_> = slots.collect();
        assert_eq!((keys.len(), partitions.len()), (256, 256));
    }

    #[test]
    fn pairs_are_in_two_partitions_and_other_keys_in_their_directory() {
        let slot = |key: &[u8]| Rules::default().slot(key).0 / (16_384 / 16);
        let keys = keys_for(Kind::Txn2, 1, 16).unwrap();
        for number in 0..1_000 {
            let [first, second] = keys.two(number);
            assert_ne!(slot(&first), slot(&second), "{number}");
        }
        for directories in [1, 7] {
            let keys = keys_for(Kind::Txn, directories, 16).unwrap();
            for number in 0..1_000 {
                let [first, second] = keys.two(number);
                assert_ne!(first, second);
                assert_eq!(slot(&first), slot(&second), "{number}");
            }
        }
        assert!(keys_for(Kind::Txn2, 100, 1).is_err());
    }
}
