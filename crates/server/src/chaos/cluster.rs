//! The nodes: processes of this program, in folders and on ports of their own, reached by each other through [`super::links`].

use super::ailments::is_of_its_disk;
use super::client::{Directory, channel_to};
use super::disks::DataDisk;
use super::links::Links;
use crate::cli::http_call;
use crate::data_dir::is_removed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tonic::codegen::http::Method;

/// Ports are drawn from below those that the system gives to outgoing connections: a connection of any process
/// must not take the port of a node while that is down.
const PORTS: std::ops::Range<u32> = 12_000..32_000;
/// How long a node may take for an answer about nodes.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Lines of a node's log that are shown when something went wrong.
const LOG_LINES_SHOWN: usize = 15;

/// What a node's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Paused,
    /// It was killed, and will be started again.
    Down,
}

/// This program, as it was when it was started: it may be built anew meanwhile.
fn own_program() -> Result<PathBuf, String> {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() {
        return Ok(running);
    }
    std::env::current_exe().map_err(|error| format!("finding this program: {error}"))
}

/// One node.
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) client: String,
    pub(super) data_dir: PathBuf,
    pub(super) state: State,
    /// Whether the cluster began with it.
    pub(super) is_founder: bool,
    /// Where it listens for other nodes, and where they look for it.
    peer: (String, String),
    log: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    /// What its data directory is on, if it does as it is told.
    pub(super) disk: Option<DataDisk>,
    /// It may end by itself, once, as a node does whose disk fails; and how much it had logged before.
    pub(super) may_end: Option<u64>,
}

impl Machine {
    /// Starts the process.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| format!("{}: {error}", self.log.display()))?;
        let mut command = Command::new(own_program()?);
        command.arg0("quorate");
        // Settings of this shell are meant for another cluster.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"QUORATE_"))
        {
            command.env_remove(name);
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Ctrl-C is for us; we end them.
        let child = command.process_group(0).spawn();
        self.child = Some(child.map_err(|error| format!("starting {}: {error}", self.name))?);
        self.state = State::Running;
        Ok(())
    }

    /// kill -9, of a paused one too.
    pub(super) fn kill(&mut self) {
        if let Some(disk) = &self.disk {
            // A process whose call hangs cannot be killed.
            disk.mend();
        }
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.state = State::Down;
    }

    /// kill -9; and what it had is gone.
    pub(super) fn wipe(&mut self) -> Result<(), String> {
        self.kill();
        let fail = |error| format!("{}: {error}", self.data_dir.display());
        if let Some(disk) = &self.disk {
            empty(&self.data_dir).map_err(fail)?;
            return disk.settle();
        }
        match std::fs::remove_dir_all(&self.data_dir) {
            // It may not have come to make one.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(fail(error)),
            _ => Ok(()),
        }
    }

    /// Where to look at what it has without waiting for its disk: what it has made durable is there.
    fn stored(&self) -> &Path {
        self.disk.as_ref().map_or(&self.data_dir, DataDisk::backing)
    }

    /// What `quorate doctor` says of what it has stored, if it is not well. The process must not run; nothing is changed.
    pub(super) async fn ills(&self, folder: &Path) -> Result<Option<String>, String> {
        let Some(disk) = &self.disk else { return Ok(None) };
        let copied = folder.join(format!("{}.looked-at", self.name));
        let fail = |error| format!("{}: {error}", copied.display());
        disk.copy(&copied).map_err(fail)?;
        let mut doctor = tokio::process::Command::new(own_program()?);
        doctor.arg0("quorate").arg("doctor").arg(&copied).stdin(Stdio::null()).kill_on_drop(true);
        let told = doctor.output().await.map_err(fail)?;
        std::fs::remove_dir_all(&copied).map_err(fail)?;
        let words = [told.stdout, told.stderr].concat();
        Ok((!told.status.success()).then(|| String::from_utf8_lossy(&words).into_owned()))
    }

    /// What it has logged until now, in bytes.
    pub(super) fn logged(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// Whether it has logged this since.
    pub(super) fn has_logged(&self, words: &str, since: u64) -> bool {
        self.logged_since(since).contains(words)
    }

    fn logged_since(&self, since: u64) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let new = log.get(since as usize..).unwrap_or_default();
        String::from_utf8_lossy(new).into_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32));
        if let Some(pid) = pid {
            // One that has ended and was not waited for yet takes it without harm.
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGSTOP: it keeps its connections and does nothing.
    pub(super) fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.state = State::Paused;
    }

    /// SIGCONT.
    pub(super) fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.state = State::Running;
    }

    /// SIGTERM; whether it has ended well in time.
    pub(super) async fn stop(&mut self, max: Duration) -> Result<(), String> {
        self.signal(Signal::TERM);
        let begun = std::time::Instant::now();
        while let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) if begun.elapsed() < max => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(Some(status)) if status.success() || is_removed(self.stored()) => {
                    self.child = None;
                    self.state = State::Down;
                    return Ok(());
                }
                ended => return Err(format!("{} was told to stop: {ended:?}", self.name)),
            }
        }
        Ok(())
    }

    /// How the process ended that should run.
    fn ended(&mut self) -> Option<String> {
        let status = self.status()?;
        Some(format!("{} ended by itself: {status}", self.name))
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok()?
    }

    /// Whether it has ended by itself, and may have done so.
    fn has_fallen(&mut self) -> bool {
        let (Some(since), Some(status)) = (self.may_end, self.status()) else { return false };
        is_of_its_disk(status.code(), &self.logged_since(since))
    }

    /// Whether it takes part, as far as its directory says.
    pub(super) fn takes_part(&self) -> bool {
        self.stored().join("ADMITTED").exists()
    }

    /// The end of what it logged.
    pub(super) fn log_tail(&self) -> Vec<String> {
        let log = String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
        lines[from..].iter().map(|line| format!("{}: {line}", self.name)).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        if let Some(disk) = &self.disk {
            // What is looked at afterwards is what the process had; if that fails, it is what it had synced.
            let _ = disk.settle();
        }
    }
}

