//! The rows of the ordered store, to the byte. The same drawing is in `docs/store.md`.
//!
//! ```text
//! Version   keyspace u32 BE, escaped key, !revision u64 BE, !sub u32 BE  ->  Record, seal
//! Change    keyspace u32 BE, revision u64 BE, sub u32 BE                 ->  kind u8, slot u16 BE, key, seal
//! State     keyspace u32 BE, partition u32 BE, name                      ->  value, seal
//! ```
//!
//! * All partitions of a keyspace share one ordered key space and one change feed: revisions are unique in a keyspace, so
//!   their stamps never collide. Which partition a row belongs to is told by its slot, so that a partition is split without
//!   moving a row, a range over many partitions is one scan, and the changes of a keyspace stand in one order.
//! * An escaped key is the key with each 0x00 written as 0x00 0xFF, and 0x00 0x01 behind it. Escaped
//!   keys sort as the keys do, and none begins another, so that the versions of a key stand together.
//! * Revision and sub are inverted in Version, so that a scan meets the newest version of a key first.
//! * A seal is four bytes, big endian: the CRC32C of the table's tag (one byte), the whole row key and the
//!   value before the seal. It is verified whenever a value is used, whatever the engine below does:
//!   a value that rotted, or that belongs under another key, is a [`Fault`] and is never served.

use crate::engine::{RowRange, Table};
use quorate_types::{
    Bytes, Decode, Encode, Fault, GroupId, Key, KeyRange, KeyspaceId, Malformed, PartitionId, Record,
    Revision, SLOTS, Slot, Stamp,
};
use std::ops::Bound;

/// Bytes of the prefix of a row of Version or Change: the keyspace.
pub const KEYSPACE_BYTES: usize = 4;
/// Bytes of the prefix of a row of State: the group.
pub const GROUP_BYTES: usize = 8;
/// Bytes that the name of a state row about a key may have in front of the key (`leased/` and a lease's id are 15).
pub const STATE_NAME_BYTES_MAX: usize = 32;
/// Bytes of a stamp at the end of a version's row key.
const STAMP_BYTES: usize = 12;
/// Bytes of a seal.
const SEAL_BYTES: usize = 4;
/// Bytes of kind and slot before a changed key.
const CHANGE_BYTES: usize = 3;
/// Behind an escaped key.
const TERMINATOR: [u8; 2] = [0, 1];
/// Nothing sorts between a key's terminator and this: after a 0x00 comes only 0x01 or 0xFF.
const PAST_TERMINATOR: [u8; 2] = [0, 2];

/// Stands in the place of a partition in state rows that are about all of a node's partitions of a keyspace together. No
/// partition has this number.
pub const EVERY_PARTITION: PartitionId = PartitionId(u32::MAX);

/// What a change row says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The key got a value.
    Put,
    /// The key went away.
    Delete,
}

/// How many bytes the rows of a table begin with that tell keyspaces, or groups, apart.
pub fn prefix_bytes(table: Table) -> usize {
    match table {
        Table::Version | Table::Change => KEYSPACE_BYTES,
        Table::State => GROUP_BYTES,
    }
}

/// What the rows begin with among which those of `group` are.
fn prefix(table: Table, group: GroupId) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(GROUP_BYTES);
    prefix.extend_from_slice(&group.keyspace.0.to_be_bytes());
    prefix.extend_from_slice(&group.partition.0.to_be_bytes());
    prefix.truncate(prefix_bytes(table));
    prefix
}

/// The end of the keyspace's versions, or changes.
fn keyspace_end(keyspace: KeyspaceId) -> Bound<Bytes> {
    match keyspace.0.checked_add(1) {
        Some(next) => Bound::Excluded(Bytes::copy_from_slice(&next.to_be_bytes())),
        None => Bound::Unbounded,
    }
}

/// The end of the rows among which those of `group` are.
fn end(table: Table, group: GroupId) -> Bound<Bytes> {
    let raw = (u64::from(group.keyspace.0) << 32) | u64::from(group.partition.0);
    match (table, raw.checked_add(1)) {
        (Table::Version | Table::Change, _) => keyspace_end(group.keyspace),
        (Table::State, Some(next)) => Bound::Excluded(Bytes::copy_from_slice(&next.to_be_bytes())),
        (Table::State, None) => Bound::Unbounded,
    }
}

/// The rows of a table among which those of `group` are: its own in State, those of its whole keyspace elsewhere.
pub fn rows(table: Table, group: GroupId) -> RowRange {
    (Bound::Included(Bytes::from(prefix(table, group))), end(table, group))
}

