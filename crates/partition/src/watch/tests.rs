//! Stories about watches: one for each rule of etcd's, and of ours.
//!
//! A response is written `id @header events`, with `+key=value` for a put, `-key` for a delete, the
//! previous value in parentheses, and `…` when fragments follow.

use super::testing::Store;
use super::*;
use quorate_types::{KeyRange, Rules};
use std::sync::Arc;

const STREAM: StreamId = StreamId(7);

/// A key space with watches; what is written is published at once.
struct World {
    store: Store,
    watches: Watches,
}

impl World {
    fn new(limits: Limits) -> Self {
        let mut watches = Watches::new(limits, Revision::FIRST);
        watches.open(STREAM).unwrap();
        Self { store: Store::default(), watches }
    }

    fn put(&mut self, key: &str, value: &str) {
        let changes = self.store.put(key, value);
        self.watches.publish(&changes);
    }

    fn delete(&mut self, key: &str) {
        let changes = self.store.delete(key);
        self.watches.publish(&changes);
    }

    fn write(&mut self, operations: &[(&[u8], Option<&[u8]>)]) {
        let changes = self.store.write(operations);
        self.watches.publish(&changes);
    }

    fn compact(&mut self, revision: u64) {
        self.store.compacted = Some(Revision(revision));
        self.watches.compacted(Revision(revision));
    }

    fn create(&mut self, request: WatchRequest) {
        self.watches.create(STREAM, request, &self.store).unwrap();
    }

    /// Everything that the stream has to say.
    #[track_caller]
    fn expect(&mut self, expected: &[&str]) {
        let mut said = Vec::new();
        while self.watches.take_ready().contains(&STREAM) {
            said.extend(self.watches.poll(STREAM, &self.store, 1 << 20).unwrap());
        }
        assert_eq!(said.iter().map(text).collect::<Vec<_>>(), expected);
    }
}

fn text(response: &WatchResponse) -> String {
    let header = response.header_revision.map_or(0, |revision| revision.0);
    let bytes = |bytes: &[u8]| match bytes.len() {
        0..20 => String::from_utf8_lossy(bytes).into_owned(),
        len => format!("<{len}>"),
    };
    let mut out = format!("{} @{header}", response.id);
    match &response.kind {
        WatchResponseKind::Created => out += " created",
        WatchResponseKind::CreateFailed { reason } => out += &format!(" created canceled: {reason}"),
        WatchResponseKind::Canceled { compacted, reason } => {
            assert_eq!(reason, "");
            out += " canceled";
            if let Some(compacted) = compacted {
                out += &format!(" compacted {compacted}");
            }
        }
        WatchResponseKind::Progress => out += " progress",
        WatchResponseKind::Events => assert!(!response.events.is_empty()),
    }
    for Told { event, previous, .. } in response.events.iter() {
        match event {
            Event::Put(pair) => out += &format!(" +{}={}", bytes(&pair.key), bytes(&pair.value)),
            Event::Delete { key, .. } => out += &format!(" -{}", bytes(key)),
        }
        if let Some(previous) = previous {
            out += &format!("({})", bytes(&previous.value));
        }
    }
    if response.fragment {
        out += "…";
    }
    out
}

fn world() -> World {
    World::new(Limits::default())
}

fn watch(key: &str) -> WatchRequest {
    WatchRequest::new(KeyRange::Single(key.to_owned().into()))
}

fn prefix(prefix: &str) -> WatchRequest {
    WatchRequest::new(KeyRange::prefix(prefix.to_owned()))
}

fn from(start: i64, request: WatchRequest) -> WatchRequest {
    WatchRequest { start_revision: Some(start), ..request }
}

fn named(id: i64, request: WatchRequest) -> WatchRequest {
    WatchRequest { id: Some(id), ..request }
}

#[test]
fn live_events_come_one_revision_a_response_to_those_who_watch_the_key() {
    let mut world = world();
    world.create(watch("a"));
    world.create(prefix("a"));
    world.create(prefix("b"));
    world.put("a", "1");
    world.put("ab", "2");
    world.delete("a");
    world.delete("a");
    world.expect(&[
        "0 @1 created",
        "1 @1 created",
        "2 @1 created",
        "0 @2 +a=1",
        "1 @2 +a=1",
        "1 @3 +ab=2",
        "0 @4 -a",
        "1 @4 -a",
    ]);
    world.put("b", "3");
    world.expect(&["2 @5 +b=3"]);
}

