//! Placement rules of a keyspace: which keys are not in the slot of their directory.
//!
//! Without a rule a key is in the slot of its directory ([`Slot::of`]). Two rules change that:
//!
//! * A *pin* keeps a whole subtree together: every key that begins with the prefix is in the slot of the
//!   prefix, sub-directories too. Of several pins a key begins with, the longest holds.
//! * A *spread* takes one flat directory apart: its direct keys go to `2^bits` slots, evenly spaced from the
//!   slot of the directory on, by the first bits of the hash of the whole key. Its sub-directories stay as they are.
//!
//! Invariants, held by [`Rules::new`], which decoding goes through too:
//!
//! * No key is meant by both a pin and a spread, so no order among rules matters.
//! * No two pins have one prefix, no two spreads one directory.
//! * At most [`RULES_MAX`] rules; names of at most [`PREFIX_BYTES_MAX`].
//!
//! How it is fast: the pins, ranges of keys that nest or lie apart, are laid out flat as *edges*, the keys where
//! the innermost pin changes. The last edge at or before a key tells its pin: one search however deep they nest.
//! Spreads are sorted by the hash of their directory, which is needed for the slot in any case.
//!
//! Caveats. Changing the rules of a keyspace that has keys moves keys between slots; nothing here does that.
//! The edges take up to twice the bytes of the prefixes, and prefixes nested at the limits as much again for finding
//! them fast: some MiB.
//!
//! `docs/placement-of-keys.md` has it to the byte.

use crate::codec::Output;
use crate::slot::{self, SLOTS, Slot};
use crate::{Decode, Encode, Input, KeyRange, Malformed, wire_enum};
use bytes::Bytes;
use std::fmt;

/// Rules in one keyspace; more are refused.
pub const RULES_MAX: usize = 1024;
/// Bytes in a rule's prefix or directory; longer ones are refused.
pub const PREFIX_BYTES_MAX: usize = 1024;
/// A spread over `2^14` slots uses all of them.
pub const SPREAD_BITS_MAX: u8 = 14;

/// One exception from placing a key by its directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Every key that begins with `prefix` is in the slot of the prefix.
    Pin {
        /// Not empty; need not end in `/`.
        prefix: Bytes,
    },
    /// The keys directly in `directory` are dealt out over `2^bits` slots.
    Spread {
        /// Ends in `/`, or is empty: the keys without a `/`.
        directory: Bytes,
        /// From 1 to [`SPREAD_BITS_MAX`].
        bits: u8,
    },
}

wire_enum!(Rule { 0 => Pin { prefix }, 1 => Spread { directory, bits } });

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// More than [`RULES_MAX`].
    TooMany {
        /// How many there are.
        rules: usize,
    },
    /// A prefix or directory over [`PREFIX_BYTES_MAX`].
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// A pin of every key: that is a keyspace with one partition.
    PinEmpty,
    /// A spread of something that does not end in `/`.
    NotADirectory {
        /// What it is.
        directory: Bytes,
    },
    /// Bits of a spread that are none, or more than slots have.
    BitsOutOfRange {
        /// Of which directory.
        directory: Bytes,
        /// How many were asked for.
        bits: u8,
    },
    /// Two pins of one prefix.
    PinnedTwice {
        /// The prefix.
        prefix: Bytes,
    },
    /// Two spreads of one directory.
    SpreadTwice {
        /// The directory.
        directory: Bytes,
    },
    /// All keys of a spread directory begin with a pinned prefix: the pin keeps together what the spread takes apart.
    SpreadInsidePin {
        /// The spread's directory.
        directory: Bytes,
        /// The pin's prefix.
        prefix: Bytes,
    },
    /// Some keys directly in a spread directory begin with a pinned prefix.
    PinInsideSpread {
        /// The pin's prefix.
        prefix: Bytes,
        /// The spread's directory.
        directory: Bytes,
    },
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { rules } => write!(f, "{rules} placement rules are over the limit of {RULES_MAX}"),
            Self::TooLong { bytes } => {
                write!(
                    f,
                    "the prefix of a placement rule has {bytes} bytes, over the limit of {PREFIX_BYTES_MAX}"
                )
            }
            Self::PinEmpty => write!(f, "a pin of the empty prefix: use one partition instead"),
            Self::NotADirectory { directory } => {
                write!(f, "spread of \"{}\", which does not end in '/'", directory.escape_ascii())
            }
            Self::BitsOutOfRange { directory, bits } => {
                let directory = directory.escape_ascii();
                write!(
                    f,
                    "spread of \"{directory}\" by {bits} bits, which are not from 1 to {SPREAD_BITS_MAX}"
                )
            }
            Self::PinnedTwice { prefix } => write!(f, "two pins of \"{}\"", prefix.escape_ascii()),
            Self::SpreadTwice { directory } => write!(f, "two spreads of \"{}\"", directory.escape_ascii()),
            Self::SpreadInsidePin { directory, prefix } => {
                let (directory, prefix) = (directory.escape_ascii(), prefix.escape_ascii());
                write!(f, "spread of \"{directory}\", whose keys the pin of \"{prefix}\" keeps in one slot")
            }
            Self::PinInsideSpread { prefix, directory } => {
                let (prefix, directory) = (prefix.escape_ascii(), directory.escape_ascii());
                write!(f, "pin of \"{prefix}\", which keys directly in the spread \"{directory}\" begin with")
            }
        }
    }
}

