//! One client's stream of watches, from its first message to its end.

use super::aside::{Aside, Happened};
use super::assembled::Assembled;
use super::resume::{self, Resume};
use super::source::{Afar, ask, convert};
use super::telling::{Telling, revisions};
use super::{Context, LOST_TIMEOUTS_MAX, PAUSE, rejected};
use crate::runtime::keyspaces::Keyspace;
use crate::runtime::watch_thread::WatchStream;
use quorate_api::pb;
use quorate_node::Holding;
use quorate_partition::watch::Refusal;
use quorate_types::{Rejection, Term};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Status, Streaming};

/// How often hubs are asked how far quiet watches are, where they may have to go on elsewhere.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// Streams that were opened at other nodes, so that they go to all of them in turns.
static OPENED: AtomicUsize = AtomicUsize::new(0);

/// The stream. It is driven by the connection that carries its responses, whenever that takes another: there is no queue in
/// between, and what the client does not take stays in the hub, whose queues are bounded, or on the way from there, which has a window.
/// It ends when it is dropped.
pub(in crate::services) struct Session {
    context: Context,
    here: Arc<Keyspace>,
    /// Other nodes' clients are served from here or not at all.
    is_for_peer: bool,
    source: Option<Source>,
    /// Since when there has been no hub that lasted.
    lost: Instant,
    /// When the last one was found.
    opened: Option<Instant>,
    resume: Resume,
    aside: Aside,
    /// It was not looked at when the hub woke the stream last.
    is_aside_due: bool,
    /// For the hub, before anything else of the client is read.
    asks: VecDeque<pb::WatchRequest>,
    /// From the hub, not looked at.
    told: VecDeque<Telling>,
    /// For the client, not from the hub.
    answers: VecDeque<pb::WatchResponse>,
    /// The hub may have something.
    is_due: bool,
    is_over: bool,
    holding: watch::Receiver<Option<Holding>>,
}

/// Where the watches are.
enum Source {
    Here(WatchStream),
    Afar(Box<Afar>),
    Assembled(Box<Assembled>),
}

/// What woke a session.
enum Woken {
    /// There is something to do at the next look.
    Look,
    /// The hub says something.
    Told(pb::WatchResponse),
    /// The hub is no more.
    Lost,
    End(Status),
    /// Something else happened.
    Aside(Happened),
}

impl Session {
    pub(super) fn new(
        context: Context,
        here: Arc<Keyspace>,
        requests: Streaming<pb::WatchRequest>,
        ending: impl Future<Output = Status> + Send + 'static,
        is_for_peer: bool,
    ) -> Self {
        let holding = here.holding();
        Self {
            context,
            here,
            is_for_peer,
            source: None,
            lost: Instant::now(),
            opened: None,
            resume: Resume::default(),
            aside: Aside::new(requests, ending, !is_for_peer),
            is_aside_due: false,
            asks: VecDeque::new(),
            told: VecDeque::new(),
            answers: VecDeque::new(),
            is_due: false,
            is_over: false,
            holding,
        }
    }

    /// What there is for the client without waiting.
    pub(in crate::services) fn next_now(&mut self) -> Option<Telling> {
        if self.is_over {
            return None;
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(self.signed(answer.into()));
        }
        while let Some(told) = self.told.pop_front() {
            if let Some(told) = self.noted(told) {
                return Some(self.signed(told));
            }
        }
        None
    }

