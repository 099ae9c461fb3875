//! The daily commands: `cargo xtask ci`, `cargo xtask sim --seeds N`, `cargo xtask fuzz`, `cargo xtask scripts`, `cargo xtask licences`.

mod etcd;
mod instructions;
mod licences;
mod tour;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const USAGE: &str = "\
cargo xtask COMMAND

  ci              the whole gate, as .ci/run calls it
  sim [ARGS]      the simulation; --seeds N, or --seed N for one with its trace
  fuzz [ARGS]     damaged and hostile bytes for all readers, in a build that sees which ways they take; --list names them, --help lists the rest
  scripts         the stories beside the tests; --update writes down what happens now
  bench [ARGS]    builds for release (with --dist as it is given away, six minutes) and measures; --vs-etcd measures etcd beside us, --quick does it in
                  two minutes, --flames DIR draws flame graphs (perf), --help lists the rest
  instructions    what the hot paths take, in instructions, beside what was saved; --save saves
  tour            the same etcdctl session against etcd 3.5 and against quorate must print the same
  rolling [N]     three and five nodes of a release build restarted in turn under load, N times (3): write gaps, repeated calls
  licences        sources, licences and banned crates among the dependencies
";

/// Seeds of the simulation that the gate runs.
const CI_SEEDS: &str = "300";

