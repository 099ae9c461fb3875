//! `quorate serve`: puts a node together, runs it, takes it down.

use crate::belonging::{Belonging, JoinError};
use crate::cli::TargetTls;
use crate::config::{Config, PARTITIONS_DEFAULT, Placement, REPLICAS_DEFAULT};
use crate::data_dir::{self, DataDirError, Owner};
use crate::disk::FileDisk;
use crate::engine::{DiskEngine, Rest};
use crate::events::Told;
use crate::events::recorder::Recorder;
use crate::events::telling::Telling;
use crate::membership;
use crate::metrics::Metrics;
use crate::port::Port;
use crate::priority::yield_to_others;
use crate::repair::{self, Order};
use crate::runtime::calls::{self, Calls};
use crate::runtime::connections::{self, Slots};
use crate::runtime::gateway::{Gateway, Member};
use crate::runtime::hello::{self, Identity};
use crate::runtime::inbox;
use crate::runtime::keyspaces::Keyspaces;
use crate::runtime::log_thread::{self, LogWriter};
use crate::runtime::removal::Removal;
use crate::runtime::scrub;
use crate::runtime::snapshot_threads;
use crate::runtime::transport::{self, Answerer, Transport};
use crate::runtime::watch_thread;
use crate::runtime::worker::{Input, Outlets, Stopped, Wished, Worker};
use crate::services::{self, Context};
use crate::space::Space;
use crate::tls::{self, TlsError};
use crossbeam_channel::RecvTimeoutError;
use quorate_mvcc::engine::Engine;
use quorate_node::{Host, Lives, Options, Standing};
use quorate_storage::wal::{OpenError, Wal, WalOptions};
use quorate_types::{Fault, KeyspaceId, KeyspaceMap, NodeId, crash_point};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{error, info, warn};

/// How often it is looked whether the store has something to spill, or is at rest.
const TEND_INTERVAL: Duration = Duration::from_millis(50);
/// How long leaderships may take to be handed over before the process stops anyway.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// How long writing down the last events may take.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
/// How long open calls may take to finish at the end.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// How long it may take after that to tell those who waited for the worker that it has ended.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(1);
/// A node whose store is open is not connected with until it knows leaders, or so long.
const LEADERS_AWAITED: Duration = Duration::from_secs(1);

