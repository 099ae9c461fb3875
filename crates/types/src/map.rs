//! The map of a keyspace: its name, its rules, and which partition owns which slots.
//!
//! One row of the system keyspace for each keyspace, under [`KeyspaceMap::row_key`]. The meta group changes it by
//! compare and put; every node routes by what it last read. So a map may be old, never half of one and half of another.
//!
//! **A split** takes two changes of the map. [`KeyspaceMap::begin_split`] names the child and the slots that it is to
//! get; the parent's leader then appends the split entry. Until [`KeyspaceMap::finish_split`] the slots are the
//! parent's in the map, and there is no child to route to.
//!
//! Invariants, held by [`KeyspaceMap::validate`], which decoding and [`KeyspaceMap::new`] go through:
//!
//! * Every slot has exactly one owner, every partition a slot at least. At most [`PARTITIONS_MAX`] partitions,
//!   children that are named counted in.
//! * Partitions ascend by id, and ids, those of named children too, are distinct and below `next_partition`. An id is
//!   never used again.
//! * A splitting partition keeps a slot and gives one away.
//! * The system keyspace is one partition for ever and has no rules: it is where the maps are read from.
//!
//! The fields are public for reading and for tests; who writes one is to call `validate`.
//!
//! Caveats: partitions are never joined. That a name belongs to one keyspace only is for the meta group to see to.

use crate::codec::{Decode, Encode, Input, Malformed, Output};
use crate::{GroupId, Key, KeyspaceId, PartitionId, Rules, SLOTS, SlotSet, wire_enum, wire_struct};
use std::collections::BTreeSet;
use std::fmt;

/// Partitions of one keyspace; a split beyond is refused.
pub const PARTITIONS_MAX: u32 = 1024;
/// Bytes in a keyspace's name; a longer one is refused.
pub const NAME_BYTES_MAX: usize = 64;

const ROWS: &str = "keyspaces/";
/// Among the rows, but not a keyspace's: the id of the next keyspace.
const NEXT: &str = "keyspaces/next";
/// The first byte of a stored map; a change of layout is a new one.
const VERSION: u8 = 1;

/// A keyspace and its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceMap {
    /// Which keyspace.
    pub id: KeyspaceId,
    /// What clients call it.
    pub name: String,
    /// Which keys are not placed by their directory.
    pub rules: Rules,
    /// The space it may take; no limit of its own when `None`.
    pub quota_bytes: Option<u64>,
    /// Whether it is there for clients.
    pub state: KeyspaceState,
    /// The id of the next partition.
    pub next_partition: PartitionId,
    /// Ascending by id.
    pub partitions: Vec<PartitionMap>,
}

/// Whether a keyspace is there for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyspaceState {
    /// It is.
    Active,
    /// It is not found any more; its partitions are being removed.
    Deleting,
}

/// A partition and its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMap {
    /// Which partition of the keyspace.
    pub id: PartitionId,
    /// What it owns.
    pub slots: SlotSet,
    /// Whether it is being split.
    pub state: PartitionState,
    /// The partition that it was split from.
    pub origin: Option<PartitionId>,
}

/// Whether a partition is being split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionState {
    /// It is not.
    Active,
    /// Its leader is to append the split entry.
    Splitting {
        /// The partition that will be.
        child: PartitionId,
        /// What it will own; the parent's until then.
        slots: SlotSet,
    },
}

wire_enum!(KeyspaceState { 0 => Active, 1 => Deleting });
wire_struct!(PartitionMap { id, slots, state, origin });
wire_enum!(PartitionState { 0 => Active, 1 => Splitting { child, slots } });

