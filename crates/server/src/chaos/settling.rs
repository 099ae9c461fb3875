//! The end of a run: nothing is under way any more, all is well, and everybody tells the same history.

use super::faults::{Ended, Tormentor};
use super::{Load, client, judge, load};
use quorate_checker::calls::Outcome;
use quorate_checker::{History, Violation};
use quorate_types::request::RangeRequest;
use quorate_types::{Answer, KeyRange, Request, Revision};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);
/// How long the cluster is waited for that has done wrong already.
const PATIENCE_WHEN_WRONG: Duration = Duration::from_secs(15);

/// When all is well: waits until nothing is under way any more, and asks all nodes for the history, which must be the same.
pub(super) async fn settle(
    tormentor: &mut Tormentor,
    mut load: Load,
    violations: &mut Vec<Violation>,
) -> Result<(History, Revision), Ended> {
    if !violations.is_empty() {
        // What can be found out is found out soon, or not at all.
        tormentor.patience = tormentor.patience.min(PATIENCE_WHEN_WRONG);
    }
    tormentor.heal(false)?;
    tormentor.book.close();
    for client in load.clients.drain(..) {
        client.await.map_err(|error| Ended::Ours(format!("a client failed: {error}")))?;
    }
    let begun = Instant::now();
    let leased = || Request::Range(RangeRequest::new(KeyRange::prefix(load::LEASED)));
    loop {
        let outcome = tormentor.client.call(leased()).await;
        let left = match &outcome {
            Outcome::Reply(_, Answer::Range(range)) if range.pairs.is_empty() => break,
            Outcome::Reply(_, Answer::Range(range)) => format!("{:?}", range.pairs),
            other => format!("{other:?}"),
        };
        if begun.elapsed() > tormentor.patience {
            let what =
                format!("all is well, and keys do not go with their leases after {:?}", tormentor.patience);
            violations.push(Violation::new(what, vec![left]));
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    // Everything, at each node; and everybody serves.
    let nodes = tormentor.cluster.members();
    for (name, address) in &nodes {
        let channel = client::channel_to(address, Some(tormentor.patience))?;
        let all = Request::Range(RangeRequest::new(KeyRange::all()));
        tormentor.client.call_at(name.clone(), channel, all).await;
    }
    if violations.is_empty() {
        tormentor.serve().await?;
    }
    let begun = Instant::now();
    let until = loop {
        let end = load::put_of("end".into(), format!("end {}", tormentor.book.unique()));
        match tormentor.client.call(Request::Put(end)).await {
            Outcome::Reply(revision, _) => break revision,
            other if begun.elapsed() > tormentor.patience => {
                let what = format!("the last write is not acknowledged: {other:?}");
                return Err(Ended::Wrong(Violation::new(what, Vec::new())));
            }
            _ => {}
        }
    };
    load.until.send_replace(Some(until));
    for watch in &mut load.watches {
        // One that is not told of everything is found when what it was told is checked.
        let _ = tokio::time::timeout(tormentor.patience, watch).await;
    }
    tormentor.chronicle(until, violations).await?;
    if !tormentor.book.is_guest {
        tormentor.tell_again(violations).await;
    }
    let mut hashes = Vec::new();
    // In another's cluster they are of his keys as well.
    let hashed = if tormentor.book.is_guest { &[][..] } else { &nodes };
    for (name, address) in hashed {
        hashes.extend(judge::hash_of(address, until).await.map(|hash| (name.clone(), hash)));
    }
    if hashes.iter().any(|(_, hash)| *hash != hashes[0].1) {
        violations.push(Violation::new(
            format!("hashes of histories up to revision {until} differ"),
            vec![format!("{hashes:?}")],
        ));
    }
    Ok((std::mem::take(&mut tormentor.chronicle.history), until))
}
