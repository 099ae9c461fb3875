//! What clients and operators send: etcd's requests, JSON over HTTP, files of settings, words of command lines.

use super::{Target, codec, nothing};
use prost::Message;
use quorate::untrusted;
use quorate_api::{pb, request};
use quorate_consensus::random::Random;
use quorate_types::request::{DeleteRequest, PutRequest, RangeRequest, TxnRequest};
use quorate_types::{Bytes, Encode, WatchRequest};

/// Operations in a list, as servers have it if nothing else is said.
const OPERATIONS_MAX: usize = 128;

/// The first byte says which request follows.
pub(super) const ETCD: Target = Target {
    name: "etcd",
    what: "etcd's requests: ranges, puts, deletes, transactions, watches",
    seed: etcd,
    mend: nothing,
    run: |bytes| {
        let Some((which, bytes)) = bytes.split_first() else { return false };
        match which % 5 {
            0 => taken::<pb::RangeRequest, RangeRequest>(bytes, |asked| request::range(asked).ok()),
            1 => taken::<pb::PutRequest, PutRequest>(bytes, |asked| request::put(asked).ok()),
            2 => taken::<pb::DeleteRangeRequest, DeleteRequest>(bytes, |asked| {
                request::delete_range(asked).ok()
            }),
            3 => taken::<pb::TxnRequest, TxnRequest>(bytes, |asked| request::txn(asked, OPERATIONS_MAX).ok()),
            _ => taken::<pb::WatchCreateRequest, WatchRequest>(bytes, |asked| Some(request::watch(asked))),
        }
    },
    gate: 10_000,
};

/// What came, as ours; and as it goes on to other nodes.
fn taken<M, T>(bytes: &[u8], ours: impl Fn(M) -> Option<T>) -> bool
where
    M: Message + Default + PartialEq + std::fmt::Debug,
    T: quorate_types::Decode + Encode + PartialEq + std::fmt::Debug,
{
    let Ok(asked) = M::decode(Bytes::copy_from_slice(bytes)) else { return false };
    assert!(M::decode(&asked.encode_to_vec()[..]).as_ref() == Ok(&asked), "{asked:?}");
    let Some(request) = ours(asked) else { return false };
    codec::round::<T>(&request.encoded()).unwrap_or_else(|| panic!("{request:?} does not decode")) == request
}

fn etcd(random: &mut Random) -> Vec<u8> {
    let which = random.between(0, 5) as u8;
    let message = match which {
        0 => range(random).encode_to_vec(),
        1 => put(random).encode_to_vec(),
        2 => pb::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true }.encode_to_vec(),
        3 => txn(random, 0).encode_to_vec(),
        _ => pb::WatchCreateRequest {
            key: "a".into(),
            start_revision: random.between(0, 9) as i64,
            filters: vec![0, 1],
            watch_id: 3,
            ..Default::default()
        }
        .encode_to_vec(),
    };
    [vec![which], message].concat()
}

fn range(random: &mut Random) -> pb::RangeRequest {
    pb::RangeRequest {
        key: "a".into(),
        range_end: ["", "b", "\0"][random.between(0, 3) as usize].into(),
        limit: random.between(0, 3) as i64,
        revision: random.between(0, 9) as i64,
        sort_order: random.between(0, 3) as i32,
        sort_target: random.between(0, 5) as i32,
        min_mod_revision: random.between(0, 3) as i64,
        ..Default::default()
    }
}

fn put(random: &mut Random) -> pb::PutRequest {
    let (key, value) = (format!("k{}", random.draw() >> 48), "v");
    pb::PutRequest {
        key: key.into(),
        value: value.into(),
        lease: random.between(0, 3) as i64,
        ..Default::default()
    }
}

fn txn(random: &mut Random, depth: usize) -> pb::TxnRequest {
    use pb::compare::TargetUnion;
    use pb::request_op::Request;
    let operations = |random: &mut Random| {
        let operation = |random: &mut Random| match random.between(0, 3) {
            0 => Request::RequestRange(range(random)),
            1 if depth < 4 => Request::RequestTxn(txn(random, depth + 1)),
            _ => Request::RequestPut(put(random)),
        };
        let count = random.between(1, 3);
        (0..count).map(|_| pb::RequestOp { request: Some(operation(random)) }).collect()
    };
    let compare = pb::Compare {
        key: "a".into(),
        result: random.between(0, 4) as i32,
        target: 0,
        target_union: Some(TargetUnion::Version(random.between(0, 3) as i64)),
        ..Default::default()
    };
    pb::TxnRequest { compare: vec![compare], success: operations(random), failure: operations(random) }
}

