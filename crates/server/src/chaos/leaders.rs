//! Who leads which group, over time: every node is asked for what it knows (`/ring`) twice a second, from outside, as an operator would.
//!
//! The newest term counts. A leader that does not say so itself, because it is dead, paused or slow to answer, is noted as one that others believe in, until
//! somebody knows of a newer term. So a change is known half a second late at most, or a second and a half while some node does not answer; who led for less is not seen.

use super::book::Book;
use super::client::{Directory, channel_to};
use crate::cli::ring::ask_by;
use crate::services::ring::RingTold;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::transport::Channel;

const PERIOD: Duration = Duration::from_millis(500);
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Spans of all groups together; what would be more is only counted.
const SPANS_MAX: usize = 100_000;

/// For how long one node led a group, in one term. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Led {
    pub(super) node: String,
    pub(super) term: u64,
    /// It says so itself; otherwise others believe it.
    pub(super) is_own_word: bool,
    pub(super) from: u64,
    /// Without an end it lasted until the run was over.
    pub(super) until: Option<u64>,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) keyspace: String,
    pub(super) partition: u32,
    /// In order; between two of them nobody was known to lead.
    pub(super) led: Vec<Led>,
}

/// All groups, by the numbers of keyspace and partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaders {
    pub(super) groups: BTreeMap<(u32, u32), Group>,
    /// Spans that there was no room for.
    pub(super) left_out: u64,
    count: usize,
}

impl Leaders {
    /// How many groups a node leads now.
    pub(super) fn led_by(&self, node: &str) -> u64 {
        let leads = |led: &Led| led.until.is_none() && led.node == node;
        self.groups.values().filter(|group| group.led.last().is_some_and(leads)).count() as u64
    }

    /// What nodes said, all asked at once.
    fn note(&mut self, told: &[RingTold], at: u64) {
        let mut found = leading(told);
        for (id, group) in &mut self.groups {
            if !found.contains_key(id) {
                group.end(at);
            }
        }
        for (id, (keyspace, led)) in &mut found {
            let group = self.groups.entry(*id).or_default();
            (group.keyspace, group.partition) = (std::mem::take(keyspace), id.1);
            let Some((node, term, is_own_word)) = led.take() else {
                group.end(at);
                continue;
            };
            let is_same = |led: &Led| {
                led.until.is_none() && (&led.node, led.term, led.is_own_word) == (&node, term, is_own_word)
            };
            if group.led.last().is_some_and(is_same) {
                continue;
            }
            group.end(at);
            if self.count >= SPANS_MAX {
                self.left_out += 1;
                continue;
            }
            self.count += 1;
            group.led.push(Led { node, term, is_own_word, from: at, until: None });
        }
    }
}

impl Group {
    fn end(&mut self, at: u64) {
        if let Some(led) = self.led.last_mut() {
            led.until.get_or_insert(at);
        }
    }
}

/// Node, term, and whether it says so itself.
type Leading = Option<(String, u64, bool)>;

/// Who leads each group that anybody told of, by its keyspace's name.
fn leading(told: &[RingTold]) -> BTreeMap<(u32, u32), (String, Leading)> {
    let mut names = BTreeMap::new();
    for told in told {
        names.extend(told.members.iter().map(|member| (member.id.as_str(), member.name.as_str())));
    }
    let mut newest: BTreeMap<(u32, u32), (String, Leading)> = BTreeMap::new();
    // The highest term of anybody who knows of no leader.
    let mut leaderless: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for told in told {
        for keyspace in &told.keyspaces {
            for place in &keyspace.partitions {
                let id = (keyspace.keyspace, place.partition);
                let (_, known) = newest.entry(id).or_insert_with(|| (keyspace.name.clone(), None));
                let Some(leader) = &place.leader else {
                    let term = leaderless.entry(id).or_default();
                    *term = place.term.max(*term);
                    continue;
                };
                let name = names.get(leader.as_str()).filter(|name| !name.is_empty());
                let name = name.map_or(leader.as_str(), |name| name).to_owned();
                let rank = (place.term, *leader == told.node);
                if known.as_ref().is_none_or(|(_, term, is_own_word)| rank > (*term, *is_own_word)) {
                    *known = Some((name, rank.0, rank.1));
                }
            }
        }
    }
    for (id, (_, known)) in &mut newest {
        let is_over = |(_, term, is_own_word): &(String, u64, bool)| {
            !is_own_word && leaderless.get(id).is_some_and(|newer| newer > term)
        };
        if known.as_ref().is_some_and(is_over) {
            *known = None;
        }
    }
    newest
}

