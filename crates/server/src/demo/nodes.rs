//! The demo's nodes: processes of this program.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A node that is silent for so long is replaced.
const GRACE_SECONDS: &str = "3";

/// A node process; killed when dropped.
pub(super) struct Process {
    pub(super) name: String,
    child: Option<Child>,
    command: Vec<String>,
    log: PathBuf,
    data: PathBuf,
    pub(super) client: String,
}

impl Process {
    /// Of a node that joins those that can be reached there.
    pub(super) fn joining(directory: &Path, name: &str, endpoints: &[String]) -> Result<Self, String> {
        let mut ports = Ports::default();
        let (client, peer) = (ports.next()?, ports.next()?);
        let how = ["--join", &endpoints.join(","), "--listen-peer", &peer];
        Ok(Self::new(directory, name, client, &how))
    }

    fn new(directory: &Path, name: &str, client: String, more: &[&str]) -> Self {
        let data = directory.join(name);
        let shown = data.display().to_string();
        let command = ["serve", "--name", name, "--data-dir", &shown, "--listen-client", &client];
        let command = command.iter().chain(more).map(|word| word.to_string()).collect();
        let log = directory.join(format!("{name}.log"));
        Self { name: name.to_owned(), child: None, command, log, data, client }
    }

    pub(super) fn start(&mut self) -> Result<(), String> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| format!("{}: {error}", self.log.display()))?;
        let own = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
        let mut command = Command::new(own);
        // Settings of this shell are meant for another cluster: three nodes cannot share a port or a file.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"QUORATE_"))
        {
            command.env_remove(name);
        }
        let child =
            command.args(&self.command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.map_err(|error| format!("starting a node: {error}"))?);
        Ok(())
    }

    /// Where this node and the others have their data.
    pub(super) fn directory(&self) -> &Path {
        self.data.parent().unwrap_or(&self.data)
    }

    /// Left to itself: dropping the handle does not end the process.
    pub(super) fn leave_running(&mut self) {
        drop(self.child.take());
    }

    /// kill -9, and its disk is gone.
    pub(super) fn lose(&mut self) -> Result<(), String> {
        self.kill();
        std::fs::remove_dir_all(&self.data).map_err(|error| format!("{}: {error}", self.data.display()))
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a cluster is to be.
pub(super) struct Wanted {
    pub(super) nodes: usize,
    pub(super) partitions: u32,
    /// On how many nodes everything is kept, if there are more.
    pub(super) copies: usize,
}

/// Ports that are free now; held until all are chosen, so that they differ.
#[derive(Default)]
struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    fn next(&mut self) -> Result<String, String> {
        let found = TcpListener::bind("127.0.0.1:0").and_then(|listener| {
            let address = listener.local_addr()?;
            self.held.push(listener);
            Ok(address.to_string())
        });
        found.map_err(|error| format!("finding a port: {error}"))
    }
}

/// The nodes that a cluster begins with, not started.
pub(super) fn prepare(directory: &Path, wanted: &Wanted) -> Result<Vec<Process>, String> {
    let mut ports = Ports::default();
    let mut addresses = Vec::new();
    for _ in 0..wanted.nodes {
        addresses.push((ports.next()?, ports.next()?));
    }
    let peers = (1..).zip(&addresses).map(|(number, (_, peer))| format!("n{number}={peer}"));
    let cluster = peers.collect::<Vec<_>>().join(",");
    let (partitions, copies) = (wanted.partitions.to_string(), wanted.copies.to_string());
    let mut how = vec!["--initial-cluster", &cluster, "--partitions", &partitions];
    if wanted.nodes > wanted.copies {
        // Nobody wants to watch for five minutes.
        how.extend(["--replicas", &copies, "--grace-period", GRACE_SECONDS, "--placement", "dealt"]);
    }
    let nodes = (1..).zip(addresses);
    Ok(nodes
        .map(|(number, (client, _))| Process::new(directory, &format!("n{number}"), client, &how))
        .collect())
}
