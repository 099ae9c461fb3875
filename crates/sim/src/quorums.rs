//! One lineage of quorums: the configurations that a group committed follow each other by steps whose quorums meet.
//!
//! The entries that replicas applied are taken in the order of the log. From a configuration there are three steps (thesis, 4.3): other learners
//! with the same voters; to the joint configuration of its voters and others; from a joint one to its new voters alone. Two quorums of a
//! configuration meet, and so do one before such a step and one after it; so no two leaders of a group can each have a quorum of their own,
//! whoever joined and went in between.
//!
//! Caveat: what no replica was seen to apply, because a snapshot had it or its replicas crashed, may hide a step; after such a gap the
//! chain begins anew.

use crate::Violation;
use crate::world::World;
use quorate_consensus::Configuration;
use quorate_types::{Entry, EntryKind, GroupId, Index};

/// Checks all groups; how often the voters of one were replaced.
pub(crate) fn check(world: &World) -> Result<u64, Violation> {
    let groups = world.applied.iter().chain([(&GroupId::META, &world.applied_meta)]);
    let changes = groups.map(|(group, log)| {
        changes(log.entries()).map_err(|what| world.violation(format!("in group {group}, {what}")))
    });
    changes.sum()
}

/// How often the voters of a group were replaced; an error if two configurations do not follow each other.
fn changes<'a>(entries: impl Iterator<Item = &'a Entry>) -> Result<u64, String> {
    let mut changes = 0;
    let mut known: Option<Configuration> = None;
    let mut last = Index::START;
    for entry in entries {
        if entry.index != last.next() {
            known = None;
        }
        last = entry.index;
        if entry.kind != EntryKind::Config {
            continue;
        }
        let next = Configuration::from_entry(entry)
            .ok_or_else(|| format!("entry {} names members that cannot be", entry.index))?;
        if let Some(before) = known.filter(|before| !follows(before, &next)) {
            return Err(format!("entry {}: {next:?} does not follow {before:?}", entry.index));
        }
        changes += u64::from(next.is_joint());
        known = Some(next);
    }
    Ok(changes)
}

fn follows(before: &Configuration, next: &Configuration) -> bool {
    match (before.is_joint(), next.is_joint()) {
        (false, false) => next.voters == before.voters,
        (false, true) => next.outgoing == before.voters,
        (true, false) => next.voters == before.voters,
        (true, true) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Encode, NodeId, Term};

    fn entry(index: u64, voters: &[u64], outgoing: &[u64]) -> Entry {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let configuration =
            Configuration { outgoing: ids(outgoing), ..Configuration::of_voters(ids(voters)) };
        Entry { term: Term(1), index: Index(index), kind: EntryKind::Config, data: configuration.encoded() }
    }

    #[test]
    fn steps_whose_quorums_meet_are_counted() {
        let log = [
            entry(1, &[1, 2, 3], &[]),
            entry(2, &[1, 2, 4], &[1, 2, 3]),
            entry(3, &[1, 2, 4], &[]),
            entry(4, &[1, 2, 4], &[]),
            // What came in between nobody has seen.
            entry(9, &[5, 6, 7], &[]),
            entry(10, &[5], &[5, 6, 7]),
        ];
        assert_eq!(changes(log.iter()), Ok(2));
    }

    #[test]
    fn steps_whose_quorums_need_not_meet_are_told() {
        for (before, next) in [
            (entry(1, &[1, 2, 3], &[]), entry(2, &[1, 4, 5], &[])),
            (entry(1, &[1, 2, 3], &[]), entry(2, &[1, 4, 5], &[1, 2, 4])),
            (entry(1, &[1, 4, 5], &[1, 2, 3]), entry(2, &[1, 2, 3], &[])),
            (entry(1, &[1, 4, 5], &[1, 2, 3]), entry(2, &[1, 4, 6], &[1, 4, 5])),
        ] {
            assert!(changes([&before, &next].into_iter()).is_err(), "{before:?} {next:?}");
        }
    }
}
