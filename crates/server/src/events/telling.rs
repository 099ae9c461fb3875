//! What is noticed, in words, with names and reasons.
//!
//! Reasons are put together from what was noticed before: who is not heard, whose connection broke, who handed over, what standing a member has. Pure but
//! for the times it is given.
//!
//! Caveat: what a node finds when it starts, and what it applies until it has caught up, is no news and is not told: an election while it was down, members that
//! came before it joined. Those who were there tell it.

use super::{GROUPS, Group, Kind, Record, Told};
use quorate_consensus::Role;
use quorate_node::Notice;
use quorate_types::map::KeyspaceState;
use quorate_types::member::Standing;
use quorate_types::{GroupId, KeyspaceId, KeyspaceMap, Member, NodeId, Term};
use std::collections::BTreeMap;
use std::time::Duration;

/// After so many milliseconds a broken connection or a word of a leader is no reason for an election any more.
const REASON_MILLIS_MAX: u64 = 10_000;

/// What has to be known to tell what happens.
#[derive(Debug)]
pub struct Telling {
    own: NodeId,
    grace: Duration,
    /// Also of those who have gone.
    members: BTreeMap<NodeId, Member>,
    maps: BTreeMap<KeyspaceId, KeyspaceMap>,
    /// Who leads each group, in which term.
    leaders: BTreeMap<GroupId, (Term, NodeId)>,
    /// Who handed a group over to this node, and when.
    handed_over: BTreeMap<GroupId, (NodeId, u64)>,
    /// Who is not heard.
    silent: BTreeMap<NodeId, u64>,
    /// Whose connection broke last when.
    broken: BTreeMap<NodeId, u64>,
    /// What is told of the cluster's rows is not history: this node has caught up with them, or decides about them.
    is_current: bool,
    /// The last run was not ended in order.
    was_cut_off: bool,
}

impl Telling {
    /// Of a node that knows these members and keyspaces to begin with. A member that is silent for `grace` is lost.
    pub fn new(own: NodeId, grace: Duration, members: Vec<Member>, maps: Vec<KeyspaceMap>) -> Self {
        Self {
            own,
            grace,
            members: members.into_iter().map(|member| (member.id, member)).collect(),
            maps: maps.into_iter().map(|map| (map.id, map)).collect(),
            leaders: BTreeMap::new(),
            handed_over: BTreeMap::new(),
            silent: BTreeMap::new(),
            broken: BTreeMap::new(),
            is_current: false,
            was_cut_off: false,
        }
    }

    /// The last record of the journal, before this run.
    pub(super) fn last_run_ended_with(&mut self, last: Option<&Record>) {
        self.was_cut_off = last.is_some_and(|last| last.kind != Kind::Process || last.what != self.stopped());
    }

    /// What this node is called.
    pub(super) fn own_name(&self) -> String {
        self.name(self.own)
    }

    fn stopped(&self) -> String {
        format!("{} has stopped", self.own_name())
    }

    fn name(&self, id: NodeId) -> String {
        let known = self.members.get(&id).filter(|member| !member.name.is_empty());
        known.map_or_else(|| id.to_string(), |member| member.name.clone())
    }

    fn names(&self, ids: &[NodeId]) -> String {
        let names: Vec<String> = ids.iter().map(|id| self.name(*id)).collect();
        names.join(" ")
    }

    fn group(&self, id: GroupId, mark: Option<u64>) -> Group {
        let name = match self.maps.get(&id.keyspace) {
            Some(map) => map.name.clone(),
            None if id.keyspace == KeyspaceId::SYSTEM => "system".to_owned(),
            None => id.keyspace.to_string(),
        };
        Group(name, id.partition.0, mark)
    }

    /// What there is to write down.
    pub(super) fn tell(&mut self, at: u64, told: Told) -> Vec<Record> {
        let is_of_rows = matches!(
            told,
            Told::Map(_)
                | Told::Notice(
                    Notice::Member { .. }
                        | Notice::Moves { .. }
                        | Notice::Moved { .. }
                        | Notice::KeyspaceDeleted { .. }
                )
        );
        let is_news = self.is_current || !is_of_rows;
        let records = self.known(at, told);
        if is_news { records } else { Vec::new() }
    }

