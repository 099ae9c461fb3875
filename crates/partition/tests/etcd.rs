//! The traps of etcd's semantics that a key space can fall into, one test each, named for the rule.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod support;

use quorate_types::reply::{OperationAnswer, RangeAnswer, TxnAnswer};
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    RevisionFilter, SortOrder, SortTarget, TxnRequest,
};
use quorate_types::{Answer, Event, KeyRange, Rejection, Request, Revision};
use support::{Pair, delete, lease, limits, put, put_op, range, single};

fn compact(revision: i64) -> Request {
    Request::Compact { revision, physical: false }
}

fn ranged(pair: &mut Pair, request: &RangeRequest) -> (Revision, RangeAnswer) {
    match pair.evaluate(&Request::Range(request.clone())).unwrap() {
        (revision, Answer::Range(answer)) => (revision, answer),
        other => panic!("{other:?}"),
    }
}

/// The keys found, with `more` and `count`.
fn found(pair: &mut Pair, request: &RangeRequest) -> String {
    let (_, answer) = ranged(pair, request);
    let keys: Vec<String> =
        answer.pairs.iter().map(|pair| String::from_utf8_lossy(&pair.key).into_owned()).collect();
    format!("{} more={} count={}", keys.join(" "), answer.more, answer.count)
}

fn txn(compares: Vec<Compare>, success: Vec<Operation>, failure: Vec<Operation>) -> TxnRequest {
    TxnRequest { compares, success, failure }
}

fn compare(key: &'static str, result: CompareResult, target: CompareTarget) -> Compare {
    Compare { range: single(key), result, target }
}

fn answered(pair: &mut Pair, request: TxnRequest) -> (Revision, TxnAnswer) {
    match pair.evaluate(&Request::Txn(request)).unwrap() {
        (revision, Answer::Txn(answer)) => (revision, answer),
        other => panic!("{other:?}"),
    }
}

fn revision_of(pair: &mut Pair, request: &Request) -> u64 {
    pair.evaluate(request).unwrap().0.0
}

#[test]
fn trap_1_revisions_start_at_1_and_compaction_at_minus_1() {
    let mut pair = Pair::new();
    assert_eq!(ranged(&mut pair, &range(KeyRange::all())).0, Revision(1));
    // Zero is accepted once on a fresh store; negatives never.
    assert!(matches!(pair.evaluate(&compact(-1)), Err(Rejection::Compacted { asked: -1, .. })));
    assert_eq!(pair.evaluate(&compact(0)), Ok((Revision(1), Answer::Compact)));
    assert!(matches!(pair.evaluate(&compact(0)), Err(Rejection::Compacted { asked: 0, .. })));
    assert_eq!(revision_of(&mut pair, &put("a", "1")), 2);
    assert_eq!(revision_of(&mut pair, &put("a", "2")), 3);
    let refused = pair.evaluate(&compact(4));
    assert_eq!(refused, Err(Rejection::FutureRevision { asked: 4, newest: Revision(3) }));
    // Compacting at the current revision is allowed, and reading at it too.
    assert_eq!(revision_of(&mut pair, &compact(3)), 3);
    let at = |revision| RangeRequest { revision: Some(revision), ..range(single("a")) };
    assert_eq!(found(&mut pair, &at(3)), "a more=false count=1");
    let refused = pair.evaluate(&Request::Range(at(2)));
    assert_eq!(refused, Err(Rejection::Compacted { asked: 2, oldest: Revision(3) }));
    let refused = pair.evaluate(&Request::Range(at(4)));
    assert_eq!(refused, Err(Rejection::FutureRevision { asked: 4, newest: Revision(3) }));
    assert_eq!(found(&mut pair, &at(-7)), "a more=false count=1");
    pair.apply_all();
    assert_eq!(pair.follower.compacted(), Some(Revision(3)));
}

