//! A response on its way to a client. Its events, if a hub of this node has told them, are encoded once for all who are told the same.

use quorate_api::framing::{push, push_with};
use quorate_api::{mvccpb, pb, response};
use quorate_partition::watch::{Events, Told};
use tonic::Status;

/// The response.
pub(in crate::services) enum Telling {
    /// Events of a watch, and no more of the same revisions to come. That is what most are: it is small, to be handed on.
    Events {
        /// The watch's id.
        id: i64,
        /// Who says it, and as of when.
        header: pb::ResponseHeader,
        /// Never empty.
        events: Events,
    },
    /// Anything.
    Said(Box<pb::WatchResponse>),
}

impl Telling {
    /// Who says it, and as of when.
    pub(super) fn header(&self) -> pb::ResponseHeader {
        match self {
            Self::Events { header, .. } => *header,
            Self::Said(said) => said.header.unwrap_or_default(),
        }
    }

    /// The same, but said by somebody else.
    pub(super) fn signed(mut self, by: pb::ResponseHeader) -> Self {
        match &mut self {
            Self::Events { header, .. } => *header = by,
            Self::Said(said) => said.header = Some(by),
        }
        self
    }

    /// All of it.
    pub(in crate::services) fn whole(self) -> pb::WatchResponse {
        match self {
            Self::Events { id, header, events } => {
                pb::WatchResponse { events: messages(&events).collect(), ..bare(id, header) }
            }
            Self::Said(said) => *said,
        }
    }

    /// Writes all of it behind gRPC's prefix.
    pub(in crate::services) fn push(&self, frames: &mut Vec<u8>) -> Result<(), Status> {
        match self {
            Self::Events { id, header, events } => {
                let encode = |told: &[Told]| response::encoded_events(messages(told).collect());
                push_with(frames, &bare(*id, *header), events.encoded(encode))
            }
            Self::Said(said) => push(frames, &**said),
        }
    }
}

impl From<pb::WatchResponse> for Telling {
    fn from(said: pb::WatchResponse) -> Self {
        Self::Said(Box::new(said))
    }
}

/// A response to which its events are added.
fn bare(watch_id: i64, header: pb::ResponseHeader) -> pb::WatchResponse {
    pb::WatchResponse { header: Some(header), watch_id, ..Default::default() }
}

/// The revisions of the first and the last event.
pub(super) fn revisions(events: &[Told]) -> Option<(i64, i64)> {
    let revision = |told: &Told| i64::try_from(told.revision().0).unwrap_or(i64::MAX);
    events.first().map(revision).zip(events.last().map(revision))
}

pub(super) fn messages(told: &[Told]) -> impl Iterator<Item = mvccpb::Event> {
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

    fn header() -> pb::ResponseHeader {
        pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 8, raft_term: 4 }
    }

    #[test]
    fn every_watch_gets_all_of_it_under_its_own_id() {
        let events = events();
        let tell = |id| Telling::Events { id, header: header(), events: events.clone() };
        let whole: Vec<pb::WatchResponse> = [0, 1, 3].map(|id| tell(id).whole()).into();
        assert_eq!(whole[1].events.len(), 2);
        assert_eq!(whole[1].events[0].prev_kv.as_ref().map(|pair| &pair.value[..]), Some(&b"old"[..]));
        let mut frames = Vec::new();
        [0, 1, 3].iter().for_each(|id| tell(*id).push(&mut frames).unwrap());
        let mut rest = &frames[..];
        for expected in whole {
            let ([0, length @ ..], behind) = rest.split_first_chunk::<PREFIX_BYTES>().unwrap() else {
                panic!("it is not compressed")
            };
            let (message, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
            assert_eq!(pb::WatchResponse::decode(message).unwrap(), expected);
            assert_eq!(message, expected.encode_to_vec());
            rest = behind;
        }
        assert!(rest.is_empty(), "{rest:?}");
    }

    #[test]
    fn whoever_signs_it_has_said_it() {
        let other = pb::ResponseHeader { member_id: 9, ..header() };
        let telling = Telling::Events { id: 1, header: header(), events: events() };
        let said = Telling::from(pb::WatchResponse { created: true, ..bare(1, header()) });
        for telling in [telling, said] {
            assert_eq!(telling.header(), header());
            assert_eq!(telling.signed(other).whole().header, Some(other));
        }
        assert_eq!(revisions(&events()), Some((7, 8)));
    }
}
