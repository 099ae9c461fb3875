//! How a node is told what to be: flags, `QUORATE_*` environment and one TOML file say the same things.
//! A flag wins over the environment, the environment over the file, the file over the default.

use clap::Args;
use quorate_types::map::{PARTITIONS_MAX, is_name};
use quorate_types::member::{TEXT_BYTES_MAX, WEIGHT_MAX};
use quorate_types::{Bytes, ClusterId, NodeId, Rule, RuleError, Rules};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many partitions a new cluster gets that is not told otherwise.
pub const PARTITIONS_DEFAULT: u32 = 8;
/// More replicas make writes slower and nothing safer.
const REPLICAS_MAX: usize = 7;
/// A year.
const GRACE_SECONDS_MAX: u64 = 365 * 24 * 3600;

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
    /// On how many nodes everything is kept, if there are so many; should be the same on all nodes [default: 3]
    #[arg(long, env = "QUORATE_REPLICAS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<usize>,
    /// Seconds of silence before a node is believed to be lost and others get what it has [default: 300]
    #[arg(long, env = "QUORATE_GRACE_PERIOD", value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<u64>,
    /// How many partitions may move at a time [default: 4]
    #[arg(long, env = "QUORATE_MOVES_MAX", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moves_max: Option<usize>,
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

/// The files of TLS for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// The certificate and what leads to its CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA whose certificates clients must present; `None` is anyone.
    pub ca: Option<PathBuf>,
}

