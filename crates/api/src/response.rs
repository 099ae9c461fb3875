//! What a client gets. Which answers have which headers is as etcd has it: answers within a transaction
//! carry the revision only, a nested transaction's header is empty.

use crate::{mvccpb, pb};
use prost::Message;
use quorate_types::reply::{DeleteAnswer, LeaseTime, OperationAnswer, PutAnswer, RangeAnswer, TxnAnswer};
use quorate_types::{ClusterId, Event, KeyValue, LeaseId, NodeId, Revision, Term};

/// Who answers, and as of when.
pub fn header(cluster: ClusterId, node: NodeId, revision: Revision, term: Term) -> pb::ResponseHeader {
    pb::ResponseHeader {
        cluster_id: cluster.0,
        member_id: node.0,
        revision: signed(revision),
        raft_term: term.0,
    }
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn within_txn(revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision: signed(revision), ..Default::default() })
}

/// A pair.
pub fn key_value(pair: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: pair.key,
        create_revision: signed(pair.create),
        mod_revision: signed(pair.modified),
        version: i64::try_from(pair.version).unwrap_or(i64::MAX),
        value: pair.value,
        lease: pair.lease.map_or(0, LeaseId::get),
    }
}

/// A change, with the pair before it if it is known. A deleted key has nothing but itself and its end.
pub fn event(event: Event, previous: Option<KeyValue>) -> mvccpb::Event {
    let (kind, kv) = match event {
        Event::Put(pair) => (mvccpb::event::EventType::Put, key_value(pair)),
        Event::Delete { key, modified } => {
            let kv = mvccpb::KeyValue { key, mod_revision: signed(modified), ..Default::default() };
            (mvccpb::event::EventType::Delete, kv)
        }
    };
    mvccpb::Event { r#type: kind as i32, kv: Some(kv), prev_kv: previous.map(key_value) }
}

/// Events as they stand at the end of a [`pb::WatchResponse`].
pub fn encoded_events(events: Vec<mvccpb::Event>) -> Vec<u8> {
    pb::WatchResponse { events, ..Default::default() }.encode_to_vec()
}

/// To a range.
pub fn range(header: Option<pb::ResponseHeader>, answer: RangeAnswer) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: answer.pairs.into_iter().map(key_value).collect(),
        more: answer.more,
        count: i64::try_from(answer.count).unwrap_or(i64::MAX),
    }
}

/// To a put.
pub fn put(header: Option<pb::ResponseHeader>, answer: PutAnswer) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: answer.previous.map(key_value) }
}

/// To a delete.
pub fn delete_range(header: Option<pb::ResponseHeader>, answer: DeleteAnswer) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header,
        deleted: i64::try_from(answer.deleted).unwrap_or(i64::MAX),
        prev_kvs: answer.previous.into_iter().map(key_value).collect(),
    }
}

/// To a transaction.
pub fn txn(header: Option<pb::ResponseHeader>, answer: TxnAnswer) -> pb::TxnResponse {
    pb::TxnResponse {
        header,
        succeeded: answer.succeeded,
        responses: answer.responses.into_iter().map(operation).collect(),
    }
}

fn operation(answer: OperationAnswer) -> pb::ResponseOp {
    use pb::response_op::Response;
    let response = match answer {
        OperationAnswer::Range(revision, answer) => {
            Response::ResponseRange(range(within_txn(revision), answer))
        }
        OperationAnswer::Put(revision, answer) => Response::ResponsePut(put(within_txn(revision), answer)),
        OperationAnswer::DeleteRange(revision, answer) => {
            Response::ResponseDeleteRange(delete_range(within_txn(revision), answer))
        }
        OperationAnswer::Txn(answer) => {
            Response::ResponseTxn(txn(Some(pb::ResponseHeader::default()), answer))
        }
    };
    pb::ResponseOp { response: Some(response) }
}

/// To a question for a lease's remaining time; an unknown lease has -1.
pub fn lease_time(
    header: Option<pb::ResponseHeader>,
    lease: i64,
    time: Option<LeaseTime>,
) -> pb::LeaseTimeToLiveResponse {
    match time {
        None => pb::LeaseTimeToLiveResponse { header, id: lease, ttl: -1, ..Default::default() },
        Some(time) => pb::LeaseTimeToLiveResponse {
            header,
            id: lease,
            ttl: i64::try_from(time.remaining_seconds).unwrap_or(i64::MAX),
            granted_ttl: i64::try_from(time.granted_seconds).unwrap_or(i64::MAX),
            keys: time.keys,
        },
    }
}
