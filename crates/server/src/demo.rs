//! `quorate demo`: three real nodes, real input, and a leader killed again and again; then every
//! acknowledged write is checked. With partitions there is a bank, too ([`bank`]).

mod bank;

use crate::cli::{Target, partitions, prefix_end};
use bank::Bank;
use clap::Args;
use quorate_api::pb;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const NODES: usize = 3;
const WRITERS: usize = 8;
const START_MAX: Duration = Duration::from_secs(20);
/// Directories for each partition: some get more than others, as they are dealt out by a hash.
const DIRECTORIES_EACH: usize = 8;
/// Between two kills.
const CALM: Duration = Duration::from_millis(2_500);
/// How long a killed node stays away.
const AWAY: Duration = Duration::from_millis(1_200);
/// A text that is always at hand.
const TEXT: &str = include_str!("../../../LICENSE");

/// Three nodes on this machine, a text written through them, the leader killed on the way; then every
/// acknowledged write is checked
#[derive(Args, Debug)]
pub struct Demo {
    /// The text to load, line by line, over and over; without it, one that the program carries
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How often the leader is killed (kill -9)
    #[arg(long, default_value_t = 4)]
    kills: u32,
    /// Into how many partitions the keys are dealt. With more than one the text goes to many directories, and a bank moves money
    /// between accounts in all of them, whose total must never change
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    partitions: u32,
    /// Leave the cluster running and say how to reach it
    #[arg(long)]
    keep: bool,
}

/// A node process; killed when dropped.
struct Process {
    child: Option<Child>,
    command: Vec<String>,
    log: PathBuf,
    client: String,
}