/// Why a map is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapError {
    /// A name that is empty, too long, begins with `.` or `-`, or has other bytes than letters, digits, `.`, `_` and `-`.
    Name,
    /// No partition, or more than [`PARTITIONS_MAX`].
    PartitionCount {
        /// How many, named children counted in.
        partitions: u32,
    },
    /// The system keyspace with anything but its one partition.
    System,
    /// Partitions that do not ascend by id, or an id named twice.
    PartitionTwice(PartitionId),
    /// An id that is not below `next_partition`.
    PartitionAhead(PartitionId),
    /// A partition that is said to be split from one that is not there, or that is newer.
    Origin(PartitionId),
    /// A partition that owns nothing.
    NoSlots(PartitionId),
    /// A slot with two owners, or with none.
    SlotOwners {
        /// The first such slot.
        slot: u16,
        /// How many it has.
        owners: u32,
    },
    /// A child that is to get nothing, all, or what is not the parent's.
    ChildSlots(PartitionId),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => write!(
                f,
                "a keyspace's name is 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' or '-', not beginning with '.' or '-'"
            ),
            Self::PartitionCount { partitions } => {
                write!(f, "{partitions} partitions, of which there must be 1 to {PARTITIONS_MAX}")
            }
            Self::System => write!(f, "the system keyspace has one partition and no rules"),
            Self::PartitionTwice(id) => write!(f, "partition {id} is out of order or there twice"),
            Self::PartitionAhead(id) => write!(f, "partition {id} is not below the next id"),
            Self::Origin(id) => write!(f, "partition {id} comes from one that is not there"),
            Self::NoSlots(id) => write!(f, "partition {id} has no slots"),
            Self::SlotOwners { slot, owners } => write!(f, "slot {slot} has {owners} owners"),
            Self::ChildSlots(id) => {
                write!(f, "partition {id} splits by slots that are not a part of its own")
            }
        }
    }
}

impl std::error::Error for MapError {}

/// Why a partition is not split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// The keyspace is the system's, or being deleted.
    Fixed,
    /// The keyspace has no such partition.
    NoPartition(PartitionId),
    /// It has fewer than two slots.
    TooFewSlots(PartitionId),
    /// A split of it is under way already.
    UnderWay(PartitionId),
    /// No split of it is under way, so none can be finished.
    NotUnderWay(PartitionId),
    /// [`PARTITIONS_MAX`] are reached, or ids have run out.
    TooMany,
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => write!(f, "this keyspace is not split"),
            Self::NoPartition(id) => write!(f, "no partition {id}"),
            Self::TooFewSlots(id) => write!(f, "partition {id} has fewer than two slots"),
            Self::UnderWay(id) => write!(f, "partition {id} is being split already"),
            Self::NotUnderWay(id) => write!(f, "partition {id} is not being split"),
            Self::TooMany => write!(f, "a keyspace has no more than {PARTITIONS_MAX} partitions"),
        }
    }
}

impl std::error::Error for SplitError {}

