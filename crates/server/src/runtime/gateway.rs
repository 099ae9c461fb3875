//! What the services call: every client request goes through here.

use super::watch_thread::WatchHub;
use super::worker::{Input, Leaderless, Terms};
use crate::engine::FjallEngine;
use crossbeam_channel::Sender;
use quorate_node::{Grant, GroupStatus};
use quorate_partition::{ReadError, Reader};
use quorate_types::reply::{RangeAnswer, TxnAnswer};
use quorate_types::request::{RangeRequest, TxnRequest};
use quorate_types::{
    ClusterId, Fault, GroupId, KeyRange, KeyspaceId, NodeId, Rejection, Reply, Request, Revision, Term,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Calls waiting for the worker; more are refused as busy.
const CALLS_MAX: usize = 50_000;
/// A range that may return more pairs than this is read on a thread of its own.
const PAIRS_INLINE_MAX: u64 = 512;

/// Who answers: in every response's header.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
}

/// A handle to the node; clones are the same.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    worker: Sender<Input>,
    identity: Member,
    calls: AtomicUsize,
    readers: BTreeMap<GroupId, Reader<FjallEngine>>,
    hubs: BTreeMap<GroupId, Arc<WatchHub>>,
    terms: Terms,
    leaderless: Leaderless,
}

/// Counts a call for as long as it waits.
struct Call<'a>(&'a AtomicUsize);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gateway {
    /// A handle over the worker that `worker` leads to.
    pub fn new(
        worker: Sender<Input>,
        identity: Member,
        readers: BTreeMap<GroupId, Reader<FjallEngine>>,
        hubs: BTreeMap<GroupId, Arc<WatchHub>>,
        terms: Terms,
        leaderless: Leaderless,
    ) -> Self {
        let calls = AtomicUsize::new(0);
        Self { inner: Arc::new(Inner { worker, identity, calls, readers, hubs, terms, leaderless }) }
    }

    /// Who answers.
    pub fn identity(&self) -> Member {
        self.inner.identity
    }