/// Asks until it is ended.
pub(super) async fn watch(leaders: Arc<Mutex<Leaders>>, book: Arc<Book>, directory: Arc<Directory>) {
    let mut channels: BTreeMap<String, Channel> = BTreeMap::new();
    let mut beat = tokio::time::interval(PERIOD);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let nodes = directory.all();
        channels.retain(|address, _| nodes.iter().any(|(_, known)| known == address));
        let mut asked = JoinSet::new();
        for (_, address) in nodes {
            let Ok(new) = channel_to(&address, Some(ANSWER_MAX)) else { continue };
            let channel = channels.entry(address).or_insert(new).clone();
            asked.spawn(async move { tokio::time::timeout(ANSWER_MAX, ask_by(channel)).await });
        }
        let mut told = Vec::new();
        while let Some(answer) = asked.join_next().await {
            // Who does not answer tells nothing.
            if let Ok(Ok(Ok(answer))) = answer {
                told.push(answer);
            }
        }
        leaders.lock().note(&told, book.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::ring::{KeyspaceTold, MemberTold, PlaceTold, StandingTold};

    /// What a node says of one partition.
    fn told(node: &str, leader: Option<&str>, term: u64) -> RingTold {
        let member = |id: &str, name: &str| MemberTold {
            id: id.into(),
            name: name.into(),
            peer: String::new(),
            zone: String::new(),
            weight: 1,
            standing: StandingTold::Active,
        };
        let place = PlaceTold {
            partition: 4,
            ranges: Vec::new(),
            voters: Vec::new(),
            target: None,
            leader: leader.map(str::to_owned),
            term,
        };
        RingTold {
            node: node.into(),
            revision: 1,
            members: vec![member("a", "n1"), member("b", "n2"), member("c", "")],
            keyspaces: vec![KeyspaceTold { keyspace: 1, name: "default".into(), partitions: vec![place] }],
        }
    }

    fn check(told: &[RingTold], expected: Option<(&str, u64, bool)>) {
        let expected = expected.map(|(node, term, is_own_word)| (node.to_owned(), term, is_own_word));
        assert_eq!(leading(told)[&(1, 4)], ("default".to_owned(), expected), "{told:?}");
    }

    #[test]
    fn the_newest_term_counts_and_the_leaders_own_word() {
        check(&[told("b", Some("a"), 3), told("a", Some("a"), 3)], Some(("n1", 3, true)));
        check(&[told("a", Some("a"), 3), told("b", Some("a"), 3)], Some(("n1", 3, true)));
        // It is dead, and nobody has noticed.
        check(&[told("b", Some("a"), 3)], Some(("n1", 3, false)));
        // It is cut off, and the others have another.
        check(&[told("a", Some("a"), 3), told("b", Some("b"), 4)], Some(("n2", 4, true)));
        // They stand for election.
        check(&[told("b", Some("a"), 3), told("c", None, 4)], None);
        // One that was cut off stands for election in vain.
        check(&[told("a", Some("a"), 3), told("c", None, 9)], Some(("n1", 3, true)));
        // One without a name.
        check(&[told("c", Some("c"), 1)], Some(("c", 1, true)));
        check(&[told("c", None, 0)], None);
    }

    #[test]
    fn spans_follow_each_other() {
        let mut leaders = Leaders::default();
        leaders.note(&[told("a", Some("a"), 3)], 10);
        leaders.note(&[told("a", Some("a"), 3)], 20);
        leaders.note(&[told("b", None, 4)], 30);
        leaders.note(&[told("b", Some("b"), 4)], 40);
        assert_eq!((leaders.led_by("n1"), leaders.led_by("n2")), (0, 1));
        leaders.note(&[], 50);
        assert_eq!(leaders.led_by("n2"), 0);
        leaders.note(&[told("b", Some("b"), 4)], 60);
        let group = &leaders.groups[&(1, 4)];
        let spans: Vec<_> = group.led.iter().map(|led| (led.node.as_str(), led.from, led.until)).collect();
        assert_eq!(spans, [("n1", 10, Some(30)), ("n2", 40, Some(50)), ("n2", 60, None)]);
        assert_eq!((group.keyspace.as_str(), group.partition), ("default", 4));
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut leaders = Leaders::default();
        for term in 1..=SPANS_MAX as u64 + 3 {
            leaders.note(&[told("a", Some("a"), term)], term);
        }
        assert_eq!((leaders.groups[&(1, 4)].led.len(), leaders.left_out), (SPANS_MAX, 3));
        assert!(leaders.groups[&(1, 4)].led.iter().all(|led| led.until.is_some()));
    }
}
