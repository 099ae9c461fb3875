//! etcd's Cluster service: members, as etcd's clients know them.
//!
//! What differs from etcd, because the cluster decides by itself who votes:
//!
//! * A member that is added is a learner first, whatever was asked, and its node is started with `--join` instead of `--initial-cluster`, at the address that
//!   was added; it then has the id that was told here.
//! * Promoting one is right and changes nothing.
//! * Removing one moves away what it has before its row goes. The answer waits for that, but not for long; the list shows the member until then.

use super::{Context, KEYSPACE_HEADER, rejected, unread};
use crate::data_dir::draw_node_id;
use crate::membership::{self, Listed};
use crate::runtime::gateway::OrderProblem;
use quorate_api::pb;
use quorate_api::status::MemberProblem;
use quorate_node::{ClusterOrder, OrderRefused, Which};
use quorate_types::member::Standing;
use quorate_types::{Member, NodeId};
use std::time::{Duration, Instant};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// How long the answer to a removal waits until the member is gone.
const REMOVAL_MAX: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// The cluster service.
pub(super) struct Cluster(pub(super) Context);

/// The members as of a moment, and the header to tell them with.
type Told = (Option<pb::ResponseHeader>, Vec<pb::Member>);

impl Cluster {
    async fn told(&self, metadata: &MetadataMap, is_linearizable: bool) -> Result<Told, Status> {
        let keyspace = self.0.keyspace(metadata).await?;
        let mut header = self.0.header_now(keyspace);
        if let Some(header) = &mut header {
            // About no revision of any keyspace, as in etcd.
            header.revision = 0;
        }
        // Clients that follow the members must stay in the keyspace of the port that they came to, unless they name one with every call.
        let port = self.0.keyspace.as_deref().filter(|_| !metadata.contains_key(KEYSPACE_HEADER));
        let members = self.listed(is_linearizable).await?;
        Ok((header, members.into_iter().map(|listed| self.member(listed, port)).collect()))
    }

    async fn listed(&self, is_linearizable: bool) -> Result<Vec<Listed>, Status> {
        membership::members(&self.0.gateway, &self.0.belonging, is_linearizable).await.map_err(unread)
    }

    fn member(&self, listed: Listed, port: Option<&str>) -> pb::Member {
        let Listed { member, record, is_learner } = listed;
        let url = |address: &str, scheme: &str| match address {
            "" => Vec::new(),
            // With TLS a record has the whole URL.
            address if address.contains("://") => vec![address.to_owned()],
            address => vec![format!("{scheme}://{address}")],
        };
        let scheme = if self.0.config.peer_tls.is_some() { "https" } else { "http" };
        let (name, client) = match &record {
            Some(record) => {
                let client = port.map_or(Some(&record.client), |port| record.keyspaces.get(port));
                (record.name.clone(), client.cloned().unwrap_or_default())
            }
            // Not started yet.
            None => (String::new(), String::new()),
        };
        pb::Member {
            id: member.id.0,
            name,
            peer_ur_ls: url(&member.peer, scheme),
            client_ur_ls: url(&client, "http"),
            is_learner,
        }
    }

    /// The one address in etcd's list of URLs.
    fn address(&self, urls: &[String]) -> Result<String, Status> {
        let scheme = if self.0.config.peer_tls.is_some() { "https://" } else { "http://" };
        match urls {
            [url] => {
                let address = url.strip_prefix(scheme).ok_or(MemberProblem::BadAddresses)?;
                Ok(address.trim_end_matches('/').to_owned())
            }
            _ => Err(MemberProblem::BadAddresses.into()),
        }
    }

    async fn order(&self, order: ClusterOrder) -> Result<Option<Member>, Status> {
        self.0.gateway.order(order).await.map(|nodes| nodes.concerned).map_err(refused)
    }

    /// Waits a little until a member is gone.
    async fn is_gone(&self, member: NodeId) -> Result<bool, Status> {
        let begun = Instant::now();
        loop {
            let members = self.listed(true).await?;
            if members.iter().all(|listed| listed.member.id != member) {
                return Ok(true);
            }
            if begun.elapsed() >= REMOVAL_MAX {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn refused(problem: OrderProblem) -> Status {
    let problem = match problem {
        OrderProblem::Rejected(rejection) => return rejected(rejection),
        OrderProblem::Refused(problem) => problem,
    };
    match problem {
        OrderRefused::NotFound(_) => MemberProblem::NotFound.into(),
        OrderRefused::AddressTaken(_) => MemberProblem::AddressTaken.into(),
        OrderRefused::Senseless(_) => MemberProblem::BadAddresses.into(),
        OrderRefused::TooMany => MemberProblem::TooMany.into(),
        OrderRefused::LastActive(_) | OrderRefused::TooFew { .. } => MemberProblem::TooFew.into(),
        OrderRefused::Contended | OrderRefused::NotYet => {
            Status::unavailable(format!("etcdserver: {problem}"))
        }
        problem => Status::failed_precondition(format!("etcdserver: {problem}")),
    }
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for Cluster {
    async fn member_add(
        &self,
        message: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let peer = self.address(&message.get_ref().peer_ur_ls)?;
        let member = Member { standing: Standing::Draining, ..Member::new(draw_node_id(), "", peer) };
        let id = self.order(ClusterOrder::Join(member)).await?.map(|member| member.id.0);
        let (header, members) = self.told(message.metadata(), true).await?;
        let member = members.iter().find(|member| Some(member.id) == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        message: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let id = NodeId(message.get_ref().id);
        // etcd lets clusters shrink below what it was made with.
        self.order(ClusterOrder::Remove { member: Which::Id(id), is_forced: true }).await?;
        if !self.is_gone(id).await? {
            tracing::info!(node = %id, "a node is leaving; what it has is being moved away");
        }
        let (header, mut members) = self.told(message.metadata(), true).await?;
        // Who asks wants to see that the order stands.
        members.retain(|member| member.id != id.0);
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        message: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let peer = self.address(&message.get_ref().peer_ur_ls)?;
        self.order(ClusterOrder::SetPeer(Which::Id(NodeId(message.get_ref().id)), peer)).await?;
        let (header, members) = self.told(message.metadata(), true).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_list(
        &self,
        message: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let (header, members) = self.told(message.metadata(), message.get_ref().linearizable).await?;
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        message: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let id = NodeId(message.get_ref().id);
        let members = self.listed(true).await?;
        let found = members.iter().find(|listed| listed.member.id == id).ok_or(MemberProblem::NotFound)?;
        if !found.is_learner {
            return Err(MemberProblem::NotLearner.into());
        }
        let standing = self.0.gateway.standing().await.map_err(rejected)?;
        if found.record.is_none() || standing.unheard.contains(&id) {
            return Err(MemberProblem::NotReady.into());
        }
        let (header, members) = self.told(message.metadata(), true).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}
