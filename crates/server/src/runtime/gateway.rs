//! What the services call: every client request goes through here.

use super::inbox::Sender;
use super::keyspaces::{Keyspace, Keyspaces};
use super::standing::{Standing, Survivors};
use super::watch_thread::WatchHub;
use super::worker::Input;
use crate::engine::DiskEngine;
use crate::metrics::Metrics;
use quorate_node::recovery::RecoverRefused;
use quorate_node::{ClusterOrder, ClusterOrders, Grant, IfBehind, Nodes, OrderRefused, OrderStep, Reach};
use quorate_partition::{ReadError, Reader, Touched};
use quorate_types::reply::{RangeAnswer, TxnAnswer};
use quorate_types::request::{RangeRequest, TxnRequest};
use quorate_types::{
    Answer, ClusterId, Fault, GroupId, KeyRange, KeyspaceId, NodeId, Position, Rejection, Reply, Request,
    Revision, Term,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Calls waiting for the worker; more are refused as busy.
const CALLS_MAX: usize = 50_000;
/// So many keys at most are read by leaders where the copy here is far behind.
const KEYS_AFAR_MAX: usize = 16;
/// A read is tried again so often when its state was replaced meanwhile,
const READ_AGAIN_MAX: usize = 3;
/// and waits for that so long at most.
const STATE_AWAITED: Duration = Duration::from_secs(1);
/// Who waits for something of this node's looks so often.
const LOOK: Duration = Duration::from_millis(2);
/// A range that has more pairs than this is read on a thread of its own.
const PAIRS_INLINE_MAX: usize = 128;

/// Where reading at once took longer than this, the disk was asked,
const AT_ONCE_MAX: Duration = Duration::from_millis(8);
/// and for so long others are read on threads of their own.
const AT_ONCE_PAUSE: Duration = Duration::from_millis(200);

/// Who answers: in every response's header.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
}