    /// It is known from now on.
    fn known(&mut self, at: u64, told: Told) -> Vec<Record> {
        let own = self.own_name();
        let process = |what: String, why: String| vec![Record::new(at, Kind::Process, what, why)];
        match told {
            Told::Notice(notice) => self.noticed(at, notice),
            Told::Map(map) => self.map(at, *map),
            Told::Members(members) => {
                self.members.extend(members.into_iter().map(|member| (member.id, member)));
                Vec::new()
            }
            Told::ConnectionLost(node) => {
                self.broken.insert(node, at);
                Vec::new()
            }
            Told::Space(Some(why)) => {
                vec![Record::new(at, Kind::Space, format!("{own} refuses writes that need space"), why)]
            }
            Told::Space(None) => {
                vec![Record::new(
                    at,
                    Kind::Space,
                    format!("{own} takes writes again"),
                    "there is space again",
                )]
            }
            Told::Started => {
                let what = format!("{own} has started, version {}", env!("CARGO_PKG_VERSION"));
                let why =
                    if self.was_cut_off { "its last run was cut off: it was killed, or failed" } else { "" };
                process(what, why.to_owned())
            }
            Told::Stopping => process(
                format!("{own} is told to stop, and hands over what it leads"),
                "a signal to the process".into(),
            ),
            Told::Stopped => process(self.stopped(), String::new()),
            Told::Suspect(why) => {
                let what = format!(
                    "{own}'s store is damaged: it hands over what it leads, to have the store filled anew"
                );
                vec![Record::new(at, Kind::Replica, what, why)]
            }
            Told::PutAside(aside) => {
                let what = if aside.has_forgotten {
                    "log aside, and its store, asks the others what it has promised, and fetches all that it held"
                } else {
                    "store aside and fetches all that it held"
                };
                vec![Record::new(at, Kind::Replica, format!("{own} has put its damaged {what}"), aside.why)]
            }
            Told::Failed(why) => process(format!("{own} stops by itself"), why),
        }
    }

    fn noticed(&mut self, at: u64, notice: Notice) -> Vec<Record> {
        let own = self.own_name();
        let replica = |what: String, why: String| Record::new(at, Kind::Replica, what, why);
        let record = match notice {
            Notice::Role { group, term, role } => return self.role(at, group, term, role),
            Notice::HandedOver { group, by } => {
                self.handed_over.insert(group, (by, at));
                return Vec::new();
            }
            Notice::Diverged { group, index } => {
                let what = format!("{own} throws away its state of {GROUPS}");
                let why = format!("at entry {index} it had become something else than those of a quorum");
                replica(what, why).of(self.group(group, None))
            }
            Notice::DigestsDiffer { group, index } => {
                let what =
                    format!("{GROUPS} is not the same on its nodes, and no quorum says which is right");
                replica(what, format!("seen by {own} at entry {index}")).of(self.group(group, None))
            }
            Notice::DiskStalled => {
                let what = format!("{own} hands over what it leads");
                Record::new(at, Kind::Disk, what, "its disk has stopped answering, those of others have not")
            }
            Notice::DiskBack => Record::new(at, Kind::Disk, format!("{own}'s disk answers again"), ""),
            Notice::Silent { node } => {
                self.silent.insert(node, at);
                let why = self.broken_lately(node, at).then_some("the connection to it broke");
                let what = format!("{} is not heard", self.name(node));
                Record::new(at, Kind::Silence, what, why.unwrap_or_default())
            }
            Notice::Heard { node } => {
                let silent = self.silent.remove(&node).map(|since| at.saturating_sub(since));
                let why = silent
                    .map(|millis| format!("after {}", lasting(Duration::from_millis(millis))))
                    .unwrap_or_default();
                Record::new(at, Kind::Silence, format!("{} is heard again", self.name(node)), why)
            }
            Notice::Member { before, now, revision } => {
                return self.member(at, before.as_deref(), now.map(|now| *now), revision.0);
            }
            Notice::Moves { group, voters, target, revision } => {
                let what = self.way(&voters, &target, "is to go", "is to be");
                let why = self.why_moved(&voters, &target);
                Record::new(at, Kind::Move, what, why).of(self.group(group, Some(revision.0)))
            }
            Notice::Moved { group, before, voters, revision } => {
                let what = self.way(&before, &voters, "has gone", "is");
                Record::new(at, Kind::Move, what, "").of(self.group(group, Some(revision.0)))
            }
            Notice::Damaged { group, what } => {
                replica(format!("{own} throws away its damaged state of {GROUPS}"), what)
                    .of(self.group(group, None))
            }
            Notice::Recovered { group, lineage, last, .. } => {
                let what = format!("{GROUPS} goes on with what {own} has, up to entry {}", last.index);
                let why = format!(
                    "most of its replicas are lost for good, and it was ordered (recovery {lineage})"
                );
                replica(what, why).of(self.group(group, None))
            }
            Notice::Superseded { group, .. } => {
                let why = "it was recovered elsewhere without what this one had".to_owned();
                replica(format!("{own} gives up what it has of {GROUPS}"), why).of(self.group(group, None))
            }
            Notice::Discarded { group } => {
                self.leaders.remove(&group);
                let why = "its row gives it no part in them any more".to_owned();
                replica(format!("{own} has thrown away its replica of {GROUPS}"), why)
                    .of(self.group(group, None))
            }
            Notice::SnapshotFetching { group, from, .. } => {
                let what = format!("{own} fetches {GROUPS} from {}", self.name(from));
                replica(what, "it is behind the log, or new to it".into()).of(self.group(group, None))
            }
            Notice::SnapshotInstalled { group, .. } => {
                replica(format!("{own} has fetched {GROUPS}"), String::new()).of(self.group(group, None))
            }
            Notice::SnapshotFailed { group, reason } => {
                replica(format!("{own} could not fetch {GROUPS}"), reason).of(self.group(group, None))
            }
            Notice::Asking { unanswered } => {
                let why =
                    format!("its data directory is new, and {} did not answer", self.names(&unanswered));
                Record::new(at, Kind::Process, format!("{own} waits before it takes part"), why)
            }
            Notice::CatchingUp => {
                let why = "the cluster knows it, but its data directory is empty";
                Record::new(at, Kind::Process, format!("{own} is filled by the others"), why)
            }
            Notice::Admitted => Record::new(at, Kind::Process, format!("{own} takes part"), ""),
            Notice::Reborn { node } => {
                let why = "its data directory is another than before: nothing it promised counts";
                Record::new(at, Kind::Member, format!("{} has lost its data", self.name(node)), why)
            }
            Notice::KeyspaceDeleted { keyspace } => {
                let Some(map) = self.maps.remove(&keyspace) else { return Vec::new() };
                self.leaders.retain(|group, _| group.keyspace != keyspace);
                let what = format!("keyspace {} is deleted", map.name);
                Record::new(at, Kind::Keyspace, what, "ordered").marked(u64::from(keyspace.0))
            }
            Notice::Removed => {
                let why = "its row is gone: nobody hears it any more";
                Record::new(at, Kind::Member, format!("{own} finds that it was removed"), why)
            }
            Notice::Suspicious { from, what } => {
                Record::new(at, Kind::Refused, format!("{own} ignored what {} sent", self.name(from)), what)
            }
            Notice::Current | Notice::Serving { group: GroupId::META, .. } => {
                self.is_current = true;
                return Vec::new();
            }
            // Told by what follows from them.
            Notice::Serving { .. }
            | Notice::Registered { .. }
            | Notice::Keyspace { .. }
            | Notice::SnapshotOffered { .. }
            | Notice::Judged { .. } => return Vec::new(),
        };
        vec![record]
    }

