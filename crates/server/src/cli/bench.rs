//! bench: a load of a chosen kind, and what clients felt of it. The generator is `crates/load`.

use super::{CliError, Target};
use crate::services::KEYSPACE_HEADER;
use clap::Args;
use quorate_load::{ConnectError, Endpoint, Keys, Kind, Line, Load, Measured, Observer, Stop, Times};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::time::Duration;

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// Put a load on a cluster, and say how fast it answers
#[derive(Args, Debug)]
#[command(
    after_help = "It works on keys of its own, under --prefix, and removes them when it has ended, also when it is ended with Ctrl-C; what was measured until \
then is shown. It uses any cluster that speaks the etcd v3 API.

Without --rate every client asks again as soon as it was answered (closed loop): that shows how much goes through, and a slow answer keeps its client from \
asking. With --rate operations are due at even distances, and count from when they were due: that shows how long people wait.

Examples:
  quorate bench                                     # writes, 64 clients, ten seconds
  quorate bench get --clients 256 --duration 30
  quorate bench mixed --rate 2000 --json
  quorate bench watch --clients 1000 --rate 100     # writes a second; 1000 watch them
  quorate --endpoints 10.0.0.1:2379,10.0.0.2:2379 bench lock --clients 16"
)]
pub struct Bench {
    /// What the clients ask for
    #[arg(value_enum, default_value_t = Kind::Put)]
    kind: Kind,
    /// How many ask at once: clients, watchers, contenders for the lock
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Connections to each endpoint, which the clients share
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// How long it is measured, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// How long it runs before that, in seconds
    #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warm_up: u64,
    /// Operations a second, in all [default: as many as go]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// How many keys there are
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Over how many directories they are spread; a cluster of several partitions has a directory in one of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    directories: u64,
    /// How large a value is
    #[arg(long, default_value_t = 256, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=1_500_000))]
    value_bytes: u32,
    /// How many keys a range asks for
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    range_keys: u64,
    /// How many leases are kept alive
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    leases: u64,
    /// What the keys begin with
    #[arg(long, default_value = "quorate-bench/")]
    prefix: String,
    /// Use the keys that are there, and leave them there
    #[arg(long)]
    keep: bool,
    /// The same as --output json
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=1e7).contains(&rate) { Ok(rate) } else { Err("between 0.01 and 10000000".into()) }
}

/// Shows how it goes on, to people.
struct Progress {
    is_shown: bool,
    seconds: u64,
    total: u64,
    answered: u64,
}

impl Progress {
    fn show(&self, text: &str) {
        if self.is_shown {
            // Nobody is hurt if it cannot be seen.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        }
    }
}

impl Observer for Progress {
    fn prepared(&mut self) {
        self.show("warming up");
    }

    fn begun(&mut self) {
        self.show("measuring");
    }

    fn second(&mut self, answered: u64) {
        self.seconds += 1;
        // The first second has the warming up in it.
        let last =
            if self.seconds == 1 { String::new() } else { format!(", {}/s", answered - self.answered) };
        self.answered = answered;
        self.show(&format!("{} of {} s{last}", self.seconds, self.total));
    }

    fn ended(&mut self) {
        self.show("");
    }
}

impl Bench {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        if self.prefix.is_empty() {
            return Err(CliError::Usage("--prefix: all keys of the cluster begin with nothing".into()));
        }
        if self.kind == Kind::Cas && self.keys < u64::from(self.clients) {
            return Err(CliError::Usage("--keys: compare and swap needs a key for each client".into()));
        }
        let is_json = self.json || target.is_json();
        let keys = Keys::new(&self.prefix, self.keys, self.directories);
        let lines = self.lines(target).await?;
        if !self.keep {
            self.must_be_empty(&lines, &keys).await?;
        }
        let stop = Stop::default();
        let told = tokio::spawn(stop_when_told(stop.clone()));
        let load = Load {
            kind: self.kind,
            clients: self.clients as usize,
            rate: self.rate,
            keys: keys.clone(),
            are_keys_there: false,
            value_bytes: self.value_bytes as usize,
            range_keys: self.range_keys,
            leases: self.leases,
        };
        let times = Times {
            warm_up: Duration::from_secs(self.warm_up),
            duration: Duration::from_secs(self.duration),
        };
        let is_shown = !is_json && std::io::stderr().is_terminal();
        let mut progress = Progress { is_shown, seconds: 0, total: self.duration, answered: 0 };
        progress.show("preparing");
        let measured = quorate_load::measure(&lines, &load, times, &stop, &mut progress).await;
        progress.show("");
        if !self.keep {
            progress.show("removing the keys");
            let cleared = quorate_load::clear(&lines, &keys).await;
            progress.show("");
            if let Err(problem) = cleared {
                eprintln!("quorate: what begins with «{}» could not be removed: {problem}", self.prefix);
            }
        }
        told.abort();
        let measured = measured.map_err(|problem| CliError::Usage(problem.to_string()))?;
        if is_json {
            println!("{:#}", self.json_of(&measured));
        } else {
            self.print(&measured, target.endpoints.len());
        }
        match (measured.operations, &measured.problem) {
            (0, Some(problem)) => Err(CliError::Usage(format!("nothing succeeded: {problem}"))),
            (0, None) => Err(CliError::Usage("nothing was answered in the time that was measured".into())),
            _ => Ok(()),
        }
    }