#[test]
fn trap_2_deleting_nothing_draws_no_revision_and_rewriting_the_same_value_does() {
    let mut pair = Pair::new();
    assert_eq!(revision_of(&mut pair, &delete(KeyRange::all())), 1);
    assert_eq!(revision_of(&mut pair, &put("a", "1")), 2);
    assert_eq!(revision_of(&mut pair, &put("a", "1")), 3);
    assert_eq!(revision_of(&mut pair, &delete(single("b"))), 3);
    assert_eq!(revision_of(&mut pair, &Request::Txn(txn(vec![], vec![], vec![]))), 3);
    let failed = compare("a", CompareResult::Equal, CompareTarget::Version(9));
    let request = txn(vec![failed], vec![Operation::Put(put_op("a", "2"))], vec![]);
    assert_eq!(revision_of(&mut pair, &Request::Txn(request)), 3);
    assert_eq!(revision_of(&mut pair, &Request::LeaseGrant { lease: lease(1), ttl_seconds: 5 }), 3);
    // The leases's end draws none either, without keys.
    assert_eq!(revision_of(&mut pair, &Request::LeaseRevoke { lease: lease(1) }), 3);
    assert_eq!(revision_of(&mut pair, &delete(KeyRange::all())), 4);
}

#[test]
fn trap_3_a_ranges_header_is_the_current_revision_whatever_was_asked_for() {
    let mut pair = Pair::new();
    pair.evaluate(&put("a", "1")).unwrap();
    pair.evaluate(&put("a", "2")).unwrap();
    let (revision, answer) = ranged(&mut pair, &RangeRequest { revision: Some(2), ..range(single("a")) });
    assert_eq!((revision, &answer.pairs[0].value[..]), (Revision(3), &b"1"[..]));
}

fn five(pair: &mut Pair) {
    // By key a to e; by value e to a; b and d are the newest.
    for (key, value) in [("a", "5"), ("c", "3"), ("e", "1"), ("b", "4"), ("d", "2")] {
        pair.evaluate(&put(key, value)).unwrap();
    }
}

#[test]
fn trap_4_count_ignores_limit_and_filters_and_more_does_not() {
    let mut pair = Pair::new();
    five(&mut pair);
    let all = range(KeyRange::all());
    let newer = RevisionFilter { modified_min: Some(Revision(4)), ..RevisionFilter::default() };
    for (request, expected) in [
        (RangeRequest { limit: Some(2), ..all.clone() }, "a b more=true count=5"),
        (RangeRequest { limit: Some(5), ..all.clone() }, "a b c d e more=false count=5"),
        (RangeRequest { filter: newer, ..all.clone() }, "b d e more=false count=5"),
        (RangeRequest { filter: newer, limit: Some(3), ..all.clone() }, "b d e more=false count=5"),
        (RangeRequest { filter: newer, limit: Some(2), ..all.clone() }, "b d more=true count=5"),
        (
            RangeRequest { count_only: true, limit: Some(2), filter: newer, ..all.clone() },
            " more=false count=5",
        ),
        (range(KeyRange::Between("d".into(), "b".into())), " more=false count=0"),
    ] {
        assert_eq!(found(&mut pair, &request), expected, "{request:?}");
    }
}

#[test]
fn trap_5_without_an_order_the_limit_comes_before_the_sort() {
    let mut pair = Pair::new();
    five(&mut pair);
    let by_value = RangeRequest { sort_target: SortTarget::Value, limit: Some(2), ..range(KeyRange::all()) };
    // The first three by key are a, b and c; sorted by value c, b, a; then cut.
    assert_eq!(found(&mut pair, &by_value), "c b more=true count=5");
    let ascending = RangeRequest { sort_order: Some(SortOrder::Ascending), ..by_value.clone() };
    assert_eq!(found(&mut pair, &ascending), "e d more=true count=5");
    let descending = RangeRequest { sort_order: Some(SortOrder::Descending), ..by_value };
    assert_eq!(found(&mut pair, &descending), "a b more=true count=5");
}

#[test]
fn trap_6_comparing_the_value_of_a_missing_key_is_false_for_every_result() {
    let mut pair = Pair::new();
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let mut holds = |compare| answered(&mut pair, txn(vec![compare], vec![], vec![])).1.succeeded;
    for result in [Equal, Greater, Less, NotEqual] {
        for value in ["", "x"] {
            assert!(!holds(compare("a", result, CompareTarget::Value(value.into()))), "{result:?} {value:?}");
        }
        let zero = [
            CompareTarget::Version(0),
            CompareTarget::Create(0),
            CompareTarget::Modified(0),
            CompareTarget::Lease(0),
        ];
        for target in zero {
            let expected = result == Equal;
            assert_eq!(holds(compare("a", result, target.clone())), expected, "{result:?} {target:?}");
            // A range without keys is a missing key too.
            let over_nothing = Compare { range: KeyRange::prefix("a"), result, target };
            assert_eq!(holds(over_nothing), expected);
        }
    }
}

