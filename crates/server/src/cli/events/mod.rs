//! events: what the cluster decided and what happened to its nodes, in order, with reasons.
//!
//! Every node keeps what it saw (`crate::events`); all are asked, and what they say is put together (`merge.rs`).
//!
//! Caveat: what only a node saw that does not answer is missing; who does not answer is said.

mod merge;
pub(crate) mod time;

use super::{CliError, Output, Target, http_call, status};
use crate::events::{Kind, Record};
use crate::services::events::EventsTold;
use clap::Args;
use merge::{Line, Merge};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tonic::codegen::http::{Method, StatusCode};

/// Between two looks while events are followed.
const INTERVAL: Duration = Duration::from_secs(1);
/// So much before what is to be shown is asked for as well.
const MARGIN: Duration = Duration::from_secs(3_600);

/// More nodes that tell the same are counted, not named.
const NAMED_MAX: usize = 3;

/// What the cluster decided and what happened to its nodes, in order, with reasons
#[derive(Args, Debug)]
#[command(
    after_help = "Every node keeps some megabytes of it, which is days; what several tell is shown once, at the earliest time that one of them says. Times are \
UTC, by the nodes' clocks. BY is who tells it.

Examples:
  quorate events --since 2h
  quorate events --kind election,move --since 30m
  quorate events --follow
  quorate events --since 7d -o json"
)]
pub struct Events {
    /// Not those from before so long ago: 90s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = time::parse)]
    since: Duration,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only of these kinds
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<Kind>,
}

/// The last number that is known of each endpoint.
type Known = BTreeMap<String, u64>;

impl Events {
    /// What happened since so long ago, of these kinds.
    pub(crate) fn since(since: Duration, kind: Vec<Kind>) -> Self {
        Self { since, follow: false, kind }
    }

    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        // What is asked is about the cluster, whatever keyspace is meant otherwise.
        let target = &Target { keyspace: None, ..target.clone() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(self.since).as_millis() as u64;
        // A node that was cut off tells late what others told long before: their word is needed to know it as a double.
        let asked = since.saturating_sub(MARGIN.as_millis() as u64);
        let mut stopped = pin!(tokio::signal::ctrl_c());
        let (mut known, mut merge) = (Known::new(), Merge::default());
        let (told, mut problems) = ask_all(target, asked, &mut known).await?;
        if known.is_empty() {
            let problems: Vec<String> =
                problems.iter().map(|(name, what)| format!("{name}: {what}")).collect();
            return Err(CliError::Unreachable(problems.join(", ")));
        }
        let lines = self.chosen(since, merge.take(told));
        if target.output == Output::Json && !self.follow {
            let lines: Vec<_> = lines.iter().map(line_json).collect();
            println!("{}", json!({"events": lines, "problems": problems}));
            return Ok(());
        }
        if target.output == Output::Table {
            println!("{:<23}  {:<8}  {:<11}  WHAT", "TIME (UTC)", "KIND", "BY");
        }
        let mut is_shown = show(target, &lines);
        problems.iter().for_each(|(name, problem)| complain(name, problem));
        while self.follow && is_shown {
            let more = async {
                tokio::time::sleep(INTERVAL).await;
                ask_all(target, asked, &mut known).await
            };
            let (told, now) = tokio::select! {
                more = more => more?,
                _ = &mut stopped => return Ok(()),
            };
            is_shown = show(target, &self.chosen(since, merge.take(told)));
            let new = now.iter().filter(|(name, _)| !problems.contains_key(*name));
            new.for_each(|(name, problem)| complain(name, problem));
            problems = now;
        }
        Ok(())
    }

    fn chosen(&self, since: u64, mut lines: Vec<Line>) -> Vec<Line> {
        lines.retain(|line| line.at >= since);
        lines.retain(|line| self.kind.is_empty() || self.kind.contains(&line.kind));
        lines
    }
}

fn complain(name: &str, problem: &str) {
    eprintln!("{name}: {problem}; what only it saw is missing");
}

/// Returns whether anybody reads it.
fn show(target: &Target, lines: &[Line]) -> bool {
    let mut out = std::io::stdout().lock();
    let written = lines.iter().try_for_each(|line| match target.output {
        Output::Table | Output::Svg => writeln!(out, "{}", line_text(line)),
        Output::Json => writeln!(out, "{}", line_json(line)),
    });
    written.and_then(|()| out.flush()).is_ok()
}

fn line_text(line: &Line) -> String {
    let by: Vec<&str> = line.by.iter().map(String::as_str).collect();
    let by = if by.len() > NAMED_MAX { format!("{} nodes", by.len()) } else { by.join(",") };
    let (time, kind) = (time::shown(line.at), line.kind.word());
    // Names and what peers sent are other people's: they must not move the cursor.
    let plain = |text: String| text.replace(char::is_control, "\u{fffd}");
    format!("{time}  {kind:<8}  {:<11}  {}", plain(by), plain(line.sentence()))
}

fn line_json(line: &Line) -> serde_json::Value {
    let groups: Vec<String> =
        line.groups.iter().map(|(keyspace, partition)| format!("{keyspace}/{partition}")).collect();
    json!({
        "time": time::rfc3339(line.at),
        "millis": line.at,
        "kind": line.kind.word(),
        "event": line.sentence(),
        "why": line.why,
        "groups": groups,
        "by": line.by,
    })
}

/// What all nodes say that is not known, and why others say nothing.
async fn ask_all(
    target: &Target,
    since: u64,
    known: &mut Known,
) -> Result<(Vec<(String, Record)>, BTreeMap<String, String>), CliError> {
    let mut asked = JoinSet::new();
    let mut problems = BTreeMap::new();
    for (name, endpoint) in status::endpoints(target).await? {
        if endpoint.is_empty() {
            problems.insert(name.clone(), status::addressless(&name).to_owned());
            continue;
        }
        let (target, after) = (target.clone(), known.get(&endpoint).copied().unwrap_or_default());
        asked.spawn(async move {
            let answer = ask(&target, &endpoint, since, after).await;
            (name, endpoint, answer)
        });
    }
    let mut told = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((_, endpoint, Ok((name, records, last)))) => {
                known.insert(endpoint, last);
                told.extend(records.into_iter().map(|record| (name.clone(), record)));
            }
            Ok((name, endpoint, Err(problem))) => {
                let name = if name == "?" { endpoint } else { name };
                problems.insert(name, problem);
            }
            Err(error) => {
                problems.insert("?".into(), error.to_string());
            }
        }
    }
    Ok((told, problems))
}

/// All that one node says behind number `after`, the node's name, and the number of its newest event.
async fn ask(
    target: &Target,
    endpoint: &str,
    since: u64,
    mut after: u64,
) -> Result<(String, Vec<Record>, u64), String> {
    let channel = target.connect_to_one(endpoint).await?;
    let mut records: Vec<Record> = Vec::new();
    loop {
        let path = format!("/events?after={after}&since={since}");
        let (status, answer) = http_call(channel.clone(), Method::GET, &path, Vec::new()).await?;
        if status != StatusCode::OK {
            let reason = answer["reason"].as_str().unwrap_or("?").to_owned();
            return Err(format!("it answers {status} for /events: {reason}"));
        }
        let told: EventsTold =
            serde_json::from_value(answer).map_err(|error| format!("its answer makes no sense: {error}"))?;
        let newest = told.events.last().map(|record| record.n);
        records.extend(told.events);
        match newest {
            // One that says there is more and gives nothing new would be asked for ever.
            Some(newest) if told.more && newest > after => after = newest,
            _ => return Ok((told.node, records, told.last)),
        }
    }
}
