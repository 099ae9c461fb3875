//! Histories that are right, and the same with something changed: each must be found.

use super::*;
use quorate_types::reply::{DeleteAnswer, PutAnswer, RangeAnswer, TxnAnswer};
use quorate_types::request::{DeleteRequest, PutLease, PutRequest, RangeRequest, TxnRequest};
use quorate_types::{KeyRange, KeyValue};

fn pair(key: &str, value: &str, create: u64, modified: u64, version: u64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create: Revision(create),
        modified: Revision(modified),
        version,
        lease: None,
    }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: Some(value.to_owned().into()),
        lease: PutLease::Detach,
        previous: false,
    }
}

fn call(request: Request, asked: u64, answered: u64, outcome: Outcome) -> Call {
    Call { client: 1, node: "n1".into(), request, asked, answered, outcome }
}

fn wrote(key: &str, value: &str, (asked, answered): (u64, u64), revision: u64) -> Call {
    let outcome = Outcome::Reply(Revision(revision), Answer::Put(PutAnswer::default()));
    call(Request::Put(put(key, value)), asked, answered, outcome)
}

fn get(key: &str) -> RangeRequest {
    RangeRequest::new(KeyRange::Single(key.to_owned().into()))
}

fn read(key: &str, (asked, answered): (u64, u64), revision: u64, found: Option<KeyValue>) -> Call {
    let count = found.iter().count() as u64;
    let answer = RangeAnswer { pairs: found.into_iter().collect(), more: false, count };
    let outcome = Outcome::Reply(Revision(revision), Answer::Range(answer));
    call(Request::Range(get(key)), asked, answered, outcome)
}

/// a is written, written again by somebody who never heard of it, and deleted.
fn good() -> (History, Vec<Call>) {
    let deleted = Event::Delete { key: "a".into(), modified: Revision(5) };
    let history = History::from([
        (Revision(2), vec![Event::Put(pair("a", "1", 2, 2, 1))]),
        (Revision(4), vec![Event::Put(pair("a", "2", 2, 4, 2))]),
        (Revision(5), vec![deleted]),
    ]);
    let delete = DeleteRequest { range: KeyRange::Single("a".into()), previous: false };
    let gone = Answer::DeleteRange(DeleteAnswer { deleted: 1, previous: Vec::new() });
    let calls = vec![
        wrote("a", "1", (10, 20), 2),
        read("a", (30, 40), 2, Some(pair("a", "1", 2, 2, 1))),
        call(Request::Put(put("a", "2")), 50, 60, Outcome::Unknown("no answer".into())),
        call(Request::Put(put("a", "3")), 50, 60, Outcome::Unknown("no answer".into())),
        call(Request::Put(put("a", "4")), 50, 60, Outcome::Refused("full".into())),
        read("a", (70, 80), 3, Some(pair("a", "1", 2, 2, 1))),
        read("a", (90, 100), 4, Some(pair("a", "2", 2, 4, 2))),
        call(Request::DeleteRange(delete), 110, 120, Outcome::Reply(Revision(5), gone)),
        read("a", (130, 140), 5, None),
    ];
    (history, calls)
}

fn found(history: &History, calls: &[Call]) -> Findings {
    check(history, calls, &floors(calls, Vec::new()))
}

/// After the change exactly this must be found.
fn caught(change: impl FnOnce(&mut History, &mut Vec<Call>), words: &str) {
    let (mut history, mut calls) = good();
    change(&mut history, &mut calls);
    let violations = found(&history, &calls).violations;
    assert!(violations.iter().any(|violation| violation.what.contains(words)), "{words}: {violations:?}");
}

#[test]
fn what_is_right_passes() {
    let (history, calls) = good();
    let findings = found(&history, &calls);
    assert_eq!(findings.violations, []);
    assert_eq!(findings.carried_out, 1);
}

