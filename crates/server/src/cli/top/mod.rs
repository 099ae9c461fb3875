//! top: nodes, partitions and what happens to them, as it changes.
//!
//! All nodes are asked every so often (`answer.rs`); two looks make a snapshot with rates, two snapshots what happened
//! (`snapshot.rs`), and a snapshot lines (`frame.rs`). Only this file knows of a terminal.
//!
//! Caveat: what began and ended between two looks was not seen.

pub(crate) mod answer;
mod durations;
mod frame;
mod snapshot;

use super::{CliError, Target, status};
use answer::Answer;
use clap::Args;
use frame::Event;
use serde_json::json;
use snapshot::{Look, Snapshot};
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

/// A node that takes longer says nothing this time.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// What happened longest ago is forgotten.
const EVENTS_MAX: usize = 100;
/// A terminal that does not say how large it is.
const SIZE: (usize, usize) = (80, 24);
/// Where there is no terminal.
const UNBOUNDED: (usize, usize) = (200, 10_000);

/// Nodes and partitions as they are at work: load, lag, leaders, and what happens to them
#[derive(Args, Debug)]
#[command(
    after_help = "Partitions come in the order of trouble, then of load: those without a leader, those with a replica that is not heard, those \
that move or are split, the busiest. Times are UTC. It ends with Ctrl-C.

Examples:
  quorate top
  quorate --keyspace orders top --interval 5
  quorate top --once -o json"
)]
pub struct Top {
    /// Seconds between two looks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Look once (that is twice, for rates), and end
    #[arg(long)]
    once: bool,
}

impl Top {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        let interval = Duration::from_secs(self.interval);
        let begun = Instant::now();
        // What is asked is about all keyspaces; which to show is for us to choose.
        let of_cluster = Target { keyspace: None, ..target.clone() };
        let is_screen = std::io::stdout().is_terminal() && !self.once && !target.is_json();
        let mut stopped = pin!(tokio::signal::ctrl_c());
        let mut before = tokio::select! {
            before = look(&of_cluster, begun) => before?,
            _ = &mut stopped => return Ok(()),
        };
        let mut screen = is_screen.then(Screen::open);
        let mut shown: Option<Snapshot> = None;
        let mut events: VecDeque<Event> = VecDeque::new();
        loop {
            let now = async {
                tokio::time::sleep(interval).await;
                look(&of_cluster, begun).await
            };
            let now = tokio::select! {
                now = now => now?,
                _ = &mut stopped => return Ok(()),
            };
            let snapshot = Snapshot::of(&before, &now, target.keyspace.as_deref());
            let changes = shown.as_ref().map(|shown| snapshot.changes(shown)).unwrap_or_default();
            events.extend(changes.iter().map(|change| (clock(), change.clone())));
            events.drain(..events.len().saturating_sub(EVENTS_MAX));
            let told = events.make_contiguous();
            // Who reads it may have gone; there is nothing left to do then.
            let written = match &mut screen {
                Some(screen) => screen.show(&frame::frame(&snapshot, told, size().0, size().1)),
                None if target.is_json() => {
                    let mut line = json!(snapshot);
                    line["changes"] = json!(changes);
                    writeln!(std::io::stdout(), "{line}")
                }
                None => {
                    let lines = frame::frame(&snapshot, told, UNBOUNDED.0, UNBOUNDED.1);
                    writeln!(std::io::stdout(), "{}\n", lines.join("\n"))
                }
            };
            if self.once || written.is_err() {
                return Ok(());
            }
            shown = Some(snapshot);
            before = now;
        }
    }
}

/// Asks all nodes at once.
async fn look(target: &Target, begun: Instant) -> Result<Look, CliError> {
    let mut asked = JoinSet::new();
    let mut answers = Vec::new();
    for (name, endpoint) in status::endpoints(target).await? {
        if endpoint.is_empty() {
            answers.push((name.clone(), Err(status::addressless(&name).to_owned())));
            continue;
        }
        let target = target.clone();
        asked.spawn(async move {
            let ask = async { Answer::of(target.connect_to_one(&endpoint).await?).await };
            let late = || Err(format!("no answer for {} s", ANSWER_MAX.as_secs()));
            (name, tokio::time::timeout(ANSWER_MAX, ask).await.unwrap_or_else(|_| late()))
        });
    }
    while let Some(answer) = asked.join_next().await {
        answers.extend(answer);
    }
    // In whatever order they answer, the same is shown.
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Look { seconds: begun.elapsed().as_secs_f64(), answers })
}

/// The time of day.
fn clock() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{:02}:{:02}:{:02}", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE,
    }
}

/// A terminal whose screen is ours; it gets back what stood there before.
struct Screen;

impl Screen {
    fn open() -> Self {
        // Another screen, without a cursor. A terminal that knows neither shows some odd signs and then the lines.
        print!("\x1b[?1049h\x1b[?25l");
        Self
    }

    fn show(&mut self, lines: &[String]) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        // Each line is cleared behind its end and the screen below the last: nothing flickers.
        write!(out, "\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\n"))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print!("\x1b[?25h\x1b[?1049l");
        // The terminal may be gone.
        let _ = std::io::stdout().flush();
    }
}