    /// Some connections with each endpoint, in turn.
    async fn lines(&self, target: &Target) -> Result<Vec<Line>, CliError> {
        let mut lines = Vec::new();
        for _ in 0..self.connections.min(self.clients.max(1)) {
            for endpoint in &target.endpoints {
                let line = line_to(target, endpoint).await?;
                let line = match &target.keyspace {
                    None => Some(line),
                    Some(name) => line.with_header(KEYSPACE_HEADER, name),
                };
                lines.push(line.ok_or_else(|| CliError::Usage("--keyspace: not a name".into()))?);
            }
        }
        Ok(lines)
    }

    /// What is there is somebody's.
    async fn must_be_empty(&self, lines: &[Line], keys: &Keys) -> Result<(), CliError> {
        let first = lines.first().ok_or_else(|| CliError::Usage("--endpoints: there is none".into()))?;
        match quorate_load::count(first, keys).await {
            Ok(0) => Ok(()),
            Ok(count) => Err(CliError::Usage(format!(
                "{count} keys begin with «{}» already: --keep uses and leaves them, --prefix names another place",
                self.prefix
            ))),
            Err(problem) => Err(CliError::Usage(problem.to_string())),
        }
    }

    fn print(&self, measured: &Measured, nodes: usize) {
        let micros = |micros: f64| match micros {
            micros if micros < 1e3 => format!("{micros:.0} us"),
            micros if micros < 1e6 => format!("{:.2} ms", micros / 1e3),
            micros => format!("{:.2} s", micros / 1e6),
        };
        let how = match self.rate {
            Some(rate) => format!("at {rate} a second"),
            None => "in closed loops".to_owned(),
        };
        println!("{}, {} clients {how}, {nodes} endpoints", self.kind.name(), self.clients);
        let seconds = measured.span.as_secs_f64();
        println!("  operations  {} in {seconds:.1} s: {:.0} a second", measured.operations, measured.rate());
        if measured.errors + measured.unanswered > 0 {
            let first =
                measured.problem.as_ref().map_or(String::new(), |problem| format!("; the first: {problem}"));
            println!("  errors      {}, not answered {}{first}", measured.errors, measured.unanswered);
        }
        let quantiles =
            QUANTILES.map(|(name, quantile)| format!("{name} {}", micros(measured.micros(quantile))));
        println!("  latency     {}  longest {}", quantiles.join("  "), micros(measured.micros_max()));
        if self.rate.is_none() && self.kind != Kind::Watch {
            let felt = measured.raw.value_at_quantile(0.99) as f64 / 1e3;
            println!(
                "              corrected for what was not asked while clients waited; as they felt it: p99 {}",
                micros(felt)
            );
        }
    }

    fn json_of(&self, measured: &Measured) -> Value {
        let of = |histogram: &dyn Fn(f64) -> f64| -> Value {
            QUANTILES
                .iter()
                .map(|(name, quantile)| ((*name).to_owned(), json!(histogram(*quantile))))
                .collect()
        };
        json!({
            "kind": self.kind.name(), "clients": self.clients, "wanted_per_second": self.rate,
            "keys": self.keys, "value_bytes": self.value_bytes,
            "seconds": measured.span.as_secs_f64(), "operations": measured.operations,
            "per_second": measured.rate(), "errors": measured.errors, "unanswered": measured.unanswered,
            "problem": measured.problem,
            "latency_us": of(&|quantile| measured.micros(quantile)),
            "felt_us": of(&|quantile| measured.raw.value_at_quantile(quantile) as f64 / 1e3),
            "longest_us": measured.micros_max(),
        })
    }
}

/// A connection of the generator's own kind. It waits for answers without a limit: the generator has its own, and a watch may be silent.
async fn line_to(target: &Target, endpoint: &str) -> Result<Line, CliError> {
    let (is_tls, address) = target.told_apart(endpoint);
    let tls = if is_tls { Some(target.tls.rustls_config()?) } else { None };
    let scheme = if is_tls { "https" } else { "http" };
    let connected = match Endpoint::new(&format!("{scheme}://{address}"), tls) {
        Ok(endpoint) => Line::connect(endpoint).await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| match error {
        ConnectError::Address(why) => CliError::Usage(format!("--endpoints: «{endpoint}»: {why}")),
        error => CliError::Unreachable(format!("{endpoint} ({error})")),
    })
}

/// The first Ctrl-C, or SIGTERM, ends the load; the second ends the program, whatever it leaves behind.
async fn stop_when_told(stop: Stop) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    for is_first in [true, false] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if is_first {
            stop.stop();
        } else {
            std::process::exit(130);
        }
    }
}
