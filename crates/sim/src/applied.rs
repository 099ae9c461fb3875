//! What the replicas of the group of user keys applied, entry by entry.
//!
//! Of a node only writes to its log and its applied index are seen from outside. So a copy of each node's log is kept; when the
//! applied index grows, what lies in between was applied. All replicas must have applied the same entry at an index, and
//! have the same digest after it (State Machine Safety; Raft paper, figure 3). What follows for leases and keys is
//! replayed from here: the only record of a lease without keys is its entries.

use quorate_types::{
    Command, Committed, Decide, Decode, Effect, Entry, EntryKind, Event, GroupId, Index, KeyValue, LeaseId,
    LogWrite, PartitionId, Revision, Split, Term, reached,
};
use std::collections::BTreeMap;

/// The copy of one node's log, of the entries that it may still apply.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    start: Index,
    entries: BTreeMap<Index, Entry>,
    applied: Index,
    /// The newest term in which its node led it and was registered with the sequencer.
    registered: Option<Term>,
}

impl Shadow {
    /// A node starts with what its log held.
    pub(crate) fn new(recovered: &quorate_consensus::Recovered, applied: Index) -> Self {
        let entries = recovered.entries.iter().map(|entry| (entry.index, entry.clone())).collect();
        Self { start: recovered.start.index, entries, applied, registered: None }
    }

    /// Its node has registered with the sequencer as the leader in this term.
    pub(crate) fn register(&mut self, term: Term) {
        self.registered = self.registered.max(Some(term));
    }

    /// The node writes to its log.
    pub(crate) fn write(&mut self, write: &LogWrite) {
        if write.is_removal() {
            *self = Self::default();
        }
        if let Some(position) = write.restart {
            self.entries.clear();
            self.start = position.index;
        }
        if let Some(first) = write.entries.first() {
            self.entries.split_off(&first.index);
        }
        self.entries.extend(write.entries.iter().map(|entry| (entry.index, entry.clone())));
    }
}

/// An entry and when it was first applied where clients are answered: anywhere, or of several partitions by a leader that is registered
/// with the sequencer, or was in the term of the entry: what was evaluated and confirmed while it was registered is answered when the
/// entries that it rests on are applied, whoever leads by then. What other leaders have applied, nobody has heard of.
#[derive(Debug)]
struct First {
    entry: Entry,
    tick: u64,
    /// When it was applied anywhere at all.
    anywhere: u64,
}

/// What was applied.
#[derive(Debug, Default)]
pub struct AppliedLog {
    entries: BTreeMap<Index, First>,
    digests: BTreeMap<Index, u64>,
    /// Applied up to here where clients are answered.
    visible: Index,
}

/// The state after an entry that is not about keys alone: what is known of leases and compaction.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When the entry was first applied.
    pub tick: u64,
    /// The newest revision after it.
    pub revision: Revision,
    /// Leases and the times to live they were granted.
    pub leases: BTreeMap<LeaseId, u64>,
    /// The last compaction.
    pub compacted: Option<Revision>,
}

/// One lease from its grant to its end.
#[derive(Clone, Debug)]
pub struct LeaseLife {
    /// Which.
    pub lease: LeaseId,
    /// Granted.
    pub ttl_seconds: u64,
    /// When the grant was first applied anywhere: its time runs from then on.
    pub granted: u64,
    /// When the grant was first applied where clients are answered.
    pub begun: u64,
    /// When its removal was first applied; `None` if it lives.
    pub ended: Option<u64>,
}

/// What the entries say when they are replayed.
#[derive(Debug)]
pub struct Replayed {
    /// Of the beginning, then one for each entry.
    pub moments: Vec<Moment>,
    /// All leases that ever were, by grant.
    pub lives: Vec<LeaseLife>,
    /// Every compaction of every partition, and when it was first applied anywhere.
    pub compactions: Vec<(u64, Revision)>,
}

impl AppliedLog {
    /// A node has applied up to `applied` and then has this digest.
    pub(crate) fn advance(
        &mut self,
        shadow: &mut Shadow,
        applied: Index,
        digest: Option<u64>,
        is_visible: bool,
        tick: u64,
    ) -> Result<Vec<Entry>, String> {
        let mut news = Vec::new();
        let mut visible = if is_visible { applied } else { self.visible };
        // While a snapshot is being installed nothing is applied, and the index is said to be at the start.
        let Some(digest) = digest else { return Ok(news) };
        if *self.digests.entry(applied).or_insert(digest) != digest {
            return Err(format!("replicas that have applied up to {applied} differ"));
        }
        for index in shadow.applied.0 + 1..=applied.0 {
            let index = Index(index);
            let Some(entry) = shadow.entries.get(&index) else {
                if index <= shadow.start {
                    continue;
                }
                return Err(format!("entry {index} was applied and never written"));
            };
            let first = self.entries.entry(index).or_insert_with(|| {
                news.push(entry.clone());
                First { entry: entry.clone(), tick, anywhere: tick }
            });
            if shadow.registered == Some(entry.term) {
                visible = visible.max(index);
            }
            if first.entry != *entry {
                return Err(format!("two entries were applied at {index}: {:?} and {entry:?}", first.entry));
            }
        }
        self.reveal(visible, tick);
        shadow.applied = applied;
        shadow.entries = shadow.entries.split_off(&applied.next());
        Ok(news)
    }

