//! A response on its way to a client. Its events, if a hub of this node has told them, are encoded once for all who are told the same.

use quorate_api::framing::push_with;
use quorate_api::{mvccpb, pb, response};
use quorate_partition::watch::{Events, Told};
use tonic::Status;

/// The response.
#[derive(Default)]
pub(in crate::services) struct Telling {
    /// All but the shared events; it has none of its own if there are any.
    said: pb::WatchResponse,
    shared: Events,
}

impl Telling {
    /// These events, and what is said besides.
    pub(super) fn new(said: pb::WatchResponse, shared: Events) -> Self {
        debug_assert!(said.events.is_empty(), "events go behind everything else");
        Self { said, shared }
    }

    /// What is said besides shared events.
    pub(super) fn said(&self) -> &pb::WatchResponse {
        &self.said
    }

    /// Who says it, and as of when.
    pub(super) fn header(&mut self) -> &mut Option<pb::ResponseHeader> {
        &mut self.said.header
    }

    /// The revisions of the first and the last event, if they are shared.
    pub(super) fn revisions(&self) -> Option<(i64, i64)> {
        let revision = |told: &Told| i64::try_from(told.revision().0).unwrap_or(i64::MAX);
        self.shared.first().map(revision).zip(self.shared.last().map(revision))
    }

    /// All of it.
    pub(in crate::services) fn whole(self) -> pb::WatchResponse {
        let mut whole = self.said;
        whole.events.extend(messages(&self.shared));
        whole
    }

    /// Writes all of it behind gRPC's prefix.
    pub(in crate::services) fn push(&self, frames: &mut Vec<u8>) -> Result<(), Status> {
        let events = match self.shared.is_empty() {
            true => Default::default(),
            false => self.shared.encoded(|told| response::encoded_events(messages(told).collect())),
        };
        push_with(frames, &self.said, &events)
    }
}

impl From<pb::WatchResponse> for Telling {
    fn from(said: pb::WatchResponse) -> Self {
        Self { said, shared: Events::default() }
    }
}

fn messages(told: &[Told]) -> impl Iterator<Item = mvccpb::Event> {
    told.iter().map(|told| response::event(told.event.clone(), told.previous.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use quorate_api::framing::PREFIX_BYTES;
    use quorate_types::{Event, KeyValue, Revision};

    fn events() -> Events {
        let pair = KeyValue {
            key: "k".into(),
            value: "new".into(),
            create: Revision(2),
            modified: Revision(7),
            version: 3,
            lease: None,
        };
        let previous = KeyValue { value: "old".into(), modified: Revision(5), version: 2, ..pair.clone() };
        let delete = Event::Delete { key: "l".into(), modified: Revision(8) };
        Events::from(vec![
            Told { event: Event::Put(pair), previous: Some(previous), sub: 0 },
            Told { event: delete, previous: None, sub: 0 },
        ])
    }

    fn said(watch_id: i64) -> pb::WatchResponse {
        let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 8, raft_term: 4 };
        pb::WatchResponse { header: Some(header), watch_id, fragment: watch_id == 1, ..Default::default() }
    }

    #[test]
    fn every_watch_gets_all_of_it_under_its_own_id() {
        let events = events();
        let whole = Telling::new(said(1), events.clone()).whole();
        assert_eq!(whole.events.len(), 2);
        let mut frames = Vec::new();
        for id in [0, 1, 3] {
            Telling::new(said(id), events.clone()).push(&mut frames).unwrap();
        }
        let mut rest = &frames[..];
        for id in [0, 1, 3] {
            let ([0, length @ ..], behind) = rest.split_first_chunk::<PREFIX_BYTES>().unwrap() else {
                panic!("it is not compressed")
            };
            let (message, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
            let expected = pb::WatchResponse { events: whole.events.clone(), ..said(id) };
            assert_eq!(pb::WatchResponse::decode(message).unwrap(), expected);
            assert_eq!(message, expected.encode_to_vec());
            rest = behind;
        }
        assert!(rest.is_empty(), "{rest:?}");
    }

    #[test]
    fn what_has_no_events_is_what_it_says() {
        let told = Telling::from(said(5));
        assert_eq!((told.revisions(), told.whole()), (None, said(5)));
        assert_eq!(Telling::new(said(5), events()).revisions(), Some((7, 8)));
    }
}
