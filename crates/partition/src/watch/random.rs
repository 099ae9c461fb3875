//! Random everything against the plainest model: what a watch was given must be what a look at all of
//! history gives.

use super::testing::{Random, Store};
use super::*;
use quorate_types::Key;

/// What the model knows of a watch.
struct Expected {
    request: WatchRequest,
    /// The first revision it may be told of.
    start: Revision,
    /// Everything below was given to it, and none of it twice.
    next: Revision,
    /// Parts of a revision are still to come.
    is_open: bool,
    /// Created was seen.
    is_created: bool,
    /// It was cancelled by compaction.
    is_ended: bool,
}

impl Expected {
    /// What it must be told of `changes`.
    fn wants(&self, changes: &Changes) -> Vec<Event> {
        let wanted = changes.events.iter().filter(|event| self.request.range.contains(event.key()));
        wanted
            .filter(|event| match event {
                Event::Put(_) => self.request.puts,
                Event::Delete { .. } => self.request.deletes,
            })
            .cloned()
            .collect()
    }

    /// What it has not been told, from its cursor up to `through`.
    fn owed(&self, store: &Store, through: Revision) -> Vec<Event> {
        let owed = store
            .all
            .iter()
            .filter(|changes| (self.next.max(self.start)..=through).contains(&changes.revision));
        owed.flat_map(|changes| self.wants(changes)).collect()
    }
}

#[derive(Default)]
struct Client {
    watches: BTreeMap<i64, Expected>,
    /// Of a response whose fragments are still coming.
    parts: Vec<Event>,
}

impl Client {
    fn take(&mut self, response: WatchResponse, store: &Store, at: &str) {
        let header = response.header_revision;
        match response.kind {
            WatchResponseKind::Created => {
                let watch =
                    self.watches.get_mut(&response.id).unwrap_or_else(|| panic!("{at}: {response:?}"));
                assert!(!watch.is_created, "{at}");
                watch.is_created = true;
            }
            WatchResponseKind::CreateFailed { .. } => panic!("{at}: {response:?}"),
            WatchResponseKind::Canceled { compacted: None, .. } => {}
            WatchResponseKind::Canceled { compacted: Some(compacted), .. } => {
                assert_eq!(header, None);
                let watch =
                    self.watches.get_mut(&response.id).unwrap_or_else(|| panic!("{at}: {response:?}"));
                assert!(watch.is_created && !watch.is_ended && store.compacted == Some(compacted), "{at}");
                // Only who really misses something is cancelled.
                assert!(watch.next.max(watch.start) < compacted, "{at}");
                watch.is_ended = true;
            }
            WatchResponseKind::Progress => {
                let header = header.unwrap();
                for (id, watch) in &self.watches {
                    if response.id == NO_WATCH || response.id == *id {
                        assert!(watch.is_created && !watch.is_ended && watch.start <= header.next(), "{at}");
                        assert_eq!(watch.owed(store, header), [], "{at}: progress {header} ahead of {id}");
                        assert!(watch.next <= header.next(), "{at}: progress {header} behind {id}");
                    }
                }
            }
            WatchResponseKind::Events => {
                let header = header.unwrap();
                let watch =
                    self.watches.get_mut(&response.id).unwrap_or_else(|| panic!("{at}: {response:?}"));
                assert!(watch.is_created && !watch.is_ended, "{at}");
                assert!(!response.fragment || watch.request.fragment, "{at}");
                for Told { event, previous, .. } in response.events.iter().cloned() {
                    let compacted = store.compacted;
                    if !watch.request.previous {
                        assert_eq!(previous, None, "{at}");
                    } else {
                        assert_eq!(
                            previous,
                            store.previous(event.key(), modified(&event)).unwrap(),
                            "{at} {compacted:?}"
                        );
                    }
                    self.parts.push(event);
                }
                watch.is_open = response.fragment;
                if response.fragment {
                    return;
                }
                // Whole revisions: everything owed up to the last one given, and nothing else.
                let through = modified(self.parts.last().unwrap());
                assert!(through <= header && header <= store.revision(), "{at}");
                assert_eq!(std::mem::take(&mut self.parts), watch.owed(store, through), "{at}");
                watch.next = through.next();
            }
        }
        // No other watch's responses come between fragments.
        assert!(self.parts.is_empty(), "{at}");
    }
}

