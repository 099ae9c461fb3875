//! Key → slot → partition, by the maps of the keyspaces.
//!
//! Stands before every request, also when there is only one partition and it is on this node, so that nothing above
//! it changes when there are many. One table for each keyspace: 16,384 places of two bytes, made anew when the map
//! changes, shared by clones of the router. The system keyspace is always there, whole, under no rules.
//!
//! Invariants: every place names a partition of the table; a keyspace that is being deleted has a table (its
//! partitions are still there to be removed) but its keys and its name are not found.
//!
//! Caveat: the router knows what this node last read. The group that is asked has the last word on whose a slot is.

use quorate_partition::{Places, Touched};
use quorate_types::{
    GroupId, KeyRange, KeyspaceId, KeyspaceMap, KeyspaceState, LeaseId, PartitionId, Rejection, Request,
    Rules, SLOTS, Slot,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables of all keyspaces.
#[derive(Clone, Debug)]
pub struct Router {
    keyspaces: BTreeMap<KeyspaceId, Arc<Table>>,
}

/// The groups that a range of keys concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every key that can be in it belongs to this one.
    One(GroupId),
    /// Its keys can be in any partition of the keyspace.
    All,
}

/// One keyspace.
#[derive(Debug)]
struct Table {
    name: String,
    is_active: bool,
    rules: Arc<Rules>,
    /// Ascending.
    partitions: Vec<PartitionId>,
    /// For each slot, the place of its partition in `partitions`.
    places: Vec<u16>,
}

impl Router {
    /// The tables of a new cluster: the system keyspace and the default one, a partition each.
    pub fn single() -> Self {
        let default = KeyspaceMap::new(KeyspaceId::DEFAULT, "default", 1, Rules::default(), None);
        Self::with(&[default.expect("one partition under a valid name")])
    }

    /// The tables of these keyspaces, and of the system's.
    pub fn with(maps: &[KeyspaceMap]) -> Self {
        let mut router = Self { keyspaces: BTreeMap::new() };
        router.set(&KeyspaceMap::system());
        for map in maps {
            router.set(map);
        }
        router
    }

    /// Takes a keyspace's map, new or changed. It has been validated, as every map is that was decoded.
    pub fn set(&mut self, map: &KeyspaceMap) {
        self.keyspaces.insert(map.id, Arc::new(Table::new(map)));
    }

    /// Forgets a keyspace. The system's stays.
    pub fn remove(&mut self, keyspace: KeyspaceId) {
        if keyspace != KeyspaceId::SYSTEM {
            self.keyspaces.remove(&keyspace);
        }
    }

    /// The keyspace that clients call `name`; of two, which the meta group does not let be, the older one.
    pub fn by_name(&self, name: &str) -> Option<KeyspaceId> {
        let mut found = self.keyspaces.iter().filter(|(_, table)| table.is_active && table.name == name);
        found.next().map(|(keyspace, _)| *keyspace)
    }

