//! The real binary from outside: nodes as processes that can be killed, paused and stopped, in folders and
//! on ports of their own.
//!
//! Whatever is waited for is a condition with a generous deadline: a slow machine makes a test slow, not red. Processes
//! are ended by their handle, also when a test fails; then the end of every node's log is printed.

#![allow(dead_code)] // Every test file uses another part.
#![allow(unreachable_pub)]

pub mod bank;
pub mod client;
pub mod crashes;
pub mod damage;
pub mod disks;
pub mod ended;
pub mod frames;
pub mod load;
pub mod plans;
pub mod watches;

use client::Client;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
pub const LOOK: Duration = Duration::from_millis(20);
/// Ports are drawn from below those that the system gives to outgoing connections: a connection of any process
/// must not take the port of a node while that is down.
const PORTS: std::ops::Range<u32> = 12_000..32_000;
/// Lines of a node's log that are shown when a test fails.
const LOG_LINES_SHOWN: usize = 40;

/// Waits until `look` finds something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not after {} s", PATIENCE.as_secs());
        tokio::time::sleep(LOOK).await;
    }
}

/// An address nobody listens on.
pub fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    // Test binaries that run at the same time begin at different places.
    let first = std::process::id().wrapping_mul(2_654_435_761) % span;
    for _ in 0..span {
        let at = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        let address = format!("127.0.0.1:{}", PORTS.start + at);
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
    panic!("no port is free");
}

/// The program with some arguments, without this shell's settings.
pub fn quorate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUORATE_")) {
        command.env_remove(name);
    }
    command
}

/// How the program ended that was expected to end by itself, and what it said.
pub fn run(args: &[&str]) -> (Option<i32>, String) {
    run_for(args, PATIENCE)
}

/// The same, for one that takes so long by itself.
pub fn run_for(args: &[&str], max: Duration) -> (Option<i32>, String) {
    let mut command = quorate(args);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What should have been refused may run for ever.
    let pid = child.id();
    let (ended, wait) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        // What it has started is ended by it, if it is told to; killed, it would leave that.
        for name in ["TERM", "KILL"] {
            let max = if name == "TERM" { max } else { ended::ENDING_MAX };
            if wait.recv_timeout(max) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return;
            }
            signal(pid, name);
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    ended.send(()).unwrap();
    guard.join().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code(), said)
}

/// A call as a program without a library for it would make it.
pub async fn http_at(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let call = format!(
        "{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(call.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer}")), answer)
}

/// Sends a signal to a process that we started and have not waited for.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().unwrap();
    assert!(sent.success(), "kill -{name} {pid}: {sent}");
}

/// One node: its settings, and its process while it runs.
pub struct Node {
    pub name: String,
    pub client: String,
    pub peer: String,
    pub data_dir: PathBuf,
    /// What `quorate serve` is told.
    pub settings: BTreeMap<&'static str, String>,
    /// Where it ends when it is started next, as `QUORATE_CRASH_AT` says it.
    pub crash_at: Option<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    fn new(folder: &Path, name: &str, peer: String, cluster: &str) -> Self {
        let client = free_address();
        let data_dir = folder.join(name);
        let settings = BTreeMap::from([
            ("--name", name.to_owned()),
            ("--data-dir", data_dir.display().to_string()),
            ("--listen-client", client.clone()),
            ("--initial-cluster", cluster.to_owned()),
        ]);
        let log = folder.join(format!("{name}.log"));
        Self { name: name.to_owned(), client, peer, data_dir, settings, crash_at: None, log, child: None }
    }

    /// The arguments of `quorate serve`.
    pub fn arguments(&self) -> Vec<&str> {
        let settings = self.settings.iter().flat_map(|(flag, value)| [*flag, value.as_str()]);
        std::iter::once("serve").chain(settings).collect()
    }