/// The part of [`rows`] behind the row of `suffix`, which is without the prefix.
pub fn rows_after(table: Table, group: GroupId, suffix: &[u8]) -> RowRange {
    (Bound::Excluded(with_suffix(table, group, suffix)), end(table, group))
}

/// The table's prefix for `group`, and then `suffix`.
pub fn with_suffix(table: Table, group: GroupId, suffix: &[u8]) -> Bytes {
    let mut row = prefix(table, group);
    row.extend_from_slice(suffix);
    Bytes::from(row)
}

/// The slot of a row of Version or Change, from its opened value.
pub fn slot(table: Table, value: &Bytes) -> Result<Slot, Malformed> {
    match table {
        Table::Version => Ok(Record::from_bytes(value.clone())?.slot()),
        Table::Change => split_change_value(value).map(|(_, slot, _)| slot),
        Table::State => Err(Malformed("the slot of a state row, which has none")),
    }
}

/// Keyspace, escaped key and `ending`, with room for a stamp.
fn named(keyspace: KeyspaceId, key: &[u8], ending: [u8; 2]) -> Vec<u8> {
    let mut row = Vec::with_capacity(KEYSPACE_BYTES + key.len() + 2 + STAMP_BYTES);
    row.extend_from_slice(&keyspace.0.to_be_bytes());
    for byte in key {
        row.push(*byte);
        if *byte == 0 {
            row.push(0xff);
        }
    }
    row.extend_from_slice(&ending);
    row
}

fn push_stamp(row: &mut Vec<u8>, stamp: Stamp) {
    row.extend_from_slice(&(!stamp.revision.0).to_be_bytes());
    row.extend_from_slice(&(!stamp.sub).to_be_bytes());
}

/// How long the longest row key is that `key` may come to stand in, be it of a version or of a state row about the key;
/// over [`crate::engine::ROW_KEY_BYTES_MAX`] the key cannot be written.
pub fn longest_row_bytes(key: &[u8]) -> usize {
    let escapes = key.iter().filter(|byte| **byte == 0).count();
    let version = KEYSPACE_BYTES + key.len() + escapes + TERMINATOR.len() + STAMP_BYTES;
    version.max(GROUP_BYTES + STATE_NAME_BYTES_MAX + key.len())
}

/// The row of the version of `key` that `stamp` made.
pub fn version_row(keyspace: KeyspaceId, key: &[u8], stamp: Stamp) -> Bytes {
    let mut row = named(keyspace, key, TERMINATOR);
    push_stamp(&mut row, stamp);
    Bytes::from(row)
}

/// The versions of all keys of `range`, each key's newest first.
pub fn version_rows(keyspace: KeyspaceId, range: &KeyRange) -> RowRange {
    let start = Bound::Included(Bytes::from(named(keyspace, range.start(), TERMINATOR)));
    let end = match range {
        KeyRange::Single(key) => Bound::Excluded(Bytes::from(named(keyspace, key, PAST_TERMINATOR))),
        // An ordered map panics on a range whose end lies before its start, so an empty one is made of equals.
        KeyRange::Between(start, end) => {
            Bound::Excluded(Bytes::from(named(keyspace, start.max(end), TERMINATOR)))
        }
        KeyRange::From(_) => keyspace_end(keyspace),
    };
    (start, end)
}

/// The versions of `key` made at or before `at`, newest first.
pub fn version_rows_at(keyspace: KeyspaceId, key: &[u8], at: Revision) -> RowRange {
    let newest = version_row(keyspace, key, Stamp { revision: at, sub: u32::MAX });
    (Bound::Included(newest), Bound::Excluded(Bytes::from(named(keyspace, key, PAST_TERMINATOR))))
}

/// The versions of `key` made before `stamp`, newest first.
pub fn version_rows_before(keyspace: KeyspaceId, key: &[u8], stamp: Stamp) -> RowRange {
    let row = version_row(keyspace, key, stamp);
    (Bound::Excluded(row), Bound::Excluded(Bytes::from(named(keyspace, key, PAST_TERMINATOR))))
}

/// A version's row key, taken apart without unescaping: what tells keys apart, and when.
pub(crate) fn split_version(row: &Bytes) -> Result<(Bytes, Stamp), Malformed> {
    if row.len() < KEYSPACE_BYTES + TERMINATOR.len() + STAMP_BYTES {
        return Err(Malformed("a version's row key, which is too short"));
    }
    let at = row.len() - STAMP_BYTES;
    let mut revision = [0; 8];
    revision.copy_from_slice(&row[at..at + 8]);
    let mut sub = [0; 4];
    sub.copy_from_slice(&row[at + 8..]);
    let stamp = Stamp { revision: Revision(!u64::from_be_bytes(revision)), sub: !u32::from_be_bytes(sub) };
    Ok((row.slice(..at), stamp))
}

