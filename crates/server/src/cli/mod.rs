//! The commands for people, over the public API: what they can do, any etcd client can.

pub mod bench;
pub(crate) mod columns;
pub mod doctor;
pub mod events;
pub mod keyspace;
pub mod kv;
pub mod lease;
pub(crate) mod markup;
pub mod node;
pub mod partitions;
pub mod recover;
pub mod ring;
pub mod split;
pub mod status;
pub mod top;
pub mod watch;

use crate::services::KEYSPACE_HEADER;
use crate::tls;
use clap::{Args, ValueEnum};
use quorate_api::pb;
pub use quorate_api::prefix_end;
use quorate_types::map::is_name;
use quorate_types::{Bytes, MapError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_rustls::rustls::ClientConfig;
use tonic::codegen::{Service as _, http};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

/// How long one endpoint may take to answer before the next is tried.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The largest answer of a node that is taken over plain HTTP: a thousand partitions are about 200 KiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where the cluster is, and how answers are shown.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Client addresses of the nodes, comma-separated; the first that answers is used. https:// is TLS
    #[arg(
        long,
        global = true,
        env = "QUORATE_ENDPOINTS",
        default_value = "127.0.0.1:2379",
        value_delimiter = ','
    )]
    pub endpoints: Vec<String>,
    /// The keyspace to work in [default: that of the port; default, if it has none of its own]
    #[arg(long, global = true, env = "QUORATE_KEYSPACE", value_name = "NAME", value_parser = parse_keyspace)]
    pub keyspace: Option<String>,
    /// How answers are shown
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Seconds to wait for an answer
    #[arg(long, global = true, default_value_t = 7)]
    pub timeout: u64,
    /// TLS.
    #[command(flatten)]
    pub tls: TargetTls,
}

/// How to trust the nodes, and how they shall trust us.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetTls {
    /// The CA of the nodes' certificates; endpoints without http:// are then taken for https://
    #[arg(long = "cacert", id = "tls_cacert", global = true, env = "QUORATE_CACERT", value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// The certificate to show the nodes
    #[arg(long = "cert", id = "tls_cert", global = true, env = "QUORATE_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The key of --cert
    #[arg(long = "key", id = "tls_key", global = true, env = "QUORATE_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
}

impl TargetTls {
    fn config(&self) -> Result<ClientTlsConfig, CliError> {
        let read = |flag: &str, path: &Path| {
            let unreadable = |error| CliError::Usage(format!("--{flag} {}: {error}", path.display()));
            std::fs::read(path).map_err(unreadable)
        };
        let (cacert, shown) = self.files()?;
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("cacert", cacert)?))
            .timeout(CONNECT_MAX);
        match shown {
            Some((cert, key)) => {
                Ok(config.identity(Identity::from_pem(read("cert", cert)?, read("key", key)?)))
            }
            None => Ok(config),
        }
    }

    /// The same for connections that are not the gRPC library's.
    fn rustls_config(&self) -> Result<ClientConfig, CliError> {
        let (cacert, shown) = self.files()?;
        tls::for_client(cacert, shown).map_err(|error| CliError::Usage(error.to_string()))
    }

    /// The CA, and the certificate with its key.
    #[expect(clippy::type_complexity, reason = "three files, of which two go together")]
    fn files(&self) -> Result<(&Path, Option<(&Path, &Path)>), CliError> {
        let Some(cacert) = &self.cacert else {
            let problem = "https:// needs --cacert, the CA of the nodes' certificates";
            return Err(CliError::Usage(problem.into()));
        };
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok((cacert, Some((cert, key)))),
            (None, None) => Ok((cacert, None)),
            _ => Err(CliError::Usage("--cert and --key go together".into())),
        }
    }
}

/// How answers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[value(alias = "text")]
    Table,
    /// For programs.
    Json,
    /// A picture, of what can be drawn: `ring`.
    Svg,
}

/// What went wrong, in words for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No endpoint answers.
    #[error("none of the endpoints answers: {0}; is the cluster running, and is --endpoints right?")]
    Unreachable(String),
    /// The cluster says no.
    #[error("{}", said(.0))]
    Refused(#[from] Status),
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
}

/// A connection whose calls name their keyspace.
pub type Line = InterceptedService<Channel, ForKeyspace>;

/// Puts the keyspace into a call's metadata.
#[derive(Clone, Debug)]
pub struct ForKeyspace(Option<MetadataValue<Ascii>>);

impl Interceptor for ForKeyspace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(name) = &self.0 {
            request.metadata_mut().insert(KEYSPACE_HEADER, name.clone());
        }
        Ok(request)
    }
}