impl KeyspaceMap {
    /// The map of a new keyspace: the slots in `partitions` even runs, numbered from 0 in the order of slots.
    pub fn new(
        id: KeyspaceId,
        name: impl Into<String>,
        partitions: u32,
        rules: Rules,
        quota_bytes: Option<u64>,
    ) -> Result<Self, MapError> {
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(MapError::PartitionCount { partitions });
        }
        let edge = |at: u32| (at * u32::from(SLOTS) / partitions) as u16;
        let part = |at| PartitionMap {
            id: PartitionId(at),
            slots: SlotSet::from_ranges(std::iter::once(edge(at)..edge(at + 1))),
            state: PartitionState::Active,
            origin: None,
        };
        let map = Self {
            id,
            name: name.into(),
            rules,
            quota_bytes,
            state: KeyspaceState::Active,
            next_partition: PartitionId(partitions),
            partitions: (0..partitions).map(part).collect(),
        };
        map.validate()?;
        Ok(map)
    }

    /// The map of the system keyspace, which is never stored.
    pub fn system() -> Self {
        Self::new(KeyspaceId::SYSTEM, "system", 1, Rules::default(), None).expect("the name is valid")
    }

    /// Where the map of a keyspace is stored in the system keyspace.
    pub fn row_key(id: KeyspaceId) -> Key {
        Key::from(format!("{ROWS}{:08x}", id.0))
    }

    /// What all [`KeyspaceMap::row_key`]s begin with.
    pub fn rows() -> Key {
        Key::from_static(ROWS.as_bytes())
    }

    /// Where the id of the next keyspace is stored in the system keyspace. A keyspace is created in one transaction with
    /// raising it, so an id below it that has no row belongs to a keyspace that was deleted, and never comes again.
    pub fn next_id_key() -> Key {
        Key::from_static(NEXT.as_bytes())
    }

    /// Whose row it is; `None` for a key that [`KeyspaceMap::row_key`] does not give.
    pub fn parse_row_key(key: &[u8]) -> Option<KeyspaceId> {
        let digits = std::str::from_utf8(key.strip_prefix(ROWS.as_bytes())?).ok()?;
        let id = KeyspaceId(u32::from_str_radix(digits, 16).ok()?);
        (Self::row_key(id) == key).then_some(id)
    }

    /// The partition of this id.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionMap> {
        let at = self.partitions.binary_search_by_key(&id, |partition| partition.id).ok()?;
        self.partitions.get(at)
    }

    /// Whether the invariants hold.
    pub fn validate(&self) -> Result<(), MapError> {
        if !is_name(&self.name) {
            return Err(MapError::Name);
        }
        let partitions = self.partition_count();
        if self.partitions.is_empty() || partitions > PARTITIONS_MAX as usize {
            return Err(MapError::PartitionCount { partitions: partitions as u32 });
        }
        self.validate_ids()?;
        self.validate_slots()?;
        if self.id == KeyspaceId::SYSTEM {
            let is_meta = partitions == 1 && self.partitions[0].id == GroupId::META.partition;
            if !is_meta || !self.rules.is_empty() || self.state != KeyspaceState::Active {
                return Err(MapError::System);
            }
        }
        Ok(())
    }

    fn validate_ids(&self) -> Result<(), MapError> {
        if let Some(pair) = self.partitions.windows(2).find(|pair| pair[0].id >= pair[1].id) {
            return Err(MapError::PartitionTwice(pair[1].id));
        }
        let mut ids = BTreeSet::new();
        for partition in &self.partitions {
            for id in std::iter::once(partition.id).chain(partition.child().map(|(child, _)| child)) {
                if id >= self.next_partition {
                    return Err(MapError::PartitionAhead(id));
                }
                if !ids.insert(id) {
                    return Err(MapError::PartitionTwice(id));
                }
            }
            if partition.origin.is_some_and(|origin| origin >= partition.id || !ids.contains(&origin)) {
                return Err(MapError::Origin(partition.id));
            }
        }
        Ok(())
    }

    fn validate_slots(&self) -> Result<(), MapError> {
        let mut owners = vec![0u32; usize::from(SLOTS)];
        for partition in &self.partitions {
            if partition.slots.is_empty() {
                return Err(MapError::NoSlots(partition.id));
            }
            for slot in partition.slots.ranges().flatten() {
                owners[usize::from(slot)] += 1;
            }
            if let Some((_, slots)) = partition.child() {
                let is_part = slots.subtract(&partition.slots).is_empty();
                if !is_part || slots.is_empty() || slots.len() == partition.slots.len() {
                    return Err(MapError::ChildSlots(partition.id));
                }
            }
        }
        match owners.iter().position(|owners| *owners != 1) {
            Some(slot) => Err(MapError::SlotOwners { slot: slot as u16, owners: owners[slot] }),
            None => Ok(()),
        }
    }

    /// Names a child for `partition`, which is to get the upper half of its slots. The same again while the split is
    /// under way is refused, so that a repeated order does not split twice.
    pub fn begin_split(&mut self, partition: PartitionId) -> Result<PartitionId, SplitError> {
        if self.id == KeyspaceId::SYSTEM || self.state == KeyspaceState::Deleting {
            return Err(SplitError::Fixed);
        }
        let is_full = self.partition_count() >= PARTITIONS_MAX as usize;
        let child = self.next_partition;
        let parent = self.partition_mut(partition)?;
        if parent.child().is_some() {
            return Err(SplitError::UnderWay(partition));
        }
        let (_, slots) = parent.slots.split().ok_or(SplitError::TooFewSlots(partition))?;
        let next = child.0.checked_add(1).filter(|_| !is_full).ok_or(SplitError::TooMany)?;
        parent.state = PartitionState::Splitting { child, slots };
        self.next_partition = PartitionId(next);
        Ok(child)
    }

    /// Makes the child of `partition` a partition: the split entry has been applied. Gives its id.
    pub fn finish_split(&mut self, partition: PartitionId) -> Result<PartitionId, SplitError> {
        let parent = self.partition_mut(partition)?;
        let PartitionState::Splitting { child, slots } =
            std::mem::replace(&mut parent.state, PartitionState::Active)
        else {
            return Err(SplitError::NotUnderWay(partition));
        };
        parent.slots = parent.slots.subtract(&slots);
        // Splits may finish in another order than they began.
        let at = self.partitions.partition_point(|partition| partition.id < child);
        let child_map =
            PartitionMap { id: child, slots, state: PartitionState::Active, origin: Some(partition) };
        self.partitions.insert(at, child_map);
        Ok(child)
    }

    /// What a partition owned when its log began: what it owns, and what was split from it since, all the way down.
    pub fn original_slots(&self, partition: PartitionId) -> SlotSet {
        let own = self.partition(partition).map_or_else(SlotSet::none, |partition| partition.slots.clone());
        let children = self.partitions.iter().filter(|child| child.origin == Some(partition));
        children.fold(own, |slots, child| slots.union(&self.original_slots(child.id)))
    }

    /// These partitions and all that were split from them.
    pub fn with_descendants(
        &self,
        partitions: impl IntoIterator<Item = PartitionId>,
    ) -> BTreeSet<PartitionId> {
        let mut found: BTreeSet<PartitionId> = partitions.into_iter().collect();
        // A child has a larger number than what it was split from.
        for partition in &self.partitions {
            if partition.origin.is_some_and(|origin| found.contains(&origin)) {
                found.insert(partition.id);
            }
        }
        found
    }

    /// Partitions there are and named children.
    fn partition_count(&self) -> usize {
        let children = self.partitions.iter().filter(|partition| partition.child().is_some());
        self.partitions.len() + children.count()
    }

    fn partition_mut(&mut self, id: PartitionId) -> Result<&mut PartitionMap, SplitError> {
        let found = self.partitions.iter_mut().find(|partition| partition.id == id);
        found.ok_or(SplitError::NoPartition(id))
    }
}

