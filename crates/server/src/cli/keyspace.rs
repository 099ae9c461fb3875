//! keyspace: creating, listing and deleting keyspaces, by any node.

use super::{CliError, Target, http_call, parse_keyspace, status};
use crate::services::keyspaces::Wanted;
use clap::{Args, Subcommand};
use quorate_api::pb;
use serde::Deserialize;
use serde_json::Value;
use tonic::codegen::http::Method;

const PATH: &str = "/keyspaces";
/// The command that shows what has become of a change.
const LIST: &str = "quorate keyspace list";

/// Keyspaces: key spaces of their own in one cluster, with their own revisions, leases and watches
#[derive(Subcommand, Debug)]
#[command(
    after_help = "A cluster begins with one keyspace, default. What is said without naming a keyspace is said to that.
Clients choose another by the metadata quorate-keyspace of a call, which is what --keyspace NAME of these commands does,
or by connecting to a port that quorate serve --listen-keyspace NAME=ADDR opens for it.

Examples:
  quorate keyspace create orders --partitions 16 --pin app/ --quota 1073741824
  quorate --keyspace orders put key value
  quorate keyspace list
  quorate keyspace delete orders --yes"
)]
pub enum Keyspace {
    /// Make a new, empty keyspace
    Create(Create),
    /// All keyspaces: partitions, newest revision, space used and allowed, placement rules
    List,
    /// End a keyspace and everything in it, for good
    Delete {
        /// Which
        #[arg(value_parser = parse_keyspace)]
        name: String,
        /// Do it; without this it is only said what would be lost
        #[arg(long)]
        yes: bool,
    },
}

/// A keyspace to be created.
#[derive(Args, Debug)]
#[command(
    after_help = "Without options: one partition, no limit of its own. Placement rules and quota are chosen now and stay; docs/keyspaces.md
says what they cost. Every node holds every keyspace."
)]
pub struct Create {
    /// What clients will call it: 1 to 64 letters, digits, '.', '_' or '-', not beginning with '.' or '-'
    #[arg(value_parser = parse_keyspace)]
    name: String,
    /// How many partitions the keys are dealt over, 1 to 1024
    #[arg(long, value_name = "N", default_value_t = 1)]
    partitions: u32,
    /// Keep all keys that begin with PREFIX in one partition. May be given more than once, or with commas
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pin: Vec<String>,
    /// Deal the keys directly in DIRECTORY, which ends in /, over 2^BITS places, 1 to 14 bits. May be given more than once,
    /// or with commas
    #[arg(long, value_name = "DIRECTORY:BITS", value_delimiter = ',')]
    spread: Vec<String>,
    /// Bytes it may take on each node, history included; writes beyond are refused until keys are deleted and compacted
    /// [default: no limit of its own]
    #[arg(long, value_name = "BYTES")]
    quota: Option<u64>,
}

/// A keyspace as a node tells of it.
#[derive(Debug, Deserialize)]
struct Told {
    keyspace: u32,
    name: String,
    partitions: usize,
    rules: Vec<Value>,
    quota_bytes: Option<u64>,
    #[serde(default)]
    revision: Option<u64>,
    #[serde(default)]
    used_bytes: Option<u64>,
}

impl Keyspace {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        match self {
            Self::Create(create) => create.run(target).await,
            Self::List => list(target).await,
            Self::Delete { name, yes } => delete(target, &name, yes).await,
        }
    }
}

impl Create {
    async fn run(self, target: &Target) -> Result<(), CliError> {
        let Self { name, partitions, pin, spread, quota: quota_bytes } = self;
        let wanted = Wanted { name, partitions, pin, spread, quota_bytes };
        let body = serde_json::to_vec(&wanted).map_err(|error| CliError::Usage(error.to_string()))?;
        let answer = ask(target, Method::POST, PATH, body, LIST).await?;
        if target.is_json() {
            println!("{answer}");
        } else {
            let partitions = counted(wanted.partitions.into(), "partition");
            println!("keyspace {} created with {partitions}; --keyspace {0} works in it", wanted.name);
        }
        Ok(())
    }
}

