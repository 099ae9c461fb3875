//! What a client asked and what became of it.

use quorate_types::reply::{OperationAnswer, RangeAnswer, TxnAnswer};
use quorate_types::request::{Operation, PutRequest, RangeRequest};
use quorate_types::{Answer, Bytes, Event, KeyRange, KeyValue, Request, Revision};
use std::fmt;

/// Longest value that is shown.
const SHOWN_BYTES_MAX: usize = 60;

/// A call and its fate. Times are microseconds of one clock of the one who records.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which client asked.
    pub client: u32,
    /// Which node it asked.
    pub node: String,
    /// What. Values that are written are unique among all calls.
    pub request: Request,
    /// When it was asked.
    pub asked: u64,
    /// When the answer came, or was given up.
    pub answered: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out, as of this revision.
    Reply(Revision, Answer),
    /// Refused: nothing happened, and why.
    Refused(String),
    /// It may have been carried out, or may be later; what the client was told instead of an answer.
    Unknown(String),
}

impl Call {
    /// The revision and what was answered as of it.
    pub fn reply(&self) -> Option<(Revision, &Answer)> {
        match &self.outcome {
            Outcome::Reply(revision, answer) => Some((*revision, answer)),
            _ => None,
        }
    }

    /// Whether it must see everything that was answered before.
    pub fn is_linearizable(&self) -> bool {
        !matches!(&self.request, Request::Range(range) if range.serializable)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let Self { client, node, asked, answered, .. } = self;
        write!(f, "{:.6} to {:.6} s, client {client} at {node}: ", seconds(*asked), seconds(*answered))?;
        write!(f, "{} -> ", request(&self.request))?;
        match &self.outcome {
            Outcome::Reply(revision, answer) => write!(f, "revision {revision}: {}", self::answer(answer)),
            Outcome::Refused(why) => write!(f, "refused: {why}"),
            Outcome::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

/// An answer as people read it: pairs with the revisions of their last change.
pub fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Range(range) => pairs(range),
        Answer::Put(put) => format!("put{}", previous(put.previous.as_slice())),
        Answer::DeleteRange(delete) => format!("{} deleted{}", delete.deleted, previous(&delete.previous)),
        Answer::Txn(txn) => self::txn(txn),
        other => format!("{other:?}"),
    }
}

fn pairs(range: &RangeAnswer) -> String {
    match &range.pairs[..] {
        [] => format!("nothing of {}", range.count),
        all => all.iter().map(pair).collect::<Vec<_>>().join(", "),
    }
}

fn previous(before: &[KeyValue]) -> String {
    match before {
        [] => String::new(),
        all => format!(" (before: {})", all.iter().map(pair).collect::<Vec<_>>().join(", ")),
    }
}

fn txn(txn: &TxnAnswer) -> String {
    let one = |response: &OperationAnswer| match response {
        OperationAnswer::Range(_, range) => pairs(range),
        OperationAnswer::Put(_, put) => format!("put{}", previous(put.previous.as_slice())),
        OperationAnswer::DeleteRange(_, delete) => format!("{} deleted", delete.deleted),
        OperationAnswer::Txn(inner) => self::txn(inner),
    };
    let responses: Vec<String> = txn.responses.iter().map(one).collect();
    format!("{} [{}]", if txn.succeeded { "then" } else { "else" }, responses.join("; "))
}

/// A pair as people read it.
pub fn pair(pair: &KeyValue) -> String {
    let KeyValue { key, value, modified, version, .. } = pair;
    format!("{} = {} (changed at {modified}, version {version})", text(key), text(value))
}

/// An event, likewise.
pub fn event(event: &Event) -> String {
    match event {
        Event::Put(put) => pair(put),
        Event::Delete { key, modified } => format!("{} deleted at {modified}", text(key)),
    }
}

/// Events, likewise.
pub fn events(events: &[Event]) -> String {
    format!("[{}]", events.iter().map(event).collect::<Vec<_>>().join("; "))
}

/// Bytes as people read them.
pub fn text(bytes: &Bytes) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if text.len() > SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
        text.push_str("...");
    }
    text
}

fn range(range: &KeyRange) -> String {
    match range {
        KeyRange::Single(key) => text(key),
        KeyRange::Between(start, end) => format!("{}..{}", text(start), text(end)),
        KeyRange::From(start) => format!("{}..", text(start)),
    }
}

fn read(request: &RangeRequest) -> String {
    let how = if request.serializable { " serializable" } else { "" };
    let when = request.revision.map_or(String::new(), |revision| format!(" of revision {revision}"));
    format!("get{how} {}{when}", range(&request.range))
}

fn put(request: &PutRequest) -> String {
    format!("put {} = {}", text(&request.key), request.value.as_ref().map_or("as it is".into(), text))
}

fn operations(operations: &[Operation]) -> String {
    let one = |operation: &Operation| match operation {
        Operation::Range(request) => read(request),
        Operation::Put(request) => put(request),
        Operation::DeleteRange(delete) => format!("delete {}", range(&delete.range)),
        Operation::Txn(_) => "a transaction".into(),
    };
    operations.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn request(request: &Request) -> String {
    match request {
        Request::Range(request) => read(request),
        Request::Put(request) => put(request),
        Request::DeleteRange(delete) => format!("delete {}", range(&delete.range)),
        Request::Txn(txn) => {
            let compare = |compare: &quorate_types::request::Compare| {
                format!("{} {:?} {:?}", range(&compare.range), compare.result, compare.target)
            };
            let compares: Vec<String> = txn.compares.iter().map(compare).collect();
            let (then, or) = (operations(&txn.success), operations(&txn.failure));
            format!("if [{}] then [{then}] else [{or}]", compares.join(" and "))
        }
        other => format!("{other:?}"),
    }
}
