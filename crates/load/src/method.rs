//! The calls of etcd's API that loads are made of.

use http::uri::PathAndQuery;
use quorate_api::pb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use std::marker::PhantomData;

/// A call that takes `Q` and answers `A`, or streams of them.
pub(crate) struct Method<Q, A> {
    pub(crate) path: PathAndQuery,
    _types: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Method<Q, A> {
    const fn new(path: &'static str) -> Self {
        Self { path: PathAndQuery::from_static(path), _types: PhantomData }
    }
}

pub(crate) const RANGE: Method<RangeRequest, RangeResponse> = Method::new("/etcdserverpb.KV/Range");
pub(crate) const PUT: Method<PutRequest, PutResponse> = Method::new("/etcdserverpb.KV/Put");
pub(crate) const DELETE_RANGE: Method<DeleteRangeRequest, DeleteRangeResponse> =
    Method::new("/etcdserverpb.KV/DeleteRange");
pub(crate) const TXN: Method<TxnRequest, TxnResponse> = Method::new("/etcdserverpb.KV/Txn");
pub(crate) const WATCH: Method<WatchRequest, WatchResponse> = Method::new("/etcdserverpb.Watch/Watch");
pub(crate) const LEASE_GRANT: Method<LeaseGrantRequest, LeaseGrantResponse> =
    Method::new("/etcdserverpb.Lease/LeaseGrant");
pub(crate) const LEASE_REVOKE: Method<LeaseRevokeRequest, LeaseRevokeResponse> =
    Method::new("/etcdserverpb.Lease/LeaseRevoke");
pub(crate) const LEASE_KEEP_ALIVE: Method<LeaseKeepAliveRequest, LeaseKeepAliveResponse> =
    Method::new("/etcdserverpb.Lease/LeaseKeepAlive");
