//! Servers on this machine, as child processes that end with the value that holds them.

use crate::Failure;
use quorate_api::pb::kv_client::KvClient;
use quorate_api::pb::{PutRequest, StatusRequest, maintenance_client::MaintenanceClient};
use quorate_load::{Endpoint as Node, Line};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// So long a new cluster may take to have a leader.
const LEADER_WAIT: Duration = Duration::from_secs(10);
const CONNECTIONS_PER_NODE: usize = 4;

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Quorate,
    Etcd,
    /// With the election timeout that ours has by default; its own is twice that.
    EtcdSooner,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Quorate => "quorate",
            System::Etcd => "etcd",
            System::EtcdSooner => "etcd-500ms",
        }
    }

    /// What the program is told beside where it is.
    fn more(self) -> &'static [&'static str] {
        match self {
            System::EtcdSooner => &["--election-timeout", "500"],
            System::Quorate | System::Etcd => &[],
        }
    }
}

/// A running cluster. Dropping it kills its processes by id and removes their data.
pub(crate) struct Cluster {
    system: System,
    children: Vec<Child>,
    commands: Vec<Command>,
    endpoints: Vec<String>,
    directory: PathBuf,
}

impl Cluster {
    /// Starts the servers with empty directories and waits until each takes a write.
    pub(crate) async fn start(
        system: System,
        program: &Path,
        parent: &Path,
        nodes: usize,
        partitions: u32,
    ) -> Result<Self, Failure> {
        Self::start_with(system, program, parent, nodes, partitions, system.more()).await
    }

