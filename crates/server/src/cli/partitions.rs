//! partitions: the slots, leaders and pace of every partition, put together from what each node says.

use super::recover::Recover;
use super::split::Split;
use super::{CliError, Target, http_call, keyspace, status};
use clap::{Args, Subcommand};
use quorate_types::KeyspaceId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};
use tonic::codegen::http::{Method, StatusCode};
use tonic::transport::Channel;

/// Between the two looks that a rate is told by.
const RATE_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is said that a node still counts.
const COUNTING_TOLD: Duration = Duration::from_secs(2);

/// Each partition's slots, leader, lag and pace, from all nodes; splitting one, and recovering one that has lost its quorum
#[derive(Args, Debug)]
#[command(
    after_help = "Without a command the partitions are listed. One that is being split is listed as PARENT->CHILD until its child is there.

Examples:
  quorate partitions
  quorate --keyspace orders partitions -o json
  quorate partitions --sizes
  quorate partitions split
  quorate --keyspace orders partitions split 3"
)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Partitions {
    #[command(flatten)]
    shown: Shown,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Each partition's slots, leader, lag and pace, from all nodes
    List(Shown),
    Split(Split),
    Recover(Recover),
}

#[derive(Args, Debug)]
struct Shown {
    /// Show also how many versions of keys each partition holds and how many bytes those are, history included, before they are
    /// packed. One node counts, which reads all that it has
    #[arg(long)]
    sizes: bool,
}

impl Partitions {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        match self.command {
            None => list(target, &self.shown).await,
            Some(Command::List(shown)) => list(target, &shown).await,
            Some(Command::Split(split)) => split.run(target).await,
            Some(Command::Recover(recover)) => recover.run(target).await,
        }
    }
}

/// What a node says of all keyspaces.
#[derive(Deserialize)]
pub(super) struct Told {
    pub(super) keyspaces: Vec<Keyspace>,
    node: String,
}

#[derive(Deserialize)]
pub(super) struct Keyspace {
    pub(super) keyspace: u32,
    name: String,
    revision: u64,
    rules: Vec<serde_json::Value>,
    /// A node of an earlier version says nothing of it.
    held_back: Option<HeldBack>,
    pub(super) partitions: Vec<Partition>,
}

/// One partition on one node. What is not there is not known: the node has not opened its replica yet.
#[derive(Clone, Deserialize)]
pub(super) struct Partition {
    pub(super) partition: u32,
    slots: u32,
    ranges: Vec<(u16, u16)>,
    pub(super) splitting: Option<Splitting>,
    pub(super) leader: Option<String>,
    #[serde(default)]
    term: u64,
    #[serde(default)]
    serves: bool,
    #[serde(default)]
    committed: u64,
    #[serde(default)]
    applied: u64,
    #[serde(default)]
    log_bytes: u64,
    #[serde(default)]
    sleeps: bool,
    /// Where sizes were asked for.
    versions: Option<u64>,
    bytes: Option<u64>,
}

/// The partition that the next revision of its keyspace waits for on the node.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct HeldBack {
    partition: u32,
    settled: u64,
    newest: u64,
}

/// What is held back on the nodes, by keyspace and the node's name.
type AllHeldBack = BTreeMap<u32, BTreeMap<String, HeldBack>>;

/// The split of a partition that is under way.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Splitting {
    child: u32,
    /// Of the parent's slots, as long as it is not finished.
    slots: u32,
    /// Whether the node has opened its replica of the child.
    pub(super) is_opened: bool,
}

impl Partition {
    /// Its number, and that of a partition that is being split off.
    fn number_words(&self) -> String {
        match &self.splitting {
            None => self.partition.to_string(),
            Some(splitting) => format!("{}->{}", self.partition, splitting.child),
        }
    }

    fn range_words(&self) -> String {
        let ranges = self.ranges.iter().map(|(first, last)| format!("{first}-{last}"));
        ranges.collect::<Vec<_>>().join(",")
    }
}

/// Everything that a partition's line is made of.
struct Line {
    keyspace: u32,
    name: String,
    /// As the newest leader says, or whoever was heard.
    best: Partition,
    /// Who leads, by name where the name is known.
    leader: Option<String>,
    /// Entries a second.
    rate: f64,
    /// Applied and missing entries, by the node's name.
    replicas: BTreeMap<String, (u64, u64)>,
    members: usize,
}