    /// Clients can have heard of what there is up to here.
    pub(crate) fn reveal(&mut self, visible: Index, tick: u64) {
        if visible > self.visible {
            for (_, first) in self.entries.range_mut(self.visible.next()..=visible) {
                first.tick = tick;
            }
            self.visible = visible;
        }
    }

    /// Whether clients can have heard of anything of it.
    pub(crate) fn is_revealed(&self) -> bool {
        self.visible > Index::START
    }

    /// Where the entry stands that split this partition off, if it was applied anywhere.
    pub(crate) fn split_off(&self, child: PartitionId) -> Option<Index> {
        let splits = self.entries.iter().filter(|(_, first)| first.entry.kind == EntryKind::Split);
        let is_of = |first: &First| {
            Split::from_bytes(first.entry.data.clone()).is_ok_and(|split| split.child == child)
        };
        splits.filter(|(_, first)| is_of(first)).map(|(index, _)| *index).next()
    }

    /// What was seen to be applied, in the order of the log.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(|first| &first.entry)
    }

    /// Replays the logs of all groups against a model of leases and their keys. Within a group the order is that of the log; between
    /// groups, that of when an entry was first applied anywhere.
    pub fn replay(logs: &BTreeMap<GroupId, Self>) -> Result<Replayed, String> {
        let is_one = logs.len() == 1;
        let mut moment =
            Moment { tick: 0, revision: Revision::FIRST, leases: BTreeMap::new(), compacted: None };
        let mut moments = vec![moment.clone()];
        let mut lives: Vec<LeaseLife> = Vec::new();
        let mut keys: BTreeMap<quorate_types::Key, Option<LeaseId>> = BTreeMap::new();
        let mut compactions = Vec::new();
        let mut granted_in: BTreeMap<LeaseId, (GroupId, Term)> = BTreeMap::new();
        let mut entries = Vec::new();
        for (group, log) in logs {
            let mut newest = 0;
            for (index, First { entry, tick, anywhere }) in &log.entries {
                // What nobody answered for was there from its first day on, or never; nobody can tell.
                newest = newest.max(*tick);
                entries.push((newest, *group, *index, *anywhere, entry));
            }
        }
        entries.sort_by_key(|(tick, group, index, ..)| (*tick, *group, *index));
        for (tick, group, index, anywhere, entry) in entries {
            moment.tick = tick;
            let bad = |error| format!("entry {index} does not decode: {error}");
            let effects = effects_of(entry).map_err(bad)?;
            if is_one {
                check_command(&effects, &keys, &moment).map_err(|what| format!("entry {index}: {what}"))?;
            }
            for effect in &effects {
                if let Some(stamp) = effect.stamp() {
                    moment.revision = moment.revision.max(stamp.revision);
                }
                match effect {
                    Effect::Put { key, lease, .. } => {
                        keys.insert(key.clone(), *lease);
                    }
                    Effect::Delete { key, .. } => {
                        keys.remove(key);
                    }
                    Effect::LeaseGrant { lease, ttl_seconds } => {
                        moment.leases.insert(*lease, *ttl_seconds);
                        granted_in.insert(*lease, (group, entry.term));
                        lives.push(LeaseLife {
                            lease: *lease,
                            ttl_seconds: *ttl_seconds,
                            granted: anywhere,
                            begun: tick,
                            ended: None,
                        });
                    }
                    // Each partition that holds keys of it removes it, too; it ends at its home.
                    Effect::LeaseRemove { .. } if entry.kind == EntryKind::Commit => {}
                    Effect::LeaseRemove { lease } => {
                        moment.leases.remove(lease);
                        let granted = granted_in.get(lease);
                        reached!(
                            "lease-ended-by-later-leader",
                            granted.is_some_and(|(of, term)| *of == group && *term < entry.term)
                        );
                        reached!(
                            "lease-ended-in-other-partition",
                            granted.is_some_and(|(of, _)| *of != group)
                        );
                        let life = lives.iter_mut().rev().find(|life| life.lease == *lease);
                        if let Some(life) = life {
                            life.ended = life.ended.or(Some(tick));
                        }
                    }
                    Effect::Compact { revision } => {
                        moment.compacted = moment.compacted.max(Some(*revision));
                        compactions.push((anywhere, *revision));
                    }
                    Effect::LeaseCheckpoint { .. }
                    | Effect::LeaseHolder { .. }
                    | Effect::LeaseCopy { .. } => {}
                }
            }
            moments.push(moment.clone());
        }
        Ok(Replayed { moments, lives, compactions })
    }
}