#[test]
fn the_server_picks_ids_upward_skips_used_ones_and_never_reuses() {
    let mut world = world();
    world.create(named(1, watch("a")));
    world.create(watch("a"));
    world.create(named(0, watch("a")));
    world.create(named(-9, watch("a")));
    world.expect(&["1 @1 created", "0 @1 created", "2 @1 created", "-9 @1 created"]);
    world.watches.cancel(STREAM, 2).unwrap();
    world.watches.cancel(STREAM, 0).unwrap();
    world.create(watch("a"));
    world.expect(&["2 @1 canceled", "0 @1 canceled", "3 @1 created"]);
    // A client may name a cancelled id again.
    world.create(named(2, watch("a")));
    world.put("a", "1");
    world.expect(&["2 @1 created", "1 @2 +a=1", "-9 @2 +a=1", "3 @2 +a=1", "2 @2 +a=1"]);
}

#[test]
fn trap_13_a_failed_create_is_one_message_with_id_minus_1_and_the_stream_lives_on() {
    let mut world = world();
    world.put("a", "1");
    world.create(named(5, watch("a")));
    world.create(named(5, watch("b")));
    world.create(WatchRequest::new(KeyRange::Between("b".into(), "b".into())));
    world.create(WatchRequest::new(KeyRange::Between("b".into(), "a".into())));
    world.create(from(-1, watch("a")));
    world.create(from(i64::MIN, watch("a")));
    world.create(named(-1, watch("a")));
    world.create(watch("a"));
    world.put("a", "2");
    world.expect(&[
        "5 @2 created",
        "-1 @2 created canceled: mvcc: duplicate watch ID provided on the WatchStream",
        "-1 @2 created canceled: mvcc: watcher range is empty",
        "-1 @2 created canceled: mvcc: watcher range is empty",
        "-1 @2 created canceled: etcdserver: mvcc: required revision has been compacted",
        "-1 @2 created canceled: etcdserver: mvcc: required revision has been compacted",
        "-1 @2 created canceled: watch ID -1 cannot be chosen",
        "0 @2 created",
        "5 @3 +a=2",
        "0 @3 +a=2",
    ]);
}

#[test]
fn every_start_revision_at_the_bounds_gets_exactly_what_follows() {
    // Jepsen and etcd#20707, #20221: starts at 0, at the newest and one after are where servers differ.
    for (start, expected) in [
        (None, &["0 @4 created", "0 @5 +a=5"][..]),
        (Some(0), &["0 @4 created", "0 @5 +a=5"]),
        (Some(1), &["0 @4 created", "0 @5 +a=2 +a=3 +a=4 +a=5"]),
        (Some(2), &["0 @4 created", "0 @5 +a=2 +a=3 +a=4 +a=5"]),
        (Some(4), &["0 @4 created", "0 @5 +a=4 +a=5"]),
        (Some(5), &["0 @4 created", "0 @5 +a=5"]),
        (Some(6), &["0 @4 created"]),
        (Some(i64::MAX), &["0 @4 created"]),
    ] {
        let mut world = world();
        for value in ["2", "3", "4"] {
            world.put("a", value);
        }
        world.create(WatchRequest { start_revision: start, ..watch("a") });
        world.put("a", "5");
        world.expect(expected);
        world.put("b", "6");
        world.put("a", "7");
        world.expect(if start == Some(i64::MAX) { &[] } else { &["0 @7 +a=7"] });
    }
}

#[test]
fn catching_up_puts_many_revisions_into_a_response_under_the_newest_header() {
    let mut world = world();
    world.put("a", "1");
    world.put("b", "2");
    world.write(&[(b"a", Some(b"3")), (b"c", Some(b"4"))]);
    world.put("b", "5");
    world.create(from(1, watch("a")));
    world.expect(&["0 @5 created", "0 @5 +a=1 +a=3"]);
    world.put("a", "6");
    world.expect(&["0 @6 +a=6"]);
}