impl Process {
    fn start(&mut self) -> Result<(), String> {
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

    /// kill -9.
    fn kill(&mut self) {
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

/// What the writers have done so far.
#[derive(Default)]
struct Progress {
    acknowledged: Mutex<BTreeMap<String, String>>,
    count: AtomicU64,
    /// When the last write was acknowledged, and the longest gap since it was last asked for; in microseconds since the start.
    last: AtomicU64,
    gap: AtomicU64,
    stop: AtomicBool,
}

impl Demo {
    /// Runs it. An error is a sentence for the person at the terminal.
    pub async fn run(self) -> Result<(), String> {
        let text = match &self.input {
            None => TEXT.to_owned(),
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?
            }
        };
        let lines: Arc<Vec<String>> = Arc::new(
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        );
        if lines.is_empty() {
            return Err("the input has no lines".into());
        }
        let directory = std::env::temp_dir().join(format!("quorate-demo-{}", std::process::id()));
        std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let mut nodes = prepare(&directory, self.partitions)?;
        for node in &mut nodes {
            node.start()?;
        }
        let target = Target {
            endpoints: nodes.iter().map(|node| node.client.clone()).collect(),
            keyspace: None,
            output: crate::cli::Output::Table,
            timeout: 5,
            tls: Default::default(),
        };
        let outcome = tokio::select! {
            outcome = self.drive(&mut nodes, &target, lines) => outcome,
            _ = tokio::signal::ctrl_c() => Err("stopped by Ctrl-C".into()),
        };
        if self.keep && outcome.is_ok() {
            for node in &mut nodes {
                // Left to itself: dropping the handle does not end the process.
                drop(node.child.take());
            }
            println!("the cluster stays up; its data is in {}", directory.display());
            println!("  etcdctl --endpoints={} get --prefix demo/ --limit 5", target.endpoints.join(","));
            println!("  to end it: pkill -f {}", directory.display());
            return outcome;
        }
        drop(nodes);
        if outcome.is_ok() {
            // What a failed run leaves behind is worth a look.
            let _ = std::fs::remove_dir_all(&directory);
        } else {
            println!("data and logs are left in {}", directory.display());
        }
        outcome
    }

    async fn drive(
        &self,
        nodes: &mut [Process],
        target: &Target,
        lines: Arc<Vec<String>>,
    ) -> Result<(), String> {
        let of =
            if self.partitions > 1 { format!(" with {} partitions", self.partitions) } else { String::new() };
        println!("three nodes{of} start: {}", target.endpoints.join(", "));
        let begun = Instant::now();
        let mut leader = wait_for_leader(target, None).await?;
        println!(
            "{:>6.1} s  node {} leads; writing {} lines over and over",
            begun.elapsed().as_secs_f64(),
            leader + 1,
            lines.len()
        );
        let progress = Arc::new(Progress::default());
        let clock = Instant::now();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (target, lines, progress) = (target.clone(), lines.clone(), progress.clone());
                tokio::spawn(write(writer, target, self.partitions, lines, progress, clock))
            })
            .collect();
        let bank = if self.partitions > 1 { Some(Bank::open(target).await?) } else { None };
        let mut gaps = Vec::new();
        for kill in 0..=self.kills {
            let before = progress.count.load(Ordering::Relaxed);
            let money_before = bank.as_ref().map(Bank::counts).unwrap_or_default();
            let calm = Instant::now();
            tokio::time::sleep(CALM).await;
            let rate =
                (progress.count.load(Ordering::Relaxed) - before) as f64 / calm.elapsed().as_secs_f64();
            let mut line = format!("node {} leads, {rate:.0} writes/s", leader + 1);
            if let Some(bank) = &bank {
                bank.problem().await?;
                let money = bank.counts();
                let transfers =
                    (money.transfers - money_before.transfers) as f64 / calm.elapsed().as_secs_f64();
                let audits = money.audits - money_before.audits;
                line.push_str(&format!(", {transfers:.0} transfers/s over the partitions, {audits} audits"));
            }
            println!("{:>6.1} s  {line}", begun.elapsed().as_secs_f64());
            if kill == self.kills {
                break;
            }
            progress.gap.store(0, Ordering::Relaxed);
            nodes[leader].kill();
            println!("{:>6.1} s  kill -9 of node {}", begun.elapsed().as_secs_f64(), leader + 1);
            let killed = leader;
            tokio::time::sleep(AWAY).await;
            leader = wait_for_leader(target, Some(killed)).await?;
            let gap = Duration::from_micros(progress.gap.load(Ordering::Relaxed));
            println!(
                "{:>6.1} s  node {} leads; no write was acknowledged for {} ms",
                begun.elapsed().as_secs_f64(),
                leader + 1,
                gap.as_millis()
            );
            gaps.push(gap);
            nodes[killed].start()?;
        }
        progress.stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.map_err(|error| format!("a writer failed: {error}"))?;
        }
        let money = match bank {
            Some(bank) => Some(bank.close().await?),
            None => None,
        };
        gaps.sort();
        let acknowledged = progress.acknowledged.lock().await;
        println!(
            "{:>6.1} s  {} writes acknowledged; {} fail-overs, longest write gap {} ms; checking",
            begun.elapsed().as_secs_f64(),
            acknowledged.len(),
            gaps.len(),
            gaps.last().map_or(0, Duration::as_millis)
        );
        check(target, &acknowledged).await?;
        println!("every acknowledged write is there, on all three nodes, and their histories are equal");
        if let Some(money) = money {
            println!(
                "{} transfers between accounts all over the partitions ({} more met another's and were begun anew); {} audits at one revision each and \
                 {} moves that a watcher followed: the total was always {}",
                money.transfers,
                money.conflicts,
                money.audits,
                money.watched,
                bank::total()
            );
            let entries = partitions::entries(target, &target.endpoints[leader]).await?;
            println!(
                "{} partitions hold between {} and {} entries",
                entries.len(),
                entries.iter().min().unwrap_or(&0),
                entries.iter().max().unwrap_or(&0)
            );
        }
        Ok(())
    }
}