fn parse_keyspace(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(format!("«{text}»: {}", MapError::Name)) }
}

/// A node's answer to plain HTTP: JSON, or what was wrong with it.
pub(crate) async fn http_call(
    channel: Channel,
    method: http::Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(http::StatusCode, serde_json::Value), String> {
    let (status, body) = http_bytes(channel, method, path, body).await?;
    // One of an older version says in words, or not at all, that it does not know the path.
    let unknown = || format!("it answers {status} for {path}: is it an older version?");
    serde_json::from_slice(&body).map(|body| (status, body)).map_err(|_| unknown())
}

/// The same, whatever it is made of.
pub(crate) async fn http_bytes(
    mut channel: Channel,
    method: http::Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(http::StatusCode, Bytes), String> {
    let body = tonic::body::Body::new(axum::body::Body::from(body));
    let request = http::Request::builder().method(method).uri(path).body(body);
    let request = request.map_err(|error| error.to_string())?;
    std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| whole(&error))?;
    let response = channel.call(request).await.map_err(|error| whole(&error))?;
    let status = response.status();
    let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), ANSWER_BYTES_MAX).await;
    Ok((status, body.map_err(|error| whole(&error))?))
}

impl Target {
    /// One that no command line describes.
    pub(crate) fn to(endpoints: Vec<String>, timeout: u64, tls: TargetTls) -> Self {
        Self { endpoints, keyspace: None, output: Output::Json, timeout, tls }
    }

    /// Connects to one endpoint, for calls in the keyspace that is asked for.
    pub async fn line_to(&self, endpoint: &str) -> Result<Line, CliError> {
        Ok(self.named(self.connect_to(endpoint).await?))
    }

    /// Connects to the first endpoint that answers, for calls in the keyspace that is asked for.
    pub async fn line(&self) -> Result<Line, CliError> {
        Ok(self.named(self.connect().await?))
    }

    fn named(&self, channel: Channel) -> Line {
        // What a name may be made of may stand in metadata.
        let name = self.keyspace.as_ref().and_then(|name| MetadataValue::try_from(name.as_str()).ok());
        InterceptedService::new(channel, ForKeyspace(name))
    }

    /// Whether an endpoint speaks TLS, and where it is.
    fn told_apart<'a>(&self, endpoint: &'a str) -> (bool, &'a str) {
        match (endpoint.strip_prefix("http://"), endpoint.strip_prefix("https://")) {
            (Some(plain), _) => (false, plain),
            (_, Some(plain)) => (true, plain),
            (None, None) => (self.tls.cacert.is_some(), endpoint),
        }
    }

    /// Connects to one endpoint.
    pub async fn connect_to(&self, endpoint: &str) -> Result<Channel, CliError> {
        let (is_tls, plain) = self.told_apart(endpoint);
        let usage = |error| CliError::Usage(format!("--endpoints: «{endpoint}»: {}", whole(&error)));
        let scheme = if is_tls { "https" } else { "http" };
        let mut target = Endpoint::from_shared(format!("{scheme}://{plain}"))
            .map_err(usage)?
            .connect_timeout(CONNECT_MAX)
            .timeout(Duration::from_secs(self.timeout.max(1)))
            .tcp_nodelay(true);
        if is_tls {
            let tls = |error| CliError::Usage(format!("--cacert, --cert or --key: {}", whole(&error)));
            target = target.tls_config(self.tls.config()?).map_err(tls)?;
        }
        let unreachable = |error| CliError::Unreachable(format!("{endpoint} ({})", whole(&error)));
        target.connect().await.map_err(unreachable)
    }

    /// Connects to one node of several that are asked; why it cannot is told beside the node's name.
    async fn connect_to_one(&self, endpoint: &str) -> Result<Channel, String> {
        self.connect_to(endpoint).await.map_err(|error| match error {
            CliError::Unreachable(what) => format!("does not answer: {what}"),
            other => other.to_string(),
        })
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

    /// The same, for calls in the keyspace that is asked for.
    pub async fn line_patiently(&self) -> Result<Line, CliError> {
        Ok(self.named(self.connect_patiently().await?))
    }
}

/// An error with its causes: those of the transport are in them.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some repeat their cause themselves.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// What a node said, or what became of the connection to it.
fn said(status: &Status) -> String {
    match std::error::Error::source(status) {
        None => status.message().to_owned(),
        Some(cause) => format!("the connection broke: {}", whole(cause)),
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
    // A node that stops ends its connections; a call that was about to begin on one is "internal" to the gRPC library, though no node has said so.
    let is_of_connection = std::error::Error::source(status).is_some();
    is_of_connection
        || matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
        )
}