fn modified(event: &Event) -> Revision {
    match event {
        Event::Put(pair) => pair.modified,
        Event::Delete { modified, .. } => *modified,
    }
}

/// How often the rare things happened, so that a test that no longer reaches them fails.
#[derive(Debug, Default)]
struct Seen {
    compacted: usize,
    manual: usize,
    regular: usize,
    fragments: usize,
    lagging: usize,
}

fn run(seed: u64, seen: &mut Seen) {
    let mut random = Random::new(seed);
    let limits = Limits {
        streams_max: 4,
        stream_watches_max: 20,
        stream_answers_max: 8,
        stream_queue_bytes_max: [300, 1000, 5000][random.below(3)],
        catch_up_bytes_max: [1, 100, 500][random.below(3)],
        fragment_bytes: [100, 200, 1000][random.below(3)],
        progress_ticks: 1 + random.below(4) as u64,
    };
    let mut store = Store::default();
    let mut watches = Watches::new(limits, Revision::FIRST);
    let mut clients: BTreeMap<StreamId, Client> = BTreeMap::new();
    let mut stream_next = 0;
    // Applied and not published.
    let mut unpublished: Vec<Changes> = Vec::new();
    let poll_bytes_max = [1, 200, 2000];
    for step in 0..400 {
        let at = format!("seed {seed} step {step}");
        match random.below(100) {
            0..40 => {
                let operations: Vec<(Key, bool)> =
                    (0..1 + random.below(4)).map(|_| (random.key(), random.chance(70))).collect();
                let value = vec![b'v'; random.below(60)];
                let mut operations: Vec<(&[u8], Option<&[u8]>)> = operations
                    .iter()
                    .map(|(key, is_put)| (key.as_ref(), is_put.then_some(&value[..])))
                    .collect();
                operations.sort();
                operations.dedup_by(|a, b| a.0 == b.0);
                unpublished.extend(store.write(&operations));
                if random.chance(85) {
                    watches.publish(&std::mem::take(&mut unpublished));
                }
            }
            40..42 => {
                if watches.open(StreamId(stream_next)).is_ok() {
                    clients.insert(StreamId(stream_next), Client::default());
                } else {
                    assert_eq!(clients.len(), 4);
                }
                stream_next += 1;
            }
            42 => {
                if let Some(stream) = pick(&mut random, &clients) {
                    watches.close(stream);
                    clients.remove(&stream);
                }
            }
            43..53 => {
                let Some(stream) = pick(&mut random, &clients) else { continue };
                let client = clients.get_mut(&stream).unwrap();
                if !watches.accepts(stream) || client.watches.len() >= 20 {
                    continue;
                }
                let current = watches.revision().max(store.revision());
                let start = random.chance(50).then(|| 1 + random.below(current.0 as usize + 5) as i64);
                let id = 100 + step;
                let request = WatchRequest {
                    id: Some(id),
                    range: random.range(),
                    start_revision: start,
                    puts: random.chance(80),
                    deletes: random.chance(80),
                    previous: random.chance(30),
                    fragment: random.chance(50),
                    progress: random.chance(50),
                };
                watches.create(stream, request.clone(), &store).unwrap();
                let start = start.map_or(current.next(), |start| Revision(start as u64));
                let expected = Expected {
                    request,
                    start,
                    next: start,
                    is_open: false,
                    is_created: false,
                    is_ended: false,
                };
                client.watches.insert(id, expected);
            }
            53..57 => {
                let Some(stream) = pick(&mut random, &clients) else { continue };
                let client = clients.get_mut(&stream).unwrap();
                let ids: Vec<_> =
                    client.watches.iter().filter(|(_, watch)| watch.is_created).map(|(id, _)| *id).collect();
                if !ids.is_empty() && watches.accepts(stream) {
                    let id = ids[random.below(ids.len())];
                    watches.cancel(stream, id).unwrap();
                    // From here on nothing but "canceled" may come.
                    client.watches.remove(&id);
                }
            }
            57..59 => {
                let newest = watches.revision().0;
                let oldest = store.compacted.map_or(1, |compacted| compacted.0);
                let compacted = Revision(oldest + random.below((newest - oldest + 1) as usize) as u64);
                store.compacted = Some(compacted);
                watches.compacted(compacted);
            }
            59..66 => watches.tick(),
            66..74 => {
                if let Some(stream) = pick(&mut random, &clients) {
                    watches.progress(stream);
                }
            }
            74 => {
                // A snapshot: all that is stored and not published is skipped.
                unpublished.clear();
                watches.restored(store.revision());
            }
            _ => {
                let Some(stream) = pick(&mut random, &clients) else { continue };
                let said = watches.poll(stream, &store, poll_bytes_max[random.below(3)]).unwrap();
                for response in said {
                    seen.fragments += usize::from(response.fragment);
                    match response.kind {
                        WatchResponseKind::Progress if response.id == NO_WATCH => seen.manual += 1,
                        WatchResponseKind::Progress => seen.regular += 1,
                        WatchResponseKind::Canceled { compacted: Some(_), .. } => seen.compacted += 1,
                        _ => {}
                    }
                    clients.get_mut(&stream).unwrap().take(response, &store, &at);
                }
            }
        }
        let counts = watches.counts();
        seen.lagging += counts.lagging;
        assert!(
            counts.queue_bytes <= clients.len() * (limits.stream_queue_bytes_max + 20 * 2 * 96),
            "{at}: {counts:?}"
        );
        assert_eq!(
            counts.watches,
            clients.values().map(|client| client.watches.len()).sum::<usize>(),
            "{at}"
        );
    }
    // Then everything settles: whoever was not cancelled has everything, and the streams are at rest.
    watches.publish(&unpublished);
    let at = format!("seed {seed} at the end");
    // Also streams that were in no list: a lost wake-up would leave them behind.
    let mut pending: Vec<StreamId> = clients.keys().copied().collect();
    for _ in 0..100_000 {
        let Some(stream) = pending.pop() else { break };
        for response in watches.poll(stream, &store, 500).unwrap() {
            clients.get_mut(&stream).unwrap().take(response, &store, &at);
        }
        pending.extend(watches.take_ready());
    }
    assert_eq!(pending, [], "{at}");
    assert_eq!(watches.counts().lagging, 0, "{at}");
    assert_eq!(watches.counts().queue_bytes, 0, "{at}");
    for client in clients.values() {
        for (id, watch) in &client.watches {
            assert!(watch.is_created && !watch.is_open, "{at}");
            if !watch.is_ended {
                assert_eq!(watch.owed(&store, store.revision()), [], "{at}: watch {id}");
            }
        }
    }
}

fn pick(random: &mut Random, clients: &BTreeMap<StreamId, Client>) -> Option<StreamId> {
    let count = clients.len();
    (count > 0).then(|| *clients.keys().nth(random.below(count)).unwrap())
}

#[test]
fn every_watch_is_told_exactly_what_history_says() {
    let mut seen = Seen::default();
    for seed in 0..400 {
        run(seed, &mut seen);
    }
    let Seen { compacted, manual, regular, fragments, lagging } = seen;
    for count in [compacted, manual, regular, fragments, lagging] {
        assert!(count > 100, "too rare to mean anything: {seen:?}");
    }
}