async fn ask(target: &Target, endpoint: &str) -> Result<Told, String> {
    let channel = target.connect_to(endpoint).await.map_err(|error| error.to_string())?;
    let mut told = ask_by(channel).await?;
    if let Some(name) = &target.keyspace {
        told.keyspaces.retain(|keyspace| keyspace.name == *name);
    }
    Ok(told)
}

/// What a node says of all partitions.
pub(super) async fn ask_by(channel: Channel) -> Result<Told, String> {
    ask_at(channel, "/partitions").await
}

async fn ask_at(channel: Channel, path: &str) -> Result<Told, String> {
    let (status, answer) = http_call(channel, Method::GET, path, Vec::new()).await?;
    if status != StatusCode::OK {
        return Err(format!("it answers {status} for {path}: {}", answer["reason"].as_str().unwrap_or("?")));
    }
    serde_json::from_value(answer).map_err(|error| format!("its answer makes no sense: {error}"))
}

/// Slots, leaders, lag and pace of every partition. Fails when a node does not answer.
async fn list(target: &Target, shown: &Shown) -> Result<(), CliError> {
    let mut nodes = Vec::new();
    let mut problems = Vec::new();
    let endpoints = status::endpoints(target).await?;
    let members = endpoints.len();
    for (name, endpoint) in endpoints {
        if endpoint.is_empty() {
            let why = status::addressless(&name).to_owned();
            problems.push((if name.is_empty() { "?".into() } else { name }, why));
            continue;
        }
        let asked = Instant::now();
        match ask(target, &endpoint).await {
            Ok(told) => nodes.push((name, endpoint, told, asked)),
            Err(problem) => problems.push((name, problem)),
        }
    }
    if nodes.is_empty() {
        let told: Vec<String> = problems.iter().map(|(name, problem)| format!("{name}: {problem}")).collect();
        return Err(CliError::Unreachable(told.join(", ")));
    }
    let names: BTreeMap<String, String> =
        nodes.iter().map(|(name, _, told, _)| (told.node.clone(), name.clone())).collect();
    let before = committed(nodes.iter().map(|(_, _, told, _)| told));
    let held_before = held_back(nodes.iter().map(|(name, _, told, _)| (name.as_str(), told)));
    tokio::time::sleep(RATE_INTERVAL).await;
    let mut seconds = RATE_INTERVAL.as_secs_f64();
    for (_, endpoint, told, asked) in &mut nodes {
        // What it said first will do when it says nothing now.
        if let Ok(again) = ask(target, endpoint).await {
            *told = again;
            seconds = asked.elapsed().as_secs_f64();
        }
    }
    let told: Vec<(&str, &Told)> = nodes.iter().map(|(name, _, told, _)| (name.as_str(), told)).collect();
    let mut lines = put_together(&told, &names, members);
    let held = still_held_back(&held_before, held_back(told.iter().copied()));
    for line in &mut lines {
        let key = (line.keyspace, line.best.partition);
        let more = line.best.committed.saturating_sub(before.get(&key).copied().unwrap_or(0));
        line.rate = more as f64 / seconds;
    }
    let mut uncounted = None;
    if shown.sizes {
        let node = nodes.iter().map(|(name, endpoint, ..)| (name.as_str(), endpoint.as_str())).next();
        if let Some((name, endpoint)) = node {
            match sizes(target, name, endpoint).await {
                Ok(sizes) => {
                    for line in &mut lines {
                        let size = sizes.get(&(line.keyspace, line.best.partition));
                        (line.best.versions, line.best.bytes) = size.copied().unwrap_or_default();
                    }
                }
                Err(problem) => uncounted = Some(format!("{name} does not count: {problem}")),
            }
        }
    }
    if target.is_json() {
        print_json(&told, &lines, &held, &problems);
    } else {
        print_table(&told, &lines, &held, &problems);
    }
    match (problems.len(), uncounted) {
        (0, None) => Ok(()),
        (0, Some(problem)) => Err(CliError::Usage(problem)),
        (down, _) => Err(CliError::Usage(format!("{down} of {members} nodes did not answer"))),
    }
}

