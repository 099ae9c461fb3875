//! The task that owns the host. It never waits but for its inputs, and for the disk where nobody would share a sync.

use super::complaint::Complaint;
use super::inbox::Inbox;
use super::keyspaces::Keyspaces;
use super::log_thread::LogWriter;
use super::removal::Removal;
use super::standing::{Standing, Survivors};
use super::transport::Transport;
use crate::engine::DiskEngine;
use crate::events::Told;
use crate::events::recorder::Recorder;
use crate::priority::serves;
use crate::repair::Order;
use crossbeam_channel::Sender;
use quorate_consensus::Message;
use quorate_node::recovery::RecoverRefused;
use quorate_node::{Done, Effects, Errand, Grant, Host, IfBehind, Notice, PeerMessage, Ticket, WriteId};
use quorate_types::{
    Entry, Fault, GroupId, Incarnation, KeyRange, KeyspaceId, KeyspaceMap, LogWrite, NodeId, Position,
    Rejection, Reply, Request, Revision, Rules, Term, crash_point,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

/// Inputs handled before the host is asked for effects: more make larger batches, fewer answer sooner.
const INPUTS_PER_ROUND_MAX: usize = 1_024;
/// Between two lines about senseless messages: a peer that is confused may be so for each of its messages.
const SUSPICION_INTERVAL: Duration = Duration::from_secs(1);

/// For so long after something of a read came, the log thread syncs: a read waits for no disk, and another one is likely to come.
const READS_EXPECTED: Duration = Duration::from_millis(2);

/// Between two looks at whether it has changed where all of each keyspace is, in ticks,
const HOLDING_TICKS: u64 = 5;
/// and between two looks where nothing seems to have.
const HOLDING_ANYWAY_TICKS: u64 = 50;

/// Everything that can wake the worker.
pub enum Input {
    /// A peer's messages.
    Receive(NodeId, Incarnation, Vec<PeerMessage>),
    /// A client's call.
    Request(KeyspaceId, Request, oneshot::Sender<Result<Reply, Rejection>>),
    /// A client wants to read these ranges here; none are all.
    Barrier(KeyspaceId, Vec<KeyRange>, IfBehind, oneshot::Sender<Result<Grant, Rejection>>),
    /// Watches here wait for this revision to be settled.
    AwaitSettled(KeyspaceId, Revision),
    /// The log is durable up to this write.
    Persisted(WriteId),
    /// The ordered store is durable.
    Flushed,
    /// Rows of a snapshot were read or written.
    ErrandDone(Done<DiskEngine>),
    /// These groups hold old parts of the log.
    ReleaseLog(Vec<GroupId>),
    /// The connection from a peer broke.
    PeerLost(NodeId),
    /// Space for writes ran out, or came back.
    NoSpace(bool),
    /// Somebody wants to know how things stand.
    Standing(oneshot::Sender<Standing>),
    /// Somebody wants to know what is left of groups that have lost their quorum.
    Survivors(oneshot::Sender<Survivors>),
    /// An operator orders that a group goes on with what is here, whose log ends there.
    Recover(GroupId, Position, oneshot::Sender<Result<(), RecoverRefused>>),
    /// Hand leaderships over; answered when none is left here.
    HandOver(oneshot::Sender<()>),
    /// A disk failed.
    Fault(Fault),
    /// Something was read that makes no sense: the store is to be given up, when others lead what is in it.
    Suspect(Fault),
    /// End.
    Stop,
}

/// What a node was told that counts only where the cluster is new.
#[derive(Clone, Debug, Default)]
pub struct Wished {
    /// How many partitions.
    pub partitions: Option<u32>,
    /// Which placement rules.
    pub rules: Option<Rules>,
}

/// Where the worker's effects go.
pub struct Outlets {
    /// To the log thread.
    pub log: Sender<(WriteId, Vec<(GroupId, LogWrite)>)>,
    /// The log itself, for writes that nobody would share.
    pub log_writer: Arc<LogWriter>,
    /// To the flush thread.
    pub flush: Sender<()>,
    /// To the threads that read and write snapshots.
    pub snapshot_reads: Sender<Errand<DiskEngine>>,
    /// The other one.
    pub snapshot_writes: Sender<Errand<DiskEngine>>,
    /// To the watch thread.
    pub applied: Sender<(KeyspaceId, quorate_node::effects::Applied)>,
    /// Who watches what; told of every new term, and when a leader is lost or found.
    pub keyspaces: Arc<Keyspaces>,
    /// To the peers.
    pub transport: Transport,
    /// Leader changes seen, for metrics.
    pub metrics: Arc<crate::metrics::Metrics>,
    /// Told of what happens, for people.
    pub recorder: Recorder,
    /// Where the node's standing is recorded.
    pub data_dir: PathBuf,
    /// Told when the cluster has removed this node.
    pub removal: Arc<Removal>,
    /// Compared with what the default keyspace is.
    pub wished: Wished,
}

/// Why a worker stops by itself.
#[derive(Debug)]
pub struct Stopped {
    /// What it met.
    pub fault: Fault,
    /// What is to become of the store if that is damage.
    pub order: Order,
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self { fault, order: Order::Leave }
    }
}

