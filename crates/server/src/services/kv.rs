//! Range, Put, DeleteRange, Txn, Compact.

use super::{Context, unread};
use crate::runtime::connections::stopping;
use prost::Message;
use quorate_api::status::Invalid;
use quorate_api::{pb, request, response};
use quorate_types::{Answer, Request as Ask};
use tonic::{Request, Response, Status};

/// The service.
pub(super) struct Kv(pub(super) Context);

impl Kv {
    /// etcd's bound on what is proposed; reads have none.
    fn check_size(&self, message: &impl Message) -> Result<(), Status> {
        if message.encoded_len() > self.0.config.request_bytes_max {
            return Err(Invalid::TooLarge.into());
        }
        Ok(())
    }
}

/// The leader answered something else than was asked: our own mistake, but not worth a crash.
pub(super) fn mismatch(answer: &Answer) -> Status {
    Status::internal(format!("an answer that does not fit the question: {answer:?}"))
}

#[tonic::async_trait]
impl pb::kv_server::Kv for Kv {
    async fn range(&self, message: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let request = request::range(message.into_inner())?;
        let (revision, term, answer) = self.0.gateway.range(keyspace, request).await.map_err(unread)?;
        Ok(Response::new(response::range(self.0.header(revision, term), answer)))
    }

    async fn put(&self, message: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let message = message.into_inner();
        self.check_size(&message)?;
        let reply = self.0.ask(keyspace, Ask::Put(request::put(message)?)).await?;
        match reply.answer {
            Answer::Put(answer) => {
                Ok(Response::new(response::put(self.0.header(reply.revision, reply.term), answer)))
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn delete_range(
        &self,
        message: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let message = message.into_inner();
        self.check_size(&message)?;
        let reply = self.0.ask(keyspace, Ask::DeleteRange(request::delete_range(message)?)).await?;
        match reply.answer {
            Answer::DeleteRange(answer) => {
                Ok(Response::new(response::delete_range(self.0.header(reply.revision, reply.term), answer)))
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn txn(&self, message: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let message = message.into_inner();
        self.check_size(&message)?;
        let txn = request::txn(message, self.0.config.txn_operations_max)?;
        if txn.is_read_only() {
            let (revision, term, answer) = self.0.gateway.read_txn(keyspace, txn).await.map_err(unread)?;
            return Ok(Response::new(response::txn(self.0.header(revision, term), answer)));
        }
        let reply = self.0.ask(keyspace, Ask::Txn(txn)).await?;
        match reply.answer {
            Answer::Txn(answer) => {
                Ok(Response::new(response::txn(self.0.header(reply.revision, reply.term), answer)))
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn compact(
        &self,
        message: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let pb::CompactionRequest { revision, physical } = message.into_inner();
        let mut stop = self.0.stop.clone();
        let reply = tokio::select! {
            reply = self.0.ask(keyspace, Ask::Compact { revision, physical }) => reply?,
            // Whatever else is asked is answered in the time there is; this may take minutes.
            () = stopping(&mut stop), if physical => return Err(Status::unavailable("etcdserver: server stopped")),
        };
        Ok(Response::new(pb::CompactionResponse { header: self.0.header(reply.revision, reply.term) }))
    }
}
