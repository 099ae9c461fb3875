//! The thread that owns the host.

use super::complaint::Complaint;
use super::log_thread::LogWriter;
use super::transport::Transport;
use super::watch_thread::WatchHub;
use crate::engine::FjallEngine;
use crossbeam_channel::{Receiver, Sender};
use quorate_node::{Effects, Grant, GroupStatus, Host, Notice, PeerMessage, Standing, Ticket, WriteId};
use quorate_types::{
    Entry, Fault, GroupId, Incarnation, KeyspaceId, LogWrite, NodeId, Rejection, Reply, Request,
};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

/// Inputs handled before the host is asked for effects: more make larger batches, fewer answer sooner.
const INPUTS_PER_ROUND_MAX: usize = 1_024;
/// Between two lines about senseless messages: a peer that is confused may be so for each of its messages.
const SUSPICION_INTERVAL: Duration = Duration::from_secs(1);

/// Everything that can wake the worker.
pub enum Input {
    /// A peer's messages.
    Receive(NodeId, Incarnation, Vec<PeerMessage>),
    /// A client's call.
    Request(KeyspaceId, Request, oneshot::Sender<Result<Reply, Rejection>>),
    /// A client wants to read here.
    Barrier(KeyspaceId, oneshot::Sender<Result<Grant, Rejection>>),
    /// The log is durable up to this write.
    Persisted(WriteId),
    /// The ordered store is durable.
    Flushed,
    /// These groups hold old parts of the log.
    ReleaseLog(Vec<GroupId>),
    /// The connection from a peer broke.
    PeerLost(NodeId),
    /// Space for writes ran out, or came back.
    NoSpace(bool),
    /// Somebody wants to know how things stand.
    Status(oneshot::Sender<Vec<GroupStatus>>),
    /// Hand leaderships over; answered when none is left here.
    HandOver(oneshot::Sender<()>),
    /// A disk failed.
    Fault(Fault),
    /// End the thread.
    Stop,
}

/// The newest term of each group: what headers say, which never goes back.
pub type Terms = Arc<BTreeMap<GroupId, AtomicU64>>;

/// Since when this node has known no leader of each group; `None` while it knows one.
pub type Leaderless = Arc<BTreeMap<GroupId, watch::Sender<Option<Instant>>>>;

/// Where the worker's effects go.
pub struct Outlets {
    /// To the log thread.
    pub log: Sender<(WriteId, Vec<(GroupId, LogWrite)>)>,
    /// The log itself, for writes that nobody would share.
    pub log_writer: Arc<LogWriter>,
    /// To the flush thread.
    pub flush: Sender<()>,
    /// To the watch thread.
    pub applied: Sender<(GroupId, quorate_node::effects::Applied)>,
    /// Who watches what.
    pub hubs: BTreeMap<GroupId, Arc<WatchHub>>,
    /// To the peers.
    pub transport: Arc<Transport>,
    /// Leader changes seen, for metrics.
    pub metrics: Arc<crate::metrics::Metrics>,
    /// Told of every new term.
    pub terms: Terms,
    /// Where the node's standing is recorded.
    pub data_dir: PathBuf,
    /// Told when a leader is lost or found.
    pub leaderless: Leaderless,
}

/// The worker thread's state.
pub struct Worker {
    host: Host<FjallEngine>,
    inputs: Receiver<Input>,
    outlets: Outlets,
    tick: Duration,
    next_ticket: u64,
    /// The newest write given to the log thread, and the newest that is durable.
    logged: WriteId,
    persisted: WriteId,
    replies: HashMap<Ticket, oneshot::Sender<Result<Reply, Rejection>>>,
    grants: HashMap<Ticket, oneshot::Sender<Result<Grant, Rejection>>>,
    handing_over: Vec<oneshot::Sender<()>>,
    suspicions: Complaint,
}

