//! Which hash bucket a key belongs to.
//!
//! `slot = xxh3_64(directory(key), seed 0) mod 16384`, where the directory of a key is everything up
//! to and including its last `/` (empty when it has none). Keys of one directory therefore share a
//! slot, and a partition, and transactions among them need no second one. The hash is part of the
//! on-disk contract: version 1 of it, held by golden tests below.

use crate::wire_newtype;
use std::fmt;

/// How many slots a keyspace has; fixed for ever.
pub const SLOTS: u16 = 16_384;

/// One hash bucket, below [`SLOTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(
    /// The bare number.
    pub u16,
);

wire_newtype!(Slot);

impl Slot {
    /// The slot of `key`.
    pub fn of(key: &[u8]) -> Self {
        Self::of_hash(hash(directory(key)))
    }

    /// The slot of a directory or of a pinned prefix with this [`hash`].
    pub(crate) fn of_hash(hash: u64) -> Self {
        Self((hash % u64::from(SLOTS)) as u16)
    }
}

/// Version 1 of the hash: XXH3, 64 bits, seed 0.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(bytes)
}

impl Slot {
    /// The slot whose partition is the home of a lease: that of its number, 8 bytes big endian, hashed as a directory is.
    pub fn of_lease(lease: crate::LeaseId) -> Self {
        let hash = twox_hash::XxHash3_64::oneshot(&lease.get().to_be_bytes());
        Self((hash % u64::from(SLOTS)) as u16)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Everything of `key` up to and including its last `/`.
pub fn directory(key: &[u8]) -> &[u8] {
    match key.iter().rposition(|byte| *byte == b'/') {
        Some(last) => &key[..=last],
        None => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        // Golden: a change here moves every stored key to another partition.
        for (key, slot) in [("", 5314), ("a", 5314), ("/a", 5678), ("/registry/pods/default/web-0", 14548)] {
            assert_eq!(Slot::of(key.as_bytes()), Slot(slot), "{key}");
        }
    }

    #[test]
    fn keys_of_one_directory_share_a_slot() {
        assert_eq!(directory(b"/a/b/c"), b"/a/b/");
        assert_eq!(directory(b"/a/b/"), b"/a/b/");
        assert_eq!(directory(b"abc"), b"");
        assert_eq!(Slot::of(b"/a/b/c"), Slot::of(b"/a/b/d"));
        assert_ne!(Slot::of(b"/a/b/c"), Slot::of(b"/a/c/c"));
    }
}