    fn role(&mut self, at: u64, group: GroupId, term: Term, role: Role) -> Vec<Record> {
        let leader = match role {
            Role::Leader { .. } => self.own,
            Role::Follower { leader: Some(leader) } => leader,
            Role::Follower { leader: None } | Role::Candidate => return Vec::new(),
        };
        let before = self.leaders.get(&group).copied();
        if before.is_some_and(|before| before >= (term, leader)) {
            return Vec::new();
        }
        let why = before.map(|(_, before)| self.why_led(at, group, before, leader)).unwrap_or_default();
        self.leaders.insert(group, (term, leader));
        self.handed_over.remove(&group);
        if before.is_none() && leader != self.own {
            return Vec::new();
        }
        let what = format!("{} leads {GROUPS}", self.name(leader));
        vec![Record::new(at, Kind::Election, what, why).of(self.group(group, Some(term.0)))]
    }

    fn why_led(&self, at: u64, group: GroupId, before: NodeId, now: NodeId) -> String {
        let name = self.name(before);
        let is_recent = |since: u64| at.saturating_sub(since) <= REASON_MILLIS_MAX;
        if self.handed_over.get(&group).is_some_and(|(by, since)| *by == before && is_recent(*since)) {
            format!("{name} handed over")
        } else if before == now {
            "it led before, in an older term".to_owned()
        } else if self.silent.contains_key(&before) {
            format!("{name}, which led, is not heard")
        } else if self.broken_lately(before, at) {
            format!("the connection to {name}, which led, broke")
        } else if now == self.own {
            format!("{name} led before")
        } else {
            // It knows better itself.
            String::new()
        }
    }

    fn broken_lately(&self, node: NodeId, at: u64) -> bool {
        self.broken.get(&node).is_some_and(|since| at.saturating_sub(*since) <= REASON_MILLIS_MAX)
    }