fn any<'a>(of: &[&'a str], random: &mut Random) -> &'a str {
    of[random.between(0, of.len() as u64) as usize]
}

pub(super) const JSON: Target = Target {
    name: "json",
    what: "bodies of HTTP requests, what nodes answer to them, and rows in JSON",
    seed: |random| any(JSONS, random).as_bytes().to_vec(),
    mend: nothing,
    run: untrusted::json,
    gate: 4_000,
};

const JSONS: &[&str] = &[
    r#"{"name":"orders","partitions":4,"pin":["a/"],"spread":["jobs/:4"],"quota_bytes":1000}"#,
    r#"{"keyspace":"orders","partition":3}"#,
    r#"{"keyspace":"orders","partition":3,"last_term":7,"last_index":90}"#,
    r#"{"name":"n4","peer":"127.0.0.1:2380","zone":"north","weight":2,"is_peer_tls":true,"protocol":5}"#,
    r#"{"drain":{"node":"n1","force":true}}"#,
    r#"{"weight":{"node":"n1","weight":10}}"#,
    r#"{"cluster":"7","node":"4","members":[{"id":"4","name":"n4","peer":"127.0.0.1:1","zone":"","weight":1}],"first_voters":["1","2"]}"#,
    r#"{"id":"4","name":"n4","peer":"127.0.0.1:1","zone":"","weight":1}"#,
    r#"{"node":"n1","last":3,"more":false,"events":[{"n":3,"at":90,"kind":"election","what":"n1 leads {}","groups":[["default",0,4]],"mark":4}]}"#,
    r#"{"node":"n1","revision":9,"members":[{"id":"1","name":"n1","peer":"127.0.0.1:1","zone":"north","weight":1,"standing":"active"},{"id":"2","name":"n2","peer":"127.0.0.1:2","zone":"south","weight":3,"standing":"lost"}],"keyspaces":[{"keyspace":1,"name":"default","partitions":[{"partition":0,"ranges":[[0,8191]],"voters":["1","2"],"target":null,"leader":"1","term":3},{"partition":1,"ranges":[[8192,16383]],"voters":["2"],"target":["1"],"leader":null,"term":0}]}]}"#,
];

pub(super) const SETTINGS: Target = Target {
    name: "settings",
    what: "a file of settings",
    seed: |random| {
        let lines = [
            "name = \"n1\"",
            "data-dir = \"/var/lib/quorate\"",
            "initial-cluster = \"n1=127.0.0.1:2380,n2=127.0.0.1:2381\"",
            "zone = \"north\"",
            "weight = 3",
            "replicas = 3",
            "grace-period = 60",
            "heartbeat-interval = 100",
            "election-timeout = 1000",
            "quota-bytes = 0",
            "pin = [\"a/\"]",
            "spread = [\"jobs/:4\"]",
            "partitions = 16",
            "watch-progress-interval = 60",
            "listen-keyspace = [\"orders=127.0.0.1:9000\"]",
        ];
        // The cluster of the third line has a node of the name in the first.
        let is_in = |at: usize, random: &mut Random| at == 0 || random.between(0, 2) == 0;
        let chosen = lines.iter().enumerate().filter(|(at, _)| is_in(*at, random));
        chosen.flat_map(|(_, line)| [line, "\n"]).collect::<String>().into_bytes()
    },
    mend: nothing,
    run: untrusted::settings,
    gate: 4_000,
};

pub(super) const WORDS: Target = Target {
    name: "words",
    what: "words of command lines: spans, leases, comparisons, operations, changes; a page of metrics",
    seed: |random| any(TEXTS, random).as_bytes().to_vec(),
    mend: nothing,
    run: untrusted::words,
    gate: 10_000,
};

const TEXTS: &[&str] = &[
    "90s",
    "7d",
    "694d8257011c9b0a",
    "value k = x y",
    "version k != 0",
    "mod k > 12",
    "put k v w",
    "get k",
    "del k",
    "add=n10:west:2",
    "remove=n1",
    "weight=n1:3",
    "zone=n1:east",
];
