//! The `quorate` command.

use clap::{CommandFactory, Parser, Subcommand};
use quorate::chaos::Chaos;
use quorate::cli::{self, CliError, Output, Target, doctor};
use quorate::config::{LogFormat, ServeArgs};
use quorate::crash_points;
use quorate::demo::Demo;
use quorate::repair;
use quorate::runtime::threads;
use quorate::serve::ServeError;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Calls are many small allocations, which a thread frees that did not make them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A replicated, transactional key space that speaks the etcd v3 API
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node. With nothing configured: a single node on 127.0.0.1:2379
    Serve(Box<ServeArgs>),
    Demo(Demo),
    Chaos(Box<Chaos>),
    /// Who leads, how far everybody is, how large, how healthy
    Status,
    Partitions(cli::partitions::Partitions),
    Ring(cli::ring::Ring),
    Top(cli::top::Top),
    Events(cli::events::Events),
    Bench(cli::bench::Bench),
    /// The nodes of the cluster, as etcd's clients know them; node list says more
    Members,
    #[command(subcommand)]
    Node(cli::node::Node),
    Put(cli::kv::Put),
    Get(cli::kv::Get),
    Del(cli::kv::Del),
    Txn(cli::kv::Txn),
    Watch(cli::watch::Watch),
    #[command(subcommand)]
    Lease(cli::lease::Lease),
    #[command(subcommand)]
    Keyspace(cli::keyspace::Keyspace),
    Compact(cli::kv::Compact),
    /// A hash of each endpoint's history; equal hashes, equal histories
    Hash {
        /// Up to this revision; 0 is now
        #[arg(long, default_value_t = 0)]
        rev: i64,
    },
    /// Check a stopped node's files
    Doctor {
        /// Its data directory
        data_dir: PathBuf,
        /// Put the store aside, as STORE.damaged, so that the next start fetches all that it held from the other nodes. The log, with what the node
        /// has promised, has to be whole and stays
        #[arg(long)]
        rebuild_store: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let Cli { command, target } = Cli::parse();
    if let Err(why) = crash_points::arm() {
        return fail(2, &why);
    }
    if target.output == Output::Svg && !matches!(command, Command::Ring(_)) {
        return fail(2, "--output svg: only `quorate ring` draws; others know table and json");
    }
    match command {
        Command::Serve(args) => {
            use_small_pages();
            run_serve(*args, &target)
        }
        Command::Doctor { data_dir, rebuild_store: true } => match doctor::rebuild_store(&data_dir) {
            Ok(said) => {
                println!("{said}");
                ExitCode::SUCCESS
            }
            Err(problem) => fail(1, &problem),
        },
        Command::Doctor { data_dir, rebuild_store: false } => {
            match doctor::doctor(&data_dir, target.output) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(problem) => fail(1, &problem),
            }
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        command => run_client(command, &target),
    }
}

/// Memory comes in pages of the usual size. Otherwise the system gives the allocator two MiB at a time where it asks for a little, each of which has to be cleared first: that took a sixth of what a node does
/// under many puts. Programs that this one starts inherit it.
fn use_small_pages() {
    // Where it cannot be had it is slower.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The endpoints that were said on the command line: those of the environment are of a cluster that nobody may have thought of.
fn endpoints_given() -> Option<Vec<String>> {
    let matches = Cli::command().try_get_matches().ok()?;
    // Said before the command or after it.
    let found = [Some(&matches), matches.subcommand().map(|(_, of_command)| of_command)];
    let said = |matches: &&clap::ArgMatches| {
        matches.value_source("endpoints") == Some(clap::parser::ValueSource::CommandLine)
    };
    let matches = found.into_iter().flatten().find(said)?;
    Some(matches.get_many::<String>("endpoints")?.cloned().collect())
}

fn run_client(command: Command, target: &Target) -> ExitCode {
    // What puts a load on others is to take little itself.
    let runtime = match command {
        Command::Bench(_) => quorate_load::runtime(),
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start: {error}")),
    };
    let outcome = runtime.block_on(async {
        match command {
            Command::Demo(demo) => demo.run().await.map_err(CliError::Usage),
            Command::Chaos(chaos) => chaos.run(endpoints_given()).await.map_err(CliError::Usage),
            Command::Status => cli::status::status(target).await,
            Command::Partitions(partitions) => partitions.run(target).await,
            Command::Ring(ring) => ring.run(target).await,
            Command::Top(top) => top.run(target).await,
            Command::Events(events) => events.run(target).await,
            Command::Bench(bench) => bench.run(target).await,
            Command::Members => cli::status::members(target).await,
            Command::Node(node) => node.run(target).await,
            Command::Put(put) => put.run(target).await,
            Command::Get(get) => get.run(target).await,
            Command::Del(del) => del.run(target).await,
            Command::Txn(txn) => txn.run(target).await,
            Command::Watch(watch) => watch.run(target).await,
            Command::Lease(lease) => lease.run(target).await,
            Command::Keyspace(keyspace) => keyspace.run(target).await,
            Command::Compact(compact) => compact.run(target).await,
            Command::Hash { rev } => cli::status::hash(target, rev).await,
            Command::Serve(_) | Command::Doctor { .. } | Command::Completions { .. } => Ok(()),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error.to_string()),
    }
}

fn run_serve(args: ServeArgs, target: &Target) -> ExitCode {
    let is_print = args.print_config;
    let config = match args.with_file().and_then(ServeArgs::resolve) {
        Ok(config) => config,
        Err(error) => return fail(2, &error.to_string()),
    };
    if is_print {
        print!("{}", config.to_toml());
        return ExitCode::SUCCESS;
    }
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_level);
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => return fail(2, &format!("--log-level: {error}")),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Human => logs.with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
    let runtime = threads::runtime(config.threads);
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start: {error}")),
    };
    let outcome = runtime.block_on(quorate::serve::serve(config, &target.tls));
    // A failed disk may hold a thread for ever; the process ends all the same.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServeError::Repairs(_)) => {
            tracing::warn!("{error}");
            let cause = repair::begin_anew();
            // What is to be done is written down: whoever starts the node has it done.
            fail(1, &format!("{error}; start it again ({cause})"))
        }
        Err(error) => fail(1, &error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("quorate: {message}");
    ExitCode::from(code)
}
