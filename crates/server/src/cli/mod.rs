//! The commands for people, over the public API: what they can do, any etcd client can.

pub mod doctor;
pub mod kv;
pub mod lease;
pub mod status;
pub mod watch;

use clap::{Args, ValueEnum};
use quorate_api::pb;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long one endpoint may take to answer before the next is tried.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Where the cluster is, and how answers are shown.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Client addresses of the nodes, comma-separated; the first that answers is used
    #[arg(
        long,
        global = true,
        env = "QUORATE_ENDPOINTS",
        default_value = "127.0.0.1:2379",
        value_delimiter = ','
    )]
    pub endpoints: Vec<String>,
    /// How answers are shown
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Seconds to wait for an answer
    #[arg(long, global = true, default_value_t = 7)]
    pub timeout: u64,
}

/// How answers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What went wrong, in words for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No endpoint answers.
    #[error("none of the endpoints answers: {0}; is the cluster running, and is --endpoints right?")]
    Unreachable(String),
    /// The cluster says no.
    #[error("{}", .0.message())]
    Refused(#[from] Status),
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl Target {
    /// Connects to one endpoint.
    pub async fn connect_to(&self, endpoint: &str) -> Result<Channel, CliError> {
        let plain = endpoint.trim_start_matches("http://");
        let endpoint = Endpoint::from_shared(format!("http://{plain}"))
            .map_err(|error| CliError::Usage(format!("--endpoints: «{plain}»: {error}")))?
            .connect_timeout(CONNECT_MAX)
            .timeout(Duration::from_secs(self.timeout.max(1)))
            .tcp_nodelay(true);
        endpoint.connect().await.map_err(|error| CliError::Unreachable(format!("{plain} ({error})")))
    }

    /// Connects to the first endpoint that answers.
    pub async fn connect(&self) -> Result<Channel, CliError> {
        let mut problems = Vec::new();
        for endpoint in &self.endpoints {
            match self.connect_to(endpoint).await {
                Ok(channel) => return Ok(channel),
                Err(CliError::Unreachable(problem)) => problems.push(problem),
                Err(other) => return Err(other),
            }
        }
        Err(CliError::Unreachable(problems.join(", ")))
    }

    /// Whether answers are for programs.
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Connects without a limit on how long an answer takes, for watches.
    pub async fn connect_patiently(&self) -> Result<Channel, CliError> {
        Target { timeout: u64::from(u32::MAX), ..self.clone() }.connect().await
    }
}

/// The end of the range of all keys that begin with `prefix`, as etcd's API writes it.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte != 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        None => vec![0],
    }
}

/// Bytes as text, where they are text.
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// A header as JSON.
pub fn header_json(header: Option<&pb::ResponseHeader>) -> serde_json::Value {
    header.map_or(serde_json::Value::Null, |header| {
        serde_json::json!({
            "cluster_id": format!("{:x}", header.cluster_id),
            "member_id": format!("{:x}", header.member_id),
            "revision": header.revision,
            "raft_term": header.raft_term,
        })
    })
}

/// Whether asking again, perhaps another node, may help.
pub fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}
