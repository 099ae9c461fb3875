//! Leases.

use super::kv::mismatch;
use super::{Context, leader_missed, rejected, requires_leader};
use crate::runtime::connections::stopping;
use quorate_api::status::Invalid;
use quorate_api::{pb, response};
use quorate_types::{Answer, KeyspaceId, LeaseId, Rejection, Request as Ask};
use std::pin::pin;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Answers to keep-alives that the client has not taken; then it is not listened to.
const KEEP_ALIVE_ANSWERS_MAX: usize = 16;

/// The service.
#[derive(Clone)]
pub(super) struct Lease(pub(super) Context);

impl Lease {
    async fn keep_alive(&self, keyspace: KeyspaceId, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
        let Some(lease) = LeaseId::new(id) else {
            return Ok(pb::LeaseKeepAliveResponse { header: self.0.header_now(keyspace), id, ttl: 0 });
        };
        let reply = self.0.ask(keyspace, Ask::LeaseKeepAlive { lease }).await?;
        match reply.answer {
            // An unknown lease is no error: its time to live is 0.
            Answer::LeaseKeepAlive { ttl_seconds } => Ok(pb::LeaseKeepAliveResponse {
                header: self.0.header(reply.revision, reply.term),
                id,
                ttl: ttl_seconds.map_or(0, |ttl| i64::try_from(ttl).unwrap_or(i64::MAX)),
            }),
            other => Err(mismatch(&other)),
        }
    }
}

/// A lease id nobody is likely to have: from the system's randomness, positive as etcd's are.
fn draw_id() -> i64 {
    use std::hash::{BuildHasher, Hasher};
    let drawn = std::collections::hash_map::RandomState::new().build_hasher().finish();
    ((drawn >> 1) as i64).max(1)
}

#[tonic::async_trait]
impl pb::lease_server::Lease for Lease {
    async fn lease_grant(
        &self,
        message: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let pb::LeaseGrantRequest { ttl, id } = message.into_inner();
        let Some(lease) = LeaseId::new(if id == 0 { draw_id() } else { id }) else {
            return Err(Status::internal("drew a lease id of 0"));
        };
        let reply = self.0.ask(keyspace, Ask::LeaseGrant { lease, ttl_seconds: ttl }).await?;
        match reply.answer {
            Answer::LeaseGrant { lease, ttl_seconds } => Ok(Response::new(pb::LeaseGrantResponse {
                header: self.0.header(reply.revision, reply.term),
                id: lease.get(),
                ttl: i64::try_from(ttl_seconds).unwrap_or(i64::MAX),
                error: String::new(),
            })),
            other => Err(mismatch(&other)),
        }
    }

    async fn lease_revoke(
        &self,
        message: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let lease = LeaseId::new(message.into_inner().id).ok_or(Invalid::LeaseNotFound)?;
        let reply = self.0.ask(keyspace, Ask::LeaseRevoke { lease }).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: self.0.header(reply.revision, reply.term) }))
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        message: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let is_leader_required = requires_leader(message.metadata());
        let mut requests = message.into_inner();
        let (answers, stream) = tokio::sync::mpsc::channel(KEEP_ALIVE_ANSWERS_MAX);
        let service = self.clone();
        let mut stop = self.0.stop.clone();
        tokio::spawn(async move {
            let mut leader_missed = pin!(leader_missed(&service.0, keyspace, is_leader_required));
            loop {
                let request = tokio::select! {
                    request = requests.message() => request,
                    () = stopping(&mut stop) => return,
                    () = &mut leader_missed => {
                        let _ = answers.send(Err(rejected(Rejection::NoLeader))).await;
                        return;
                    }
                };
                // One answer a request, in order; the stream ends with the client's.
                let Ok(Some(request)) = request else { return };
                let answer = tokio::select! {
                    answer = service.keep_alive(keyspace, request.id) => answer,
                    () = &mut leader_missed => Err(rejected(Rejection::NoLeader)),
                };
                let is_over = answer.is_err();
                if answers.send(answer).await.is_err() || is_over {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        message: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let pb::LeaseTimeToLiveRequest { id, keys } = message.into_inner();
        let Some(lease) = LeaseId::new(id) else {
            return Ok(Response::new(response::lease_time(self.0.header_now(keyspace), id, None)));
        };
        let reply = self.0.ask(keyspace, Ask::LeaseTimeToLive { lease, with_keys: keys }).await?;
        match reply.answer {
            Answer::LeaseTimeToLive(time) => {
                let header = self.0.header(reply.revision, reply.term);
                Ok(Response::new(response::lease_time(header, id, time)))
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn lease_leases(
        &self,
        message: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let reply = self.0.ask(keyspace, Ask::Leases).await?;
        match reply.answer {
            Answer::Leases(leases) => Ok(Response::new(pb::LeaseLeasesResponse {
                header: self.0.header(reply.revision, reply.term),
                leases: leases.into_iter().map(|lease| pb::LeaseStatus { id: lease.get() }).collect(),
            })),
            other => Err(mismatch(&other)),
        }
    }
}
