//! What a client sends, checked as etcd checks it before proposing (server/etcdserver/api/v3rpc/key.go).
//!
//! Two sorts of zero end here: "not set" becomes `None`, and the ways to write a range become [`KeyRange`].

use crate::pb;
use crate::status::Invalid;
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    RevisionFilter, SortOrder, SortTarget, TxnRequest,
};
use quorate_types::{Bytes, KeyRange, LeaseId, Revision, WatchRequest};
use std::collections::BTreeSet;

/// How deep transactions may be nested: each level must have an operation to spare, but a hostile one may
/// hold nothing else than the next.
const NESTING_MAX: usize = 128;

fn is_everything_after(range_end: &[u8]) -> bool {
    range_end == [0]
}

fn key_range(key: Bytes, range_end: Bytes) -> KeyRange {
    if range_end.is_empty() {
        KeyRange::Single(key)
    } else if is_everything_after(&range_end) {
        KeyRange::From(key)
    } else {
        KeyRange::Between(key, range_end)
    }
}

fn revision_bound(raw: i64) -> Option<Revision> {
    // A negative bound is kept as 0, which every pair is above: etcd compares signed numbers.
    (raw != 0).then(|| Revision(raw.max(0) as u64))
}

/// A range.
pub fn range(request: pb::RangeRequest) -> Result<RangeRequest, Invalid> {
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    let sort_order = match pb::range_request::SortOrder::try_from(request.sort_order) {
        Ok(pb::range_request::SortOrder::None) => None,
        Ok(pb::range_request::SortOrder::Ascend) => Some(SortOrder::Ascending),
        Ok(pb::range_request::SortOrder::Descend) => Some(SortOrder::Descending),
        Err(_) => return Err(Invalid::SortOption),
    };
    let sort_target = match pb::range_request::SortTarget::try_from(request.sort_target) {
        Ok(pb::range_request::SortTarget::Key) => SortTarget::Key,
        Ok(pb::range_request::SortTarget::Version) => SortTarget::Version,
        Ok(pb::range_request::SortTarget::Create) => SortTarget::Create,
        Ok(pb::range_request::SortTarget::Mod) => SortTarget::Modified,
        Ok(pb::range_request::SortTarget::Value) => SortTarget::Value,
        Err(_) => return Err(Invalid::SortOption),
    };
    Ok(RangeRequest {
        range: key_range(request.key, request.range_end),
        revision: (request.revision != 0).then_some(request.revision),
        limit: u64::try_from(request.limit).ok().filter(|limit| *limit > 0),
        sort_order,
        sort_target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        filter: RevisionFilter {
            modified_min: revision_bound(request.min_mod_revision),
            modified_max: revision_bound(request.max_mod_revision),
            create_min: revision_bound(request.min_create_revision),
            create_max: revision_bound(request.max_create_revision),
        },
        serializable: request.serializable,
    })
}

/// A put.
pub fn put(request: pb::PutRequest) -> Result<PutRequest, Invalid> {
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Invalid::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Invalid::LeaseProvided);
    }
    let lease = match LeaseId::new(request.lease) {
        _ if request.ignore_lease => PutLease::Keep,
        Some(lease) => PutLease::Attach(lease),
        None => PutLease::Detach,
    };
    Ok(PutRequest {
        key: request.key,
        value: (!request.ignore_value).then_some(request.value),
        lease,
        previous: request.prev_kv,
    })
}

/// A delete.
pub fn delete_range(request: pb::DeleteRangeRequest) -> Result<DeleteRequest, Invalid> {
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    Ok(DeleteRequest { range: key_range(request.key, request.range_end), previous: request.prev_kv })
}

/// A transaction of at most `operations_max` operations in each of its lists; what is nested has what its
/// parents leave.
pub fn txn(request: pb::TxnRequest, operations_max: usize) -> Result<TxnRequest, Invalid> {
    check_txn(&request, operations_max, 0)?;
    check_duplicates(&request.success)?;
    check_duplicates(&request.failure)?;
    convert_txn(request)
}

