//! Which cluster this node belongs to, as whom, and whom it knows before it has read any row of the cluster.
//!
//! A founder finds all of that in its settings, as the other founders do in theirs. A node that joins is told by the cluster, once, and keeps it with its
//! identity: so a directory is either empty or belongs to a node for good, whatever goes wrong in between. What goes wrong
//! after the cluster has put the row and before the directory is written costs a row of a node that never came; joining again
//! takes its place.

use crate::cli::{Target, TargetTls, http_call};
use crate::config::{Config, is_loopback};
use crate::data_dir::{Claimed, DataDir, DataDirError, Owner};
use crate::runtime::hello::PROTOCOL;
use crate::services::nodes::{Joining, Welcome};
use quorate_node::Cluster;
use quorate_types::{ClusterId, Member, NodeId, crash_point};
use serde_json::Value;
use std::time::{Duration, Instant};
use tonic::codegen::http::{Method, StatusCode};
use tracing::{info, warn};

/// How long a node that joins asks a cluster that does not answer.
const JOIN_MAX: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(500);
/// How long a node that has joined already looks whether it is told to join another cluster.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Seconds that one call may take.
const CALL_SECONDS_MAX: u64 = 7;

/// What a node knows of its cluster from the start.
#[derive(Clone, Debug)]
pub struct Belonging {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Who there is, until rows say it.
    pub known: Cluster,
    /// Whether it came later: its id is new, so nobody has ever had a promise of it.
    pub has_joined: bool,
}

