//! Keys that are there before anybody asks for them.

use crate::keys::Keys;
use crate::line::Line;
use crate::method;
use crate::random::Random;
use crate::values::value;
use crate::{Failure, calls};
use bytes::Bytes;
use quorate_api::pb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const FILLERS: usize = 16;
/// Puts of a transaction: etcd takes 128 at most.
const PUTS: u64 = 100;
/// About so many keys are looked for, to see whether they are there.
const LOOKED_AT: u64 = 64;
/// Deletions of a call.
const DELETES: u64 = 1_000;
/// And so many bytes: etcd takes requests of 1.5 MiB at most.
const TXN_BYTES_MAX: u64 = 512 << 10;
/// A transaction that no node took for so long ends the filling.
const TRY_FOR: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(50);

/// Puts every key, with values of so many bytes, in transactions of many.
pub async fn fill(lines: &[Line], keys: &Keys, value_bytes: usize) -> Result<(), Failure> {
    let puts = (TXN_BYTES_MAX / (value_bytes as u64 + 64)).clamp(1, PUTS);
    let mut tasks: JoinSet<Result<(), Failure>> = JoinSet::new();
    for filler in 0..FILLERS {
        let (line, keys) = (lines[filler % lines.len()].clone(), keys.clone());
        let mut random = Random::new(filler as u64);
        tasks.spawn(async move {
            for chunk in chunks(&keys, puts).skip(filler).step_by(FILLERS) {
                put_all(&line, &keys, chunk, || value(&mut random, value_bytes)).await?;
            }
            Ok(())
        });
    }
    while let Some(filled) = tasks.join_next().await {
        filled??;
    }
    Ok(())
}

/// The same, unless as many are there and those that are looked at are among them: other loads leave other keys behind.
pub(crate) async fn fill_missing(lines: &[Line], keys: &Keys, value_bytes: usize) -> Result<(), Failure> {
    let mut is_filled = count(&lines[0], keys).await? >= keys.count();
    let step = (keys.count() / LOOKED_AT).max(1) as usize;
    for number in (0..keys.count()).step_by(step).chain([keys.count().saturating_sub(1)]) {
        if !is_filled {
            break;
        }
        let key = keys.one(number).into();
        let one = RangeRequest { key, count_only: true, ..Default::default() };
        is_filled = lines[0].call(method::RANGE, &one).await?.count > 0;
    }
    if is_filled { Ok(()) } else { fill(lines, keys, value_bytes).await }
}

/// How many keys there are under the prefix.
pub async fn count(line: &Line, keys: &Keys) -> Result<u64, Failure> {
    let (from, to) = keys.all();
    let all = RangeRequest { key: from.into(), range_end: to.into(), count_only: true, ..Default::default() };
    Ok(line.call(method::RANGE, &all).await?.count.unsigned_abs())
}

/// Removes everything under the prefix, some keys at a time.
pub async fn clear(lines: &[Line], keys: &Keys) -> Result<(), Failure> {
    for (first, end) in chunks(keys, DELETES) {
        // Up to the last of them, which is of the same directory.
        let mut last = keys.one(first + (end - 1 - first) / keys.directories() * keys.directories());
        last.push(0);
        let key = keys.one(first).into();
        let delete = DeleteRangeRequest { key, range_end: last.into(), ..Default::default() };
        lines[0].call(method::DELETE_RANGE, &delete).await?;
    }
    // What is no numbered key: of locks, and of writers that were watched.
    Ok(calls::remove(&lines[0], keys.prefix().as_bytes()).await?)
}

/// The numbers of all keys, those of one transaction together: they are of one directory.
fn chunks(keys: &Keys, puts: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
    let (count, directories) = (keys.count(), keys.directories());
    let step = puts * directories;
    (0..directories).flat_map(move |directory| {
        (directory..count).step_by(step as usize).map(move |first| (first, (first + step).min(count)))
    })
}

async fn put_all(
    line: &Line,
    keys: &Keys,
    (first, end): (u64, u64),
    mut value: impl FnMut() -> Bytes,
) -> Result<(), Failure> {
    let put = |number| {
        let put = PutRequest { key: keys.one(number).into(), value: value(), ..Default::default() };
        RequestOp { request: Some(request_op::Request::RequestPut(put)) }
    };
    let success = (first..end).step_by(keys.directories() as usize).map(put).collect();
    let txn = TxnRequest { success, ..Default::default() };
    let begun = Instant::now();
    loop {
        match line.call(method::TXN, &txn).await {
            Ok(_) => return Ok(()),
            Err(status) if begun.elapsed() > TRY_FOR => return Err(format!("filling: {status}").into()),
            // Written twice it is the same.
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_every_number_once() {
        for (count, directories) in [(1, 1), (1_000, 1), (1_234, 7)] {
            let keys = Keys::new("k/", count, directories);
            let mut numbers: Vec<u64> = chunks(&keys, 100)
                .flat_map(|(first, end)| (first..end).step_by(directories as usize))
                .collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..count).collect::<Vec<u64>>());
        }
    }
}