#[test]
fn trap_14_a_compacted_start_is_created_first_and_then_cancelled_with_nothing_but_the_revision() {
    let mut world = world();
    for value in ["2", "3", "4", "5"] {
        world.put("a", value);
    }
    world.compact(4);
    world.create(from(3, watch("a")));
    world.create(from(4, watch("a")));
    world.put("a", "6");
    world.expect(&["0 @5 created", "1 @5 created", "0 @0 canceled compacted 4", "1 @6 +a=4 +a=5 +a=6"]);
    world.put("a", "7");
    world.expect(&["1 @7 +a=7"]);
    // It blocks progress, and its id, until the client gives it up.
    world.watches.progress(STREAM);
    world.create(named(0, watch("b")));
    world.expect(&["2 @7 created"]);
    world.watches.cancel(STREAM, 0).unwrap();
    world.watches.cancel(STREAM, 0).unwrap();
    world.watches.progress(STREAM);
    world.expect(&["0 @7 canceled", "-1 @7 progress"]);
}

#[test]
fn filters_drop_kinds_and_a_response_left_empty_is_not_sent() {
    let mut world = world();
    world.create(WatchRequest { puts: false, ..prefix("") });
    world.create(WatchRequest { deletes: false, ..prefix("") });
    world.create(WatchRequest { puts: false, deletes: false, ..prefix("") });
    world.put("a", "1");
    world.delete("a");
    world.write(&[(b"a", Some(b"2")), (b"b", Some(b"3"))]);
    world.write(&[(b"a", None), (b"c", Some(b"4"))]);
    world.create(WatchRequest { puts: false, ..from(1, prefix("")) });
    world.expect(&[
        "0 @1 created",
        "1 @1 created",
        "2 @1 created",
        "3 @5 created",
        "1 @2 +a=1",
        "3 @5 -a -a",
        "0 @3 -a",
        "1 @4 +a=2 +b=3",
        "0 @5 -a",
        "1 @5 +c=4",
    ]);
}

#[test]
fn previous_pairs_come_with_deletes_and_overwrites_unless_compacted() {
    let mut world = world();
    world.create(WatchRequest { previous: true, ..watch("a") });
    world.put("a", "1");
    world.put("a", "2");
    world.delete("a");
    world.put("a", "3");
    world.expect(&["0 @1 created", "0 @2 +a=1", "0 @3 +a=2(1)", "0 @4 -a(2)", "0 @5 +a=3"]);
    world.create(WatchRequest { previous: true, ..from(3, watch("a")) });
    world.compact(3);
    // The pair before 3 is gone, the one at 3 is not.
    world.expect(&["1 @5 created", "1 @5 +a=2 -a(2) +a=3"]);
}

#[test]
fn trap_17_only_fragments_split_a_revision_and_all_but_the_last_say_so() {
    let mut world = World::new(Limits { fragment_bytes: 300, ..Limits::default() });
    world.create(WatchRequest { fragment: true, ..prefix("") });
    world.create(prefix(""));
    let value = [b'x'; 60];
    let puts: Vec<(&[u8], Option<&[u8]>)> =
        [&b"a"[..], b"b", b"c", b"d", b"e"].into_iter().map(|key| (key, Some(&value[..]))).collect();
    world.write(&puts);
    world.write(&puts[..1]);
    world.write(&[(b"big", Some(&[b'y'; 400]))]);
    world.write(&[(b"big", Some(&[b'y'; 400])), (b"a", Some(b"1"))]);
    world.expect(&[
        "0 @1 created",
        "1 @1 created",
        "0 @2 +a=<60> +b=<60>…",
        "0 @2 +c=<60> +d=<60>…",
        "0 @2 +e=<60>",
        "1 @2 +a=<60> +b=<60> +c=<60> +d=<60> +e=<60>",
        "0 @3 +a=<60>",
        "1 @3 +a=<60>",
        "0 @4 +big=<400>",
        "1 @4 +big=<400>",
        "0 @5 +big=<400>…",
        "0 @5 +a=1",
        "1 @5 +big=<400> +a=1",
    ]);
}