/// What one partition changes at a revision: each event with its place among all of the revision.
pub(crate) type Part = Vec<(u32, Event)>;

/// The changes of keys that an entry says, and when.
pub(crate) fn changes_of(entry: &Entry) -> Result<Option<(Revision, Part)>, String> {
    let effects =
        effects_of(entry).map_err(|error| format!("entry {} does not decode: {error}", entry.index))?;
    let mut found = None;
    let mut part = Vec::new();
    for effect in effects {
        let Some(stamp) = effect.stamp() else { continue };
        found = Some(stamp.revision);
        part.push((
            stamp.sub,
            match effect {
                Effect::Put { key, value, create, version, lease, .. } => {
                    Event::Put(KeyValue { key, value, create, modified: stamp.revision, version, lease })
                }
                Effect::Delete { key, .. } => Event::Delete { key, modified: stamp.revision },
                other => panic!("{other:?} changes no key and has a stamp"),
            },
        ));
    }
    Ok(found.map(|revision| (revision, part)))
}

fn effects_of(entry: &Entry) -> Result<Vec<Effect>, quorate_types::Malformed> {
    let data = entry.data.clone();
    Ok(match entry.kind {
        EntryKind::Write | EntryKind::Lease => Command::from_bytes(data)?.effects,
        EntryKind::Commit => Committed::from_bytes(data)?.effects,
        EntryKind::Decide => match Decide::from_bytes(data)? {
            Decide::Commit { own, .. } => own,
            Decide::Forget(_) => Vec::new(),
        },
        _ => Vec::new(),
    })
}

/// A command must fit the state before it.
fn check_command(
    effects: &[Effect],
    keys: &BTreeMap<quorate_types::Key, Option<LeaseId>>,
    before: &Moment,
) -> Result<(), String> {
    let mut now = keys.clone();
    for effect in effects {
        match effect {
            Effect::Put { key, lease, previous_lease, .. } => {
                let was = now.insert(key.clone(), *lease).flatten();
                if was != *previous_lease {
                    return Err(format!("{key:?} belonged to {was:?}, not {previous_lease:?}"));
                }
                if lease.is_some_and(|lease| !before.leases.contains_key(&lease)) {
                    return Err(format!("{key:?} was put under {lease:?}, which does not exist"));
                }
            }
            Effect::Delete { key, previous_lease, .. } => match now.remove(key) {
                Some(was) if was == *previous_lease => {}
                was => return Err(format!("{key:?} was {was:?} and not {previous_lease:?} when deleted")),
            },
            Effect::LeaseGrant { lease, .. } => {
                if before.leases.contains_key(lease) {
                    return Err(format!("lease {lease} was granted and exists"));
                }
            }
            Effect::LeaseRemove { lease } => {
                if !before.leases.contains_key(lease) {
                    return Err(format!("lease {lease} was removed and is not there"));
                }
                if let Some((key, _)) = now.iter().find(|(_, of)| **of == Some(*lease)) {
                    return Err(format!("lease {lease} went and left {key:?}"));
                }
                let others = effects.iter().filter_map(|effect| match effect {
                    Effect::Delete { key, previous_lease, .. } if *previous_lease != Some(*lease) => {
                        Some(key)
                    }
                    _ => None,
                });
                if let Some(key) = others.into_iter().next() {
                    return Err(format!("lease {lease} took {key:?} along, which is not its own"));
                }
            }
            Effect::LeaseCheckpoint { lease, remaining_seconds } => match before.leases.get(lease) {
                // A new leader has added an election timeout.
                Some(ttl) if *remaining_seconds <= ttl + 1 => {}
                ttl => return Err(format!("lease {lease} of {ttl:?} s has {remaining_seconds} s left")),
            },
            Effect::LeaseHolder { .. } | Effect::LeaseCopy { .. } => {}
            Effect::Compact { revision } => {
                if *revision > before.revision || before.compacted.is_some_and(|last| *revision <= last) {
                    return Err(format!("compacted to {revision} at {before:?}"));
                }
            }
        }
    }
    Ok(())
}