/// The files of TLS between nodes, who verify each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// This node's certificate and what leads to its CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA of all nodes' certificates.
    pub ca: PathBuf,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the config file {path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not TOML, or has a key that does not exist.
    #[error("the config file {path} is not right: {cause}")]
    Malformed {
        /// The file.
        path: String,
        /// Where and why.
        cause: toml::de::Error,
    },
    /// A setting makes no sense.
    #[error("--{flag}: {problem}")]
    Senseless {
        /// The flag.
        flag: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// The settings in force, all of them known.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub name: String,
    /// Where this node keeps everything.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub listen_client: String,
    /// Where the clients of a keyspace connect, by its name.
    pub listen_keyspaces: BTreeMap<String, String>,
    /// What clients are told to connect to.
    pub advertise_client: String,
    /// Where other nodes connect.
    pub listen_peer: String,
    /// All nodes that a new cluster begins with, by name, with their peer addresses; this one alone, if no others were said.
    pub members: BTreeMap<String, String>,
    /// Whether they were said.
    pub is_founding: bool,
    /// Client addresses of the cluster to join; none is to begin one.
    pub join: Vec<String>,
    /// What fails together with this node; empty: it is a zone of its own.
    pub zone: String,
    /// How much it shall hold in proportion to others.
    pub weight: u32,
    /// On how many nodes everything is kept.
    pub replicas: usize,
    /// Silence before a node is believed to be lost.
    pub grace_period: Duration,
    /// How many partitions may move at a time.
    pub moves_max: usize,
    /// Tells clusters with the same addresses apart.
    pub cluster_token: String,
    /// Between a leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// Silence before a leader is taken for dead.
    pub election_timeout: Duration,
    /// Answer reads from the leader's lease.
    pub lease_read: bool,
    /// The largest request.
    pub request_bytes_max: usize,
    /// The most operations in a transaction.
    pub txn_operations_max: usize,
    /// Bytes the store may take on disk; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// Bytes that must stay free on the data directory's file system.
    pub disk_reserve_bytes: u64,
    /// How many partitions a new cluster gets; `None` was not said, and is [`PARTITIONS_DEFAULT`].
    pub partitions: Option<u32>,
    /// The placement rules of a new cluster; `None` was not said, and is none.
    pub rules: Option<Rules>,
    /// Memory for the store's cache.
    pub cache_bytes: u64,
    /// Between progress notifications.
    pub watch_progress_interval: Duration,
    /// TLS for clients; `None` is plain TCP.
    pub client_tls: Option<ClientTls>,
    /// TLS between nodes; `None` is plain TCP.
    pub peer_tls: Option<PeerTls>,
    /// How logs look.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
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
            grace_period,
            moves_max,
            cluster_token,
            heartbeat_interval,
            election_timeout,
            lease_read,
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

    /// The settings in force, checked.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let senseless = |flag, problem: String| Err(ConfigError::Senseless { flag, problem });
        let (client_tls, peer_tls) = (client_tls(&self)?, peer_tls(&self)?);
        let name = self.name.unwrap_or_else(|| "default".into());
        if name.is_empty() || name.contains(['=', ',', '/']) {
            return senseless("name", format!("«{name}» is empty or has one of = , / in it"));
        }
        let (clients, peers) =
            (Port::new(client_tls.is_some(), "cert-file"), Port::new(peer_tls.is_some(), "peer-cert-file"));
        let members = match &self.initial_cluster {
            None => {
                let (flag, address) = match (&self.advertise_peer, &self.listen_peer) {
                    (Some(address), _) => ("advertise-peer", address.as_str()),
                    (None, Some(address)) => ("listen-peer", address.as_str()),
                    (None, None) => ("listen-peer", "127.0.0.1:2380"),
                };
                BTreeMap::from([(name.clone(), peers.plain_address(flag, address)?)])
            }
            Some(text) => parse_members(text, &peers)?,
        };
        let Some(own_address) = members.get(&name) else {
            let known: Vec<&str> = members.keys().map(String::as_str).collect();
            let problem = format!("has {}, but not this node's --name «{name}»", known.join(", "));
            return senseless("initial-cluster", problem);
        };
        if let (Some(_), Some(address)) = (&self.initial_cluster, &self.advertise_peer)
            && peers.plain_address("advertise-peer", address)? != *own_address
        {
            let problem =
                format!("is {address}, but --initial-cluster says {own_address}: leave one of them out");
            return senseless("advertise-peer", problem);
        }
        let listen_peer = match &self.listen_peer {
            Some(address) => peers.plain_address("listen-peer", address)?,
            None => own_address.clone(),
        };
        let listen_client = clients
            .plain_address("listen-client", self.listen_client.as_deref().unwrap_or("127.0.0.1:2379"))?;
        let advertise_client = match &self.advertise_client {
            Some(address) => clients.plain_address("advertise-client", address)?,
            None => listen_client.clone(),
        };
        let mut listen_keyspaces = BTreeMap::new();
        for text in self.listen_keyspace.as_deref().unwrap_or_default() {
            let parts = text.split_once('=').filter(|(name, _)| is_name(name));
            let Some((keyspace, address)) = parts else {
                let problem = format!("«{text}» is not NAME=HOST:PORT with the name of a keyspace");
                return senseless("listen-keyspace", problem);
            };
            if keyspace == "system" {
                return senseless(
                    "listen-keyspace",
                    "keyspace system is the cluster's own and not for clients".into(),
                );
            }
            let address = clients.plain_address("listen-keyspace", address)?;
            if address == listen_client || listen_keyspaces.values().any(|known| *known == address) {
                let problem = format!("{address} is listened on for another keyspace already");
                return senseless("listen-keyspace", problem);
            }
            if listen_keyspaces.insert(keyspace.to_owned(), address).is_some() {
                return senseless("listen-keyspace", format!("{keyspace} is there twice"));
            }
        }
        let heartbeat = self.heartbeat_interval.unwrap_or(100);
        let election = self.election_timeout.unwrap_or(500);
        if heartbeat < 20 || election < 5 * heartbeat || election > 50_000 {
            let problem = format!(
                "is {election} ms with heartbeats every {heartbeat} ms; it must be at least five heartbeats, \
                 a heartbeat at least 20 ms, and it at most 50000 ms"
            );
            return senseless("election-timeout", problem);
        }
        let request_bytes_max = self.max_request_bytes.unwrap_or(1_572_864);
        if !(1024..=64 << 20).contains(&request_bytes_max) {
            return senseless("max-request-bytes", "must be between 1024 and 67108864".into());
        }
        let txn_operations_max = self.max_txn_ops.unwrap_or(128);
        if txn_operations_max == 0 {
            return senseless("max-txn-ops", "must be at least 1".into());
        }
        if let Some(partitions) = self.partitions
            && !(1..=PARTITIONS_MAX).contains(&partitions)
        {
            return senseless(
                "partitions",
                format!("is {partitions}, but must be between 1 and {PARTITIONS_MAX}"),
            );
        }
        let rules = rules(self.pin.as_deref(), self.spread.as_deref())?;
        let is_founding = self.initial_cluster.is_some();
        let mut join = Vec::new();
        for address in self.join.as_deref().unwrap_or_default() {
            // Whether they speak TLS is for them to say: a scheme is kept.
            let plain = address.trim().trim_start_matches("https://").trim_start_matches("http://");
            Port::new(false, "join").plain_address("join", plain)?;
            join.push(address.trim().trim_end_matches('/').to_owned());
        }
        if is_founding && !join.is_empty() {
            let problem = "joins a cluster that is there, and --initial-cluster begins a new one: leave one of them out";
            return senseless("join", problem.into());
        }
        if !join.is_empty() && is_any_address(own_address) {
            let problem = format!(
                "{own_address} stands for all addresses of this host: say one that other nodes can reach"
            );
            return senseless("advertise-peer", problem);
        }
        let zone = self.zone.unwrap_or_default();
        if zone.len() > TEXT_BYTES_MAX || zone.chars().any(char::is_control) {
            return senseless("zone", format!("is a word of {TEXT_BYTES_MAX} bytes at most"));
        }
        let weight = self.weight.unwrap_or(1);
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return senseless("weight", format!("is {weight}, but must be between 1 and {WEIGHT_MAX}"));
        }
        let replicas = self.replicas.unwrap_or(3);
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return senseless("replicas", format!("is {replicas}, but must be between 1 and {REPLICAS_MAX}"));
        }
        let grace = self.grace_period.unwrap_or(300);
        if !(1..=GRACE_SECONDS_MAX).contains(&grace) || 1000 * grace < 2 * election {
            let problem = format!(
                "is {grace} s; it must be at least two election timeouts, and {GRACE_SECONDS_MAX} s at most"
            );
            return senseless("grace-period", problem);
        }
        let moves_max = self.moves_max.unwrap_or(4);
        if !(1..=PARTITIONS_MAX as usize).contains(&moves_max) {
            return senseless("moves-max", format!("must be between 1 and {PARTITIONS_MAX}"));
        }
        Ok(Config {
            is_founding,
            join,
            zone,
            weight,
            replicas,
            grace_period: Duration::from_secs(grace),
            moves_max,
            partitions: self.partitions,
            rules,
            data_dir: self.data_dir.unwrap_or_else(|| format!("{name}.quorate").into()),
            name,
            listen_client,
            listen_keyspaces,
            advertise_client,
            listen_peer,
            members,
            cluster_token: self.cluster_token.unwrap_or_else(|| "quorate".into()),
            heartbeat_interval: Duration::from_millis(heartbeat),
            election_timeout: Duration::from_millis(election),
            lease_read: self.lease_read.unwrap_or(false),
            request_bytes_max,
            txn_operations_max,
            quota_bytes: Some(self.quota_bytes.unwrap_or(8 << 30)).filter(|bytes| *bytes > 0),
            disk_reserve_bytes: self.disk_reserve_bytes.unwrap_or(128 << 20),
            cache_bytes: self.cache_bytes.unwrap_or(64 << 20),
            watch_progress_interval: Duration::from_secs(self.watch_progress_interval.unwrap_or(600).max(1)),
            client_tls,
            peer_tls,
            log_format: self.log_format.unwrap_or_default(),
            log_level: self.log_level.unwrap_or_else(|| "info,fjall=warn,lsm_tree=warn".into()),
        })
    }
}

