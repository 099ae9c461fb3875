//! Keys and ranges of keys, in byte order as in etcd.

use crate::wire_enum;
use bytes::Bytes;
use std::ops::Bound;

/// A client's key: any non-empty bytes.
pub type Key = Bytes;

/// Which keys a request means. etcd's pairs of (key, range_end) become this in `api`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// This key only.
    Single(Key),
    /// From the first, up to but without the second. Empty when the second is not larger.
    Between(Key, Key),
    /// This key and all after it.
    From(Key),
}

wire_enum!(KeyRange { 0 => Single(key), 1 => Between(start, end), 2 => From(start) });

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        Self::From(Bytes::new())
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        match prefix.iter().rposition(|byte| *byte != 0xff) {
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                Self::Between(prefix, end.into())
            }
            None => Self::From(prefix),
        }
    }

    /// The smallest key it could hold.
    pub fn start(&self) -> &Key {
        match self {
            Self::Single(key) => key,
            Self::Between(start, _) | Self::From(start) => start,
        }
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Single(single) => single == key,
            Self::Between(start, end) => start <= key && key < end.as_ref(),
            Self::From(start) => start <= key,
        }
    }

    /// Whether no key can lie in it.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Between(start, end) if end <= start)
    }

    /// Its bounds for an ordered map; an empty range gives bounds that are empty but in order.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            Self::Single(key) => (Bound::Included(key), Bound::Included(key)),
            Self::Between(start, end) if end <= start => (Bound::Included(start), Bound::Excluded(start)),
            Self::Between(start, end) => (Bound::Included(start), Bound::Excluded(end)),
            Self::From(start) => (Bound::Included(start), Bound::Unbounded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_what_begins_with_it_and_nothing_else() {
        let keys: [&[u8]; 8] = [b"a", b"a/", b"a/\xff", b"a/\xff\xff", b"a0", b"\xff", b"\xff\xff", b"b"];
        for prefix in [&b"a/"[..], b"a", b"\xff", b"a/\xff", b""] {
            let range = KeyRange::prefix(Bytes::copy_from_slice(prefix));
            for key in keys {
                assert_eq!(range.contains(key), key.starts_with(prefix), "{prefix:?} {key:?}");
            }
        }
    }

    #[test]
    fn an_inverted_range_is_empty_and_has_bounds_a_map_accepts() {
        let range = KeyRange::Between("b".into(), "a".into());
        assert!(range.is_empty());
        let map = std::collections::BTreeMap::from([(&b"b"[..], ()), (b"a", ())]);
        assert_eq!(map.range::<[u8], _>(range.bounds()).count(), 0);
    }
}