    /// The group of `key`.
    pub fn partition_of(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<GroupId, Rejection> {
        let table = self.table(keyspace)?;
        Ok(GroupId { keyspace, partition: table.partition_of(key) })
    }

    /// The groups of the keys in `range`.
    pub fn for_range(&self, keyspace: KeyspaceId, range: &KeyRange) -> Result<Target, Rejection> {
        let table = self.table(keyspace)?;
        let partition = match &table.partitions[..] {
            [only] => Some(*only),
            _ => table.rules.slot_of_range(range).map(|slot| table.owner(slot.0)),
        };
        Ok(partition.map_or(Target::All, |partition| Target::One(GroupId { keyspace, partition })))
    }

    /// The partitions of a keyspace, ascending, also of one that is being deleted; none of one that is not there.
    pub fn partitions(&self, keyspace: KeyspaceId) -> &[PartitionId] {
        self.keyspaces.get(&keyspace).map_or(&[], |table| &table.partitions)
    }

    /// The group whose leader carries `request` out: that of its key or lease, or of the first key that it may write.
    pub fn route(&self, keyspace: KeyspaceId, request: &Request) -> Result<GroupId, Rejection> {
        let table = self.table(keyspace)?;
        let partition = match (&table.partitions[..], request) {
            ([only], _) => *only,
            (_, Request::Put(put)) => table.partition_of(&put.key),
            (_, Request::LeaseKeepAlive { lease } | Request::LeaseTimeToLive { lease, .. }) => {
                table.of_lease(*lease)
            }
            _ => Touched::by(request).home(table),
        };
        Ok(GroupId { keyspace, partition })
    }

    /// All keyspaces, also those being deleted.
    pub fn keyspaces(&self) -> Vec<KeyspaceId> {
        self.keyspaces.keys().copied().collect()
    }

    /// Where keys and leases of a keyspace are.
    pub fn places(&self, keyspace: KeyspaceId) -> Option<impl Places + use<>> {
        self.keyspaces.get(&keyspace).cloned()
    }

    /// The rules of a keyspace.
    pub fn rules(&self, keyspace: KeyspaceId) -> Arc<Rules> {
        self.keyspaces.get(&keyspace).map(|table| Arc::clone(&table.rules)).unwrap_or_default()
    }

    /// The group of a keyspace's first slot, which a read barrier asks while there is only one.
    pub fn groups(&self, keyspace: KeyspaceId) -> Result<GroupId, Rejection> {
        let table = self.table(keyspace)?;
        Ok(GroupId { keyspace, partition: table.owner(0) })
    }

    /// The table of a keyspace that clients find.
    fn table(&self, keyspace: KeyspaceId) -> Result<&Table, Rejection> {
        let table = self.keyspaces.get(&keyspace).filter(|table| table.is_active);
        table.map(|table| &**table).ok_or(Rejection::KeyspaceNotFound)
    }
}

impl Table {
    fn new(map: &KeyspaceMap) -> Self {
        let mut places = vec![u16::MAX; usize::from(SLOTS)];
        for (place, partition) in (0u16..).zip(&map.partitions) {
            for slot in partition.slots.ranges().flatten() {
                let former = std::mem::replace(&mut places[usize::from(slot)], place);
                assert_eq!(former, u16::MAX, "slot {slot} of keyspace {} has two owners", map.id);
            }
        }
        let orphan = places.iter().position(|place| *place == u16::MAX);
        assert_eq!(orphan, None, "a slot of keyspace {} has no owner", map.id);
        Self {
            name: map.name.clone(),
            is_active: map.state == KeyspaceState::Active,
            rules: Arc::new(map.rules.clone()),
            partitions: map.partitions.iter().map(|partition| partition.id).collect(),
            places,
        }
    }

    fn partition_of(&self, key: &[u8]) -> PartitionId {
        match &self.partitions[..] {
            [only] => *only,
            _ => self.owner(self.rules.slot(key).0),
        }
    }

    fn of_lease(&self, lease: LeaseId) -> PartitionId {
        self.owner(Slot::of_lease(lease).0)
    }

    fn owner(&self, slot: u16) -> PartitionId {
        self.partitions[usize::from(self.places[usize::from(slot)])]
    }
}

impl Places for Table {
    fn of_range(&self, range: &KeyRange) -> Option<PartitionId> {
        match &self.partitions[..] {
            [only] => Some(*only),
            _ => self.rules.slot_of_range(range).map(|slot| self.owner(slot.0)),
        }
    }

    fn of_lease(&self, lease: LeaseId) -> PartitionId {
        Table::of_lease(self, lease)
    }

    fn slot(&self, key: &[u8]) -> Slot {
        self.rules.slot(key)
    }

    fn all(&self) -> Vec<PartitionId> {
        self.partitions.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Bytes, Rule};

    const ORDERS: KeyspaceId = KeyspaceId(7);

    fn map(partitions: u32) -> KeyspaceMap {
        let rules = vec![
            Rule::Pin { prefix: "/jobs/".into() },
            Rule::Spread { directory: "/users/".into(), bits: 10 },
        ];
        KeyspaceMap::new(ORDERS, "orders", partitions, Rules::new(rules).unwrap(), None).unwrap()
    }

    /// The partition whose set has the key's slot.
    fn naive(map: &KeyspaceMap, key: &[u8]) -> PartitionId {
        let slot = map.rules.slot(key);
        map.partitions.iter().find(|partition| partition.slots.contains(slot)).unwrap().id
    }