fn prepare(directory: &Path, partitions: u32) -> Result<Vec<Process>, String> {
    // Ports that are free now; held until all are chosen, so that they differ.
    let mut held = Vec::new();
    let mut port = || {
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| format!("finding a port: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("finding a port: {error}"))?;
        held.push(listener);
        Ok::<_, String>(address.to_string())
    };
    let mut addresses = Vec::new();
    for _ in 0..NODES {
        addresses.push((port()?, port()?));
    }
    let cluster: Vec<String> =
        addresses.iter().enumerate().map(|(at, (_, peer))| format!("n{}={peer}", at + 1)).collect();
    let cluster = cluster.join(",");
    let partitions = partitions.to_string();
    let processes = addresses.into_iter().enumerate().map(|(at, (client, _))| {
        let name = format!("n{}", at + 1);
        let data = directory.join(&name).display().to_string();
        let command = [
            "serve",
            "--name",
            &name,
            "--data-dir",
            &data,
            "--listen-client",
            &client,
            "--initial-cluster",
            &cluster,
            "--partitions",
            &partitions,
        ];
        Process {
            child: None,
            command: command.iter().map(|word| word.to_string()).collect(),
            log: directory.join(format!("{name}.log")),
            client,
        }
    });
    Ok(processes.collect())
}

/// Which node leads and is not `gone`.
async fn wait_for_leader(target: &Target, gone: Option<usize>) -> Result<usize, String> {
    let begun = Instant::now();
    loop {
        for (at, endpoint) in target.endpoints.iter().enumerate() {
            if Some(at) == gone {
                continue;
            }
            let Ok(channel) = target.connect_to(endpoint).await else { continue };
            let mut client = pb::maintenance_client::MaintenanceClient::new(channel);
            let Ok(status) = client.status(pb::StatusRequest {}).await else { continue };
            let status = status.into_inner();
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return Ok(at);
            }
        }
        if begun.elapsed() > START_MAX {
            return Err(format!("no node leads after {} s", START_MAX.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where a line goes. A directory is in one partition, so several partitions need several.
fn key_of(number: usize, partitions: u32) -> String {
    match partitions {
        1 => format!("demo/{number:08}"),
        _ => format!("demo/{:04}/{number:08}", number % (partitions as usize * DIRECTORIES_EACH)),
    }
}

/// Writes lines until told to stop; what fails is written again, through the next node.
async fn write(
    writer: usize,
    target: Target,
    partitions: u32,
    lines: Arc<Vec<String>>,
    progress: Arc<Progress>,
    clock: Instant,
) {
    let mut at = writer;
    let mut number = writer;
    let mut channel = None;
    while !progress.stop.load(Ordering::Relaxed) {
        let key = key_of(number, partitions);
        let value = lines[number % lines.len()].clone();
        let Some(connected) = channel.clone() else {
            channel = target.connect_to(&target.endpoints[at % NODES]).await.ok();
            if channel.is_none() {
                at += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            continue;
        };
        let mut client = pb::kv_client::KvClient::new(connected);
        let put =
            pb::PutRequest { key: key.clone().into(), value: value.clone().into(), ..Default::default() };
        match client.put(put).await {
            Ok(_) => {
                let now = clock.elapsed().as_micros() as u64;
                let last = progress.last.swap(now, Ordering::Relaxed);
                progress.gap.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
                progress.count.fetch_add(1, Ordering::Relaxed);
                progress.acknowledged.lock().await.insert(key, value);
                number += WRITERS;
            }
            // Whether it was carried out or not: writing the same again is right in both cases.
            Err(_) => {
                channel = None;
                at += 1;
            }
        }
    }
}

/// Compares what every node has with what was acknowledged.
async fn check(target: &Target, acknowledged: &BTreeMap<String, String>) -> Result<(), String> {
    let mut newest = 0;
    for endpoint in &target.endpoints {
        let problem = |what: &str, error: &dyn std::fmt::Display| format!("{what} at {endpoint}: {error}");
        let channel = target.connect_to(endpoint).await.map_err(|error| error.to_string())?;
        let mut client = pb::kv_client::KvClient::new(channel).max_decoding_message_size(1 << 30);
        let mut found = BTreeMap::new();
        let mut next = b"demo/".to_vec();
        loop {
            let request = pb::RangeRequest {
                key: next.clone().into(),
                range_end: prefix_end(b"demo/").into(),
                limit: 5_000,
                ..Default::default()
            };
            let page = client
                .range(request)
                .await
                .map_err(|error| problem("reading", &error.message()))?
                .into_inner();
            newest = newest.max(page.header.as_ref().map_or(0, |header| header.revision));
            if let Some(last) = page.kvs.last() {
                next = [&last.key[..], &[0]].concat();
            }
            for pair in page.kvs {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                found.insert(text(&pair.key), text(&pair.value));
            }
            if !page.more {
                break;
            }
        }
        let missing = acknowledged.iter().filter(|(key, value)| found.get(*key) != Some(value)).count();
        if missing > 0 {
            return Err(format!(
                "{missing} of {} acknowledged writes are missing at {endpoint}",
                acknowledged.len()
            ));
        }
    }
    let mut hashes = Vec::new();
    for endpoint in &target.endpoints {
        hashes.push(hash_at(target, endpoint, newest).await?);
    }
    if hashes.iter().any(|hash| *hash != hashes[0]) {
        return Err(format!("the nodes' histories differ: {hashes:?}"));
    }
    Ok(())
}

/// The hash of a node's history up to a revision, as soon as all of that is there.
async fn hash_at(target: &Target, endpoint: &str, revision: i64) -> Result<u32, String> {
    let begun = Instant::now();
    loop {
        let channel = target.connect_to(endpoint).await.map_err(|error| error.to_string())?;
        let mut client = pb::maintenance_client::MaintenanceClient::new(channel);
        match client.hash_kv(pb::HashKvRequest { revision }).await {
            Ok(answer) => return Ok(answer.into_inner().hash),
            Err(status) if begun.elapsed() > START_MAX => {
                return Err(format!("hashing at {endpoint}: {}", status.message()));
            }
            // What was read there is there; what else there is by that revision may be on its way.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