    /// What the client gets next.
    pub(in crate::services) async fn next(&mut self) -> Option<Result<Telling, Status>> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some(next) = self.next_now() {
                return Some(Ok(next));
            }
            if self.source.is_none() {
                if let Err(status) = self.open().await {
                    return self.end(status);
                }
                continue;
            }
            if self.is_due || !self.asks.is_empty() {
                // If the hub has more than it tells now, it says so again.
                self.is_due = false;
                match self.push() {
                    Ok(true) => continue,
                    // It may have read history that had nothing for the client, and have more to read: others have their turn in between.
                    Ok(false) => tokio::task::yield_now().await,
                    Err(status) => return self.end(status),
                }
            }
            let happened = match self.woken().await {
                Woken::Look => {
                    self.is_due = true;
                    continue;
                }
                Woken::Told(told) => {
                    self.told.push_back(told.into());
                    continue;
                }
                Woken::Lost => Happened::Lost,
                Woken::End(status) => Happened::End(status),
                Woken::Aside(happened) => happened,
            };
            match happened {
                Happened::Asked(request) => {
                    let (asked, answer) = self.resume.ask(request);
                    self.asks.extend(asked);
                    self.answers.extend(answer);
                }
                Happened::Silent => {}
                Happened::Lost if self.is_for_peer => return self.end(elsewhere()),
                Happened::Lost => self.lose(),
                Happened::Tick => {
                    if self.resume.wants_progress() && self.asks.is_empty() {
                        self.asks.push_back(resume::progress());
                    }
                }
                Happened::End(status) => return self.end(status),
            }
        }
    }

    /// Hands a hub of this node what it is asked and takes what it tells; returns whether it told anything.
    fn push(&mut self) -> Result<bool, Status> {
        let stream = match &mut self.source {
            Some(Source::Here(stream)) => stream,
            Some(Source::Assembled(assembled)) => {
                while assembled.accepts()
                    && let Some(asked) = self.asks.pop_front()
                {
                    assembled.ask(asked);
                }
                return Ok(false);
            }
            Some(Source::Afar(_)) | None => return Ok(false),
        };
        while !self.asks.is_empty()
            && stream.accepts()
            && let Some(asked) = self.asks.pop_front()
        {
            ask(stream, asked).map_err(refused)?;
        }
        let told = stream.poll().map_err(|fault| {
            tracing::error!(%fault, "reading history for a watch failed");
            self.context.gateway.suspect(&fault);
            crate::services::unreadable(&fault)
        })?;
        self.told.extend(told.into_iter().map(convert));
        Ok(!self.told.is_empty())
    }

    /// Waits for whatever comes first. Nothing is lost when the future is dropped.
    async fn woken(&mut self) -> Woken {
        let has_room = self.asks.is_empty() && self.resume.accepts();
        let accepts = match &self.source {
            None => return Woken::Look,
            Some(Source::Here(stream)) => !self.aside.is_listening() && stream.accepts(),
            Some(Source::Afar(_)) => true,
            Some(Source::Assembled(assembled)) => assembled.accepts(),
        };
        if has_room && accepts {
            self.aside.listen();
        }
        let aside = &mut self.aside;
        match &mut self.source {
            None => Woken::Look,
            Some(Source::Here(stream)) => {
                let is_aside_due = &mut self.is_aside_due;
                poll_fn(|context| either(stream, aside, is_aside_due, context)).await
            }
            Some(Source::Afar(afar)) => tokio::select! {
                happened = poll_fn(|context| aside.poll_next(context)) => Woken::Aside(happened),
                told = afar.responses.message() => match told {
                    Ok(Some(told)) => Woken::Told(told),
                    // Whatever its reason: another may have none.
                    Ok(None) | Err(_) => Woken::Lost,
                },
                permit = afar.requests.reserve(), if !self.asks.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(asked) = self.asks.pop_front() {
                            permit.send(asked);
                        }
                        Woken::Look
                    }
                    Err(_) => Woken::Lost,
                },
            },
            Some(Source::Assembled(assembled)) => tokio::select! {
                happened = poll_fn(|context| aside.poll_next(context)) => Woken::Aside(happened),
                told = assembled.next() => match told {
                    Some(told) => Woken::Told(told),
                    None => Woken::End(rejected(Rejection::Unavailable)),
                },
            },
        }
    }

    /// Finds a hub for the watches that the client has, and those it still waits for.
    async fn open(&mut self) -> Result<(), Status> {
        // One that was lost at once is not asked again at once.
        let rest = self.opened.and_then(|opened| PAUSE.checked_sub(opened.elapsed()));
        let Self { context, here, holding, aside, lost, is_for_peer, .. } = self;
        let source = tokio::select! {
            found = async {
                if let Some(rest) = rest {
                    sleep(rest).await;
                }
                find(context, here, holding, *lost, *is_for_peer).await
            } => found?,
            status = aside.ended() => return Err(status),
        };
        let node = match &source {
            Source::Here(_) => Some(None),
            Source::Afar(afar) => Some(Some(afar.node)),
            Source::Assembled(_) => None,
        };
        self.aside.moved(node.map(|node| (self.holding.clone(), node)));
        self.source = Some(source);
        self.is_due = true;
        self.opened = Some(Instant::now());
        let (asks, answers) = self.resume.reopen();
        self.asks = asks.into();
        self.answers.extend(answers);
        Ok(())
    }

    fn lose(&mut self) {
        // What was opened and lost at once has not been found.
        if self.opened.is_some_and(|opened| opened.elapsed() > self.context.config.election_timeout) {
            self.lost = Instant::now();
        }
        self.source = None;
        self.aside.moved(None);
        // What the client was not told of is told again.
        self.told.clear();
        self.asks.clear();
    }

    fn end(&mut self, status: Status) -> Option<Result<Telling, Status>> {
        self.is_over = true;
        Some(Err(status))
    }

    /// What the client is told of what a hub tells.
    fn noted(&mut self, told: Telling) -> Option<Telling> {
        if let Telling::Events { id, header, events } = &told
            && let Some(revisions) = revisions(events)
            && self.resume.is_all_new(*id, header.revision, revisions)
        {
            return Some(told);
        }
        self.resume.told(told.whole()).map(Telling::from)
    }

    /// With this node's header, whoever has said it.
    fn signed(&self, told: Telling) -> Telling {
        let header = told.header();
        let term = self.here.saw(Term(header.raft_term));
        let revision = quorate_types::Revision(u64::try_from(header.revision).unwrap_or(0));
        told.signed(self.context.signature(revision, term))
    }
}

