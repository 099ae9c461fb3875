//! One watch.

use super::{History, HistoryError, Told};
use quorate_types::{Changes, Event, Revision, WatchRequest};

/// Names a watch for as long as the process runs; a client may use an id again after a cancel. Ordered
/// by stream, so that sorted matches of a change lie together by stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatchRef {
    /// Where its responses go.
    pub(super) stream: super::StreamId,
    /// Never used twice.
    pub(super) number: u64,
}

/// Where a watch gets its events from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// From what is published, through the stream's queue.
    Synced,
    /// From history, until it reaches what was published last.
    Lagging,
    /// From nowhere: compaction overtook it and the client was told. It keeps its id until the client
    /// cancels it.
    Compacted,
}

/// One watch. `next` and `queued` hold together: every wanted event below `next` has been given to the
/// client; of a synced watch, those from `next` on are in `queued` items of the stream's queue, or have
/// not been published. While nothing is queued, `next` of a synced watch may be far behind: there was
/// nothing for it in between.
#[derive(Debug)]
pub(super) struct Watcher {
    /// On its stream.
    pub(super) id: i64,
    /// As the client asked.
    pub(super) request: WatchRequest,
    /// The first revision wanted, if the client named one.
    pub(super) start: Option<Revision>,
    /// The cursor.
    pub(super) next: Revision,
    /// The client has everything up to here, or wants nothing of it.
    pub(super) reached: Revision,
    /// Items of the stream's queue with events for it.
    pub(super) queued: usize,
    /// Where it gets its events from.
    pub(super) state: State,
    /// Nothing was queued for it since its progress was last due.
    pub(super) is_quiet: bool,
    /// A progress mark for it is in the stream's queue.
    pub(super) is_marked: bool,
}

impl Watcher {
    /// Whether the event's kind was asked for. That the key lies in the range was checked before.
    pub(super) fn admits(&self, event: &Event) -> bool {
        match event {
            Event::Put(_) => self.request.puts,
            Event::Delete { .. } => self.request.deletes,
        }
    }

    /// Whether "you have everything up to `revision`" may be said of it, once what is queued for it up to
    /// there is sent. The client takes that for a place to resume from: so not when it has more already (it would get it
    /// twice), and not before a start that it named.
    pub(super) fn has_reached(&self, revision: Revision) -> bool {
        self.state == State::Synced
            && self.start.is_none_or(|start| start <= revision)
            && self.reached <= revision
    }

    /// The events as the client gets them.
    pub(super) fn told<'a>(
        &self,
        events: impl Iterator<Item = (&'a Changes, usize)>,
        history: &dyn History,
    ) -> Result<Vec<Told>, HistoryError> {
        events
            .map(|(changes, place)| {
                let (event, sub) = (&changes.events[place], changes.sub(place));
                let is_creation = matches!(event, Event::Put(pair) if pair.version == 1);
                let previous = if self.request.previous && !is_creation {
                    history.previous(event.key(), changes.revision)?
                } else {
                    None
                };
                Ok(Told { event: event.clone(), previous, sub })
            })
            .collect()
    }
}
