//! A stream's watches where no node has all of the keyspace: at several nodes, kept together by an [`Assembly`].

use super::assembly::{Assembly, PartId};
use super::cover::cover;
use super::part::Part;
use super::{Context, LOST_TIMEOUTS_MAX, PAUSE};
use crate::runtime::keyspaces::Keyspace;
use futures_core::Stream;
use quorate_api::pb;
use quorate_node::Holding;
use quorate_types::{NodeId, Rules, SlotSet};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll};
use std::time::Instant;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tonic::Status;

/// Streams that were put together, so that equals among the nodes are asked in turns.
static ASSEMBLED: AtomicUsize = AtomicUsize::new(0);

/// The stream. It goes on when it is polled: what nobody takes stays at the nodes, or on the way from there.
pub(super) struct Assembled {
    context: Context,
    here: Arc<Keyspace>,
    holding: watch::Receiver<Option<Holding>>,
    assembly: Assembly,
    parts: BTreeMap<PartId, Part>,
    openings: JoinSet<(PartId, NodeId, Result<Part, Status>)>,
    /// Who would not tell of a part, or ended telling, and when.
    shunned: BTreeMap<NodeId, Instant>,
    /// When slots that are at no node are looked for again.
    again: Option<Pin<Box<Sleep>>>,
    /// Since when there has not been a node for every slot, but for a moment.
    lacking: Option<Instant>,
    /// Since when there is.
    complete: Option<Instant>,
    turn: usize,
}

impl Assembled {
    /// A stream without watches; `None` while there is no node for some slots, for all that is known.
    pub(super) fn new(
        context: &Context,
        here: &Arc<Keyspace>,
        holding: watch::Receiver<Option<Holding>>,
    ) -> Option<Self> {
        let rules: Arc<Rules> = here.rules()?;
        let assembled = Self {
            context: context.clone(),
            here: here.clone(),
            holding,
            assembly: Assembly::new(rules),
            parts: BTreeMap::new(),
            openings: JoinSet::new(),
            shunned: BTreeMap::new(),
            again: None,
            lacking: None,
            complete: None,
            turn: ASSEMBLED.fetch_add(1, Ordering::Relaxed),
        };
        let (own, others) = assembled.holders();
        let ranges = own.ranges().chain(others.values().flat_map(|held| held.ranges()));
        SlotSet::from_ranges(ranges).is_all().then_some(assembled)
    }

    /// Whether another request may be asked.
    pub(super) fn accepts(&self) -> bool {
        self.assembly.accepts()
    }

    /// The client asks something.
    pub(super) fn ask(&mut self, request: pb::WatchRequest) {
        self.assembly.ask(request);
    }

