//! The newest applied version of recently used keys, at the leader, so that evaluating a put reads nothing
//! from the store.
//!
//! Two generations: what is used goes to the young one; when that has taken half of the bytes allowed, the old
//! one is dropped and the young one becomes the old. That keeps roughly what was used last, bounded, with nothing
//! random in it. A key that does not exist is remembered too: creating keys is the common case.

use quorate_types::{Bytes, Key, KeyValue};
use std::collections::BTreeMap;

/// Counted for each key beside its bytes.
const OVERHEAD_BYTES: usize = 160;

/// Newest versions, bounded in bytes. Coherent because everything applied passes through [`Cache::put`].
#[derive(Debug, Default)]
pub(crate) struct Cache {
    young: BTreeMap<Key, Option<KeyValue>>,
    old: BTreeMap<Key, Option<KeyValue>>,
    young_bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.bytes_max);
    }

    /// The newest version, if it is known; the inner `None` is a key that does not exist.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<Option<KeyValue>> {
        if let Some(pair) = self.young.get(key) {
            return Some(pair.clone());
        }
        let (key, pair) = self.old.remove_entry(key)?;
        self.insert(key, pair.clone());
        Some(pair)
    }

    /// What the newest version is from now on.
    pub(crate) fn put(&mut self, key: &Key, pair: Option<&KeyValue>) {
        self.old.remove(key);
        // A slice would keep the whole entry that it was cut from in memory, and the bound would mean nothing.
        let key = Bytes::copy_from_slice(key);
        let pair = pair.map(|pair| KeyValue {
            key: key.clone(),
            value: Bytes::copy_from_slice(&pair.value),
            ..*pair
        });
        self.insert(key, pair);
    }

    fn insert(&mut self, key: Key, pair: Option<KeyValue>) {
        let bytes = size(&key, pair.as_ref());
        // One value that fills a good part of the cache would only drive out everything else.
        if bytes > self.bytes_max / 8 {
            if let Some(before) = self.young.remove(&key) {
                self.young_bytes -= size(&key, before.as_ref());
            }
            return;
        }
        self.young_bytes += bytes;
        if let Some(before) = self.young.insert(key.clone(), pair) {
            self.young_bytes -= size(&key, before.as_ref());
        }
        if self.young_bytes > self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

fn size(key: &Key, pair: Option<&KeyValue>) -> usize {
    OVERHEAD_BYTES + key.len() + pair.map_or(0, |pair| pair.value.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Revision;

    fn pair(key: &Key, version: u64, bytes: usize) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: vec![0; bytes].into(),
            create: Revision(2),
            modified: Revision(1 + version),
            version,
            lease: None,
        }
    }

    #[test]
    fn it_never_answers_with_an_older_version_and_stays_within_its_bytes() {
        let mut cache = Cache::new(64 << 10);
        for version in 1..200 {
            for number in 0..50u64 {
                let key = Bytes::from(format!("k{}", number * number % 61));
                let pair = pair(&key, version, (number * 40) as usize);
                cache.put(&key, Some(&pair));
                assert!(cache.get(&key).is_none_or(|found| found == Some(pair)));
                let held: usize = [&cache.young, &cache.old]
                    .iter()
                    .flat_map(|generation| generation.iter())
                    .map(|(key, pair)| size(key, pair.as_ref()))
                    .sum();
                assert!(held <= 64 << 10, "{held} bytes");
            }
        }
    }

    #[test]
    fn a_value_too_large_for_it_drives_out_its_own_older_version() {
        let mut cache = Cache::new(64 << 10);
        let key = Bytes::from("k");
        cache.put(&key, Some(&pair(&key, 1, 10)));
        cache.put(&key, Some(&pair(&key, 2, 60 << 10)));
        assert_eq!(cache.get(&key), None);
        cache.put(&key, None);
        assert_eq!(cache.get(&key), Some(None));
        // The older version may have reached the old generation in the meantime.
        for number in 0..100 {
            let other = Bytes::from(format!("other {number}"));
            cache.put(&other, Some(&pair(&other, 1, 200)));
        }
        assert!(cache.old.contains_key(&key));
        cache.put(&key, Some(&pair(&key, 3, 60 << 10)));
        assert_eq!(cache.get(&key), None);
    }
}
