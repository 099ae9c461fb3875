//! Measures quorate, and etcd beside it: the same clients, the same machine, in turns (`docs/performance.md`).
//!
//! The load is `crates/load`'s; here are the clusters, what the servers take, and the targets.

mod baseline;
mod chart;
mod cluster;
mod costs;
mod disturbance;
mod failover;
mod flames;
mod gaps;
mod http;
mod idle;
mod keys;
mod load;
mod many;
mod model;
mod plan;
mod point;
mod process;
mod replace;
mod report;
mod run;
mod sweep;
mod targets;
mod upkeep;

use clap::Parser;
use plan::Session;
use point::Kind;
use quorate_load::Times;
use run::{Found, How};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What may go wrong anywhere in a benchmark; it ends the run with its words.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// All targets fall within this with --quick, or what is left is not tried again.
const QUICK: Duration = Duration::from_secs(120);
/// From then on nothing is tried again.
const QUICK_TRIES: Duration = Duration::from_secs(75);
/// Keys of --upkeep: reading their files for damage takes longer than measuring it.
const UPKEEP_KEYS: u64 = 300_000;
/// What a file system is called that no write to is durable.
const MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// Measures quorate and etcd
#[derive(Parser)]
struct Options {
    /// Measure etcd too, in turns with quorate
    #[arg(long, requires = "etcd")]
    vs_etcd: bool,
    /// Everything that there is a target for, once and shortly: two minutes
    #[arg(long, requires = "etcd", conflicts_with_all = ["points", "nodes", "clients"])]
    quick: bool,
    /// How often everything is measured; medians are compared [default: 3, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long a load is measured, after half a second of warming up [default: 5, with --quick 1.2]
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
    /// Sizes of clusters, of what --points names
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3], requires = "points")]
    nodes: Vec<usize>,
    /// Numbers of clients, or of watchers, of what --points names
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256], requires = "points")]
    clients: Vec<usize>,
    /// What is measured [default: everything that there is a target for, and compaction]
    #[arg(long, value_delimiter = ',', value_enum)]
    points: Vec<Kind>,
    /// How many partitions quorate's clusters are made with
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    partitions: u32,
    /// Over how many directories the keys are spread; keys of one directory are in one partition
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    directories: u64,
    /// How many keys the points with many keys have [default: 1000000, with --quick 200000, with --upkeep 300000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1_000..=20_000_000))]
    many: Option<u64>,
    /// What somebody else used more than so much of the machine's processors meanwhile is thrown away and measured again
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    disturbed_above: f64,
    /// How often a load is measured until it is undisturbed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    tries: u32,
    /// Say which threads of which node the processor time went to
    #[arg(long)]
    costs: bool,
    /// Compare with what --json FILE wrote at another commit
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Instead of all that: load so many megabytes into three of four nodes, kill one for good, and measure how the fourth takes its place
    #[arg(long, value_name = "MEGABYTES")]
    replace: Option<u64>,
    /// Instead of all that: deal the partitions over five nodes, kill, drain and stop one, and measure for how long no write to each partition goes through
    #[arg(long, conflicts_with = "replace")]
    gaps: bool,
    /// Instead of all that: what clients of many keys feel while history is removed, a replica is filled anew and files are read for damage
    #[arg(long, conflicts_with_all = ["replace", "gaps"])]
    upkeep: bool,
    /// Instead of all that: go along keys, values, clients, watchers and leases, from little to much, and draw what comes out into a directory; takes hours
    #[arg(long, value_name = "DIR", conflicts_with_all = ["quick", "points", "replace", "gaps", "upkeep"])]
    sweep: Option<PathBuf>,
    /// Of these only
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "sweep", value_parser = clap::builder::PossibleValuesParser::new(sweep::axes()))]
    axes: Vec<String>,
    /// No further than so many of what is varied
    #[arg(long, value_name = "NUMBER", requires = "sweep")]
    up_to: Option<u64>,
    /// Instead of all that: draw where three nodes spend their processor time under each load, or those of --points, into a directory; needs perf
    #[arg(long, value_name = "DIR", conflicts_with_all = ["quick", "replace", "gaps", "upkeep", "sweep", "vs_etcd", "json", "baseline"])]
    flames: Option<PathBuf>,
    /// Write everything as one JSON object: to a file, or without one to standard output instead of the tables
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
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

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.2..=3_600.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.2 and 3600".into()) }
}

impl Options {
    /// Whether standard output is for one JSON object.
    fn is_json(&self) -> bool {
        self.json.as_ref().is_some_and(|file| file.as_os_str() == "-")
    }

    fn how(&self, begun: Instant) -> How {
        let or = |given: Option<f64>, quick: f64, else_: f64| {
            given.unwrap_or(if self.quick { quick } else { else_ })
        };
        How {
            rounds: self.rounds.unwrap_or(if self.quick { 1 } else { 3 }),
            times: Times {
                warm_up: Duration::from_millis(if self.quick { 300 } else { 500 }),
                duration: Duration::from_secs_f64(or(self.seconds, 1.2, 5.0)),
            },
            many: self.many.unwrap_or(if self.quick { 200_000 } else { 1_000_000 }),
            kills: if self.quick { 1 } else { 5 },
            tries: self.tries,
            try_until: self.quick.then(|| begun + QUICK_TRIES),
        }
    }

