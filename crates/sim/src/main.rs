//! `cargo xtask sim`: runs seeds, stops at the first that shows something wrong.

use quorate_sim::states::{Asked, States};
use quorate_sim::{Summary, partitions_of, run};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
cargo xtask sim [--seeds N] [--from SEED]   run N seeds (default 300) and sum up
cargo xtask sim --seeds N --states          the same, and a table of the states that were reached; fails if one never was
cargo xtask sim --seeds N --common-states   the same for those that the gate's seeds must reach, and no table
cargo xtask sim --seed SEED                 run one seed, twice, and compare the traces
Both take --partitions N; without it, or of 0, the seed says how many: 1, 2, 3, 4, 8 or 16.
";

fn number(arguments: &[String], name: &str) -> Result<Option<u64>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    let text = arguments.get(at + 1).ok_or(format!("{name} needs a number"))?;
    text.parse().map(Some).map_err(|_| format!("{name}: «{text}» is not a number"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let partitions = match number(&arguments, "--partitions") {
        Ok(partitions) => partitions.unwrap_or(0) as u32,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match number(&arguments, "--seed") {
        Ok(Some(seed)) => one(seed, partitions),
        Ok(None) => many(&arguments, partitions),
        Err(problem) => Err(problem),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, partitions: u32) -> Result<(), String> {
    let first = run(seed, partitions).map_err(|violation| violation.to_string())?;
    let second = run(seed, partitions).map_err(|violation| violation.to_string())?;
    println!("{first:#?}");
    if first.trace == second.trace {
        println!("a second run was the same to the bit");
        Ok(())
    } else {
        Err(format!("seed {seed} gave two different runs"))
    }
}

/// What the only thread has run, without what others had of its core; where the system says it.
fn processor_seconds() -> Option<f64> {
    let said = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    let nanoseconds: f64 = said.split(' ').next()?.parse().ok()?;
    (nanoseconds > 0.0).then_some(nanoseconds / 1e9)
}

fn many(arguments: &[String], partitions: u32) -> Result<(), String> {
    let count = number(arguments, "--seeds")?.unwrap_or(300);
    let from = number(arguments, "--from")?.unwrap_or(0);
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (mut sum, mut states, begun) = (Summary::default(), States::default(), Instant::now());
    for seed in from..from + count {
        // What the program asserts of itself counts like what is checked of it, and needs its seed, too.
        let summary = std::panic::catch_unwind(|| run(seed, partitions))
            .map_err(|_| format!("seed {seed}: an assertion failed, see above\nto see it again: cargo xtask sim --seed {seed} --partitions {}", partitions_of(seed, partitions)))?
            .map_err(|violation| violation.to_string())?;
        states.add();
        for (what, size) in summary.largest {
            let largest = sum.largest.entry(what).or_default();
            *largest = (*largest).max(size);
        }
        sum.ticks += summary.ticks;
        sum.answered += summary.answered;
        sum.unknown += summary.unknown;
        sum.rejected += summary.rejected;
        sum.revisions += summary.revisions;
        sum.crashes += summary.crashes;
        sum.disks_lost += summary.disks_lost;
        sum.hangs += summary.hangs;
        sum.disks_failed += summary.disks_failed;
        sum.disks_short += summary.disks_short;
        sum.disks_full += summary.disks_full;
        sum.logs_spoilt += summary.logs_spoilt;
        sum.logs_forgotten += summary.logs_forgotten;
        sum.rotten += summary.rotten;
        sum.stores_mended += summary.stores_mended;
        sum.snapshots += summary.snapshots;
        sum.elections += summary.elections;
        sum.watched += summary.watched;
        sum.pauses += summary.pauses;
        sum.expired += summary.expired;
        sum.transactions += summary.transactions;
        sum.splits += summary.splits;
        sum.members_joined += summary.members_joined;
        sum.members_lost += summary.members_lost;
        sum.members_removed += summary.members_removed;
        sum.moves += summary.moves;
        sum.voters_replaced += summary.voters_replaced;
        if (seed + 1 - from).is_multiple_of(100) {
            println!("{} seeds", seed + 1 - from);
        }
    }
    println!(
        "{count} seeds, {:.1} simulated minutes: {} calls answered, {} rejected, {} unknown; {} revisions, {} events \
         watched; {} crashes, {} pauses, {} disks lost, {} hung, {} failed, {} short of space, {} full, {} logs spoilt, {} of them given up, {} rows rotten, {} stores given up, {} terms led, {} snapshots installed, {} leases ended; {} partitions split off; {} members \
         joined, {} lost for good, {} removed, {} replicas thrown away, {} times other voters in a group; over \
         partitions {} transactions decided, {} shares prepared, {} committed, {} given back, {} of these by another leader. \
         Nothing wrong.",
        sum.ticks as f64 / 50.0 / 60.0,
        sum.answered,
        sum.rejected,
        sum.unknown,
        sum.revisions,
        sum.watched,
        sum.crashes,
        sum.pauses,
        sum.disks_lost,
        sum.hangs,
        sum.disks_failed,
        sum.disks_short,
        sum.disks_full,
        sum.logs_spoilt,
        sum.logs_forgotten,
        sum.rotten,
        sum.stores_mended,
        sum.elections,
        sum.snapshots,
        sum.expired,
        sum.splits,
        sum.members_joined,
        sum.members_lost,
        sum.members_removed,
        sum.moves,
        sum.voters_replaced,
        sum.transactions.decided,
        sum.transactions.prepared,
        sum.transactions.committed,
        sum.transactions.aborted,
        sum.transactions.inherited
    );
    let (simulated, took) = (sum.ticks as f64 / 50.0, begun.elapsed().as_secs_f64());
    println!(
        "{:.1} simulated hours in {took:.1} s: {:.0} times as fast as the clock{}.",
        simulated / 3_600.0,
        simulated / took,
        processor_seconds()
            .map_or(String::new(), |busy| format!(", {:.0} times on a core of its own", simulated / busy))
    );
    if has("--states") {
        print!("{states}");
        println!("\n   largest   bound");
        for (what, (size, bound)) in &sum.largest {
            println!("{size:>10} {bound:>7}  {what}");
        }
    }
    let asked =
        if has("--states") { Some(Asked::All) } else { has("--common-states").then_some(Asked::Common) };
    let missing = asked.map(|asked| states.missing(asked)).unwrap_or_default();
    if missing.is_empty() { Ok(()) } else { Err(format!("never reached: {}", missing.join(", "))) }
}
