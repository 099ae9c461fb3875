//! The promises of a watch (etcd's API guarantees: ordered, unique, atomic, reliable, resumable, bookmarkable), over all the streams that a client
//! had for it one after the other.
//!
//! What it was told is compared with the history that all nodes agree on: from its start on, exactly the events of its keys, whole revisions, in order,
//! none twice and none left out, also where it went on at another node; and whoever told it of its progress had told it everything up to there.

use crate::calls::events as shown;
use crate::{History, Violation};
use quorate_types::{Event, KeyRange, Revision};
use std::collections::btree_map;

/// Everything that one watch was told.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What people call it.
    pub name: String,
    /// Its keys.
    pub range: KeyRange,
    /// The first revision it wanted to hear of.
    pub start: Revision,
    /// Response for response.
    pub told: Vec<Told>,
}

/// One response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A stream begins, at this node.
    Opened(String),
    /// Events.
    Events(Vec<Event>),
    /// Everything up to this revision has been told.
    Progress(Revision),
    /// What was to be told was compacted; it goes on from this revision. Whether that may be, who asked for compactions knows.
    Compacted(Revision),
}

/// The revision of an event.
pub fn revision_of(event: &Event) -> Revision {
    match event {
        Event::Put(pair) => pair.modified,
        Event::Delete { modified, .. } => *modified,
    }
}

/// Checks one watch, which must have been told of everything up to `until`.
pub fn check(history: &History, watched: &Watched, until: Revision) -> Result<(), Violation> {
    let mut expected =
        Expected { range: &watched.range, revisions: history.range(watched.start..), next: None };
    expected.go_on();
    let mut node = "no node";
    for told in &watched.told {
        let problem = match told {
            Told::Opened(at) => {
                node = at;
                continue;
            }
            Told::Events(events) => expected.take(events),
            Told::Progress(revision) => expected.progress(*revision),
            Told::Compacted(revision) => {
                expected.skip(*revision);
                continue;
            }
        };
        if let Some(problem) = problem {
            return Err(violation(watched, node, &problem, told));
        }
    }
    match &expected.next {
        Some((revision, events)) if *revision <= until => Err(Violation::new(
            format!("{} was not told of revision {revision}, by {node} at last", watched.name),
            vec![shown(events)],
        )),
        _ => Ok(()),
    }
}

fn violation(watched: &Watched, node: &str, problem: &str, told: &Told) -> Violation {
    let told = match told {
        Told::Events(events) => shown(events),
        other => format!("{other:?}"),
    };
    Violation::new(format!("{} at {node}: {problem}", watched.name), vec![format!("it was told {told}")])
}

/// What is to be told next.
struct Expected<'a> {
    range: &'a KeyRange,
    revisions: btree_map::Range<'a, Revision, Vec<Event>>,
    next: Option<(Revision, Vec<Event>)>,
}

impl Expected<'_> {
    fn go_on(&mut self) {
        let range = self.range;
        self.next = self.revisions.find_map(|(revision, events)| {
            let events: Vec<Event> =
                events.iter().filter(|event| range.contains(event.key())).cloned().collect();
            (!events.is_empty()).then_some((*revision, events))
        });
    }

    fn take(&mut self, events: &[Event]) -> Option<String> {
        for of_revision in events.chunk_by(|a, b| revision_of(a) == revision_of(b)) {
            match &self.next {
                Some((_, expected)) if expected == of_revision => self.go_on(),
                Some((revision, expected)) => {
                    return Some(format!("revision {revision} should have come: {}", shown(expected)));
                }
                None => return Some("nothing more should have come".into()),
            }
        }
        None
    }

    /// What is before this revision is not told any more.
    fn skip(&mut self, until: Revision) {
        while self.next.as_ref().is_some_and(|(next, _)| *next < until) {
            self.go_on();
        }
    }

    fn progress(&self, revision: Revision) -> Option<String> {
        let (next, events) = self.next.as_ref().filter(|(next, _)| *next <= revision)?;
        Some(format!("progress up to {revision} without revision {next}: {}", shown(events)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::KeyValue;

    fn put(key: &'static str, revision: u64) -> Event {
        Event::Put(KeyValue {
            key: key.into(),
            value: "v".into(),
            create: Revision(revision),
            modified: Revision(revision),
            version: 1,
            lease: None,
        })
    }

    fn history() -> History {
        History::from([
            (Revision(2), vec![put("a/1", 2)]),
            (Revision(3), vec![put("a/2", 3), put("a/3", 3), put("b/1", 3)]),
            (Revision(5), vec![put("b/2", 5)]),
            (Revision(6), vec![put("a/4", 6)]),
        ])
    }

    fn check(told: Vec<Told>, expected: Option<&str>) {
        let shown = format!("{told:?}");
        let watched = Watched { name: "w".into(), range: KeyRange::prefix("a/"), start: Revision(2), told };
        match (super::check(&history(), &watched, Revision(6)), expected) {
            (Ok(()), None) => {}
            (Err(found), Some(words)) => assert!(found.what.contains(words), "{shown}: {found}"),
            (found, expected) => panic!("{shown}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn promises_are_kept_or_found_broken() {
        let (first, second, last) =
            (put("a/1", 2), vec![put("a/2", 3), put("a/3", 3)], Told::Events(vec![put("a/4", 6)]));
        let whole = Told::Events([vec![first.clone()], second.clone()].concat());
        let opened = || Told::Opened("n2".into());
        check(vec![opened(), whole.clone(), last.clone()], None);
        let first = Told::Events(vec![first]);
        let second_told = Told::Events(second.clone());
        check(
            vec![first.clone(), Told::Progress(Revision(2)), opened(), second_told.clone(), last.clone()],
            None,
        );
        check(vec![whole.clone(), Told::Progress(Revision(5)), last.clone()], None);
        // Left out, twice, torn, out of order, of somebody else, too early a progress, not to the end.
        check(vec![first.clone(), last.clone()], Some("revision 3 should have come"));
        check(vec![first.clone(), opened(), first.clone()], Some("revision 3 should have come"));
        let torn = |at: usize| Told::Events(vec![second[at].clone()]);
        check(vec![first.clone(), torn(0), torn(1)], Some("revision 3 should have come"));
        check(vec![second_told.clone(), first.clone()], Some("revision 2 should have come"));
        check(vec![whole.clone(), Told::Events(vec![put("b/2", 5)])], Some("revision 6 should have come"));
        check(vec![first.clone(), Told::Progress(Revision(4))], Some("without revision 3"));
        // What was compacted is not missed, and nothing else is excused.
        let compacted = |revision| Told::Compacted(Revision(revision));
        check(vec![first.clone(), compacted(4), opened(), last.clone()], None);
        check(vec![compacted(3), opened(), second_told.clone(), last.clone()], None);
        check(vec![first.clone(), compacted(3), opened(), last.clone()], Some("revision 3 should have come"));
        check(vec![first, compacted(4), opened()], Some("not told of revision 6"));
        check(vec![whole.clone()], Some("not told of revision 6"));
        check(vec![whole, last.clone(), last], Some("nothing more"));
    }
}
