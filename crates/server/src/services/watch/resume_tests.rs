//! Stories, and clients that are compared with what they have to be told while hubs are lost at any moment.

use super::*;
use crate::services::watch::testing::{Dice, History, wanted};
use quorate_api::mvccpb;
use std::collections::BTreeSet;

fn create(id: i64, start: i64) -> pb::WatchRequest {
    creation(pb::WatchCreateRequest {
        watch_id: id,
        start_revision: start,
        fragment: true,
        ..Default::default()
    })
}

fn response(id: i64, revision: i64) -> pb::WatchResponse {
    let header = pb::ResponseHeader { revision, ..Default::default() };
    pb::WatchResponse { header: Some(header), watch_id: id, ..Default::default() }
}

fn created(id: i64, revision: i64) -> pb::WatchResponse {
    pb::WatchResponse { created: true, ..response(id, revision) }
}

fn event(revision: i64, key: u8) -> mvccpb::Event {
    let pair = mvccpb::KeyValue { key: vec![key].into(), mod_revision: revision, ..Default::default() };
    mvccpb::Event { kv: Some(pair), ..Default::default() }
}

fn events(id: i64, events: &[(i64, u8)], fragment: bool) -> pb::WatchResponse {
    let last = events.last().map_or(0, |(revision, _)| *revision);
    let events = events.iter().map(|(revision, key)| event(*revision, *key)).collect();
    pb::WatchResponse { events, fragment, ..response(id, last) }
}

fn seen(response: &pb::WatchResponse) -> Vec<(i64, u8)> {
    let pairs = response.events.iter().filter_map(|event| event.kv.as_ref());
    pairs.map(|pair| (pair.mod_revision, pair.key[0])).collect()
}

fn starts(requests: &[pb::WatchRequest]) -> Vec<(i64, i64)> {
    let create = |request: &pb::WatchRequest| match &request.request_union {
        Some(RequestUnion::CreateRequest(create)) => Some((create.watch_id, create.start_revision)),
        _ => None,
    };
    requests.iter().filter_map(create).collect()
}

#[test]
fn a_watch_goes_on_after_the_last_revision_that_was_told_whole() {
    let mut resume = Resume::default();
    resume.ask(create(0, 0));
    resume.ask(create(0, 3));
    assert!(resume.told(created(0, 10)).is_some());
    assert!(resume.told(created(1, 10)).is_some());
    resume.told(events(1, &[(3, 1), (5, 1)], false)).unwrap();
    let (requests, answers) = resume.reopen();
    assert_eq!((starts(&requests), answers.len()), (vec![(0, 11), (1, 6)], 0));
    // The client has been told that they exist.
    assert_eq!((resume.told(created(0, 9)), resume.told(created(1, 9))), (None, None));
    // Nobody asked for it, and it is worth knowing.
    assert_eq!(resume.told(response(NO_WATCH, 20)), None);
    assert_eq!(starts(&resume.reopen().0), [(0, 21), (1, 21)]);
    // A watch that this hub does not have yet has not reached what its others have.
    assert_eq!(resume.told(created(0, 20)), None);
    assert_eq!(resume.told(response(NO_WATCH, 30)), None);
    assert_eq!(starts(&resume.reopen().0), [(0, 21), (1, 21)]);
}

#[test]
fn of_a_revision_that_was_told_in_part_the_rest_is_told() {
    let mut resume = Resume::default();
    resume.ask(create(7, 3));
    resume.told(created(7, 10)).unwrap();
    resume.told(events(7, &[(3, 1), (4, 1), (4, 2)], true)).unwrap();
    for _ in 0..2 {
        assert_eq!(starts(&resume.reopen().0), [(7, 4)]);
        assert_eq!(resume.told(created(7, 10)), None);
        // Cut otherwise than before.
        assert_eq!(resume.told(events(7, &[(4, 1)], true)), None);
    }
    let rest = resume.told(events(7, &[(4, 2), (4, 3), (5, 1)], false)).unwrap();
    assert_eq!(seen(&rest), [(4, 3), (5, 1)]);
    assert_eq!(starts(&resume.reopen().0), [(7, 6)]);
    // All of it was told but that it was all.
    resume.told(created(7, 10));
    resume.told(events(7, &[(6, 1)], true)).unwrap();
    resume.reopen();
    resume.told(created(7, 10));
    let end = resume.told(events(7, &[(6, 1)], false)).unwrap();
    assert_eq!((end.fragment, seen(&end), end.header.unwrap().revision), (false, vec![], 6));
    assert_eq!(starts(&resume.reopen().0), [(7, 7)]);
}

