//! Fuzzes for as long as it is told: `cargo run --release -p quorate-fuzz -- --seconds 600`. `docs/fuzzing.md` has the rest.

use clap::Parser;
use quorate_fuzz::campaign::{Campaign, Failure};
use quorate_fuzz::execute::{Executor, Outcome, Saving, how_to_replay};
use quorate_fuzz::targets::{TARGETS, Target};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Of the thread that executes: as much as threads of a server have.
const STACK_BYTES: usize = 2 << 20;
/// Executions between two looks at the clock.
const STEP: u64 = 200;

/// Feeds damaged and hostile bytes to everything that reads bytes it did not write
#[derive(Clone, Parser)]
struct Args {
    /// What to fuzz; everything in turn, if nothing is named
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Names the targets and says what they are
    #[arg(long)]
    list: bool,
    /// Mutations for each target at most
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    executions: u64,
    /// Seconds altogether, shared out evenly
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// Where chance begins
    #[arg(long, value_name = "X", default_value_t = 1)]
    seed: u64,
    /// Executes one input from a file
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Where inputs are saved that something is wrong with
    #[arg(long, value_name = "FOLDER", default_value = "target/fuzz")]
    folder: PathBuf,
    /// Saves every input before its execution: to find the one at which the process ended without a word
    #[arg(long)]
    save_each: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        TARGETS.iter().for_each(|target| println!("{:<16} {}", target.name, target.what));
        return ExitCode::SUCCESS;
    }
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || run(&args));
    match thread.map(|thread| thread.join()) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Ok(Err(problem))) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
        _ => ExitCode::FAILURE,
    }
}

fn run(args: &Args) -> Result<(), String> {
    let is_wanted =
        |target: &&Target| args.target.is_empty() || args.target.iter().any(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(is_wanted).collect();
    if targets.is_empty() || targets.len() < args.target.len() {
        return Err("there is no such target; --list names them".into());
    }
    let executor = Executor::new(Saving { folder: args.folder.clone(), is_each: args.save_each });
    if let Some(path) = &args.replay {
        let [target] = targets[..] else { return Err("--replay needs one --target".into()) };
        let input = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        return match executor.run(target, &input) {
            Outcome::Wrong(what) => Err(format!("{}: {what}", target.name)),
            outcome => {
                println!("{}: {outcome:?}", target.name);
                Ok(())
            }
        };
    }
    let share = Duration::from_secs(args.seconds) / targets.len() as u32;
    let failed = targets.iter().filter(|target| !fuzz(target, &executor, args, share)).count();
    if failed > 0 { Err(format!("{failed} targets failed")) } else { Ok(()) }
}

/// Whether nothing is wrong.
fn fuzz(target: &Target, executor: &Executor, args: &Args, share: Duration) -> bool {
    let begun = Instant::now();
    let mut campaign = match Campaign::new(target, executor, args.seed) {
        Ok(campaign) => campaign,
        Err(error) => {
            eprintln!("{}: its kept inputs: {error}", target.name);
            return false;
        }
    };
    let show = |campaign: &Campaign<'_>, end: &str| {
        let (done, elapsed) = (campaign.done, begun.elapsed().as_secs_f64());
        let (per_second, accepted) =
            (done.executions as f64 / elapsed, 100.0 * done.accepted as f64 / done.executions.max(1) as f64);
        print!(
            "\r{:<16} {:>10} executions, {per_second:>8.0}/s, {accepted:>3.0} % accepted",
            target.name, done.executions
        );
        if let Some(edges) = campaign.edges() {
            print!(", {edges:>6} edges");
        }
        print!("{end}");
        // What cannot be shown is not needed.
        let _ = std::io::stdout().flush();
    };
    let mut shown = Instant::now();
    let mut outcome = campaign.begin();
    let mut left = args.executions;
    while outcome.is_ok() && left > 0 && begun.elapsed() < share {
        let step = left.min(STEP);
        outcome = campaign.go_on(step);
        left -= step;
        if shown.elapsed() > Duration::from_secs(1) {
            show(&campaign, "");
            shown = Instant::now();
        }
    }
    show(&campaign, "\n");
    let Err(Failure { input, what }) = outcome else { return true };
    let path = executor.save(target, &input);
    eprintln!("{} (seed {}): {what}\n{}", target.name, args.seed, how_to_replay(target.name, &path));
    false
}