/// Why a node does not become part of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody answers.
    #[error(
        "--join: the cluster cannot be asked: {0}; is it running, and is that a client address of one of its nodes?"
    )]
    Unreachable(String),
    /// It says no.
    #[error("--join: {endpoint} refuses: {why}")]
    Refused {
        /// Who says so.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// The certificates, or what is to be trusted, cannot be used.
    #[error("--join: {0}")]
    Senseless(String),
    /// The answer is not one.
    #[error("--join: the answer of {endpoint} makes no sense: {why}")]
    Malformed {
        /// Whose.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// The directory belongs to a founder.
    #[error(
        "{path} belongs to {owner}, which is one that its cluster began with: start it with the --initial-cluster that it was made with; \
         --join is for an empty --data-dir"
    )]
    Founder {
        /// The directory.
        path: String,
        /// Whose it is.
        owner: Owner,
    },
    /// The directory has joined, and is told to begin a cluster.
    #[error(
        "{path} belongs to {owner}, which has joined its cluster: leave --initial-cluster out, or give another --data-dir"
    )]
    HasJoined {
        /// The directory.
        path: String,
        /// Whose it is.
        owner: Owner,
    },
    /// The directory has joined another cluster.
    #[error(
        "{path} belongs to {owner}, but {endpoint} is of cluster {found}: leave --join out, or give another --data-dir"
    )]
    Foreign {
        /// The directory.
        path: String,
        /// Whose it is.
        owner: Owner,
        /// Who was asked.
        endpoint: String,
        /// Which cluster that belongs to.
        found: String,
    },
    /// The directory's node is called otherwise.
    #[error(
        "{path} belongs to node {found}, but this is --name {name}; give that name, or another --data-dir"
    )]
    Named {
        /// The directory.
        path: String,
        /// The name that it joined with.
        found: String,
        /// The name in the settings.
        name: String,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

impl Belonging {
    /// Finds out from directory and settings, and from the cluster if this node is to join one; then the directory is this node's.
    pub async fn settle(config: &Config, tls: &TargetTls) -> Result<(Self, DataDir), JoinError> {
        let claimed = Claimed::take(&config.data_dir)?;
        let path = || config.data_dir.display().to_string();
        let (owner, joined) = match (claimed.owner(), claimed.joined()?) {
            (Some(owner), Some(_)) if config.is_founding => {
                return Err(JoinError::HasJoined { path: path(), owner });
            }
            (Some(owner), None) if !config.join.is_empty() => {
                return Err(JoinError::Founder { path: path(), owner });
            }
            (Some(owner), Some(joined)) => {
                let own = joined.members.iter().find(|member| member.id == owner.node);
                if let Some(found) = own.map(|own| own.name.clone()).filter(|name| *name != config.name) {
                    return Err(JoinError::Named { path: path(), found, name: config.name.clone() });
                }
                if let Some((endpoint, found)) = other_cluster(config, tls, owner.cluster).await {
                    return Err(JoinError::Foreign { path: path(), owner, endpoint, found });
                }
                (owner, Some(joined))
            }
            (None, _) if !config.join.is_empty() => {
                let (owner, joined) = join(config, tls).await?;
                crash_point("join.told");
                info!(cluster = %owner.cluster, node = %owner.node, "has joined");
                (owner, Some(joined))
            }
            (_, None) | (None, Some(_)) => {
                (Owner { cluster: config.cluster_id(), node: config.node_id(&config.name) }, None)
            }
        };
        let data_dir = claimed.open(owner, joined.as_ref())?;
        let Owner { cluster, node } = owner;
        let belonging = match joined {
            Some(known) => Self { cluster, node, known, has_joined: true },
            None => Self::founder(config),
        };
        Ok((belonging, data_dir))
    }

    /// What a node that the cluster begins with knows from its settings.
    fn founder(config: &Config) -> Self {
        // Zones and weights come when there is a row to put them in (`membership.rs`): each founder knows only its own.
        let member = |(name, peer): (&String, &String)| Member::new(config.node_id(name), name, peer);
        let known = Cluster::of_founders(config.members.iter().map(member).collect());
        let (cluster, node) = (config.cluster_id(), config.node_id(&config.name));
        Self { cluster, node, known, has_joined: false }
    }
}

/// A way to the client ports of the cluster to join. Where nothing else is said, who is trusted as a client or a peer is trusted here, too.
fn target(config: &Config, tls: &TargetTls) -> Target {
    let own = match (&config.client_tls, &config.peer_tls) {
        (Some(tls), peer) => {
            let ca = tls.ca.clone().or_else(|| peer.as_ref().map(|peer| peer.ca.clone()));
            Some((ca, &tls.cert, &tls.key))
        }
        (None, Some(tls)) => Some((Some(tls.ca.clone()), &tls.cert, &tls.key)),
        (None, None) => None,
    };
    let tls = match own {
        Some((cacert, cert, key)) if tls.cacert.is_none() => {
            TargetTls { cacert, cert: Some(cert.clone()), key: Some(key.clone()) }
        }
        _ => tls.clone(),
    };
    Target::to(config.join.clone(), CALL_SECONDS_MAX, tls)
}

/// Has the cluster take this node in. Asks one node after the other until one answers.
async fn join(config: &Config, tls: &TargetTls) -> Result<(Owner, Cluster), JoinError> {
    let target = target(config, tls);
    let peer = &config.members[&config.name];
    let plain =
        |endpoint: &String| endpoint.rsplit_once('/').map_or(endpoint.clone(), |(_, plain)| plain.to_owned());
    if is_loopback(peer) && !config.join.iter().any(|endpoint| is_loopback(&plain(endpoint))) {
        return Err(JoinError::Senseless(format!(
            "other nodes would look for this one at {peer}, which is only reached on its own host: say --listen-peer or --advertise-peer"
        )));
    }
    let joining = Joining {
        name: config.name.clone(),
        peer: peer.clone(),
        zone: config.zone.clone(),
        weight: config.weight,
        is_peer_tls: config.peer_tls.is_some(),
        protocol: PROTOCOL,
    };
    let body = serde_json::to_vec(&joining).map_err(|error| JoinError::Senseless(error.to_string()))?;
    let begun = Instant::now();
    let mut told = String::new();
    loop {
        let mut problems = Vec::new();
        for endpoint in &target.endpoints {
            let problem = match call(&target, endpoint, Method::POST, "/nodes/join", body.clone()).await? {
                Ok((status, answer)) if status.is_success() => {
                    let malformed = |why: String| JoinError::Malformed { endpoint: endpoint.clone(), why };
                    let welcome: Welcome =
                        serde_json::from_value(answer).map_err(|error| malformed(error.to_string()))?;
                    return welcome.taken().map_err(|why| malformed(why.to_owned()));
                }
                Ok((status, answer)) => {
                    let why = answer["error"].as_str().map_or_else(|| status.to_string(), str::to_owned);
                    if status != StatusCode::SERVICE_UNAVAILABLE {
                        return Err(JoinError::Refused { endpoint: endpoint.clone(), why });
                    }
                    format!("{endpoint}: {why}")
                }
                Err(problem) => problem,
            };
            problems.push(problem);
        }
        let problem = problems.join(", ");
        if begun.elapsed() >= JOIN_MAX {
            return Err(JoinError::Unreachable(problem));
        }
        if problem != told {
            warn!(problem, "cannot join yet; will keep trying for a while");
            told = problem;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A cluster other than `own` that --join leads to, if any answers in time.
async fn other_cluster(config: &Config, tls: &TargetTls, own: ClusterId) -> Option<(String, String)> {
    let target = target(config, tls);
    let look = async {
        for endpoint in &target.endpoints {
            let answer = call(&target, endpoint, Method::GET, "/nodes/cluster", Vec::new()).await;
            let Ok(Ok((_, answer))) = answer else { continue };
            let Some(found) = answer["cluster"].as_str() else { continue };
            return (found != own.to_string()).then(|| (endpoint.clone(), found.to_owned()));
        }
        None
    };
    tokio::time::timeout(LOOK_MAX, look).await.unwrap_or(None)
}

/// One call of one node. The inner error is one that another node, or a later time, may mend.
async fn call(
    target: &Target,
    endpoint: &str,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Result<(StatusCode, Value), String>, JoinError> {
    use crate::cli::CliError;
    match target.connect_to(endpoint).await {
        Ok(channel) => Ok(http_call(channel, method, path, body)
            .await
            .map_err(|problem| format!("{endpoint}: {problem}"))),
        Err(CliError::Unreachable(problem)) => Ok(Err(problem)),
        Err(other) => Err(JoinError::Senseless(other.to_string())),
    }
}