impl Config {
    /// The settings as the TOML file that would give them.
    pub fn to_toml(&self) -> String {
        let members: Vec<String> =
            self.members.iter().map(|(name, address)| format!("{name}={address}")).collect();
        let args = ServeArgs {
            config: None,
            print_config: false,
            name: Some(self.name.clone()),
            data_dir: Some(self.data_dir.clone()),
            listen_client: Some(self.listen_client.clone()),
            listen_keyspace: Some(&self.listen_keyspaces)
                .filter(|all| !all.is_empty())
                .map(|all| all.iter().map(|(keyspace, address)| format!("{keyspace}={address}")).collect()),
            advertise_client: Some(self.advertise_client.clone()),
            listen_peer: Some(self.listen_peer.clone()),
            // Of one that joins, or is alone, it is the node's own address that is advertised.
            advertise_peer: self.members.get(&self.name).cloned().filter(|_| !self.is_founding),
            initial_cluster: Some(members.join(",")).filter(|_| self.is_founding),
            join: Some(self.join.clone()).filter(|join| !join.is_empty()),
            zone: Some(self.zone.clone()).filter(|zone| !zone.is_empty()),
            weight: Some(self.weight),
            replicas: Some(self.replicas),
            grace_period: Some(self.grace_period.as_secs()),
            moves_max: Some(self.moves_max),
            cluster_token: Some(self.cluster_token.clone()),
            heartbeat_interval: Some(self.heartbeat_interval.as_millis() as u64),
            election_timeout: Some(self.election_timeout.as_millis() as u64),
            lease_read: Some(self.lease_read),
            max_request_bytes: Some(self.request_bytes_max),
            max_txn_ops: Some(self.txn_operations_max),
            quota_bytes: Some(self.quota_bytes.unwrap_or(0)),
            disk_reserve_bytes: Some(self.disk_reserve_bytes),
            partitions: Some(self.partitions.unwrap_or(PARTITIONS_DEFAULT)),
            pin: self.rules.as_ref().map(pins),
            spread: self.rules.as_ref().map(spreads),
            cache_bytes: Some(self.cache_bytes),
            watch_progress_interval: Some(self.watch_progress_interval.as_secs()),
            cert_file: self.client_tls.as_ref().map(|tls| tls.cert.clone()),
            key_file: self.client_tls.as_ref().map(|tls| tls.key.clone()),
            trusted_ca_file: self.client_tls.as_ref().and_then(|tls| tls.ca.clone()),
            client_cert_auth: self.client_tls.as_ref().map(|tls| tls.ca.is_some()),
            peer_cert_file: self.peer_tls.as_ref().map(|tls| tls.cert.clone()),
            peer_key_file: self.peer_tls.as_ref().map(|tls| tls.key.clone()),
            peer_trusted_ca_file: self.peer_tls.as_ref().map(|tls| tls.ca.clone()),
            log_format: Some(self.log_format),
            log_level: Some(self.log_level.clone()),
        };
        toml::to_string(&args).unwrap_or_else(|error| format!("# cannot be written as TOML: {error}\n"))
    }

