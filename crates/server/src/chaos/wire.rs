//! Requests as a client of etcd's API sends them, and answers as it gets them: the other way round of `quorate_api`, which is a server's.

use quorate_api::{mvccpb, pb};
use quorate_types::reply::{Answer, DeleteAnswer, OperationAnswer, PutAnswer, RangeAnswer, TxnAnswer};
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    TxnRequest,
};
use quorate_types::{Bytes, Event, KeyRange, KeyValue, LeaseId, Request, Revision};
use tonic::Status;
use tonic::transport::Channel;

/// The largest answer that is taken: a whole history, in the end.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Sends a request about keys; the revision of the answer, and the answer.
pub(super) async fn send(channel: Channel, request: &Request) -> Result<(Revision, Answer), Status> {
    let mut client = pb::kv_client::KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let (header, answer) = match request {
        Request::Range(request) => {
            let answer = client.range(range(request)).await?.into_inner();
            (answer.header, Answer::Range(range_answer(answer)))
        }
        Request::Put(request) => {
            let answer = client.put(put(request)).await?.into_inner();
            (answer.header, Answer::Put(put_answer(answer)))
        }
        Request::DeleteRange(request) => {
            let answer = client.delete_range(delete(request)).await?.into_inner();
            (answer.header, Answer::DeleteRange(delete_answer(answer)))
        }
        Request::Txn(request) => {
            let answer = client.txn(txn(request)).await?.into_inner();
            (answer.header, Answer::Txn(txn_answer(answer)?))
        }
        other => return Err(Status::unimplemented(format!("{other:?} is not about keys"))),
    };
    Ok((revision_of(header.as_ref()), answer))
}

/// The revision that a header names; 0, before all time, if there is none.
pub(super) fn revision_of(header: Option<&pb::ResponseHeader>) -> Revision {
    revision(header.map_or(0, |header| header.revision))
}

fn revision(raw: i64) -> Revision {
    Revision(raw.max(0) as u64)
}

/// Key and end of a range.
pub(super) fn ends(range: &KeyRange) -> (Bytes, Bytes) {
    match range {
        KeyRange::Single(key) => (key.clone(), Bytes::new()),
        KeyRange::Between(start, end) => (start.clone(), end.clone()),
        // The smallest key there can be.
        KeyRange::From(start) if start.is_empty() => (Bytes::from_static(&[0]), Bytes::from_static(&[0])),
        KeyRange::From(start) => (start.clone(), Bytes::from_static(&[0])),
    }
}

fn range(request: &RangeRequest) -> pb::RangeRequest {
    let (key, range_end) = ends(&request.range);
    pb::RangeRequest {
        key,
        range_end,
        revision: request.revision.unwrap_or(0),
        limit: request.limit.map_or(0, |limit| limit as i64),
        serializable: request.serializable,
        ..Default::default()
    }
}

fn put(request: &PutRequest) -> pb::PutRequest {
    pb::PutRequest {
        key: request.key.clone(),
        value: request.value.clone().unwrap_or_default(),
        lease: match request.lease {
            PutLease::Attach(lease) => lease.get(),
            PutLease::Detach | PutLease::Keep => 0,
        },
        prev_kv: request.previous,
        ignore_value: request.value.is_none(),
        ignore_lease: request.lease == PutLease::Keep,
    }
}

fn delete(request: &DeleteRequest) -> pb::DeleteRangeRequest {
    let (key, range_end) = ends(&request.range);
    pb::DeleteRangeRequest { key, range_end, prev_kv: request.previous }
}

fn txn(request: &TxnRequest) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: request.compares.iter().map(compare).collect(),
        success: request.success.iter().map(operation).collect(),
        failure: request.failure.iter().map(operation).collect(),
    }
}

fn operation(operation: &Operation) -> pb::RequestOp {
    use pb::request_op::Request as Op;
    let request = match operation {
        Operation::Range(request) => Op::RequestRange(range(request)),
        Operation::Put(request) => Op::RequestPut(put(request)),
        Operation::DeleteRange(request) => Op::RequestDeleteRange(delete(request)),
        Operation::Txn(request) => Op::RequestTxn(txn(request)),
    };
    pb::RequestOp { request: Some(request) }
}

fn compare(compare: &Compare) -> pb::Compare {
    use pb::compare::{CompareResult as Result_, CompareTarget as Target, TargetUnion};
    let (key, range_end) = ends(&compare.range);
    let result = match compare.result {
        CompareResult::Equal => Result_::Equal,
        CompareResult::Greater => Result_::Greater,
        CompareResult::Less => Result_::Less,
        CompareResult::NotEqual => Result_::NotEqual,
    };
    let (target, given) = match &compare.target {
        CompareTarget::Version(given) => (Target::Version, TargetUnion::Version(*given)),
        CompareTarget::Create(given) => (Target::Create, TargetUnion::CreateRevision(*given)),
        CompareTarget::Modified(given) => (Target::Mod, TargetUnion::ModRevision(*given)),
        CompareTarget::Value(given) => (Target::Value, TargetUnion::Value(given.clone())),
        CompareTarget::Lease(given) => (Target::Lease, TargetUnion::Lease(*given)),
    };
    pb::Compare { result: result as i32, target: target as i32, key, range_end, target_union: Some(given) }
}

