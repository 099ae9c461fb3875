//! The `quorate` command.

use clap::{Parser, Subcommand};
use quorate::config::{LogFormat, ServeArgs};
use std::process::ExitCode;

/// A replicated, transactional key space that speaks the etcd v3 API
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node. With nothing configured: a single node on 127.0.0.1:2379
    Serve(Box<ServeArgs>),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => run_serve(*args),
    }
}

fn run_serve(args: ServeArgs) -> ExitCode {
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
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Human => logs.with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start: {error}")),
    };
    let outcome = runtime.block_on(quorate::serve::serve(config));
    // A failed disk may hold a thread for ever; the process ends all the same.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("quorate: {message}");
    ExitCode::from(code)
}