/// The user's key in the first part of [`split_version`].
pub(crate) fn unescape(name: &Bytes) -> Result<Key, Malformed> {
    let Some(body) = name.len().checked_sub(TERMINATOR.len()).filter(|end| *end >= KEYSPACE_BYTES) else {
        return Err(Malformed("an escaped key, which is too short"));
    };
    if name[body..] != TERMINATOR {
        return Err(Malformed("an escaped key without its end"));
    }
    let escaped = name.slice(KEYSPACE_BYTES..body);
    if !escaped.contains(&0) {
        return Ok(escaped);
    }
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        key.push(*byte);
        if *byte == 0 && bytes.next() != Some(&0xff) {
            return Err(Malformed("an escaped zero"));
        }
    }
    Ok(Bytes::from(key))
}

/// Whether this can be the row key of a version.
pub fn check_version(row: &Bytes) -> Result<(), Malformed> {
    unescape(&split_version(row)?.0).map(|_| ())
}

/// Where the versions older than those made after `at` begin, for the key of [`split_version`].
pub(crate) fn seek_at(name: &Bytes, at: Revision) -> Bytes {
    let mut row = Vec::with_capacity(name.len() + STAMP_BYTES);
    row.extend_from_slice(name);
    push_stamp(&mut row, Stamp { revision: at, sub: u32::MAX });
    Bytes::from(row)
}

/// Where the next key's versions begin, after the key of [`split_version`].
pub(crate) fn seek_past(name: &Bytes) -> Bytes {
    let mut row = name.to_vec();
    let last = row.len() - 1;
    row[last] = PAST_TERMINATOR[1];
    Bytes::from(row)
}

/// The row of the change at `stamp`.
pub fn change_row(keyspace: KeyspaceId, stamp: Stamp) -> Bytes {
    let mut row = Vec::with_capacity(KEYSPACE_BYTES + STAMP_BYTES);
    row.extend_from_slice(&keyspace.0.to_be_bytes());
    row.extend_from_slice(&stamp.revision.0.to_be_bytes());
    row.extend_from_slice(&stamp.sub.to_be_bytes());
    Bytes::from(row)
}

/// The changes from `from` on.
pub fn change_rows(keyspace: KeyspaceId, from: Revision) -> RowRange {
    (Bound::Included(change_row(keyspace, Stamp { revision: from, sub: 0 })), keyspace_end(keyspace))
}

/// When the change of this row happened.
pub fn split_change(row: &Bytes) -> Result<Stamp, Malformed> {
    if row.len() != KEYSPACE_BYTES + STAMP_BYTES {
        return Err(Malformed("a change's row key"));
    }
    let mut revision = [0; 8];
    revision.copy_from_slice(&row[KEYSPACE_BYTES..KEYSPACE_BYTES + 8]);
    let mut sub = [0; 4];
    sub.copy_from_slice(&row[KEYSPACE_BYTES + 8..]);
    Ok(Stamp { revision: Revision(u64::from_be_bytes(revision)), sub: u32::from_be_bytes(sub) })
}

/// The value of a change row, before its seal.
pub fn change_value(kind: ChangeKind, slot: Slot, key: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(CHANGE_BYTES + key.len() + SEAL_BYTES);
    value.push(match kind {
        ChangeKind::Put => 0,
        ChangeKind::Delete => 1,
    });
    value.extend_from_slice(&slot.0.to_be_bytes());
    value.extend_from_slice(key);
    value
}

/// What a change row's opened value says.
pub fn split_change_value(value: &Bytes) -> Result<(ChangeKind, Slot, Key), Malformed> {
    let [kind, high, low, ..] = value[..] else { return Err(Malformed("a change, which is too short")) };
    let kind = match kind {
        0 => ChangeKind::Put,
        1 => ChangeKind::Delete,
        _ => return Err(Malformed("the kind of a change")),
    };
    let slot = Slot(u16::from_be_bytes([high, low]));
    if slot.0 >= SLOTS {
        return Err(Malformed("the slot of a change"));
    }
    Ok((kind, slot, value.slice(CHANGE_BYTES..)))
}

/// The row of the state of this name.
pub fn state_row(group: GroupId, name: &[u8]) -> Bytes {
    with_suffix(Table::State, group, name)
}