    fn member(&mut self, at: u64, before: Option<&Member>, now: Option<Member>, mark: u64) -> Vec<Record> {
        let record =
            |what: String, why: &str| Record::new(at, Kind::Member, what, why.to_owned()).marked(mark);
        let Some(now) = now else {
            let Some(before) = before else { return Vec::new() };
            let why = if before.standing == Standing::Leaving {
                "nothing is on it any more"
            } else {
                "another came for it"
            };
            return vec![record(format!("{} is not a member any more", self.name(before.id)), why)];
        };
        self.members.insert(now.id, now.clone());
        let name = self.name(now.id);
        let Some(before) = before else {
            return vec![record(format!("{name} is a member, at {}", now.peer), "")];
        };
        let mut told = Vec::new();
        let lost = || format!("nobody heard it for the grace period of {}", lasting(self.grace));
        match (before.standing, now.standing) {
            (before, now) if before == now => {}
            (_, Standing::Lost) => told.push(record(format!("{name} is lost"), &lost())),
            (_, Standing::Draining) => told.push(record(format!("{name} is to hold nothing"), "ordered")),
            (_, Standing::Leaving) => told.push(record(format!("{name} is to leave"), "ordered")),
            (Standing::Lost, Standing::Active) => {
                told.push(record(format!("{name} is taken into use again"), "it is heard again"));
            }
            (_, Standing::Active) => {
                told.push(record(format!("{name} is taken into use again"), "ordered"));
            }
        }
        if before.zone != now.zone {
            told.push(record(format!("{name} is in zone «{}», was in «{}»", now.zone, before.zone), ""));
        }
        if before.weight != now.weight {
            told.push(record(format!("{name} has weight {}, had {}", now.weight, before.weight), ""));
        }
        if before.name != now.name || before.peer != now.peer {
            told.push(record(format!("{name}, once {}, is at {}", before.name, now.peer), ""));
        }
        told
    }

    /// From whom to whom, in words that are the same for all groups that go the same way.
    fn way(&self, from: &[NodeId], to: &[NodeId], goes: &str, is: &str) -> String {
        let [out, into] = [(from, to), (to, from)].map(|(some, others)| {
            some.iter().copied().filter(|id| !others.contains(id)).collect::<Vec<NodeId>>()
        });
        match (&out[..], &into[..]) {
            ([], []) => format!("{GROUPS} {is} on {} as before", self.names(to)),
            ([], into) => format!("{GROUPS} {is} on {}, too", self.names(into)),
            (out, []) => format!("{GROUPS} {goes} from {}", self.names(out)),
            (out, into) => format!("{GROUPS} {goes} from {} to {}", self.names(out), self.names(into)),
        }
    }

    fn why_moved(&self, from: &[NodeId], to: &[NodeId]) -> String {
        let mut reasons = Vec::new();
        for id in from.iter().filter(|id| !to.contains(id)) {
            let name = self.name(*id);
            match self.members.get(id).map(|member| member.standing) {
                Some(Standing::Active) => {}
                Some(Standing::Draining) => reasons.push(format!("{name} is to hold nothing")),
                Some(Standing::Leaving) => reasons.push(format!("{name} is to leave")),
                Some(Standing::Lost) => reasons.push(format!("{name} is lost")),
                None => reasons.push(format!("{name} is gone")),
            }
        }
        match reasons[..] {
            [] if to.len() > from.len() => "more replicas are wanted".into(),
            [] if to.len() < from.len() => "fewer replicas are wanted".into(),
            [] => "so that each node has its share".into(),
            _ => reasons.join(", "),
        }
    }

    fn map(&mut self, at: u64, map: KeyspaceMap) -> Vec<Record> {
        let name = map.name.clone();
        let before = self.maps.insert(map.id, map.clone());
        let Some(before) = before else {
            if map.state != KeyspaceState::Active {
                return Vec::new();
            }
            let what = format!("keyspace {name} is there");
            return vec![Record::new(at, Kind::Keyspace, what, "").marked(u64::from(map.id.0))];
        };
        let mut told = Vec::new();
        for partition in &map.partitions {
            let id = partition.id.0;
            let known = before.partitions.iter().find(|known| known.id == partition.id);
            match (known, partition.origin) {
                (None, Some(origin)) => {
                    let what = format!("{name}/{id} was split off {name}/{}", origin.0);
                    told.push(Record::new(at, Kind::Split, what, "").marked(u64::from(id)));
                }
                (known, _) => {
                    let child = partition.child().map(|(child, _)| child);
                    if let Some(child) = child
                        && known.and_then(|known| known.child()).map(|(child, _)| child) != Some(child)
                    {
                        let what = format!("{name}/{id} is being split: {name}/{} is to come", child.0);
                        told.push(Record::new(at, Kind::Split, what, "").marked(u64::from(child.0)));
                    }
                }
            }
        }
        told
    }
}

/// A time, for people.
fn lasting(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{}.{} s", seconds, time.subsec_millis() / 100),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests;