#[test]
fn quiet_watches_that_ask_for_it_are_told_their_progress() {
    let mut world = World::new(Limits { progress_ticks: 3, ..Limits::default() });
    world.create(WatchRequest { progress: true, ..watch("a") });
    world.create(watch("b"));
    world.create(WatchRequest { progress: true, ..from(9, watch("c")) });
    world.expect(&["0 @1 created", "1 @1 created", "2 @1 created"]);
    let three = |world: &mut World| (0..3).for_each(|_| world.watches.tick());
    world.put("x", "1");
    three(&mut world);
    world.expect(&["0 @2 progress"]);
    // Events since the last time take the place of progress.
    world.put("a", "2");
    three(&mut world);
    world.expect(&["0 @3 +a=2"]);
    // What waits in the queue goes first, and a stalled client gets one progress, not many.
    world.watches.tick();
    world.put("b", "3");
    (0..9).for_each(|_| world.watches.tick());
    world.put("b", "4");
    world.expect(&["1 @4 +b=3", "0 @4 progress", "1 @5 +b=4"]);
    for _ in 0..4 {
        world.put("x", "5");
    }
    world.watches.cancel(STREAM, 0).unwrap();
    three(&mut world);
    world.expect(&["0 @9 canceled", "2 @9 progress"]);
    world.watches.cancel(STREAM, 2).unwrap();
    three(&mut world);
    world.expect(&["2 @9 canceled"]);
    assert!(world.watches.due.is_empty());
}

#[test]
fn trap_15_a_progress_request_is_answered_only_when_all_are_synced_and_after_all_events() {
    let mut world = world();
    // No watch: silence.
    world.watches.progress(STREAM);
    world.expect(&[]);
    world.create(watch("a"));
    world.watches.progress(STREAM);
    world.expect(&["0 @1 created", "-1 @1 progress"]);
    // etcd#15220: progress went out ahead of events.
    world.put("a", "1");
    world.put("x", "1");
    world.watches.progress(STREAM);
    world.watches.progress(STREAM);
    world.put("a", "2");
    world.expect(&["0 @2 +a=1", "-1 @3 progress", "0 @4 +a=2"]);
    // One that lags: silence, also later.
    world.create(from(2, watch("a")));
    world.watches.progress(STREAM);
    world.expect(&["1 @4 created", "1 @4 +a=1 +a=2"]);
    world.watches.progress(STREAM);
    world.expect(&["-1 @4 progress"]);
    // One that waits for a later revision: silence until it is reached.
    world.create(from(6, watch("b")));
    world.watches.progress(STREAM);
    world.put("b", "early");
    world.watches.progress(STREAM);
    world.expect(&["2 @4 created"]);
    world.put("x", "2");
    world.watches.progress(STREAM);
    world.expect(&["-1 @6 progress"]);
}

#[test]
fn progress_forgets_a_request_when_the_queue_is_dropped() {
    let mut world = World::new(Limits { stream_queue_bytes_max: 400, ..Limits::default() });
    world.create(watch("a"));
    world.put("a", "1");
    world.watches.progress(STREAM);
    world.put("a", "2");
    world.put("a", "3");
    world.put("a", "4");
    assert_eq!(world.watches.counts().lagging, 1);
    world.expect(&["0 @1 created", "0 @5 +a=1 +a=2 +a=3 +a=4"]);
    world.watches.progress(STREAM);
    world.expect(&["-1 @5 progress"]);
}

#[test]
fn trap_16_a_cancelled_watch_is_silent_from_then_on_and_unknown_ids_get_no_answer() {
    // (Half-closing the request side is the shell's: it only stops calling create and cancel.)
    let mut world = world();
    world.create(named(8, watch("a")));
    world.create(named(9, watch("a")));
    world.expect(&["8 @1 created", "9 @1 created"]);
    world.put("a", "1");
    world.watches.cancel(STREAM, 8).unwrap();
    world.watches.cancel(STREAM, 8).unwrap();
    world.watches.cancel(STREAM, 99).unwrap();
    world.create(named(8, watch("a")));
    world.put("a", "2");
    world.expect(&["8 @2 canceled", "8 @2 created", "9 @2 +a=1", "9 @3 +a=2", "8 @3 +a=2"]);
}

#[test]
fn trap_18_reasons_of_the_key_space_are_bare() {
    let mut world = world();
    world.create(from(-5, watch("a")));
    let said = world.watches.poll(STREAM, &world.store, 1000).unwrap();
    let WatchResponseKind::CreateFailed { reason } = &said[0].kind else { panic!("{said:?}") };
    assert!(!reason.starts_with("rpc error"), "{reason}");
}

