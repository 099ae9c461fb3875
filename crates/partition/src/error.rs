//! The two ways in which answering can fail.

use quorate_types::{Fault, Rejection};
use std::fmt;

/// Why there is no answer: the client is told "no", or the replica cannot be trusted any more.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// Nothing happened, and the client is told why.
    Rejection(Rejection),
    /// The store failed or a row is damaged. The replica stops; the client is told that the outcome of what
    /// it asked is that of any request in flight on a node that dies.
    Fault(Fault),
}

impl From<Rejection> for ReadError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejection(rejection)
    }
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejection(rejection) => rejection.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}
