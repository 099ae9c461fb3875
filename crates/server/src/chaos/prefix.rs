//! All keys of a run, below a prefix of a cluster that belongs to somebody else.
//!
//! Clients, history and checks know nothing of it: it is put before every key and every bound of a range that is sent, and taken from what is answered. So no
//! request can name a key outside of it. What is answered without it is left as it is, and is then something that nobody has written.

use quorate_types::reply::{DeleteAnswer, OperationAnswer, PutAnswer, RangeAnswer, TxnAnswer};
use quorate_types::request::{Compare, DeleteRequest, Operation, PutRequest, RangeRequest, TxnRequest};
use quorate_types::{Answer, Bytes, Event, Key, KeyRange, KeyValue, Request};

/// The prefix; an empty one in a cluster of our own.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefix(Bytes);

impl Prefix {
    pub(super) fn new(prefix: impl Into<Bytes>) -> Self {
        Self(prefix.into())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn key(&self, key: &Key) -> Key {
        [self.0.as_ref(), key.as_ref()].concat().into()
    }

    /// Of the keys below the prefix those that are meant.
    pub(super) fn range(&self, range: &KeyRange) -> KeyRange {
        if self.is_empty() {
            return range.clone();
        }
        match range {
            KeyRange::Single(key) => KeyRange::Single(self.key(key)),
            KeyRange::Between(start, end) => KeyRange::Between(self.key(start), self.key(end)),
            KeyRange::From(start) => match KeyRange::prefix(self.0.clone()) {
                KeyRange::Between(_, end) => KeyRange::Between(self.key(start), end),
                // A prefix of nothing but 0xff, behind which nothing is.
                _ => KeyRange::From(self.key(start)),
            },
        }
    }

    pub(super) fn request(&self, request: &Request) -> Request {
        if self.is_empty() {
            return request.clone();
        }
        match request {
            Request::Range(request) => Request::Range(self.read(request)),
            Request::Put(request) => Request::Put(self.put(request)),
            Request::DeleteRange(request) => Request::DeleteRange(self.delete(request)),
            Request::Txn(request) => Request::Txn(self.txn(request)),
            // Not sent by anybody here, and refused where it is sent.
            other => other.clone(),
        }
    }

    fn read(&self, request: &RangeRequest) -> RangeRequest {
        RangeRequest { range: self.range(&request.range), ..request.clone() }
    }

    fn put(&self, request: &PutRequest) -> PutRequest {
        PutRequest { key: self.key(&request.key), ..request.clone() }
    }

    fn delete(&self, request: &DeleteRequest) -> DeleteRequest {
        DeleteRequest { range: self.range(&request.range), ..request.clone() }
    }

    fn txn(&self, request: &TxnRequest) -> TxnRequest {
        let compare = |compare: &Compare| Compare { range: self.range(&compare.range), ..compare.clone() };
        let operation = |operation: &Operation| match operation {
            Operation::Range(request) => Operation::Range(self.read(request)),
            Operation::Put(request) => Operation::Put(self.put(request)),
            Operation::DeleteRange(request) => Operation::DeleteRange(self.delete(request)),
            Operation::Txn(request) => Operation::Txn(self.txn(request)),
        };
        TxnRequest {
            compares: request.compares.iter().map(compare).collect(),
            success: request.success.iter().map(operation).collect(),
            failure: request.failure.iter().map(operation).collect(),
        }
    }

    fn own(&self, key: Key) -> Key {
        match key.strip_prefix(self.0.as_ref()) {
            Some(own) => Bytes::copy_from_slice(own),
            None => key,
        }
    }

    fn pair(&self, pair: KeyValue) -> KeyValue {
        KeyValue { key: self.own(pair.key), ..pair }
    }

    pub(super) fn event(&self, event: Event) -> Event {
        match event {
            Event::Put(pair) => Event::Put(self.pair(pair)),
            Event::Delete { key, modified } => Event::Delete { key: self.own(key), modified },
        }
    }

    pub(super) fn answer(&self, answer: Answer) -> Answer {
        if self.is_empty() {
            return answer;
        }
        match answer {
            Answer::Range(answer) => Answer::Range(self.found(answer)),
            Answer::Put(answer) => Answer::Put(self.replaced(answer)),
            Answer::DeleteRange(answer) => Answer::DeleteRange(self.deleted(answer)),
            Answer::Txn(answer) => Answer::Txn(self.done(answer)),
            other => other,
        }
    }

    fn found(&self, answer: RangeAnswer) -> RangeAnswer {
        RangeAnswer { pairs: answer.pairs.into_iter().map(|pair| self.pair(pair)).collect(), ..answer }
    }

    fn replaced(&self, answer: PutAnswer) -> PutAnswer {
        PutAnswer { previous: answer.previous.map(|pair| self.pair(pair)) }
    }

    fn deleted(&self, answer: DeleteAnswer) -> DeleteAnswer {
        DeleteAnswer { previous: answer.previous.into_iter().map(|pair| self.pair(pair)).collect(), ..answer }
    }

    fn done(&self, answer: TxnAnswer) -> TxnAnswer {
        let operation = |answer| match answer {
            OperationAnswer::Range(revision, answer) => OperationAnswer::Range(revision, self.found(answer)),
            OperationAnswer::Put(revision, answer) => OperationAnswer::Put(revision, self.replaced(answer)),
            OperationAnswer::DeleteRange(revision, answer) => {
                OperationAnswer::DeleteRange(revision, self.deleted(answer))
            }
            OperationAnswer::Txn(answer) => OperationAnswer::Txn(self.done(answer)),
        };
        TxnAnswer { responses: answer.responses.into_iter().map(operation).collect(), ..answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prefix: &'static str, range: KeyRange) -> KeyRange {
        Prefix::new(prefix).range(&range)
    }

    #[test]
    fn no_range_leaves_the_prefix() {
        let between = |start: &'static str, end: &'static str| KeyRange::Between(start.into(), end.into());
        assert_eq!(of("p/", KeyRange::Single("a".into())), KeyRange::Single("p/a".into()));
        assert_eq!(of("p/", KeyRange::prefix("a/")), KeyRange::prefix("p/a/"));
        assert_eq!(of("p/", KeyRange::all()), between("p/", "p0"));
        assert_eq!(of("p/", KeyRange::From("x".into())), between("p/x", "p0"));
        assert_eq!(of("", KeyRange::all()), KeyRange::all());
        // What ends before the prefix does is within it, whatever the bound is.
        let Some(KeyRange::Between(start, end)) = Some(of("p/", between("\u{0}", "\u{7f}"))) else { return };
        let own = KeyRange::prefix("p/");
        assert!(own.contains(&start) && end.starts_with(b"p/"));
    }

    #[test]
    fn what_is_sent_has_it_everywhere_and_what_is_answered_nowhere() {
        let prefix = Prefix::new("p/");
        let key = || KeyRange::Single("k".into());
        let read = RangeRequest::new(key());
        let delete = DeleteRequest { range: KeyRange::all(), previous: false };
        let inner = TxnRequest { failure: vec![Operation::DeleteRange(delete)], ..Default::default() };
        let request = TxnRequest {
            compares: vec![Compare {
                range: key(),
                result: quorate_types::request::CompareResult::Equal,
                target: quorate_types::request::CompareTarget::Version(1),
            }],
            success: vec![Operation::Range(read), Operation::Txn(inner)],
            failure: Vec::new(),
        };
        let Request::Txn(sent) = prefix.request(&Request::Txn(request)) else { panic!("it is another one") };
        assert_eq!(sent.compares[0].range, KeyRange::Single("p/k".into()));
        assert!(
            matches!(&sent.success[0], Operation::Range(read) if read.range == KeyRange::Single("p/k".into()))
        );
        let Operation::Txn(inner) = &sent.success[1] else { panic!("{sent:?}") };
        assert!(
            matches!(&inner.failure[0], Operation::DeleteRange(delete) if delete.range == KeyRange::prefix("p/"))
        );

        let pair = |key: &'static str| KeyValue {
            key: key.into(),
            value: "v".into(),
            create: quorate_types::Revision(2),
            modified: quorate_types::Revision(2),
            version: 1,
            lease: None,
        };
        let answer = Answer::Put(PutAnswer { previous: Some(pair("p/k")) });
        assert_eq!(prefix.answer(answer), Answer::Put(PutAnswer { previous: Some(pair("k")) }));
        // Of another's key nobody takes it for ours.
        assert_eq!(prefix.event(Event::Put(pair("q/k"))), Event::Put(pair("q/k")));
    }
}