/// A pair. What it was decoded from is not kept in memory by it.
fn pair(pair: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(&pair.key),
        value: Bytes::copy_from_slice(&pair.value),
        create: revision(pair.create_revision),
        modified: revision(pair.mod_revision),
        version: pair.version.max(0) as u64,
        lease: LeaseId::new(pair.lease),
    }
}

/// An event of a watch; `None` if there is nothing in it.
pub(super) fn event(event: mvccpb::Event) -> Option<Event> {
    let is_put = event.r#type == mvccpb::event::EventType::Put as i32;
    let pair = pair(event.kv?);
    Some(if is_put { Event::Put(pair) } else { Event::Delete { key: pair.key, modified: pair.modified } })
}

fn range_answer(answer: pb::RangeResponse) -> RangeAnswer {
    let pairs = answer.kvs.into_iter().map(pair).collect();
    RangeAnswer { pairs, more: answer.more, count: answer.count.max(0) as u64 }
}

fn put_answer(answer: pb::PutResponse) -> PutAnswer {
    PutAnswer { previous: answer.prev_kv.map(pair) }
}

fn delete_answer(answer: pb::DeleteRangeResponse) -> DeleteAnswer {
    let previous = answer.prev_kvs.into_iter().map(pair).collect();
    DeleteAnswer { deleted: answer.deleted.max(0) as u64, previous }
}

fn txn_answer(answer: pb::TxnResponse) -> Result<TxnAnswer, Status> {
    use pb::response_op::Response as Op;
    let operation = |response: pb::ResponseOp| match response.response {
        Some(Op::ResponseRange(answer)) => {
            Ok(OperationAnswer::Range(revision_of(answer.header.as_ref()), range_answer(answer)))
        }
        Some(Op::ResponsePut(answer)) => {
            Ok(OperationAnswer::Put(revision_of(answer.header.as_ref()), put_answer(answer)))
        }
        Some(Op::ResponseDeleteRange(answer)) => {
            Ok(OperationAnswer::DeleteRange(revision_of(answer.header.as_ref()), delete_answer(answer)))
        }
        Some(Op::ResponseTxn(answer)) => txn_answer(answer).map(OperationAnswer::Txn),
        None => Err(Status::internal("an answer to an operation is empty")),
    };
    let responses = answer.responses.into_iter().map(operation).collect::<Result<_, _>>()?;
    Ok(TxnAnswer { succeeded: answer.succeeded, responses })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_api::{request, response};

    fn key(text: &'static str) -> KeyRange {
        KeyRange::Single(text.into())
    }

    /// What a client sends is what a server understands, whose own way back is another part of the program.
    #[test]
    fn what_is_sent_is_understood() {
        let lease = LeaseId::new(5).unwrap();
        let read = |range| RangeRequest { limit: Some(3), serializable: true, ..RangeRequest::new(range) };
        for range in [key("a"), KeyRange::prefix("a/"), KeyRange::From("b".into())] {
            let sent = RangeRequest { revision: Some(7), ..read(range) };
            assert_eq!(request::range(super::range(&sent)).unwrap(), sent);
        }
        let put = |value: Option<&'static str>, lease| PutRequest {
            key: "a".into(),
            value: value.map(Bytes::from),
            lease,
            previous: true,
        };
        let puts = [put(Some("v"), PutLease::Attach(lease)), put(None, PutLease::Keep)];
        for sent in &puts {
            assert_eq!(request::put(super::put(sent)).unwrap(), *sent);
        }
        let targets = [
            CompareTarget::Version(1),
            CompareTarget::Create(2),
            CompareTarget::Modified(3),
            CompareTarget::Value("v".into()),
            CompareTarget::Lease(4),
        ];
        let results =
            [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
        let compares = targets.iter().zip(results.iter().cycle());
        let compare = |(target, result): (&CompareTarget, &CompareResult)| Compare {
            range: key("a"),
            result: *result,
            target: target.clone(),
        };
        let delete = DeleteRequest { range: key("b"), previous: true };
        let sent = TxnRequest {
            compares: compares.map(compare).collect(),
            success: vec![Operation::Put(puts[0].clone()), Operation::DeleteRange(delete)],
            failure: vec![Operation::Txn(TxnRequest::default()), Operation::Range(read(key("c")))],
        };
        assert_eq!(request::txn(super::txn(&sent), 128).unwrap(), sent);
    }

    #[test]
    fn what_is_answered_is_understood() {
        let stored = KeyValue {
            key: "k".into(),
            value: "v".into(),
            create: Revision(2),
            modified: Revision(4),
            version: 3,
            lease: LeaseId::new(9),
        };
        let range = RangeAnswer { pairs: vec![stored.clone()], more: true, count: 8 };
        let answer = TxnAnswer {
            succeeded: true,
            responses: vec![
                OperationAnswer::Range(Revision(4), range),
                OperationAnswer::Put(Revision(5), PutAnswer { previous: Some(stored.clone()) }),
                OperationAnswer::DeleteRange(
                    Revision(5),
                    DeleteAnswer { deleted: 1, previous: vec![stored] },
                ),
                OperationAnswer::Txn(TxnAnswer::default()),
            ],
        };
        assert_eq!(txn_answer(response::txn(None, answer.clone())).unwrap(), answer);
    }
}