fn check_txn(request: &pb::TxnRequest, operations_max: usize, depth: usize) -> Result<(), Invalid> {
    let largest = request.compare.len().max(request.success.len()).max(request.failure.len());
    if largest > operations_max || depth > NESTING_MAX {
        return Err(Invalid::TooManyOperations);
    }
    for operation in request.success.iter().chain(&request.failure) {
        if let Some(pb::request_op::Request::RequestTxn(nested)) = &operation.request {
            check_txn(nested, operations_max - largest, depth + 1)?;
        }
    }
    Ok(())
}

/// What a list of operations writes and deletes, nested transactions included.
#[derive(Default)]
struct Touched {
    puts: BTreeSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Touched {
    fn is_deleted(&self, key: &Bytes) -> bool {
        // The end is compared as it was sent: one zero byte is not taken for "everything after", as in etcd.
        self.deletes.iter().any(
            |(start, end)| {
                if end.is_empty() { key == start } else { start <= key && key < end }
            },
        )
    }
}

/// No key may be put twice, or put and deleted, in a list: the order of execution should not matter. As in etcd, the
/// two branches of a nested transaction may put the same key, two sibling transactions may not.
fn check_duplicates(operations: &[pb::RequestOp]) -> Result<Touched, Invalid> {
    use pb::request_op::Request;
    let mut touched = Touched::default();
    for operation in operations {
        if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
            touched.deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for operation in operations {
        let Some(Request::RequestTxn(nested)) = &operation.request else { continue };
        let (success, failure) = (check_duplicates(&nested.success)?, check_duplicates(&nested.failure)?);
        let mut keys = success.puts;
        keys.extend(failure.puts);
        for key in keys {
            if touched.is_deleted(&key) || !touched.puts.insert(key) {
                return Err(Invalid::DuplicateKey);
            }
        }
        touched.deletes.extend(success.deletes);
        touched.deletes.extend(failure.deletes);
    }
    for operation in operations {
        let Some(Request::RequestPut(put)) = &operation.request else { continue };
        if touched.is_deleted(&put.key) || !touched.puts.insert(put.key.clone()) {
            return Err(Invalid::DuplicateKey);
        }
    }
    Ok(touched)
}

fn convert_txn(request: pb::TxnRequest) -> Result<TxnRequest, Invalid> {
    Ok(TxnRequest {
        compares: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: request.success.into_iter().map(operation).collect::<Result<_, _>>()?,
        failure: request.failure.into_iter().map(operation).collect::<Result<_, _>>()?,
    })
}

fn operation(operation: pb::RequestOp) -> Result<Operation, Invalid> {
    use pb::request_op::Request;
    match operation.request {
        Some(Request::RequestRange(request)) => range(request).map(Operation::Range),
        Some(Request::RequestPut(request)) => put(request).map(Operation::Put),
        Some(Request::RequestDeleteRange(request)) => delete_range(request).map(Operation::DeleteRange),
        Some(Request::RequestTxn(request)) => convert_txn(request).map(Operation::Txn),
        None => Err(Invalid::EmptyOperation),
    }
}

fn compare(request: pb::Compare) -> Result<Compare, Invalid> {
    use pb::compare::{CompareResult as Result_, CompareTarget as Target, TargetUnion};
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    let result = match Result_::try_from(request.result) {
        Ok(Result_::Equal) => CompareResult::Equal,
        Ok(Result_::Greater) => CompareResult::Greater,
        Ok(Result_::Less) => CompareResult::Less,
        Ok(Result_::NotEqual) => CompareResult::NotEqual,
        Err(_) => return Err(Invalid::UnknownEnum),
    };
    let given = request.target_union;
    // What is given for another target than the one named counts as not given.
    let target = match Target::try_from(request.target) {
        Ok(Target::Version) => CompareTarget::Version(match given {
            Some(TargetUnion::Version(given)) => given,
            _ => 0,
        }),
        Ok(Target::Create) => CompareTarget::Create(match given {
            Some(TargetUnion::CreateRevision(given)) => given,
            _ => 0,
        }),
        Ok(Target::Mod) => CompareTarget::Modified(match given {
            Some(TargetUnion::ModRevision(given)) => given,
            _ => 0,
        }),
        Ok(Target::Value) => CompareTarget::Value(match given {
            Some(TargetUnion::Value(given)) => given,
            _ => Bytes::new(),
        }),
        Ok(Target::Lease) => CompareTarget::Lease(match given {
            Some(TargetUnion::Lease(given)) => given,
            _ => 0,
        }),
        Err(_) => return Err(Invalid::UnknownEnum),
    };
    Ok(Compare { range: key_range(request.key, request.range_end), result, target })
}

/// A watch. An empty key means the smallest possible one, as in etcd.
pub fn watch(request: pb::WatchCreateRequest) -> WatchRequest {
    let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key };
    let filters = |filter: pb::watch_create_request::FilterType| request.filters.contains(&(filter as i32));
    WatchRequest {
        id: (request.watch_id != 0).then_some(request.watch_id),
        puts: !filters(pb::watch_create_request::FilterType::Noput),
        deletes: !filters(pb::watch_create_request::FilterType::Nodelete),
        range: key_range(key, request.range_end),
        start_revision: (request.start_revision != 0).then_some(request.start_revision),
        previous: request.prev_kv,
        fragment: request.fragment,
        progress: request.progress_notify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::request_op::Request;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn put_of(key: &'static str) -> pb::RequestOp {
        op(Request::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() }))
    }