/// Whose state the row is of.
pub fn split_state(row: &Bytes) -> Result<GroupId, Malformed> {
    let Some(prefix) = row.get(..GROUP_BYTES).and_then(|prefix| <[u8; GROUP_BYTES]>::try_from(prefix).ok())
    else {
        return Err(Malformed("a state's row key, which is too short"));
    };
    let raw = u64::from_be_bytes(prefix);
    Ok(GroupId { keyspace: KeyspaceId((raw >> 32) as u32), partition: PartitionId(raw as u32) })
}

/// The state rows whose names begin with `name`, which must not be empty or end in 0xFF.
pub fn state_rows(group: GroupId, name: &[u8]) -> RowRange {
    let mut end = name.to_vec();
    match end.last_mut() {
        Some(last) if *last < u8::MAX => *last += 1,
        _ => panic!("state rows are listed by a name that has a successor, not by {name:?}"),
    }
    (Bound::Included(state_row(group, name)), Bound::Excluded(state_row(group, &end)))
}

fn tag(table: Table) -> u8 {
    match table {
        Table::Version => 0,
        Table::Change => 1,
        Table::State => 2,
    }
}

fn checksum(table: Table, row: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[tag(table)]), row);
    crc32c::crc32c_append(crc, value)
}

/// Puts the seal behind a value that is to stand under `row`.
pub fn seal(table: Table, row: &[u8], mut value: Vec<u8>) -> Bytes {
    let crc = checksum(table, row, &value);
    value.extend_from_slice(&crc.to_be_bytes());
    Bytes::from(value)
}

/// The value before the seal, or why it cannot be trusted.
pub fn unseal(table: Table, row: &[u8], sealed: Bytes) -> Result<Bytes, Malformed> {
    let Some(end) = sealed.len().checked_sub(SEAL_BYTES) else {
        return Err(Malformed("a row's checksum, which is missing"));
    };
    if checksum(table, row, &sealed[..end]).to_be_bytes() != sealed[end..] {
        return Err(Malformed("a row whose checksum does not match"));
    }
    Ok(sealed.slice(..end))
}

/// The fault of a stored row that is not what was written.
pub fn damaged(table: Table, row: &[u8], cause: Malformed) -> Fault {
    Fault::new(format!("reading row {} of table {table:?}", hex(row)), cause)
}

/// The value before the seal; a fault when it does not match.
pub fn open(table: Table, row: &[u8], sealed: Bytes) -> Result<Bytes, Fault> {
    unseal(table, row, sealed).map_err(|cause| damaged(table, row, cause))
}

/// Opens and decodes a row's value.
pub fn decode<T: Decode>(table: Table, row: &[u8], sealed: Bytes) -> Result<T, Fault> {
    T::from_bytes(open(table, row, sealed)?).map_err(|cause| damaged(table, row, cause))
}

/// Encodes and seals a row's value.
pub fn encode<T: Encode>(table: Table, row: &[u8], value: &T) -> Bytes {
    seal(table, row, value.encoded_with_room(SEAL_BYTES))
}