#[test]
fn what_was_not_answered_is_asked_again_or_answered_here() {
    let mut resume = Resume::default();
    for request in [create(0, 0), create(5, 0), create(0, 0), create(6, 0)] {
        resume.ask(request);
    }
    resume.told(created(0, 10)).unwrap();
    resume.told(created(5, 10)).unwrap();
    resume.ask(cancellation(5));
    resume.ask(cancellation(6));
    resume.ask(progress());
    let (requests, answers) = resume.reopen();
    // The id that the server is to choose is not one that it chose before.
    assert_eq!(starts(&requests), [(0, 11), (1, 0), (6, 0)]);
    assert_eq!(requests[3..], [cancellation(6), progress()]);
    assert_eq!(
        answers.iter().map(|answer| (answer.watch_id, answer.canceled)).collect::<Vec<_>>(),
        [(5, true)]
    );
    resume.told(created(0, 10));
    assert!(resume.told(created(1, 10)).is_some() && resume.told(created(6, 10)).is_some());
    // That of watch 6 was lost, too.
    let (requests, answers) = resume.reopen();
    assert_eq!((starts(&requests).len(), answers[0].watch_id), (2, 6));
    assert_eq!(resume.ask(create(0, 0)).0, Some(create(2, 0)));
}

#[test]
fn a_watch_that_compaction_overtook_is_not_asked_for_again() {
    let mut resume = Resume::default();
    resume.ask(create(1, 3));
    resume.told(created(1, 10)).unwrap();
    let compacted = pb::WatchResponse { canceled: true, compact_revision: 5, ..response(1, 10) };
    resume.told(compacted).unwrap();
    assert_eq!(resume.reopen().0, []);
    let (asked, answer) = resume.ask(cancellation(1));
    assert!(asked.is_none() && answer.unwrap().canceled);
    assert_eq!(resume.ask(cancellation(1)), (Some(cancellation(1)), None));
}

#[test]
fn words_that_make_no_sense_are_passed_over() {
    let mut resume = Resume::default();
    for senseless in [created(3, 1), events(3, &[(1, 1)], false), response(3, 1), response(NO_WATCH, 1)] {
        assert_eq!(resume.told(senseless), None);
    }
    let cancelled = pb::WatchResponse { canceled: true, ..response(3, 1) };
    assert_eq!(resume.told(cancelled), None);
    resume.ask(create(3, 5));
    resume.told(created(3, 9)).unwrap();
    // Told before, or never wanted.
    assert_eq!(resume.told(events(3, &[(4, 1)], false)), None);
    let bare = pb::WatchResponse { events: vec![mvccpb::Event::default()], ..response(3, 9) };
    assert_eq!(resume.told(bare), None);
    assert_eq!(starts(&resume.reopen().0), [(3, 5)]);
}

/// A hub, as far as it matters here.
#[derive(Default)]
struct Hub {
    /// Key, the next revision, whether responses may be split.
    watches: BTreeMap<i64, (u8, i64, bool)>,
    id_next: i64,
    /// How much of the history it has.
    revision: i64,
    said: VecDeque<pb::WatchResponse>,
}

impl Hub {
    fn asked(&mut self, request: pb::WatchRequest) {
        match request.request_union.unwrap() {
            RequestUnion::CreateRequest(create) => {
                let mut id = create.watch_id;
                if id == 0 {
                    while self.watches.contains_key(&self.id_next) {
                        self.id_next += 1;
                    }
                    (id, self.id_next) = (self.id_next, self.id_next + 1);
                } else if self.watches.contains_key(&id) {
                    let refused = pb::WatchResponse { canceled: true, ..created(NO_WATCH, self.revision) };
                    return self.said.push_back(refused);
                }
                let next = if create.start_revision > 0 { create.start_revision } else { self.revision + 1 };
                self.watches.insert(id, (create.key[0], next, create.fragment));
                self.said.push_back(created(id, self.revision));
            }
            RequestUnion::CancelRequest(cancel) => {
                if self.watches.remove(&cancel.watch_id).is_some() {
                    let ended = response(cancel.watch_id, self.revision);
                    self.said.push_back(pb::WatchResponse { canceled: true, ..ended });
                }
            }
            RequestUnion::ProgressRequest(_) => {
                if self.watches.values().all(|(_, next, _)| *next == self.revision + 1) {
                    self.said.push_back(response(NO_WATCH, self.revision));
                }
            }
        }
    }

    /// Tells some watch some of what it wants, in one response or several.
    fn tell(&mut self, history: &History, dice: &mut Dice) {
        let behind = self.watches.iter_mut().filter(|(_, (_, next, _))| *next <= self.revision);
        let mut behind: Vec<_> = behind.collect();
        if behind.is_empty() {
            return;
        }
        let at = dice.below(behind.len());
        let (id, (key, next, may_split)) = &mut behind[at];
        let through = *next + dice.below((self.revision - *next) as usize + 1) as i64;
        let mut rest = wanted(history, *key, *next, through);
        *next = through + 1;
        while !rest.is_empty() {
            let count = if *may_split { 1 + dice.below(rest.len()) } else { rest.len() };
            let part: Vec<_> = rest.drain(..count).collect();
            self.said.push_back(events(**id, &part, !rest.is_empty()));
        }
    }
}

