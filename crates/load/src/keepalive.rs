//! Lives of leases, prolonged over a stream for each client.

use crate::Failure;
use crate::line::Line;
use crate::random::Random;
use quorate_api::pb::lease_client::LeaseClient;
use quorate_api::pb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// They outlive the run, and end by themselves if that is cut short.
const TTL_SECONDS: i64 = 600;
/// How many are granted or revoked at once.
const GRANTERS: usize = 32;

/// The leases of a run. Not dropping them alone ends them: see [`Leases::revoke`].
#[derive(Clone)]
pub(crate) struct Leases(Arc<Vec<i64>>);

impl Leases {
    pub(crate) async fn grant(lines: &[Line], count: u64) -> Result<Self, Failure> {
        let mut tasks: JoinSet<Result<Vec<i64>, Status>> = JoinSet::new();
        for granter in 0..GRANTERS {
            let line = lines[granter % lines.len()].clone();
            tasks.spawn(async move {
                let mut client = LeaseClient::new(line.channel.clone());
                let mut granted = Vec::new();
                for _ in (granter as u64..count).step_by(GRANTERS) {
                    let grant = LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 };
                    granted.push(client.lease_grant(line.request(grant)).await?.into_inner().id);
                }
                Ok(granted)
            });
        }
        let mut all = Vec::new();
        while let Some(granted) = tasks.join_next().await {
            all.extend(granted??);
        }
        Ok(Self(Arc::new(all)))
    }

    pub(crate) async fn revoke(&self, lines: &[Line]) -> Result<(), Failure> {
        let mut tasks: JoinSet<Result<(), Status>> = JoinSet::new();
        for revoker in 0..GRANTERS {
            let (line, leases) = (lines[revoker % lines.len()].clone(), self.0.clone());
            tasks.spawn(async move {
                let mut client = LeaseClient::new(line.channel.clone());
                for id in leases.iter().skip(revoker).step_by(GRANTERS) {
                    client.lease_revoke(line.request(LeaseRevokeRequest { id: *id })).await?;
                }
                Ok(())
            });
        }
        while let Some(revoked) = tasks.join_next().await {
            revoked??;
        }
        Ok(())
    }
}

/// A client that prolongs them in no order.
pub(crate) struct Keeper {
    line: Line,
    leases: Leases,
    random: Random,
    stream: Option<(mpsc::Sender<LeaseKeepAliveRequest>, Streaming<LeaseKeepAliveResponse>)>,
}

impl Keeper {
    pub(crate) fn new(line: Line, leases: Leases, number: usize) -> Self {
        Self { line, leases, random: Random::new(number as u64), stream: None }
    }

    /// Prolongs one.
    pub(crate) async fn keep(&mut self) -> Result<(), Status> {
        let id = self.leases.0[self.random.below(self.leases.0.len() as u64) as usize];
        // After an error the next one begins anew.
        let (requests, mut answers) = match self.stream.take() {
            Some((requests, answers)) => {
                send(&requests, id).await?;
                (requests, answers)
            }
            None => {
                let (requests, stream) = mpsc::channel(1);
                // The first goes with the call: a server may answer nothing before it has one.
                send(&requests, id).await?;
                let mut client = LeaseClient::new(self.line.channel.clone());
                let call = self.line.request(ReceiverStream::new(stream));
                (requests, client.lease_keep_alive(call).await?.into_inner())
            }
        };
        let answer = answers.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))?;
        if answer.id != id || answer.ttl <= 0 {
            return Err(Status::not_found(format!("lease {id:x} has {} s left", answer.ttl)));
        }
        self.stream = Some((requests, answers));
        Ok(())
    }
}

async fn send(requests: &mpsc::Sender<LeaseKeepAliveRequest>, id: i64) -> Result<(), Status> {
    let sent = requests.send(LeaseKeepAliveRequest { id }).await;
    sent.map_err(|_| Status::unavailable("the stream has ended"))
}