fn hex(bytes: &[u8]) -> String {
    // A row key may be a megabyte; an operator needs to tell rows apart, not to read it.
    const SHOWN_MAX: usize = 64;
    let mut text: String = bytes.iter().take(SHOWN_MAX).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > SHOWN_MAX {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId::FIRST;
    const KEYSPACE: KeyspaceId = GROUP.keyspace;

    fn keys() -> Vec<Bytes> {
        // Every key of up to three bytes over an alphabet that holds all bytes the escape treats apart.
        let alphabet = [0u8, 1, 2, b'a', 0xfe, 0xff];
        let mut keys = vec![Bytes::new()];
        let mut last = vec![Vec::new()];
        for _ in 0..3 {
            last = last
                .iter()
                .flat_map(|key: &Vec<u8>| alphabet.iter().map(|byte| [key.as_slice(), &[*byte]].concat()))
                .collect();
            keys.extend(last.iter().cloned().map(Bytes::from));
        }
        keys.sort();
        keys
    }

    #[test]
    fn rows_sort_by_key_and_then_newest_first() {
        let stamps = [(9, 1), (9, 0), (8, 7), (1, 0)]
            .map(|(revision, sub)| Stamp { revision: Revision(revision), sub });
        let rows: Vec<Bytes> =
            keys().iter().flat_map(|key| stamps.map(|stamp| version_row(KEYSPACE, key, stamp))).collect();
        assert!(rows.is_sorted());
        for (row, (key, stamp)) in
            rows.iter().zip(keys().iter().flat_map(|key| stamps.map(|stamp| (key.clone(), stamp))))
        {
            let (name, found) = split_version(row).unwrap();
            assert_eq!((unescape(&name).unwrap(), found), (key, stamp));
        }
    }

    #[test]
    fn ranges_of_rows_hold_exactly_the_ranges_of_keys() {
        use std::ops::RangeBounds;
        let keys = keys();
        let some: Vec<&Bytes> = keys.iter().step_by(7).collect();
        let mut ranges: Vec<KeyRange> = some.iter().map(|key| KeyRange::From((*key).clone())).collect();
        ranges.extend(some.iter().map(|key| KeyRange::Single((*key).clone())));
        for start in &some {
            ranges.extend(some.iter().map(|end| KeyRange::Between((*start).clone(), (*end).clone())));
        }
        for range in ranges {
            let rows = version_rows(KEYSPACE, &range);
            for key in &keys {
                let row = version_row(KEYSPACE, key, Stamp { revision: Revision(5), sub: 3 });
                assert_eq!(rows.contains(&row), range.contains(key), "{range:?} {key:?}");
            }
        }
    }

    #[test]
    fn groups_do_not_see_each_others_state_nor_keyspaces_each_others_keys() {
        use std::ops::RangeBounds;
        let last = GroupId { keyspace: KeyspaceId(u32::MAX), partition: PartitionId(u32::MAX) };
        let edge = GroupId { keyspace: KeyspaceId(1), partition: PartitionId(u32::MAX) };
        let groups = [GroupId::META, GROUP, edge, last];
        for owner in groups {
            for (table, suffix) in
                [(Table::State, &b"\xff\xff"[..]), (Table::Version, b"\0\xff"), (Table::Change, b"\0")]
            {
                let row = with_suffix(table, owner, suffix);
                for reader in groups {
                    let shares = match table {
                        Table::State => reader == owner,
                        _ => reader.keyspace == owner.keyspace,
                    };
                    assert_eq!(rows(table, reader).contains(&row), shares, "{reader} {owner} {table:?}");
                    assert!(!rows_after(table, reader, suffix).contains(&row), "{reader} {owner} {table:?}");
                }
            }
        }
    }

    #[test]
    fn every_row_of_a_key_that_may_be_written_is_short_enough() {
        for (key, bytes) in [(vec![b'k'; 100], 140), (vec![0; 100], 218)] {
            assert_eq!(longest_row_bytes(&key), bytes);
            let version = version_row(KEYSPACE, &key, Stamp::default());
            let state = state_row(GROUP, &[&[b'x'; STATE_NAME_BYTES_MAX], &key[..]].concat());
            assert_eq!(version.len().max(state.len()), bytes);
        }
    }

    #[test]
    fn a_change_is_read_back_and_a_damaged_one_is_refused() {
        let slot = Slot(SLOTS - 1);
        for (kind, key) in [(ChangeKind::Put, &b""[..]), (ChangeKind::Delete, b"k\0")] {
            let value = Bytes::from(change_value(kind, slot, key));
            assert_eq!(split_change_value(&value), Ok((kind, slot, Bytes::copy_from_slice(key))));
        }
        for bad in [&[][..], &[0, 0], &[2, 0, 0, b'k'], &[0, 0x40, 0, b'k']] {
            assert!(split_change_value(&Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_that_rotted_or_moved_is_not_opened() {
        let row = state_row(GROUP, b"head");
        let sealed = seal(Table::State, &row, b"value".to_vec());
        assert_eq!(unseal(Table::State, &row, sealed.clone()).as_deref(), Ok(&b"value"[..]));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(Table::State, &row, flipped.into()).is_err(), "bit {bit}");
        }
        assert!(unseal(Table::Change, &row, sealed.clone()).is_err());
        assert!(unseal(Table::State, &state_row(GROUP, b"heat"), sealed.clone()).is_err());
        assert!(unseal(Table::State, &row, sealed.slice(..3)).is_err());
    }

    #[test]
    fn the_layout_never_changes() {
        // Golden: a change here orphans every stored row.
        let row = version_row(KEYSPACE, b"a\0", Stamp { revision: Revision(2), sub: 1 });
        assert_eq!(hex(&row), "000000016100ff0001fffffffffffffffdfffffffe");
        let row = change_row(KEYSPACE, Stamp { revision: Revision(2), sub: 1 });
        assert_eq!(hex(&row), "00000001000000000000000200000001");
        let sealed = seal(Table::Change, &row, change_value(ChangeKind::Delete, Slot(5314), b"a"));
        assert_eq!(hex(&sealed[..4]), "0114c261");
        assert_eq!(split_state(&state_row(GROUP, b"")), Ok(GROUP));
        assert_eq!(hex(&state_row(GROUP, b"head")), "000000010000000068656164");
    }
}
