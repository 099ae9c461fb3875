//! Which keyspaces and partitions there are: the maps, which are keys of the system keyspace.
//!
//! Every node applies the meta group, and so learns of a map as it learns of anything: a partition's group is opened when the map
//! that names it is applied. Until then messages for the group are dropped; they are repeated.

use super::Host;
use super::rows::{is_as_read, put};
use crate::Options;
use crate::effects::Notice;
use quorate_mvcc::engine::Engine;
use quorate_partition::ReadError;
use quorate_types::request::RangeRequest;
use quorate_types::{
    Bytes, Decode, Encode, Event, Fault, GroupId, Key, KeyRange, KeyValue, KeyspaceId, KeyspaceMap, Member,
    Place,
};
use std::collections::BTreeSet;

impl<E: Engine> Host<E> {
    /// Takes the maps that the meta group's state holds.
    pub(super) fn load_maps(&mut self) -> Result<(), Fault> {
        let is_whole = self.groups.get(&GroupId::META).is_some_and(|meta| meta.partition().is_some());
        if is_whole {
            self.load_roster()?;
        }
        let rows = self.scan_meta(KeyRange::prefix(KeyspaceMap::rows()))?;
        for pair in &rows {
            self.take_row(pair)?;
        }
        if is_whole {
            // Those that were here, and went while this node did not hear of it.
            let found: BTreeSet<KeyspaceId> =
                rows.iter().filter_map(|pair| KeyspaceMap::parse_row_key(&pair.key)).collect();
            self.maps.retain(|id, _| found.contains(id));
            self.remove_the_gone()?;
        }
        self.follow_roster()?;
        Ok(())
    }

    /// The value of a key of the system keyspace, as it is applied here.
    pub(super) fn read_meta(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let found = self.scan_meta(KeyRange::Single(Bytes::copy_from_slice(key)))?;
        Ok(found.into_iter().next().map(|pair| pair.value))
    }

    pub(super) fn scan_meta(&self, range: KeyRange) -> Result<Vec<KeyValue>, Fault> {
        let Some(meta) = self.groups.get(&GroupId::META) else { return Ok(Vec::new()) };
        match meta.reader.range(&RangeRequest::new(range), meta.reader.revision()) {
            Ok((_, answer)) => Ok(answer.pairs),
            Err(ReadError::Fault(fault)) => Err(fault),
            // Its state is being replaced; the maps are read again when it is whole.
            Err(ReadError::Rejection(_)) => Ok(Vec::new()),
        }
    }

    pub(super) fn on_map_event(&mut self, event: &Event) -> Result<(), Fault> {
        match event {
            Event::Put(pair) if self.take_roster_row(pair)? => Ok(()),
            Event::Put(pair) => self.take_row(pair),
            Event::Delete { key, modified } if self.remove_roster_row(key, *modified) => Ok(()),
            Event::Delete { key, .. } => {
                let Some(keyspace) = KeyspaceMap::parse_row_key(key) else { return Ok(()) };
                self.remove_keyspace(keyspace);
                if self.sequencer.is_some() { self.remove_marks() } else { Ok(()) }
            }
        }
    }

    fn take_row(&mut self, pair: &KeyValue) -> Result<(), Fault> {
        if pair.key == KeyspaceMap::next_id_key() {
            let next = KeyspaceId::from_bytes(pair.value.clone())
                .map_err(|cause| Fault::new("reading the id of the next keyspace", cause))?;
            self.next_keyspace = self.next_keyspace.max(next);
            return Ok(());
        }
        let Some(keyspace) = KeyspaceMap::parse_row_key(&pair.key) else { return Ok(()) };
        let map = KeyspaceMap::from_bytes(pair.value.clone())
            .map_err(|cause| Fault::new(format!("reading the map of keyspace {keyspace}"), cause))?;
        let was_sequenced = self.is_sequenced(keyspace);
        self.router.set(&map);
        self.note_splits(&map);
        let (partitions, quota_bytes) = (map.partitions.len(), map.quota_bytes);
        self.maps.insert(keyspace, map);
        self.set_quota(keyspace, quota_bytes);
        let begins = !was_sequenced && self.is_sequenced(keyspace);
        let is_open = self.groups_of(keyspace).next().is_some();
        let shared = self.keyspace(keyspace)?;
        match (begins, is_open) {
            // Its only partition has published all it has applied; that can be read on.
            (true, true) => shared.publication.share(),
            (true, false) => shared.publication.together(),
            (false, _) => {}
        }
        self.out.notices.push(Notice::Keyspace { keyspace, partitions });
        self.open_partitions(keyspace)?;
        self.note_slots(keyspace);
        self.note_whole(keyspace)?;
        self.open_counters()?;
        self.arrange_sequencing()?;
        for work in std::mem::take(&mut self.unrouted) {
            self.route(work.0, work.1)?;
        }
        Ok(())
    }

    /// The meta group's leader makes what every cluster begins with: its members, where the meta group is, and the default keyspace. Groups
    /// that have no place are where everything was before there were places.
    pub(super) fn bootstrap(&mut self) -> Result<(), Fault> {
        let meta = Place::row_key(GroupId::META);
        if self.roster.places.contains_key(&GroupId::META) {
            return Ok(());
        }
        let place = Place::new(self.roster.first_voters().to_vec());
        let mut compares = vec![is_as_read(meta.clone(), None)];
        let mut rows: Vec<(Key, Bytes)> =
            self.members().iter().map(|member| (Member::row_key(member.id), member.encoded())).collect();
        rows.push((meta, place.encoded()));
        let place_all = |map: &KeyspaceMap| {
            let groups = map.partitions.iter().map(|partition| partition.id);
            let group = |partition| GroupId { keyspace: map.id, partition };
            groups.map(|partition| (Place::row_key(group(partition)), place.encoded())).collect::<Vec<_>>()
        };
        for map in self.maps.values() {
            compares.push(is_as_read(
                KeyspaceMap::row_key(map.id),
                self.read_row(&KeyspaceMap::row_key(map.id))?.map(|(_, modified)| modified),
            ));
            rows.extend(place_all(map));
        }
        if !self.maps.contains_key(&KeyspaceId::DEFAULT) {
            let Options { partitions, rules, .. } = &self.options;
            let map = KeyspaceMap::new(KeyspaceId::DEFAULT, "default", *partitions, rules.clone(), None)
                .map_err(|error| Fault::new("making the default keyspace", error))?;
            let key = KeyspaceMap::row_key(KeyspaceId::DEFAULT);
            compares.push(is_as_read(key.clone(), None));
            rows.extend(place_all(&map));
            rows.push((key, map.encoded()));
        }
        self.change_rows(compares, rows.into_iter().map(|(key, value)| put(key, value)).collect())
    }
}
