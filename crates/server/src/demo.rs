//! `quorate demo`: real nodes, real input, and a leader killed again and again; then every acknowledged write is checked. With
//! partitions there is a bank, too ([`bank`]); with more than three nodes one dies for good and another joins ([`healing`]).

mod bank;
mod healing;
mod nodes;
mod writers;

use crate::cli::{Target, events, partitions};
use crate::events::Kind;
use bank::Bank;
use clap::Args;
use nodes::{Process, Wanted};
use quorate_api::pb;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use writers::{Progress, WRITERS};

const START_MAX: Duration = Duration::from_secs(20);
/// Between two kills.
const CALM: Duration = Duration::from_millis(2_500);
/// How long a killed node stays away.
const AWAY: Duration = Duration::from_millis(1_200);
/// On so many nodes everything is kept; those above that are what replaces the dead.
const COPIES: usize = 3;
/// A text that is always at hand.
const TEXT: &str = include_str!("../../../LICENSE");

/// A cluster on this machine, a text written through it, the leader killed on the way; then every
/// acknowledged write is checked
#[derive(Args, Debug)]
pub struct Demo {
    /// How many nodes. With more than three, which is how many copies there are of everything, one is killed for good with its disk, the
    /// others take over what it had, and a new one joins
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
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
        let wanted = Wanted { nodes: usize::from(self.nodes), partitions: self.partitions, copies: COPIES };
        let mut nodes = nodes::prepare(&directory, &wanted)?;
        for node in &mut nodes {
            node.start()?;
        }
        let mut target = Target {
            endpoints: nodes.iter().map(|node| node.client.clone()).collect(),
            keyspace: None,
            output: crate::cli::Output::Table,
            timeout: 5,
            tls: Default::default(),
        };
        let outcome = tokio::select! {
            outcome = self.drive(&mut nodes, &mut target, lines) => outcome,
            _ = tokio::signal::ctrl_c() => Err("stopped by Ctrl-C".into()),
        };
        if self.keep && outcome.is_ok() {
            for node in &mut nodes {
                // Left to itself: dropping the handle does not end the process.
                node.leave_running();
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
        nodes: &mut Vec<Process>,
        target: &mut Target,
        lines: Arc<Vec<String>>,
    ) -> Result<(), String> {
        let of =
            if self.partitions > 1 { format!(" with {} partitions", self.partitions) } else { String::new() };
        println!("{} nodes{of} start: {}", nodes.len(), target.endpoints.join(", "));
        let begun = Instant::now();
        let mut leader = wait_for_leader(target, None).await?;
        println!(
            "{:>6.1} s  node {} leads; writing {} lines over and over",
            begun.elapsed().as_secs_f64(),
            leader + 1,
            lines.len()
        );
        let progress = Arc::new(Progress::new());
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (target, lines, progress) = (target.clone(), lines.clone(), progress.clone());
                tokio::spawn(writers::write(writer, target, self.partitions, lines, progress))
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
            // What stands still after another leads counts as well.
            if let Some(gap) = gaps.last_mut().filter(|gap| progress.longest_gap() > **gap) {
                *gap = progress.longest_gap();
                line.push_str(&format!(", none of them for {} ms", gap.as_millis()));
            }
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
            progress.forget_gaps();
            nodes[leader].kill();
            println!("{:>6.1} s  kill -9 of node {}", begun.elapsed().as_secs_f64(), leader + 1);
            let killed = leader;
            tokio::time::sleep(AWAY).await;
            leader = wait_for_leader(target, Some(killed)).await?;
            let gap = progress.longest_gap();
            println!(
                "{:>6.1} s  node {} leads; no write was acknowledged for {} ms",
                begun.elapsed().as_secs_f64(),
                leader + 1,
                gap.as_millis()
            );
            gaps.push(gap);
            nodes[killed].start()?;
        }
        if nodes.len() > COPIES {
            tokio::time::sleep(CALM).await;
            healing::lose_and_join(nodes, target, leader, &progress, begun).await?;
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
        writers::check(target, &acknowledged).await?;
        if usize::from(self.nodes) == COPIES {
            writers::check_histories(target).await?;
            println!("every acknowledged write is there, on all three nodes, and their histories are equal");
        } else {
            println!("every acknowledged write is there, whichever of the {} nodes is asked", nodes.len());
        }
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
            // A node counts what it has itself.
            if usize::from(self.nodes) == COPIES {
                let entries = partitions::entries(target, &target.endpoints[0]).await?;
                println!(
                    "{} partitions hold between {} and {} entries",
                    entries.len(),
                    entries.iter().min().unwrap_or(&0),
                    entries.iter().max().unwrap_or(&0)
                );
            }
        }
        if nodes.len() > COPIES {
            println!("\nwhat the nodes noted of members, processes and moves (quorate events):");
            let kinds = vec![Kind::Member, Kind::Process, Kind::Move];
            let shown = events::Events::since(begun.elapsed() + AWAY, kinds).run(target).await;
            shown.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
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
