//! The cluster at one look, and what happened since the look before.

use super::answer::{Answer, Partition, Used};
use super::durations::{Durations, Pace};
use crate::cli::columns::natural;
use crate::services::ring::{MemberTold, PlaceTold, StandingTold};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Partitions that are named when the same happened to them; others are counted.
const NAMED_MAX: usize = 3;

/// What all nodes said at about the same time.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// Since the first look.
    pub(super) seconds: f64,
    /// By the node's name: what it said, or why it said nothing.
    pub(super) answers: Vec<(String, Result<Answer, String>)>,
}

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Snapshot {
    /// By zone, then by name.
    pub(super) nodes: Vec<Node>,
    /// By keyspace and number.
    pub(super) partitions: Vec<Group>,
    /// What clients asked of all nodes since the look before.
    pub(super) writes: Option<Pace>,
    pub(super) reads: Option<Pace>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) zone: String,
    pub(super) standing: StandingTold,
    /// Why it says nothing, if it does not.
    pub(super) problem: Option<String>,
    pub(super) leads: usize,
    pub(super) holds: usize,
    /// Entries a second that it committed as a leader.
    pub(super) entries_per_second: f64,
    /// Entries that it has not applied, where it has most of them.
    pub(super) lag: u64,
    /// Of one processor.
    pub(super) cpu_percent: f64,
    pub(super) resident_bytes: f64,
    pub(super) store_bytes: f64,
    pub(super) watches: f64,
    /// What clients asked of it since the look before.
    pub(super) writes: Option<Pace>,
    pub(super) reads: Option<Pace>,
}

impl Node {
    /// How it is, in a word.
    pub(super) fn state(&self) -> &'static str {
        match (self.standing, &self.problem) {
            (StandingTold::Active, None) => "ok",
            (StandingTold::Active, Some(_)) => "silent",
            (standing, _) => standing.word(),
        }
    }
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Group {
    pub(super) keyspace: String,
    pub(super) partition: u32,
    /// By name.
    pub(super) leader: Option<String>,
    pub(super) term: u64,
    pub(super) entries_per_second: f64,
    /// Of those that hold it, how many there are and how many say so.
    pub(super) replicas: usize,
    pub(super) heard: usize,
    /// Of the replica that is furthest behind.
    pub(super) lag: u64,
    /// Who shall hold it, by name, while it is moved.
    pub(super) target: Option<Vec<String>>,
    /// Into what it is being split.
    pub(super) child: Option<u32>,
}

impl Group {
    /// What it is called.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.keyspace, self.partition)
    }

    /// What is wrong with it or under way, the worst first; 0 is nothing.
    pub(super) fn trouble(&self) -> u32 {
        match (
            self.leader.is_some(),
            self.heard < self.replicas,
            self.target.is_some() || self.child.is_some(),
        ) {
            (false, ..) => 3,
            (_, true, _) => 2,
            (.., true) => 1,
            _ => 0,
        }
    }
}

type Key = (u32, u32);

impl Look {
    fn heard(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok())
    }

    fn replicas(&self) -> impl Iterator<Item = (Key, &str, &Answer, &Partition)> {
        self.heard().flat_map(|answer| {
            answer.keyspaces.iter().flat_map(move |keyspace| {
                let of = move |partition| ((keyspace.keyspace, partition), &*keyspace.name);
                keyspace.partitions.iter().map(move |replica| {
                    let (key, name) = of(replica.partition);
                    (key, name, answer, replica)
                })
            })
        })
    }

    /// The furthest commit of each partition that anybody told of.
    fn committed(&self) -> BTreeMap<Key, u64> {
        let mut furthest: BTreeMap<Key, u64> = BTreeMap::new();
        for (key, _, _, replica) in self.replicas() {
            let known = furthest.entry(key).or_default();
            *known = replica.committed.max(*known);
        }
        furthest
    }
}

