//! The flags of `quorate serve`, the environment and the file, before anything is made of them.

use super::ConfigError;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The flags of `quorate serve`; the same names are keys of the TOML file.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ServeArgs {
    /// A TOML file with any of the settings below, named as the flags are
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Print the settings that would be used, as TOML, and stop
    #[arg(long)]
    #[serde(skip)]
    pub print_config: bool,
    /// This node's name, one of those in --initial-cluster [default: default]
    #[arg(long, env = "QUORATE_NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where this node keeps everything [default: NAME.quorate]
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Where clients connect: etcd's API over gRPC, and HTTP for health and metrics [default: 127.0.0.1:2379]
    #[arg(long, env = "QUORATE_LISTEN_CLIENT", value_name = "ADDR", alias = "listen-client-urls")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_client: Option<String>,
    /// Where clients of the keyspace NAME connect: whatever they ask is asked of it, so that a client that knows nothing of keyspaces can
    /// use it. May be given more than once, or with commas. Until the keyspace is created they are told that it does not exist
    #[arg(long, env = "QUORATE_LISTEN_KEYSPACE", value_name = "NAME=ADDR", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_keyspace: Option<Vec<String>>,
    /// What clients are told to connect to [default: the same as --listen-client]
    #[arg(long, env = "QUORATE_ADVERTISE_CLIENT", value_name = "ADDR", alias = "advertise-client-urls")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_client: Option<String>,
    /// Where other nodes connect [default: this node's address in --initial-cluster, or 127.0.0.1:2380]
    #[arg(long, env = "QUORATE_LISTEN_PEER", value_name = "ADDR", alias = "listen-peer-urls")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_peer: Option<String>,
    /// What other nodes are told to connect to; with --initial-cluster it is said there [default: the same as --listen-peer]
    #[arg(long, env = "QUORATE_ADVERTISE_PEER", value_name = "ADDR", alias = "initial-advertise-peer-urls")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_peer: Option<String>,
    /// All nodes that a new cluster begins with, this one included: NAME=ADDR,NAME=ADDR,... [default: this node alone]
    #[arg(long, env = "QUORATE_INITIAL_CLUSTER", value_name = "NODES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_cluster: Option<String>,
    /// Join the cluster that these client addresses belong to, with an empty data directory and a --name that no other node has. A
    /// directory that has joined goes on, with or without this. How to trust the nodes is said by --cacert, --cert and --key, or else
    /// this node's own certificates are used
    #[arg(long, env = "QUORATE_JOIN", value_name = "ADDR", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<Vec<String>>,
    /// What fails together with this node, as a rack or a site: replicas are spread over zones. Counts until quorate node zone says
    /// another [default: a zone of its own]
    #[arg(long, env = "QUORATE_ZONE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How much this node shall hold in proportion to others, 1 to 1000000. Counts until quorate node weight says another [default: 1]
    #[arg(long, env = "QUORATE_WEIGHT", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// On how many nodes everything is kept, if there are so many; should be the same on all nodes [default: as many as the cluster began with,
    /// but at least 3]
    #[arg(long, env = "QUORATE_REPLICAS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<usize>,
    /// Where partitions are kept when there are more nodes than replicas: all on the same nodes, while the others stand by, or dealt over
    /// all nodes; should be the same on all nodes [default: together] [possible values: together, dealt]
    #[arg(long, env = "QUORATE_PLACEMENT", value_name = "HOW", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Seconds of silence before a node is believed to be lost and others get what it has [default: 300]
    #[arg(long, env = "QUORATE_GRACE_PERIOD", value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<u64>,
    /// How many partitions may move at a time [default: 8]
    #[arg(long, env = "QUORATE_MOVES_MAX", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moves_max: Option<usize>,
    /// Megabytes a second that this node sends at most to fill replicas on others [default: 200]
    #[arg(long, env = "QUORATE_FILL_RATE", value_name = "MB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill_rate: Option<usize>,
    /// Megabytes a second of what is stored that are read in search of damage; 0 to read nothing [default: 8]
    #[arg(long, env = "QUORATE_SCRUB_RATE", value_name = "MB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub_rate: Option<usize>,
    /// Tells clusters with the same addresses apart [default: quorate]
    #[arg(long, env = "QUORATE_CLUSTER_TOKEN", value_name = "WORD", alias = "initial-cluster-token")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_token: Option<String>,
    /// Milliseconds between a leader's heartbeats [default: 100]
    #[arg(long, env = "QUORATE_HEARTBEAT_INTERVAL", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval: Option<u64>,
    /// Milliseconds of silence before a leader is taken for dead [default: 500]
    #[arg(long, env = "QUORATE_ELECTION_TIMEOUT", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election_timeout: Option<u64>,
    /// Answer reads from the leader's lease, without asking a quorum. Right only while no two nodes'
    /// clocks run apart by more than a tenth [default: false]
    #[arg(long, env = "QUORATE_LEASE_READ", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_read: Option<bool>,
    /// Threads that serve clients and peers. With one of them a call is answered without going from thread to thread, which is fastest by far
    /// on few processors; more of them serve more clients where processors are idle. The disk has threads of its own [default: half of the
    /// processors]
    #[arg(long, env = "QUORATE_THREADS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The largest request, in bytes [default: 1572864]
    #[arg(long, env = "QUORATE_MAX_REQUEST_BYTES", value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<usize>,
    /// The most operations in a transaction [default: 128]
    #[arg(long, env = "QUORATE_MAX_TXN_OPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_txn_ops: Option<usize>,
    /// Bytes the store's tables may take on disk before writes are refused; 0 is no limit [default: 8589934592]
    #[arg(long, env = "QUORATE_QUOTA_BYTES", value_name = "BYTES", alias = "quota-backend-bytes")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Bytes that must stay free on the data directory's file system; with less, writes are refused [default: 134217728]
    #[arg(long, env = "QUORATE_DISK_RESERVE_BYTES", value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_reserve_bytes: Option<u64>,
    /// Into how many partitions the keys of a new cluster are dealt, 1 to 1024, each with a leader and a log of its own. Counts only
    /// while the cluster is new, and should be the same on all its nodes [default: 8]
    #[arg(long, env = "QUORATE_PARTITIONS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// Keep every key that begins with PREFIX in one partition, sub-directories too: transactions on them are the cheapest. May be
    /// given more than once, or with commas; counts only while the cluster is new [default: a directory's own keys are together]
    #[arg(long, env = "QUORATE_PIN", value_name = "PREFIX", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Vec<String>>,
    /// Deal the keys directly in DIRECTORY, which ends in /, over 2^BITS places, 1 to 14 bits, as for one large directory with many
    /// writers. May be given more than once, or with commas; counts only while the cluster is new [default: none]
    #[arg(long, env = "QUORATE_SPREAD", value_name = "DIRECTORY:BITS", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Vec<String>>,
    /// Bytes of memory for the store's cache [default: 67108864]
    #[arg(long, env = "QUORATE_CACHE_BYTES", value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    /// Seconds between progress notifications of quiet watches that ask for them [default: 600]
    #[arg(long, env = "QUORATE_WATCH_PROGRESS_INTERVAL", value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch_progress_interval: Option<u64>,
    /// The certificate, with what leads to its CA, that clients are shown; with it the client port speaks TLS only
    #[arg(long, env = "QUORATE_CERT_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The key of --cert-file
    #[arg(long, env = "QUORATE_KEY_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The CA whose certificates clients must present; they are asked for one when it is set
    #[arg(long, env = "QUORATE_TRUSTED_CA_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_ca_file: Option<PathBuf>,
    /// Clients must present a certificate of --trusted-ca-file [default: true when that is set]
    #[arg(long, env = "QUORATE_CLIENT_CERT_AUTH", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert_auth: Option<bool>,
    /// This node's certificate for other nodes, good for both ends of a connection; with it nodes speak TLS only
    #[arg(long, env = "QUORATE_PEER_CERT_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_cert_file: Option<PathBuf>,
    /// The key of --peer-cert-file
    #[arg(long, env = "QUORATE_PEER_KEY_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_key_file: Option<PathBuf>,
    /// The CA of all nodes' certificates
    #[arg(long, env = "QUORATE_PEER_TRUSTED_CA_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// How logs look [default: human] [possible values: human, json]
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or per module as in RUST_LOG [default: info]
    #[arg(long, env = "QUORATE_LOG_LEVEL", value_name = "LEVEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
}

