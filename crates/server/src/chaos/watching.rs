//! Clients that watch, each over many streams one after the other: a stream that breaks, is silent for long, or has lasted for a while is followed by
//! one at another node, from the revision after the last that was told.

use super::book::Book;
use super::client::{Directory, channel_to};
use super::wire::{ends, event, revision_of};
use quorate_api::pb;
use quorate_api::pb::watch_client::WatchClient;
use quorate_api::pb::watch_request::RequestUnion;
use quorate_checker::Violation;
use quorate_checker::watches::{Told, Watched, revision_of as revision_of_event};
use quorate_consensus::random::Random;
use quorate_types::{KeyRange, Revision};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

const ANSWER_BYTES_MAX: usize = 1 << 30;
/// A stream that is silent for so long is asked for its progress, and left when it is silent for as long again.
const SILENCE_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);
/// A stream lasts no longer.
const STREAM_SECONDS: std::ops::Range<u64> = 5..40;

/// Between two watches that begin late.
const LATE_PAUSE: Duration = Duration::from_secs(4);
/// They begin so many revisions ago at most.
const LATE_REVISIONS: u64 = 500;

/// What is watched, and under which name.
pub(super) fn watches() -> Vec<(&'static str, KeyRange)> {
    vec![
        ("the watch of everything", KeyRange::all()),
        ("the watch of the bank", KeyRange::prefix(super::load::BANK)),
        ("the watch of key/03/", KeyRange::prefix("key/03/")),
    ]
}

/// One stream.
pub(super) struct Stream {
    /// The request side stays open for as long as the stream is read.
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Stream {
    pub(super) async fn open(address: &str, range: &KeyRange, start: Revision) -> Option<Self> {
        let (key, range_end) = ends(range);
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: start.0 as i64,
            progress_notify: true,
            ..Default::default()
        };
        let (requests, received) = mpsc::channel(4);
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(request).ok()?;
        let mut client =
            WatchClient::new(channel_to(address, None).ok()?).max_decoding_message_size(ANSWER_BYTES_MAX);
        let opened = client.watch(ReceiverStream::new(received));
        let responses = tokio::time::timeout(SILENCE_MAX, opened).await.ok()?.ok()?.into_inner();
        Some(Self { requests, responses })
    }

    /// The next response; `None` when there will hardly be one.
    pub(super) async fn next(&mut self) -> Option<pb::WatchResponse> {
        for _ in 0..2 {
            match tokio::time::timeout(SILENCE_MAX, self.responses.message()).await {
                Ok(response) => return response.ok().flatten(),
                Err(_) => {
                    let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    let request = pb::WatchRequest { request_union: Some(progress) };
                    // A stream that takes no requests is silent, too.
                    let _ = self.requests.try_send(request);
                }
            }
        }
        None
    }
}

/// Watches until it has been told of everything up to the revision that `until` comes to name.
pub(super) async fn watch(
    (name, range): (&'static str, KeyRange),
    book: Arc<Book>,
    directory: Arc<Directory>,
    mut random: Random,
    until: tokio::sync::watch::Receiver<Option<Revision>>,
) {
    let start = book.first;
    let at = {
        let mut watched = book.watched.lock();
        watched.push(Watched { name: name.into(), range: range.clone(), start, told: Vec::new() });
        watched.len() - 1
    };
    let note = |told: Told| book.watched.lock()[at].told.push(told);
    let mut next = start;
    loop {
        let nodes = directory.all();
        let Some((node, address)) = nodes.get(random.between(0, nodes.len() as u64) as usize) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let lasts = Duration::from_secs(random.between(STREAM_SECONDS.start, STREAM_SECONDS.end));
        let begun = Instant::now();
        if let Some(mut stream) = Stream::open(address, &book.prefix.range(&range), next).await {
            note(Told::Opened(node.clone()));
            while begun.elapsed() < lasts
                && let Some(response) = stream.next().await
            {
                let told = response
                    .events
                    .into_iter()
                    .filter_map(event)
                    .map(|event| book.prefix.event(event))
                    .collect::<Vec<_>>();
                let oldest = Revision(response.compact_revision.max(0) as u64);
                if response.canceled && book.may_be_compacted(next, oldest) {
                    note(Told::Compacted(oldest));
                    next = oldest;
                } else if response.canceled {
                    let why = format!("{} {}", response.cancel_reason, response.compact_revision);
                    book.wrong(Violation::new(format!("{name} was cancelled by {node}: {why}"), Vec::new()));
                } else if let Some(last) = told.last().map(revision_of_event) {
                    book.told(last);
                    next = next.max(last.next());
                    note(Told::Events(told));
                } else if !response.created {
                    let revision = revision_of(response.header.as_ref());
                    book.told(revision);
                    next = next.max(revision.next());
                    note(Told::Progress(revision));
                }
                if until.borrow().is_some_and(|until| next > until) {
                    return;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Begins at some revision of the past, is told everything from there to what was the newest then, and does so again and again: while what it reads is compacted, at times.
pub(super) async fn late(book: Arc<Book>, directory: Arc<Directory>, mut random: Random) {
    while !book.is_closed() {
        tokio::time::sleep(LATE_PAUSE).await;
        let newest = book.newest();
        let start = Revision(newest.0.saturating_sub(random.between(0, LATE_REVISIONS)).max(book.first.0));
        let nodes = directory.all();
        let Some((node, address)) = nodes.get(random.between(0, nodes.len() as u64) as usize) else {
            continue;
        };
        let range = KeyRange::all();
        let Some(mut stream) = Stream::open(address, &book.prefix.range(&range), start).await else {
            continue;
        };
        let mut told = vec![Told::Opened(node.clone())];
        let name = format!("a watch from revision {start} on");
        let mut next = start;
        while next <= newest
            && let Some(response) = stream.next().await
        {
            let oldest = Revision(response.compact_revision.max(0) as u64);
            if response.canceled {
                if !book.may_be_compacted(next, oldest) {
                    let why = format!("{} {oldest}", response.cancel_reason);
                    book.wrong(Violation::new(format!("{name} was cancelled by {node}: {why}"), Vec::new()));
                }
                break;
            }
            let events = response.events.into_iter().filter_map(event);
            let events: Vec<_> = events.map(|event| book.prefix.event(event)).collect();
            if let Some(last) = events.last().map(revision_of_event) {
                next = last.next();
                told.push(Told::Events(events));
            } else if !response.created {
                let revision = revision_of(response.header.as_ref());
                next = next.max(revision.next());
                told.push(Told::Progress(revision));
            }
        }
        // Of the last revision all was told: a response has whole ones.
        let until = Revision(next.0.saturating_sub(1));
        book.late(Watched { name, range, start, told }, until);
    }
}
