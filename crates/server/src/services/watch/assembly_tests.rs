//! Stories, and clients that are compared with what they have to be told while nodes are lost at any moment.

use super::*;
use crate::services::watch::testing::{Dice, History, wanted};
use quorate_api::mvccpb;

const KEYS: [&str; 6] = ["a/", "b/", "c/", "d/", "e/", "f/"];

fn key_of(at: u8) -> Vec<u8> {
    format!("{}key", KEYS[usize::from(at) - 1]).into_bytes()
}

/// The slots of these keys, and every other slot with the first.
fn slots_of(keys: &[u8]) -> SlotSet {
    let slot = |key: u8| Rules::default().slot(&key_of(key)).0;
    let own = |keys: &mut dyn Iterator<Item = u8>| {
        SlotSet::from_ranges(keys.map(|key| slot(key)..slot(key) + 1).collect::<Vec<_>>())
    };
    if keys.contains(&1) {
        SlotSet::all().subtract(&own(&mut (1..=6).filter(|key| !keys.contains(key))))
    } else {
        own(&mut keys.iter().copied())
    }
}

fn create(id: i64, key: u8, start_revision: i64, fragment: bool) -> pb::WatchRequest {
    let (key, range_end) = if key == 0 { (vec![0], vec![0]) } else { (key_of(key), Vec::new()) };
    let create = pb::WatchCreateRequest {
        watch_id: id,
        key: key.into(),
        range_end: range_end.into(),
        start_revision,
        fragment,
        ..Default::default()
    };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

fn cancellation(id: i64) -> pb::WatchRequest {
    let cancel = pb::WatchCancelRequest { watch_id: id };
    pb::WatchRequest { request_union: Some(RequestUnion::CancelRequest(cancel)) }
}

fn progress() -> pb::WatchRequest {
    let asked = pb::WatchProgressRequest {};
    pb::WatchRequest { request_union: Some(RequestUnion::ProgressRequest(asked)) }
}

fn event(revision: i64, key: u8) -> Event {
    let pair = mvccpb::KeyValue { key: key_of(key).into(), mod_revision: revision, ..Default::default() };
    Event { kv: Some(pair), ..Default::default() }
}

fn plain(told: pb::WatchResponse) -> PartResponse {
    PartResponse { told: Some(told), subs: Vec::new() }
}

fn created(number: i64, revision: i64) -> PartResponse {
    plain(pb::WatchResponse { created: true, ..response(number, revision) })
}

fn mark(revision: i64) -> PartResponse {
    plain(response(NO_WATCH, revision))
}

fn events(number: i64, events: &[(i64, u32, u8)], fragment: bool) -> PartResponse {
    let last = events.last().map_or(0, |(revision, ..)| *revision);
    let told = events.iter().map(|(revision, _, key)| event(*revision, *key)).collect();
    let subs = events.iter().map(|(_, sub, _)| *sub).collect();
    PartResponse { told: Some(pb::WatchResponse { events: told, fragment, ..response(number, last) }), subs }
}

fn seen(response: &pb::WatchResponse) -> Vec<(i64, u8)> {
    let key = |key: &[u8]| (1..=6).find(|at| key_of(*at) == key).expect("a key of ours");
    let pairs = response.events.iter().filter_map(|event| event.kv.as_ref());
    pairs.map(|pair| (pair.mod_revision, key(&pair.key))).collect()
}

fn asks(assembly: &mut Assembly, part: PartId) -> Vec<Request> {
    std::iter::from_fn(|| assembly.next_ask(part)).filter_map(|ask| ask.request).collect()
}

/// Two parts: of the keys 1 to 3, and of the others.
fn halves() -> (Assembly, PartId, PartId) {
    let mut assembly = Assembly::new(Arc::default());
    let placed = assembly.place(1, vec![slots_of(&[1, 2, 3]), slots_of(&[4, 5, 6])]);
    assert_eq!(assembly.unplaced().count(), 0);
    placed.iter().for_each(|part| assembly.opened(*part));
    (assembly, placed[0], placed[1])
}

#[test]
fn a_revision_goes_out_when_all_have_passed_it() {
    let (mut assembly, first, second) = halves();
    assembly.ask(create(0, 0, 0, false));
    assembly.told(first, created(1, 10)).unwrap();
    assert_eq!(assembly.next(), None);
    assembly.told(second, created(1, 12)).unwrap();
    // It is told of what comes after the newest that anybody had.
    let told = assembly.next().unwrap();
    assert_eq!((told.created, told.watch_id, told.header.unwrap().revision), (true, 0, 12));
    assert_eq!((asks(&mut assembly, first).len(), asks(&mut assembly, second).len()), (1, 1));
    assembly.told(first, events(1, &[(11, 0, 1), (13, 1, 2)], false)).unwrap();
    assert_eq!(assembly.next(), None);
    assert_eq!(asks(&mut assembly, second), [Request::AwaitPassed(13)]);
    assembly.told(second, events(1, &[(13, 0, 4), (13, 2, 5)], false)).unwrap();
    assert_eq!(seen(&assembly.next().unwrap()), [(13, 4), (13, 2), (13, 5)]);
    // Asked once; and what was asked for is answered by and by.
    assembly.told(first, events(1, &[(15, 0, 1)], false)).unwrap();
    assert_eq!((asks(&mut assembly, second), assembly.next()), (vec![], None));
    assembly.told(second, mark(14)).unwrap();
    assert_eq!(asks(&mut assembly, second), [Request::AwaitPassed(15)]);
    assembly.told(second, mark(20)).unwrap();
    assert_eq!(seen(&assembly.next().unwrap()), [(15, 1)]);
}

#[test]
fn who_watches_one_slot_waits_for_nobody() {
    let (mut assembly, first, second) = halves();
    assembly.ask(create(7, 4, 5, false));
    assert_eq!((asks(&mut assembly, first).len(), asks(&mut assembly, second).len()), (0, 1));
    assembly.told(second, created(1, 10)).unwrap();
    assembly.told(second, events(1, &[(6, 0, 4)], false)).unwrap();
    assert!(assembly.next().unwrap().created);
    assert_eq!(seen(&assembly.next().unwrap()), [(6, 4)]);
    assembly.lost(first);
    assembly.told(second, events(1, &[(8, 0, 4)], false)).unwrap();
    assert_eq!(seen(&assembly.next().unwrap()), [(8, 4)]);
}

#[test]
fn a_part_that_is_lost_goes_on_elsewhere_after_what_it_had_passed() {
    let (mut assembly, first, second) = halves();
    assembly.ask(create(0, 0, 3, false));
    for part in [first, second] {
        assembly.told(part, created(1, 10)).unwrap();
        asks(&mut assembly, part);
    }
    assert!(assembly.next().unwrap().created);
    assembly.told(first, events(1, &[(4, 0, 1)], false)).unwrap();
    assembly.told(first, mark(6)).unwrap();
    // Of a revision that was not whole nothing is kept.
    assembly.told(first, events(1, &[(8, 0, 1)], true)).unwrap();
    assembly.lost(first);
    let (_, slots) = assembly.unplaced().next().unwrap();
    let pieces = vec![slots_of(&[2]), slots_of(&[1, 2, 3]).subtract(&slots_of(&[2]))];
    assert_eq!(*slots, slots_of(&[1, 2, 3]));
    let placed = assembly.place(first, pieces);
    assembly.lost(placed[0]);
    let again = assembly.place(placed[0], vec![slots_of(&[2])])[0];
    for part in [again, placed[1]] {
        assembly.opened(part);
        let Some(Request::Watch(asked)) = asks(&mut assembly, part).pop() else { panic!("a creation") };
        let Some(RequestUnion::CreateRequest(asked)) = asked.request_union else { panic!("a creation") };
        assert_eq!((asked.start_revision, asked.watch_id), (7, 1));
        assembly.told(part, created(1, 8)).unwrap();
    }
    assembly.told(placed[1], events(1, &[(8, 0, 1), (8, 1, 3)], false)).unwrap();
    assembly.told(second, mark(9)).unwrap();
    assert_eq!(seen(&assembly.next().unwrap()), [(4, 1)]);
    assembly.told(again, mark(9)).unwrap();
    assert_eq!(seen(&assembly.next().unwrap()), [(8, 1), (8, 3)]);
}

#[test]
fn a_watch_that_compaction_overtook_keeps_its_id_until_it_is_cancelled() {
    let (mut assembly, first, second) = halves();
    assembly.ask(create(0, 0, 3, false));
    assembly.told(first, created(1, 10)).unwrap();
    let compacted = pb::WatchResponse { canceled: true, compact_revision: 5, ..response(1, 0) };
    assembly.told(first, plain(compacted.clone())).unwrap();
    assembly.told(second, created(1, 10)).unwrap();
    assembly.told(second, plain(compacted)).unwrap();
    assembly.told(second, events(1, &[(6, 0, 4)], false)).unwrap();
    assert!(assembly.next().unwrap().created);
    assert_eq!(assembly.next().unwrap().compact_revision, 5);
    assert_eq!(assembly.next(), None);
    assembly.ask(progress());
    assembly.told(first, mark(10)).unwrap();
    assembly.told(second, mark(10)).unwrap();
    assert_eq!(assembly.next(), None);
    assembly.ask(cancellation(0));
    let told = assembly.next().unwrap();
    assert!(told.canceled && told.compact_revision == 0 && told.watch_id == 0, "{told:?}");
}

#[test]
fn what_a_hub_refuses_is_refused() {
    let (mut assembly, ..) = halves();
    let refused = |assembly: &mut Assembly, request: pb::WatchRequest| {
        assembly.ask(request);
        let told = assembly.next().unwrap();
        assert!(told.created && told.canceled && told.watch_id == NO_WATCH, "{told:?}");
        told.cancel_reason
    };
    assert!(refused(&mut assembly, create(0, 1, -1, false)).contains("compacted"));
    assert!(refused(&mut assembly, create(NO_WATCH, 1, 0, false)).contains("-1"));
    assembly.ask(create(3, 1, 0, false));
    assembly.ask(create(3, 1, 0, false));
    // In the order in which they were asked.
    assert_eq!(assembly.next(), None);
}

#[test]
fn a_part_that_is_ahead_is_not_read_on() {
    let (mut assembly, first, second) = halves();
    assembly.ask(create(0, 0, 1, false));
    assembly.told(first, created(1, 10)).unwrap();
    let many: Vec<(i64, u32, u8)> = (1..20).map(|revision| (revision, 0, 1)).collect();
    assembly.told(first, events(1, &many, false)).unwrap();
    assert_eq!((assembly.is_read(first), assembly.is_read(second)), (false, true));
    assembly.told(second, created(1, 10)).unwrap();
    assembly.told(second, mark(10)).unwrap();
    assembly.told(second, mark(20)).unwrap();
    assert!(assembly.is_read(first));
}

/// A node that tells of a part, as far as it matters here.
struct Hub {
    keys: Vec<u8>,
    /// By number: key, the next revision.
    watches: BTreeMap<i64, (u8, i64)>,
    revision: i64,
    awaited: Option<i64>,
    way: VecDeque<PartRequest>,
    said: VecDeque<PartResponse>,
}

impl Hub {
    fn asked(&mut self, request: PartRequest) {
        match request.request.unwrap() {
            Request::AwaitPassed(revision) => {
                let revision = revision as i64;
                self.awaited = Some(self.awaited.map_or(revision, |awaited| awaited.min(revision)));
            }
            Request::Watch(request) => match request.request_union.unwrap() {
                RequestUnion::CreateRequest(create) => {
                    let key = (1..=6).find(|key| key_of(*key) == create.key).unwrap_or(0);
                    let next =
                        if create.start_revision > 0 { create.start_revision } else { self.revision + 1 };
                    let before = self.watches.insert(create.watch_id, (key, next));
                    assert!(before.is_none(), "{} again", create.watch_id);
                    self.said.push_back(created(create.watch_id, self.revision));
                }
                RequestUnion::CancelRequest(cancel) => {
                    if self.watches.remove(&cancel.watch_id).is_some() {
                        let ended = response(cancel.watch_id, self.revision);
                        self.said.push_back(plain(pb::WatchResponse { canceled: true, ..ended }));
                    }
                }
                RequestUnion::ProgressRequest(_) => panic!("parts are asked what they have passed"),
            },
        }
    }

    /// Tells some watch some of what it wants, or what all have passed.
    fn tell(&mut self, history: &History, compacted: i64, dice: &mut Dice) {
        let revision = self.revision;
        let passed = self.watches.values().map(|(_, next)| next - 1).fold(revision, i64::min);
        if let Some(awaited) = self.awaited.take_if(|awaited| *awaited <= passed) {
            assert!(awaited <= passed);
            return self.said.push_back(mark(passed));
        }
        let mut behind: Vec<_> = self.watches.iter_mut().filter(|(_, (_, next))| *next <= revision).collect();
        if behind.is_empty() {
            return;
        }
        let at = dice.below(behind.len());
        let (number, (key, next)) = &mut behind[at];
        let number = **number;
        if *next < compacted {
            self.watches.remove(&number);
            let ended = response(number, 0);
            let ended = pb::WatchResponse { canceled: true, compact_revision: compacted, ..ended };
            return self.said.push_back(plain(ended));
        }
        let through = *next + dice.below((revision - *next) as usize + 1) as i64;
        let mut rest = Vec::new();
        for at in *next..=through {
            let made = (0u32..).zip(&history[at as usize - 1]);
            let is_told = |of: &u8| self.keys.contains(of) && (*key == 0 || key == of);
            rest.extend(made.filter(|(_, of)| is_told(of)).map(|(sub, of)| (at, sub, *of)));
        }
        *next = through + 1;
        while !rest.is_empty() {
            let count = 1 + dice.below(rest.len());
            let part: Vec<_> = rest.drain(..count).collect();
            self.said.push_back(events(number, &part, !rest.is_empty()));
        }
    }
}

/// What a client knows of one of its watches.
struct Client {
    key: u8,
    start: i64,
    told: Vec<(i64, u8)>,
    parts: Vec<(i64, u8)>,
    is_over: bool,
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let mut history: History = vec![vec![1]];
    let mut compacted = 0;
    let mut assembly = Assembly::new(Arc::default());
    let mut hubs: BTreeMap<PartId, Hub> = BTreeMap::new();
    let mut opening: Vec<(PartId, Vec<u8>)> = Vec::new();
    let mut watches: BTreeMap<i64, Client> = BTreeMap::new();
    let mut pending: VecDeque<(i64, u8, i64)> = VecDeque::new();
    let mut cancelled: BTreeSet<i64> = BTreeSet::new();
    let mut chosen: BTreeSet<i64> = BTreeSet::new();
    let (steps, rest) = (300, 6_000);
    for step in 0..steps + rest {
        let is_quiet = step >= steps;
        let newest = history.len() as i64;
        // One hub does something.
        if let Some((id, hub)) = {
            let at = dice.below(hubs.len().max(1));
            hubs.iter_mut().nth(at)
        } {
            hub.way.extend(std::iter::from_fn(|| assembly.next_ask(*id)));
            match dice.below(4) {
                0 => {
                    if let Some(request) = hub.way.pop_front() {
                        hub.asked(request);
                    }
                }
                1 => hub.tell(&history, compacted, &mut dice),
                2 if assembly.is_read(*id) => {
                    if let Some(said) = hub.said.pop_front() {
                        assembly.told(*id, said).unwrap();
                    }
                }
                _ => hub.revision = (hub.revision + 1).min(newest),
            }
        }
        match dice.below(if is_quiet { 2 } else { 12 }) {
            // What is at no node is placed, not all of it at once.
            0 => {
                let unplaced = assembly.unplaced().next().map(|(id, slots)| (id, slots.clone()));
                if let Some((id, slots)) = unplaced {
                    let keys: Vec<u8> =
                        (1..=6).filter(|key| slots.contains(Rules::default().slot(&key_of(*key)))).collect();
                    let mut pieces: Vec<Vec<u8>> = vec![Vec::new(); 3];
                    for key in keys {
                        pieces[dice.below(3)].push(key);
                    }
                    pieces.retain(|piece| !piece.is_empty() && (is_quiet || !dice.one_in(4)));
                    let placed = assembly.place(id, pieces.iter().map(|keys| slots_of(keys)).collect());
                    opening.extend(placed.into_iter().zip(pieces));
                }
            }
            1 => {
                if let Some((id, keys)) = opening.pop() {
                    if !is_quiet && dice.one_in(4) {
                        assembly.lost(id);
                        continue;
                    }
                    // It may know less than the one before.
                    let revision = 1 + dice.below(newest as usize) as i64;
                    let (way, said) = (VecDeque::new(), VecDeque::new());
                    let watches = BTreeMap::new();
                    hubs.insert(id, Hub { keys, watches, revision, awaited: None, way, said });
                    assembly.opened(id);
                }
            }
            2..5 => history.push((0..1 + dice.below(4)).map(|_| 1 + dice.below(6) as u8).collect()),
            5 if dice.one_in(2) => {
                let key = dice.below(8).saturating_sub(1) as u8;
                let start = dice.below(history.len() + 3) as i64;
                let named = if dice.one_in(2) { 1_000 + step } else { 0 };
                assembly.ask(create(named, key, start, dice.one_in(2)));
                pending.push_back((named, key, start));
            }
            6 if dice.one_in(4) => {
                let is_free = |id: &i64| !cancelled.contains(id);
                let ids: Vec<i64> = watches.keys().copied().filter(is_free).collect();
                if !ids.is_empty() {
                    let id = ids[dice.below(ids.len())];
                    cancelled.insert(id);
                    assembly.ask(cancellation(id));
                }
            }
            7 => assembly.ask(progress()),
            8 if dice.one_in(3) && !hubs.is_empty() => {
                let id = *hubs.keys().nth(dice.below(hubs.len())).unwrap();
                hubs.remove(&id);
                assembly.lost(id);
            }
            9 if dice.one_in(20) => compacted = 1 + dice.below(history.len()) as i64,
            _ => {}
        }
        while let Some(told) = assembly.next() {
            let id = told.watch_id;
            let revision = told.header.unwrap().revision;
            if told.created {
                assert!(!told.canceled, "seed {seed}: refused");
                let (named, key, start) = pending.pop_front().expect("it was asked for");
                let start = if start > 0 { start } else { revision + 1 };
                let is_right = if named == 0 { id < 1_000 && chosen.insert(id) } else { id == named };
                assert!(is_right && !watches.contains_key(&id), "seed {seed}: {id} again");
                let (told, parts) = (Vec::new(), Vec::new());
                watches.insert(id, Client { key, start, told, parts, is_over: false });
            } else if told.canceled && told.compact_revision == 0 {
                assert!(cancelled.remove(&id), "seed {seed}: {id} was not cancelled");
                watches.remove(&id).expect("it was there");
            } else if told.canceled {
                let watch = watches.get_mut(&id).unwrap();
                assert!(!std::mem::replace(&mut watch.is_over, true), "seed {seed}: over twice");
            } else if id == NO_WATCH {
                for watch in watches.values() {
                    let all = wanted(&history, watch.key, watch.start, revision);
                    assert_eq!(watch.told, all, "seed {seed}: progress {revision}");
                }
            } else {
                let watch = watches.get_mut(&id).expect("events come for watches that exist");
                assert!(!watch.is_over && !told.events.is_empty(), "seed {seed}: {told:?}");
                watch.parts.extend(seen(&told));
                if told.fragment {
                    continue;
                }
                watch.told.append(&mut watch.parts);
                let through = watch.told.last().unwrap().0;
                let all = wanted(&history, watch.key, watch.start, through);
                assert_eq!(watch.told, all, "seed {seed}: watch {id}");
            }
        }
    }
    assert!(pending.is_empty() && cancelled.is_empty(), "seed {seed}: unanswered");
    for (id, watch) in watches.iter().filter(|(_, watch)| !watch.is_over) {
        let all = wanted(&history, watch.key, watch.start, history.len() as i64);
        assert_eq!(watch.told, all, "seed {seed}: watch {id}");
    }
}

#[test]
fn every_revision_is_told_once_whole_in_order_whatever_nodes_are_lost() {
    for seed in 0..400 {
        run(seed);
    }
}