    /// The same, with more words for each server.
    pub(crate) async fn start_with(
        system: System,
        program: &Path,
        parent: &Path,
        nodes: usize,
        partitions: u32,
        more: &[&str],
    ) -> Result<Self, Failure> {
        let directory = parent.join(format!("{}-{}-{nodes}", system.name(), std::process::id()));
        std::fs::create_dir_all(&directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let ports = free_ports(nodes * 2)?;
        let (clients, peers) = ports.split_at(nodes);
        let scheme = if system == System::Quorate { "" } else { "http://" };
        let url = |port: &u16| format!("{scheme}127.0.0.1:{port}");
        let members: Vec<String> =
            peers.iter().enumerate().map(|(node, port)| format!("n{node}={}", url(port))).collect();
        let endpoints = clients.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let mut cluster =
            Cluster { system, children: Vec::new(), commands: Vec::new(), endpoints, directory };
        for node in 0..nodes {
            let log = std::fs::File::create(cluster.directory.join(format!("n{node}.log")))?;
            let (client, peer) = (url(&clients[node]), url(&peers[node]));
            let mut command = Command::new(program);
            match system {
                System::Quorate => command.args(["serve", "--log-level", "error"]).args([
                    "--listen-client",
                    &client,
                    "--listen-peer",
                    &peer,
                    "--partitions",
                    &partitions.to_string(),
                ]),
                System::Etcd | System::EtcdSooner => command.args(["--log-level", "error"]).args([
                    "--listen-client-urls",
                    &client,
                    "--advertise-client-urls",
                    &client,
                    "--listen-peer-urls",
                    &peer,
                    "--initial-advertise-peer-urls",
                    &peer,
                ]),
            };
            command
                .args(["--name", &format!("n{node}"), "--initial-cluster", &members.join(",")])
                .args(more)
                .arg("--data-dir")
                .arg(cluster.directory.join(format!("n{node}")))
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            let child =
                command.spawn().map_err(|error| format!("cannot run {}: {error}", program.display()))?;
            cluster.children.push(child);
            cluster.commands.push(command);
        }
        for endpoint in &cluster.endpoints {
            wait_for_write(system, endpoint).await?;
        }
        Ok(cluster)
    }

    /// Whose it is.
    pub(crate) fn system(&self) -> System {
        self.system
    }

    /// Addresses for clients, a node each.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Process ids, a node each.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// Connections, spread over all nodes in turn.
    pub(crate) async fn connect(&self, count: usize) -> Result<Vec<Channel>, Failure> {
        let mut channels = Vec::with_capacity(count);
        for endpoint in self.endpoints.iter().cycle().take(count) {
            channels.push(Endpoint::from_shared(endpoint.clone())?.tcp_nodelay(true).connect().await?);
        }
        Ok(channels)
    }

    /// Some to each node in turn, the leader's first: whoever is alone then is not slower or faster by the luck of an election.
    pub(crate) async fn lines(&self) -> Result<Vec<Line>, Failure> {
        let leader = self.leader().await?;
        let count = self.endpoints.len() * CONNECTIONS_PER_NODE;
        let mut lines = Vec::with_capacity(count);
        for endpoint in self.endpoints.iter().cycle().skip(leader).take(count) {
            lines.push(Line::connect(Node::new(endpoint, None)?).await?);
        }
        Ok(lines)
    }

    /// The node that says of itself that it leads, as soon as there is one.
    pub(crate) async fn leader(&self) -> Result<usize, Failure> {
        let begun = Instant::now();
        loop {
            match self.leader_now().await {
                Ok(leader) => return Ok(leader),
                Err(failure) if begun.elapsed() > LEADER_WAIT => return Err(failure),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn leader_now(&self) -> Result<usize, Failure> {
        for (node, endpoint) in self.endpoints.iter().enumerate() {
            // One that was killed says nothing.
            let Ok(channel) = Endpoint::from_shared(endpoint.clone())?.connect().await else { continue };
            let status = MaintenanceClient::new(channel).status(StatusRequest {}).await?.into_inner();
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return Ok(node);
            }
        }
        Err("no node says that it leads".into())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, node: usize) {
        let _ = self.children[node].kill();
        let _ = self.children[node].wait();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self, node: usize) -> Result<(), Failure> {
        self.signal(node, "-TERM")
    }

    /// SIGSTOP.
    pub(crate) fn pause(&self, node: usize) -> Result<(), Failure> {
        self.signal(node, "-STOP")
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, node: usize) -> Result<(), Failure> {
        self.signal(node, "-CONT")
    }

    fn signal(&self, node: usize, signal: &str) -> Result<(), Failure> {
        let told = Command::new("kill").arg(signal).arg(self.children[node].id().to_string()).status()?;
        if told.success() { Ok(()) } else { Err("the server is not there any more".into()) }
    }

    /// Waits until a node takes a write.
    pub(crate) async fn takes_writes(&self, node: usize) -> Result<(), Failure> {
        wait_for_write(self.system, &self.endpoints[node]).await
    }

    /// What all data directories take on the disk, in bytes.
    pub(crate) fn disk(&self) -> u64 {
        crate::process::disk(&self.directory)
    }

    /// Waits until a server has ended.
    pub(crate) async fn ended(&mut self, node: usize) -> Result<(), Failure> {
        while self.children[node].try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Removes all that a server that has ended has on its disk.
    pub(crate) fn forget(&self, node: usize) -> Result<(), Failure> {
        Ok(std::fs::remove_dir_all(self.directory.join(format!("n{node}")))?)
    }

    /// Starts a server that has ended, with what it has on its disk.
    pub(crate) fn restart(&mut self, node: usize) -> Result<(), Failure> {
        self.children[node] = self.commands[node].spawn()?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.children.len() {
            self.kill(node);
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Ports that nobody listens on, all different because all are held until the last is known.
fn free_ports(count: usize) -> Result<Vec<u16>, Failure> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()?)
}

async fn wait_for_write(system: System, endpoint: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    let put = PutRequest { key: "ready".into(), value: "yes".into(), ..Default::default() };
    while begun.elapsed() < Duration::from_secs(20) {
        if let Ok(channel) = Endpoint::from_shared(endpoint.to_owned())?.connect().await {
            let mut client = KvClient::new(channel);
            let answer = client.put(put.clone());
            if matches!(tokio::time::timeout(Duration::from_secs(1), answer).await, Ok(Ok(_))) {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("{} at {endpoint} took no write within 20 s", system.name()).into())
}