    fn call(&self) -> Result<Call<'_>, Rejection> {
        let call = Call(&self.inner.calls);
        if call.0.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX { Err(Rejection::Busy) } else { Ok(call) }
    }

    /// Has the group's leader, wherever it is, carry out a request.
    pub async fn request(&self, keyspace: KeyspaceId, request: Request) -> Result<Reply, Rejection> {
        let _call = self.call()?;
        let (sender, receiver) = oneshot::channel();
        let input = Input::Request(keyspace, request, sender);
        self.inner.worker.send(input).map_err(|_| Rejection::Unavailable)?;
        // The worker drops the other end only when it stops with the request in flight.
        receiver.await.unwrap_or(Err(Rejection::Unknown))
    }

    /// Waits until this node's copy contains everything acknowledged before now.
    pub async fn barrier(&self, keyspace: KeyspaceId) -> Result<Grant, Rejection> {
        let _call = self.call()?;
        let (sender, receiver) = oneshot::channel();
        let input = Input::Barrier(keyspace, sender);
        self.inner.worker.send(input).map_err(|_| Rejection::Unavailable)?;
        receiver.await.unwrap_or(Err(Rejection::Unavailable))
    }

    /// How all groups stand.
    pub async fn status(&self) -> Result<Vec<GroupStatus>, Rejection> {
        let (sender, receiver) = oneshot::channel();
        self.inner.worker.send(Input::Status(sender)).map_err(|_| Rejection::Unavailable)?;
        receiver.await.map_err(|_| Rejection::Unavailable)
    }

    /// Hands over every leadership this node has; returns when none is left.
    pub async fn hand_over(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.inner.worker.send(Input::HandOver(sender)).is_ok() {
            // The worker may stop first; then there is nothing left to hand over.
            let _ = receiver.await;
        }
    }

    /// The reader of a keyspace's group on this node.
    pub fn reader(&self, keyspace: KeyspaceId) -> Result<Reader<FjallEngine>, Rejection> {
        let group = GroupId { keyspace, partition: quorate_types::PartitionId(0) };
        self.inner.readers.get(&group).cloned().ok_or(Rejection::KeyspaceNotFound)
    }

    /// The watch hub of a keyspace's group on this node.
    pub fn hub(&self, keyspace: KeyspaceId) -> Result<Arc<WatchHub>, Rejection> {
        let group = GroupId { keyspace, partition: quorate_types::PartitionId(0) };
        self.inner.hubs.get(&group).cloned().ok_or(Rejection::KeyspaceNotFound)
    }

    /// The newest term this node knows of a keyspace; it never goes back.
    pub fn newest_term(&self, keyspace: KeyspaceId) -> Term {
        let group = GroupId { keyspace, partition: quorate_types::PartitionId(0) };
        Term(self.inner.terms.get(&group).map_or(0, |term| term.load(Ordering::Relaxed)))
    }

    /// Whether this node knows who leads a keyspace's group; it may be wrong about it for an election timeout.
    pub fn has_leader(&self, keyspace: KeyspaceId) -> bool {
        let group = GroupId { keyspace, partition: quorate_types::PartitionId(0) };
        self.inner.leaderless.get(&group).is_some_and(|since| since.borrow().is_none())
    }

    /// Returns when this node has known no leader for so long, without a break.
    pub async fn leaderless_for(&self, keyspace: KeyspaceId, limit: Duration) {
        let group = GroupId { keyspace, partition: quorate_types::PartitionId(0) };
        let Some(mut leaderless) = self.inner.leaderless.get(&group).map(|since| since.subscribe()) else {
            return;
        };
        loop {
            let since = *leaderless.borrow_and_update();
            let changed = match since {
                None => leaderless.changed().await,
                Some(since) => {
                    match tokio::time::timeout_at((since + limit).into(), leaderless.changed()).await {
                        Ok(changed) => changed,
                        Err(_) => return,
                    }
                }
            };
            // Cannot be: this handle holds the sender.
            if changed.is_err() {
                return;
            }
        }
    }

    /// The newest revision that a read is to see, and the term.
    async fn granted(
        &self,
        keyspace: KeyspaceId,
        is_serializable: bool,
    ) -> Result<(Revision, Term), Rejection> {
        if is_serializable {
            // Read without asking anyone.
            Ok((self.reader(keyspace)?.revision(), self.newest_term(keyspace)))
        } else {
            let grant = self.barrier(keyspace).await?;
            Ok((grant.revision, grant.term))
        }
    }

    /// Reads keys, linearizably unless the request says that this node's state will do.
    pub async fn range(
        &self,
        keyspace: KeyspaceId,
        request: RangeRequest,
    ) -> Result<(Revision, Term, RangeAnswer), ReadError> {
        let granted = self.granted(keyspace, request.serializable).await;
        let (newest, term) = granted.map_err(ReadError::Rejection)?;
        let reader = self.reader(keyspace).map_err(ReadError::Rejection)?;
        let is_small = matches!(request.range, KeyRange::Single(_))
            || (request.limit.is_some_and(|limit| limit <= PAIRS_INLINE_MAX) && request.sort_order.is_none());
        let (revision, answer) = if is_small {
            reader.range(&request, newest)?
        } else {
            on_thread(move || reader.range(&request, newest)).await?
        };
        Ok((revision, term, answer))
    }

    /// Carries out a transaction that only reads.
    pub async fn read_txn(
        &self,
        keyspace: KeyspaceId,
        request: TxnRequest,
    ) -> Result<(Revision, Term, TxnAnswer), ReadError> {
        let (newest, term) = self.granted(keyspace, false).await.map_err(ReadError::Rejection)?;
        let reader = self.reader(keyspace).map_err(ReadError::Rejection)?;
        let (revision, answer) = on_thread(move || reader.txn(&request, newest)).await?;
        Ok((revision, term, answer))
    }
}

/// Runs something that may read the disk for long off the threads that serve connections.
pub async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ReadError::Fault(Fault::new("reading", error.to_string()))),
    }
}