impl std::error::Error for RuleError {}

/// The rules of one keyspace, ready for looking keys up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// In order, whatever order they were given in.
    list: Vec<Rule>,
    pins: Pins,
    /// Ascending by hash, then directory.
    spreads: Vec<Spread>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Spread {
    hash: u64,
    directory: Bytes,
    bits: u8,
}

impl Rules {
    /// Checks `rules` and makes them ready. Their order does not matter.
    pub fn new(mut rules: Vec<Rule>) -> Result<Self, RuleError> {
        if rules.len() > RULES_MAX {
            return Err(RuleError::TooMany { rules: rules.len() });
        }
        rules.sort();
        let mut prefixes = Vec::new();
        let mut spreads = Vec::new();
        for rule in &rules {
            match rule {
                Rule::Pin { prefix } => prefixes.push(prefix.clone()),
                Rule::Spread { directory, bits } => {
                    let (hash, directory) = (slot::hash(directory), directory.clone());
                    spreads.push(Spread { hash, directory, bits: *bits });
                }
            }
        }
        spreads.sort();
        check_alone(&prefixes, &spreads)?;
        let found = Self { list: rules, pins: Pins::new(&prefixes), spreads };
        found.check_together(&prefixes)?;
        Ok(found)
    }

    /// Refuses what keys of a spread and a pin would both claim: exactly when some key in the directory
    /// begins with the prefix.
    fn check_together(&self, prefixes: &[Bytes]) -> Result<(), RuleError> {
        for Spread { directory, .. } in &self.spreads {
            if self.pins.slot(directory).is_some() {
                let around = prefixes.iter().filter(|prefix| directory.starts_with(prefix));
                let prefix =
                    around.max_by_key(|prefix| prefix.len()).expect("a pin has a slot for it").clone();
                return Err(RuleError::SpreadInsidePin { directory: directory.clone(), prefix });
            }
        }
        for prefix in prefixes {
            let directory = slot::directory(prefix);
            if self.spread_of(slot::hash(directory), directory).is_some() {
                let directory = prefix.slice(..directory.len());
                return Err(RuleError::PinInsideSpread { prefix: prefix.clone(), directory });
            }
        }
        Ok(())
    }

    /// The rules, pins first, in byte order.
    pub fn list(&self) -> &[Rule] {
        &self.list
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The slot of `key`.
    pub fn slot(&self, key: &[u8]) -> Slot {
        if let Some(slot) = self.pins.slot(key) {
            return slot;
        }
        let directory = slot::directory(key);
        let hash = slot::hash(directory);
        let base = Slot::of_hash(hash);
        match self.spread_of(hash, directory) {
            None => base,
            Some(bits) => {
                let part = slot::hash(key) >> (64 - u32::from(bits));
                let step = (part * u64::from(SLOTS)) >> bits;
                Slot(((u64::from(base.0) + step) % u64::from(SLOTS)) as u16)
            }
        }
    }

    /// The slot that every possible key of `range` has, if there is one: a single key, or a range within a
    /// pin. A prefix alone has none, for sub-directories hash elsewhere. An empty range is where its start is.
    /// `None` is also the answer for a handful of keys like `a` up to `a\0\0`, wherever they are.
    pub fn slot_of_range(&self, range: &KeyRange) -> Option<Slot> {
        match range {
            KeyRange::Single(key) => Some(self.slot(key)),
            KeyRange::Between(start, end) if end <= start || is_next(start, end) => Some(self.slot(start)),
            KeyRange::Between(start, end) => self.pins.slot_between(start, Some(end)),
            KeyRange::From(start) => self.pins.slot_between(start, None),
        }
    }

    /// Over how many bits the keys directly in `directory` are spread.
    fn spread_of(&self, hash: u64, directory: &[u8]) -> Option<u8> {
        let first = self.spreads.partition_point(|spread| spread.hash < hash);
        let same = self.spreads[first..].iter().take_while(|spread| spread.hash == hash);
        same.into_iter().find(|spread| spread.directory == directory).map(|spread| spread.bits)
    }
}

impl Encode for Rules {
    fn encode(&self, out: &mut impl Output) {
        self.list.encode(out);
    }
}

impl Decode for Rules {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        Self::new(Vec::decode(input)?).map_err(|_| Malformed("placement rules that agree"))
    }
}