impl Snapshot {
    /// Of all keyspaces, or of one. Rates are those since the look before.
    pub(super) fn of(before: &Look, now: &Look, keyspace: Option<&str>) -> Self {
        let seconds = (now.seconds - before.seconds).max(0.001);
        let Some(newest) = now.heard().max_by_key(|answer| answer.ring.revision) else {
            return Self { nodes: now.answers.iter().map(silent).collect(), ..Self::default() };
        };
        let names: BTreeMap<&str, &str> =
            newest.ring.members.iter().map(|member| (&*member.id, name(member))).collect();
        let named = |id: &String| names.get(id.as_str()).map_or(id.clone(), |name| (*name).to_owned());
        let all_named = |ids: &[String]| {
            let mut names: Vec<String> = ids.iter().map(named).collect();
            names.sort_by_cached_key(|name| natural(name));
            names
        };
        let places: BTreeMap<Key, &PlaceTold> = newest
            .ring
            .keyspaces
            .iter()
            .flat_map(|keyspace| {
                keyspace.partitions.iter().map(|place| ((keyspace.keyspace, place.partition), place))
            })
            .collect();

        let (was, is) = (before.committed(), now.committed());
        // One that was not known before has not been at work since, as far as can be told.
        let rate = |key: &Key| {
            let (is, was) = (is.get(key).copied().unwrap_or(0), was.get(key).copied());
            is.saturating_sub(was.unwrap_or(is)) as f64 / seconds
        };
        let lag = |key: &Key, replica: &Partition| {
            is.get(key).map_or(0, |committed| committed.saturating_sub(replica.applied))
        };
        let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
        for (key, name, answer, replica) in now.replicas() {
            if keyspace.is_some_and(|keyspace| keyspace != name) {
                continue;
            }
            let place = places.get(&key);
            let voters = place.map(|place| place.voters.as_slice()).unwrap_or_default();
            let group = groups.entry(key).or_insert_with(|| Group {
                keyspace: name.to_owned(),
                partition: key.1,
                leader: None,
                term: 0,
                entries_per_second: rate(&key),
                replicas: voters.len(),
                heard: 0,
                lag: 0,
                target: place.and_then(|place| place.target.as_deref()).map(all_named),
                child: None,
            });
            group.child = group.child.or(replica.splitting.as_ref().map(|splitting| splitting.child));
            let Some(term) = replica.term else { continue };
            group.heard += usize::from(voters.contains(&answer.ring.node));
            group.lag = group.lag.max(lag(&key, replica));
            // A leader that was deposed and has not heard of it is of an older term.
            if term > group.term || (term == group.term && group.leader.is_none()) {
                group.term = term;
                group.leader = replica.leader.as_ref().map(named);
            }
        }

        let nodes = newest.ring.members.iter().map(|member| {
            let name = name(member);
            let answer = now.heard().find(|answer| answer.ring.node == member.id);
            let earlier = before.heard().find(|answer| answer.ring.node == member.id);
            let lags = now
                .replicas()
                .filter(|(.., answer, replica)| answer.ring.node == member.id && replica.term.is_some());
            let cpu = answer.zip(earlier).map(|(now, before)| now.used.cpu_seconds - before.used.cpu_seconds);
            let used = answer.map(|answer| answer.used.clone()).unwrap_or_default();
            let was = earlier.map(|answer| answer.used.clone()).unwrap_or_default();
            // Of a node that was not asked before it is not known what was lately.
            let pace =
                |of: fn(&Used) -> &Durations| earlier.and_then(|_| of(&used).since(of(&was)).pace(seconds));
            let led = || groups.values().filter(|group| group.leader.as_deref() == Some(name));
            let is_held =
                |key: &&Key| places.get(*key).is_some_and(|place| place.voters.contains(&member.id));
            Node {
                name: name.to_owned(),
                zone: member.zone.clone(),
                standing: member.standing,
                problem: answer.is_none().then(|| why(now, name)),
                leads: led().count(),
                holds: groups.keys().filter(is_held).count(),
                entries_per_second: led().fold(0.0, |sum, group| sum + group.entries_per_second),
                lag: lags.map(|(key, .., replica)| lag(&key, replica)).max().unwrap_or(0),
                // A process that was started anew begins at 0.
                cpu_percent: cpu.unwrap_or(0.0).max(0.0) * 100.0 / seconds,
                resident_bytes: used.resident_bytes,
                store_bytes: used.store_bytes,
                watches: used.watches,
                writes: pace(|used| &used.writes),
                reads: pace(|used| &used.reads),
            }
        });
        let mut nodes: Vec<Node> = nodes.collect();
        nodes.sort_by_cached_key(|node| (node.zone.is_empty(), node.zone.clone(), natural(&node.name)));
        let paced = |of: fn(&Used) -> &Durations| {
            let mut all = Durations::default();
            for answer in now.heard() {
                let earlier = before.heard().find(|before| before.ring.node == answer.ring.node);
                if let Some(earlier) = earlier {
                    all.add(&of(&answer.used).since(of(&earlier.used)));
                }
            }
            all.pace(seconds)
        };
        Self {
            nodes,
            partitions: groups.into_values().collect(),
            writes: paced(|used| &used.writes),
            reads: paced(|used| &used.reads),
        }
    }