#[test]
fn a_slow_stream_drops_its_queue_catches_up_without_gap_or_repeat_and_harms_no_other() {
    let other = StreamId(8);
    let mut world = World::new(Limits { stream_queue_bytes_max: 1000, ..Limits::default() });
    world.watches.open(other).unwrap();
    world.create(watch("a"));
    world.create(watch("idle"));
    world.watches.create(other, watch("a"), &world.store).unwrap();
    world.watches.poll(other, &world.store, 1000).unwrap();
    world.put("a", "0");
    assert_eq!(world.watches.poll(other, &world.store, 1000).unwrap().len(), 1);
    let said = world.watches.poll(STREAM, &world.store, 3 * 64).unwrap();
    assert_eq!(said.iter().map(text).collect::<Vec<_>>(), ["0 @1 created", "1 @1 created", "0 @2 +a=0"]);
    for n in 1..=100 {
        world.put("a", &n.to_string());
        assert_eq!(world.watches.poll(other, &world.store, 1000).unwrap().len(), 1);
        assert!(world.watches.counts().queue_bytes <= 1000);
    }
    assert_eq!(world.watches.counts().lagging, 1);
    assert_eq!(world.watches.counts().queue_bytes, 0);
    let said = world.watches.poll(STREAM, &world.store, 1 << 20).unwrap();
    assert_eq!(said.len(), 1);
    let revisions: Vec<_> = said[0].events.iter().map(|told| modified(&told.event)).collect();
    assert_eq!(revisions, (3..=102).map(Revision).collect::<Vec<_>>());
    assert_eq!(world.watches.counts().lagging, 0);
    world.put("idle", "1");
    world.put("a", "last");
    world.expect(&["1 @103 +idle=1", "0 @104 +a=last"]);
}

#[test]
fn a_lagging_watch_overtaken_by_compaction_is_cancelled_and_a_quiet_one_is_not() {
    let mut world = World::new(Limits { stream_queue_bytes_max: 200, ..Limits::default() });
    world.create(watch("a"));
    world.create(watch("quiet"));
    world.expect(&["0 @1 created", "1 @1 created"]);
    for n in 0..5 {
        world.put("a", &n.to_string());
    }
    world.compact(4);
    world.put("quiet", "1");
    world.expect(&["1 @7 +quiet=1", "0 @0 canceled compacted 4"]);
}

#[test]
fn a_dropped_queue_needs_no_history_from_before_what_was_in_it() {
    let mut world = World::new(Limits { stream_queue_bytes_max: 1000, ..Limits::default() });
    world.create(watch("a"));
    world.put("a", "1");
    for n in 0..4 {
        world.put("b", &n.to_string());
    }
    world.put("a", "2");
    let said: Vec<_> = (0..2).flat_map(|_| world.watches.poll(STREAM, &world.store, 1).unwrap()).collect();
    assert_eq!(said.iter().map(text).collect::<Vec<_>>(), ["0 @1 created", "0 @2 +a=1"]);
    world.compact(6);
    while world.watches.counts().lagging == 0 {
        world.put("a", "more");
    }
    let said = world.watches.poll(STREAM, &world.store, 1 << 20).unwrap();
    assert!(said.iter().all(|response| response.kind == WatchResponseKind::Events), "{said:?}");
    assert_eq!(modified(&said[0].events[0].event), Revision(7));
}

#[test]
fn what_is_queued_outlives_a_compaction() {
    let mut world = world();
    world.create(watch("a"));
    world.put("a", "1");
    world.put("a", "2");
    world.compact(3);
    world.expect(&["0 @1 created", "0 @2 +a=1", "0 @3 +a=2"]);
}

#[test]
fn an_installed_snapshot_turns_watches_to_history() {
    let mut world = world();
    world.create(watch("a"));
    world.create(from(5, watch("a")));
    world.create(from(9, watch("a")));
    world.put("a", "2");
    for value in ["3", "4", "5"] {
        world.store.put("a", value);
    }
    world.watches.restored(Revision(5));
    world.expect(&["0 @1 created", "1 @1 created", "2 @1 created", "0 @5 +a=2 +a=3 +a=4 +a=5", "1 @5 +a=5"]);
    world.put("a", "6");
    world.expect(&["0 @6 +a=6", "1 @6 +a=6"]);
}

