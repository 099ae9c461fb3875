//! What was published of a revision, made ready once for all watches that are told the same of it.

use super::stream::Match;
use super::watcher::Watcher;
use super::{Events, History, HistoryError};
use quorate_types::Changes;
use std::sync::OnceLock;

/// Ways to tell of one revision that are remembered; one more is made anew for each watch.
const WAYS_MAX: usize = 4;

/// A revision in the queues of streams. Most watches want the same of it: all of a transaction, or the one key that was put.
#[derive(Debug)]
pub(super) struct News {
    pub(super) changes: Changes,
    /// Filled one after the other.
    ways: [OnceLock<Way>; WAYS_MAX],
}

/// Some of its events, with the pairs before them or without.
#[derive(Debug)]
struct Way {
    places: Box<[u32]>,
    has_previous: bool,
    events: Events,
}

impl News {
    pub(super) fn new(changes: Changes) -> Self {
        Self { changes, ways: Default::default() }
    }

    /// The events that a watch matches, as its client gets them.
    pub(super) fn told(
        &self,
        watch: &Watcher,
        matches: &[Match],
        history: &dyn History,
    ) -> Result<Events, HistoryError> {
        let has_previous = watch.request.previous;
        let places = matches.iter().map(|(_, place)| *place);
        let is_it =
            |way: &&Way| way.has_previous == has_previous && places.clone().eq(way.places.iter().copied());
        let known = self.ways.iter().map_while(OnceLock::get);
        if let Some(way) = known.clone().find(is_it) {
            return Ok(way.events.clone());
        }
        let told = watch.told(places.clone().map(|place| (&self.changes, place as usize)), history)?;
        let events = Events::from(told);
        if let Some(free) = self.ways.get(known.count()) {
            let way = Way { places: places.collect(), has_previous, events: events.clone() };
            free.set(way).expect("those that are filled come first");
        }
        Ok(events)
    }
}