/// How many versions each partition has, and their bytes.
pub(super) type Sizes = BTreeMap<(u32, u32), (Option<u64>, Option<u64>)>;

/// Has a node count what each partition holds, however long that takes.
pub(super) async fn sizes(target: &Target, name: &str, endpoint: &str) -> Result<Sizes, String> {
    let patient = Target { timeout: u64::from(u32::MAX), ..target.clone() };
    let channel = patient.connect_to(endpoint).await.map_err(|error| error.to_string())?;
    // What a name may be made of may stand in an address.
    let keyspace = target.keyspace.as_ref().map(|name| format!("&keyspace={name}")).unwrap_or_default();
    let path = format!("/partitions?sizes=true{keyspace}");
    let mut counting = pin!(ask_at(channel, &path));
    let begun = Instant::now();
    let told = loop {
        match tokio::time::timeout(COUNTING_TOLD, &mut counting).await {
            Ok(told) => break told?,
            Err(_) => eprintln!("{name} has been counting for {} s", begun.elapsed().as_secs()),
        }
    };
    let keyspaces = told.keyspaces.into_iter();
    let sizes = keyspaces.flat_map(|keyspace| {
        let id = keyspace.keyspace;
        let of =
            move |partition: Partition| ((id, partition.partition), (partition.versions, partition.bytes));
        keyspace.partitions.into_iter().map(of)
    });
    Ok(sizes.collect())
}

/// How many entries each partition of the default keyspace has, as one node knows.
pub(crate) async fn entries(target: &Target, endpoint: &str) -> Result<Vec<u64>, String> {
    let told = ask(target, endpoint).await.map_err(|problem| format!("{endpoint}: {problem}"))?;
    let of_default = |key: &(u32, u32)| key.0 == KeyspaceId::DEFAULT.0;
    let entries = committed(std::iter::once(&told));
    Ok(entries.into_iter().filter(|(key, _)| of_default(key)).map(|(_, entries)| entries).collect())
}

/// The furthest commit of each partition that anybody told of.
fn committed<'a>(told: impl Iterator<Item = &'a Told>) -> BTreeMap<(u32, u32), u64> {
    let mut furthest = BTreeMap::new();
    for keyspace in told.flat_map(|told| &told.keyspaces) {
        for partition in &keyspace.partitions {
            let known: &mut u64 = furthest.entry((keyspace.keyspace, partition.partition)).or_default();
            *known = partition.committed.max(*known);
        }
    }
    furthest
}

fn held_back<'a>(told: impl Iterator<Item = (&'a str, &'a Told)>) -> AllHeldBack {
    let mut all = AllHeldBack::new();
    for (node, told) in told {
        for keyspace in &told.keyspaces {
            if let Some(held) = &keyspace.held_back {
                all.entry(keyspace.keyspace).or_default().insert(node.to_owned(), held.clone());
            }
        }
    }
    all
}

/// What was held back at two looks, by the same partition and at the same revision: in between something always is, for milliseconds.
fn still_held_back(before: &AllHeldBack, mut now: AllHeldBack) -> AllHeldBack {
    for (keyspace, nodes) in &mut now {
        nodes.retain(|node, held| {
            let was = before.get(keyspace).and_then(|nodes| nodes.get(node));
            was.is_some_and(|was| (was.partition, was.settled) == (held.partition, held.settled))
        });
    }
    now
}

fn put_together(told: &[(&str, &Told)], names: &BTreeMap<String, String>, members: usize) -> Vec<Line> {
    let furthest = committed(told.iter().map(|(_, told)| *told));
    let mut lines: BTreeMap<(u32, u32), Line> = BTreeMap::new();
    for (node, told) in told {
        for keyspace in &told.keyspaces {
            for partition in &keyspace.partitions {
                let key = (keyspace.keyspace, partition.partition);
                let line = lines.entry(key).or_insert_with(|| Line {
                    keyspace: keyspace.keyspace,
                    name: keyspace.name.clone(),
                    best: partition.clone(),
                    leader: None,
                    rate: 0.0,
                    replicas: BTreeMap::new(),
                    members,
                });
                // A leader that was deposed and has not heard of it is of an older term.
                let rank = |partition: &Partition| (partition.term, partition.serves);
                if rank(partition) > rank(&line.best) {
                    line.best = partition.clone();
                }
                let furthest = furthest.get(&key).copied().unwrap_or(0);
                let lag = furthest.saturating_sub(partition.applied);
                line.replicas.insert((*node).to_owned(), (partition.applied, lag));
            }
        }
    }
    let mut lines: Vec<Line> = lines.into_values().collect();
    for line in &mut lines {
        let named = |id: &String| names.get(id).unwrap_or(id).clone();
        line.leader = line.best.leader.as_ref().map(named);
        // What the furthest node knows, whoever leads.
        line.best.committed = furthest.get(&(line.keyspace, line.best.partition)).copied().unwrap_or(0);
    }
    lines
}