#[test]
fn a_range_compare_holds_if_every_key_satisfies_it() {
    let mut pair = Pair::new();
    five(&mut pair);
    let mut holds = |range, value: &'static str| {
        let compare =
            Compare { range, result: CompareResult::Greater, target: CompareTarget::Value(value.into()) };
        answered(&mut pair, txn(vec![compare], vec![], vec![])).1.succeeded
    };
    assert!(holds(KeyRange::all(), "0"));
    assert!(!holds(KeyRange::all(), "1"));
    assert!(holds(KeyRange::Between("a".into(), "d".into()), "2"));
}

#[test]
fn trap_7_nested_compares_see_the_state_before_the_transaction() {
    let mut pair = Pair::new();
    let missing = compare("a", CompareResult::Equal, CompareTarget::Version(0));
    let inner = txn(vec![missing], vec![Operation::Put(put_op("b", "missing"))], vec![]);
    let outer = txn(
        vec![],
        vec![
            Operation::Put(put_op("a", "1")),
            Operation::Txn(inner),
            Operation::Range(range(KeyRange::all())),
        ],
        vec![],
    );
    let (revision, answer) = answered(&mut pair, outer);
    assert_eq!(revision, Revision(2));
    let [OperationAnswer::Put(first, _), OperationAnswer::Txn(inner), OperationAnswer::Range(_, all)] =
        &answer.responses[..]
    else {
        panic!("{answer:?}");
    };
    assert_eq!((*first, inner.succeeded, all.count), (Revision(2), true, 2));
    // Both changes are of one revision, in order of execution.
    pair.apply_all();
    let changes = pair.follower.reader().changes(Revision(2), usize::MAX).unwrap().changes;
    assert_eq!(changes.len(), 1);
    let keys: Vec<&[u8]> = changes[0].events.iter().map(|event| &event.key()[..]).collect();
    assert_eq!(keys, [b"a", b"b"]);
}

#[test]
fn operations_see_earlier_ones_and_their_headers_tell_from_when_on() {
    let mut pair = Pair::new();
    pair.evaluate(&put("a", "1")).unwrap();
    let read = || Operation::Range(range(KeyRange::all()));
    let pinned = Operation::Range(RangeRequest { revision: Some(2), ..range(KeyRange::all()) });
    let gone = DeleteRequest { range: single("a"), previous: true };
    let nothing = DeleteRequest { range: single("x"), previous: true };
    let request = txn(
        vec![],
        vec![
            read(),
            Operation::DeleteRange(nothing),
            Operation::Put(put_op("b", "2")),
            read(),
            Operation::DeleteRange(gone),
            read(),
            pinned,
        ],
        vec![],
    );
    let (revision, answer) = answered(&mut pair, request);
    let seen: Vec<(u64, u64)> = answer
        .responses
        .iter()
        .map(|response| match response {
            OperationAnswer::Range(revision, answer) => (revision.0, answer.count),
            OperationAnswer::Put(revision, _) => (revision.0, 0),
            OperationAnswer::DeleteRange(revision, answer) => (revision.0, answer.deleted),
            OperationAnswer::Txn(_) => unreachable!(),
        })
        .collect();
    assert_eq!(seen, [(2, 1), (2, 0), (3, 0), (3, 2), (3, 1), (3, 1), (3, 1)]);
    assert_eq!(revision, Revision(3));
}

#[test]
fn the_taken_path_is_checked_before_anything_runs_and_the_other_is_not() {
    let mut pair = Pair::new();
    pair.evaluate(&put("a", "1")).unwrap();
    let keep = |key| Operation::Put(PutRequest { value: None, ..put_op(key, "") });
    let leased = Operation::Put(PutRequest { lease: PutLease::Attach(lease(7)), ..put_op("a", "2") });
    let future = Operation::Range(RangeRequest { revision: Some(3), ..range(single("a")) });
    let write = || Operation::Put(put_op("b", "2"));
    for (operation, expected) in [
        (keep("missing"), Rejection::KeyNotFound),
        // A put that creates a key does not satisfy a later one that keeps its value.
        (keep("b"), Rejection::KeyNotFound),
        (leased, Rejection::LeaseNotFound(lease(7))),
        (future, Rejection::FutureRevision { asked: 3, newest: Revision(2) }),
    ] {
        let request = txn(vec![], vec![write(), operation.clone()], vec![]);
        assert_eq!(pair.evaluate(&Request::Txn(request)), Err(expected.clone()), "{operation:?}");
        let nested = Operation::Txn(txn(vec![], vec![operation.clone()], vec![]));
        let request = txn(vec![], vec![write(), nested], vec![]);
        assert_eq!(pair.evaluate(&Request::Txn(request)), Err(expected));
        let request = txn(vec![], vec![], vec![operation]);
        assert_eq!(pair.evaluate(&Request::Txn(request)).unwrap().0, Revision(2));
    }
    // Nothing was drawn or kept by what was refused.
    assert_eq!(found(&mut pair, &range(KeyRange::all())), "a more=false count=1");
    assert_eq!(revision_of(&mut pair, &put("b", "1")), 3);
}

