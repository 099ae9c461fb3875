//! Puts, reads and transactions: one call each.

use crate::kind::Kind;
use crate::line::Line;
use crate::load::Load;
use crate::method;
use crate::random::Random;
use crate::values::value;
use quorate_api::pb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op,
    response_op,
};
use quorate_api::prefix_end;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Status;

/// A client of one of these kinds.
pub(crate) struct Caller {
    line: Line,
    load: Arc<Load>,
    /// Which of the clients this is.
    number: u64,
    random: Random,
    /// The revisions that this client has left its keys at, for comparing.
    left: BTreeMap<u64, i64>,
}

impl Caller {
    pub(crate) fn new(line: Line, load: Arc<Load>, number: usize) -> Self {
        let number = number as u64;
        Self { line, load, number, random: Random::new(number), left: BTreeMap::new() }
    }

    /// The next call.
    pub(crate) async fn call(&mut self) -> Result<(), Status> {
        let number = self.random.below(self.load.keys.count());
        match self.load.kind {
            Kind::Put => self.put(number).await,
            Kind::Mixed if self.random.below(100) < Load::MIXED_PUTS_PERCENT => self.put(number).await,
            Kind::Cas => self.compare_and_swap(number).await,
            Kind::Txn => self.put_two(number).await,
            Kind::Range => self.range(number).await,
            kind => self.get(number, kind == Kind::GetSerializable).await,
        }
    }

    fn put_of(&mut self, key: Vec<u8>) -> PutRequest {
        let value = value(&mut self.random, self.load.value_bytes);
        PutRequest { key: key.into(), value, ..Default::default() }
    }

    async fn put(&mut self, number: u64) -> Result<(), Status> {
        let put = self.put_of(self.load.keys.one(number));
        self.line.call(method::PUT, &put).await.map(|_| ())
    }

    async fn get(&mut self, number: u64, serializable: bool) -> Result<(), Status> {
        let range =
            RangeRequest { key: self.load.keys.one(number).into(), serializable, ..Default::default() };
        let answer = self.line.call(method::RANGE, &range).await?;
        found(answer.kvs.len(), 1)
    }

    async fn range(&mut self, number: u64) -> Result<(), Status> {
        let keys = self.load.range_keys.min(self.load.keys.count() / self.load.keys.directories());
        let (from, to) = self.load.keys.row(number, keys);
        let range = RangeRequest { key: from.into(), range_end: to.into(), ..Default::default() };
        let answer = self.line.call(method::RANGE, &range).await?;
        found(answer.kvs.len(), keys as usize)
    }

    /// Puts a key of this client's own, unless somebody else has since it last did. What it does not know yet it is told by the first attempt.
    async fn compare_and_swap(&mut self, number: u64) -> Result<(), Status> {
        let clients = self.load.clients as u64;
        // A number near it that is this client's; there are at least as many keys as clients.
        let own = number - number % clients + self.number;
        let own = if own < self.load.keys.count() { own } else { own - clients };
        let key = self.load.keys.one(own);
        let compare = Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Mod as i32,
            key: key.clone().into(),
            target_union: Some(compare::TargetUnion::ModRevision(self.left.get(&own).copied().unwrap_or(0))),
            ..Default::default()
        };
        let get = RangeRequest { key: key.clone().into(), ..Default::default() };
        let put = request_op::Request::RequestPut(self.put_of(key));
        let txn = TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp { request: Some(put) }],
            failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(get)) }],
        };
        let answer = self.line.call(method::TXN, &txn).await?;
        let now = match (answer.succeeded, answer.responses.first().and_then(|first| first.response.as_ref()))
        {
            (true, _) => answer.header.map(|header| header.revision),
            (false, Some(response_op::Response::ResponseRange(range))) => {
                Some(range.kvs.first().map_or(0, |pair| pair.mod_revision))
            }
            _ => None,
        };
        let now = now.ok_or_else(|| Status::data_loss("a transaction's answer has no header or no range"))?;
        self.left.insert(own, now);
        Ok(())
    }

    /// Compares two keys and puts them. What is compared always holds, so that clients that want the same keys do not get in each other's way by it.
    async fn put_two(&mut self, number: u64) -> Result<(), Status> {
        let keys = self.load.keys.two(number);
        let compare = |key: &Vec<u8>| Compare {
            result: compare::CompareResult::Greater as i32,
            target: compare::CompareTarget::Version as i32,
            key: key.clone().into(),
            target_union: Some(compare::TargetUnion::Version(-1)),
            ..Default::default()
        };
        let compare = keys.iter().map(compare).collect();
        let put = |key| RequestOp { request: Some(request_op::Request::RequestPut(self.put_of(key))) };
        let success = keys.into_iter().map(put).collect();
        let txn = TxnRequest { compare, success, failure: Vec::new() };
        let answer = self.line.call(method::TXN, &txn).await?;
        if answer.succeeded { Ok(()) } else { Err(Status::data_loss("what always holds did not")) }
    }
}

/// An answer that leaves out what is there would be a fast one.
fn found(keys: usize, wanted: usize) -> Result<(), Status> {
    if keys == wanted {
        Ok(())
    } else {
        Err(Status::data_loss(format!("{keys} keys came back, not {wanted}")))
    }
}

/// Removes all keys that begin with `prefix`.
pub(crate) async fn remove(line: &Line, prefix: &[u8]) -> Result<(), Status> {
    let all = DeleteRangeRequest {
        key: prefix.to_vec().into(),
        range_end: prefix_end(prefix).into(),
        ..Default::default()
    };
    line.call(method::DELETE_RANGE, &all).await.map(|_| ())
}