/// Where partitions are kept when there are more nodes than replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// All on the same nodes.
    #[default]
    Together,
    /// On different ones, so that each has its share.
    Dealt,
}

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// A JSON object a line.
    Json,
}

impl ServeArgs {
    /// Fills what flags and environment leave open from the file, if one is named.
    pub fn with_file(self) -> Result<Self, ConfigError> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let file = read_file(&path)?;
        macro_rules! first_set {
            ($($field:ident),* $(,)?) => { Self { config: self.config, print_config: self.print_config, $( $field: self.$field.or(file.$field), )* } };
        }
        Ok(first_set!(
            name,
            data_dir,
            listen_client,
            listen_keyspace,
            advertise_client,
            listen_peer,
            advertise_peer,
            initial_cluster,
            join,
            zone,
            weight,
            replicas,
            placement,
            grace_period,
            moves_max,
            fill_rate,
            scrub_rate,
            cluster_token,
            heartbeat_interval,
            election_timeout,
            lease_read,
            threads,
            max_request_bytes,
            max_txn_ops,
            quota_bytes,
            disk_reserve_bytes,
            partitions,
            pin,
            spread,
            cache_bytes,
            watch_progress_interval,
            cert_file,
            key_file,
            trusted_ca_file,
            client_cert_auth,
            peer_cert_file,
            peer_key_file,
            peer_trusted_ca_file,
            log_format,
            log_level,
        ))
    }
}

fn read_file(path: &Path) -> Result<ServeArgs, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|cause| ConfigError::Unreadable { path: shown.clone(), cause })?;
    toml::from_str(&text).map_err(|cause| ConfigError::Malformed { path: shown, cause })
}