#[test]
fn a_serializable_read_may_be_old_but_not_wrong() {
    let (history, mut calls) = good();
    let mut old = read("a", (200, 210), 2, Some(pair("a", "1", 2, 2, 1)));
    let Request::Range(range) = &mut old.request else { panic!("it is a read") };
    range.serializable = true;
    calls.push(old.clone());
    assert_eq!(found(&history, &calls).violations, []);
    old.outcome = read("a", (200, 210), 2, Some(pair("a", "2", 2, 4, 2))).outcome;
    calls.push(old);
    assert_eq!(found(&history, &calls).violations.len(), 1);
}

#[test]
fn what_is_wrong_is_found() {
    caught(|_, calls| calls[8] = read("a", (130, 140), 4, Some(pair("a", "2", 2, 4, 2))), "after 5 had been");
    caught(|_, calls| calls[8] = read("a", (130, 140), 5, Some(pair("a", "2", 2, 4, 2))), "should have been");
    caught(|_, calls| calls.push(wrote("b", "9", (15, 25), 3)), "lost");
    caught(|_, calls| calls.push(wrote("b", "9", (15, 25), 2)), "two calls made revision 2");
}

#[test]
fn a_revision_needs_a_writer_and_only_one() {
    caught(|_, calls| drop(calls.remove(2)), "nobody has written revision 4");
    caught(
        |history, _| drop(history.insert(Revision(6), vec![Event::Put(pair("a", "4", 6, 6, 1))])),
        "refused",
    );
    caught(
        |history, _| drop(history.insert(Revision(6), vec![Event::Put(pair("a", "2", 6, 6, 1))])),
        "again",
    );
    caught(
        |history, _| drop(history.insert(Revision(6), vec![Event::Put(pair("a", "1", 6, 6, 1))])),
        "acknowledged was carried out",
    );
    caught(|_, calls| drop(calls.remove(7)), "nobody has deleted a at revision 5");
    // It was asked when revision 5 had been told of.
    caught(|_, calls| (calls[2].asked, calls[2].answered) = (125, 128), "cannot have made revision 4");
    caught(
        |history, _| drop(history.insert(Revision(4), vec![Event::Put(pair("a", "2", 2, 4, 3))])),
        "revision 4",
    );
}

#[test]
fn half_a_transaction_is_found() {
    let txn = TxnRequest {
        compares: Vec::new(),
        success: vec![Operation::Put(put("a", "1")), Operation::Put(put("b", "1"))],
        failure: Vec::new(),
    };
    let responses = vec![
        quorate_types::reply::OperationAnswer::Put(Revision(2), PutAnswer::default()),
        quorate_types::reply::OperationAnswer::Put(Revision(2), PutAnswer::default()),
    ];
    let answer = Answer::Txn(TxnAnswer { succeeded: true, responses });
    let calls = [call(Request::Txn(txn), 10, 20, Outcome::Reply(Revision(2), answer))];
    let both = vec![Event::Put(pair("a", "1", 2, 2, 1)), Event::Put(pair("b", "1", 2, 2, 1))];
    let whole = History::from([(Revision(2), both.clone())]);
    assert_eq!(found(&whole, &calls).violations, []);
    let half = History::from([(Revision(2), both[..1].to_vec())]);
    assert_eq!(found(&half, &calls).violations.len(), 1);
    let unknown = [Call { outcome: Outcome::Unknown("no answer".into()), ..calls[0].clone() }];
    assert_eq!(found(&whole, &unknown).violations, []);
    assert_eq!(found(&half, &unknown).violations.len(), 1);
}

#[test]
fn what_goes_with_its_lease_needs_no_call() {
    let lease = LeaseId::new(7).unwrap();
    let leased = KeyValue { lease: Some(lease), ..pair("a", "1", 2, 2, 1) };
    let request = PutRequest { lease: PutLease::Attach(lease), ..put("a", "1") };
    let outcome = Outcome::Reply(Revision(2), Answer::Put(PutAnswer::default()));
    let calls = [call(Request::Put(request), 10, 20, outcome)];
    let deleted = Event::Delete { key: "a".into(), modified: Revision(3) };
    let history = History::from([(Revision(2), vec![Event::Put(leased)]), (Revision(3), vec![deleted])]);
    let findings = found(&history, &calls);
    assert_eq!((findings.violations, findings.ends), (vec![], BTreeMap::from([(lease, Revision(3))])));
}
