//! A lock over transactions, watches and leases, as etcd's `concurrency.Mutex` does it (client/v3/concurrency/mutex.go and key.go, release 3.5).
//!
//! A contender puts a key of its own, under its lease, if it has none. Whose key was made first has the lock. Everybody else waits for the key
//! made last before its own to be deleted, so that giving the lock back wakes one contender, and then makes sure that its own is still there.
//! An operation here is all of it: taking, and giving back.
//!
//! Caveat: each contender keeps one stream of watches, while the Go client opens one for each wait.

use crate::exchange::Exchange;
use crate::line::Line;
use crate::method;
use bytes::Bytes;
use quorate_api::mvccpb::event::EventType;
use quorate_api::pb::range_request::{SortOrder, SortTarget};
use quorate_api::pb::watch_request::RequestUnion;
use quorate_api::pb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchRequest,
    WatchResponse, compare, request_op, response_op,
};
use quorate_api::prefix_end;
use std::time::Duration;
use tonic::Status;

/// As a session of etcd's has it if nothing is said.
const TTL_SECONDS: i64 = 60;
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// One of those who want the lock.
pub(crate) struct Contender {
    line: Line,
    lock: Bytes,
    key: Bytes,
    lease: i64,
    watches: Option<Exchange<WatchRequest, WatchResponse>>,
    keeper: tokio::task::JoinHandle<()>,
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// A name that no other lock has, nor will: that of a lease, which ends at once.
pub(crate) async fn name(line: &Line) -> Result<String, Status> {
    let id = grant(line).await?;
    line.call(method::LEASE_REVOKE, &LeaseRevokeRequest { id }).await?;
    Ok(format!("lock-{id:x}"))
}

async fn grant(line: &Line) -> Result<i64, Status> {
    let grant = LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 };
    Ok(line.call(method::LEASE_GRANT, &grant).await?.id)
}

impl Contender {
    /// One for the lock of this name, with a lease of its own that is kept alive as long as it lives.
    pub(crate) async fn new(line: Line, lock: &str) -> Result<Self, Status> {
        let lease = grant(&line).await?;
        let (lock, key) = (format!("{lock}/"), format!("{lock}/{lease:x}"));
        let keeper = tokio::spawn(keep_alive(line.clone(), lease));
        Ok(Self { line, lock: lock.into(), key: key.into(), lease, watches: None, keeper })
    }

    /// Takes the lock and gives it back.
    pub(crate) async fn cycle(&mut self) -> Result<(), Status> {
        let own = self.enter().await?;
        if let Some(own) = own {
            self.wait(own).await?;
            let range = RangeRequest { key: self.key.clone(), ..Default::default() };
            let is_there = !self.line.call(method::RANGE, &range).await?.kvs.is_empty();
            if !is_there {
                return Err(Status::aborted("the session has expired"));
            }
        }
        let delete = DeleteRangeRequest { key: self.key.clone(), ..Default::default() };
        let deleted = self.line.call(method::DELETE_RANGE, &delete).await?.deleted;
        if deleted == 1 { Ok(()) } else { Err(Status::data_loss("the lock was not there to be given back")) }
    }

    /// Ends the session; with it goes the key that may be left.
    pub(crate) async fn end(&self) -> Result<(), Status> {
        let revoke = LeaseRevokeRequest { id: self.lease };
        self.line.call(method::LEASE_REVOKE, &revoke).await.map(|_| ())
    }

    /// Puts the key, unless it is there. `None` if that took the lock, else the revision that the key was made at.
    async fn enter(&mut self) -> Result<Option<i64>, Status> {
        let compare = Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Create as i32,
            key: self.key.clone(),
            target_union: Some(compare::TargetUnion::CreateRevision(0)),
            ..Default::default()
        };
        let range = |range| RequestOp { request: Some(request_op::Request::RequestRange(range)) };
        let put = PutRequest { key: self.key.clone(), lease: self.lease, ..Default::default() };
        let put = RequestOp { request: Some(request_op::Request::RequestPut(put)) };
        let owner = RangeRequest { sort_order: SortOrder::Ascend as i32, limit: 1, ..self.contenders() };
        let get = RangeRequest { key: self.key.clone(), ..Default::default() };
        let txn = TxnRequest {
            compare: vec![compare],
            success: vec![put, range(owner.clone())],
            failure: vec![range(get), range(owner)],
        };
        let answer = self.line.call(method::TXN, &txn).await?;
        let created = |at: usize| -> Option<i64> {
            match answer.responses.get(at)?.response.as_ref()? {
                response_op::Response::ResponseRange(RangeResponse { kvs, .. }) => {
                    Some(kvs.first()?.create_revision)
                }
                _ => None,
            }
        };
        let own = if answer.succeeded { answer.header.map(|header| header.revision) } else { created(0) };
        let own = own.ok_or_else(|| Status::data_loss("a transaction's answer lacks what was asked for"))?;
        Ok((created(1) != Some(own)).then_some(own))
    }

    /// Waits until no key is left that was made before.
    async fn wait(&mut self, own: i64) -> Result<(), Status> {
        loop {
            let last = RangeRequest {
                sort_order: SortOrder::Descend as i32,
                limit: 1,
                max_create_revision: own - 1,
                ..self.contenders()
            };
            let answer = self.line.call(method::RANGE, &last).await?;
            let Some(before) = answer.kvs.into_iter().next() else { return Ok(()) };
            let now = answer.header.map_or(0, |header| header.revision);
            self.wait_for_delete(before.key, now).await?;
        }
    }

    async fn wait_for_delete(&mut self, key: Bytes, revision: i64) -> Result<(), Status> {
        // After an error the next wait begins with a stream of its own.
        let create = WatchCreateRequest { key, start_revision: revision, ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let mut watches = match self.watches.take() {
            Some(mut watches) => {
                watches.send(&create)?;
                watches
            }
            None => self.line.exchange(method::WATCH, &create).await?,
        };
        let mut id = None;
        loop {
            let answer = watches.next().await?;
            let answer = answer.ok_or_else(|| Status::unavailable("the stream of watches has ended"))?;
            if answer.created {
                id = Some(answer.watch_id);
            }
            // The end of an earlier watch may come now.
            if id != Some(answer.watch_id) {
                continue;
            }
            if answer.canceled {
                return Err(Status::unavailable(format!(
                    "the watch was cancelled: {}",
                    answer.cancel_reason
                )));
            }
            if answer.events.iter().any(|event| event.r#type == EventType::Delete as i32) {
                let cancel = WatchCancelRequest { watch_id: answer.watch_id };
                watches.send(&WatchRequest { request_union: Some(RequestUnion::CancelRequest(cancel)) })?;
                self.watches = Some(watches);
                return Ok(());
            }
        }
    }

    /// All contenders' keys, in the order in which they were made.
    fn contenders(&self) -> RangeRequest {
        RangeRequest {
            key: self.lock.clone(),
            range_end: prefix_end(&self.lock).into(),
            sort_target: SortTarget::Create as i32,
            ..Default::default()
        }
    }
}

/// As a session does it. If it cannot, the lease ends, and who needs it is told.
async fn keep_alive(line: Line, lease: i64) {
    loop {
        tokio::time::sleep(KEEP_ALIVE).await;
        if let Ok(mut stream) =
            line.exchange(method::LEASE_KEEP_ALIVE, &LeaseKeepAliveRequest { id: lease }).await
        {
            let _ = stream.next().await;
        }
    }
}
