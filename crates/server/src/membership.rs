//! The members of the cluster, as keys of the system keyspace: `nodes/<id in hex>` → a JSON object.

use crate::config::Config;
use crate::runtime::gateway::Gateway;
use quorate_types::request::{PutLease, PutRequest, RangeRequest};
use quorate_types::{Bytes, KeyRange, KeyspaceId, NodeId, Request};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::{debug, info};

const PREFIX: &str = "nodes/";
const RETRY: Duration = Duration::from_millis(500);

/// What the cluster knows of a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct NodeRecord {
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where peers reach it; with TLS as a URL.
    pub peer: String,
    /// Where clients reach it; with TLS as a URL; empty until it has started once.
    pub client: String,
    /// Where clients of single keyspaces reach it, by the keyspace's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keyspaces: BTreeMap<String, String>,
}

fn key(node: NodeId) -> Bytes {
    Bytes::from(format!("{PREFIX}{:016x}", node.0))
}

/// How an address is told to others: plain ones as before there was TLS, so that records need no rewriting.
fn told(address: &str, is_tls: bool) -> String {
    if is_tls { format!("https://{address}") } else { address.to_owned() }
}

/// What clients are told of an address that is listened on: one that stands for all of a host's is not told.
fn advertised(config: &Config, listen: &str) -> String {
    let host_and_port =
        |address: &str| address.rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned()));
    match (host_and_port(listen), host_and_port(&config.advertise_client)) {
        (Some((any, port)), Some((host, _))) if matches!(any.as_str(), "0.0.0.0" | "[::]") => {
            format!("{host}:{port}")
        }
        _ => listen.to_owned(),
    }
}

/// Tells the cluster this node's addresses, until it is told.
pub async fn publish(gateway: Gateway, config: Config) {
    let record = NodeRecord {
        name: config.name.clone(),
        peer: told(&config.members[&config.name], config.peer_tls.is_some()),
        client: told(&config.advertise_client, config.client_tls.is_some()),
        keyspaces: config
            .listen_keyspaces
            .iter()
            .map(|(keyspace, address)| {
                let address = advertised(&config, address);
                (keyspace.clone(), told(&address, config.client_tls.is_some()))
            })
            .collect(),
    };
    let node = config.node_id(&config.name);
    loop {
        match members(&gateway, &config, true).await {
            Ok(known) if known.get(&node) == Some(&record) => return,
            Ok(_) => {
                let value = serde_json::to_vec(&record).unwrap_or_default();
                let put = PutRequest {
                    key: key(node),
                    value: Some(value.into()),
                    lease: PutLease::Detach,
                    previous: false,
                };
                match gateway.request(KeyspaceId::SYSTEM, Request::Put(put)).await {
                    Ok(_) => return info!("told the cluster this node's addresses"),
                    Err(rejection) => debug!(%rejection, "cannot tell the cluster this node's addresses yet"),
                }
            }
            Err(error) => debug!(%error, "cannot read the members yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// All members by id; those that have not told their addresses yet are known from the configuration.
pub async fn members(
    gateway: &Gateway,
    config: &Config,
    is_linearizable: bool,
) -> Result<BTreeMap<NodeId, NodeRecord>, quorate_partition::ReadError> {
    let mut members: BTreeMap<NodeId, NodeRecord> = config
        .members
        .iter()
        .map(|(name, address)| {
            let peer = told(address, config.peer_tls.is_some());
            let record =
                NodeRecord { name: String::new(), peer, client: String::new(), keyspaces: BTreeMap::new() };
            (config.node_id(name), record)
        })
        .collect();
    let mut range = RangeRequest::new(KeyRange::prefix(PREFIX));
    range.serializable = !is_linearizable;
    let (_, _, answer) = gateway.range(KeyspaceId::SYSTEM, range).await?;
    for pair in answer.pairs {
        let id = std::str::from_utf8(&pair.key[PREFIX.len()..]).ok();
        let id = id.and_then(|id| u64::from_str_radix(id, 16).ok());
        if let (Some(id), Ok(record)) = (id, serde_json::from_slice(&pair.value)) {
            members.insert(NodeId(id), record);
        }
    }
    Ok(members)
}