    /// What is otherwise than before, in words.
    pub(super) fn changes(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let known: BTreeMap<&str, &Node> = before.nodes.iter().map(|node| (&*node.name, node)).collect();
        for node in &self.nodes {
            match known.get(&*node.name) {
                None => changes.push(format!("{} has joined", node.name)),
                Some(was) if was.state() != node.state() => {
                    changes.push(format!("{} is {} (was {})", node.name, node.state(), was.state()));
                }
                Some(_) => {}
            }
        }
        let names: BTreeSet<&str> = self.nodes.iter().map(|node| &*node.name).collect();
        let gone = before.nodes.iter().filter(|node| !names.contains(&*node.name));
        changes.extend(gone.map(|node| format!("{} has gone", node.name)));

        let known: BTreeMap<(&str, u32), &Group> =
            before.partitions.iter().map(|group| ((&*group.keyspace, group.partition), group)).collect();
        // With hundreds of them, the same happens to many at once.
        let mut happened: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for group in &self.partitions {
            let Some(was) = known.get(&(&*group.keyspace, group.partition)) else {
                changes.push(format!("{} is new", group.name()));
                continue;
            };
            let mut note = |what: String| happened.entry(what).or_default().push(group.name());
            match (&was.leader, &group.leader) {
                (was, is) if was == is => {}
                (_, None) => note("no leader".into()),
                (None, Some(is)) => note(format!("{is} leads")),
                (Some(was), Some(is)) => note(format!("{is} leads, after {was}")),
            }
            match (&was.target, &group.target) {
                (was, Some(target)) if was.as_ref() != Some(target) => {
                    note(format!("to be on {}", target.join(", ")));
                }
                (Some(target), None) => note(format!("now on {}", target.join(", "))),
                _ => {}
            }
            if let (None, Some(child)) = (was.child, group.child) {
                note(format!("being split, {child} is to come"));
            }
        }
        for (what, groups) in happened {
            let rest = groups.len().saturating_sub(NAMED_MAX);
            let named = groups.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(" ");
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            changes.push(format!("{named}{more}: {what}"));
        }
        changes
    }
}

/// A node of which only the name is known, since nobody says anything.
fn silent((name, answer): &(String, Result<Answer, String>)) -> Node {
    Node {
        name: name.clone(),
        zone: String::new(),
        standing: StandingTold::Active,
        problem: answer.as_ref().err().cloned(),
        leads: 0,
        holds: 0,
        entries_per_second: 0.0,
        lag: 0,
        cpu_percent: 0.0,
        resident_bytes: 0.0,
        store_bytes: 0.0,
        watches: 0.0,
        writes: None,
        reads: None,
    }
}

fn name(member: &MemberTold) -> &str {
    if member.name.is_empty() { &member.id } else { &member.name }
}

