//! Whether a condition of a transaction holds.
//!
//! A missing key counts as version, revisions and lease 0; comparing the *value* of a missing key is false for
//! every result, "not equal" too. Over a range every key must satisfy it; a range without keys is a missing key.

use crate::view::View;
use quorate_types::request::{Compare, CompareResult, CompareTarget};
use quorate_types::{Fault, KeyRange, KeyValue, Revision};
use std::cmp::Ordering;

/// Whether `compare` holds as of `at`.
pub(crate) fn holds<V: View>(view: &V, compare: &Compare, at: Revision) -> Result<bool, Fault> {
    match &compare.range {
        KeyRange::Single(key) => Ok(satisfies(compare, view.get(key, at)?.as_ref())),
        range if range.is_empty() => Ok(satisfies(compare, None)),
        range => {
            let mut pairs = view.pairs(range, at).peekable();
            if pairs.peek().is_none() {
                return Ok(satisfies(compare, None));
            }
            for pair in pairs {
                if !satisfies(compare, Some(&pair?)) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

fn satisfies(compare: &Compare, pair: Option<&KeyValue>) -> bool {
    let number = |stored: fn(&KeyValue) -> i64| pair.map_or(0, stored);
    let order = match &compare.target {
        CompareTarget::Version(given) => number(|pair| pair.version as i64).cmp(given),
        CompareTarget::Create(given) => number(|pair| pair.create.0 as i64).cmp(given),
        CompareTarget::Modified(given) => number(|pair| pair.modified.0 as i64).cmp(given),
        CompareTarget::Lease(given) => number(|pair| pair.lease.map_or(0, |lease| lease.get())).cmp(given),
        CompareTarget::Value(given) => match pair {
            Some(pair) => pair.value.cmp(given),
            None => return false,
        },
    };
    match compare.result {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::NotEqual => order != Ordering::Equal,
    }
}
