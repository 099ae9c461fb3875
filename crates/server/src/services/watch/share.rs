//! What one node tells of one part of a keyspace, as an [`Assembly`](super::assembly::Assembly) keeps it.

use quorate_api::mvccpb::Event;
use quorate_api::part::PartRequest;
use quorate_api::part::part_request::Request;
use quorate_api::pb;
use quorate_api::pb::watch_request::RequestUnion;
use quorate_types::SlotSet;
use std::collections::{BTreeMap, VecDeque};

/// Names a part of an assembly; never used twice.
pub(super) type PartId = u64;

/// Some slots, and how it stands with the node that tells of them.
pub(super) struct Part {
    pub(super) slots: SlotSet,
    pub(super) state: State,
    pub(super) asks: VecDeque<PartRequest>,
    /// Creations that it has not answered, by number.
    pub(super) unanswered: VecDeque<i64>,
    pub(super) waiting_bytes: usize,
    /// It was asked to tell when it has passed this.
    pub(super) awaited: Option<i64>,
    /// All of its shares have passed this that were there when it said so.
    pub(super) passed: i64,
    /// So often it has said so,
    pub(super) marks: u64,
    /// also since it was asked last how far all watches are.
    pub(super) is_marked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// At no node.
    Unplaced,
    /// A node is asked.
    Opening,
    Open,
}

/// What one part has to tell of a watch.
#[derive(Clone, Default)]
pub(super) struct Share {
    /// Everything up to here was told; `None` while it is not known where it begins.
    pub(super) through: Option<i64>,
    /// How many marks there were when the part had it.
    pub(super) begun: Option<u64>,
    /// Events of a revision that is not complete.
    pub(super) fragments: Vec<(u32, Event)>,
}

impl Part {
    /// Of these slots, without shares.
    pub(super) fn of(slots: SlotSet, state: State) -> Self {
        Self {
            slots,
            state,
            asks: VecDeque::new(),
            unanswered: VecDeque::new(),
            waiting_bytes: 0,
            awaited: None,
            passed: 0,
            marks: 0,
            is_marked: false,
        }
    }

    /// What is asked while it is at no node is asked when it is.
    pub(super) fn ask(&mut self, request: Request) {
        if self.state == State::Open {
            self.asks.push_back(PartRequest { request: Some(request) });
        }
    }

    /// It is to tell when it has passed a revision.
    pub(super) fn await_passed(&mut self, revision: i64) {
        if self.state == State::Open && self.awaited.is_none_or(|awaited| revision < awaited) {
            self.awaited = Some(revision);
            self.ask(Request::AwaitPassed(u64::try_from(revision).unwrap_or(0)));
        }
    }

    /// It is to tell of another watch.
    pub(super) fn create(&mut self, number: i64, request: &pb::WatchCreateRequest, share: &Share) {
        if self.state != State::Open {
            return;
        }
        self.unanswered.push_back(number);
        let create = pb::WatchCreateRequest {
            watch_id: number,
            start_revision: share.through.map_or(0, |through| through + 1),
            fragment: true,
            ..request.clone()
        };
        self.ask(Request::Watch(pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        }));
    }
}

/// Everything up to here a share has told, or had nothing to tell of.
pub(super) fn passed(parts: &BTreeMap<PartId, Part>, id: PartId, share: &Share) -> i64 {
    let through = share.through.unwrap_or(0);
    match (share.begun, parts.get(&id)) {
        // A mark speaks of the shares that were there.
        (Some(begun), Some(part)) if part.marks > begun => through.max(part.passed),
        _ => through,
    }
}