/// Why a node said nothing.
fn why(look: &Look, name: &str) -> String {
    let said =
        look.answers.iter().find(|(asked, _)| asked == name).and_then(|(_, answer)| answer.as_ref().err());
    said.cloned().unwrap_or_else(|| "its address is not known".into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::answer::{Keyspace, Splitting, Used};
    use super::*;
    use crate::services::ring::{KeyspaceTold, RingTold};

    /// What a node says of a cluster of three, a, b and c, with partitions of keyspace 1 that all of them hold: of each its leader, term,
    /// committed and applied entries.
    pub(in crate::cli::top) fn answer(node: &str, partitions: &[(&str, u64, u64, u64)]) -> Answer {
        let member = |id: &str| MemberTold {
            id: id.into(),
            name: format!("node-{id}"),
            peer: String::new(),
            zone: "z".into(),
            weight: 1,
            standing: StandingTold::Active,
        };
        let places = (0..partitions.len()).map(|at| PlaceTold {
            partition: at as u32,
            ranges: Vec::new(),
            voters: ["a", "b", "c"].map(str::to_owned).into(),
            target: None,
            leader: None,
            term: 0,
        });
        let replicas =
            partitions.iter().enumerate().map(|(at, (leader, term, committed, applied))| Partition {
                partition: at as u32,
                splitting: None,
                leader: Some((*leader).to_owned()).filter(|leader| !leader.is_empty()),
                term: Some(*term),
                committed: *committed,
                applied: *applied,
            });
        Answer {
            ring: RingTold {
                node: node.into(),
                revision: 1,
                members: ["a", "b", "c"].map(member).into(),
                keyspaces: vec![KeyspaceTold {
                    keyspace: 1,
                    name: "default".into(),
                    partitions: places.collect(),
                }],
            },
            keyspaces: vec![Keyspace { keyspace: 1, name: "default".into(), partitions: replicas.collect() }],
            used: Used {
                cpu_seconds: 1.0,
                resident_bytes: 5e7,
                store_bytes: 2e9,
                watches: 3.0,
                ..Used::default()
            },
        }
    }

    pub(in crate::cli::top) fn look(seconds: f64, answers: Vec<Answer>) -> Look {
        let named = |answer: Answer| (format!("node-{}", answer.ring.node), Ok(answer));
        Look { seconds, answers: answers.into_iter().map(named).collect() }
    }

    #[test]
    fn rates_are_of_the_furthest_and_count_for_the_newest_leader() {
        let before = look(0.0, vec![answer("a", &[("a", 1, 100, 100)]), answer("b", &[("a", 1, 90, 90)])]);
        let mut now = look(2.0, vec![answer("a", &[("a", 1, 150, 150)]), answer("b", &[("b", 2, 300, 240)])]);
        let Ok(b) = &mut now.answers[1].1 else { unreachable!() };
        b.used.cpu_seconds = 2.5;
        let snapshot = Snapshot::of(&before, &now, None);
        let group = &snapshot.partitions[0];
        assert_eq!(
            (group.leader.as_deref(), group.term, group.entries_per_second),
            (Some("node-b"), 2, 100.0)
        );
        assert_eq!((group.heard, group.replicas, group.lag, group.trouble()), (2, 3, 150, 2));
        let nodes: Vec<_> = snapshot
            .nodes
            .iter()
            .map(|node| {
                (node.state(), node.leads, node.holds, node.entries_per_second, node.lag, node.cpu_percent)
            })
            .collect();
        assert_eq!(nodes[0], ("ok", 0, 1, 0.0, 150, 0.0));
        assert_eq!(nodes[1], ("ok", 1, 1, 100.0, 60, 75.0));
        assert_eq!(nodes[2], ("silent", 0, 1, 0.0, 0, 0.0));
    }

    #[test]
    fn a_keyspace_can_be_chosen_and_nobody_may_answer() {
        let now = look(1.0, vec![answer("a", &[("a", 1, 1, 1)])]);
        assert_eq!(Snapshot::of(&now, &now, Some("default")).partitions.len(), 1);
        assert_eq!(Snapshot::of(&now, &now, Some("other")).partitions, []);
        let none = Look { seconds: 2.0, answers: vec![("x".into(), Err("down".into()))] };
        let snapshot = Snapshot::of(&now, &none, None);
        assert_eq!((snapshot.nodes[0].state(), snapshot.partitions.len()), ("silent", 0));
    }

    #[test]
    fn what_is_otherwise_is_said() {
        let say = |before: &[&Answer], now: &[&Answer]| {
            let [before, now] = [before, now].map(|answers| {
                Snapshot::of(
                    &Look::default(),
                    &look(1.0, answers.iter().map(|answer| (*answer).clone()).collect()),
                    None,
                )
            });
            now.changes(&before)
        };
        let quiet = answer("a", &[("a", 1, 1, 1); 3]);
        assert_eq!(say(&[&quiet], &[&quiet]), [""; 0]);
        assert_eq!(
            say(&[&quiet, &answer("b", &[])], &[&answer("a", &[("b", 2, 1, 1); 3])]),
            ["node-b is silent (was ok)", "default/0 default/1 default/2: node-b leads, after node-a"]
        );
        assert_eq!(
            say(&[&quiet], &[&answer("a", &[("a", 1, 1, 1), ("", 2, 1, 1), ("a", 1, 1, 1)])]),
            ["default/1: no leader"]
        );
        let mut moves = quiet.clone();
        moves.ring.keyspaces[0].partitions[2].target = Some(["b", "c", "d"].map(str::to_owned).into());
        moves.keyspaces[0].partitions[0].splitting = Some(Splitting { child: 3 });
        assert_eq!(
            say(&[&quiet], &[&moves]),
            ["default/0: being split, 3 is to come", "default/2: to be on d, node-b, node-c"]
        );
        assert_eq!(say(&[&moves], &[&quiet]), ["default/2: now on d, node-b, node-c"]);
        let mut fewer = quiet.clone();
        fewer.ring.members.pop();
        fewer.ring.members[1].standing = StandingTold::Lost;
        assert_eq!(say(&[&quiet], &[&fewer]), ["node-b is lost (was silent)", "node-c has gone"]);
        assert!(say(&[&fewer], &[&quiet]).contains(&"node-c has joined".to_owned()));
    }
}