    /// The cluster's id: drawn from the members' names and addresses and the token, so that every node finds
    /// the same one by itself.
    pub fn cluster_id(&self) -> ClusterId {
        let mut text = self.cluster_token.clone();
        for (name, address) in &self.members {
            text.push_str(&format!("\n{name}={address}"));
        }
        ClusterId(hash(&text))
    }

    /// A member's id, likewise.
    pub fn node_id(&self, name: &str) -> NodeId {
        let address = self.members.get(name).map_or("", String::as_str);
        NodeId(hash(&format!("node of {}\n{name}={address}", self.cluster_token)).max(1))
    }
}

fn hash(text: &str) -> u64 {
    // The slot hash would do, but ids and slots should not change together.
    let mut mixed = 0xcbf2_9ce4_8422_2325u64;
    for byte in text.bytes() {
        mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mixed ^ (mixed >> 29)
}

/// Whether it is one to listen on only.
pub(crate) fn is_any_address(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, _)| matches!(host, "0.0.0.0" | "[::]"))
}

/// Whether only this host reaches it.
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback())
}

fn read_file(path: &Path) -> Result<ServeArgs, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|cause| ConfigError::Unreadable { path: shown.clone(), cause })?;
    toml::from_str(&text).map_err(|cause| ConfigError::Malformed { path: shown, cause })
}

