//! What a client asks to be told.

use crate::{KeyRange, wire_struct};

/// etcd's WatchCreateRequest. Zeros that mean "not set" are `None` here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// The name the client wants for the watch on its stream; `None` leaves it to the server.
    pub id: Option<i64>,
    /// Which keys.
    pub range: KeyRange,
    /// The first revision to be told of; `None` is everything after now. Kept when negative, because
    /// the answer to that is a refusal of this watch alone.
    pub start_revision: Option<i64>,
    /// Whether puts are told.
    pub puts: bool,
    /// Whether deletes are told.
    pub deletes: bool,
    /// Whether events carry the pair as it was before.
    pub previous: bool,
    /// Whether a large response may be split.
    pub fragment: bool,
    /// Whether a quiet watch is told regularly how far it is.
    pub progress: bool,
}

wire_struct!(WatchRequest { id, range, start_revision, puts, deletes, previous, fragment, progress });

impl WatchRequest {
    /// Every change of `range` after now.
    pub fn new(range: KeyRange) -> Self {
        Self {
            id: None,
            range,
            start_revision: None,
            puts: true,
            deletes: true,
            previous: false,
            fragment: false,
            progress: false,
        }
    }
}