impl PartitionMap {
    /// The child of a split under way, and what it will own.
    pub fn child(&self) -> Option<(PartitionId, &SlotSet)> {
        match &self.state {
            PartitionState::Active => None,
            PartitionState::Splitting { child, slots } => Some((*child, slots)),
        }
    }
}

/// Whether a keyspace may be called this.
pub fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_inner) && !name.starts_with(['.', '-'])
}

impl Encode for KeyspaceMap {
    fn encode(&self, out: &mut impl Output) {
        out.push(VERSION);
        self.id.encode(out);
        self.name.encode(out);
        self.rules.encode(out);
        self.quota_bytes.encode(out);
        self.state.encode(out);
        self.next_partition.encode(out);
        self.partitions.encode(out);
    }
}

impl Decode for KeyspaceMap {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        if input.byte()? != VERSION {
            return Err(Malformed("a keyspace's map of a version we know"));
        }
        let map = Self {
            id: Decode::decode(input)?,
            name: Decode::decode(input)?,
            rules: Decode::decode(input)?,
            quota_bytes: Decode::decode(input)?,
            state: Decode::decode(input)?,
            next_partition: Decode::decode(input)?,
            partitions: Decode::decode(input)?,
        };
        map.validate().map_err(|_| Malformed("a keyspace's map that holds together"))?;
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;

    fn map(partitions: u32) -> KeyspaceMap {
        KeyspaceMap::new(KeyspaceId(7), "orders", partitions, Rules::default(), Some(300)).unwrap()
    }

    fn run(from: u16, to: u16) -> SlotSet {
        SlotSet::from_ranges(std::iter::once(from..to))
    }