/// Why an order about nodes was not carried out, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum OrderProblem {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] OrderRefused),
    /// The rows could not be read or written.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// A handle to the node; clones are the same.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    worker: Sender,
    identity: Member,
    calls: AtomicUsize,
    /// When the store is read at once again, in milliseconds since `begun`: not soon after that took long.
    at_once_from: AtomicU64,
    begun: Instant,
    keyspaces: Arc<Keyspaces>,
    metrics: Arc<Metrics>,
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
    pub fn new(worker: Sender, identity: Member, keyspaces: Arc<Keyspaces>, metrics: Arc<Metrics>) -> Self {
        let calls = AtomicUsize::new(0);
        let (at_once_from, begun) = (AtomicU64::new(0), Instant::now());
        Self { inner: Arc::new(Inner { worker, identity, calls, at_once_from, begun, keyspaces, metrics }) }
    }

    /// Who answers.
    pub fn identity(&self) -> Member {
        self.inner.identity
    }

    fn call(&self) -> Result<Call<'_>, Rejection> {
        let call = Call(&self.inner.calls);
        if call.0.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX { Err(Rejection::Busy) } else { Ok(call) }
    }

    /// Has the leaders of what it touches, wherever they are, carry out a request.
    pub async fn request(&self, keyspace: KeyspaceId, request: Request) -> Result<Reply, Rejection> {
        let begun = Instant::now();
        // It waits for the store to have removed what may be millions of rows.
        let is_long = matches!(request, Request::Compact { physical: true, .. });
        let reply = self.carried_out(keyspace, request).await;
        if reply.is_ok() && keyspace != KeyspaceId::SYSTEM && !is_long {
            self.inner.metrics.write_seconds.observe(begun.elapsed().as_secs_f64());
        }
        reply
    }

    async fn carried_out(&self, keyspace: KeyspaceId, request: Request) -> Result<Reply, Rejection> {
        let here = self.keyspace(keyspace)?;
        let _call = self.call()?;
        let (sender, receiver) = oneshot::channel();
        let input = Input::Request(keyspace, request, sender);
        self.inner.worker.send(input).map_err(|_| Rejection::Unavailable)?;
        // The worker drops the other end only when it stops with the request in flight.
        let mut reply = receiver.await.unwrap_or(Err(Rejection::Unknown))?;
        reply.term = here.saw(reply.term);
        Ok(reply)
    }

    /// Waits until this node's copy of these ranges, all if there are none, contains everything acknowledged before now.
    pub async fn barrier(&self, keyspace: KeyspaceId, ranges: Vec<KeyRange>) -> Result<Grant, Rejection> {
        self.barrier_or(IfBehind::Wait, keyspace, ranges).await
    }

    async fn barrier_or(
        &self,
        if_behind: IfBehind,
        keyspace: KeyspaceId,
        ranges: Vec<KeyRange>,
    ) -> Result<Grant, Rejection> {
        let here = self.keyspace(keyspace)?;
        let _call = self.call()?;
        let (sender, receiver) = oneshot::channel();
        let input = Input::Barrier(keyspace, ranges, if_behind, sender);
        self.inner.worker.send(input).map_err(|_| Rejection::Unavailable)?;
        let mut grant = receiver.await.unwrap_or(Err(Rejection::Unavailable))?;
        grant.term = here.saw(grant.term);
        Ok(grant)
    }

    /// Has it found out whether a revision is settled here, of which others say that it is.
    pub fn await_settled(&self, keyspace: KeyspaceId, revision: Revision) {
        // Whoever waits for it is told otherwise when the worker has stopped.
        let _ = self.inner.worker.send(Input::AwaitSettled(keyspace, revision));
    }

    /// Has an order about nodes carried out.
    pub async fn order(&self, order: ClusterOrder) -> Result<Nodes, OrderProblem> {
        let (mut order, mut request) = ClusterOrders::begin(order)?;
        loop {
            let reply = self.request(KeyspaceId::SYSTEM, request).await?;
            match order.answered(reply)? {
                OrderStep::Ask(next) => request = next,
                OrderStep::Done(nodes) => return Ok(nodes),
            }
        }
    }

    /// How all groups stand, and which partitions there are.
    pub async fn standing(&self) -> Result<Standing, Rejection> {
        let (sender, receiver) = oneshot::channel();
        self.inner.worker.send(Input::Standing(sender)).map_err(|_| Rejection::Unavailable)?;
        receiver.await.map_err(|_| Rejection::Unavailable)
    }

    /// What is left here of groups that may have lost their quorum.
    pub async fn survivors(&self) -> Result<Survivors, Rejection> {
        let (sender, receiver) = oneshot::channel();
        self.inner.worker.send(Input::Survivors(sender)).map_err(|_| Rejection::Unavailable)?;
        receiver.await.map_err(|_| Rejection::Unavailable)
    }

    /// Orders that a group goes on with what is here, whose log ends at `shown`.
    pub async fn recover(
        &self,
        group: GroupId,
        shown: Position,
    ) -> Result<Result<(), RecoverRefused>, Rejection> {
        let (sender, receiver) = oneshot::channel();
        self.inner.worker.send(Input::Recover(group, shown, sender)).map_err(|_| Rejection::Unavailable)?;
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

    /// The keyspace of this name, as far as this node has heard.
    pub fn by_name(&self, name: &str) -> Option<KeyspaceId> {
        self.inner.keyspaces.by_name(name)
    }

    /// A keyspace on this node.
    pub fn keyspace(&self, keyspace: KeyspaceId) -> Result<Arc<Keyspace>, Rejection> {
        self.inner.keyspaces.get(keyspace).ok_or(Rejection::KeyspaceNotFound)
    }

    /// A keyspace's applied state on this node.
    pub fn reader(&self, keyspace: KeyspaceId) -> Result<Reader<DiskEngine>, Rejection> {
        Ok(self.keyspace(keyspace)?.reader.clone())
    }

    /// The watch hub of a keyspace on this node.
    pub fn hub(&self, keyspace: KeyspaceId) -> Result<Arc<WatchHub>, Rejection> {
        Ok(self.keyspace(keyspace)?.hub.clone())
    }

    /// The newest term this node knows of a keyspace; it never goes back.
    pub fn newest_term(&self, keyspace: KeyspaceId) -> Term {
        self.keyspace(keyspace).map_or(Term(0), |keyspace| keyspace.term())
    }

    /// Whether this node knows all leaders that a keyspace needs; it may be wrong about it for an election timeout.
    pub fn has_leader(&self, keyspace: KeyspaceId) -> bool {
        self.keyspace(keyspace).is_ok_and(|keyspace| keyspace.has_leader())
    }

    /// Returns when this node knows all leaders that a keyspace needs, or after so long.
    pub async fn await_leader(&self, keyspace: KeyspaceId, limit: Duration) {
        let begun = Instant::now();
        while !self.has_leader(keyspace) && begun.elapsed() < limit {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns when this node has missed a leader for so long, without a break.
    pub async fn leaderless_for(&self, keyspace: KeyspaceId, limit: Duration) {
        if let Ok(keyspace) = self.keyspace(keyspace) {
            keyspace.leaderless_for(limit).await;
        }
    }

    /// Reads keys, linearizably unless the request says that this node's state will do.
    pub async fn range(
        &self,
        keyspace: KeyspaceId,
        request: RangeRequest,
    ) -> Result<(Revision, Term, RangeAnswer), ReadError> {
        let begun = Instant::now();
        let mut times = 0;
        let answer = loop {
            let may_be_old = request.serializable && times == 0;
            let answer = self.read_range(keyspace, request.clone(), may_be_old).await;
            if !self.is_to_be_read_again(keyspace, &answer, &mut times).await {
                break answer;
            }
        };
        self.note_read(begun, &answer);
        answer
    }

    /// Whether what was to be read was replaced, or completed by what was missing, while it was read: then this waits until it can be read again, which takes a moment. Where nobody is there
    /// to ask any more there is nothing to wait for.
    async fn is_to_be_read_again<T>(
        &self,
        keyspace: KeyspaceId,
        answer: &Result<T, ReadError>,
        times: &mut usize,
    ) -> bool {
        if !matches!(answer, Err(ReadError::Rejection(Rejection::Unavailable))) || *times >= READ_AGAIN_MAX {
            return false;
        }
        *times += 1;
        let begun = Instant::now();
        while self.reader(keyspace).is_ok_and(|reader| !reader.is_available())
            && begun.elapsed() < STATE_AWAITED
        {
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    fn note_read<T>(&self, begun: Instant, answer: &Result<T, ReadError>) {
        match answer {
            Ok(_) => self.inner.metrics.read_seconds.observe(begun.elapsed().as_secs_f64()),
            Err(ReadError::Fault(fault)) => self.suspect(fault),
            Err(ReadError::Rejection(_)) => {}
        }
    }

    /// A read failed. If what is stored is damaged the store is to be given up.
    pub fn suspect(&self, fault: &Fault) {
        if fault.is_damage() {
            // The worker may have stopped for it already.
            let _ = self.inner.worker.send(Input::Suspect(fault.clone()));
        }
    }

    /// Reads right here, which is quick while what is read is in the system's memory; if it was not, for a while nothing is read so (`None`): who has this thread
    /// is everybody, the worker among them.
    fn at_once<T>(&self, read: impl FnOnce() -> T) -> Option<T> {
        let Inner { at_once_from, begun, .. } = &*self.inner;
        let now = begun.elapsed();
        if (now.as_millis() as u64) < at_once_from.load(Ordering::Relaxed) {
            return None;
        }
        let outcome = read();
        let after = begun.elapsed();
        if after - now > AT_ONCE_MAX {
            at_once_from.store((after + AT_ONCE_PAUSE).as_millis() as u64, Ordering::Relaxed);
        }
        Some(outcome)
    }

    /// Reads this node's state, without asking anyone if that will do and there is one.
    async fn read_range(
        &self,
        keyspace: KeyspaceId,
        request: RangeRequest,
        may_be_old: bool,
    ) -> Result<(Revision, Term, RangeAnswer), ReadError> {
        let here = self.keyspace(keyspace).map_err(ReadError::Rejection)?;
        let (newest, term) = if may_be_old && here.reader.is_available() {
            (here.reader.revision(), here.term())
        } else {
            let ranges = vec![request.range.clone()];
            let grant = self.barrier_or(if_behind(&ranges), keyspace, ranges).await;
            let grant = grant.map_err(ReadError::Rejection)?;
            if grant.reach != Reach::Here {
                return self.range_afar(keyspace, request).await;
            }
            (grant.revision, grant.term)
        };
        let at_once = self.at_once(|| here.reader.range_if_small(&request, newest, PAIRS_INLINE_MAX));
        let answered = match at_once {
            Some(read) => read?,
            None => here.reader.known(&request, newest),
        };
        if let Some((revision, answer)) = answered {
            return Ok((revision, term, answer));
        }
        let reader = here.reader.clone();
        let (revision, answer) = on_thread(move || reader.range(&request, newest)).await?;
        Ok((revision, term, answer))
    }

    /// Reads keys of which this node has no replica, or not of all: those who have answer.
    async fn range_afar(
        &self,
        keyspace: KeyspaceId,
        request: RangeRequest,
    ) -> Result<(Revision, Term, RangeAnswer), ReadError> {
        let reply =
            self.carried_out(keyspace, Request::Range(request)).await.map_err(ReadError::Rejection)?;
        match reply.answer {
            Answer::Range(answer) => Ok((reply.revision, reply.term, answer)),
            other => Err(ReadError::Fault(Fault::new(
                "reading from another node",
                format!("it answered {other:?}"),
            ))),
        }
    }

    /// Carries out a transaction that only reads.
    pub async fn read_txn(
        &self,
        keyspace: KeyspaceId,
        request: TxnRequest,
    ) -> Result<(Revision, Term, TxnAnswer), ReadError> {
        let begun = Instant::now();
        let mut times = 0;
        let answer = loop {
            let answer = self.read_all(keyspace, request.clone()).await;
            if !self.is_to_be_read_again(keyspace, &answer, &mut times).await {
                break answer;
            }
        };
        self.note_read(begun, &answer);
        answer
    }

    async fn read_all(
        &self,
        keyspace: KeyspaceId,
        request: TxnRequest,
    ) -> Result<(Revision, Term, TxnAnswer), ReadError> {
        let reader = self.reader(keyspace).map_err(ReadError::Rejection)?;
        let request = Request::Txn(request);
        let touched = Touched::by(&request).footprint;
        let past = touched.past.into_iter().map(|past| past.range);
        let ranges: Vec<KeyRange> = touched.shared.into_iter().chain(past).collect();
        let is_small = ranges.iter().all(|range| matches!(range, KeyRange::Single(_)));
        let grant = self.barrier_or(if_behind(&ranges), keyspace, ranges).await;
        let grant = grant.map_err(ReadError::Rejection)?;
        if grant.reach != Reach::Here {
            let reply = self.carried_out(keyspace, request).await.map_err(ReadError::Rejection)?;
            return match reply.answer {
                Answer::Txn(answer) => Ok((reply.revision, reply.term, answer)),
                other => {
                    let cause = format!("it answered {other:?}");
                    Err(ReadError::Fault(Fault::new("reading from another node", cause)))
                }
            };
        }
        let Request::Txn(request) = request else { unreachable!("it was made right here") };
        let at_once = if is_small { self.at_once(|| reader.txn(&request, grant.revision)) } else { None };
        let (revision, answer) = match at_once {
            Some(read) => read?,
            None => on_thread(move || reader.txn(&request, grant.revision)).await?,
        };
        Ok((revision, grant.term, answer))
    }
}

/// What whoever reads these does where the copy here is far behind. A few keys are nothing to a leader; a range it would evaluate on the thread that all wait for, and what comes of it may be more
/// than a peer may send.
fn if_behind(ranges: &[KeyRange]) -> IfBehind {
    let is_few = !ranges.is_empty() && ranges.len() <= KEYS_AFAR_MAX;
    let are_keys = ranges.iter().all(|range| matches!(range, KeyRange::Single(_)));
    if is_few && are_keys { IfBehind::AskLeaders } else { IfBehind::Wait }
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