    fn delete_of(key: &'static str, end: &'static str) -> pb::RequestOp {
        let (key, range_end) = (key.into(), end.into());
        op(Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: false }))
    }

    fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
        op(Request::RequestTxn(pb::TxnRequest { compare: Vec::new(), success, failure }))
    }

    fn check(success: Vec<pb::RequestOp>, expected: Option<Invalid>) {
        let shown = format!("{success:?}");
        let request = pb::TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
        assert_eq!(txn(request, 128).err(), expected, "{shown}");
    }

    #[test]
    fn duplicate_keys_are_found_as_etcd_finds_them() {
        let duplicate = Some(Invalid::DuplicateKey);
        check(vec![put_of("a"), put_of("b")], None);
        check(vec![put_of("a"), put_of("a")], duplicate);
        check(vec![delete_of("a", "c"), put_of("b")], duplicate);
        check(vec![put_of("b"), delete_of("a", "c")], duplicate);
        check(vec![delete_of("a", "c"), delete_of("b", "d")], None);
        check(vec![delete_of("a", "\0"), put_of("b")], None);
        check(vec![nested(vec![put_of("a")], vec![put_of("a")])], None);
        check(vec![nested(vec![put_of("a")], vec![]), nested(vec![], vec![put_of("a")])], duplicate);
        check(vec![put_of("a"), nested(vec![put_of("a")], vec![])], duplicate);
        check(vec![nested(vec![delete_of("a", "c")], vec![]), put_of("b")], duplicate);
    }

    #[test]
    fn operations_are_counted_over_all_levels() {
        let many = |count: usize| (0..count).map(|_| delete_of("a", "")).collect::<Vec<_>>();
        check(many(128), None);
        check(many(129), Some(Invalid::TooManyOperations));
        check(vec![nested(many(127), vec![])], None);
        check(vec![nested(many(128), vec![])], Some(Invalid::TooManyOperations));
        check(vec![pb::RequestOp { request: None }], Some(Invalid::EmptyOperation));
    }

    #[test]
    fn puts_and_ranges_are_checked() {
        let request = pb::PutRequest { key: "k".into(), ..Default::default() };
        let with_value = pb::PutRequest { value: "v".into(), ignore_value: true, ..request.clone() };
        assert_eq!(put(with_value), Err(Invalid::ValueProvided));
        let with_lease = pb::PutRequest { lease: 3, ignore_lease: true, ..request.clone() };
        assert_eq!(put(with_lease), Err(Invalid::LeaseProvided));
        assert_eq!(put(pb::PutRequest::default()), Err(Invalid::EmptyKey));
        assert_eq!(put(request).map(|put| put.lease), Ok(PutLease::Detach));
        let request = pb::RangeRequest { key: "k".into(), sort_order: 9, ..Default::default() };
        assert_eq!(range(request), Err(Invalid::SortOption));
        let request = pb::RangeRequest { key: "k".into(), range_end: "\0".into(), ..Default::default() };
        assert_eq!(range(request).map(|range| range.range), Ok(KeyRange::From("k".into())));
    }
}
