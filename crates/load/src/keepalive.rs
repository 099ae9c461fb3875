//! Lives of leases, prolonged over a stream for each client.

use crate::Failure;
use crate::exchange::Exchange;
use crate::line::Line;
use crate::method;
use crate::random::Random;
use quorate_api::pb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest};
use std::sync::Arc;
use tokio::task::JoinSet;
use tonic::Status;

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
                let mut granted = Vec::new();
                for _ in (granter as u64..count).step_by(GRANTERS) {
                    let grant = LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 };
                    granted.push(line.call(method::LEASE_GRANT, &grant).await?.id);
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
                for id in leases.iter().skip(revoker).step_by(GRANTERS) {
                    line.call(method::LEASE_REVOKE, &LeaseRevokeRequest { id: *id }).await?;
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
    stream: Option<Exchange<LeaseKeepAliveRequest, LeaseKeepAliveResponse>>,
}

impl Keeper {
    pub(crate) fn new(line: Line, leases: Leases, number: usize) -> Self {
        Self { line, leases, random: Random::new(number as u64), stream: None }
    }

    /// Prolongs one.
    pub(crate) async fn keep(&mut self) -> Result<(), Status> {
        let id = self.leases.0[self.random.below(self.leases.0.len() as u64) as usize];
        let request = LeaseKeepAliveRequest { id };
        // After an error the next one begins anew.
        let mut stream = match self.stream.take() {
            Some(mut stream) => {
                stream.send(&request)?;
                stream
            }
            None => self.line.exchange(method::LEASE_KEEP_ALIVE, &request).await?,
        };
        let answer = stream.next().await?.ok_or_else(|| Status::unavailable("the stream has ended"))?;
        if answer.id != id || answer.ttl <= 0 {
            return Err(Status::not_found(format!("lease {id:x} has {} s left", answer.ttl)));
        }
        self.stream = Some(stream);
        Ok(())
    }
}