/// Whether no key lies between `key` and `next`: it is the very next one in byte order.
fn is_next(key: &[u8], next: &[u8]) -> bool {
    next.strip_prefix(key) == Some(&[0])
}

/// What can be wrong with pins or spreads by themselves; both lists are sorted.
fn check_alone(prefixes: &[Bytes], spreads: &[Spread]) -> Result<(), RuleError> {
    let names = prefixes.iter().chain(spreads.iter().map(|spread| &spread.directory));
    if let Some(long) = names.into_iter().find(|name| name.len() > PREFIX_BYTES_MAX) {
        return Err(RuleError::TooLong { bytes: long.len() });
    }
    if prefixes.first().is_some_and(|prefix| prefix.is_empty()) {
        return Err(RuleError::PinEmpty);
    }
    for Spread { directory, bits, .. } in spreads {
        if directory.last().is_some_and(|byte| *byte != b'/') {
            return Err(RuleError::NotADirectory { directory: directory.clone() });
        }
        if !(1..=SPREAD_BITS_MAX).contains(bits) {
            return Err(RuleError::BitsOutOfRange { directory: directory.clone(), bits: *bits });
        }
    }
    if let Some(twice) = prefixes.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(RuleError::PinnedTwice { prefix: twice[0].clone() });
    }
    if let Some(twice) = spreads.windows(2).find(|pair| pair[0].directory == pair[1].directory) {
        return Err(RuleError::SpreadTwice { directory: twice[0].directory.clone() });
    }
    Ok(())
}

/// The pins, laid out flat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pins {
    /// Ascending; from each one's key on, up to the next one's, its slot holds.
    edges: Vec<Edge>,
    /// Finds a key's place among all of them.
    index: Run,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    from: Bytes,
    /// The slot of the innermost pin, or none outside of all.
    slot: Option<Slot>,
}

impl Pins {
    /// Lays out `prefixes`, which ascend and are distinct.
    fn new(prefixes: &[Bytes]) -> Self {
        let mut edges = Vec::new();
        // The pins we are inside of, innermost last, each with the first key behind it.
        let mut inside: Vec<(Option<Bytes>, Slot)> = Vec::new();
        for prefix in prefixes {
            while let Some(end) = inside.last().and_then(|(end, _)| end.clone()).filter(|end| end <= prefix) {
                inside.pop();
                put(&mut edges, end, inside.last().map(|(_, slot)| *slot));
            }
            let slot = Slot::of_hash(slot::hash(prefix));
            put(&mut edges, prefix.clone(), Some(slot));
            inside.push((end_of(prefix), slot));
        }
        while let Some((end, _)) = inside.pop() {
            if let Some(end) = end {
                put(&mut edges, end, inside.last().map(|(_, slot)| *slot));
            }
        }
        let index = Run::new(&edges, 0, edges.len());
        Self { edges, index }
    }

    /// The slot of the longest pinned prefix that `key` begins with.
    fn slot(&self, key: &[u8]) -> Option<Slot> {
        if self.edges.is_empty() {
            return None;
        }
        let next = self.index.next_after(&self.edges, key);
        next.checked_sub(1).and_then(|last| self.edges[last].slot)
    }