async fn list(target: &Target) -> Result<(), CliError> {
    let answer = ask(target, Method::GET, PATH, Vec::new(), LIST).await?;
    if target.is_json() {
        println!("{answer}");
        return Ok(());
    }
    println!(
        "{:<20} {:>4} {:>10} {:>12} {:>10} {:>10}  RULES",
        "NAME", "ID", "PARTITIONS", "REVISION", "USED", "QUOTA"
    );
    let size = |bytes: Option<u64>| match bytes {
        Some(bytes) => status::size(i64::try_from(bytes).unwrap_or(i64::MAX)),
        None => "-".to_owned(),
    };
    for keyspace in keyspaces(&answer)? {
        let rules: Vec<String> = keyspace.rules.iter().map(rule_words).collect();
        let line = format!(
            "{:<20} {:>4} {:>10} {:>12} {:>10} {:>10}  {}",
            keyspace.name,
            keyspace.keyspace,
            keyspace.partitions,
            keyspace.revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string()),
            size(keyspace.used_bytes),
            size(keyspace.quota_bytes),
            rules.join(", "),
        );
        println!("{}", line.trim_end());
    }
    Ok(())
}

async fn delete(target: &Target, name: &str, is_confirmed: bool) -> Result<(), CliError> {
    if !is_confirmed {
        let lost = lost(target, name).await?;
        return Err(CliError::Usage(format!(
            "deleting keyspace {name} loses {lost}, all its leases and its history on every node, for good; to do it, say --yes"
        )));
    }
    let answer = ask(target, Method::DELETE, &format!("{PATH}/{name}"), Vec::new(), LIST).await?;
    if target.is_json() {
        println!("{answer}");
    } else {
        println!("keyspace {name} deleted; the nodes give its space back in the background");
    }
    Ok(())
}

/// What there is in a keyspace, in words.
async fn lost(target: &Target, name: &str) -> Result<String, CliError> {
    let within = Target { keyspace: Some(name.to_owned()), ..target.clone() };
    let mut client = pb::kv_client::KvClient::new(within.line().await?);
    let all = pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        count_only: true,
        ..Default::default()
    };
    let count = client.range(all).await?.into_inner().count;
    Ok(counted(u64::try_from(count).unwrap_or(0), "key"))
}

pub(super) fn counted(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// A placement rule as the options say it.
pub(super) fn rule_words(rule: &Value) -> String {
    let word = |key: &str| rule.get(key).and_then(Value::as_str);
    match (word("pin"), word("spread")) {
        (Some(prefix), _) => format!("pin {prefix}"),
        (_, Some(directory)) => format!("spread {directory}:{}", rule["bits"]),
        _ => rule.to_string(),
    }
}

fn keyspaces(answer: &Value) -> Result<Vec<Told>, CliError> {
    let told = Vec::deserialize(&answer["keyspaces"]);
    told.map_err(|error| CliError::Usage(format!("the node's answer makes no sense: {error}")))
}

/// Whether a keyspace is there, as the cluster's leader says.
pub(super) async fn is_there(target: &Target, id: u32) -> Result<bool, CliError> {
    let answer = ask(target, Method::GET, PATH, Vec::new(), LIST).await?;
    Ok(keyspaces(&answer)?.iter().any(|keyspace| keyspace.keyspace == id))
}

/// Asks the first node that can be reached; what it refuses is an error in its words. `shown_by` is the command that tells what has become of a
/// change whose answer is lost.
pub(super) async fn ask(
    target: &Target,
    method: Method,
    path: &str,
    body: Vec<u8>,
    shown_by: &str,
) -> Result<Value, CliError> {
    let may_change = method != Method::GET;
    let channel = target.connect().await?;
    let (status, answer) = http_call(channel, method, path, body).await.map_err(|problem| {
        let doubt = format!("; it may have been carried out or not: {shown_by} shows which");
        CliError::Usage(if may_change { format!("{problem}{doubt}") } else { problem })
    })?;
    if status.is_success() {
        return Ok(answer);
    }
    let words = answer["error"].as_str().map_or_else(|| format!("the node answers {status}"), str::to_owned);
    Err(CliError::Usage(words))
}
