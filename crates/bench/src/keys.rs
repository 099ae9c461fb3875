//! Which keys are asked for, and which of them are together.

use crate::Failure;
use crate::point::Kind;
use quorate_types::{KeyspaceId, KeyspaceMap, Rules};
use std::sync::Arc;

/// How many keys there are.
pub(crate) const KEYS: u64 = 10_000;
/// Directories that pairs are made of at least, so that these are many also with few partitions.
const PAIRED_MIN: u64 = 64;

/// The keys of a point; clones are the same.
#[derive(Clone)]
pub(crate) struct Keys {
    directories: u64,
    /// Directories that are in different partitions. Empty where one key, or two of one directory, are asked for.
    pairs: Arc<Vec<(u64, u64)>>,
}

impl Keys {
    /// The keys for a kind of load, over so many directories.
    pub(crate) fn new(kind: Kind, directories: u64, partitions: u32) -> Result<Self, Failure> {
        let pairs =
            if kind == Kind::Txn2 { pairs(directories.max(PAIRED_MIN), partitions)? } else { Vec::new() };
        Ok(Self { directories, pairs: Arc::new(pairs) })
    }

    /// With one directory as it was before there were partitions, so that figures can be compared.
    pub(crate) fn one(&self, number: u64) -> Vec<u8> {
        match self.directories {
            1 => format!("bench/{number:010}").into_bytes(),
            _ => key_in(number % self.directories, number),
        }
    }

    /// Two keys for a transaction.
    pub(crate) fn two(&self, number: u64) -> [Vec<u8>; 2] {
        if self.pairs.is_empty() {
            let second = [self.one(number), b"-second".to_vec()].concat();
            return [self.one(number), second];
        }
        let (first, second) = self.pairs[(number % self.pairs.len() as u64) as usize];
        [key_in(first, number), key_in(second, number)]
    }
}

fn key_in(directory: u64, number: u64) -> Vec<u8> {
    format!("bench/{directory:05}/{number:010}").into_bytes()
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
        let keys = Keys::new(Kind::Txn2, 1, 16).unwrap();
        for number in 0..1_000 {
            let [first, second] = keys.two(number);
            assert_ne!(slot(&first), slot(&second), "{number}");
        }
        for directories in [1, 7] {
            let keys = Keys::new(Kind::Txn, directories, 16).unwrap();
            for number in 0..1_000 {
                let [first, second] = keys.two(number);
                assert_ne!(first, second);
                assert_eq!(slot(&first), slot(&second), "{number}");
            }
        }
        assert!(Keys::new(Kind::Txn2, 100, 1).is_err());
    }
}