#[test]
fn within_a_transaction_a_negative_revision_is_compacted() {
    let mut pair = Pair::new();
    let at = |revision| {
        let range = RangeRequest { revision: Some(revision), ..range(KeyRange::all()) };
        Request::Txn(txn(vec![], vec![Operation::Range(range)], vec![]))
    };
    assert!(pair.evaluate(&at(-1)).is_ok());
    pair.evaluate(&put("a", "1")).unwrap();
    pair.evaluate(&compact(2)).unwrap();
    for asked in [-1, 1] {
        assert_eq!(pair.evaluate(&at(asked)), Err(Rejection::Compacted { asked, oldest: Revision(2) }));
    }
    assert!(pair.evaluate(&at(0)).is_ok());
}

#[test]
fn a_delete_and_a_put_of_one_key_in_one_transaction_run_in_order() {
    // etcd's duplicate check does not see "\0" as open-ended, so this pair of operations gets through.
    let mut pair = Pair::new();
    pair.evaluate(&put("b", "1")).unwrap();
    let all = DeleteRequest { range: KeyRange::From("a".into()), previous: false };
    let request = txn(vec![], vec![Operation::DeleteRange(all), Operation::Put(put_op("b", "2"))], vec![]);
    answered(&mut pair, request);
    let (_, answer) = ranged(&mut pair, &range(single("b")));
    let b = &answer.pairs[0];
    assert_eq!((b.create, b.modified, b.version, &b.value[..]), (Revision(3), Revision(3), 1, &b"2"[..]));
    pair.apply_all();
    pair.evaluate(&compact(3)).unwrap();
    pair.apply_all();
    while !support::compact_step(&pair.leader, 1) {}
    // Both changes are still there for who watches from the compacted revision.
    let events = &pair.leader.reader().changes(Revision(3), usize::MAX).unwrap().changes[0].events;
    assert!(matches!(&events[..], [Event::Delete { .. }, Event::Put(_)]), "{events:?}");
}

#[test]
fn trap_10_a_put_without_lease_detaches_and_one_that_keeps_does_not() {
    let mut pair = Pair::new();
    for id in [1, 2] {
        pair.evaluate(&Request::LeaseGrant { lease: lease(id), ttl_seconds: 60 }).unwrap();
    }
    let put_with = |lease| Request::Put(PutRequest { lease, ..put_op("a", "1") });
    let mut leased_to = |request: &Request| {
        pair.evaluate(request).unwrap();
        pair.apply_all();
        let keys = |id| pair.follower.time_to_live(lease(id), pair.now, true).unwrap().keys.len();
        let found = [keys(1), keys(2)];
        let reader = pair.follower.reader();
        let (_, answer) = reader.range(&range(single("a")), reader.revision()).unwrap();
        (answer.pairs.first().and_then(|pair| pair.lease).map(|lease| lease.get()), found)
    };
    assert_eq!(leased_to(&put_with(PutLease::Attach(lease(1)))), (Some(1), [1, 0]));
    assert_eq!(leased_to(&put_with(PutLease::Keep)), (Some(1), [1, 0]));
    assert_eq!(leased_to(&put_with(PutLease::Attach(lease(2)))), (Some(2), [0, 1]));
    assert_eq!(leased_to(&put_with(PutLease::Detach)), (None, [0, 0]));
    assert_eq!(leased_to(&put_with(PutLease::Keep)), (None, [0, 0]));
    assert_eq!(leased_to(&put_with(PutLease::Attach(lease(2)))), (Some(2), [0, 1]));
    assert_eq!(leased_to(&delete(single("a"))), (None, [0, 0]));
}