fn senseless<T>(flag: &'static str, problem: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Senseless { flag, problem: problem.into() })
}

/// The placement rules that are asked for; `None` when none are, which is not the same as asking for no rules.
pub(crate) fn rules(
    pins: Option<&[String]>,
    spreads: Option<&[String]>,
) -> Result<Option<Rules>, ConfigError> {
    if pins.is_none() && spreads.is_none() {
        return Ok(None);
    }
    let pin = |prefix: &String| Rule::Pin { prefix: Bytes::from(prefix.clone()) };
    let mut rules: Vec<Rule> = pins.unwrap_or_default().iter().map(pin).collect();
    for text in spreads.unwrap_or_default() {
        let parts = text.rsplit_once(':');
        let Some((directory, Ok(bits))) = parts.map(|(directory, bits)| (directory, bits.parse::<u8>()))
        else {
            let problem = format!("«{text}» is not DIRECTORY:BITS, as in jobs/:4");
            return Err(ConfigError::Senseless { flag: "spread", problem });
        };
        rules.push(Rule::Spread { directory: Bytes::from(directory.to_owned()), bits });
    }
    let is_pin = rules.iter().all(|rule| matches!(rule, Rule::Pin { .. }));
    let flag = if is_pin { "pin" } else { "spread" };
    let refused = |error: RuleError| ConfigError::Senseless { flag, problem: error.to_string() };
    Rules::new(rules).map(Some).map_err(refused)
}

/// The pins as --pin says them.
fn pins(rules: &Rules) -> Vec<String> {
    let prefix = |rule: &Rule| match rule {
        Rule::Pin { prefix } => Some(String::from_utf8_lossy(prefix).into_owned()),
        Rule::Spread { .. } => None,
    };
    rules.list().iter().filter_map(prefix).collect()
}

/// The spreads as --spread says them.
fn spreads(rules: &Rules) -> Vec<String> {
    let spread = |rule: &Rule| match rule {
        Rule::Pin { .. } => None,
        Rule::Spread { directory, bits } => Some(format!("{}:{bits}", String::from_utf8_lossy(directory))),
    };
    rules.list().iter().filter_map(spread).collect()
}

fn client_tls(args: &ServeArgs) -> Result<Option<ClientTls>, ConfigError> {
    let (cert, key) = match (&args.cert_file, &args.key_file) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        (Some(_), None) => return senseless("cert-file", "needs --key-file, too"),
        (None, Some(_)) => return senseless("key-file", "needs --cert-file, too"),
        (None, None) if args.trusted_ca_file.is_some() => {
            return senseless("trusted-ca-file", "needs --cert-file and --key-file, too");
        }
        (None, None) if args.client_cert_auth == Some(true) => {
            return senseless("client-cert-auth", "needs --cert-file, --key-file and --trusted-ca-file, too");
        }
        (None, None) => return Ok(None),
    };
    match (args.client_cert_auth, &args.trusted_ca_file) {
        (Some(true), None) => senseless("client-cert-auth", "needs --trusted-ca-file, too"),
        // etcd demands certificates even so; to let everybody in would be worse.
        (Some(false), Some(_)) => senseless(
            "client-cert-auth",
            "is false, but --trusted-ca-file is set, which demands certificates: leave one of them out",
        ),
        (_, ca) => Ok(Some(ClientTls { cert, key, ca: ca.clone() })),
    }
}

