//! Many nodes' events as one order of lines.
//!
//! Each record is taken apart into one fact for each group. A fact that several nodes tell is one: it has the same words and the same mark, or, without a
//! mark, nearly the same time. What then has the same words and reason at nearly the same time is one line again.
//!
//! Caveat: the order is that of the nodes' clocks, but for what terms and revisions show to be otherwise.

use crate::events::{GROUPS, Group, Kind, Record};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Facts without a mark that are told so many milliseconds apart are the same.
const SAME_MILLIS_MAX: u64 = 10_000;
/// What happens to groups one after the other within so many milliseconds is one line.
const LINE_MILLIS_MAX: u64 = 3_000;
/// Facts that are remembered while events are followed; a double of an older one is shown again.
const KNOWN_MAX: usize = 100_000;

/// What happened, as told by all who saw it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    /// Milliseconds since 1970: the earliest that anybody says.
    pub(super) at: u64,
    pub(super) kind: Kind,
    /// With [`GROUPS`] where the groups go.
    pub(super) what: String,
    /// Empty if nobody knows.
    pub(super) why: String,
    pub(super) groups: BTreeSet<(String, u32)>,
    /// Who tells it.
    pub(super) by: BTreeSet<String>,
}

type Fact = (Kind, String, Option<(String, u32)>, Option<u64>);

/// Puts together what comes in, time after time.
#[derive(Debug, Default)]
pub(super) struct Merge {
    /// When a fact was last told, and by whom since it last happened.
    known: HashMap<Fact, (u64, BTreeSet<String>)>,
    /// In the order in which they came.
    order: VecDeque<Fact>,
}

impl Merge {
    /// The lines that these records make, oldest first, without what was known.
    pub(super) fn take(&mut self, told: Vec<(String, Record)>) -> Vec<Line> {
        let mut facts: Vec<(u64, Fact, String, String)> = Vec::new();
        for (by, record) in told {
            let Record { at, kind, what, why, groups, mark, .. } = record;
            if groups.is_empty() {
                facts.push((at, (kind, what, None, mark), why, by));
                continue;
            }
            for Group(keyspace, partition, mark) in groups {
                let fact = (kind, what.clone(), Some((keyspace, partition)), mark);
                facts.push((at, fact, why.clone(), by.clone()));
            }
        }
        put_in_order(&mut facts);
        // Each new one, by where its first telling is.
        let mut kept: Vec<Line> = Vec::new();
        let mut places: HashMap<Fact, usize> = HashMap::new();
        for (at, fact, why, by) in facts {
            let is_known = self.is_known(&fact, at, &by);
            if !is_known {
                places.insert(fact.clone(), kept.len());
                let (kind, what, group, _) = fact;
                let groups = group.into_iter().collect();
                kept.push(Line { at, kind, what, why, groups, by: BTreeSet::from([by]) });
            } else if let Some(place) = places.get(&fact) {
                let line = &mut kept[*place];
                line.by.insert(by);
                if line.why.is_empty() {
                    line.why = why;
                }
            }
        }
        folded(kept)
    }

    /// Whether this is what was told before, by others or, where a mark shows it, by the same.
    fn is_known(&mut self, fact: &Fact, at: u64, by: &str) -> bool {
        let is_known = match self.known.get_mut(fact) {
            None => {
                self.order.push_back(fact.clone());
                false
            }
            Some(_) if fact.3.is_some() => return true,
            Some((last, tellers)) => {
                let is_near = at.saturating_sub(*last) <= SAME_MILLIS_MAX;
                is_near && tellers.insert(by.to_owned())
            }
        };
        if !is_known {
            self.known.insert(fact.clone(), (at, BTreeSet::from([by.to_owned()])));
        }
        while self.order.len() > KNOWN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        is_known
    }
}

/// By time; but of one group a term or revision comes before the next, whatever the clocks of those say who tell it.
fn put_in_order(facts: &mut [(u64, Fact, String, String)]) {
    let place = |fact: &Fact| (fact.0, fact.2.clone());
    facts.sort_by_cached_key(|(at, fact, ..)| (place(fact), fact.3, *at));
    let mut next: Option<(u64, Fact)> = None;
    for (at, fact, ..) in facts.iter_mut().rev().filter(|(_, fact, ..)| fact.2.is_some() && fact.3.is_some())
    {
        if let Some((earliest, next)) = &next
            && place(next) == place(fact)
            && next.3 > fact.3
        {
            *at = (*at).min(*earliest);
        }
        let earliest = match &next {
            Some((earliest, next)) if place(next) == place(fact) => (*earliest).min(*at),
            _ => *at,
        };
        next = Some((earliest, fact.clone()));
    }
    facts.sort_by_cached_key(|(at, fact, why, by)| (*at, fact.3, fact.clone(), why.clone(), by.clone()));
}

/// What happened to several groups in the same way is one line.
fn folded(kept: Vec<Line>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut places: HashMap<(Kind, String, String), usize> = HashMap::new();
    for line in kept {
        let key = (line.kind, line.what.clone(), line.why.clone());
        let open = places.get(&key).map(|place| &mut lines[*place]);
        match open {
            Some(open) if !line.groups.is_empty() && line.at.saturating_sub(open.at) <= LINE_MILLIS_MAX => {
                open.groups.extend(line.groups);
                open.by.extend(line.by);
            }
            _ => {
                places.insert(key, lines.len());
                lines.push(line);
            }
        }
    }
    lines
}

