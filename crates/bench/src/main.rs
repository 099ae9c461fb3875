//! Measures quorate, and etcd beside it: the same clients, the same machine, in turns.
//!
//! Every client is a closed loop: it sends its next request when the last one was answered.

mod cluster;
mod costs;
mod failover;
mod gaps;
mod http;
mod idle;
mod keys;
mod load;
mod model;
mod point;
mod process;
mod replace;
mod report;
mod watch;

use clap::Parser;
use cluster::{Cluster, System};
use keys::Keys;
use point::{Kind, Measured, Point};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What may go wrong anywhere in a benchmark; it ends the run with its words.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A closed-loop load generator for quorate and etcd
#[derive(Parser)]
struct Options {
    /// Measure etcd too, in turns with quorate
    #[arg(long, requires = "etcd")]
    vs_etcd: bool,
    /// How often everything is measured; medians are compared
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long a point is measured, after half a second of warming up
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Sizes of clusters
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
    nodes: Vec<usize>,
    /// Numbers of clients, or of watchers
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    clients: Vec<usize>,
    /// What is measured
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Kind::Put, Kind::Get, Kind::Watch, Kind::Failover])]
    points: Vec<Kind>,
    /// How many partitions quorate's clusters are made with
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    partitions: u32,
    /// Over how many directories the keys are spread; keys of one directory are in one partition
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    directories: u64,
    /// Say which threads of which node the processor time went to
    #[arg(long)]
    costs: bool,
    /// Instead of all that: load so many megabytes into three of four nodes, kill one for good, and measure how the fourth takes its place
    #[arg(long, value_name = "MEGABYTES")]
    replace: Option<u64>,
    /// Instead of all that: deal the partitions over five nodes, kill, drain and stop one, and measure for how long no write to each partition goes through
    #[arg(long, conflicts_with = "replace")]
    gaps: bool,
    /// Write every measurement here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The quorate program
    #[arg(long, value_name = "FILE", default_value = "target/release/quorate")]
    quorate: PathBuf,
    /// The etcd program; `cargo xtask bench` installs one under target/etcd and names it
    #[arg(long, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// Where the servers keep their data; emptied as the run goes
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    directory: PathBuf,
    #[command(flatten)]
    model: model::Given,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // Leaving the other branch drops the cluster, and a cluster that is dropped kills its servers.
    let outcome = tokio::select! {
        outcome = measure(&options) => outcome,
        () = told_to_stop() => Err("stopped; the servers were killed".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("quorate-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Returns on Ctrl-C or SIGTERM.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    } else {
        let _ = tokio::signal::ctrl_c().await;
    }
}

async fn measure(options: &Options) -> Result<(), Failure> {
    if let Some(measured) = &options.model.measured {
        return model::print(&options.model, measured);
    }
    if options.gaps || options.replace.is_some() {
        let mut all = Vec::new();
        for _ in 0..options.rounds {
            let (program, directory) = (&options.quorate, &options.directory);
            all.push(match options.replace {
                Some(megabytes) => replace::run(program, directory, options.partitions, megabytes).await?,
                None => gaps::run(program, directory, options.partitions).await?,
            });
        }
        if let Some(file) = &options.json {
            std::fs::write(file, serde_json::Value::from(all).to_string())
                .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        }
        return Ok(());
    }
    let mut systems = vec![(System::Quorate, options.quorate.clone())];
    if let (true, Some(program)) = (options.vs_etcd, &options.etcd) {
        systems.push((System::Etcd, program.clone()));
    }
    let duration = Duration::from_secs(options.seconds);
    // What makes no sense is said before anything is started.
    for &kind in &options.points {
        Keys::new(kind, options.directories, options.partitions)?;
    }
    if options.points.iter().filter(|kind| kind.kills()).count() > 1 {
        return Err("failover and survivors kill the leader each: one at a time".into());
    }
    let mut all: Vec<Measured> = Vec::new();
    for round in 0..options.rounds {
        for &nodes in &options.nodes {
            // Who goes first changes from round to round.
            for turn in 0..systems.len() {
                let (system, program) = &systems[(turn + round as usize) % systems.len()];
                let mut cluster =
                    Cluster::start(*system, program, &options.directory, nodes, options.partitions).await?;
                let mut note = |kind, clients, result| {
                    let point = Point { kind, nodes, clients };
                    all.push(Measured { system: *system, round, point, result });
                    report::line(&all[all.len() - 1], options.costs);
                };
                // Before there is anything that could make it other than what rests.
                if options.points.contains(&Kind::Idle) {
                    note(Kind::Idle, 0, idle::run(&cluster, options.partitions, duration).await?);
                }
                for &kind in options.points.iter().filter(|kind| kind.is_load()) {
                    if *system == System::Etcd && kind == Kind::Txn2 {
                        continue;
                    }
                    let keys = Keys::new(kind, options.directories, options.partitions)?;
                    for &clients in &options.clients {
                        let result = match kind {
                            Kind::Watch => {
                                watch::run(&cluster, clients, options.directories, duration).await?
                            }
                            _ => load::run(&cluster, kind, clients, &keys, duration).await?,
                        };
                        note(kind, clients, result);
                    }
                }
                for &kind in options.points.iter().filter(|kind| kind.kills() && nodes >= 3) {
                    let result = match kind {
                        Kind::Failover => failover::run(&mut cluster).await?,
                        _ => idle::survivors(&mut cluster, options.partitions, duration).await?,
                    };
                    note(kind, nodes - 1, result);
                }
            }
        }
    }
    report::table(&all, options.costs);
    if let Some(file) = &options.json {
        std::fs::write(file, report::json(&all))
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(())
}