    /// The one slot of all keys from `start` up to `end`, which is larger.
    fn slot_between(&self, start: &[u8], end: Option<&[u8]>) -> Option<Slot> {
        let next = self.index.next_after(&self.edges, start);
        let slot = self.edges[next.checked_sub(1)?].slot?;
        let mut within = self.edges[next..].iter().take_while(|edge| end.is_none_or(|end| edge.from < end));
        within.all(|edge| edge.slot == Some(slot)).then_some(slot)
    }
}

/// Edges next to each other, searched by 8 bytes behind what all of them begin with. Comparing numbers that lie side by
/// side is several times faster than comparing whole keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Run {
    /// The place of its first edge among all.
    first: usize,
    /// What its edges begin with.
    common: Bytes,
    /// The [`head`] of each edge behind that.
    heads: Vec<u64>,
    /// Parts with one head, where those are long: they begin with more in common. They nest no deeper than two for every
    /// 8 bytes of a prefix.
    parts: Vec<Run>,
}

/// Fewer edges with one head are compared whole.
const PART_MIN: usize = 4;

impl Run {
    /// Of the edges from place `first` up to `end`.
    fn new(edges: &[Edge], first: usize, end: usize) -> Self {
        let [least, .., most] = &edges[first..end] else {
            let heads = edges[first..end].iter().map(|edge| head(&edge.from)).collect();
            return Self { first, heads, ..Self::default() };
        };
        let common = least.from.slice(..common_len(&least.from, &most.from));
        let heads: Vec<u64> = edges[first..end].iter().map(|edge| head(&edge.from[common.len()..])).collect();
        let mut parts = Vec::new();
        let mut from = first;
        for same in heads.chunk_by(|left, right| left == right) {
            let upto = from + same.len();
            // Zeros behind a short edge look like zeros of a longer one; such have no more in common than before.
            let has_more = common_len(&edges[from].from, &edges[upto - 1].from) > common.len();
            if same.len() >= PART_MIN && has_more {
                parts.push(Self::new(edges, from, upto));
            }
            from = upto;
        }
        Self { first, common, heads, parts }
    }

    /// The place of the first edge behind `key`, taking it that all edges before this run are not, and all after it are.
    fn next_after(&self, edges: &[Edge], key: &[u8]) -> usize {
        let Some(rest) = key.strip_prefix(&self.common[..]) else {
            return self.first + if *key < self.common[..] { 0 } else { self.heads.len() };
        };
        let head = head(rest);
        let same = self.heads.partition_point(|other| *other < head);
        let from = self.first + same;
        match self.heads[same..] {
            [one, ..] if one != head => from,
            [] => from,
            [_, two, ..] if two == head => match self.parts.binary_search_by_key(&from, |part| part.first) {
                Ok(part) => self.parts[part].next_after(edges, key),
                Err(_) => {
                    let len = self.heads[same..].partition_point(|other| *other == head);
                    from + edges[from..from + len].partition_point(|edge| edge.from <= key)
                }
            },
            [_, ..] => from + usize::from(edges[from].from <= key),
        }
    }
}

/// Appends an edge. Where one pin ends another may begin, or end as well: the later one knows what holds.
fn put(edges: &mut Vec<Edge>, from: Bytes, slot: Option<Slot>) {
    match edges.last_mut() {
        Some(last) if last.from == from => last.slot = slot,
        _ => edges.push(Edge { from, slot }),
    }
}

/// The first key behind all that begin with `prefix`.
fn end_of(prefix: &Bytes) -> Option<Bytes> {
    match KeyRange::prefix(prefix.clone()) {
        KeyRange::Between(_, end) => Some(end),
        KeyRange::From(_) | KeyRange::Single(_) => None,
    }
}