#[test]
fn a_quiet_watch_needs_no_history_from_before_the_snapshot() {
    let mut world = world();
    world.create(watch("quiet"));
    for value in ["2", "3", "4"] {
        world.put("a", value);
    }
    world.store.put("a", "5");
    world.store.compacted = Some(Revision(4));
    world.watches.restored(Revision(5));
    world.expect(&["0 @1 created"]);
    world.put("quiet", "6");
    world.expect(&["0 @6 +quiet=6"]);
    // But one that misses what the snapshot's history no longer has is told.
    for value in ["7", "8"] {
        world.store.put("a", value);
    }
    world.store.compacted = Some(Revision(8));
    world.watches.restored(Revision(8));
    world.expect(&["0 @0 canceled compacted 8"]);
}

#[test]
fn history_ahead_of_what_is_published_gives_nothing_twice() {
    let mut world = world();
    world.create(watch("a"));
    let two = world.store.put("a", "2");
    let three = world.store.put("a", "3");
    world.create(watch("a"));
    world.create(from(2, watch("a")));
    world.expect(&["0 @1 created", "1 @3 created", "2 @3 created", "2 @3 +a=2 +a=3"]);
    world.watches.progress(STREAM);
    world.expect(&[]);
    world.watches.publish(&two);
    world.watches.publish(&three);
    world.watches.progress(STREAM);
    world.put("a", "4");
    world.expect(&["0 @2 +a=2", "0 @3 +a=3", "-1 @3 progress", "0 @4 +a=4", "1 @4 +a=4", "2 @4 +a=4"]);
}

#[test]
fn a_poll_is_bounded_and_serves_lagging_watches_in_turn_and_live_ones_between() {
    let mut world = World::new(Limits { catch_up_bytes_max: 70, ..Limits::default() });
    for n in 0..4 {
        world.put("a", &n.to_string());
    }
    for start in [2, 3, 2] {
        world.create(from(start, watch("a")));
    }
    world.create(watch("b"));
    world.put("b", "live");
    let mut said = Vec::new();
    while world.watches.take_ready().contains(&STREAM) {
        let part = world.watches.poll(STREAM, &world.store, 300).unwrap();
        assert!(part.iter().map(WatchResponse::size).sum::<usize>() < 600, "{part:?}");
        said.extend(part.iter().filter(|response| !response.events.is_empty()).map(text));
    }
    assert_eq!(
        said,
        [
            "3 @6 +b=live",
            // One revision only: what was left of the poll's bound.
            "0 @6 +a=0",
            "1 @6 +a=1 +a=2",
            "2 @6 +a=0",
            "0 @6 +a=1 +a=2",
            "1 @6 +a=3",
            "2 @6 +a=1 +a=2",
            "0 @6 +a=3",
            "2 @6 +a=3"
        ]
    );
}

#[test]
fn watches_that_lag_at_the_same_place_share_a_read() {
    let mut world = world();
    for n in 0..10 {
        world.put("a", &n.to_string());
    }
    for _ in 0..100 {
        world.create(from(2, watch("a")));
    }
    let said = world.watches.poll(STREAM, &world.store, 1 << 20).unwrap();
    assert_eq!(said.len(), 200);
    assert_eq!(world.store.reads.get(), 1);
}

#[test]
fn a_fault_loses_nothing() {
    let mut world = world();
    world.create(WatchRequest { previous: true, ..watch("a") });
    world.put("a", "1");
    world.put("a", "2");
    world.put("a", "3");
    world.create(from(2, watch("a")));
    world.store.is_broken = true;
    let said = world.watches.poll(STREAM, &world.store, 1 << 20).unwrap();
    assert_eq!(said.iter().map(text).collect::<Vec<_>>(), ["0 @1 created", "1 @4 created", "0 @2 +a=1"]);
    world.watches.poll(STREAM, &world.store, 1 << 20).unwrap_err();
    world.store.is_broken = false;
    world.expect(&["0 @3 +a=2(1)", "1 @4 +a=1 +a=2 +a=3", "0 @4 +a=3(2)"]);
}