    fn check(router: &Router, map: &KeyspaceMap) {
        for at in 0..3000 {
            for key in [format!("/users/{at}"), format!("/d{at}/k"), format!("/jobs/{at}/x"), format!("{at}")]
            {
                let group = GroupId { keyspace: map.id, partition: naive(map, key.as_bytes()) };
                assert_eq!(router.partition_of(map.id, key.as_bytes()), Ok(group), "{key}");
            }
        }
        let ids: Vec<_> = map.partitions.iter().map(|partition| partition.id).collect();
        assert_eq!(router.partitions(map.id), ids);
    }

    #[test]
    fn keys_go_to_the_partition_that_owns_their_slot() {
        for partitions in [1, 2, 3, 100, 1024] {
            let mut map = map(partitions);
            let mut router = Router::with(std::slice::from_ref(&map));
            check(&router, &map);
            if map.begin_split(PartitionId(0)).is_ok() {
                let before = router.clone();
                router.set(&map);
                check(&router, &map);
                let child = map.finish_split(PartitionId(0)).unwrap();
                check(&before, &{ self::map(partitions) });
                router.set(&map);
                check(&router, &map);
                assert!(router.partitions(ORDERS).contains(&child));
            }
        }
    }

    #[test]
    fn a_range_goes_to_one_group_only_when_all_its_keys_do() {
        let router = Router::with(&[map(16)]);
        let one = |key: &str| Ok(Target::One(router.partition_of(ORDERS, key.as_bytes()).unwrap()));
        let range = |range| router.for_range(ORDERS, &range);
        assert_eq!(range(KeyRange::Single("/users/a".into())), one("/users/a"));
        assert_eq!(range(KeyRange::prefix("/jobs/")), one("/jobs/1"));
        assert_eq!(range(KeyRange::prefix("/jobs/a/b")), one("/jobs/1"));
        assert_eq!(range(KeyRange::prefix("/jobs")), Ok(Target::All));
        assert_eq!(range(KeyRange::prefix("/users/")), Ok(Target::All));
        assert_eq!(range(KeyRange::prefix("/other/")), Ok(Target::All));
        assert_eq!(range(KeyRange::all()), Ok(Target::All));
        let router = Router::with(&[map(1)]);
        let only = GroupId { keyspace: ORDERS, partition: PartitionId(0) };
        assert_eq!(router.for_range(ORDERS, &KeyRange::all()), Ok(Target::One(only)));
    }

    #[test]
    fn a_keyspace_being_deleted_is_not_found_but_its_partitions_are() {
        let mut map = map(3);
        let mut router = Router::with(std::slice::from_ref(&map));
        assert_eq!(router.by_name("orders"), Some(ORDERS));
        map.state = KeyspaceState::Deleting;
        router.set(&map);
        assert_eq!(router.by_name("orders"), None);
        assert_eq!(router.partition_of(ORDERS, b"a"), Err(Rejection::KeyspaceNotFound));
        assert_eq!(router.for_range(ORDERS, &KeyRange::all()), Err(Rejection::KeyspaceNotFound));
        assert_eq!(router.partitions(ORDERS).len(), 3);
        router.remove(ORDERS);
        assert_eq!(router.partitions(ORDERS), []);
    }

    #[test]
    fn the_system_keyspace_is_always_there() {
        let mut router = Router::with(&[]);
        router.remove(KeyspaceId::SYSTEM);
        assert_eq!(router.partition_of(KeyspaceId::SYSTEM, b"nodes/1"), Ok(GroupId::META));
        assert_eq!(router.by_name("system"), Some(KeyspaceId::SYSTEM));
        assert_eq!(router.by_name("default"), None);
    }

    #[test]
    fn a_new_cluster_routes_everything_to_the_first_groups() {
        use quorate_types::request::RangeRequest;
        let router = Router::single();
        assert_eq!(router.by_name("default"), Some(KeyspaceId::DEFAULT));
        let range = RangeRequest::new(KeyRange::From(Bytes::from_static(b"x/")));
        for (keyspace, group) in [(KeyspaceId::SYSTEM, GroupId::META), (KeyspaceId::DEFAULT, GroupId::FIRST)]
        {
            assert_eq!(router.groups(keyspace), Ok(group));
            assert_eq!(router.route(keyspace, &Request::Range(range.clone())), Ok(group));
        }
        assert_eq!(router.groups(ORDERS), Err(Rejection::KeyspaceNotFound));
    }
}
