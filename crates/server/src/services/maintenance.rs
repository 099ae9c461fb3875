//! Status, hashes, alarms.

use super::{Context, rejected, unread};
use crate::membership;
use crate::runtime::gateway::on_thread;
use quorate_api::{pb, version};
use quorate_mvcc::engine::Engine;
use quorate_partition::ReadError;
use quorate_types::{KeyspaceId, Rejection};
use tonic::{Request, Response, Status};

/// The maintenance service.
pub(super) struct Maintenance(pub(super) Context);

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Maintenance {
    async fn hash_kv_at(
        &self,
        keyspace: KeyspaceId,
        revision: i64,
    ) -> Result<quorate_partition::HashKv, Status> {
        let reader = self.0.gateway.reader(keyspace).map_err(rejected)?;
        let hash = on_thread(move || reader.hash_kv(revision)).await;
        if let Err(ReadError::Fault(fault)) = &hash {
            self.0.gateway.suspect(fault);
        }
        hash.map_err(unread)
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for Maintenance {
    async fn alarm(&self, message: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        // Space that runs out and comes back is noticed by itself; there is nothing to arm or disarm.
        let member_id = self.0.gateway.identity().node.0;
        let alarm = pb::AlarmMember { member_id, alarm: pb::AlarmType::Nospace.into() };
        let standing = self.0.gateway.standing().await.map_err(rejected)?;
        let is_short = self.0.space.is_short() || standing.is_full(keyspace);
        let alarms = if is_short { vec![alarm] } else { Vec::new() };
        Ok(Response::new(pb::AlarmResponse { header: self.0.header_now(keyspace), alarms }))
    }

    async fn status(
        &self,
        message: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let standing = self.0.gateway.standing().await.map_err(rejected)?;
        let Some(summary) = standing.summary(keyspace) else {
            // The cluster is new, or all of this node is: which partitions there are is not known here yet.
            return Err(rejected(Rejection::NoLeader));
        };
        let size = signed(self.0.engine.disk_bytes());
        let quota_bytes = standing.quota_bytes(keyspace).or(self.0.config.quota_bytes);
        let mut errors: Vec<String> = Vec::new();
        if !summary.is_led {
            errors.push("etcdserver: no leader".into());
        }
        if self.0.space.is_short() || standing.is_full(keyspace) {
            errors.push(format!("memberID:{} alarm:NOSPACE ", self.0.gateway.identity().node.0));
        }
        let own = self.0.gateway.identity().node;
        let members = membership::members(&self.0.gateway, &self.0.belonging, false).await.map_err(unread)?;
        let is_learner = members.iter().any(|listed| listed.member.id == own && listed.is_learner);
        Ok(Response::new(pb::StatusResponse {
            header: self.0.header_now(keyspace),
            version: version::ETCD.into(),
            db_size: size,
            leader: summary.leader.map_or(0, |leader| leader.0),
            raft_index: summary.committed,
            raft_term: summary.term.0,
            raft_applied_index: summary.applied,
            errors,
            db_size_in_use: size,
            is_learner,
            storage_version: version::ETCD_CLUSTER.into(),
            db_size_quota: signed(quota_bytes.unwrap_or(0)),
        }))
    }

    async fn defragment(
        &self,
        message: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        // Of no keyspace in particular, but who names one that is not there is mistaken about something.
        self.0.keyspace(message.metadata()).await?;
        // The store gives space back by itself; this only hurries it.
        crate::space::reclaim(self.0.engine.clone()).await;
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, message: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let hash = self.hash_kv_at(keyspace, 0).await?;
        Ok(Response::new(pb::HashResponse { header: self.0.header_now(keyspace), hash: hash.hash }))
    }

    async fn hash_kv(
        &self,
        message: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let hash = self.hash_kv_at(keyspace, message.into_inner().revision).await?;
        Ok(Response::new(pb::HashKvResponse {
            header: self.0.header_now(keyspace),
            hash: hash.hash,
            compact_revision: hash.compacted.map_or(-1, |revision| signed(revision.0)),
            hash_revision: signed(hash.revision.0),
        }))
    }
}