/// As a session does it.
fn noted(resume: &mut Resume, told: pb::WatchResponse) -> Option<pb::WatchResponse> {
    let revision = |event: Option<&_>| event.map(revision_of);
    let revisions = revision(told.events.first()).zip(revision(told.events.last()));
    let (id, as_of) = (told.watch_id, told.header.unwrap().revision);
    let is_all_new = |revisions| !told.fragment && resume.is_all_new(id, as_of, revisions);
    if revisions.is_some_and(is_all_new) { Some(told) } else { resume.told(told) }
}

/// What a client knows of one of its watches.
struct Client {
    key: u8,
    start: i64,
    told: Vec<(i64, u8)>,
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let mut history: History = vec![vec![1]];
    let mut resume = Resume::default();
    let mut hub = Hub { revision: 1, ..Hub::default() };
    let mut way: VecDeque<pb::WatchRequest> = VecDeque::new();
    let mut watches: BTreeMap<i64, Client> = BTreeMap::new();
    // In the order they were asked for: key and start.
    let mut pending: VecDeque<(u8, i64)> = VecDeque::new();
    let mut cancelled: BTreeSet<i64> = BTreeSet::new();
    let mut chosen: BTreeSet<i64> = BTreeSet::new();
    let steps = 150;
    for step in 0..steps + 2_000 {
        let is_quiet = step >= steps;
        let mut said: Vec<pb::WatchResponse> = Vec::new();
        match dice.below(if is_quiet { 4 } else { 9 }) {
            0 => {
                if let Some(request) = way.pop_front() {
                    hub.asked(request);
                }
            }
            1 => hub.tell(&history, &mut dice),
            2 => said.extend(hub.said.pop_front().and_then(|told| noted(&mut resume, told))),
            3 => hub.revision = (hub.revision + 1).min(history.len() as i64),
            4 => history.push((0..1 + dice.below(4)).map(|_| 1 + dice.below(3) as u8).collect()),
            5 if dice.one_in(3) => {
                let (key, start) = (dice.below(4) as u8, dice.below(history.len() + 3) as i64);
                let named = if dice.one_in(2) { 10 + step } else { 0 };
                let fragment = dice.one_in(2);
                let key_bytes = vec![key].into();
                let create = pb::WatchCreateRequest {
                    watch_id: named,
                    start_revision: start,
                    key: key_bytes,
                    fragment,
                    ..Default::default()
                };
                way.extend(resume.ask(creation(create)).0);
                pending.push_back((key, start));
            }
            6 if dice.one_in(4) => {
                let id = watches.keys().copied().find(|id| dice.one_in(2) && !cancelled.contains(id));
                if let Some(id) = id {
                    let (asked, answer) = resume.ask(cancellation(id));
                    cancelled.insert(id);
                    way.extend(asked);
                    said.extend(answer);
                }
            }
            7 => way.extend(resume.ask(progress()).0),
            8 if dice.one_in(4) => {
                // The next one may know less, and what was on its way is gone.
                hub = Hub { revision: 1 + dice.below(history.len()) as i64, ..Hub::default() };
                let (requests, answers) = resume.reopen();
                way = requests.into();
                said.extend(answers);
            }
            _ => {}
        }
        for told in said {
            let id = told.watch_id;
            let revision = told.header.unwrap().revision;
            if told.created {
                assert!(!told.canceled, "seed {seed}: refused");
                let (key, start) = pending.pop_front().expect("it was asked for");
                let start = if start > 0 { start } else { revision + 1 };
                let is_new = id >= 10 || chosen.insert(id);
                assert!(is_new && !watches.contains_key(&id), "seed {seed}: {id} again");
                watches.insert(id, Client { key, start, told: Vec::new() });
            } else if told.canceled {
                assert!(cancelled.remove(&id), "seed {seed}: {id} was not cancelled");
                watches.remove(&id).expect("it was there");
            } else if id == NO_WATCH {
                for watch in watches.values() {
                    let all = wanted(&history, watch.key, watch.start, revision);
                    assert!(watch.told.starts_with(&all), "seed {seed}: progress before everything was told");
                }
            } else {
                let watch = watches.get_mut(&id).expect("events come for watches that exist");
                watch.told.extend(seen(&told));
                let all = wanted(&history, watch.key, watch.start, history.len() as i64);
                assert!(
                    all.starts_with(&watch.told),
                    "seed {seed}: {id} was told {:?} of {all:?}",
                    watch.told
                );
            }
        }
    }
    assert!(pending.is_empty() && cancelled.is_empty(), "seed {seed}: unanswered");
    for (id, watch) in &watches {
        let all = wanted(&history, watch.key, watch.start, history.len() as i64);
        assert_eq!(watch.told, all, "seed {seed}: watch {id}");
    }
}

#[test]
fn every_event_is_told_once_in_order_whatever_hubs_are_lost() {
    for seed in 0..400 {
        run(seed);
    }
}
