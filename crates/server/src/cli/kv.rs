//! put, get, del, txn, compact.

use super::{CliError, Target, header_json, prefix_end, shown};
use clap::Args;
use quorate_api::{mvccpb, pb};
use serde_json::{Value, json};

/// Write one key
#[derive(Args, Debug)]
pub struct Put {
    key: String,
    value: String,
    /// The key goes away with this lease (hexadecimal, as `lease grant` prints it)
    #[arg(long, value_parser = super::lease::parse_id)]
    lease: Option<i64>,
    /// Show what was there before
    #[arg(long)]
    prev: bool,
}

/// Read keys
#[derive(Args, Debug)]
pub struct Get {
    /// The key; with --prefix, what keys begin with
    key: String,
    /// Up to but without this key
    end: Option<String>,
    /// All keys that begin with KEY
    #[arg(long, conflicts_with = "end")]
    prefix: bool,
    /// At most so many
    #[arg(long, default_value_t = 0)]
    limit: i64,
    /// As of this revision
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// Leave values out
    #[arg(long)]
    keys_only: bool,
    /// Only count
    #[arg(long)]
    count: bool,
    /// Take what this node has, without asking the leader
    #[arg(long)]
    serializable: bool,
}

/// Remove keys
#[derive(Args, Debug)]
pub struct Del {
    /// The key; with --prefix, what keys begin with
    key: String,
    /// Up to but without this key
    end: Option<String>,
    /// All keys that begin with KEY
    #[arg(long, conflicts_with = "end")]
    prefix: bool,
}

/// Compare, then one of two lists of operations, atomically
#[derive(Args, Debug)]
#[command(
    after_help = "Conditions: FIELD KEY OP VALUE, FIELD one of value, version, create, mod, lease, OP one of = != < >
Operations: put KEY VALUE | get KEY | del KEY
Example: quorate txn --if 'version lock = 0' --then 'put lock me' --else 'get lock'"
)]
pub struct Txn {
    /// A condition; all must hold
    #[arg(long = "if", value_name = "CONDITION")]
    compares: Vec<String>,
    /// What to do when they hold
    #[arg(long = "then", value_name = "OPERATION")]
    success: Vec<String>,
    /// What to do when they do not
    #[arg(long = "else", value_name = "OPERATION")]
    failure: Vec<String>,
}

/// Forget history before a revision
#[derive(Args, Debug)]
pub struct Compact {
    /// The oldest revision that stays readable
    revision: i64,
    /// Return only when the space has been given back
    #[arg(long)]
    physical: bool,
}

fn range_end(key: &str, end: Option<&String>, is_prefix: bool) -> Vec<u8> {
    match end {
        Some(end) => end.clone().into_bytes(),
        None if is_prefix => prefix_end(key.as_bytes()),
        None => Vec::new(),
    }
}

/// A pair as JSON; what is not text is escaped.
pub fn pair_json(pair: &mvccpb::KeyValue) -> Value {
    json!({
        "key": shown(&pair.key),
        "value": shown(&pair.value),
        "create_revision": pair.create_revision,
        "mod_revision": pair.mod_revision,
        "version": pair.version,
        "lease": format!("{:x}", pair.lease),
    })
}

fn show_pairs(pairs: &[mvccpb::KeyValue]) {
    for pair in pairs {
        println!("{}\n{}", shown(&pair.key), shown(&pair.value));
    }
}

impl Put {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        let mut client = pb::kv_client::KvClient::new(target.line().await?);
        let request = pb::PutRequest {
            key: self.key.into(),
            value: self.value.into(),
            lease: self.lease.unwrap_or(0),
            prev_kv: self.prev,
            ..Default::default()
        };
        let response = client.put(request).await?.into_inner();
        if target.is_json() {
            let previous = response.prev_kv.as_ref().map(pair_json);
            println!("{}", json!({"header": header_json(response.header.as_ref()), "prev_kv": previous}));
        } else {
            println!("OK");
            show_pairs(response.prev_kv.as_slice());
        }
        Ok(())
    }
}

impl Get {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        let mut client = pb::kv_client::KvClient::new(target.line().await?);
        let request = pb::RangeRequest {
            range_end: range_end(&self.key, self.end.as_ref(), self.prefix).into(),
            key: if self.key.is_empty() { vec![0].into() } else { self.key.into() },
            limit: self.limit,
            revision: self.rev,
            keys_only: self.keys_only,
            count_only: self.count,
            serializable: self.serializable,
            ..Default::default()
        };
        let response = client.range(request).await?.into_inner();
        if target.is_json() {
            let pairs: Vec<Value> = response.kvs.iter().map(pair_json).collect();
            let header = header_json(response.header.as_ref());
            println!(
                "{}",
                json!({"header": header, "kvs": pairs, "more": response.more, "count": response.count})
            );
        } else if self.count {
            println!("{}", response.count);
        } else if self.keys_only {
            for pair in &response.kvs {
                println!("{}", shown(&pair.key));
            }
        } else {
            show_pairs(&response.kvs);
        }
        Ok(())
    }
}

