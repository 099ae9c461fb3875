//! `cargo xtask tour`: the same etcdctl session against etcd and against quorate; what it prints must be equal.

use crate::etcd;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The script that both have to go through.
const SCRIPT: &str = "tests/tour/tour.sh";
/// Data and what was printed.
const WORK: &str = "target/tour";
/// How long a server may take to answer its first request.
const START_MAX: Duration = Duration::from_secs(30);

/// How a tour ended.
pub(crate) enum Tour {
    /// Equal everywhere.
    Equal,
    /// etcd cannot be had here.
    Skipped(String),
}

/// Runs the tour; `quorate` is the program to judge. An error shows where the outputs part.
pub(crate) fn run(quorate: &Path) -> Result<Tour, String> {
    let (etcd, etcdctl) = match etcd::tools() {
        Ok(tools) => tools,
        Err(why) => return Ok(Tour::Skipped(why)),
    };
    let work = PathBuf::from(WORK);
    // Nothing is there the first time.
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&work).map_err(|error| format!("cannot make {WORK}: {error}"))?;
    let expected = session("etcd", Servers::start(&etcd, "etcd", 1, 1)?, &etcdctl)?;
    // Nodes, partitions, and splits of the largest one before the session begins.
    for (nodes, partitions, splits) in [(1, 1, 0), (3, 1, 0), (1, 16, 0), (3, 16, 0), (3, 1, 3)] {
        let name = format!("quorate-{nodes}-{partitions}-{splits}");
        let servers = Servers::start(quorate, &name, nodes, partitions)?;
        servers.wait(&etcdctl)?;
        for _ in 0..splits {
            servers.split(quorate)?;
        }
        let printed = session(&name, servers, &etcdctl)?;
        let what = format!("{nodes} node(s) and {partitions} partition(s), split {splits} times");
        if let Some((line, theirs, ours)) = first_difference(&expected, &printed) {
            return Err(format!(
                "etcdctl says something else to quorate with {what}, first in line {line}:\n  etcd:    {theirs}\n  quorate: {ours}\nall of \
                 it: diff {WORK}/etcd.txt {WORK}/{name}.txt"
            ));
        }
        println!("{} lines equal with {what}", expected.lines().count());
    }
    Ok(Tour::Equal)
}

fn first_difference<'a>(expected: &'a str, printed: &'a str) -> Option<(usize, &'a str, &'a str)> {
    let (mut expected, mut printed) = (expected.lines(), printed.lines());
    let mut line = 0;
    loop {
        line += 1;
        match (expected.next(), printed.next()) {
            (None, None) => return None,
            (theirs, ours) if theirs == ours => {}
            (theirs, ours) => return Some((line, theirs.unwrap_or("(ends)"), ours.unwrap_or("(ends)"))),
        }
    }
}

/// Runs the script against servers that answer, and keeps what it printed.
fn session(name: &str, servers: Servers, etcdctl: &Path) -> Result<String, String> {
    let etcdctl = etcdctl.canonicalize().map_err(|error| format!("{}: {error}", etcdctl.display()))?;
    servers.wait(&etcdctl)?;
    let output = Command::new("bash")
        .arg(SCRIPT)
        .env("ETCDCTL", &etcdctl)
        .env("ENDPOINTS", servers.endpoints.join(","))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run bash {SCRIPT}: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let file = format!("{WORK}/{name}.txt");
    std::fs::write(&file, &printed).map_err(|error| format!("cannot write {file}: {error}"))?;
    if output.status.success() {
        Ok(printed)
    } else {
        Err(format!(
            "{SCRIPT} against {name}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// Server processes; dropping them kills them.
struct Servers {
    children: Vec<Child>,
    endpoints: Vec<String>,
    log: String,
}

impl Servers {
    fn start(program: &Path, name: &str, nodes: usize, partitions: u32) -> Result<Self, String> {
        let is_etcd = name == "etcd";
        let ports = free_ports(nodes * 2)?;
        let (clients, peers) = ports.split_at(nodes);
        let address = |port: &u16| {
            if is_etcd { format!("http://127.0.0.1:{port}") } else { format!("127.0.0.1:{port}") }
        };
        let members: Vec<String> =
            peers.iter().enumerate().map(|(node, port)| format!("n{node}={}", address(port))).collect();
        let log = format!("{WORK}/{name}.log");
        let mut servers = Self {
            children: Vec::new(),
            endpoints: clients.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
            log: log.clone(),
        };
        let file = File::create(&log).map_err(|error| format!("cannot write {log}: {error}"))?;
        for node in 0..nodes {
            let (client, peer) = (address(&clients[node]), address(&peers[node]));
            let mut command = Command::new(program);
            if is_etcd {
                command.args(["--log-level", "error", "--initial-advertise-peer-urls", &peer]);
            } else {
                command.args(["serve", "--log-level", "error", "--partitions", &partitions.to_string()]);
            }
            command
                .args(["--name", &format!("n{node}"), "--initial-cluster", &members.join(",")])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--data-dir", &format!("{WORK}/{name}-n{node}")])
                .stdin(Stdio::null());
            for output in [Command::stdout, Command::stderr] {
                let file = file.try_clone().map_err(|error| format!("cannot write {log}: {error}"))?;
                output(&mut command, file);
            }
            let child =
                command.spawn().map_err(|error| format!("cannot run {}: {error}", program.display()))?;
            servers.children.push(child);
        }
        Ok(servers)
    }

    /// Until every endpoint answers a linearizable read.
    fn wait(&self, etcdctl: &Path) -> Result<(), String> {
        let begun = Instant::now();
        for endpoint in &self.endpoints {
            loop {
                let output = Command::new(etcdctl)
                    .args(["--endpoints", endpoint, "get", "nothing"])
                    .env("ETCDCTL_API", "3")
                    .output()
                    .map_err(|error| format!("cannot run {}: {error}", etcdctl.display()))?;
                if output.status.success() {
                    break;
                }
                if begun.elapsed() > START_MAX {
                    return Err(format!("{endpoint} does not answer; see {}", self.log));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }
    /// Makes two partitions of quorate's largest.
    fn split(&self, quorate: &Path) -> Result<(), String> {
        let output = Command::new(quorate)
            .args(["--endpoints", &self.endpoints.join(","), "partitions", "split"])
            .output()
            .map_err(|error| format!("cannot run {}: {error}", quorate.display()))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("partitions split: {}", String::from_utf8_lossy(&output.stderr)))
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that nobody listens on, all different because all are held until the last is known.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let bound = || -> std::io::Result<Vec<u16>> {
        let listeners: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
    };
    bound().map_err(|error| format!("no free ports: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some((2, "b", "c")));
        assert_eq!(first_difference("a\nb\n", "a\n"), Some((2, "b", "(ends)")));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some((2, "(ends)", "b")));
    }
}