#[test]
fn keys_without_values_carry_no_lease_unless_sorted_by_value() {
    let mut pair = Pair::new();
    pair.evaluate(&Request::LeaseGrant { lease: lease(1), ttl_seconds: 60 }).unwrap();
    let put = PutRequest { lease: PutLease::Attach(lease(1)), ..put_op("a", "1") };
    pair.evaluate(&Request::Put(put)).unwrap();
    let keys_only = RangeRequest { keys_only: true, ..range(single("a")) };
    let (_, answer) = ranged(&mut pair, &keys_only);
    assert_eq!((answer.pairs[0].value.len(), answer.pairs[0].lease), (0, None));
    let by_value = RangeRequest { sort_target: SortTarget::Value, ..keys_only };
    let (_, answer) = ranged(&mut pair, &by_value);
    assert_eq!((answer.pairs[0].value.len(), answer.pairs[0].lease), (0, Some(lease(1))));
}

#[test]
fn previous_pairs_are_whole_and_absent_when_there_was_none() {
    let mut pair = Pair::new();
    let put = |value| Request::Put(PutRequest { previous: true, ..put_op("a", value) });
    let Answer::Put(first) = pair.evaluate(&put("1")).unwrap().1 else { panic!() };
    assert_eq!(first.previous, None);
    let Answer::Put(second) = pair.evaluate(&put("2")).unwrap().1 else { panic!() };
    let before = second.previous.unwrap();
    assert_eq!((&before.value[..], before.version, before.modified), (&b"1"[..], 1, Revision(2)));
    // Deleted and created again, a key begins anew.
    pair.evaluate(&delete(single("a"))).unwrap();
    let Answer::Put(third) = pair.evaluate(&put("3")).unwrap().1 else { panic!() };
    assert_eq!(third.previous, None);
    let (_, answer) = ranged(&mut pair, &range(single("a")));
    assert_eq!((answer.pairs[0].create, answer.pairs[0].version), (Revision(5), 1));
    let all = DeleteRequest { range: KeyRange::all(), previous: true };
    let Answer::DeleteRange(gone) = pair.evaluate(&Request::DeleteRange(all)).unwrap().1 else { panic!() };
    assert_eq!((gone.deleted, gone.previous), (1, answer.pairs));
}

#[test]
fn trap_12_a_time_to_live_is_raised_to_the_minimum_and_the_answer_tells() {
    let mut pair = Pair::new();
    for (id, asked, granted) in
        [(1, -5, 2), (2, 0, 2), (3, 1, 2), (4, 3, 3), (-5, 9_000_000_000, 9_000_000_000)]
    {
        let grant = Request::LeaseGrant { lease: lease(id), ttl_seconds: asked };
        let expected = Answer::LeaseGrant { lease: lease(id), ttl_seconds: granted };
        assert_eq!(pair.evaluate(&grant).unwrap().1, expected);
        assert_eq!(pair.evaluate(&grant), Err(Rejection::LeaseExists(lease(id))));
    }
    let grant = Request::LeaseGrant { lease: lease(9), ttl_seconds: 9_000_000_001 };
    assert_eq!(pair.evaluate(&grant), Err(Rejection::LeaseTtlTooLarge));
}

#[test]
fn a_revoked_leases_keys_go_in_one_revision_in_ascending_order() {
    let mut pair = Pair::new();
    let revoke = Request::LeaseRevoke { lease: lease(1) };
    assert_eq!(pair.evaluate(&revoke), Err(Rejection::LeaseNotFound(lease(1))));
    pair.evaluate(&Request::LeaseGrant { lease: lease(1), ttl_seconds: 60 }).unwrap();
    for key in ["c", "a", "b", "gone", "moved"] {
        let put = PutRequest { lease: PutLease::Attach(lease(1)), ..put_op(key, "1") };
        pair.evaluate(&Request::Put(put)).unwrap();
        // Some attachments are applied when the lease is revoked, and some only pending.
        if key == "a" {
            pair.apply_all();
        }
    }
    pair.evaluate(&put("moved", "2")).unwrap();
    pair.evaluate(&delete(single("gone"))).unwrap();
    assert_eq!(pair.evaluate(&revoke), Ok((Revision(9), Answer::LeaseRevoke)));
    assert_eq!(pair.evaluate(&revoke), Err(Rejection::LeaseNotFound(lease(1))));
    assert_eq!(found(&mut pair, &range(KeyRange::all())), "moved more=false count=1");
    pair.apply_all();
    let changes = pair.follower.reader().changes(Revision(9), usize::MAX).unwrap().changes;
    let keys: Vec<&[u8]> = changes[0].events.iter().map(|event| &event.key()[..]).collect();
    assert_eq!((changes.len(), keys), (1, vec![&b"a"[..], b"b", b"c"]));
    assert!(pair.follower.leases().is_empty());
}