/// What happens first, at a hub of this node or besides. It is the hub, as a rule: then all else is not looked at, but the next time in any case.
fn either(
    stream: &WatchStream,
    aside: &mut Aside,
    is_aside_due: &mut bool,
    context: &mut task::Context<'_>,
) -> Poll<Woken> {
    let was_due = std::mem::take(is_aside_due);
    if !was_due && stream.poll_ready(context).is_ready() {
        *is_aside_due = true;
        return Poll::Ready(Woken::Look);
    }
    match aside.poll_next(context) {
        Poll::Ready(happened) => Poll::Ready(Woken::Aside(happened)),
        Poll::Pending if was_due => stream.poll_ready(context).map(|()| Woken::Look),
        Poll::Pending => Poll::Pending,
    }
}

fn refused(refusal: Refusal) -> Status {
    Status::resource_exhausted(format!("etcdserver: {refusal}"))
}

fn elsewhere() -> Status {
    Status::unavailable("this node has not all of the keyspace")
}

/// Opens a stream at this node's hub or another's, for as long as that may take.
async fn find(
    context: &Context,
    here: &Arc<Keyspace>,
    holding: &mut watch::Receiver<Option<Holding>>,
    lost: Instant,
    is_for_peer: bool,
) -> Result<Source, Status> {
    let timeout = context.config.election_timeout;
    loop {
        let known = holding.borrow_and_update().clone();
        let is_known = known.is_some();
        let Holding { is_here, others, .. } = known.unwrap_or_default();
        if is_here {
            return here.hub.open().map(Source::Here).map_err(refused);
        }
        if is_for_peer {
            return Err(elsewhere());
        }
        // As long as it is not known what the keyspace consists of, this node has just begun.
        if is_known && lost.elapsed() > LOST_TIMEOUTS_MAX * timeout {
            return Err(rejected(Rejection::Unavailable));
        }
        if !others.is_empty() {
            let node = others[OPENED.fetch_add(1, Ordering::Relaxed) % others.len()];
            let opening = Afar::open(&context.calls, node, here.reader.keyspace());
            match tokio::time::timeout(timeout, opening).await {
                Ok(Ok(afar)) => return Ok(Source::Afar(Box::new(afar))),
                Ok(Err(status)) => tracing::debug!(%node, %status, "a watch stream is not opened there"),
                Err(_) => tracing::debug!(%node, "no answer to the opening of a watch stream"),
            }
        }
        if is_known
            && others.is_empty()
            && let Some(assembled) = Assembled::new(context, here, here.holding())
        {
            return Ok(Source::Assembled(Box::new(assembled)));
        }
        tokio::select! {
            changed = holding.changed() => if changed.is_err() {
                // The keyspace is deleted, which the caller is told otherwise.
                sleep(PAUSE).await;
            },
            () = sleep(PAUSE) => {}
        }
    }
}
