//! etcd's wire format to and from our types; the only place where etcd's protobuf is named.
//!
//! * [`pb`], [`mvccpb`]: generated from `proto/`; names and numbers are etcd's.
//! * [`part`]: our own, for watches that are put together from several nodes.
//! * [`request`]: what a client sends, checked as etcd checks it before proposing anything.
//! * [`response`]: what a client gets.
//! * [`status`]: every "no", with etcd's code and words.
//! * [`version`]: what we say we are.
//! * [`framing`], [`gathered`]: gRPC's messages in HTTP/2, for those who speak it without a library in between.

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

/// What nodes ask each other about watches, generated.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod part {
    tonic::include_proto!("quorate");
}

// By this name the generated code calls it.
use pb as etcdserverpb;

pub mod framing;
pub mod gathered;
pub mod request;
pub mod response;
pub mod status;
pub mod version;

/// The end of the range of all keys that begin with `prefix`, as etcd's API writes it.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte != 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        None => vec![0],
    }
}