#[test]
fn numbers_are_limited_and_each_limit_says_so() {
    let limits = Limits { streams_max: 2, stream_watches_max: 2, stream_answers_max: 4, ..Limits::default() };
    let mut world = World::new(limits);
    world.watches.open(StreamId(8)).unwrap();
    assert_eq!(world.watches.open(StreamId(9)), Err(Refusal::TooManyStreams));
    for _ in 0..3 {
        world.create(watch("a"));
    }
    assert!(world.watches.accepts(STREAM));
    world.watches.cancel(STREAM, 0).unwrap();
    assert!(!world.watches.accepts(STREAM));
    assert_eq!(world.watches.create(STREAM, watch("a"), &world.store), Err(Refusal::Backlog));
    assert_eq!(world.watches.cancel(STREAM, 1), Err(Refusal::Backlog));
    world.expect(&[
        "0 @1 created",
        "1 @1 created",
        "-1 @1 created canceled: too many watches on this stream, 2 are allowed",
        "0 @1 canceled",
    ]);
    assert!(world.watches.accepts(STREAM));
    world.watches.close(StreamId(8));
    world.watches.close(StreamId(8));
    assert_eq!(world.watches.cancel(StreamId(8), 0), Err(Refusal::StreamNotFound));
    world.watches.open(StreamId(9)).unwrap();
}

#[test]
fn a_closed_stream_leaves_nothing_behind() {
    let mut world = World::new(Limits { progress_ticks: 1, ..Limits::default() });
    world.create(WatchRequest { progress: true, ..prefix("a") });
    world.create(from(1, watch("a")));
    world.put("a", "1");
    world.watches.close(STREAM);
    assert_eq!(world.watches.take_ready(), []);
    assert_eq!(world.watches.counts(), Counts::default());
    world.put("a", "2");
    world.watches.tick();
    assert_eq!(world.watches.poll(STREAM, &world.store, 1000).unwrap(), []);
    let mut found = 0;
    world.watches.index.covering(b"a", |_| found += 1);
    assert_eq!(found, 0);
}

#[test]
fn a_stream_is_ready_once_until_it_is_polled() {
    let mut world = world();
    world.create(watch("a"));
    assert_eq!(world.watches.take_ready(), [STREAM]);
    world.put("a", "1");
    assert_eq!(world.watches.take_ready(), []);
    assert_eq!(world.watches.poll(STREAM, &world.store, 1).unwrap().len(), 1);
    assert_eq!(world.watches.take_ready(), [STREAM]);
    assert_eq!(world.watches.poll(STREAM, &world.store, 1).unwrap().len(), 1);
    assert_eq!(world.watches.take_ready(), []);
}

#[test]
fn a_thousand_watches_of_one_prefix_share_the_event() {
    let mut world = world();
    for _ in 0..1000 {
        world.create(prefix("a"));
    }
    let value = "v".repeat(10_000);
    world.put("a", &value);
    assert!(world.watches.counts().queue_bytes < 10_000 + 1000 * 20);
    let mut count = 0;
    while world.watches.take_ready().contains(&STREAM) {
        count += world.watches.poll(STREAM, &world.store, 50_000).unwrap().len();
    }
    assert_eq!(count, 2000);
}

fn modified(event: &Event) -> Revision {
    match event {
        Event::Put(pair) => pair.modified,
        Event::Delete { modified, .. } => *modified,
    }
}

/// While a snapshot takes the state's place there is nothing to read. A watch that is behind, or that wants
/// previous pairs, was told then that all was compacted, or that there was none before. Nothing was
/// forgotten; it waits, and goes on when the state is there again.
#[test]
fn a_watch_waits_while_a_snapshot_is_installed_and_misses_nothing() {
    let mut world = World::new(Limits::default());
    world.put("k", "1");
    world.create(WatchRequest { previous: true, ..WatchRequest::new(KeyRange::all()) });
    world.create(WatchRequest { start_revision: Some(1), ..WatchRequest::new(KeyRange::all()) });
    world.put("k", "2");
    world.store.is_unavailable = true;
    world.expect(&["0 @2 created", "1 @2 created"]);
    assert_eq!(world.watches.take_ready(), [], "polling again would find nothing");
    world.store.put("k", "3");
    world.store.is_unavailable = false;
    world.watches.restored(Revision(4));
    world.expect(&["0 @4 +k=2(1) +k=3(2)", "1 @4 +k=1 +k=2 +k=3"]);
}