impl Worker {
    /// A worker that is not running yet.
    pub fn new(host: Host<FjallEngine>, inputs: Receiver<Input>, outlets: Outlets, tick: Duration) -> Self {
        // Replies that peers still owe this node's last life must not answer calls of this one.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            host,
            inputs,
            outlets,
            tick,
            next_ticket: now.as_micros() as u64,
            logged: WriteId(0),
            persisted: WriteId(0),
            replies: HashMap::new(),
            grants: HashMap::new(),
            handing_over: Vec::new(),
            suspicions: Complaint::every(SUSPICION_INTERVAL),
        }
    }

    /// Runs until told to stop. A fault means that this node's disk cannot be trusted any more: nothing is
    /// acknowledged after it.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut next_tick = Instant::now() + self.tick;
        loop {
            if let Ok(input) = self.inputs.recv_deadline(next_tick) {
                let mut next = Some(input);
                let mut handled = 0;
                while let Some(input) = next {
                    if let Input::Stop = input {
                        return Ok(());
                    }
                    // Looked at after each input is taken: one that came while we were paused must find the lease gone.
                    if Instant::now() > next_tick + self.tick {
                        self.host.slept();
                        next_tick = Instant::now();
                    }
                    self.handle(input)?;
                    handled += 1;
                    next = if handled < INPUTS_PER_ROUND_MAX { self.inputs.try_recv().ok() } else { None };
                }
            }
            let now = Instant::now();
            if now > next_tick + self.tick {
                self.host.slept();
            }
            if now >= next_tick {
                self.host.tick()?;
                if !self.handing_over.is_empty() && self.host.hand_over() {
                    for done in self.handing_over.drain(..) {
                        // Whoever asked may have stopped waiting.
                        let _ = done.send(());
                    }
                }
                // Ticks missed in a pause are not made up for: leases then live longer, never shorter.
                next_tick = (next_tick + self.tick).max(now);
            }
            loop {
                let effects = self.host.take()?;
                if !self.carry_out(effects)? {
                    break;
                }
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn handle(&mut self, input: Input) -> Result<(), Fault> {
        match input {
            Input::Receive(from, incarnation, messages) => {
                for message in messages {
                    self.host.receive(from, incarnation, message)?;
                }
            }
            Input::Request(keyspace, request, reply) => {
                let ticket = self.ticket();
                self.replies.insert(ticket, reply);
                self.host.request(ticket, keyspace, request)?;
            }
            Input::Barrier(keyspace, grant) => {
                let ticket = self.ticket();
                self.grants.insert(ticket, grant);
                self.host.barrier(ticket, keyspace)?;
            }
            Input::Persisted(write) => {
                self.persisted = write;
                self.host.persisted(write);
            }
            Input::Flushed => self.host.flushed(),
            Input::ReleaseLog(groups) => self.host.release_log(groups),
            Input::PeerLost(node) => self.host.peer_lost(node),
            Input::NoSpace(no_space) => self.host.set_no_space(no_space),
            Input::Status(answer) => {
                let _ = answer.send(self.host.status());
            }
            Input::HandOver(done) => {
                if self.host.hand_over() {
                    let _ = done.send(());
                } else {
                    self.handing_over.push(done);
                }
            }
            Input::Fault(fault) => return Err(fault),
            Input::Stop => {}
        }
        Ok(())
    }

    /// Returns whether there is more to take: a write was made durable at once.
    fn carry_out(&mut self, effects: Effects) -> Result<bool, Fault> {
        // Before anything is sent. Rare enough to be done here: once in a directory's life, and when a peer has lost its.
        if let Some(Standing::Admitted(lives)) = &effects.standing {
            crate::data_dir::record_standing(&self.outlets.data_dir, lives)
                .map_err(|error| Fault::new("recording that this node takes part", error))?;
            self.host.standing_recorded();
        }
        self.outlets.transport.send(effects.send);
        let mut is_written = false;
        if let Some((id, writes)) = effects.persist {
            if self.is_worth_writing_here(&writes) {
                self.outlets.log_writer.write(&writes)?;
                self.persisted = id;
                self.logged = id;
                self.host.persisted(id);
                self.host.release_log(self.outlets.log_writer.pinned());
                is_written = true;
            } else {
                self.logged = id;
                // The log thread ends only with this one, or after a fault that ends the process.
                let _ = self.outlets.log.send((id, writes));
            }
        }
        for (ticket, outcome) in effects.replies {
            if let Some(reply) = self.replies.remove(&ticket) {
                let _ = reply.send(outcome);
            }
        }
        for (ticket, outcome) in effects.grants {
            if let Some(grant) = self.grants.remove(&ticket) {
                let _ = grant.send(outcome);
            }
        }
        for applied in effects.applied {
            let hub = self.outlets.hubs.get(&applied.0);
            if hub.is_some_and(|hub| hub.is_watched() && !hub.publish_now(&applied.1)) {
                let _ = self.outlets.applied.send(applied);
            }
        }
        if effects.flush {
            let _ = self.outlets.flush.send(());
        }
        for notice in effects.notices {
            self.tell(notice);
        }
        Ok(is_written)
    }

    /// Whether to sync the log on this thread: when one write waits and no other call that could share its sync, handing it
    /// to the log thread and back costs more than it saves (two wake-ups of a thread). Never past what that thread has in hand, and
    /// never on a slow disk.
    fn is_worth_writing_here(&self, writes: &[(GroupId, LogWrite)]) -> bool {
        let entries = || writes.iter().flat_map(|(_, write)| &write.entries);
        self.persisted == self.logged
            && entries().nth(1).is_none()
            && self.replies.len() + self.grants.len() <= 1
            && self.inputs.is_empty()
            && self.outlets.log_writer.is_fast(entries().map(Entry::size).sum())
    }

    fn tell(&mut self, notice: Notice) {
        match notice {
            Notice::Role { group, term, role } => {
                use quorate_consensus::Role;
                if let Some(newest) = self.outlets.terms.get(&group) {
                    newest.fetch_max(term.0, Ordering::Relaxed);
                }
                if let Some(leaderless) = self.outlets.leaderless.get(&group) {
                    let is_known = matches!(role, Role::Leader { .. } | Role::Follower { leader: Some(_) });
                    leaderless.send_if_modified(|since| {
                        let has_changed = is_known == since.is_some();
                        if has_changed {
                            *since = (!is_known).then(Instant::now);
                        }
                        has_changed
                    });
                }
                match role {
                    Role::Leader { .. } => info!(%group, %term, "elected leader"),
                    Role::Follower { leader: Some(leader) } => {
                        self.outlets.metrics.leader_changes.inc();
                        info!(%group, %term, %leader, "follows");
                    }
                    Role::Follower { leader: None } => info!(%group, %term, "knows no leader"),
                    Role::Candidate => info!(%group, %term, "asks for votes"),
                }
            }
            Notice::Serving { group, term } => {
                self.outlets.metrics.leader_changes.inc();
                info!(%group, %term, "leads and serves");
            }
            Notice::SnapshotOffered { group, to, position } => {
                info!(%group, %to, %position, "follower is behind the log, offering it a snapshot");
            }
            Notice::SnapshotFetching { group, from, position } => {
                info!(%group, %from, %position, "behind the log, fetching a snapshot");
            }
            Notice::SnapshotInstalled { group, position, bytes } => {
                info!(%group, %position, bytes, "snapshot is in place");
            }
            Notice::SnapshotFailed { group, reason } => warn!(%group, reason, "snapshot could not be had"),
            Notice::Asking { unanswered } => {
                let nodes: Vec<String> = unanswered.iter().map(NodeId::to_string).collect();
                info!(
                    nodes = nodes.join(" "),
                    "the data directory is new: waiting to hear from every other member before taking part"
                );
            }
            Notice::CatchingUp => warn!(
                "the cluster knows this node, but its data directory is empty: fetching everything from the others; until then it \
                 does not vote"
            ),
            Notice::Admitted => info!("takes part in the cluster"),
            Notice::Reborn { node } => {
                info!(%node, "peer has a new data directory; nothing it promised before counts")
            }
            Notice::Suspicious { from, what } => {
                if let Some(times) = self.suspicions.due() {
                    error!(%from, what, times, "ignored what a peer sent");
                }
            }
        }
    }
}
