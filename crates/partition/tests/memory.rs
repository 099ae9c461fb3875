//! What was read lately is answered without the store, as the store would; what was not is read there, and what is damaged there is found.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod support;

use quorate_mvcc::engine::Table;
use quorate_partition::{ReadError, Reader};
use quorate_types::request::{Operation, RangeRequest, SortOrder, TxnRequest};
use quorate_types::{KeyValue, Revision};
use support::*;

/// Spoils all versions that are stored.
fn spoil(engine: &TestEngine) {
    for (table, (row, _)) in engine.dump() {
        if table == Table::Version {
            engine.rot(table, &row);
        }
    }
}

fn get(reader: &Reader<TestEngine>, request: &RangeRequest) -> Result<Option<KeyValue>, ReadError> {
    let (_, mut answer) = reader.range(request, reader.revision())?;
    Ok(answer.pairs.pop())
}

fn reads(keys: [&'static str; 2]) -> TxnRequest {
    let success = keys.map(|key| Operation::Range(range(single(key)))).into();
    TxnRequest { compares: Vec::new(), success, failure: Vec::new() }
}

#[test]
fn a_key_that_was_read_is_answered_without_the_store_and_told_of_what_becomes_of_it() {
    let mut pair = Pair::new();
    pair.evaluate(&put("a", "1")).unwrap();
    pair.evaluate(&put("b", "2")).unwrap();
    pair.apply_all();
    let reader = pair.follower.reader();
    let wanted = get(&reader, &range(single("a"))).unwrap().unwrap();
    assert_eq!(get(&reader, &range(single("none"))).unwrap(), None);
    spoil(pair.follower.engine());
    assert_eq!(get(&reader, &range(single("a"))).unwrap().as_ref(), Some(&wanted));
    assert_eq!(get(&reader, &range(single("none"))).unwrap(), None);
    let newest = reader.revision();
    let limited =
        RangeRequest { limit: Some(1), sort_order: Some(SortOrder::Descending), ..range(single("a")) };
    assert_eq!(get(&reader, &limited).unwrap().as_ref(), Some(&wanted));
    let of_keys = get(&reader, &RangeRequest { keys_only: true, ..range(single("a")) }).unwrap().unwrap();
    assert_eq!((of_keys.value.len(), of_keys.modified), (0, wanted.modified));
    let counting = RangeRequest { count_only: true, ..range(single("a")) };
    let (_, counted) = reader.range(&counting, newest).unwrap();
    assert_eq!((counted.count, counted.pairs.len()), (1, 0));
    let mut filtering = range(single("a"));
    filtering.filter.modified_min = Some(newest);
    assert_eq!(get(&reader, &filtering).unwrap(), None);
    // As of a revision at which it was what it is, and not as of one at which it was not yet.
    let history =
        |revision: Revision| RangeRequest { revision: Some(revision.0 as i64), ..range(single("a")) };
    assert_eq!(get(&reader, &history(wanted.modified)).unwrap().as_ref(), Some(&wanted));
    assert_eq!(get(&reader, &history(wanted.modified.previous())).unwrap(), None);
    // A transaction reads it there, too.
    assert!(reader.txn(&reads(["a", "none"]), newest).is_ok());
    // What is not in memory is read from the store, and found damaged.
    let damaged = |read: Result<(), ReadError>| match read {
        Err(ReadError::Fault(fault)) => assert!(fault.is_damage(), "{fault}"),
        other => panic!("{other:?}"),
    };
    damaged(get(&reader, &range(single("b"))).map(drop));
    damaged(reader.txn(&reads(["a", "b"]), newest).map(drop));

    pair.evaluate(&put("a", "3")).unwrap();
    pair.evaluate(&put("none", "4")).unwrap();
    pair.apply_all();
    spoil(pair.follower.engine());
    let put = get(&reader, &range(single("a"))).unwrap().unwrap();
    assert_eq!((&put.value[..], put.version, put.create), (&b"3"[..], 2, wanted.create));
    assert_eq!(get(&reader, &range(single("none"))).unwrap().unwrap().value, "4");
    pair.evaluate(&delete(single("a"))).unwrap();
    pair.apply_all();
    spoil(pair.follower.engine());
    assert_eq!(get(&reader, &range(single("a"))).unwrap(), None);
    // Who was to see it is not told that it is gone.
    let (_, before) = reader.range(&range(single("none")), reader.revision().previous()).unwrap();
    assert_eq!(before.count, 1);
    let known = reader.known(&range(single("a")), reader.revision().previous());
    assert_eq!(known, None);
}

#[test]
fn a_transaction_leaves_in_memory_what_it_read() {
    let mut pair = Pair::new();
    pair.evaluate(&put("a", "1")).unwrap();
    pair.apply_all();
    let reader = pair.follower.reader();
    let first = reader.txn(&reads(["a", "none"]), reader.revision()).unwrap();
    spoil(pair.follower.engine());
    assert_eq!(reader.txn(&reads(["a", "none"]), reader.revision()).unwrap(), first);
    assert_eq!(get(&reader, &range(single("a"))).unwrap().unwrap().value, "1");
}
