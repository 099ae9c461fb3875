//! Every "no", with etcd's code and words (api/v3rpc/rpctypes/error.go). Clients match on the words.

use quorate_types::Rejection;
use tonic::{Code, Status};

/// What is wrong with a request in itself, whatever the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A key is empty.
    EmptyKey,
    /// A transaction's operation has no request in it.
    EmptyOperation,
    /// ignore_value with a value.
    ValueProvided,
    /// ignore_lease with a lease.
    LeaseProvided,
    /// More operations than allowed.
    TooManyOperations,
    /// A key is written twice in a transaction.
    DuplicateKey,
    /// An unknown sort order or target.
    SortOption,
    /// The request takes more bytes than allowed.
    TooLarge,
    /// A lease id of 0 where one is needed.
    LeaseNotFound,
    /// An enum's number that has no meaning.
    UnknownEnum,
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let (code, words) = match invalid {
            Invalid::EmptyKey => (Code::InvalidArgument, "key is not provided"),
            Invalid::EmptyOperation => (Code::InvalidArgument, "key not found"),
            Invalid::ValueProvided => (Code::InvalidArgument, "value is provided"),
            Invalid::LeaseProvided => (Code::InvalidArgument, "lease is provided"),
            Invalid::TooManyOperations => (Code::InvalidArgument, "too many operations in txn request"),
            Invalid::DuplicateKey => (Code::InvalidArgument, "duplicate key given in txn request"),
            Invalid::SortOption => (Code::InvalidArgument, "invalid sort option"),
            Invalid::TooLarge => (Code::InvalidArgument, "request is too large"),
            Invalid::LeaseNotFound => (Code::NotFound, "requested lease not found"),
            Invalid::UnknownEnum => (Code::InvalidArgument, "unknown enum value in request"),
        };
        Status::new(code, format!("etcdserver: {words}"))
    }
}

/// What is wrong with a request about members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberProblem {
    /// No member has that id.
    NotFound,
    /// Another member has that address.
    AddressTaken,
    /// No address, or more than one, or one that cannot be.
    BadAddresses,
    /// Too few would be left.
    TooFew,
    /// There is no room for more.
    TooMany,
    /// It votes already.
    NotLearner,
    /// It has not got everything yet, or does not run.
    NotReady,
}

impl From<MemberProblem> for Status {
    fn from(problem: MemberProblem) -> Self {
        let (code, words) = match problem {
            MemberProblem::NotFound => (Code::NotFound, "member not found"),
            MemberProblem::AddressTaken => (Code::FailedPrecondition, "Peer URLs already exists"),
            MemberProblem::BadAddresses => (Code::InvalidArgument, "given member URLs are invalid"),
            MemberProblem::TooFew => {
                (Code::FailedPrecondition, "re-configuration failed due to not enough started members")
            }
            MemberProblem::TooMany => (Code::FailedPrecondition, "too many learner members in cluster"),
            MemberProblem::NotLearner => (Code::FailedPrecondition, "can only promote a learner member"),
            MemberProblem::NotReady => {
                (Code::FailedPrecondition, "can only promote a learner member which is in sync with leader")
            }
        };
        Status::new(code, format!("etcdserver: {words}"))
    }
}

/// A leader's "no" as etcd says it. Of an unknown outcome the words must not let the client believe that
/// nothing happened.
pub fn status(rejection: &Rejection) -> Status {
    let (code, words) = match rejection {
        Rejection::KeyNotFound => (Code::InvalidArgument, "key not found"),
        Rejection::Compacted { .. } => (Code::OutOfRange, "mvcc: required revision has been compacted"),
        Rejection::FutureRevision { .. } => {
            (Code::OutOfRange, "mvcc: required revision is a future revision")
        }
        Rejection::LeaseNotFound(_) => (Code::NotFound, "requested lease not found"),
        Rejection::LeaseExists(_) => (Code::FailedPrecondition, "lease already exists"),
        Rejection::LeaseTtlTooLarge => (Code::OutOfRange, "too large lease TTL"),
        Rejection::TooLarge { .. } => (Code::InvalidArgument, "request is too large"),
        Rejection::NoSpace => (Code::ResourceExhausted, "mvcc: database space exceeded"),
        Rejection::Busy => (Code::ResourceExhausted, "too many requests"),
        Rejection::NoLeader => (Code::Unavailable, "no leader"),
        Rejection::LeaderChanged => (Code::Unavailable, "leader changed"),
        Rejection::Unknown => {
            (Code::Unavailable, "request timed out, possibly due to previous leader failure")
        }
        Rejection::Timeout => (Code::Unavailable, "request timed out"),
        Rejection::Unavailable => (Code::Unavailable, "server stopped"),
        Rejection::KeyspaceNotFound => (Code::NotFound, "requested keyspace not found"),
        Rejection::Contended => (
            Code::Unavailable,
            "too many transactions on the same keys at once, nothing has happened; try again",
        ),
    };
    Status::new(code, format!("etcdserver: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{LeaseId, Revision};

    #[test]
    fn words_and_codes_are_etcds() {
        let lease = LeaseId::new(7).expect("not 0");
        let check = |rejection: Rejection, code: Code, words: &str| {
            let status = status(&rejection);
            assert_eq!((status.code(), status.message()), (code, words));
        };
        let compacted = Rejection::Compacted { asked: 1, oldest: Revision(5) };
        check(compacted, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        let future = Rejection::FutureRevision { asked: 9, newest: Revision(5) };
        check(future, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
        check(Rejection::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found");
        check(Rejection::LeaseNotFound(lease), Code::NotFound, "etcdserver: requested lease not found");
        check(Rejection::LeaseExists(lease), Code::FailedPrecondition, "etcdserver: lease already exists");
        check(Rejection::LeaseTtlTooLarge, Code::OutOfRange, "etcdserver: too large lease TTL");
        check(Rejection::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        check(Rejection::NoLeader, Code::Unavailable, "etcdserver: no leader");
        let unknown = "etcdserver: request timed out, possibly due to previous leader failure";
        check(Rejection::Unknown, Code::Unavailable, unknown);
        let status = Status::from(Invalid::EmptyKey);
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "etcdserver: key is not provided")
        );
    }
}
