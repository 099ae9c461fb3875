//! How a node is told what to be: flags, `QUORATE_*` environment and one TOML file say the same things.
//! A flag wins over the environment, the environment over the file, the file over the default.

mod addresses;
mod args;
mod placement;
mod tls;

pub(crate) use addresses::{is_any_address, is_loopback};
pub use args::{LogFormat, Placement, ServeArgs};
pub(crate) use placement::rules;
pub use tls::{ClientTls, PeerTls};

use crate::runtime::threads::{self, THREADS_MAX};
use addresses::{Port, parse_members};
use placement::{pins, spreads};
use quorate_types::map::{PARTITIONS_MAX, is_name};
use quorate_types::member::{TEXT_BYTES_MAX, WEIGHT_MAX};
use quorate_types::{ClusterId, NodeId, Rules};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How many partitions a new cluster gets that is not told otherwise.
pub const PARTITIONS_DEFAULT: u32 = 8;
/// On how many nodes everything is kept, if there are so many.
pub const REPLICAS_DEFAULT: usize = 3;
/// More replicas make writes slower and nothing safer.
const REPLICAS_MAX: usize = 7;
/// Megabytes a second.
const FILL_RATE_DEFAULT: usize = 200;
const FILL_RATE_MAX: usize = 100_000;
/// Megabytes a second: 700 GB a day.
const SCRUB_RATE_DEFAULT: usize = 8;
/// A year.
const GRACE_SECONDS_MAX: u64 = 365 * 24 * 3600;

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
    /// On how many nodes everything is kept; `None` was not said, and is as many as the cluster began with, but [`REPLICAS_DEFAULT`] at least.
    pub replicas: Option<usize>,
    /// Where partitions are kept when there are more nodes than that.
    pub placement: Placement,
    /// Silence before a node is believed to be lost.
    pub grace_period: Duration,
    /// How many partitions may move at a time.
    pub moves_max: usize,
    /// Megabytes a second that this node sends at most to fill replicas on others.
    pub fill_rate: usize,
    /// Megabytes a second of what is stored that are read in search of damage; 0 is none.
    pub scrub_rate: usize,
    /// Tells clusters with the same addresses apart.
    pub cluster_token: String,
    /// Between a leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// Silence before a leader is taken for dead.
    pub election_timeout: Duration,
    /// Answer reads from the leader's lease.
    pub lease_read: bool,
    /// Threads that serve clients and peers.
    pub threads: usize,
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
    /// The settings in force, checked.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let senseless = |flag, problem: String| Err(ConfigError::Senseless { flag, problem });
        let (client_tls, peer_tls) = (tls::client_tls(&self)?, tls::peer_tls(&self)?);
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
        if heartbeat < 20 || heartbeat > election / 5 || election > 50_000 {
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
        if let Some(replicas) = self.replicas
            && !(1..=REPLICAS_MAX).contains(&replicas)
        {
            return senseless("replicas", format!("is {replicas}, but must be between 1 and {REPLICAS_MAX}"));
        }
        let grace = self.grace_period.unwrap_or(300);
        if !(1..=GRACE_SECONDS_MAX).contains(&grace) || 1000 * grace < 2 * election {
            let problem = format!(
                "is {grace} s; it must be at least two election timeouts, and {GRACE_SECONDS_MAX} s at most"
            );
            return senseless("grace-period", problem);
        }
        let threads = self.threads.unwrap_or_else(threads::usual);
        if !(1..=THREADS_MAX).contains(&threads) {
            return senseless("threads", format!("must be between 1 and {THREADS_MAX}"));
        }
        let moves_max = self.moves_max.unwrap_or(8);
        if !(1..=PARTITIONS_MAX as usize).contains(&moves_max) {
            return senseless("moves-max", format!("must be between 1 and {PARTITIONS_MAX}"));
        }
        let fill_rate = self.fill_rate.unwrap_or(FILL_RATE_DEFAULT);
        if !(1..=FILL_RATE_MAX).contains(&fill_rate) {
            return senseless(
                "fill-rate",
                format!("must be between 1 and {FILL_RATE_MAX} megabytes a second"),
            );
        }
        let scrub_rate = self.scrub_rate.unwrap_or(SCRUB_RATE_DEFAULT);
        if scrub_rate > FILL_RATE_MAX {
            return senseless("scrub-rate", format!("must be at most {FILL_RATE_MAX} megabytes a second"));
        }
        Ok(Config {
            is_founding,
            join,
            zone,
            weight,
            replicas: self.replicas,
            placement: self.placement.unwrap_or_default(),
            grace_period: Duration::from_secs(grace),
            moves_max,
            fill_rate,
            scrub_rate,
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
            threads,
            request_bytes_max,
            txn_operations_max,
            quota_bytes: Some(self.quota_bytes.unwrap_or(8 << 30)).filter(|bytes| *bytes > 0),
            disk_reserve_bytes: self.disk_reserve_bytes.unwrap_or(128 << 20),
            cache_bytes: self.cache_bytes.unwrap_or(64 << 20),
            watch_progress_interval: Duration::from_secs(self.watch_progress_interval.unwrap_or(600).max(1)),
            client_tls,
            peer_tls,
            log_format: self.log_format.unwrap_or_default(),
            log_level: self.log_level.unwrap_or_else(|| "info,lsm_tree=warn".into()),
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
            replicas: self.replicas,
            placement: Some(self.placement),
            grace_period: Some(self.grace_period.as_secs()),
            moves_max: Some(self.moves_max),
            fill_rate: Some(self.fill_rate),
            scrub_rate: Some(self.scrub_rate),
            cluster_token: Some(self.cluster_token.clone()),
            heartbeat_interval: Some(self.heartbeat_interval.as_millis() as u64),
            election_timeout: Some(self.election_timeout.as_millis() as u64),
            lease_read: Some(self.lease_read),
            threads: Some(self.threads),
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

fn senseless<T>(flag: &'static str, problem: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Senseless { flag, problem: problem.into() })
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
        check(ServeArgs { threads: Some(0), ..none() }, "--threads");
        check(ServeArgs { fill_rate: Some(0), ..none() }, "--fill-rate");
        check(ServeArgs { scrub_rate: Some(FILL_RATE_MAX + 1), ..none() }, "--scrub-rate");
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