/// Removes what is in a folder.
fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// All nodes.
pub(super) struct Cluster {
    pub(super) machines: Vec<Machine>,
    pub(super) links: Arc<Links>,
    pub(super) directory: Arc<Directory>,
    /// The one that is being removed, or is away for longer, if any: it need not answer.
    pub(super) absent: Option<String>,
    pub(super) folder: PathBuf,
    settings: Vec<String>,
    /// Whether data directories are on disks that do as they are told.
    has_disks: bool,
    /// Names are given once.
    named: usize,
    next_port: u32,
}

impl Cluster {
    /// So many nodes, not started yet; `settings` are for all.
    pub(super) async fn new(
        folder: &Path,
        nodes: usize,
        settings: Vec<String>,
        has_disks: bool,
    ) -> Result<Self, String> {
        let mut cluster = Self {
            machines: Vec::new(),
            links: Links::new(),
            directory: Arc::default(),
            absent: None,
            folder: folder.to_owned(),
            settings,
            has_disks,
            named: nodes,
            next_port: std::process::id().wrapping_mul(2_654_435_761) % (PORTS.end - PORTS.start),
        };
        let mut founders = Vec::new();
        for at in 1..=nodes {
            founders.push((format!("n{at}"), cluster.port()?, cluster.port()?));
        }
        let members: Vec<String> =
            founders.iter().map(|(name, _, proxy)| format!("{name}={proxy}")).collect();
        let members = members.join(",");
        for (name, listen, proxy) in founders {
            cluster.proxy(&name, &proxy, listen.clone()).await?;
            let client = cluster.port()?;
            let founding = ["--initial-cluster", &members, "--listen-peer", &listen];
            let arguments = cluster.arguments(&name, &client, &founding);
            let mut machine = cluster.machine(name, client, (listen, proxy), arguments)?;
            machine.is_founder = true;
            cluster.machines.push(machine);
        }
        Ok(cluster)
    }

    /// One that somebody else has started: nodes are called as they are reached.
    pub(super) fn of_others(endpoints: &[String]) -> Self {
        let cluster = Self {
            machines: Vec::new(),
            links: Links::new(),
            directory: Arc::default(),
            absent: None,
            folder: PathBuf::new(),
            settings: Vec::new(),
            has_disks: false,
            named: 0,
            next_port: 0,
        };
        cluster.directory.set(endpoints.iter().map(|name| (name.clone(), name.clone())).collect());
        cluster
    }

    /// A port that nobody has now.
    fn port(&mut self) -> Result<String, String> {
        let span = PORTS.end - PORTS.start;
        for _ in 0..span {
            self.next_port = (self.next_port + 1) % span;
            let address = format!("127.0.0.1:{}", PORTS.start + self.next_port);
            if TcpListener::bind(&address).is_ok() {
                return Ok(address);
            }
        }
        Err("no port is free".into())
    }

    async fn proxy(&self, name: &str, proxy: &str, listen: String) -> Result<(), String> {
        let listener = tokio::net::TcpListener::bind(proxy).await;
        let listener = listener.map_err(|error| format!("listening at {proxy}: {error}"))?;
        tokio::spawn(self.links.clone().proxy(listener, name.to_owned(), listen));
        Ok(())
    }

    fn data_dir(&self, name: &str) -> PathBuf {
        if self.has_disks { self.folder.join("mounted").join(name) } else { self.folder.join(name) }
    }

    fn arguments(&self, name: &str, client: &str, own: &[&str]) -> Vec<String> {
        let data = self.data_dir(name).display().to_string();
        let common = ["serve", "--name", name, "--data-dir", &data, "--listen-client", client];
        let words = common.iter().chain(own).map(|word| word.to_string());
        words.chain(self.settings.iter().cloned()).collect()
    }

    fn machine(
        &self,
        name: String,
        client: String,
        peer: (String, String),
        arguments: Vec<String>,
    ) -> Result<Machine, String> {
        let (data_dir, log) = (self.data_dir(&name), self.folder.join(format!("{name}.log")));
        let mount = || DataDisk::mount(&self.folder.join(&name), &data_dir);
        let disk = self.has_disks.then(mount).transpose()?;
        let (state, is_founder, may_end) = (State::Down, false, None);
        Ok(Machine {
            name,
            client,
            data_dir,
            state,
            is_founder,
            peer,
            log,
            arguments,
            child: None,
            disk,
            may_end,
        })
    }