/// A stream of the slots that the keys a/x and a/y are in, and not b/x.
fn part_of_a() -> Part {
    let rules = Arc::new(Rules::default());
    let slot = rules.slot(b"a/x").0;
    assert!(rules.slot(b"b/x").0 != slot);
    Part { rules, slots: Arc::new(SlotSet::from_ranges(std::iter::once(slot..slot + 1))) }
}

#[test]
fn a_stream_of_some_slots_is_told_of_those_until_they_are_lost() {
    let mut store = Store::default();
    let mut watches = Watches::new(Limits::default(), store.revision());
    let part = part_of_a();
    watches.open_part(StreamId(1), part.clone()).unwrap();
    watches.create(StreamId(1), WatchRequest::new(KeyRange::all()), &store).unwrap();
    let changes = store.write(&[(b"a/x", Some(b"1")), (b"b/x", Some(b"2")), (b"a/y", Some(b"3"))]);
    watches.publish(&changes);
    watches.publish(&store.put("b/x", "4"));
    let said = watches.poll(StreamId(1), &store, usize::MAX).unwrap();
    let told: Vec<_> = said
        .iter()
        .flat_map(|said| said.events.iter())
        .map(|told| (&told.event.key()[..], told.sub))
        .collect();
    assert_eq!(told, [(&b"a/x"[..], 0), (b"a/y", 2)]);
    // Whoever holds these and others.
    watches.hold(&SlotSet::all());
    assert!(!watches.is_lost(StreamId(1)));
    watches.hold(&SlotSet::all().subtract(&part.slots));
    assert!(watches.is_lost(StreamId(1)));
    assert_eq!(watches.take_ready(), [StreamId(1)]);
    watches.publish(&store.put("a/x", "5"));
    assert_eq!(watches.poll(StreamId(1), &store, usize::MAX).unwrap(), []);
}

#[test]
fn who_awaits_a_revision_is_told_when_everything_before_it_was() {
    let mut store = Store::default();
    let mut watches = Watches::new(Limits::default(), store.revision());
    watches.open_part(StreamId(1), part_of_a()).unwrap();
    watches.create(StreamId(1), WatchRequest::new(KeyRange::all()), &store).unwrap();
    // One that waits for a revision to come has nothing to be told before.
    let later = WatchRequest { start_revision: Some(1_000), ..WatchRequest::new(KeyRange::all()) };
    watches.create(StreamId(1), later, &store).unwrap();
    let poll =
        |watches: &mut Watches, store: &Store, bytes: usize| -> Vec<(WatchResponseKind, Option<Revision>)> {
            let said = watches.poll(StreamId(1), store, bytes).unwrap();
            said.into_iter().map(|said| (said.kind, said.header_revision)).collect()
        };
    assert_eq!(poll(&mut watches, &store, usize::MAX).len(), 2);
    watches.await_passed(StreamId(1), Revision(3));
    assert_eq!(watches.take_ready(), []);
    watches.publish(&store.put("b/x", "1"));
    assert_eq!(watches.take_ready(), []);
    watches.publish(&store.put("a/x", "2"));
    watches.publish(&store.put("a/x", "3"));
    assert_eq!(watches.take_ready(), [StreamId(1)]);
    // The first event, and that it is all up to its revision; the rest is still queued.
    let (events, progress) = (WatchResponseKind::Events, WatchResponseKind::Progress);
    let all = poll(&mut watches, &store, 1);
    assert_eq!(all, [(events.clone(), Some(Revision(3))), (progress.clone(), Some(Revision(3)))]);
    watches.await_passed(StreamId(1), Revision(9));
    watches.await_passed(StreamId(1), Revision(1));
    assert_eq!(
        poll(&mut watches, &store, usize::MAX),
        [(events, Some(Revision(4))), (progress.clone(), Some(Revision(4)))]
    );
    // What lags has not been told.
    watches.await_passed(StreamId(1), Revision(4));
    let past = WatchRequest { start_revision: Some(2), ..WatchRequest::new(KeyRange::all()) };
    watches.create(StreamId(1), past, &store).unwrap();
    let kinds: Vec<_> = poll(&mut watches, &store, usize::MAX).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.last(), Some(&progress));
    assert_eq!(kinds[..2], [WatchResponseKind::Created, WatchResponseKind::Events]);
    // Nobody awaits anything any more.
    watches.advance(Revision(20));
    assert_eq!(watches.take_ready(), []);
}
