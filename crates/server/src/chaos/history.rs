//! What clients asked and were told as JSON, one operation a line, for checkers that others wrote. The fields: `docs/chaos.md`.
//!
//! Lines are written one after the other from what the book holds, so nothing of it is there twice.

use super::book::Written;
use quorate_checker::calls::{Call, Outcome};
use quorate_checker::leases::Lease;
use quorate_types::reply::{DeleteAnswer, OperationAnswer, PutAnswer, TxnAnswer};
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, Operation, PutLease, PutRequest, RangeRequest, TxnRequest,
};
use quorate_types::{Answer, KeyRange, KeyValue, Request};
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// All of it, in the order in which it was asked; then leases. How many lines.
pub(super) fn write(written: &Written, to: &mut impl Write) -> io::Result<usize> {
    // Calls are noted as they end; others read them more easily as they begin.
    let mut order: Vec<u32> = (0..written.calls.len() as u32).collect();
    order.sort_unstable_by_key(|at| written.calls[*at as usize].asked);
    for at in order {
        serde_json::to_writer(&mut *to, &operation(&written.calls[at as usize]))?;
        to.write_all(b"\n")?;
    }
    for lease in &written.leases {
        serde_json::to_writer(&mut *to, &self::lease(lease))?;
        to.write_all(b"\n")?;
    }
    to.flush()?;
    Ok(written.calls.len() + written.leases.len())
}

fn text(bytes: &[u8]) -> Value {
    Value::String(String::from_utf8_lossy(bytes).into_owned())
}