/// Why a node did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The cluster is not the node's, or does not take it.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The node is no member any more.
    #[error(
        "node {node} was removed from cluster {cluster}, and its id is not used again. To take part once more, move {path} away and start with an \
         empty directory and --join"
    )]
    Removed {
        /// The node.
        node: quorate_types::NodeId,
        /// Its cluster.
        cluster: quorate_types::ClusterId,
        /// Its data directory.
        path: String,
    },
    /// It is about to begin a cluster of one, and others take it for a member of theirs.
    #[error(
        "node {by} takes this node for a member of cluster {cluster}, but {path} holds nothing: alone, as --initial-cluster says, it would begin the \
         cluster anew. If its disk was lost, move {path} away and start with an empty directory and --join with the client address of another node: it \
         takes its own place when the others take it for lost, or are told to let it go (quorate node remove {name})"
    )]
    Missed {
        /// Who.
        by: quorate_types::NodeId,
        /// The cluster.
        cluster: quorate_types::ClusterId,
        /// The data directory.
        path: String,
        /// What this node is called.
        name: String,
    },
    /// The log cannot be used.
    #[error("cannot open the log: {0}")]
    Log(#[from] OpenError),
    /// The node took part, so it has had a log.
    #[error(
        "the log in {path} is gone, and with it what this node has promised. If the cluster has other nodes, move the whole data \
         directory away and start with an empty one: it is filled from them"
    )]
    LogLost {
        /// Where it was.
        path: String,
    },
    /// The disk cannot be trusted any more.
    #[error(
        "this node stops, its disk cannot be trusted: {0}. With the node stopped, quorate doctor DATA_DIR says what is damaged and how it is filled \
         from the others"
    )]
    Fault(#[from] Fault),
    /// The same, and something can be done about it.
    #[error("this node begins anew, to have what is damaged repaired: {0}")]
    Repairs(Fault),
    /// Store, or log and store, were to be filled anew.
    #[error("what is damaged cannot be put aside: {0}")]
    Repair(String),
    /// The worker ended by a panic.
    #[error(
        "this node stops because of a mistake in quorate, told of in the lines above; please report it. What was acknowledged is \
         on disk: the node can be started again"
    )]
    Mistake,
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} for {whom}: {cause}; is another process using it? See --listen-client, --listen-keyspace and --listen-peer"
    )]
    Listen {
        /// The address.
        address: String,
        /// Clients or peers.
        whom: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Something of the system's failed.
    #[error("{doing}: {cause}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// Runs a node until it is told to stop (SIGTERM, Ctrl-C), its disk fails or the cluster removes it.
///
/// `tls` says how to trust the cluster that it is to join.
pub async fn serve(config: Config, tls: &TargetTls) -> Result<(), ServeError> {
    let client_tls = config.client_tls.as_ref().map(tls::for_clients).transpose()?;
    let peer_tls = config.peer_tls.as_ref().map(tls::for_peers).transpose()?;
    let mut ports = vec![(None, Port::take(&config.listen_client, "clients").await?)];
    for (keyspace, address) in &config.listen_keyspaces {
        ports.push((Some(keyspace.clone()), Port::take(address, "clients of a keyspace").await?));
    }
    let peer_listener = Port::take(&config.listen_peer, "peers").await?.listen()?;
    // While all were open it was seen that they are different. Nobody is to wait behind them for what may take long.
    let closed = ports.into_iter().map(|(of, port)| Ok((of, port.closed()?)));
    let mut ports = closed.collect::<Result<Vec<_>, ServeError>>()?;
    // After it is sure that others can reach it.
    let (belonging, mut data_dir) = Belonging::settle(&config, tls).await?;
    let (cluster, node) = (belonging.cluster, belonging.node);
    let removed = || ServeError::Removed { node, cluster, path: config.data_dir.display().to_string() };
    if data_dir.is_removed() {
        return Err(removed());
    }
    info!(
        version = env!("CARGO_PKG_VERSION"),
        name = config.name,
        node = %belonging.node,
        cluster = %belonging.cluster,
        members = belonging.known.members.len(),
        data_dir = %config.data_dir.display(),
        "starting"
    );
    let is_alone = belonging.known.members.iter().all(|member| member.id == node);
    if is_alone {
        // There is no other node to go to.
        ports = ports
            .into_iter()
            .map(|(of, port)| Ok((of, port.opened()?)))
            .collect::<Result<_, ServeError>>()?;
    }
    let repair = repair::carry_out(&config.data_dir, !is_alone).map_err(ServeError::Repair)?;
    data_dir.reread().map_err(JoinError::from)?;
    let identity = Identity { cluster, node, incarnation: data_dir.incarnation() };
    if data_dir.standing()? == Standing::New && is_alone {
        let known = data_dir::missed_by(&config.data_dir)?;
        let by = match known {
            None => hello::missed_by(&peer_listener, &identity, peer_tls.as_deref()).await,
            known => known,
        };
        if let Some(by) = by {
            data_dir::record_missed(&config.data_dir, by)
                .map_err(|cause| ServeError::System { doing: "recording who knows this node", cause })?;
            let (path, name) = (config.data_dir.display().to_string(), config.name.clone());
            return Err(ServeError::Missed { by, cluster, path, name });
        }
    }
    // What cannot be opened serves nobody, so nobody needs to take over from it.
    let unusable = |fault: Fault| faulted(&config, fault, Order::PutAside);
    let engine = DiskEngine::open(&data_dir.store(), config.cache_bytes).map_err(unusable)?;
    let disk = FileDisk::open(&data_dir.log())
        .map_err(|cause| ServeError::System { doing: "opening the log's folder", cause })?;
    let owner = Owner { cluster, node };
    let opened = Wal::open(disk, owner.log_identity(), WalOptions::default());
    let (wal, recovered, report) = opened.map_err(|error| unreadable(&config, error, !is_alone))?;
    info!(segments = report.segments.len(), "log is open");
    let mut standing = data_dir.standing()?;
    if standing != Standing::New && report.segments.is_empty() {
        return Err(ServeError::LogLost { path: data_dir.log().display().to_string() });
    }

    if standing == Standing::New && belonging.has_joined && !repair.has_forgotten {
        // Nobody had its id before, so it has promised nothing to anybody. Recorded now that there is a log, which must not get lost any more.
        standing = Standing::Admitted(Lives::new());
        data_dir::record_standing(&config.data_dir, &Lives::new())
            .map_err(|cause| ServeError::System { doing: "recording that this node takes part", cause })?;
        crash_point("join.admitted");
    }
    let mut options = options(&config, belonging.node);
    // Whoever began with five may lose two, and goes on to be able to.
    let founders = belonging.known.first_voters.len();
    options.replicas = config.replicas.unwrap_or(founders.max(REPLICAS_DEFAULT));
    options.incarnation = data_dir.incarnation();
    options.has_forgotten = repair.has_forgotten;
    let host = Host::new(options, standing, engine.clone(), belonging.known.clone(), recovered);
    let host = host.map_err(unusable)?;

    let mut maps = vec![KeyspaceMap::system()];
    maps.extend(host.maps().cloned());
    // One that has not been told of itself is called by its settings.
    let mut known = host.members();
    if known.iter().all(|member| member.id != belonging.node) {
        known.push(quorate_types::Member::new(belonging.node, &*config.name, ""));
    }
    let telling = Telling::new(belonging.node, config.grace_period, known, maps);
    let (recorder, work) = Recorder::open(&data_dir.events(), telling);
    let events_thread = thread("events", move || work.run())?;
    recorder.tell(Told::Started);
    if let Some(why) = &repair.was_put_aside {
        recorder.tell(Told::PutAside(why.clone()));
    }

    let metrics = Arc::new(Metrics::default());
    let keyspaces = Keyspaces::new(config.watch_progress_interval);
    for (name, id) in [("system", KeyspaceId::SYSTEM), ("default", KeyspaceId::DEFAULT)] {
        if let Some(reader) = host.reader(id) {
            keyspaces.add(name, None, reader);
        }
    }
    for map in host.maps() {
        if let Some(reader) = host.reader(map.id) {
            keyspaces.add(&map.name, Some(Arc::new(map.rules.clone())), reader);
        }
    }
    let removal = Arc::new(Removal::new(config.data_dir.clone()));
    let mut transport = Transport::new(identity, peer_tls.clone(), removal.clone());
    transport.set_members(&belonging.known.members);
    let peers = transport.peers();
    let members = transport.peers();
    let gone = transport.gone();

    // Bounded by what feeds them: clients by the gateway, peers by the transport, the disk by the worker.
    let (worker_in, worker_out) = inbox::inbox();
    let (log_in, log_out) = crossbeam_channel::unbounded();
    let (flush_in, flush_out) = crossbeam_channel::unbounded();
    let (applied_in, applied_out) = crossbeam_channel::unbounded();
    let (reads_in, reads_out) = crossbeam_channel::unbounded();
    let (writes_in, writes_out) = crossbeam_channel::unbounded();
    let log_writer = LogWriter::new(wal, metrics.clone());
    let outlets = Outlets {
        removal: removal.clone(),
        log: log_in,
        log_writer: log_writer.clone(),
        flush: flush_in,
        snapshot_reads: reads_in,
        snapshot_writes: writes_in,
        applied: applied_in,
        keyspaces: keyspaces.clone(),
        transport,
        metrics: metrics.clone(),
        recorder: recorder.clone(),
        data_dir: config.data_dir.clone(),
        wished: Wished { partitions: config.partitions, rules: config.rules.clone() },
    };
    if let Some(why) = &repair.is_to_be_left {
        let fault = Fault::damage("before the last start", why.clone());
        // The worker is there to take it.
        let _ = worker_in.send(Input::Suspect(fault));
    }
    let worker = Worker::new(host, worker_out, outlets, tick(&config));
    let (stopped_in, mut stopped) = tokio::sync::oneshot::channel();
    let worker_task = tokio::spawn(async move {
        let _ = stopped_in.send(worker.run().await);
    });
    let log_thread = {
        let worker = worker_in.clone();
        thread("log", move || log_thread::run(&log_writer, &log_out, &worker))?
    };
    {
        let (worker, engine) = (worker_in.clone(), engine.clone());
        thread("flush", move || {
            yield_to_others();
            let mut rest = Rest::default();
            loop {
                let input = match flush_out.recv_timeout(TEND_INTERVAL) {
                    Ok(()) => engine.flush().map_or_else(Input::Fault, |()| Input::Flushed),
                    Err(RecvTimeoutError::Timeout) => match engine.tend().and_then(|()| rest.look(&engine)) {
                        Ok(()) => continue,
                        Err(fault) => Input::Fault(fault),
                    },
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                if worker.send(input).is_err() {
                    return;
                }
            }
        })?;
    }
    {
        let (worker, engine) = (worker_in.clone(), engine.clone());
        thread("snapshots out", move || {
            yield_to_others();
            snapshot_threads::run(&engine, &reads_out, &worker);
        })?;
    }
    {
        let (worker, engine) = (worker_in.clone(), engine.clone());
        thread("snapshots in", move || {
            yield_to_others();
            snapshot_threads::run(&engine, &writes_out, &worker);
        })?;
    }
    {
        let keyspaces = keyspaces.clone();
        thread("watch", move || watch_thread::run(&keyspaces, &applied_out))?;
    }
    let rate =
        scrub::Rate { usual: config.scrub_rate as u64 * 1_000_000, is_first_urgent: repair.is_to_be_checked };
    let (scrub, scrubbing) = scrub::new(engine.clone(), worker_in.clone(), rate);
    let scrub_thread = thread("scrub", move || {
        yield_to_others();
        scrub.run();
    })?;
    let member = Member { cluster, node };
    let gateway = Gateway::new(worker_in.clone(), member, keyspaces, metrics.clone());
    tokio::spawn(repair::clear_when_whole(config.data_dir.clone(), gateway.clone()));
    let belonging = Arc::new(belonging);
    tokio::spawn(membership::forget_the_gone(gateway.clone(), members));
    tokio::spawn(membership::publish(gateway.clone(), config.clone(), belonging.clone()));
    let space = Space::default();
    space.look(&engine, &config, &worker_in, &recorder);
    tokio::spawn(space.clone().watch(engine.clone(), config.clone(), worker_in.clone(), recorder.clone()));

    let (stop_in, stop) = watch::channel(false);
    let calls = Arc::new(Calls::new(identity, peer_tls.clone(), peers.clone()));
    let context = Context {
        gateway: gateway.clone(),
        calls,
        engine: engine.clone(),
        space,
        recorder: recorder.clone(),
        metrics,
        config: Arc::new(config.clone()),
        belonging,
        keyspace: None,
        stop: stop.clone(),
    };
    let peer_router = services::peer_router(context.clone());
    let answerer: Answerer = Arc::new(move |stream| Box::pin(calls::answer(stream, peer_router.clone())));
    tokio::spawn(transport::listen(
        peer_listener,
        identity,
        (peers, gone),
        peer_tls,
        worker_in.clone(),
        answerer,
    ));
    let slots = Slots::affordable();
    let mut servers = tokio::task::JoinSet::new();
    let outcome = {
        let mut ended = pin!(async {
            tokio::select! {
                result = &mut stopped => Some(result),
                () = told_to_stop() => None,
                () = removal.told() => None,
            }
        });
        let early = tokio::select! {
            // Until then clients had better be refused than wait. Not for long: without leaders there is still much that a node can tell.
            () = gateway.await_leader(KeyspaceId::DEFAULT, LEADERS_AWAITED) => None,
            outcome = &mut ended => Some(outcome),
        };
        match early {
            Some(outcome) => outcome,
            None => {
                for (keyspace, port) in ports {
                    if let Some(keyspace) = &keyspace {
                        info!(keyspace, clients = port.address, "listens for a keyspace's clients");
                    }
                    let served =
                        services::served(Context { keyspace: keyspace.map(Into::into), ..context.clone() });
                    let (listener, tls, slots) = (port.listen()?, client_tls.clone(), slots.clone());
                    servers.spawn(connections::serve(listener, tls, served, slots, stop.clone()));
                }
                info!(
                    clients = config.listen_client,
                    client_tls = config.client_tls.is_some(),
                    client_cert_auth = config.client_tls.as_ref().is_some_and(|tls| tls.ca.is_some()),
                    peers = config.listen_peer,
                    peer_tls = config.peer_tls.is_some(),
                    "ready for clients"
                );
                ended.await
            }
        }
    };
    if let Some(result) = outcome {
        let error = match result {
            Ok(Err(Stopped { fault, order })) => {
                error!(%fault, "a disk error stops this node; nothing is acknowledged any more");
                // It did so before, and has to serve nobody if it cannot go on for long enough to be left.
                let order = if repair.is_to_be_left.is_some() { Order::PutAside } else { order };
                faulted(&config, fault, order)
            }
            _ => ServeError::Mistake,
        };
        recorder.tell(Told::Failed(error.to_string()));
        recorder.close();
        // A disk that fails may keep it; nobody waits for it then.
        let _ =
            tokio::time::timeout(LAST_WORDS_MAX, tokio::task::spawn_blocking(|| events_thread.join())).await;
        return Err(error);
    }
    info!("stopping: handing over leaderships");
    recorder.tell(Told::Stopping);
    if tokio::time::timeout(HAND_OVER_MAX, gateway.hand_over()).await.is_err() {
        warn!("some leaderships could not be handed over in time");
    }
    let _ = stop_in.send(true);
    let mut served = pin!(servers.join_all());
    let is_drained = tokio::time::timeout(DRAIN_MAX, &mut served).await.is_ok();
    let _ = worker_in.send(Input::Stop);
    drop(scrubbing);
    // The worker's end closes the log thread's queue; both end by themselves.
    let _ = worker_task.await;
    if !is_drained && tokio::time::timeout(LAST_ANSWERS_MAX, served).await.is_err() {
        warn!("some calls were still open and are cut off");
    }
    let join = move || {
        let _ = log_thread.join();
        let _ = scrub_thread.join();
    };
    engine.hurry();
    let _ = tokio::task::spawn_blocking(join).await;
    engine.flush()?;
    recorder.tell(Told::Stopped);
    recorder.close();
    let _ = tokio::time::timeout(LAST_WORDS_MAX, tokio::task::spawn_blocking(|| events_thread.join())).await;
    info!("stopped");
    if data_dir.is_removed() { Err(removed()) } else { Ok(()) }
}

/// A fault ends the node; if it is one that can be repaired, the next start does so.
fn faulted(config: &Config, fault: Fault, order: Order) -> ServeError {
    if repair::order(&config.data_dir, &fault, order) {
        ServeError::Repairs(fault)
    } else {
        ServeError::Fault(fault)
    }
}

/// What a damaged log held the others have, too; other errors are not mended by forgetting it.
fn unreadable(config: &Config, error: OpenError, can_ask: bool) -> ServeError {
    if can_ask && matches!(error, OpenError::Corrupt { .. }) {
        let fault = Fault::damage("opening the log", error.to_string());
        if repair::order(&config.data_dir, &fault, Order::Forget) {
            return ServeError::Repairs(fault);
        }
    }
    ServeError::Log(error)
}

fn tick(config: &Config) -> Duration {
    config.heartbeat_interval / 5
}

fn options(config: &Config, node: NodeId) -> Options {
    let tick_millis = tick(config).as_millis().max(1) as u64;
    // A seed from the clock: two starts of a node should not choose the same timeouts.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut options = Options::new(node, node.0 ^ now.as_nanos() as u64);
    options.ticks_per_second = (1000 / tick_millis).max(1);
    options.heartbeat_ticks = 5;
    options.election_ticks_min = config.election_timeout.as_millis() as u64 / tick_millis;
    options.election_ticks_max = options.election_ticks_min * 8 / 5;
    options.request_ticks_max = 6 * options.ticks_per_second;
    options.lease_read = config.lease_read;
    options.moves_max = config.moves_max;
    options.snapshot_bytes_per_tick = config.fill_rate * 1_000_000 / options.ticks_per_second as usize;
    options.spread_replicas = config.placement == Placement::Dealt;
    options.grace_ticks = config.grace_period.as_secs() * options.ticks_per_second;
    options.hibernate_after_ticks = Some(options.ticks_per_second);
    options.snapshot_idle_ticks = 30 * options.ticks_per_second;
    options.partitions = config.partitions.unwrap_or(PARTITIONS_DEFAULT);
    options.rules = config.rules.clone().unwrap_or_default();
    options.partition.ticks_per_second = options.ticks_per_second;
    options.partition.election_timeout_ticks = options.election_ticks_max;
    options
}

fn thread(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, ServeError> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(run).map_err(|cause| ServeError::System { doing: "starting a thread", cause })
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        // An error means that Ctrl-C cannot be had; SIGTERM still can.
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
}
