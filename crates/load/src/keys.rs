//! Which keys are asked for, and which of them are together.

use quorate_api::prefix_end;
use std::sync::Arc;

/// A set of numbered keys under a prefix; clones are the same.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
    count: u64,
    directories: u64,
    /// Directories of which a transaction takes a key each; empty where both are of one.
    pairs: Arc<Vec<(u64, u64)>>,
}

impl Keys {
    /// So many keys, spread over so many directories under the prefix. At least one of each.
    pub fn new(prefix: &str, count: u64, directories: u64) -> Self {
        Self {
            prefix: prefix.to_owned(),
            count: count.max(1),
            directories: directories.max(1),
            pairs: Arc::default(),
        }
    }

    /// The same, but transactions take their two keys from two directories each.
    pub fn with_pairs(mut self, pairs: Vec<(u64, u64)>) -> Self {
        self.pairs = Arc::new(pairs);
        self
    }

    /// What all of them begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Over how many directories.
    pub fn directories(&self) -> u64 {
        self.directories
    }

    /// The key of a number. In one directory it is ten digits behind the prefix.
    pub fn one(&self, number: u64) -> Vec<u8> {
        match self.directories {
            1 => format!("{}{number:010}", self.prefix).into_bytes(),
            _ => self.key_in(number % self.directories, number),
        }
    }

    /// Two keys for a transaction.
    pub fn two(&self, number: u64) -> [Vec<u8>; 2] {
        if self.pairs.is_empty() {
            let second = [self.one(number), b"-second".to_vec()].concat();
            return [self.one(number), second];
        }
        let (first, second) = self.pairs[(number % self.pairs.len() as u64) as usize];
        [self.key_in(first, number), self.key_in(second, number)]
    }

    /// So many keys in a row, in one directory: where they begin, and the first that is not one of them.
    pub fn row(&self, number: u64, keys: u64) -> (Vec<u8>, Vec<u8>) {
        // In a directory every `directories`th number.
        let directory = number % self.directories;
        let last = (self.count.saturating_sub(1).saturating_sub(directory)) / self.directories;
        let first = (number / self.directories).min((last + 1).saturating_sub(keys));
        let number_of = |at: u64| directory + at * self.directories;
        (self.one(number_of(first)), self.one(number_of(first + keys)))
    }

    /// All keys under the prefix: where they begin and end.
    pub fn all(&self) -> (Vec<u8>, Vec<u8>) {
        (self.prefix.clone().into_bytes(), prefix_end(self.prefix.as_bytes()))
    }

    fn key_in(&self, directory: u64, number: u64) -> Vec<u8> {
        format!("{}{directory:05}/{number:010}", self.prefix).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_one_directory_has_sixteen_bytes() {
        assert_eq!(Keys::new("bench/", 10_000, 1).one(17), b"bench/0000000017");
    }

    #[test]
    fn a_row_has_as_many_keys_as_asked_for_and_they_exist() {
        for directories in [1, 7] {
            let keys = Keys::new("k/", 1_000, directories);
            for number in 0..1_000 {
                let (from, to) = keys.row(number, 100);
                let inside = (0..1_000).filter(|other| (&from..&to).contains(&&keys.one(*other))).count();
                assert_eq!(inside, 100, "{number} of {directories}");
            }
        }
    }

    #[test]
    fn a_row_of_more_than_there_is_begins_at_the_first() {
        let keys = Keys::new("k/", 10, 1);
        assert_eq!(keys.row(7, 100).0, keys.one(0));
    }

    #[test]
    fn two_keys_differ_and_pairs_are_kept_apart() {
        let keys = Keys::new("k/", 10, 1);
        assert_ne!(keys.two(3)[0], keys.two(3)[1]);
        let [first, second] = keys.with_pairs(vec![(4, 5)]).two(3);
        assert!(first.starts_with(b"k/00004/") && second.starts_with(b"k/00005/"));
    }
}