/// How many bytes the two begin with alike.
fn common_len(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// The first 8 bytes as a number, with zeros behind what is shorter: a smaller one means a smaller key, an equal one nothing.
fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(prefix: &'static [u8]) -> Rule {
        Rule::Pin { prefix: prefix.into() }
    }

    fn spread(directory: &'static [u8], bits: u8) -> Rule {
        Rule::Spread { directory: directory.into(), bits }
    }

    /// As the rules are described, one by one over all of them.
    fn naive_slot(rules: &[Rule], key: &[u8]) -> Slot {
        let mut longest: Option<&[u8]> = None;
        for rule in rules {
            match rule {
                Rule::Pin { prefix }
                    if key.starts_with(prefix)
                        && longest.is_none_or(|longest| prefix.len() > longest.len()) =>
                {
                    longest = Some(prefix);
                }
                Rule::Spread { directory, bits } if slot::directory(key) == directory => {
                    let part = slot::hash(key) / 2u64.pow(64 - u32::from(*bits));
                    let step = part * 16_384 / 2u64.pow(u32::from(*bits));
                    return Slot(((u64::from(Slot::of(directory).0) + step) % 16_384) as u16);
                }
                _ => {}
            }
        }
        longest.map_or(Slot::of(key), |prefix| Slot((slot::hash(prefix) % 16_384) as u16))
    }

    /// All strings over an alphabet that has the bytes at the ends of order, the `/`, and others.
    fn strings(len_max: usize) -> Vec<Bytes> {
        strings_of(&[0, b'/', b'a', b'b', 0xff], len_max)
    }

    fn strings_of(alphabet: &[u8], len_max: usize) -> Vec<Bytes> {
        let mut all = vec![Bytes::new()];
        let mut from = 0;
        for _ in 0..len_max {
            let upto = all.len();
            for at in from..upto {
                for byte in alphabet {
                    all.push([&all[at][..], &[*byte]].concat().into());
                }
            }
            from = upto;
        }
        all
    }

    /// A fixed stream of numbers below what is asked.
    fn numbers() -> impl FnMut(usize) -> usize {
        let mut state = 7u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        }
    }

    /// Some hundred rule sets that hold together, from short names so that they nest, touch and share edges.
    fn rule_sets() -> Vec<Rules> {
        let names = strings(3);
        let mut below = numbers();
        let mut sets = Vec::new();
        while sets.len() < 400 {
            let mut list: Vec<Rule> = Vec::new();
            for _ in 0..below(12) {
                let name = names[below(names.len())].clone();
                let rule = match below(3) {
                    0 => Rule::Spread { directory: name, bits: below(14) as u8 + 1 },
                    _ => Rule::Pin { prefix: name },
                };
                list.push(rule);
                if Rules::new(list.clone()).is_err() {
                    list.pop();
                }
            }
            sets.push(Rules::new(list).unwrap());
        }
        sets
    }

    #[test]
    fn the_slots_under_rules_never_change() {
        // Golden, from another implementation of XXH3: a change here moves stored keys to another partition.
        let rules = Rules::new(vec![
            pin(b"/registry/leases/"),
            pin(b"/registry/leases/kube-node-lease/"),
            spread(b"/registry/pods/default/", 4),
            spread(b"", 14),
        ])
        .unwrap();
        for (key, slot) in [
            ("/registry/leases/", 11907),
            ("/registry/leases/kube-system/scheduler", 11907),
            ("/registry/leases/kube-node-lease/n1", 1528),
            ("/registry/pods/default/web-0", 10452),
            ("/registry/pods/default/web-1", 13524),
            ("/registry/pods/default/", 9428),
            ("/registry/pods/default/web-0/log", 9198),
            ("/registry/pods/kube-system/web-0", 15868),
            ("a", 3699),
            ("b", 10904),
        ] {
            assert_eq!(rules.slot(key.as_bytes()), Slot(slot), "{key}");
        }
    }

    #[test]
    fn without_rules_a_key_is_in_the_slot_of_its_directory() {
        for key in strings(4) {
            assert_eq!(Rules::default().slot(&key), Slot::of(&key), "{key:?}");
        }
    }

    #[test]
    fn keys_are_where_the_rules_read_one_by_one_put_them() {
        let keys = strings(5);
        for rules in rule_sets() {
            for key in &keys {
                assert_eq!(rules.slot(key), naive_slot(rules.list(), key), "{:?} {key:?}", rules.list());
            }
        }
    }

    #[test]
    fn long_prefixes_that_differ_late_are_told_apart() {
        let mut below = numbers();
        let mut list: Vec<Rule> = (0..300)
            .map(|_| format!("/registry/pods/tenant-{:04}/", below(500)))
            .map(|prefix| Rule::Pin { prefix: prefix.into() })
            .chain([pin(b"/registry/services"), pin(b"/registry/"), pin(b"/registry/pods/tenant-00")])
            .collect();
        list.sort();
        list.dedup();
        let rules = Rules::new(list).unwrap();
        for at in 0..500 {
            for rest in ["", "/", "/a", "/a/b"] {
                for key in [format!("/registry/pods/tenant-{at:04}{rest}"), format!("/registry/{at}{rest}")] {
                    assert_eq!(rules.slot(key.as_bytes()), naive_slot(rules.list(), key.as_bytes()), "{key}");
                }
            }
        }
    }

    #[test]
    fn pins_nested_to_the_limit_hold_by_the_longest() {
        for byte in [0, b'a', 0xff] {
            let list = (1..=RULES_MAX).map(|len| Rule::Pin { prefix: vec![byte; len].into() }).collect();
            let rules = Rules::new(list).unwrap();
            for len in 1..=RULES_MAX {
                let mut key = vec![byte; len];
                key.push(b'/');
                assert_eq!(rules.slot(&key), Slot::of_hash(slot::hash(&key[..len])));
            }
        }
    }

    #[test]
    fn pins_are_found_however_long_they_go_along_with_others() {
        let mut below = numbers();
        for _ in 0..40 {
            // Each grows out of an earlier one; zeros are also what heads of short ones end in.
            let mut prefixes = vec![Bytes::from_static(b"a")];
            for _ in 0..150 {
                let mut prefix = prefixes[below(prefixes.len())].to_vec();
                prefix.truncate(1 + below(prefix.len()));
                prefix.extend((0..below(12)).map(|_| [0, 0, 0, b'a', b'/', 0xff][below(6)]));
                prefixes.push(prefix.into());
            }
            prefixes.sort();
            prefixes.dedup();
            let list = prefixes.iter().map(|prefix| Rule::Pin { prefix: prefix.clone() }).collect();
            let rules = Rules::new(list).unwrap();
            for prefix in &prefixes {
                let end = end_of(prefix).unwrap();
                for tail in [&b""[..], b"\0", b"\0\0\0\0\0\0\0\0", b"a", b"/", b"\xff", b"\0a/\0\0\0\0\0\0a"]
                {
                    for start in [&prefix[..], &prefix[..prefix.len() - 1], &end[..]] {
                        let key = [start, tail].concat();
                        assert_eq!(rules.slot(&key), naive_slot(rules.list(), &key), "{prefixes:?} {key:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_spread_uses_its_slots_evenly_and_no_others() {
        for bits in [1, 3, 8, 14] {
            let rules = Rules::new(vec![spread(b"/d/", bits)]).unwrap();
            let base = i32::from(Slot::of(b"/d/").0);
            let mut keys_of = std::collections::BTreeMap::<i32, u32>::new();
            for at in 0..20_000 {
                let slot = i32::from(rules.slot(format!("/d/{at}").as_bytes()).0);
                *keys_of.entry((slot - base).rem_euclid(i32::from(SLOTS))).or_default() += 1;
            }
            let step = i32::from(SLOTS) >> bits;
            assert!(keys_of.keys().all(|slot| slot % step == 0), "{bits}");
            if bits <= 8 {
                assert_eq!(keys_of.len(), 1 << bits);
                let fair = 20_000 >> bits;
                assert!(keys_of.values().all(|keys| (fair / 2..fair * 2).contains(keys)), "{keys_of:?}");
            }
        }
    }

    #[test]
    fn a_range_has_a_slot_exactly_when_all_its_keys_have_it() {
        let bounds = strings(2);
        // Also what lies between the bytes that rules and bounds are made of.
        let mut keys = strings_of(&[0, 1, b'/', b'0', b'a', b'b', b'c', 0xff], 4);
        keys.sort();
        let mut ranges: Vec<KeyRange> = bounds.iter().cloned().map(KeyRange::From).collect();
        ranges.extend(strings(4).into_iter().map(KeyRange::Single));
        ranges.extend(bounds.iter().cloned().map(KeyRange::prefix));
        for start in &bounds {
            ranges.extend(bounds.iter().map(|end| KeyRange::Between(start.clone(), end.clone())));
        }
        for rules in rule_sets().iter().take(60) {
            let slots: Vec<_> = keys.iter().map(|key| naive_slot(rules.list(), key)).collect();
            for range in &ranges {
                let found = rules.slot_of_range(range);
                let from = keys.partition_point(|key| key < range.start());
                let mut within = (from..keys.len()).take_while(|at| range.contains(&keys[*at]));
                let Some(first) = within.next() else {
                    assert!(range.is_empty() && found == Some(rules.slot(range.start())));
                    continue;
                };
                // The keys are long enough that every range with two slots shows both.
                let one = within.all(|at| slots[at] == slots[first]).then_some(slots[first]);
                if !is_finite(range) {
                    assert_eq!(found, one, "{:?} {range:?}", rules.list());
                }
                assert!(found.is_none() || found == one, "{:?} {range:?}", rules.list());
            }
        }
    }

    /// Whether only a few keys lie in it. Of those we take the time to look at a single one only.
    fn is_finite(range: &KeyRange) -> bool {
        let KeyRange::Between(start, end) = range else { return false };
        end.strip_prefix(&start[..])
            .is_some_and(|zeros| zeros.len() > 1 && zeros.iter().all(|byte| *byte == 0))
    }

    #[test]
    fn rules_that_contradict_are_refused_by_name() {
        let check = |rules: &[Rule], error: &str| {
            let mut rules = rules.to_vec();
            assert_eq!(Rules::new(rules.clone()).unwrap_err().to_string(), error);
            rules.reverse();
            assert_eq!(Rules::new(rules.clone()).unwrap_err().to_string(), error);
            assert!(Rules::from_bytes(rules.encoded()).is_err());
        };
        check(&[pin(b"")], "a pin of the empty prefix: use one partition instead");
        check(&[spread(b"/a", 1)], "spread of \"/a\", which does not end in '/'");
        check(&[spread(b"/a/", 0)], "spread of \"/a/\" by 0 bits, which are not from 1 to 14");
        check(&[spread(b"/a/", 15)], "spread of \"/a/\" by 15 bits, which are not from 1 to 14");
        check(&[pin(b"/a\xff"), pin(b"/a\xff")], "two pins of \"/a\\xff\"");
        check(&[spread(b"/a/", 2), spread(b"/a/", 1)], "two spreads of \"/a/\"");
        check(
            &[pin(b"/a"), pin(b"/a/b"), spread(b"/a/b/", 1)],
            "spread of \"/a/b/\", whose keys the pin of \"/a/b\" keeps in one slot",
        );
        check(
            &[pin(b"/a/"), spread(b"/a/", 1)],
            "spread of \"/a/\", whose keys the pin of \"/a/\" keeps in one slot",
        );
        check(
            &[pin(b"/a/b"), spread(b"/a/", 1)],
            "pin of \"/a/b\", which keys directly in the spread \"/a/\" begin with",
        );
        check(
            &[pin(b"b"), spread(b"", 1)],
            "pin of \"b\", which keys directly in the spread \"\" begin with",
        );
        let long = Rule::Pin { prefix: vec![b'a'; PREFIX_BYTES_MAX + 1].into() };
        check(&[long], "the prefix of a placement rule has 1025 bytes, over the limit of 1024");
        let many: Vec<_> = (0..=RULES_MAX).map(|at| Rule::Pin { prefix: format!("/{at}/").into() }).collect();
        check(&many, "1025 placement rules are over the limit of 1024");
    }

    #[test]
    fn a_pin_and_a_spread_are_refused_exactly_when_they_share_a_key() {
        let names = strings(3);
        let keys = strings(4);
        for directory in names.iter().filter(|name| slot::directory(name) == *name) {
            let direct: Vec<_> = keys.iter().filter(|key| slot::directory(key) == directory).collect();
            for prefix in names.iter().filter(|name| !name.is_empty()) {
                let (pin, spread) = (prefix.clone(), directory.clone());
                let list = vec![Rule::Pin { prefix: pin }, Rule::Spread { directory: spread, bits: 3 }];
                let share = direct.iter().any(|key| key.starts_with(prefix));
                assert_eq!(Rules::new(list).is_err(), share, "{prefix:?} {directory:?}");
            }
        }
    }

    #[test]
    fn rules_come_back_whole_and_equal_whatever_their_order() {
        for rules in rule_sets() {
            assert_eq!(Rules::from_bytes(rules.encoded()).as_ref(), Ok(&rules));
            let mut list = rules.list().to_vec();
            list.reverse();
            assert_eq!(Rules::new(list), Ok(rules));
        }
        // Golden: the stored form.
        let rules = Rules::new(vec![spread(b"/d/", 4), pin(b"/p")]).unwrap();
        assert_eq!(&rules.encoded()[..], b"\x02\x00\x02/p\x01\x03/d/\x04");
    }
}