fn operation(call: &Call) -> Value {
    let mut line = match &call.request {
        Request::Range(request) => read(request),
        Request::Put(request) => put(request),
        Request::DeleteRange(request) => with("delete", keys(&request.range)),
        Request::Txn(request) => txn(request),
        // Clients do not ask it through the book.
        other => with("other", fields(json!({"request": format!("{other:?}")}))),
    };
    line.extend(fields(json!({
        "client": call.client,
        "node": call.node,
        "start_us": call.asked,
        "end_us": call.answered,
    })));
    match &call.outcome {
        Outcome::Reply(revision, answer) => {
            line.insert("outcome".into(), "ok".into());
            line.insert("revision".into(), revision.0.into());
            line.extend(answered(&call.request, answer));
        }
        Outcome::Refused(why) => line.extend(fields(json!({"outcome": "fail", "error": why}))),
        Outcome::Unknown(why) => line.extend(fields(json!({"outcome": "unknown", "error": why}))),
    }
    Value::Object(line)
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn with(kind: &str, mut line: Map<String, Value>) -> Map<String, Value> {
    line.insert("kind".into(), kind.into());
    line
}

/// One key, or the first and what is behind the last; `null` is behind all.
fn keys(range: &KeyRange) -> Map<String, Value> {
    fields(match range {
        KeyRange::Single(key) => json!({"key": text(key)}),
        KeyRange::Between(start, end) => json!({"key": text(start), "end": text(end)}),
        KeyRange::From(start) => json!({"key": text(start), "end": null}),
    })
}

fn read(request: &RangeRequest) -> Map<String, Value> {
    let kind = if matches!(request.range, KeyRange::Single(_)) { "get" } else { "range" };
    let mut line = with(kind, keys(&request.range));
    if request.serializable {
        line.insert("serializable".into(), true.into());
    }
    if let Some(revision) = request.revision {
        line.insert("at_revision".into(), revision.into());
    }
    line
}

fn put(request: &PutRequest) -> Map<String, Value> {
    let value = request.value.as_ref().map(|value| text(value));
    let mut line = with("put", fields(json!({"key": text(&request.key), "value": value})));
    if let PutLease::Attach(lease) = request.lease {
        line.insert("lease".into(), lease.get().into());
    }
    line
}

fn txn(request: &TxnRequest) -> Map<String, Value> {
    let compares: Vec<Value> = request.compares.iter().map(compare).collect();
    let line =
        json!({"compares": compares, "then": branch(&request.success), "else": branch(&request.failure)});
    with("txn", fields(line))
}

fn branch(operations: &[Operation]) -> Vec<Value> {
    let one = |operation: &Operation| match operation {
        Operation::Range(request) => Value::Object(read(request)),
        Operation::Put(request) => Value::Object(put(request)),
        Operation::DeleteRange(request) => Value::Object(with("delete", keys(&request.range))),
        Operation::Txn(request) => Value::Object(txn(request)),
    };
    operations.iter().map(one).collect()
}

fn compare(compare: &Compare) -> Value {
    let result = match compare.result {
        CompareResult::Equal => "=",
        CompareResult::Greater => ">",
        CompareResult::Less => "<",
        CompareResult::NotEqual => "!=",
    };
    let (of, given) = match &compare.target {
        CompareTarget::Version(version) => ("version", json!(version)),
        CompareTarget::Create(revision) => ("create", json!(revision)),
        CompareTarget::Modified(revision) => ("modified", json!(revision)),
        CompareTarget::Value(value) => ("value", text(value)),
        CompareTarget::Lease(lease) => ("lease", json!(lease)),
    };
    let mut line = keys(&compare.range);
    line.extend(fields(json!({"of": of, "is": result, "given": given})));
    Value::Object(line)
}

/// What an answer adds to what was asked.
fn answered(request: &Request, answer: &Answer) -> Map<String, Value> {
    match (request, answer) {
        (Request::Range(request), Answer::Range(range)) => found(request, &range.pairs),
        (Request::Put(request), Answer::Put(put)) => put_before(request, put),
        (Request::DeleteRange(_), Answer::DeleteRange(delete)) => deleted(delete),
        (Request::Txn(request), Answer::Txn(txn)) => taken(request, txn),
        _ => Map::new(),
    }
}

/// A key that was read has a value, or `null` if it is not there; of several, all pairs are listed.
fn found(request: &RangeRequest, all: &[KeyValue]) -> Map<String, Value> {
    match (&request.range, all) {
        (KeyRange::Single(_), []) => fields(json!({"value": null})),
        (KeyRange::Single(_), [only]) => fields(pair(only)),
        // Several of one key are found by our own checker.
        _ => fields(json!({"pairs": pairs(all)})),
    }
}

/// As if each operation of a branch had been asked by itself.
fn response((asked, response): (&Operation, &OperationAnswer)) -> Value {
    Value::Object(match (asked, response) {
        (Operation::Range(request), OperationAnswer::Range(_, range)) => found(request, &range.pairs),
        (Operation::Put(request), OperationAnswer::Put(_, put)) => put_before(request, put),
        (Operation::DeleteRange(_), OperationAnswer::DeleteRange(_, delete)) => deleted(delete),
        (Operation::Txn(request), OperationAnswer::Txn(inner)) => taken(request, inner),
        // An answer to something else than was asked is found by our own checker.
        (_, other) => fields(json!({"other": format!("{other:?}")})),
    })
}

fn put_before(request: &PutRequest, put: &PutAnswer) -> Map<String, Value> {
    match request.previous {
        true => fields(json!({"previous": put.previous.as_ref().map(pair)})),
        false => Map::new(),
    }
}

fn deleted(delete: &DeleteAnswer) -> Map<String, Value> {
    fields(json!({"deleted": delete.deleted, "previous": pairs(&delete.previous)}))
}

fn taken(request: &TxnRequest, txn: &TxnAnswer) -> Map<String, Value> {
    let asked = if txn.succeeded { &request.success } else { &request.failure };
    let answers: Vec<Value> = asked.iter().zip(&txn.responses).map(response).collect();
    fields(json!({"succeeded": txn.succeeded, "answers": answers}))
}

fn pairs(pairs: &[KeyValue]) -> Vec<Value> {
    pairs.iter().map(pair).collect()
}

fn pair(pair: &KeyValue) -> Value {
    let mut line = fields(json!({
        "key": text(&pair.key),
        "value": text(&pair.value),
        "create": pair.create.0,
        "modified": pair.modified.0,
        "version": pair.version,
    }));
    if let Some(lease) = pair.lease {
        line.insert("lease".into(), lease.get().into());
    }
    Value::Object(line)
}

fn lease(lease: &Lease) -> Value {
    json!({
        "kind": "lease",
        "lease": lease.id.get(),
        "ttl_us": lease.ttl,
        "renewals_us": lease.renewals,
        "told_gone_us": lease.told_gone,
        "revoked_us": lease.revoked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::load::put_of;
    use quorate_types::reply::RangeAnswer;
    use quorate_types::{LeaseId, Revision};

    fn call(asked: u64, request: Request, outcome: Outcome) -> Call {
        Call { client: 3, node: "n2".into(), request, asked, answered: asked + 10, outcome }
    }

    fn lines(calls: Vec<Call>, leases: Vec<Lease>) -> Vec<Value> {
        let (sights, watched, wrong, scarce, compactions, late) = Default::default();
        let told_compacted = quorate_types::Revision::default();
        let written =
            Written { calls, leases, sights, watched, wrong, scarce, compactions, told_compacted, late };
        let mut file = Vec::new();
        let count = write(&written, &mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert_eq!(text.lines().count(), count);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn single(key: &'static str) -> RangeRequest {
        RangeRequest::new(KeyRange::Single(key.into()))
    }

    fn stored(key: &'static str, value: &'static str) -> KeyValue {
        let (create, modified) = (Revision(2), Revision(4));
        KeyValue { key: key.into(), value: value.into(), create, modified, version: 3, lease: None }
    }

    #[test]
    fn a_line_says_who_asked_what_when_and_what_came_of_it() {
        let put = Request::Put(put_of("k".into(), "a\n\"b\"".into()));
        let done = Outcome::Reply(Revision(7), Answer::Put(PutAnswer::default()));
        let read = Request::Range(RangeRequest { serializable: true, revision: Some(5), ..single("k") });
        let nothing = Outcome::Reply(Revision(7), Answer::Range(RangeAnswer::default()));
        let all = Request::Range(RangeRequest::new(KeyRange::prefix("k/")));
        let told = lines(
            vec![
                call(30, all, Outcome::Unknown("late".into())),
                call(20, read, nothing),
                call(10, put, done),
            ],
            vec![],
        );
        let times = |at: u64| (json!(at), json!(at + 10));
        for (line, at) in told.iter().zip([10, 20, 30]) {
            assert_eq!((line["start_us"].clone(), line["end_us"].clone()), times(at), "{line}");
            assert_eq!((&line["client"], &line["node"]), (&json!(3), &json!("n2")));
        }
        let put = json!({"client": 3, "node": "n2", "kind": "put", "key": "k", "value": "a\n\"b\"",
            "start_us": 10, "end_us": 20, "outcome": "ok", "revision": 7});
        assert_eq!(told[0], put);
        assert_eq!((&told[1]["kind"], &told[1]["value"]), (&json!("get"), &Value::Null));
        assert_eq!((&told[1]["serializable"], &told[1]["at_revision"]), (&json!(true), &json!(5)));
        assert_eq!((&told[2]["kind"], &told[2]["end"]), (&json!("range"), &json!("k0")));
        assert_eq!((&told[2]["outcome"], &told[2]["error"]), (&json!("unknown"), &json!("late")));
        assert!(told[2].get("revision").is_none(), "{}", told[2]);
    }

    #[test]
    fn a_transaction_has_the_answers_of_the_branch_that_was_taken() {
        let target = CompareTarget::Modified(4);
        let range = KeyRange::Single("a".into());
        let request = Request::Txn(TxnRequest {
            compares: vec![Compare { range, result: CompareResult::Equal, target }],
            success: vec![Operation::Put(put_of("a".into(), "1".into()))],
            failure: vec![Operation::Range(single("b")), Operation::Txn(TxnRequest::default())],
        });
        let range = RangeAnswer { pairs: vec![stored("b", "2")], more: false, count: 1 };
        let responses = vec![
            OperationAnswer::Range(Revision(9), range),
            OperationAnswer::Txn(TxnAnswer { succeeded: true, responses: Vec::new() }),
        ];
        let answer = Answer::Txn(TxnAnswer { succeeded: false, responses });
        let told = lines(vec![call(1, request, Outcome::Reply(Revision(9), answer))], vec![]);
        let line = &told[0];
        assert_eq!(line["compares"], json!([{"key": "a", "of": "modified", "is": "=", "given": 4}]));
        assert_eq!(line["then"], json!([{"kind": "put", "key": "a", "value": "1"}]));
        assert_eq!(line["succeeded"], false);
        assert_eq!(line["answers"][0]["value"], "2");
        assert_eq!(line["answers"][0]["modified"], 4);
        assert_eq!(line["answers"][1], json!({"succeeded": true, "answers": []}));
    }

    #[test]
    fn leases_come_last_and_nothing_is_no_line() {
        let id = LeaseId::new(5).unwrap();
        let lease = Lease { id, ttl: 2, renewals: vec![(1, 2)], told_gone: None, revoked: Some(9) };
        let told = lines(Vec::new(), vec![lease]);
        assert_eq!(told.len(), 1);
        assert_eq!((&told[0]["lease"], &told[0]["renewals_us"]), (&json!(5), &json!([[1, 2]])));
        assert!(lines(Vec::new(), Vec::new()).is_empty());
    }
}
