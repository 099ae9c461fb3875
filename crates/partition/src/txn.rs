//! Transactions: compare, choose, check, execute.
//!
//! 1. Every compare, those of nested transactions on the way included, is evaluated on the state before the
//!    transaction. That fixes the path.
//! 2. Everything on the path is checked against that state: revisions of ranges, leases of puts, keys that
//!    must exist. The branches not taken are not checked. Any error ends the whole transaction.
//! 3. The path is executed in order, each operation seeing what came before.
//!
//! Operation counts and duplicate keys are checked in `api`, before a transaction comes here.

use crate::compare;
use crate::error::ReadError;
use crate::range;
use crate::view::View;
use crate::writer::Writer;
use quorate_types::reply::{OperationAnswer, TxnAnswer};
use quorate_types::request::{Operation, PutLease, PutRequest, TxnRequest};
use quorate_types::{Fault, LeaseId, Rejection};

/// The branch that a transaction takes, with those of the transactions nested in it.
pub(crate) struct Path<'t> {
    succeeded: bool,
    operations: &'t [Operation],
    /// One for each nested transaction among the operations, in order.
    nested: Vec<Path<'t>>,
}

impl Path<'_> {
    /// The oldest revision that a range of the branch itself asks for.
    pub(crate) fn oldest_asked(&self) -> Option<i64> {
        let asked = self.operations.iter().filter_map(|operation| match operation {
            Operation::Range(request) => request.revision.filter(|asked| *asked > 0),
            _ => None,
        });
        asked.min()
    }
}

/// Evaluates the compares.
pub(crate) fn choose<'t, V: View>(view: &V, txn: &'t TxnRequest) -> Result<Path<'t>, Fault> {
    let mut succeeded = true;
    for compare in &txn.compares {
        if !compare::holds(view, compare, view.revision())? {
            succeeded = false;
            break;
        }
    }
    let operations = if succeeded { &txn.success } else { &txn.failure };
    let mut nested = Vec::new();
    for operation in operations {
        if let Operation::Txn(inner) = operation {
            nested.push(choose(view, inner)?);
        }
    }
    Ok(Path { succeeded, operations, nested })
}

/// Checks everything on the path against the state before the transaction.
pub(crate) fn check<V: View>(
    view: &V,
    path: &Path<'_>,
    lease_exists: &dyn Fn(LeaseId) -> bool,
) -> Result<(), ReadError> {
    let mut nested = path.nested.iter();
    for operation in path.operations {
        match operation {
            Operation::Range(request) => range::check_in_txn(view, request.revision)?,
            Operation::Put(request) => check_put(view, request, lease_exists)?,
            Operation::DeleteRange(_) => {}
            Operation::Txn(_) => check(view, next(&mut nested), lease_exists)?,
        }
    }
    Ok(())
}

/// What a put needs of the state: its lease first, then the key it keeps something of.
pub(crate) fn check_put<V: View>(
    view: &V,
    request: &PutRequest,
    lease_exists: &dyn Fn(LeaseId) -> bool,
) -> Result<(), ReadError> {
    if let PutLease::Attach(lease) = request.lease
        && !lease_exists(lease)
    {
        return Err(Rejection::LeaseNotFound(lease).into());
    }
    let keeps = request.value.is_none() || request.lease == PutLease::Keep;
    if keeps && view.get(&request.key, view.revision())?.is_none() {
        return Err(Rejection::KeyNotFound.into());
    }
    Ok(())
}

/// Executes the path.
pub(crate) fn execute<V: View>(writer: &mut Writer<'_, V>, path: &Path<'_>) -> Result<TxnAnswer, ReadError> {
    let mut responses = Vec::with_capacity(path.operations.len());
    let mut nested = path.nested.iter();
    for operation in path.operations {
        responses.push(match operation {
            Operation::Range(request) => {
                let at = range::revision_asked(writer, request.revision)?;
                let answer = range::answer(writer, request, at)?;
                OperationAnswer::Range(writer.revision(), answer)
            }
            Operation::Put(request) => {
                let answer = writer.put(request)?;
                OperationAnswer::Put(writer.revision(), answer)
            }
            Operation::DeleteRange(request) => {
                let answer = writer.delete_range(request)?;
                OperationAnswer::DeleteRange(writer.revision(), answer)
            }
            Operation::Txn(_) => OperationAnswer::Txn(execute(writer, next(&mut nested))?),
        });
    }
    Ok(TxnAnswer { succeeded: path.succeeded, responses })
}

fn next<'p, 't>(nested: &mut std::slice::Iter<'p, Path<'t>>) -> &'p Path<'t> {
    nested.next().expect("choosing made a path for every nested transaction of the branch")
}

/// Whether either branch holds a put, at any depth: what a full store refuses, as etcd does.
pub(crate) fn has_put(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Put(_) => true,
        Operation::Txn(inner) => has_put(inner),
        Operation::Range(_) | Operation::DeleteRange(_) => false,
    })
}