    /// Starts the process; whether it comes up is for the caller to wait for.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = quorate(&self.arguments());
        command.envs(self.crash_at.as_ref().map(|at| ("QUORATE_CRASH_AT", at)));
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("start a node"));
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A paused process dies of it, too; one that has ended already is what a later assertion will find.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Of its process, which runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// SIGSTOP: the process keeps its connections and does nothing.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// SIGTERM; how the process ended.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let child = self.child.as_mut().expect("the node runs");
        let status = until(&what, async || child.try_wait().unwrap()).await;
        self.child = None;
        status
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Everything that the node logged, in all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// A client of this node alone.
    pub fn only(&self) -> Client {
        Client::new(vec![self.client.clone()])
    }

    /// Waits until the node answers a linearizable read: it runs, and knows a leader.
    pub async fn ready(&mut self) {
        let client = self.only();
        let what = format!("{} answers", self.name);
        until(&what, async || {
            assert!(self.is_running(), "{} ended:\n{}", self.name, self.log());
            client.try_get("ready?").await.ok()
        })
        .await;
    }

    /// The segments of its log, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        let mut segments: Vec<PathBuf> = std::fs::read_dir(self.data_dir.join("log"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            // Beside them there may be one that is filled ahead.
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        segments.sort();
        segments
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            println!("--- end of {}'s log ---\n{}", self.name, shown.join("\n"));
        }
    }
}

/// Held by the one cluster of several nodes that runs at a time: more would only take each other's time.
static TURN: Mutex<()> = Mutex::new(());

/// Nodes that know each other.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// Dropped after the nodes.
    pub folder: tempfile::TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Cluster {
    /// `size` nodes named n1, n2, ...; none is started.
    pub fn new(size: usize) -> Self {
        // Another test's failure is not ours.
        let turn = (size > 1).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
        let folder = tempfile::tempdir().unwrap();
        let peers: Vec<String> = (0..size).map(|_| free_address()).collect();
        let members: Vec<String> =
            peers.iter().enumerate().map(|(at, peer)| format!("n{}={peer}", at + 1)).collect();
        let members = members.join(",");
        let node = |(at, peer)| Node::new(folder.path(), &format!("n{}", at + 1), peer, &members);
        let nodes = peers.into_iter().enumerate().map(node).collect();
        Self { nodes, folder, _turn: turn }
    }

    /// `size` nodes that answer.
    pub async fn started(size: usize) -> Self {
        Self::new(size).start().await
    }

    /// The same, with so many partitions.
    pub async fn partitioned(size: usize, partitions: u32) -> Self {
        Self::set(size, &[("--partitions", partitions)]).await
    }

    /// The same, with these settings.
    pub async fn set(size: usize, settings: &[(&'static str, u32)]) -> Self {
        let mut cluster = Self::new(size);
        for node in &mut cluster.nodes {
            node.settings.extend(settings.iter().map(|(name, value)| (*name, value.to_string())));
        }
        cluster.start().await
    }

    async fn start(mut self) -> Self {
        for node in &mut self.nodes {
            node.start();
        }
        self.ready().await;
        self
    }

    /// Waits until all nodes hold the same: all of their history in one number, at one revision.
    pub async fn until_equal(&self) {
        until("all nodes hold the same", async || {
            let mut hashes = Vec::new();
            for node in &self.nodes {
                let ask = quorate_api::pb::HashKvRequest { revision: 0 };
                let answer = node.only().maintenance().hash_kv(ask).await.ok()?.into_inner();
                hashes.push((answer.hash_revision, answer.hash));
            }
            hashes.iter().all(|hash| hash == &hashes[0]).then_some(())
        })
        .await;
    }

    /// Waits until every node answers.
    pub async fn ready(&mut self) {
        for node in &mut self.nodes {
            node.ready().await;
        }
    }

    /// A node that will join when it is started; its place in `nodes`.
    pub fn add(&mut self, name: &str) -> usize {
        let mut node = Node::new(self.folder.path(), name, free_address(), "");
        node.settings.remove("--initial-cluster");
        node.settings.insert("--join", self.endpoints().join(","));
        node.settings.insert("--listen-peer", node.peer.clone());
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The client addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// A client that turns to the next node when one does not answer.
    pub fn client(&self) -> Client {
        Client::new(self.endpoints())
    }

    /// Which node leads: the one that says so in the newest term. `but` is a node that does not count.
    pub async fn leader(&self, but: Option<usize>) -> usize {
        until("a node leads", async || {
            let mut newest = None;
            for (at, node) in self.nodes.iter().enumerate() {
                if Some(at) == but {
                    continue;
                }
                let Ok(status) = node.only().try_status().await else { continue };
                let Some(header) = status.header else { continue };
                if status.leader == header.member_id && newest.is_none_or(|(term, _)| term < status.raft_term)
                {
                    newest = Some((status.raft_term, at));
                }
            }
            newest.map(|(_, at)| at)
        })
        .await
    }

    /// Some node that does not lead.
    pub async fn follower(&self) -> usize {
        (self.leader(None).await + 1) % self.nodes.len()
    }
}