    /// What is told next; `None` when there has been no node for some slots for too long. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<pb::WatchResponse> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<pb::WatchResponse>> {
        loop {
            self.send_asks();
            if let Some(told) = self.assembly.next() {
                return Poll::Ready(Some(told));
            }
            if !self.place(cx) {
                return Poll::Ready(None);
            }
            let mut has_moved = false;
            while let Poll::Ready(Some(opened)) = self.openings.poll_join_next(cx) {
                has_moved = true;
                // One that panicked, or was aborted with this stream, has no name: its slots are never opened.
                let Ok((id, node, opened)) = opened else { return Poll::Ready(None) };
                match opened {
                    Ok(part) => self.opened(id, part),
                    Err(status) => {
                        tracing::debug!(%node, %status, "a part of a watch stream is not opened there");
                        self.lose(id, node);
                    }
                }
            }
            let read: Vec<PartId> =
                self.parts.keys().copied().filter(|id| self.assembly.is_read(*id)).collect();
            for id in read {
                let Some(part) = self.parts.get_mut(&id) else { continue };
                let node = part.node;
                let Poll::Ready(told) = Stream::poll_next(part.responses.as_mut(), cx) else { continue };
                has_moved = true;
                let is_sound = match told {
                    Some(Ok(told)) => self.assembly.told(id, told).is_ok(),
                    Some(Err(status)) => {
                        tracing::debug!(%node, %status, "a part of a watch stream is lost");
                        false
                    }
                    None => false,
                };
                if !is_sound {
                    self.lose(id, node);
                }
            }
            if !has_moved {
                return Poll::Pending;
            }
        }
    }

    fn send_asks(&mut self) {
        for (id, part) in &self.parts {
            while let Some(ask) = self.assembly.next_ask(*id) {
                // Who does not read them any more ends the stream, which is seen there.
                let _ = part.requests.send(ask);
            }
        }
    }

    fn opened(&mut self, id: PartId, part: Part) {
        self.parts.insert(id, part);
        self.assembly.opened(id);
        if self.openings.is_empty() && self.assembly.unplaced().next().is_none() {
            self.complete = Some(Instant::now());
        }
    }

    fn lose(&mut self, id: PartId, node: NodeId) {
        self.parts.remove(&id);
        self.assembly.lost(id);
        self.shunned.insert(node, Instant::now());
        // What was found and lost at once has not been found.
        let timeout = self.context.config.election_timeout;
        if self.complete.take().is_some_and(|complete| complete.elapsed() > timeout) {
            (self.lacking, self.again) = (None, None);
        }
    }

    /// What this node holds, and others, of whom those that were asked in vain just now are left out.
    fn holders(&self) -> (Arc<SlotSet>, BTreeMap<NodeId, Arc<SlotSet>>) {
        let holding = self.holding.borrow().clone().unwrap_or_default();
        let mut others = holding.parts;
        let all = Arc::new(SlotSet::all());
        others.extend(holding.others.into_iter().map(|node| (node, Arc::clone(&all))));
        let timeout = self.context.config.election_timeout;
        let is_shunned = |node: &NodeId| self.shunned.get(node).is_some_and(|at| at.elapsed() < timeout);
        others.retain(|node, _| !is_shunned(node));
        (holding.held, others)
    }

    /// Finds nodes for slots that are at none; returns false when that has been in vain for too long.
    fn place(&mut self, cx: &mut task::Context<'_>) -> bool {
        let timeout = self.context.config.election_timeout;
        while self.assembly.unplaced().next().is_some() {
            let lacking = *self.lacking.get_or_insert_with(Instant::now);
            if lacking.elapsed() > LOST_TIMEOUTS_MAX * timeout {
                return false;
            }
            if let Some(again) = &mut self.again
                && again.as_mut().poll(cx).is_pending()
            {
                return true;
            }
            self.again = Some(Box::pin(tokio::time::sleep(PAUSE)));
            let (own, others) = self.holders();
            let own = (self.context.gateway.identity().node, &*own);
            let unplaced: Vec<(PartId, SlotSet)> =
                self.assembly.unplaced().map(|(id, slots)| (id, slots.clone())).collect();
            for (id, slots) in unplaced {
                let found = cover(&slots, own, &others, self.turn);
                let pieces = found.iter().map(|(_, slots)| slots.clone()).collect();
                let placed = self.assembly.place(id, pieces);
                for (id, (node, slots)) in placed.into_iter().zip(found) {
                    self.begin(id, node, Arc::new(slots));
                }
            }
        }
        true
    }

    /// Has a node tell of a part.
    fn begin(&mut self, id: PartId, node: NodeId, slots: Arc<SlotSet>) {
        if node == self.context.gateway.identity().node {
            match Part::here(&self.context, &self.here, slots) {
                Ok(Some(part)) => self.opened(id, part),
                Ok(None) | Err(_) => self.assembly.lost(id),
            }
            return;
        }
        let (calls, keyspace) = (Arc::clone(&self.context.calls), self.here.reader.keyspace());
        let timeout = self.context.config.election_timeout;
        self.openings.spawn(async move {
            let opening = Part::afar(&calls, node, keyspace, &slots);
            let opened = tokio::time::timeout(timeout, opening).await;
            (id, node, opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))))
        });
    }
}