impl Del {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        let mut client = pb::kv_client::KvClient::new(target.line().await?);
        let range_end = range_end(&self.key, self.end.as_ref(), self.prefix).into();
        let request = pb::DeleteRangeRequest { key: self.key.into(), range_end, prev_kv: false };
        let response = client.delete_range(request).await?.into_inner();
        if target.is_json() {
            println!(
                "{}",
                json!({"header": header_json(response.header.as_ref()), "deleted": response.deleted})
            );
        } else {
            println!("{}", response.deleted);
        }
        Ok(())
    }
}

pub(crate) fn parse_compare(text: &str) -> Result<pb::Compare, CliError> {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    let wrong = |problem: &str| CliError::Usage(format!("--if «{text}»: {problem}; see quorate txn --help"));
    let words: Vec<&str> = text.splitn(4, ' ').collect();
    let [field, key, operator, given] = words[..] else {
        return Err(wrong("it is not FIELD KEY OP VALUE"));
    };
    let number = || given.parse::<i64>().map_err(|_| wrong("its value is not a number"));
    let (target, union) = match field {
        "value" => (CompareTarget::Value, TargetUnion::Value(given.to_owned().into())),
        "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number()?)),
        _ => return Err(wrong("its field is none of value, version, create, mod, lease")),
    };
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(wrong("its operator is none of = != < >")),
    };
    Ok(pb::Compare {
        result: result as i32,
        target: target as i32,
        key: key.to_owned().into(),
        target_union: Some(union),
        range_end: Default::default(),
    })
}

pub(crate) fn parse_operation(text: &str) -> Result<pb::RequestOp, CliError> {
    use pb::request_op::Request;
    let words: Vec<&str> = text.splitn(3, ' ').collect();
    let request = match words[..] {
        ["put", key, value] => Request::RequestPut(pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        }),
        ["get", key] => {
            Request::RequestRange(pb::RangeRequest { key: key.to_owned().into(), ..Default::default() })
        }
        ["del", key] => Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key.to_owned().into(),
            ..Default::default()
        }),
        _ => {
            let problem = format!("«{text}» is none of put KEY VALUE, get KEY, del KEY");
            return Err(CliError::Usage(problem));
        }
    };
    Ok(pb::RequestOp { request: Some(request) })
}

impl Txn {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        use pb::response_op::Response;
        let request = pb::TxnRequest {
            compare: self.compares.iter().map(|text| parse_compare(text)).collect::<Result<_, _>>()?,
            success: self.success.iter().map(|text| parse_operation(text)).collect::<Result<_, _>>()?,
            failure: self.failure.iter().map(|text| parse_operation(text)).collect::<Result<_, _>>()?,
        };
        let mut client = pb::kv_client::KvClient::new(target.line().await?);
        let response = client.txn(request).await?.into_inner();
        let mut shown_json = Vec::new();
        if !target.is_json() {
            println!("{}", if response.succeeded { "SUCCESS" } else { "FAILURE" });
        }
        for operation in response.responses {
            match operation.response {
                Some(Response::ResponseRange(range)) => {
                    shown_json.push(json!({"kvs": range.kvs.iter().map(pair_json).collect::<Vec<_>>()}));
                    if !target.is_json() {
                        show_pairs(&range.kvs);
                    }
                }
                Some(Response::ResponseDeleteRange(delete)) => {
                    shown_json.push(json!({"deleted": delete.deleted}));
                    if !target.is_json() {
                        println!("{}", delete.deleted);
                    }
                }
                _ => {
                    shown_json.push(json!({"put": true}));
                    if !target.is_json() {
                        println!("OK");
                    }
                }
            }
        }
        if target.is_json() {
            let header = header_json(response.header.as_ref());
            let body = json!({"header": header, "succeeded": response.succeeded, "responses": shown_json});
            println!("{body}");
        }
        Ok(())
    }
}

impl Compact {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        let mut client = pb::kv_client::KvClient::new(target.line().await?);
        let request = pb::CompactionRequest { revision: self.revision, physical: self.physical };
        let response = client.compact(request).await?.into_inner();
        if target.is_json() {
            println!("{}", json!({"header": header_json(response.header.as_ref())}));
        } else {
            println!("compacted revision {}", self.revision);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_operations_are_read() {
        let compare = parse_compare("value a key = x = y").err();
        assert!(compare.is_some(), "a key has no spaces");
        let compare = parse_compare("value k = x = y").unwrap();
        assert_eq!(compare.target_union, Some(pb::compare::TargetUnion::Value("x = y".into())));
        assert!(parse_compare("version k = many").is_err());
        assert!(parse_compare("colour k = 1").is_err());
        assert!(parse_operation("put k a b c").is_ok());
        assert!(parse_operation("get").is_err());
    }
}
