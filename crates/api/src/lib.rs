//! etcd's wire format to and from our types; the only place where etcd's protobuf is named.
//!
//! * [`pb`], [`mvccpb`]: generated from `proto/`; names and numbers are etcd's.
//! * [`request`]: what a client sends, checked as etcd checks it before proposing anything.
//! * [`response`]: what a client gets.
//! * [`status`]: every "no", with etcd's code and words.
//! * [`version`]: what we say we are.

/// etcd's services and messages, generated.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod pb {
    tonic::include_proto!("etcdserverpb");
}

/// etcd's pairs and events, generated.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub mod request;
pub mod response;
pub mod status;
pub mod version;