impl Line {
    /// What happened, with the groups and the reason.
    pub(super) fn sentence(&self) -> String {
        let what = self.what.replace(GROUPS, &named(&self.groups));
        if self.why.is_empty() { what } else { format!("{what}: {}", self.why) }
    }
}

/// Partitions as runs, keyspace by keyspace.
fn named(groups: &BTreeSet<(String, u32)>) -> String {
    let mut keyspaces: BTreeMap<&str, Vec<(u32, u32)>> = BTreeMap::new();
    for (keyspace, partition) in groups {
        let runs = keyspaces.entry(keyspace).or_default();
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*partition) => *last = *partition,
            _ => runs.push((*partition, *partition)),
        }
    }
    let run = |(first, last): (u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let of = |(keyspace, runs): (&str, Vec<(u32, u32)>)| match keyspace {
        "system" => "the meta group".to_owned(),
        _ => format!("{keyspace}/{}", runs.into_iter().map(run).collect::<Vec<_>>().join(",")),
    };
    let text = keyspaces.into_iter().map(of).collect::<Vec<_>>().join(" ");
    if groups.len() < 4 { text } else { format!("{text} ({} groups)", groups.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(by: &str, at: u64, leader: &str, why: &str, groups: &[(u32, u64)]) -> (String, Record) {
        let mut record = Record::new(at, Kind::Election, format!("{leader} leads {{}}"), why);
        let group = |(partition, term): &(u32, u64)| Group("default".into(), *partition, Some(*term));
        record.groups = groups.iter().map(group).collect();
        (by.to_owned(), record)
    }

    fn plain(by: &str, at: u64, what: &str) -> (String, Record) {
        (by.to_owned(), Record::new(at, Kind::Silence, what, ""))
    }

    /// Time, sentence and who tells it.
    fn said(lines: &[Line]) -> Vec<String> {
        let by = |line: &Line| line.by.iter().cloned().collect::<Vec<_>>().join("+");
        lines.iter().map(|line| format!("{} {} [{}]", line.at, line.sentence(), by(line))).collect()
    }

    #[test]
    fn what_several_tell_is_one_line_with_the_first_time_and_a_reason() {
        let told = vec![
            leads("n3", 1_020, "n2", "", &[(0, 5), (1, 5), (2, 6)]),
            leads("n2", 1_000, "n2", "n1 is not heard", &[(0, 5), (1, 5)]),
            // Folded otherwise on the same node.
            leads("n2", 1_900, "n2", "n1 is not heard", &[(2, 6)]),
            leads("n2", 9_000, "n2", "n1 is not heard", &[(3, 6)]),
        ];
        let lines = Merge::default().take(told);
        let expected = [
            "1000 n2 leads default/0-2: n1 is not heard [n2+n3]",
            "9000 n2 leads default/3: n1 is not heard [n2]",
        ];
        assert_eq!(said(&lines), expected);
    }

    #[test]
    fn a_term_comes_before_the_next_whatever_the_clocks_say() {
        let told = vec![
            leads("n1", 1_000, "n1", "", &[(6, 3)]),
            leads("n3", 1_070, "n3", "", &[(6, 2)]),
            leads("n3", 1_075, "n1", "", &[(6, 3)]),
            leads("n3", 1_060, "n3", "", &[(7, 1)]),
        ];
        let lines = Merge::default().take(told);
        let expected = ["1000 n3 leads default/6-7 [n3]", "1000 n1 leads default/6 [n1+n3]"];
        assert_eq!(said(&lines), expected);
    }

    #[test]
    fn what_happens_again_is_told_again() {
        let told = |at| vec![plain("n2", at, "n1 is not heard"), plain("n3", at + 5, "n1 is not heard")];
        let mut all = told(1_000);
        all.extend(told(4_000));
        all.extend(told(90_000));
        let line = |at: u64| format!("{at} n1 is not heard [n2+n3]");
        let mut merge = Merge::default();
        assert_eq!(said(&merge.take(all)), [line(1_000), line(4_000), line(90_000)]);
        // Who follows is told nothing twice, also if others tell it later.
        assert_eq!(said(&merge.take(vec![plain("n4", 90_010, "n1 is not heard")])), [""; 0]);
        assert_eq!(said(&merge.take(told(200_000))), [line(200_000)]);
    }

    #[test]
    fn what_is_marked_is_the_same_whenever_it_is_told() {
        let mut merge = Merge::default();
        let first = merge.take(vec![leads("n2", 1_000, "n2", "", &[(0, 5)])]);
        assert_eq!(first.len(), 1);
        // A node that was down applies it much later.
        assert_eq!(merge.take(vec![leads("n1", 900_000, "n2", "", &[(0, 5)])]), []);
        assert_eq!(merge.take(vec![leads("n1", 900_000, "n2", "", &[(0, 6)])]).len(), 1);
    }

    #[test]
    fn partitions_are_named_as_runs() {
        let check = |groups: &[(&str, u32)], expected: &str| {
            let groups = groups.iter().map(|(name, partition)| ((*name).to_owned(), *partition)).collect();
            assert_eq!(named(&groups), expected);
        };
        check(&[("default", 3)], "default/3");
        check(&[("default", 3), ("default", 4), ("default", 9)], "default/3-4,9");
        check(&[("system", 0), ("a", 0), ("a", 1), ("b", 0)], "a/0-1 b/0 the meta group (4 groups)");
    }
}