    #[test]
    fn new_partitions_are_even_runs_of_slots() {
        for partitions in 1..=PARTITIONS_MAX {
            let map = map(partitions);
            assert_eq!(map.partitions.len() as u32, partitions);
            let fair = u32::from(SLOTS) / partitions;
            for (at, partition) in (0u32..).zip(&map.partitions) {
                assert_eq!(partition.id, PartitionId(at));
                let edge = |at: u32| (at * 16_384 / partitions) as u16;
                assert_eq!(partition.slots, run(edge(at), edge(at + 1)));
                assert!((fair..=fair + 1).contains(&(partition.slots.len() as u32)));
            }
        }
        for partitions in [0, PARTITIONS_MAX + 1, u32::MAX] {
            let refused = KeyspaceMap::new(KeyspaceId(7), "a", partitions, Rules::default(), None);
            assert_eq!(refused, Err(MapError::PartitionCount { partitions }));
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["default", "a", "A.b_c-9", "_", "9", &"a".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".a", "-a", "a/b", "a b", "größe", "a\0", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
            assert!(KeyspaceMap::new(KeyspaceId(7), name, 1, Rules::default(), None).is_err());
        }
    }

    #[test]
    fn a_split_names_the_child_first_and_moves_slots_last() {
        let mut map = map(2);
        let parent = PartitionId(1);
        assert_eq!(map.begin_split(parent), Ok(PartitionId(2)));
        assert_eq!(map.partition(parent).unwrap().slots.to_string(), "8192-16383");
        assert_eq!(map.partition(parent).unwrap().child().unwrap().1.to_string(), "12288-16383");
        assert_eq!(map.begin_split(parent), Err(SplitError::UnderWay(parent)));
        assert_eq!(map.finish_split(PartitionId(0)), Err(SplitError::NotUnderWay(PartitionId(0))));
        assert_eq!(map.begin_split(PartitionId(0)), Ok(PartitionId(3)));
        assert_eq!(map.begin_split(PartitionId(2)), Err(SplitError::NoPartition(PartitionId(2))));
        // The later one is done first.
        assert_eq!(map.finish_split(PartitionId(0)), Ok(PartitionId(3)));
        assert_eq!(map.validate(), Ok(()));
        assert_eq!(map.finish_split(parent), Ok(PartitionId(2)));
        assert_eq!(map.finish_split(parent), Err(SplitError::NotUnderWay(parent)));
        assert_eq!(map.validate(), Ok(()));
        let slots: Vec<_> = map.partitions.iter().map(|p| (p.id.0, p.slots.to_string())).collect();
        let expected = [(0, "0-4095"), (1, "8192-12287"), (2, "12288-16383"), (3, "4096-8191")];
        assert_eq!(slots, expected.map(|(id, slots)| (id, slots.to_owned())));
    }

    #[test]
    fn splits_in_any_order_keep_the_map_whole_up_to_the_limit() {
        let mut state = 3u64;
        let mut below = |count: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % count
        };
        let mut map = map(1);
        let mut full = 0;
        for step in 0..8_000 {
            let partition = map.partitions[below(map.partitions.len())].id;
            if below(2) == 0 {
                full += usize::from(map.begin_split(partition) == Err(SplitError::TooMany));
            } else {
                let _ = map.finish_split(partition); // Most are not being split.
            }
            if step % 50 == 0 {
                assert_eq!(map.validate(), Ok(()));
                assert_eq!(KeyspaceMap::from_bytes(map.encoded()).as_ref(), Ok(&map));
            }
        }
        assert!(full > 0 && map.partition_count() == PARTITIONS_MAX as usize);
    }

    #[test]
    fn what_cannot_be_split_is_left_as_it_is() {
        let mut deleting = map(2);
        deleting.state = KeyspaceState::Deleting;
        let mut small = map(2);
        small.partitions[0].slots = run(0, 1);
        small.partitions[1].slots = run(1, SLOTS);
        let mut used_up = map(2);
        used_up.next_partition = PartitionId(u32::MAX);
        for (map, error) in [
            (KeyspaceMap::system(), SplitError::Fixed),
            (deleting, SplitError::Fixed),
            (small, SplitError::TooFewSlots(PartitionId(0))),
            (map(PARTITIONS_MAX), SplitError::TooMany),
            (used_up, SplitError::TooMany),
        ] {
            let mut after = map.clone();
            assert_eq!(after.begin_split(PartitionId(0)), Err(error));
            assert_eq!(after, map);
        }
    }