    /// What a node is told that joins: those that run.
    fn joining(&self, name: &str, client: &str, (listen, proxy): &(String, String)) -> Vec<String> {
        let running = self.machines.iter().filter(|machine| machine.state == State::Running);
        let clients: Vec<&str> = running.map(|machine| machine.client.as_str()).collect();
        let clients = clients.join(",");
        let own = ["--join", &clients, "--listen-peer", listen, "--advertise-peer", proxy];
        self.arguments(name, client, &own)
    }

    /// Starts a node that joins; its name.
    pub(super) async fn join(&mut self) -> Result<String, String> {
        self.named += 1;
        let name = format!("n{}", self.named);
        let (client, peer) = (self.port()?, (self.port()?, self.port()?));
        self.proxy(&name, &peer.1, peer.0.clone()).await?;
        let arguments = self.joining(&name, &client, &peer);
        let mut machine = self.machine(name.clone(), client, peer, arguments)?;
        machine.start()?;
        self.machines.push(machine);
        self.tell();
        Ok(name)
    }

    /// Starts a node that has nothing any more, to join under its name and addresses.
    pub(super) fn join_again(&mut self, name: &str) -> Result<(), String> {
        let Some(machine) = self.machines.iter().find(|machine| machine.name == name) else { return Ok(()) };
        let arguments = self.joining(name, &machine.client, &machine.peer);
        let Some(machine) = self.named(name) else { return Ok(()) };
        (machine.arguments, machine.is_founder) = (arguments, false);
        machine.start()
    }

    /// Ends a node for good.
    pub(super) fn forget(&mut self, name: &str) -> Result<(), String> {
        if let Some(at) = self.machines.iter().position(|machine| machine.name == name) {
            let mut machine = self.machines.remove(at);
            machine.wipe()?;
            self.tell();
        }
        Ok(())
    }

    /// Names and addresses of those that have to serve when all is well.
    pub(super) fn members(&self) -> Vec<(String, String)> {
        let mut nodes = self.directory.all();
        nodes.retain(|(name, _)| Some(name) != self.absent.as_ref());
        nodes
    }

    /// Clients know of these nodes now.
    pub(super) fn tell(&self) {
        let node = |machine: &Machine| (machine.name.clone(), machine.client.clone());
        self.directory.set(self.machines.iter().map(node).collect());
    }

    pub(super) fn named(&mut self, name: &str) -> Option<&mut Machine> {
        self.machines.iter_mut().find(|machine| machine.name == name)
    }

    /// A process that ended without being told.
    pub(super) fn ended(&mut self) -> Option<String> {
        let absent = self.absent.as_ref();
        let should_run = |machine: &&mut Machine| {
            machine.state == State::Running
                && !(Some(&machine.name) == absent && is_removed(machine.stored()))
        };
        self.machines.iter_mut().filter(should_run).find_map(Machine::ended)
    }

    /// Those that may end by themselves and have just done so, and how. Who has ended otherwise than it may is among the [`Cluster::ended`].
    pub(super) fn fallen(&mut self) -> Vec<(String, String)> {
        let mut fallen = Vec::new();
        for machine in &mut self.machines {
            if machine.has_fallen()
                && let Some(how) = machine.ended()
            {
                (machine.child, machine.state, machine.may_end) = (None, State::Down, None);
                fallen.push((machine.name.clone(), how));
            }
        }
        fallen
    }

    /// Asks whoever runs, one after the other, until one answers.
    pub(super) async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<(u16, Value), String> {
        let mut problem = "no node runs".to_owned();
        for machine in self.machines.iter().filter(|machine| machine.state == State::Running) {
            let channel = channel_to(&machine.client, Some(ANSWER_MAX))?;
            let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
            match http_call(channel, method.clone(), path, body).await {
                // "Not now" is for another to say otherwise.
                Ok((status, answer)) if status.as_u16() != 503 => return Ok((status.as_u16(), answer)),
                Ok((_, answer)) => problem = format!("{}: {}", machine.name, answer["error"]),
                Err(error) => problem = format!("{}: {error}", machine.name),
            }
        }
        Err(problem)
    }

    /// All nodes, as `quorate node list` knows them; learns their ids.
    pub(super) async fn list(&self) -> Result<Value, String> {
        let (_, list) = self.ask(Method::GET, "/nodes", &Value::Null).await?;
        for node in list["nodes"].as_array().into_iter().flatten() {
            let id = node["id"].as_str().and_then(|id| u64::from_str_radix(id, 16).ok());
            if let (Some(id), Some(name)) = (id, node["name"].as_str()) {
                self.links.name(id, name);
            }
        }
        Ok(list)
    }
}

/// A node of that name in a list of nodes.
pub(super) fn listed<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list["nodes"].as_array()?.iter().find(|node| node["name"] == name)
}
