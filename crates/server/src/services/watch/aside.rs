//! What may happen to a stream of watches besides events.

use super::session::PROGRESS_EVERY;
use crate::services::as_etcd;
use futures_util::stream::{FuturesUnordered, StreamExt};
use quorate_api::pb;
use quorate_node::Holding;
use quorate_types::NodeId;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Status, Streaming};

/// It happened.
pub(super) enum Happened {
    /// The client asks something.
    Asked(pb::WatchRequest),
    /// The client asks nothing more. It ends nothing.
    Silent,
    /// All of the keyspace is where the watches are no more.
    Lost,
    /// Time to ask how far quiet watches are.
    Tick,
    /// The stream has to end.
    End(Status),
}

type Future = Pin<Box<dyn std::future::Future<Output = (Happened, Option<Requests>)> + Send>>;

type Requests = Streaming<pb::WatchRequest>;

/// What is waited for. An event, of which there may be very many, costs no look at any of it: each is looked at only when it has woken
/// the stream.
pub(super) struct Aside {
    /// As long as the stream lasts, and whatever comes next of what comes again and again.
    always: FuturesUnordered<Future>,
    /// As long as the watches are where they are.
    of_source: FuturesUnordered<Future>,
    /// When nobody waits for the next of them.
    requests: Option<Requests>,
    /// Happened while only the end was waited for.
    happened: VecDeque<Happened>,
}

impl Aside {
    /// Waits for what the client asks when it is told to ([`Aside::listen`]), and for its end.
    pub(super) fn new(
        requests: Requests,
        ending: impl std::future::Future<Output = Status> + Send + 'static,
        has_ticks: bool,
    ) -> Self {
        let always = FuturesUnordered::<Future>::new();
        always.push(Box::pin(async move { (Happened::End(ending.await), None) }));
        if has_ticks {
            always.push(tick());
        }
        Self {
            always,
            of_source: FuturesUnordered::new(),
            requests: Some(requests),
            happened: VecDeque::new(),
        }
    }

    /// The watches are at a node now, this one if none is named; or nowhere that could be lost, or not known.
    pub(super) fn moved(&mut self, to: Option<(watch::Receiver<Option<Holding>>, Option<NodeId>)>) {
        self.of_source = FuturesUnordered::new();
        if let Some((mut holding, node)) = to {
            self.of_source.push(Box::pin(async move {
                left(&mut holding, node).await;
                (Happened::Lost, None)
            }));
        }
    }

    /// The next request may come.
    pub(super) fn listen(&mut self) {
        let Some(mut requests) = self.requests.take() else { return };
        self.always.push(Box::pin(async move {
            match requests.message().await {
                Ok(Some(message)) => (Happened::Asked(message), Some(requests)),
                Ok(None) => (Happened::Silent, None),
                // Or it went away; then nobody hears it.
                Err(status) => (Happened::End(as_etcd(status)), None),
            }
        }));
    }

    /// Whether the next request may come, or none will.
    pub(super) fn is_listening(&self) -> bool {
        self.requests.is_none()
    }

    /// Waits until the stream has to end. Nothing else is lost meanwhile.
    pub(super) async fn ended(&mut self) -> Status {
        loop {
            match poll_fn(|context| self.poll_new(context)).await {
                Happened::End(status) => return status,
                happened => self.happened.push_back(happened),
            }
        }
    }

    /// The next that happens.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Happened> {
        match self.happened.pop_front() {
            Some(happened) => Poll::Ready(happened),
            None => self.poll_new(context),
        }
    }

    fn poll_new(&mut self, context: &mut Context<'_>) -> Poll<Happened> {
        let next = match self.of_source.poll_next_unpin(context) {
            Poll::Ready(Some(next)) => Some(next),
            // Without any it is not pending, but over.
            _ => match self.always.poll_next_unpin(context) {
                Poll::Ready(next) => next,
                Poll::Pending => None,
            },
        };
        let Some((happened, requests)) = next else { return Poll::Pending };
        if requests.is_some() {
            self.requests = requests;
        }
        if let Happened::Tick = happened {
            self.always.push(tick());
        }
        Poll::Ready(happened)
    }
}

fn tick() -> Future {
    Box::pin(async {
        sleep(PROGRESS_EVERY).await;
        (Happened::Tick, None)
    })
}

/// Returns when all of the keyspace is at that node no more, this one if none is named.
async fn left(holding: &mut watch::Receiver<Option<Holding>>, node: Option<NodeId>) {
    let is_left = |holding: &Option<Holding>| match (holding, node) {
        (None, _) => false,
        (Some(holding), None) => !holding.is_here,
        (Some(holding), Some(node)) => !holding.others.contains(&node),
    };
    if holding.wait_for(is_left).await.is_err() {
        std::future::pending().await
    }
}