fn peer_tls(args: &ServeArgs) -> Result<Option<PeerTls>, ConfigError> {
    match (&args.peer_cert_file, &args.peer_key_file, &args.peer_trusted_ca_file) {
        (Some(cert), Some(key), Some(ca)) => {
            Ok(Some(PeerTls { cert: cert.clone(), key: key.clone(), ca: ca.clone() }))
        }
        (None, None, None) => Ok(None),
        _ => senseless(
            "peer-cert-file",
            "goes with --peer-key-file and --peer-trusted-ca-file, all three or none: nodes verify each other",
        ),
    }
}

/// How addresses of a port may be written.
struct Port {
    is_tls: bool,
    flag: &'static str,
}

impl Port {
    fn new(is_tls: bool, flag: &'static str) -> Self {
        Self { is_tls, flag }
    }

    /// HOST:PORT, also when written as a URL as etcd's flags want it. A scheme that promises something else than
    /// what is served is refused.
    fn plain_address(&self, flag: &'static str, text: &str) -> Result<String, ConfigError> {
        let trimmed = text.trim();
        let (is_tls, plain) = match (trimmed.strip_prefix("http://"), trimmed.strip_prefix("https://")) {
            (Some(plain), _) => (false, plain),
            (_, Some(plain)) => (true, plain),
            (None, None) => (self.is_tls, trimmed),
        };
        let plain = plain.trim_end_matches('/');
        let is_right = plain.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok() && !host.contains('/')
        });
        let problem = if !is_right {
            format!("«{text}» is not HOST:PORT")
        } else if is_tls && !self.is_tls {
            format!("«{text}» says TLS, which needs --{}", self.flag)
        } else if self.is_tls && !is_tls {
            format!("«{text}» says no TLS, but --{} is set: write https://, or HOST:PORT", self.flag)
        } else {
            return Ok(plain.to_owned());
        };
        Err(ConfigError::Senseless { flag, problem })
    }
}