struct Step {
    name: &'static str,
    command: Vec<&'static str>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("ci") => ci(),
        Some("sim") => {
            let mut command = vec!["cargo", "run", "--release", "-q", "-p", "quorate-sim", "--"];
            command.extend(rest);
            run(&command).map(|_| ())
        }
        Some("fuzz") => fuzz(&rest),
        Some("scripts") => scripts(&rest),
        Some("bench") => bench(&rest),
        Some("instructions") => instructions::run(&rest, &target()),
        Some("rolling") => rolling(&rest),
        Some("tour") => tour(),
        Some("licences") => licences::check(),
        _ => {
            print!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Fuzzes, with our own crates counting the ways through them. Optimized a little, as inputs are small and many; the dependencies are those of any build.
fn fuzz(arguments: &[&str]) -> Result<(), String> {
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/fuzz/covered");
    let mut process = Command::new("cargo");
    process.args(["run", "-q", "--locked", "-p", "quorate-fuzz", "--"]).args(arguments);
    process.env("RUSTC_WORKSPACE_WRAPPER", wrapper).env("CARGO_PROFILE_DEV_OPT_LEVEL", "2");
    let status = process.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// Runs the stories, or records them anew for review.
fn scripts(arguments: &[&str]) -> Result<(), String> {
    let mut process = Command::new("cargo");
    process.args(["test", "-q", "-p", "quorate-consensus", "--test", "scripts"]);
    match arguments {
        [] => {}
        ["--update"] => {
            process.env("QUORATE_UPDATE_SCRIPTS", "1");
        }
        other => return Err(format!("scripts takes --update or nothing, not {other:?}")),
    }
    let status = process.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{status}; if the change is meant: cargo xtask scripts --update"))
    }
}

/// Builds the server and the load generator for release and runs the latter on the former; with `--dist` the server is built as it is given away.
fn bench(arguments: &[&str]) -> Result<(), String> {
    let is_dist = arguments.contains(&"--dist");
    let is_drawn = arguments.iter().any(|argument| argument.starts_with("--flames"));
    let arguments: Vec<&str> = arguments.iter().copied().filter(|argument| *argument != "--dist").collect();
    run(&["cargo", "build", "--release", "--locked", "-p", "quorate", "-p", "quorate-bench"])?;
    if is_dist && !is_drawn {
        run(&["cargo", "build", "--profile", "dist", "--locked", "-p", "quorate"])?;
    }
    let target = target();
    let program = format!("{target}/release/quorate-bench");
    let mut server = format!("{target}/{}/quorate", if is_dist { "dist" } else { "release" });
    let is_server_named =
        arguments.iter().any(|argument| *argument == "--quorate" || argument.starts_with("--quorate="));
    if is_drawn && !is_server_named {
        server = with_frame_pointers(&format!("{target}/flames"))?;
    }
    let mut command = vec![program.as_str()];
    if !is_server_named {
        command.extend(["--quorate", &server]);
    }
    let is_named = arguments.iter().any(|argument| argument.starts_with("--etcd"));
    let is_wanted = ["--vs-etcd", "--quick", "--sweep"].iter().any(|word| arguments.contains(word));
    let etcd = if is_wanted && !is_named { Some(etcd::tools()?.0.display().to_string()) } else { None };
    if let Some(etcd) = &etcd {
        command.extend(["--etcd", etcd]);
    }
    command.extend(arguments);
    // How it ended says whether a target was missed, or could not be measured.
    let status = Command::new(&program).args(&command[1..]).status();
    let status = status.map_err(|error| format!("cannot run {program}: {error}"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => std::process::exit(code),
        None => Err(status.to_string()),
    }
}

/// Builds a server whose stacks can be walked, somewhere else, as all is built anew for it; returns where it is.
fn with_frame_pointers(directory: &str) -> Result<String, String> {
    let mut process = Command::new("cargo");
    process.args(["build", "--release", "--locked", "-p", "quorate", "--target-dir", directory]);
    let status = process.env("RUSTFLAGS", "-C force-frame-pointers=yes").status();
    let status = status.map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(format!("{directory}/release/quorate")) } else { Err(status.to_string()) }
}

/// Restarts each node of clusters in turn under load, and shows what clients saw of it.
fn rolling(arguments: &[&str]) -> Result<(), String> {
    let rounds = match arguments {
        [] => "3",
        [rounds] if rounds.parse::<u32>().is_ok_and(|rounds| rounds > 0) => rounds,
        other => return Err(format!("rolling takes a number of rounds or nothing, not {other:?}")),
    };
    let mut process = Command::new("cargo");
    process.args(["test", "--release", "--locked", "-q", "-p", "quorate", "--test", "rolling_restart"]);
    process.args(["--", "--nocapture"]).env("QUORATE_ROLLING_ROUNDS", rounds);
    let status = process.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// Builds the server and takes it, and etcd if it can be had, through the tour.
fn tour() -> Result<(), String> {
    run(&["cargo", "build", "--release", "--locked", "-p", "quorate"])?;
    let server = format!("{}/release/quorate", target());
    match tour::run(Path::new(&server))? {
        tour::Tour::Equal => println!("etcdctl sees no difference between etcd and quorate"),
        tour::Tour::Skipped(why) => println!(
            "SKIPPED: the etcdctl tour needs etcd 3.5, and it cannot be had here: {why}\nname the programs in \
             QUORATE_ETCD and QUORATE_ETCDCTL to run it"
        ),
    }
    Ok(())
}

/// Where cargo builds to.
fn target() -> String {
    std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned())
}

/// One of them dies for good, and another joins.
const FIVE_NODES: [&str; 12] = [
    "cargo",
    "run",
    "--release",
    "--locked",
    "--",
    "demo",
    "--nodes",
    "5",
    "--partitions",
    "32",
    "--kills",
    "1",
];

fn ci() -> Result<(), String> {
    let step = |name, command: &[&'static str]| Step { name, command: command.to_vec() };
    let steps = [
        step("format", &["cargo", "fmt", "--all", "--check"]),
        step("licences", &["cargo", "xtask", "licences"]),
        step(
            "clippy",
            &["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        ),
        step("docs", &["cargo", "doc", "--workspace", "--no-deps", "--locked"]),
        step("tests", &["cargo", "test", "--workspace", "--locked"]),
        step("simulation", &["cargo", "xtask", "sim", "--seeds", CI_SEEDS, "--common-states"]),
        step("tour", &["cargo", "xtask", "tour"]),
        step("demo", &["cargo", "run", "--release", "--locked", "--", "demo", "--kills", "2"]),
        step(
            "demo of 16",
            &["cargo", "run", "--release", "--locked", "--", "demo", "--kills", "2", "--partitions", "16"],
        ),
        step("demo of five nodes", &FIVE_NODES),
    ];
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for step in &steps {
        println!("\n== {}: {}", step.name, step.command.join(" "));
        let took = run(&step.command)?;
        times.push((step.name, took));
    }
    println!();
    for (name, took) in times {
        println!("{name:<12} {:>6.1} s", took.as_secs_f64());
    }
    println!("everything passed");
    Ok(())
}

fn run(command: &[&str]) -> Result<Duration, String> {
    let begun = Instant::now();
    let (program, arguments) = command.split_first().ok_or("an empty command")?;
    let mut process = Command::new(program);
    process.args(arguments);
    if arguments.first() == Some(&"doc") {
        process.env("RUSTDOCFLAGS", "-D warnings");
    }
    let status = process.status().map_err(|error| format!("cannot run {program}: {error}"))?;
    if status.success() {
        Ok(begun.elapsed())
    } else {
        Err(format!("{status}; to run it again: {}", command.join(" ")))
    }
}
