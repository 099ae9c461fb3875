//! A client over the generated stubs: one call to one node, or a call repeated over all nodes until one
//! answers.

use super::{LOOK, PATIENCE};
use quorate_api::pb;
use quorate_api::pb::kv_client::KvClient;
use quorate_api::pb::lease_client::LeaseClient;
use quorate_api::pb::maintenance_client::MaintenanceClient;
use quorate_api::pb::watch_client::WatchClient;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// After this a node counts as one that does not answer, and the next is asked.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// The end of the range of all keys that begin with `prefix`, whose last byte is not 0xff.
pub fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    end
}

pub fn put_of(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

/// How often calls were repeated.
#[derive(Default)]
pub struct Tries {
    /// Tries beyond the first of a call.
    repeated: AtomicU64,
    /// The most that one call took.
    most: AtomicU64,
}

impl Tries {
    fn note(&self, tries: u64) {
        self.repeated.fetch_add(tries - 1, Ordering::Relaxed);
        self.most.fetch_max(tries, Ordering::Relaxed);
    }

    /// How many there were beyond the first of each call, and the most that one call took, since this was last called.
    pub fn take(&self) -> (u64, u64) {
        (self.repeated.swap(0, Ordering::Relaxed), self.most.swap(0, Ordering::Relaxed))
    }
}

/// A client of some nodes; clones are the same client.
#[derive(Clone)]
pub struct Client {
    endpoints: Vec<String>,
    at: Arc<AtomicUsize>,
    tries: Arc<Tries>,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Client {
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, at: Arc::default(), tries: Arc::default(), channels: Arc::default() }
    }

    /// How often its calls were repeated, and those of [`Client::another`]s.
    pub fn tries(&self) -> &Tries {
        &self.tries
    }

    /// The same nodes, with connections of its own, beginning at another one.
    pub fn another(&self, at: usize) -> Self {
        let client = Self { tries: self.tries.clone(), ..Self::new(self.endpoints.clone()) };
        client.at.store(at, Ordering::Relaxed);
        client
    }

    /// A connection to the node whose turn it is. Made when first used, and again after it broke.
    pub fn channel(&self) -> Channel {
        self.channel_with(Some(ANSWER_MAX))
    }

    /// One for streams: an answer may take for ever.
    pub fn patient_channel(&self) -> Channel {
        self.channel_with(None)
    }

    fn channel_with(&self, answer_max: Option<Duration>) -> Channel {
        let endpoint = &self.endpoints[self.at.load(Ordering::Relaxed) % self.endpoints.len()];
        let connect = || {
            let mut to = Endpoint::from_shared(format!("http://{endpoint}")).unwrap();
            to = to.connect_timeout(ANSWER_MAX).tcp_nodelay(true);
            match answer_max {
                Some(answer_max) => to.timeout(answer_max).connect_lazy(),
                None => to.connect_lazy(),
            }
        };
        match answer_max {
            Some(_) => self.channels.lock().unwrap().entry(endpoint.clone()).or_insert_with(connect).clone(),
            None => connect(),
        }
    }

    /// The next call goes to the next node.
    pub fn turn(&self) {
        self.at.fetch_add(1, Ordering::Relaxed);
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel()).max_decoding_message_size(1 << 30)
    }

    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel())
    }

    pub fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.patient_channel()).max_decoding_message_size(1 << 30)
    }

    /// Repeats a call, each time at the next node, until the answer is more than "not now". What is repeated must be
    /// right when it is carried out twice.
    pub async fn insist<R: Clone, T, F>(&self, request: R, call: impl Fn(Self, R) -> F) -> T
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        for tries in 1.. {
            match call(self.clone(), request.clone()).await {
                Ok(answer) => {
                    self.tries.note(tries);
                    return answer.into_inner();
                }
                Err(status) => {
                    assert!(is_passing(&status), "refused: {status:?}");
                    assert!(begun.elapsed() < PATIENCE, "no node takes it: {status:?}");
                }
            }
            self.turn();
            tokio::time::sleep(LOOK).await;
        }
        unreachable!("it is tried until it is answered, or for too long")
    }

    /// A put that is repeated until it is acknowledged; the revision it then has.
    pub async fn put(&self, key: &str, value: &str) -> i64 {
        let answer = self.insist(put_of(key, value), |to, put| async move { to.kv().put(put).await }).await;
        answer.header.unwrap().revision
    }

    pub async fn try_put(&self, key: &str, value: &str) -> Result<i64, Status> {
        Ok(self.kv().put(put_of(key, value)).await?.into_inner().header.unwrap().revision)
    }

    /// A linearizable read of one key.
    pub async fn try_get(&self, key: &str) -> Result<Option<String>, Status> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let answer = self.kv().range(request).await?.into_inner();
        Ok(answer.kvs.first().map(|pair| String::from_utf8_lossy(&pair.value).into_owned()))
    }

    pub async fn get(&self, key: &str) -> Option<String> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let answer = self.insist(request, |to, range| async move { to.kv().range(range).await }).await;
        answer.kvs.first().map(|pair| String::from_utf8_lossy(&pair.value).into_owned())
    }

    /// All keys with a prefix, and the revision they are of.
    pub async fn prefix(&self, prefix: &str) -> (i64, BTreeMap<String, String>) {
        let request = pb::RangeRequest {
            key: prefix.to_owned().into(),
            range_end: prefix_end(prefix).into(),
            ..Default::default()
        };
        let answer = self.insist(request, |to, range| async move { to.kv().range(range).await }).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs = answer.kvs.iter().map(|pair| (text(&pair.key), text(&pair.value))).collect();
        (answer.header.unwrap().revision, pairs)
    }

    pub async fn try_status(&self) -> Result<pb::StatusResponse, Status> {
        Ok(self.maintenance().status(pb::StatusRequest {}).await?.into_inner())
    }

    /// The hash of all history up to a revision, as soon as the node is that far.
    pub async fn hash(&self, revision: i64) -> u32 {
        let hash = super::until("the node has the revision", async || {
            self.maintenance().hash_kv(pb::HashKvRequest { revision }).await.ok()
        });
        hash.await.into_inner().hash
    }
}

/// Whether asking again, perhaps another node, may help.
pub fn is_passing(status: &Status) -> bool {
    // A node that stops ends its connections; a call that was about to begin on one is "internal" to the gRPC library, though no node has said so.
    let is_of_connection = std::error::Error::source(status).is_some();
    is_of_connection
        || matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
        )
}