fn print_json(told: &[(&str, &Told)], lines: &[Line], held: &AllHeldBack, problems: &[(String, String)]) {
    let mut keyspaces: BTreeMap<u32, serde_json::Value> = BTreeMap::new();
    for line in lines {
        let keyspace = keyspaces.entry(line.keyspace).or_insert_with(|| {
            let (revision, rules) = about(told, line.keyspace);
            json!({
                "keyspace": line.keyspace,
                "name": line.name,
                "revision": revision,
                "rules": rules,
                "held_back": held.get(&line.keyspace).cloned().unwrap_or_default(),
                "partitions": [],
            })
        });
        let replicas: BTreeMap<&String, _> = line
            .replicas
            .iter()
            .map(|(node, (applied, lag))| (node, json!({"applied": applied, "lag": lag})))
            .collect();
        let partition = json!({
            "partition": line.best.partition,
            "slots": line.best.slots,
            "ranges": line.best.ranges,
            "splitting": line.best.splitting,
            "leader": line.leader,
            "term": line.best.term,
            "members": line.members,
            "replicas": replicas,
            "entries": line.best.committed,
            "entries_per_second": (line.rate * 10.0).round() / 10.0,
            "log_bytes": line.best.log_bytes,
            "versions": line.best.versions,
            "bytes": line.best.bytes,
            "sleeps": line.best.sleeps,
        });
        if let Some(serde_json::Value::Array(partitions)) = keyspace.get_mut("partitions") {
            partitions.push(partition);
        }
    }
    let keyspaces: Vec<_> = keyspaces.into_values().collect();
    let problems: BTreeMap<&String, &String> = problems.iter().map(|(name, what)| (name, what)).collect();
    println!("{}", json!({"keyspaces": keyspaces, "problems": problems}));
}

/// The newest revision of a keyspace that a node told of, and its rules.
fn about(told: &[(&str, &Told)], id: u32) -> (u64, Vec<serde_json::Value>) {
    let of = || told.iter().flat_map(|(_, told)| &told.keyspaces).filter(|keyspace| keyspace.keyspace == id);
    let revision = of().map(|keyspace| keyspace.revision).max().unwrap_or(0);
    (revision, of().next().map(|keyspace| keyspace.rules.clone()).unwrap_or_default())
}

fn print_table(told: &[(&str, &Told)], lines: &[Line], held: &AllHeldBack, problems: &[(String, String)]) {
    for of_keyspace in lines.chunk_by(|a, b| a.keyspace == b.keyspace) {
        let Some(first) = of_keyspace.first() else { continue };
        let (revision, rules) = about(told, first.keyspace);
        println!(
            "keyspace {}, {}: {}, revision {revision}",
            first.keyspace,
            first.name,
            if of_keyspace.len() == 1 {
                "1 partition".into()
            } else {
                format!("{} partitions", of_keyspace.len())
            }
        );
        for rule in rules {
            println!("  {}", keyspace::rule_words(&rule));
        }
        for (node, HeldBack { partition, settled, newest }) in held.get(&first.keyspace).into_iter().flatten()
        {
            println!(
                "  partition {partition} holds back watches and serializable reads on {node}: they are at revision {settled} of {newest}"
            );
        }
        println!(
            "{:>10}  {:>6}  {:<14} {:<8} {:>5} {:>10} {:>8} {:>9}  {}LAG",
            "PARTITION",
            "SLOTS",
            "RANGES",
            "LEADER",
            "TERM",
            "ENTRIES",
            "PER S",
            "LOG",
            if first.best.bytes.is_some() {
                format!("{:>9} {:>9}  ", "VERSIONS", "BYTES")
            } else {
                String::new()
            }
        );
        for line in of_keyspace {
            let lags: Vec<String> =
                line.replicas.iter().map(|(node, (_, lag))| format!("{node} {lag}")).collect();
            let missing = line.members - line.replicas.len();
            let missing = if missing > 0 { format!(", {missing} unheard") } else { String::new() };
            let size = match (line.best.versions, line.best.bytes) {
                (Some(versions), Some(bytes)) => format!("{versions:>9} {:>9}  ", size_words(bytes)),
                _ => String::new(),
            };
            println!(
                "{:>10}  {:>6}  {:<14} {:<8} {:>5} {:>10} {:>8.0} {:>9}  {size}{}{missing}",
                line.best.number_words(),
                line.best.slots,
                line.best.range_words(),
                line.leader.as_deref().unwrap_or("none"),
                line.best.term,
                line.best.committed,
                line.rate,
                size_words(line.best.log_bytes),
                lags.join(", "),
            );
        }
        println!();
    }
    for (name, problem) in problems {
        println!("{name}: {problem}");
    }
}