    #[test]
    fn maps_that_do_not_hold_together_are_refused_and_not_decoded() {
        let check = |change: &dyn Fn(&mut KeyspaceMap), error: MapError| {
            let mut map = map(3);
            map.begin_split(PartitionId(1)).unwrap();
            change(&mut map);
            assert_eq!(map.validate(), Err(error));
            assert!(KeyspaceMap::from_bytes(map.encoded()).is_err());
        };
        let id = PartitionId;
        let splitting = |child, slots| PartitionState::Splitting { child, slots };
        check(&|map| map.name = "-".into(), MapError::Name);
        check(&|map| map.partitions.clear(), MapError::PartitionCount { partitions: 0 });
        check(&|map| map.id = KeyspaceId::SYSTEM, MapError::System);
        check(&|map| map.partitions.swap(0, 1), MapError::PartitionTwice(id(0)));
        check(&|map| map.partitions[1].id = id(0), MapError::PartitionTwice(id(0)));
        check(&|map| map.next_partition = id(3), MapError::PartitionAhead(id(3)));
        check(
            &|map| map.partitions[1].state = splitting(id(2), map.partitions[1].slots.split().unwrap().0),
            MapError::PartitionTwice(id(2)),
        );
        check(&|map| map.partitions[2].slots = SlotSet::none(), MapError::NoSlots(id(2)));
        check(&|map| map.partitions[0].slots = run(1, 5461), MapError::SlotOwners { slot: 0, owners: 0 });
        check(&|map| map.partitions[0].slots = run(0, 5462), MapError::SlotOwners { slot: 5461, owners: 2 });
        for slots in [SlotSet::none(), run(0, 1), run(5461, 10_922)] {
            check(
                &|map| map.partitions[1].state = splitting(id(3), slots.clone()),
                MapError::ChildSlots(id(1)),
            );
        }
    }

    #[test]
    fn a_map_is_stored_under_its_id_and_found_by_it_only() {
        assert_eq!(&KeyspaceMap::row_key(KeyspaceId(0xab))[..], b"keyspaces/000000ab");
        for id in [0, 1, 0xab, u32::MAX] {
            let key = KeyspaceMap::row_key(KeyspaceId(id));
            assert!(key.starts_with(&KeyspaceMap::rows()));
            assert_eq!(KeyspaceMap::parse_row_key(&key), Some(KeyspaceId(id)));
        }
        for key in
            ["", "keyspaces/", "keyspaces/ab", "keyspaces/000000AB", "keyspaces/+00000ab", "nodes/000000ab"]
        {
            assert_eq!(KeyspaceMap::parse_row_key(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn the_stored_form_never_changes() {
        let rules = Rules::new(vec![Rule::Pin { prefix: "/p".into() }]).unwrap();
        let mut map = KeyspaceMap::new(KeyspaceId(7), "orders", 2, rules, Some(300)).unwrap();
        map.begin_split(PartitionId(1)).unwrap();
        let bytes = map.encoded();
        let golden = b"\x01\x07\x06orders\x01\x00\x02/p\x01\xac\x02\x00\x03\x02\
            \x00\x01\x00\x80\x40\x00\x00\
            \x01\x01\x80\x40\x80\x80\x01\x01\x02\x01\x80\x60\x80\x80\x01\x00";
        assert_eq!(&bytes[..], golden);
        assert_eq!(KeyspaceMap::from_bytes(bytes.clone()).as_ref(), Ok(&map));
        for cut in 0..bytes.len() {
            assert!(KeyspaceMap::from_bytes(bytes.slice(..cut)).is_err());
        }
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        assert!(KeyspaceMap::from_bytes(newer.into()).is_err());
    }
}