#[test]
fn a_tombstone_at_the_compacted_revision_is_still_seen_from_there() {
    let mut pair = Pair::new();
    for request in [put("a", "1"), delete(single("a")), compact(3)] {
        pair.evaluate(&request).unwrap();
    }
    pair.apply_all();
    while !support::compact_step(&pair.leader, 10) {}
    let compactor = quorate_mvcc::Compactor::open(pair.leader.engine(), support::GROUP.keyspace).unwrap();
    assert_eq!(compactor.finished(), Some(Revision(3)));
    let reader = pair.leader.reader();
    let changes = reader.changes(Revision(3), usize::MAX).unwrap().changes;
    assert_eq!(changes[0].events[..], [Event::Delete { key: "a".into(), modified: Revision(3) }]);
    // What it replaced is forgotten, whether or not the rows are gone already.
    assert_eq!(reader.previous(&"a".into(), Revision(3)).unwrap(), None);
    assert_eq!(pair.follower.reader().previous(&"a".into(), Revision(3)).unwrap(), None);
    assert!(reader.changes(Revision(2), usize::MAX).is_err());
}

#[test]
fn without_space_only_what_needs_none_goes_on() {
    let mut pair = Pair::new();
    for request in [put("a", "1"), Request::LeaseGrant { lease: lease(1), ttl_seconds: 60 }] {
        pair.evaluate(&request).unwrap();
    }
    pair.leader.set_no_space(true);
    let write = || Operation::Put(put_op("a", "2"));
    let nested = Operation::Txn(txn(vec![], vec![], vec![write()]));
    for request in [
        put("a", "2"),
        Request::LeaseGrant { lease: lease(2), ttl_seconds: 60 },
        Request::Txn(txn(vec![], vec![], vec![write()])),
        Request::Txn(txn(vec![], vec![nested], vec![])),
    ] {
        assert_eq!(pair.evaluate(&request), Err(Rejection::NoSpace), "{request:?}");
    }
    for request in [
        Request::Range(range(single("a"))),
        delete(single("a")),
        compact(2),
        Request::LeaseRevoke { lease: lease(1) },
        Request::Txn(txn(vec![], vec![Operation::Range(range(single("a")))], vec![])),
    ] {
        assert!(pair.evaluate(&request).is_ok(), "{request:?}");
    }
    pair.leader.set_no_space(false);
    assert!(pair.evaluate(&put("a", "2")).is_ok());
}

#[test]
fn a_command_over_the_limit_is_refused_and_leaves_nothing_behind() {
    use quorate_partition::{Limits, Partition};
    use quorate_types::SlotSet;
    use support::{GROUP, TestEngine};
    let mut pair = Pair::new();
    let small = Limits { entry_bytes_max: 100, ..limits() };
    pair.leader =
        Partition::open(TestEngine::default(), GROUP, SlotSet::all(), small).unwrap().ready().unwrap();
    pair.leader.lead(pair.now);
    let large = Request::Put(PutRequest { value: Some(vec![0; 100].into()), ..put_op("a", "") });
    assert!(matches!(pair.evaluate(&large), Err(Rejection::TooLarge { bytes_max: 100, .. })));
    assert_eq!(found(&mut pair, &range(KeyRange::all())), " more=false count=0");
    assert_eq!(revision_of(&mut pair, &put("a", "1")), 2);
}

#[test]
fn a_key_whose_rows_the_store_cannot_hold_is_refused() {
    let put_long = |byte: u8, bytes: usize| {
        Request::Put(PutRequest { key: vec![byte; bytes].into(), ..put_op("", "v") })
    };
    let mut pair = Pair::new();
    // A version's row has 4 bytes of the keyspace, 2 behind the key, 12 of the stamp, and a zero takes two; a state row has 8
    // of the group and up to 32 of a name.
    for (byte, longest) in [(b'k', 65_534 - 40), (0, (65_534 - 18) / 2)] {
        let refused = pair.evaluate(&put_long(byte, longest + 1));
        assert!(matches!(refused, Err(Rejection::TooLarge { bytes_max: 65_534, .. })), "{byte} {refused:?}");
        assert!(pair.evaluate(&put_long(byte, longest)).is_ok(), "{byte}");
    }
}