fn size_words(bytes: u64) -> String {
    status::size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(node: &str, leader: Option<&str>, term: u64, serves: bool, committed: u64, applied: u64) -> Told {
        let partition = json!({
            "partition": 3, "slots": 1024, "ranges": [[3072, 4095]], "leader": leader, "term": term,
            "serves": serves, "committed": committed, "applied": applied, "log_bytes": 9, "sleeps": false,
        });
        // As of a node that has not opened its replica yet.
        let unopened = json!({"partition": 4, "slots": 1024, "ranges": [[4096, 5119]]});
        let keyspace = json!({
            "keyspace": 1, "name": "default", "revision": 7, "rules": [], "partitions": [partition, unopened],
        });
        serde_json::from_value(json!({"node": node, "keyspaces": [keyspace]})).unwrap()
    }

    #[test]
    fn the_newest_term_says_who_leads_and_the_furthest_who_lags() {
        // A deposed leader is not believed, but what it has committed counts.
        let (a, b) = (told("a1", Some("a1"), 2, true, 50, 50), told("b2", Some("b2"), 3, true, 48, 40));
        let names = BTreeMap::from([("a1".to_owned(), "a".to_owned()), ("b2".to_owned(), "b".to_owned())]);
        let lines = put_together(&[("a", &a), ("b", &b)], &names, 3);
        assert_eq!(lines.len(), 2);
        let line = &lines[0];
        assert_eq!((line.leader.as_deref(), line.best.term, line.best.committed), (Some("b"), 3, 50));
        assert_eq!(line.replicas, BTreeMap::from([("a".to_owned(), (50, 0)), ("b".to_owned(), (40, 10))]));
        assert_eq!(line.best.range_words(), "3072-4095");
        assert_eq!((&lines[1].leader, lines[1].best.term), (&None, 0));
    }
    #[test]
    fn a_partition_is_late_when_the_same_revision_waits_for_it_at_two_looks() {
        let held = |partition, settled, newest| {
            let mut told = told("a1", None, 1, false, 1, 1);
            told.keyspaces[0].held_back = Some(HeldBack { partition, settled, newest });
            held_back([("a", &told)].into_iter())
        };
        let is_late = |before, now| still_held_back(&before, now)[&1].contains_key("a");
        assert!(is_late(held(3, 7, 8), held(3, 7, 90)));
        assert!(!is_late(held(3, 7, 8), held(3, 8, 90)), "it went on");
        assert!(!is_late(held(4, 7, 8), held(3, 7, 90)), "another one");
        assert!(!is_late(AllHeldBack::new(), held(3, 7, 90)), "only now");
    }

    #[test]
    fn a_partition_that_is_being_split_names_its_child() {
        let mut partition = told("a1", None, 1, false, 1, 1).keyspaces.remove(0).partitions.remove(0);
        assert_eq!(partition.number_words(), "3");
        partition.splitting = Some(Splitting { child: 5, slots: 512, is_opened: false });
        assert_eq!(partition.number_words(), "3->5");
    }
}