fn parse_members(text: &str, peers: &Port) -> Result<BTreeMap<String, String>, ConfigError> {
    let flag = "initial-cluster";
    let mut members = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, address)) = part.split_once('=') else {
            let problem = format!("«{part}» is not NAME=HOST:PORT");
            return Err(ConfigError::Senseless { flag, problem });
        };
        let address = peers.plain_address(flag, address)?;
        if members.values().any(|other| *other == address) {
            let problem = format!("the address {address} is there twice");
            return Err(ConfigError::Senseless { flag, problem });
        }
        if members.insert(name.to_owned(), address).is_some() {
            let problem = format!("the name «{name}» is there twice");
            return Err(ConfigError::Senseless { flag, problem });
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.toml");
        std::fs::write(&path, "name = \"file\"\nelection-timeout = 900\n").unwrap();
        let args =
            ServeArgs { config: Some(path.clone()), name: Some("flag".into()), ..ServeArgs::default() };
        let config = args.with_file().unwrap().resolve().unwrap();
        assert_eq!((config.name.as_str(), config.election_timeout.as_millis()), ("flag", 900));
        assert_eq!(config.data_dir, PathBuf::from("flag.quorate"));
        let again: ServeArgs = toml::from_str(&config.to_toml()).unwrap();
        assert_eq!(again.resolve().unwrap().to_toml(), config.to_toml());
        std::fs::write(&path, "naem = \"file\"\n").unwrap();
        let args = ServeArgs { config: Some(path), ..ServeArgs::default() };
        assert!(args.with_file().unwrap_err().to_string().contains("naem"));
    }

    #[test]
    fn senseless_settings_are_named() {
        let check = |args: ServeArgs, word: &str| {
            let error = args.resolve().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        let none = ServeArgs::default;
        check(ServeArgs { initial_cluster: Some("a=1.2.3.4:1".into()), ..none() }, "default");
        check(ServeArgs { initial_cluster: Some("default=nowhere".into()), ..none() }, "HOST:PORT");
        check(ServeArgs { initial_cluster: Some("default=h:1,b=h:1".into()), ..none() }, "twice");
        check(ServeArgs { election_timeout: Some(100), ..none() }, "election-timeout");
        check(ServeArgs { listen_client: Some("127.0.0.1".into()), ..none() }, "listen-client");
        let file = || Some(PathBuf::from("file"));
        check(ServeArgs { cert_file: file(), ..none() }, "key-file");
        check(ServeArgs { trusted_ca_file: file(), ..none() }, "cert-file");
        check(ServeArgs { peer_cert_file: file(), peer_key_file: file(), ..none() }, "peer-trusted-ca-file");
        let tls = || ServeArgs { cert_file: file(), key_file: file(), ..none() };
        check(ServeArgs { client_cert_auth: Some(true), ..tls() }, "trusted-ca-file");
        check(ServeArgs { client_cert_auth: Some(false), trusted_ca_file: file(), ..tls() }, "leave one");
        check(ServeArgs { listen_client: Some("https://127.0.0.1:1".into()), ..none() }, "needs --cert-file");
        check(ServeArgs { listen_client: Some("http://127.0.0.1:1".into()), ..tls() }, "no TLS");
        check(ServeArgs { initial_cluster: Some("default=https://h:1".into()), ..none() }, "peer-cert-file");
    }

    #[test]
    fn what_is_said_to_join_comes_back_and_what_contradicts_itself_is_refused() {
        let none = ServeArgs::default;
        let words = |text: &str| Some(vec![text.to_owned()]);
        let args = ServeArgs {
            name: Some("d".into()),
            join: Some(vec!["https://h:1".into(), "i:2".into()]),
            listen_peer: Some("0.0.0.0:2380".into()),
            advertise_peer: Some("10.0.0.4:2380".into()),
            zone: Some("north".into()),
            weight: Some(3),
            grace_period: Some(60),
            ..none()
        };
        let config = args.resolve().unwrap();
        assert_eq!(config.join, ["https://h:1", "i:2"]);
        assert_eq!(
            (config.members["d"].as_str(), config.listen_peer.as_str()),
            ("10.0.0.4:2380", "0.0.0.0:2380")
        );
        let again: ServeArgs = toml::from_str(&config.to_toml()).unwrap();
        assert_eq!(again.resolve().unwrap().to_toml(), config.to_toml());
        let check = |args: ServeArgs, word: &str| {
            let error = args.resolve().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        let cluster = || Some("default=h:1".to_owned());
        check(
            ServeArgs { initial_cluster: cluster(), join: words("h:2"), ..none() },
            "leave one of them out",
        );
        check(
            ServeArgs { initial_cluster: cluster(), advertise_peer: Some("h:2".into()), ..none() },
            "leave one of them out",
        );
        let any = || Some("0.0.0.0:2380".to_owned());
        check(ServeArgs { join: words("h:1"), listen_peer: any(), ..none() }, "--advertise-peer");
        check(ServeArgs { join: words("nowhere"), ..none() }, "--join: «nowhere» is not HOST:PORT");
        check(ServeArgs { weight: Some(0), ..none() }, "between 1 and 1000000");
        check(ServeArgs { zone: Some("z".repeat(256)), ..none() }, "255 bytes");
        check(ServeArgs { replicas: Some(0), ..none() }, "--replicas");
        check(ServeArgs { grace_period: Some(0), ..none() }, "--grace-period");
        check(ServeArgs { moves_max: Some(0), ..none() }, "--moves-max");
    }

    #[test]
    fn addresses_of_this_host_are_known() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"] {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["10.0.0.1:1", "node.localhost.example:1", "[fe80::1]:1", "0.0.0.0:1"] {
            assert!(!is_loopback(address), "{address}");
        }
        assert!(is_any_address("0.0.0.0:1") && is_any_address("[::]:1") && !is_any_address("10.0.0.1:1"));
    }

    #[test]
    fn placement_comes_back_and_what_contradicts_itself_is_refused() {
        let words = |list: &[&str]| Some(list.iter().map(|word| word.to_string()).collect());
        let args = ServeArgs {
            partitions: Some(16),
            pin: words(&["a/b", "c/"]),
            spread: words(&["jobs/:4", "with:colon/:2"]),
            ..ServeArgs::default()
        };
        let config = args.resolve().unwrap();
        let rules = config.rules.clone().unwrap();
        assert_eq!((config.partitions, rules.list().len()), (Some(16), 4));
        let again: ServeArgs = toml::from_str(&config.to_toml()).unwrap();
        let again = again.resolve().unwrap();
        assert_eq!((again.partitions, again.rules.as_ref()), (Some(16), Some(&rules)));
        assert_eq!(again.to_toml(), config.to_toml());
        let check = |args: ServeArgs, word: &str| {
            let error = args.resolve().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        let none = ServeArgs::default;
        check(ServeArgs { partitions: Some(0), ..none() }, "between 1 and 1024");
        check(ServeArgs { partitions: Some(1025), ..none() }, "between 1 and 1024");
        check(ServeArgs { spread: words(&["jobs/"]), ..none() }, "DIRECTORY:BITS");
        check(ServeArgs { spread: words(&["jobs:4"]), ..none() }, "does not end in '/'");
        check(ServeArgs { spread: words(&["jobs/:15"]), ..none() }, "not from 1 to 14");
        check(ServeArgs { pin: words(&[""]), ..none() }, "--pin: a pin of the empty prefix");
        check(ServeArgs { pin: words(&["a"]), spread: words(&["a/b/:1"]), ..none() }, "keeps in one slot");
    }

    #[test]
    fn tls_settings_come_back_and_change_no_ids() {
        let file = |name: &str| Some(PathBuf::from(name));
        let args = ServeArgs {
            initial_cluster: Some("default=https://h:1".into()),
            listen_client: Some("https://h:2".into()),
            listen_keyspace: Some(vec!["shop=https://h:3".into(), "a-1=h:4".into()]),
            cert_file: file("cert"),
            key_file: file("key"),
            trusted_ca_file: file("ca"),
            peer_cert_file: file("peer-cert"),
            peer_key_file: file("peer-key"),
            peer_trusted_ca_file: file("peer-ca"),
            ..ServeArgs::default()
        };
        let config = args.resolve().unwrap();
        let again: ServeArgs = toml::from_str(&config.to_toml()).unwrap();
        let again = again.resolve().unwrap();
        assert_eq!(again.to_toml(), config.to_toml());
        assert_eq!((&again.client_tls, &again.peer_tls), (&config.client_tls, &config.peer_tls));
        assert_eq!(again.listen_keyspaces, config.listen_keyspaces);
        assert_eq!((again.listen_keyspaces["shop"].as_str(), again.listen_keyspaces.len()), ("h:3", 2));
        assert_eq!(again.client_tls.unwrap().ca, file("ca"));
        let plain = ServeArgs { initial_cluster: Some("default=h:1".into()), ..ServeArgs::default() };
        let plain = plain.resolve().unwrap();
        assert_eq!(plain.cluster_id(), config.cluster_id());
        assert_eq!(plain.node_id("default"), config.node_id("default"));
    }

    #[test]
    fn every_node_finds_the_same_ids() {
        let of = |name: &str| {
            let cluster = "a=http://127.0.0.1:1,b=127.0.0.1:2".to_owned();
            let args =
                ServeArgs { name: Some(name.into()), initial_cluster: Some(cluster), ..ServeArgs::default() };
            args.resolve().unwrap()
        };
        let (a, b) = (of("a"), of("b"));
        assert_eq!(a.cluster_id(), b.cluster_id());
        assert_eq!(a.node_id("b"), b.node_id("b"));
        assert_ne!(a.node_id("a"), a.node_id("b"));
    }
}