/// The worker.
pub struct Worker {
    host: Host<DiskEngine>,
    inputs: Inbox,
    /// What was taken from there and is not handled yet.
    taken: VecDeque<Input>,
    outlets: Outlets,
    tick: Duration,
    next_ticket: u64,
    /// The newest write given to the log thread, and the newest that is durable.
    logged: WriteId,
    persisted: WriteId,
    /// When something of a read last came.
    read_seen: Instant,
    replies: HashMap<Ticket, oneshot::Sender<Result<Reply, Rejection>>>,
    grants: HashMap<Ticket, oneshot::Sender<Result<Grant, Rejection>>>,
    handing_over: Vec<oneshot::Sender<()>>,
    suspicions: Complaint,
    /// For this the store is to be given up.
    suspect: Option<Fault>,
    /// The partitions of each keyspace.
    partitions: BTreeMap<KeyspaceId, Vec<GroupId>>,
    /// Groups whose leader is known here.
    led: BTreeSet<GroupId>,
    /// What the last look at where keyspaces are was based on, and whether all are here.
    places_seen: (u64, u64),
    unheard_seen: BTreeSet<NodeId>,
    is_all_here: bool,
}

impl Worker {
    /// A worker that is not running yet.
    pub fn new(host: Host<DiskEngine>, inputs: Inbox, outlets: Outlets, tick: Duration) -> Self {
        // Replies that peers still owe this node's last life must not answer calls of this one.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            host,
            inputs,
            taken: VecDeque::new(),
            outlets,
            tick,
            next_ticket: now.as_micros() as u64,
            logged: WriteId(0),
            persisted: WriteId(0),
            read_seen: Instant::now(),
            replies: HashMap::new(),
            grants: HashMap::new(),
            handing_over: Vec::new(),
            suspicions: Complaint::every(SUSPICION_INTERVAL),
            suspect: None,
            partitions: BTreeMap::from([(KeyspaceId::SYSTEM, vec![GroupId::META])]),
            led: BTreeSet::new(),
            places_seen: (0, 0),
            unheard_seen: BTreeSet::new(),
            is_all_here: false,
        }
    }

    /// Runs until told to stop. A fault means that this node's disk cannot be trusted any more: nothing is
    /// acknowledged after it.
    pub async fn run(mut self) -> Result<(), Stopped> {
        let mut next_tick = Instant::now() + self.tick;
        let mut timer = pin!(tokio::time::sleep_until(next_tick.into()));
        loop {
            serves(false);
            if !self.taken.is_empty() {
                // There were more than a round takes: what the last one has answered and sent leaves first.
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    biased;
                    () = self.inputs.arrived() => {}
                    () = timer.as_mut() => {}
                }
                self.inputs.take(&mut self.taken);
            }
            serves(true);
            for _ in 0..INPUTS_PER_ROUND_MAX {
                let Some(input) = self.taken.pop_front() else { break };
                if let Input::Stop = input {
                    return Ok(());
                }
                // Looked at after each input is taken: one that came while we were paused must find the lease gone.
                if Instant::now() > next_tick + self.tick {
                    self.host.slept();
                    next_tick = Instant::now();
                }
                self.handle(input)?;
            }
            let now = Instant::now();
            if now > next_tick + self.tick {
                self.host.slept();
            }
            if now >= next_tick {
                self.host.tick()?;
                self.tick_holdings();
                if let Some(fault) = &self.suspect
                    && self.host.leave_store()
                {
                    return Err(Stopped { fault: fault.clone(), order: Order::PutAside });
                }
                if !self.handing_over.is_empty() && self.host.hand_over() {
                    for done in self.handing_over.drain(..) {
                        // Whoever asked may have stopped waiting.
                        let _ = done.send(());
                    }
                }
                // Ticks missed in a pause are not made up for: leases then live longer, never shorter.
                next_tick = (next_tick + self.tick).max(now);
                timer.as_mut().reset(next_tick.into());
            }
            loop {
                let effects = self.host.take()?;
                let is_more = self.carry_out(effects).await?;
                for errand in self.host.errands() {
                    let outlets = &self.outlets;
                    let thread =
                        if errand.is_write() { &outlets.snapshot_writes } else { &outlets.snapshot_reads };
                    // They end only with this one, or after a fault that ends the process.
                    let _ = thread.send(errand);
                }
                if !is_more {
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
                if messages.iter().any(is_of_read) {
                    self.read_seen = Instant::now();
                }
                for message in messages {
                    self.host.receive(from, incarnation, message)?;
                }
            }
            Input::Request(keyspace, request, reply) => {
                let ticket = self.ticket();
                self.replies.insert(ticket, reply);
                self.host.request(ticket, keyspace, request)?;
            }
            Input::Barrier(keyspace, ranges, if_behind, grant) => {
                self.read_seen = Instant::now();
                let ticket = self.ticket();
                self.grants.insert(ticket, grant);
                self.host.barrier(ticket, keyspace, ranges, if_behind)?;
            }
            Input::AwaitSettled(keyspace, revision) => self.host.await_settled(keyspace, revision),
            Input::Persisted(write) => {
                self.persisted = write;
                self.host.persisted(write);
            }
            Input::Flushed => {
                crash_point("store.flush.told");
                self.host.flushed();
            }
            Input::ErrandDone(done) => self.host.errand_done(done)?,
            Input::ReleaseLog(groups) => self.host.release_log(groups),
            Input::PeerLost(node) => {
                self.outlets.recorder.tell(Told::ConnectionLost(node));
                self.host.peer_lost(node);
            }
            Input::NoSpace(no_space) => self.host.set_no_space(no_space),
            Input::Standing(answer) => {
                let maps = std::iter::once(KeyspaceMap::system()).chain(self.host.maps().cloned()).collect();
                let used =
                    self.host.maps().filter_map(|map| Some((map.id, self.host.keyspace_bytes(map.id)?)));
                let used_bytes = used.collect();
                let held_back =
                    self.host.maps().filter_map(|map| Some((map.id, self.host.held_back(map.id)?))).collect();
                // Whoever asked may have stopped waiting.
                let (groups, unheard) = (self.host.status(), self.host.unheard().clone());
                let led_afar = self.led_afar();
                let _ = answer.send(Standing { maps, groups, led_afar, used_bytes, unheard, held_back });
            }
            Input::Survivors(answer) => {
                let maps: Vec<KeyspaceMap> =
                    std::iter::once(KeyspaceMap::system()).chain(self.host.maps().cloned()).collect();
                let named =
                    |id: GroupId| maps.iter().find(|map| map.id == id.keyspace).map(|map| map.name.clone());
                let groups = self.host.survivors().into_iter();
                let groups = groups.filter_map(|(id, survivor)| Some((named(id)?, id, survivor))).collect();
                // Whoever asked may have stopped waiting.
                let _ = answer.send(Survivors { groups, members: self.host.members() });
            }
            Input::Recover(group, shown, answer) => {
                warn!(%group, %shown, "ordered to go on with what this node has of the group, in spite of what others had");
                let outcome = self.host.recover(group, Some(shown))?;
                if let Err(refused) = &outcome {
                    warn!(%group, %refused, "not recovered");
                }
                let _ = answer.send(outcome);
            }
            Input::HandOver(done) => {
                if self.host.hand_over() {
                    let _ = done.send(());
                } else {
                    self.handing_over.push(done);
                }
            }
            Input::Fault(fault) => return Err(fault),
            Input::Suspect(fault) => self.suspect(fault),
            Input::Stop => {}
        }
        Ok(())
    }

    /// The store is to be given up.
    fn suspect(&mut self, fault: Fault) {
        if self.suspect.is_none() {
            error!(%fault, "the store is damaged; what is led here is handed over, and if others lead all that is in it, it is filled anew");
            self.outlets.recorder.tell(Told::Suspect(fault.to_string()));
            self.suspect = Some(fault);
        }
    }

    /// Returns whether there is more to take: a write was made durable at once.
    async fn carry_out(&mut self, effects: Effects) -> Result<bool, Fault> {
        // With nothing to write and nobody to answer there is nothing that could be cut short.
        let matters = effects.persist.is_some() || !effects.replies.is_empty();
        if matters {
            crash_point("round.begun");
        }
        // Before anything is sent. Rare enough to be done here: once in a directory's life, and when a peer has lost its.
        if let Some(quorate_node::Standing::Admitted(lives)) = &effects.standing {
            crate::data_dir::record_standing(&self.outlets.data_dir, lives)
                .map_err(|error| Fault::new("recording that this node takes part", error))?;
            crash_point("standing.recorded");
            self.host.standing_recorded();
        }
        if let Some(fault) = effects.suspect {
            self.suspect(fault);
        }
        // Before anything is sent to a new one.
        if let Some(members) = &effects.members {
            self.outlets.transport.set_gone(self.host.removed());
            self.outlets.transport.set_members(members);
            self.outlets.recorder.tell(Told::Members(members.clone()));
        }
        self.outlets.transport.send(effects.send);
        if matters {
            crash_point("round.sent");
        }
        let mut is_written = false;
        if let Some((id, writes)) = effects.persist {
            if self.is_worth_writing_here(&writes) {
                // What was queued for the others leaves first, where their tasks have this thread: they sync while this node does.
                tokio::task::yield_now().await;
                self.outlets.log_writer.write(&writes)?;
                crash_point("round.logged_here");
                self.persisted = id;
                self.logged = id;
                self.host.persisted(id);
                self.host.release_log(self.outlets.log_writer.pinned());
                is_written = true;
            } else {
                self.logged = id;
                // The log thread ends only with this one, or after a fault that ends the process.
                let _ = self.outlets.log.send((id, writes));
                crash_point("round.log_ordered");
            }
        }
        // Before anything is answered: who is told that a keyspace was created finds it.
        for notice in effects.notices {
            self.tell(notice);
        }
        for (ticket, outcome) in effects.replies {
            if let Some(reply) = self.replies.remove(&ticket) {
                let _ = reply.send(outcome);
                crash_point("round.answered");
            }
        }
        for (ticket, outcome) in effects.grants {
            if let Some(grant) = self.grants.remove(&ticket) {
                let _ = grant.send(outcome);
            }
        }
        for applied in effects.applied {
            let keyspace = self.outlets.keyspaces.get(applied.0);
            if keyspace.is_some_and(|it| it.hub.is_watched() && !it.hub.publish_now(&applied.1)) {
                let _ = self.outlets.applied.send(applied);
            }
        }
        if effects.flush {
            let _ = self.outlets.flush.send(());
            crash_point("round.flush_ordered");
        }
        Ok(is_written)
    }

    /// Whether to sync the log on this thread: when one write waits and no other call that could share its sync, handing it
    /// to the log thread and back costs more than it saves (two wake-ups of a thread). Never past what that thread has in hand, never
    /// on a slow disk, and not while there are reads, of any node, that would wait behind it.
    fn is_worth_writing_here(&self, writes: &[(GroupId, LogWrite)]) -> bool {
        let entries = || writes.iter().flat_map(|(_, write)| &write.entries);
        self.persisted == self.logged
            && entries().nth(1).is_none()
            && self.replies.len() + self.grants.len() <= 1
            && self.inputs.is_empty()
            && self.taken.is_empty()
            && self.read_seen.elapsed() > READS_EXPECTED
            && self.outlets.log_writer.is_fast(entries().map(Entry::size).sum())
    }

    /// A group's role, term or leader changed: what its keyspace is told.
    fn note_role(&self, group: GroupId, term: Term) {
        for (keyspace, partitions) in &self.partitions {
            // Where revisions come from the sequencer, its leadership counts as well.
            let is_sequenced = partitions.len() > 1;
            if *keyspace != group.keyspace && !(is_sequenced && group == GroupId::META) {
                continue;
            }
            let Some(told) = self.outlets.keyspaces.get(*keyspace) else { continue };
            told.saw(term);
            told.set_has_leader(self.is_led(partitions));
        }
    }

    /// Whether leaders are known of the only partition of a keyspace, or of all and of who gives them their revisions.
    fn is_led(&self, partitions: &[GroupId]) -> bool {
        let is_sequenced = partitions.len() > 1;
        let is_led = |group: &GroupId| self.led.contains(group) || self.host.is_led_afar(*group);
        partitions.iter().all(is_led) && (!is_sequenced || is_led(&GroupId::META))
    }

    /// Groups that are elsewhere and led, and by whom if that is known.
    fn led_afar(&self) -> BTreeMap<GroupId, Option<NodeId>> {
        let groups = self.partitions.values().flatten().filter(|group| self.host.is_led_afar(**group));
        groups.map(|group| (*group, self.host.leader_of(*group))).collect()
    }

    /// Where all of each keyspace is, and whether those parts of it that are not here are led, changes without a word.
    fn note_holdings(&mut self) {
        let mut is_all_here = true;
        for (keyspace, partitions) in &self.partitions {
            let Some(told) = self.outlets.keyspaces.get(*keyspace) else { continue };
            told.note_holding(|was_here| {
                let holding = self.host.holding(*keyspace, was_here);
                // Where nobody has all, what changes is said by the versions.
                is_all_here &=
                    holding.as_ref().is_none_or(|holding| holding.is_here || !holding.parts.is_empty());
                holding
            });
            told.set_has_leader(self.is_led(partitions));
        }
        self.is_all_here = is_all_here;
    }

    /// Rows and silent members change it, and of what is not here it may have come meanwhile.
    fn tick_holdings(&mut self) {
        let now = self.host.now().0;
        if !now.is_multiple_of(HOLDING_TICKS) {
            return;
        }
        let version = (self.host.places_version(), self.host.held_version());
        let unheard = self.host.unheard();
        let has_changed = self.places_seen != version || self.unheard_seen != *unheard;
        if has_changed {
            (self.places_seen, self.unheard_seen) = (version, unheard.clone());
        }
        if has_changed || !self.is_all_here || now.is_multiple_of(HOLDING_ANYWAY_TICKS) {
            self.note_holdings();
        }
    }

    /// A keyspace's map is known, new or changed.
    fn note_map(&mut self, keyspace: KeyspaceId) {
        let Some(map) = self.host.maps().find(|map| map.id == keyspace) else { return };
        self.outlets.recorder.tell(Told::Map(Box::new(map.clone())));
        if keyspace == KeyspaceId::DEFAULT {
            let wished = std::mem::take(&mut self.outlets.wished);
            // Those that were split off came later.
            let has_partitions = map.partitions.iter().filter(|partition| partition.origin.is_none()).count();
            if wished.partitions.is_some_and(|wished| wished as usize != has_partitions)
                || wished.rules.is_some_and(|wished| wished != map.rules)
            {
                warn!(
                    partitions = has_partitions,
                    rules = map.rules.list().len(),
                    "--partitions, --pin and --spread are not what this cluster was made with, and count for new clusters only: it \
                     keeps what it has; see quorate partitions"
                );
            }
        }
        let group = |partition: &quorate_types::PartitionMap| GroupId { keyspace, partition: partition.id };
        self.partitions.insert(keyspace, map.partitions.iter().map(group).collect());
        if let Some(reader) = self.host.reader(keyspace) {
            self.outlets.keyspaces.add(&map.name, Some(Arc::new(map.rules.clone())), reader);
        }
        let groups = self.host.status();
        for status in
            groups.iter().filter(|status| [keyspace, KeyspaceId::SYSTEM].contains(&status.group.keyspace))
        {
            self.note_role(status.group, status.consensus.term);
        }
        self.note_holdings();
    }

    fn tell(&mut self, notice: Notice) {
        // Of what is told for each message of a confused peer, what is logged is written down.
        if !matches!(notice, Notice::Suspicious { .. }) {
            self.outlets.recorder.tell(Told::Notice(notice.clone()));
        }
        match notice {
            Notice::Role { group, term, role } => {
                use quorate_consensus::Role;
                let is_known = matches!(role, Role::Leader { .. } | Role::Follower { leader: Some(_) });
                if is_known {
                    self.led.insert(group);
                } else {
                    self.led.remove(&group);
                }
                self.note_role(group, term);
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
            Notice::Keyspace { keyspace, partitions } => {
                info!(%keyspace, partitions, "knows the keyspace's partitions");
                self.note_map(keyspace);
            }
            Notice::KeyspaceDeleted { keyspace } => {
                info!(%keyspace, "the keyspace is deleted; removing what is left of it here");
                self.outlets.keyspaces.remove(keyspace);
                self.partitions.remove(&keyspace);
                self.led.retain(|group| group.keyspace != keyspace);
            }
            Notice::Registered { group, term, epoch } => {
                debug!(%group, %term, %epoch, "has revisions from the sequencer");
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
            Notice::HandedOver { group, by } => info!(%group, %by, "told to take the group over"),
            Notice::Diverged { group, index } => {
                self.outlets.metrics.replicas_diverged.inc();
                error!(
                    %group, %index,
                    "the replica here has become something else than those of a quorum, by bits that flipped in memory or a mistake in quorate: its state is given up and fetched from them"
                );
            }
            Notice::DigestsDiffer { group, index } => {
                self.outlets.metrics.replicas_diverged.inc();
                error!(
                    %group, %index,
                    "replicas of the group have become different things, and no quorum says which is right: look at what they hold before you trust any"
                );
            }
            Notice::DiskStalled => error!(
                "the disk has stopped answering: what is led here is handed over; nothing is acknowledged that it has not taken"
            ),
            Notice::DiskBack => warn!("the disk answers again"),
            Notice::Silent { node } => info!(%node, "peer is not heard"),
            Notice::Heard { node } => info!(%node, "peer is heard again"),
            Notice::Current => info!("knows the cluster's rows as they are now"),
            Notice::Member { now: Some(now), .. } => {
                info!(node = %now.id, name = now.name, standing = ?now.standing, "member's row");
            }
            Notice::Member { before, now: None, .. } => {
                let node = before.map(|member| member.id.to_string()).unwrap_or_default();
                info!(node, "member's row is gone");
            }
            Notice::Moves { group, target, .. } => {
                let target: Vec<String> = target.iter().map(NodeId::to_string).collect();
                info!(%group, target = target.join(" "), "group is to be moved");
            }
            Notice::Moved { group, voters, .. } => {
                let voters: Vec<String> = voters.iter().map(NodeId::to_string).collect();
                info!(%group, voters = voters.join(" "), "group was moved");
            }
            Notice::Judged { node, standing } => {
                warn!(%node, ?standing, "member judged by whether it is heard")
            }
            Notice::Damaged { group, what } => error!(
                %group, what,
                "what the store holds of the group is damaged: it is thrown away and fetched from the others"
            ),
            Notice::Recovered { group, lineage, last, commit } => error!(
                %group, lineage, %last, %commit,
                "the group had lost its quorum and goes on with what this node has, as ordered; what others had acknowledged beyond that is lost"
            ),
            Notice::Superseded { group, lineage } => warn!(
                %group, lineage,
                "the group was recovered elsewhere: what this node has of it counts no more and is thrown away"
            ),
            Notice::Discarded { group } => {
                self.led.remove(&group);
                info!(%group, "replica thrown away: the group is elsewhere now");
            }
            Notice::Removed => self.outlets.removal.tell(),
            Notice::Suspicious { from, what } => {
                if let Some(times) = self.suspicions.due() {
                    error!(%from, what, times, "ignored what a peer sent");
                    self.outlets.recorder.tell(Told::Notice(Notice::Suspicious { from, what }));
                }
            }
        }
    }
}

/// Whether somebody's read may wait for the answer to this. A leader's heartbeats at every tick look like those of a round of reads: some in a hundred of writes that
/// nobody shares are then left to the log thread.
fn is_of_read(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Group { message: Message::Heartbeat { round, .. }, .. } => *round > 0,
        PeerMessage::Group { message: Message::ReadRequest { .. }, .. }
        | PeerMessage::ReadAsk { .. }
        | PeerMessage::PartAsk { .. } => true,
        _ => false,
    }
}
