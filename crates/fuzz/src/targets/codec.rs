//! Our own form (`quorate_types::codec`): of whatever decodes the form decodes as the same again.

use super::{Target, nothing};
use crate::grow::{grow, grown};
use quorate_consensus::Configuration;
use quorate_consensus::random::Random;
use quorate_node::PeerMessage;
use quorate_types::{
    Bytes, Command, Committed, Decide, Decode, Encode, Entry, EntryKind, KeyspaceId, KeyspaceMap, Member,
    Place, Prepared, Record, Rule, Rules, SlotSet, Split, TxnId,
};
use std::fmt::Debug;

/// Decodes; if it does, checks that nothing was lost.
pub(super) fn round<T: Decode + Encode + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value = T::from_bytes(Bytes::copy_from_slice(bytes)).ok()?;
    let form = value.encoded();
    let again = T::from_bytes(form.clone()).unwrap_or_else(|error| panic!("{value:?}: {form:?}: {error}"));
    assert_eq!(again, value);
    assert_eq!(again.encoded(), form, "{value:?} has two forms");
    Some(value)
}

fn runs<T: Decode + Encode + PartialEq + Debug>(bytes: &[u8]) -> bool {
    round::<T>(bytes).is_some()
}

/// A target that is nothing but a type.
macro_rules! plain {
    ($constant:ident, $name:literal, $what:literal, $type:ty) => {
        pub(super) const $constant: Target = Target {
            name: $name,
            what: $what,
            seed: grown::<$type>,
            mend: nothing,
            run: runs::<$type>,
            gate: 10_000,
        };
    };
}

plain!(PEER, "peer-message", "messages from another node", Vec<PeerMessage>);
plain!(SLOTS, "slots", "a set of slots, in rows and headers", SlotSet);
plain!(MEMBER, "member", "a row of the meta group: a node", Member);
plain!(PLACE, "place", "a row of the meta group: who holds a group", Place);
plain!(RECORD, "record", "the value of a key's version in the store", Record);

pub(super) const ENTRY: Target = Target {
    name: "entry",
    what: "an entry of the log, and the command in it by its kind",
    seed: |random| entry(random).encoded_vec(),
    mend: nothing,
    run: |bytes| {
        round::<Entry>(bytes).is_some_and(|Entry { kind, data, .. }| match kind {
            EntryKind::Fence => true,
            EntryKind::Config => runs::<Configuration>(&data),
            EntryKind::Write | EntryKind::Lease => runs::<Command>(&data),
            EntryKind::Prepare => runs::<Prepared>(&data),
            EntryKind::Commit => runs::<Committed>(&data),
            EntryKind::Abort => runs::<TxnId>(&data),
            EntryKind::Decide => runs::<Decide>(&data),
            EntryKind::Split => runs::<Split>(&data),
        })
    },
    gate: 10_000,
};

/// An entry of any kind.
pub(super) fn entry(random: &mut Random) -> Entry {
    let kind = grow(random);
    let data = match kind {
        EntryKind::Fence => Vec::new(),
        EntryKind::Config => grown::<Configuration>(random),
        EntryKind::Write | EntryKind::Lease => grown::<Command>(random),
        EntryKind::Prepare => grown::<Prepared>(random),
        EntryKind::Commit => grown::<Committed>(random),
        EntryKind::Abort => grown::<TxnId>(random),
        EntryKind::Decide => grown::<Decide>(random),
        EntryKind::Split => grown::<Split>(random),
    };
    Entry { term: grow(random), index: grow(random), kind, data: data.into() }
}

pub(super) const MAP: Target = Target {
    name: "keyspace-map",
    what: "a row of the meta group: a keyspace and its partitions",
    seed: |random| map(random).encoded_vec(),
    mend: nothing,
    run: |bytes| {
        round::<KeyspaceMap>(bytes).is_some_and(|map| {
            for partition in &map.partitions {
                map.original_slots(partition.id);
                let mut split = map.clone();
                if split.begin_split(partition.id).is_ok() {
                    assert_eq!(split.validate(), Ok(()));
                    assert!(split.finish_split(partition.id).is_ok() && split.validate().is_ok());
                }
            }
            true
        })
    },
    gate: 1_000,
};

fn map(random: &mut Random) -> KeyspaceMap {
    let (id, partitions) = (KeyspaceId(1 + random.between(0, 5) as u32), 1 + random.between(0, 6) as u32);
    let quota = grow(random);
    let mut map = KeyspaceMap::new(id, "orders", partitions, rules(random), quota).expect("it makes sense");
    for _ in 0..random.between(0, 6) {
        let at = random.between(0, map.partitions.len() as u64) as usize;
        let parent = map.partitions[at].id;
        if map.begin_split(parent).is_ok() && random.between(0, 2) == 0 {
            map.finish_split(parent).expect("it was just begun");
        }
    }
    map
}

pub(super) const RULES: Target = Target {
    name: "rules",
    what: "placement rules, in a keyspace's map",
    seed: |random| rules(random).encoded_vec(),
    mend: nothing,
    run: |bytes| {
        round::<Rules>(bytes).is_some_and(|rules| {
            for rule in rules.list() {
                let (Rule::Pin { prefix: key } | Rule::Spread { directory: key, .. }) = rule;
                assert!(rules.slot(key).0 < quorate_types::SLOTS);
            }
            true
        })
    },
    gate: 8_000,
};

fn rules(random: &mut Random) -> Rules {
    loop {
        let rules = (0..random.between(0, 5)).map(|at| {
            let name = format!("{}/{at}/", (0..random.between(0, 3)).map(|_| "a/").collect::<String>());
            match random.between(0, 2) {
                0 => Rule::Pin { prefix: name.into() },
                _ => Rule::Spread { directory: name.into(), bits: 1 + random.between(0, 14) as u8 },
            }
        });
        let rules: Vec<Rule> = rules.collect();
        if let Ok(rules) = Rules::new(rules) {
            return rules;
        }
    }
}
