//! The members of the cluster, as clients are told: the rows of the cluster ([`Member`]), and beside each what the node itself says of where
//! clients reach it, `nodes/<id in hex>` → a JSON object.

use crate::belonging::Belonging;
use crate::config::{Config, is_any_address};
use crate::runtime::gateway::Gateway;
use crate::runtime::transport::Peers;
use quorate_node::{ClusterOrder, Which};
use quorate_partition::ReadError;
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    TxnRequest,
};
use quorate_types::{
    Bytes, Decode, GroupId, Key, KeyRange, KeyValue, KeyspaceId, Member, NodeId, Place, Request,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
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
        (Some((_, port)), Some((host, _))) if is_any_address(listen) => {
            format!("{host}:{port}")
        }
        _ => listen.to_owned(),
    }
}

/// A member in JSON: what a node that joins is told, and keeps.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ToldMember {
    /// In hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Where peers reach it.
    pub peer: String,
    /// What fails together with it.
    pub zone: String,
    /// How much it shall hold in proportion to others.
    pub weight: u32,
}

impl From<&Member> for ToldMember {
    fn from(member: &Member) -> Self {
        let Member { id, name, peer, zone, weight, .. } = member.clone();
        Self { id: id.to_string(), name, peer, zone, weight }
    }
}

impl ToldMember {
    /// The member; `None` if it makes no sense.
    pub fn member(self) -> Option<Member> {
        let id = NodeId(u64::from_str_radix(&self.id, 16).ok()?);
        let member = Member { zone: self.zone, weight: self.weight, ..Member::new(id, self.name, self.peer) };
        member.validate().ok().map(|()| member)
    }
}

/// A member, as clients are told of it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its row.
    pub member: Member,
    /// What it says of itself; `None` until it has started once.
    pub record: Option<NodeRecord>,
    /// Whether it has no vote about the cluster's own rows.
    pub is_learner: bool,
}

/// Tells the cluster this node's addresses, and where it is if nobody has said otherwise, until it is told.
pub async fn publish(gateway: Gateway, config: Config, belonging: Arc<Belonging>) {
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
    let node = belonging.node;
    loop {
        match members(&gateway, &belonging, true).await {
            Ok(known) => {
                let own = known.into_iter().find(|listed| listed.member.id == node);
                let is_told = own.as_ref().and_then(|own| own.record.as_ref()) == Some(&record);
                if (is_told || put(&gateway, node, &record).await)
                    && set_place(&gateway, &config, own.map(|own| own.member)).await
                {
                    return;
                }
            }
            Err(error) => debug!(%error, "cannot read the members yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn put(gateway: &Gateway, node: NodeId, record: &NodeRecord) -> bool {
    let value = serde_json::to_vec(record).unwrap_or_default();
    let put =
        PutRequest { key: key(node), value: Some(value.into()), lease: PutLease::Detach, previous: false };
    match gateway.request(KeyspaceId::SYSTEM, Request::Put(put)).await {
        Ok(_) => info!("told the cluster this node's addresses"),
        Err(rejection) => {
            debug!(%rejection, "cannot tell the cluster this node's addresses yet");
            return false;
        }
    }
    true
}

/// A founder's zone and weight are in its own settings only. They count while its row has none.
async fn set_place(gateway: &Gateway, config: &Config, own: Option<Member>) -> bool {
    // Who has been removed has nothing to say.
    let Some(own) = own else { return true };
    let which = || Which::Id(own.id);
    let mut orders = Vec::new();
    if own.zone.is_empty() && !config.zone.is_empty() {
        orders.push(ClusterOrder::SetZone(which(), config.zone.clone()));
    }
    if own.weight == 1 && config.weight != 1 {
        orders.push(ClusterOrder::SetWeight(which(), config.weight));
    }
    for order in orders {
        if let Err(problem) = gateway.order(order).await {
            debug!(%problem, "cannot tell the cluster this node's zone and weight yet");
            return false;
        }
    }
    true
}

/// Throws away what those said of themselves who are members no more. Every node tries, as the one that does it first may be about to stop.
pub async fn forget_the_gone(gateway: Gateway, mut peers: watch::Receiver<Arc<Peers>>) {
    let mut known = peers.borrow_and_update().clone();
    // An error means that the node stops.
    while peers.changed().await.is_ok() {
        let now = peers.borrow_and_update().clone();
        for gone in known.keys().filter(|id| !now.contains_key(id)) {
            let row = KeyRange::Single(Member::row_key(*gone));
            let is_gone =
                Compare { range: row, result: CompareResult::Equal, target: CompareTarget::Version(0) };
            let delete = DeleteRequest { range: KeyRange::Single(key(*gone)), previous: false };
            let txn = TxnRequest {
                compares: vec![is_gone],
                success: vec![Operation::DeleteRange(delete)],
                failure: Vec::new(),
            };
            if let Err(rejection) = gateway.request(KeyspaceId::SYSTEM, Request::Txn(txn)).await {
                debug!(node = %gone, %rejection, "the addresses of a node that is gone stay in the cluster's rows");
            }
        }
        known = now;
    }
}

/// All members, by id. Until the cluster has rows, they are those that this node knows from the start.
pub async fn members(
    gateway: &Gateway,
    belonging: &Belonging,
    is_linearizable: bool,
) -> Result<Vec<Listed>, ReadError> {
    // What is read here after a barrier is no older than it.
    let rows = read(gateway, KeyRange::prefix(Member::rows()), is_linearizable).await?;
    let records = read(gateway, KeyRange::prefix(Bytes::from_static(PREFIX.as_bytes())), false).await?;
    let meta = read(gateway, KeyRange::Single(Place::row_key(GroupId::META)), false).await?;
    let meta = meta.into_iter().next().and_then(|pair| Place::from_bytes(pair.value).ok());
    let rows = rows.into_iter().filter(|pair| Member::parse_row_key(&pair.key).is_some());
    let mut members: Vec<Member> = rows.filter_map(|pair| Member::from_bytes(pair.value).ok()).collect();
    if members.is_empty() {
        members = belonging.known.members.clone();
        members.sort_unstable_by_key(|member| member.id);
    }
    let mut told: BTreeMap<NodeId, NodeRecord> = BTreeMap::new();
    for pair in records {
        if let (Some(id), Ok(record)) = (parse(&pair.key), serde_json::from_slice(&pair.value)) {
            told.insert(id, record);
        }
    }
    let listed = members.into_iter().map(|member| {
        let record = told.remove(&member.id);
        let is_learner = meta.as_ref().is_some_and(|meta| !meta.voters.contains(&member.id));
        Listed { member, record, is_learner }
    });
    Ok(listed.collect())
}

async fn read(gateway: &Gateway, range: KeyRange, is_linearizable: bool) -> Result<Vec<KeyValue>, ReadError> {
    let mut range = RangeRequest::new(range);
    range.serializable = !is_linearizable;
    Ok(gateway.range(KeyspaceId::SYSTEM, range).await?.2.pairs)
}

/// Whose record it is.
fn parse(key: &Key) -> Option<NodeId> {
    let digits = std::str::from_utf8(&key[PREFIX.len()..]).ok()?;
    Some(NodeId(u64::from_str_radix(digits, 16).ok()?))
}