    fn sessions(&self) -> Vec<Session> {
        let with_etcd = self.vs_etcd || self.quick;
        if self.points.is_empty() {
            plan::targets(with_etcd, !self.quick)
        } else {
            plan::asked(with_etcd, &self.nodes, &self.points, &self.clients)
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match quorate_load::runtime() {
        Ok(runtime) => runtime.block_on(run(&options)),
        Err(error) => {
            eprintln!("quorate-bench: cannot start: {error}");
            ExitCode::from(4)
        }
    }
}

async fn run(options: &Options) -> ExitCode {
    // Leaving the other branch drops the cluster, and a cluster that is dropped kills its servers.
    let outcome = tokio::select! {
        outcome = measure(options) => outcome,
        () = told_to_stop() => Err("stopped; the servers were killed".into()),
    };
    match outcome {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("quorate-bench: {problem}");
            ExitCode::from(4)
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

async fn measure(options: &Options) -> Result<ExitCode, Failure> {
    if let Some(measured) = &options.model.measured {
        model::print(&options.model, measured)?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.upkeep {
        let (mut all, mut is_met) = (Vec::new(), true);
        for _ in 0..options.rounds.unwrap_or(3) {
            let (program, directory) = (&options.quorate, &options.directory);
            let many = options.many.unwrap_or(UPKEEP_KEYS);
            let (found, round) = upkeep::run(program, directory, options.partitions, many).await?;
            is_met &= round;
            all.push(found);
        }
        write_json(options, &serde_json::Value::from(all))?;
        return Ok(ExitCode::from(u8::from(!is_met)));
    }
    if options.gaps || options.replace.is_some() {
        let mut all = Vec::new();
        for _ in 0..options.rounds.unwrap_or(3) {
            let (program, directory) = (&options.quorate, &options.directory);
            all.push(match options.replace {
                Some(megabytes) => replace::run(program, directory, options.partitions, megabytes).await?,
                None => gaps::run(program, directory, options.partitions).await?,
            });
        }
        write_json(options, &serde_json::Value::from(all))?;
        return Ok(ExitCode::SUCCESS);
    }
    let begun = Instant::now();
    if let Some(directory) = &options.sweep {
        let found = sweep::run(options, directory, options.how(begun).times).await?;
        write_json(options, &found)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(directory) = &options.flames {
        flames::run(options, directory, options.how(begun).times).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let baseline = options.baseline.as_ref().map(|file| baseline::read(file)).transpose()?;
    std::fs::create_dir_all(&options.directory)
        .map_err(|error| format!("cannot make {}: {error}", options.directory.display()))?;
    let file_system = process::file_system(&options.directory).unwrap_or_else(|| "unknown".to_owned());
    if MEMORY.contains(&file_system.as_str()) && options.points.is_empty() {
        let directory = options.directory.display();
        return Err(format!(
            "{directory} is memory ({file_system}), and the targets are for disks: see --directory"
        )
        .into());
    }
    let how = options.how(begun);
    let found = run::run(options, &options.sessions(), &how).await?;
    report(options, &how, &found, baseline.as_deref(), &file_system, begun.elapsed())
}

/// Says what was found, and whether it is what is wanted: 1 if something falls short, 3 if nothing does and something could not be measured.
fn report(
    options: &Options,
    how: &How,
    found: &Found,
    baseline: Option<&[serde_json::Value]>,
    file_system: &str,
    took: Duration,
) -> Result<ExitCode, Failure> {
    let Found { all, thrown_away } = found;
    let verdicts = targets::verdicts(all);
    let compared = baseline.map(|then| baseline::compare(then, all));
    let is_judged = options.points.is_empty() && (options.vs_etcd || options.quick);
    let of = |state: fn(&targets::Verdict) -> bool| -> Vec<String> {
        let of = verdicts.iter().filter(|verdict| is_judged && state(verdict));
        of.map(|verdict| format!("{}: {}", verdict.target.point, verdict.target.metric.words())).collect()
    };
    let short = of(|verdict| verdict.is_met == Some(false));
    let unknown = of(|verdict| verdict.is_met.is_none());
    let mut whole = json!({
        "falls_short": short, "not_measured": unknown,
        "targets": if is_judged { report::verdicts_json(&verdicts) } else { json!([]) },
        "machine": {
            "processors": std::thread::available_parallelism().map_or(0, |count| count.get()),
            "file_system": file_system,
        },
        "rounds": how.rounds, "seconds_per_point": how.times.duration.as_secs_f64(), "many_keys": how.many,
        "partitions": options.partitions, "thrown_away": thrown_away, "took_seconds": took.as_secs_f64(),
        "measurements": report::measurements(all),
    });
    if let Some(compared) = &compared {
        whole["baseline"] = baseline::json(compared);
    }
    write_json(options, &whole)?;
    if !options.is_json() {
        report::table(all, options.costs);
        if is_judged {
            report::verdicts(&verdicts);
        }
        if let Some(compared) = &compared {
            baseline::print(compared);
        }
        println!("\n{thrown_away} measurements thrown away; {:.0} s in all", took.as_secs_f64());
    }
    if options.quick && took > QUICK {
        eprintln!(
            "quorate-bench: this took longer than two minutes; the machine is slower, or busier, than it was made for"
        );
    }
    Ok(match (short.is_empty(), unknown.is_empty()) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(3),
        (false, _) => ExitCode::FAILURE,
    })
}

fn write_json(options: &Options, value: &serde_json::Value) -> Result<(), Failure> {
    match &options.json {
        Some(_) if options.is_json() => println!("{value:#}"),
        Some(file) => std::fs::write(file, format!("{value:#}\n"))
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?,
        None => {}
    }
    Ok(())
}
