//! Answering a range, with etcd's order of work.
//!
//! Fetch by key, filter by revisions, sort, cut to the limit, drop values. Three things surprise:
//!
//! * `count` is of all keys of the range: neither limit nor filters touch it. `more` tells only whether
//!   the limit cut something off after filtering.
//! * With no order given and a target other than the key, the limit is applied *before* the sort: one
//!   gets the first `limit + 1` keys by key, sorted, then cut.
//! * Keys without values carry no lease either, unless they were sorted by value.
//!
//! Pairs with equal sort values keep key order here (etcd promises none).

use crate::view::View;
use quorate_types::reply::RangeAnswer;
use quorate_types::request::{RangeRequest, SortOrder, SortTarget};
use quorate_types::{Bytes, Fault, KeyRange, KeyValue, Rejection, Revision};
use std::cmp::Ordering;

/// The revision that a plain range asks for; zero and negative mean now.
pub(crate) fn revision_asked<V: View>(view: &V, asked: Option<i64>) -> Result<Revision, Rejection> {
    let newest = view.revision();
    let Some((asked, at)) = asked.filter(|asked| *asked > 0).map(|asked| (asked, Revision(asked as u64)))
    else {
        return Ok(newest);
    };
    if at > newest {
        return Err(Rejection::FutureRevision { asked, newest });
    }
    match view.compacted() {
        Some(oldest) if at < oldest => Err(Rejection::Compacted { asked, oldest }),
        _ => Ok(at),
    }
}

/// The check of a range within a transaction before anything runs. Stricter than for a plain range: a negative revision
/// is below "nothing compacted", which etcd stores as -1, and so is compacted (-1 itself only once
/// something was).
pub(crate) fn check_in_txn<V: View>(view: &V, asked: Option<i64>) -> Result<(), Rejection> {
    let Some(asked) = asked.filter(|asked| *asked != 0) else { return Ok(()) };
    let newest = view.revision();
    if asked > newest.0 as i64 {
        return Err(Rejection::FutureRevision { asked, newest });
    }
    let oldest = view.compacted();
    if asked < oldest.map_or(-1, |oldest| oldest.0 as i64) {
        return Err(Rejection::Compacted { asked, oldest: oldest.unwrap_or(Revision::FIRST) });
    }
    Ok(())
}

/// The answer as of `at`, which [`revision_asked`] gave.
pub(crate) fn answer<V: View>(view: &V, request: &RangeRequest, at: Revision) -> Result<RangeAnswer, Fault> {
    let mut answer = RangeAnswer::default();
    // A limit beyond what memory can hold is none.
    let limit = request.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    // By key ascending is how pairs come, so then the limit may cut while fetching whoever asked for the order.
    let is_sorted_after_limit =
        request.sort_order.is_none() || is_key_order(request.sort_order, request.sort_target);
    let fetch_max =
        if is_sorted_after_limit && !request.filter.is_set() { limit.saturating_add(1) } else { usize::MAX };
    let drops_values = request.keys_only && request.sort_target != SortTarget::Value;
    let mut take = |mut pair: KeyValue| {
        answer.count += 1;
        if request.count_only || answer.pairs.len() >= fetch_max {
            return;
        }
        if !request.filter.admits(pair.create, pair.modified) {
            return;
        }
        if drops_values {
            pair.value = Bytes::new();
            pair.lease = None;
        }
        answer.pairs.push(pair);
    };
    match &request.range {
        KeyRange::Single(key) => view.get(key, at)?.into_iter().for_each(take),
        range if range.is_empty() => {}
        range => {
            for pair in view.pairs(range, at) {
                take(pair?);
            }
        }
    }
    sort(&mut answer.pairs, request.sort_order, request.sort_target);
    if answer.pairs.len() > limit {
        answer.pairs.truncate(limit);
        answer.more = true;
    }
    if request.keys_only {
        answer.pairs.iter_mut().for_each(|pair| pair.value = Bytes::new());
    }
    Ok(answer)
}

fn is_key_order(order: Option<SortOrder>, target: SortTarget) -> bool {
    target == SortTarget::Key && order != Some(SortOrder::Descending)
}

fn sort(pairs: &mut [KeyValue], order: Option<SortOrder>, target: SortTarget) {
    if is_key_order(order, target) {
        return;
    }
    let by_target = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create.cmp(&b.create),
            SortTarget::Modified => a.modified.cmp(&b.modified),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    match order {
        Some(SortOrder::Descending) => pairs.sort_by(|a, b| by_target(b, a)),
        Some(SortOrder::Ascending) | None => pairs.sort_by(by_target),
    }
}
