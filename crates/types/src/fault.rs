//! The error that ends a replica's work.

use crate::codec::Malformed;
use std::fmt;
use std::sync::Arc;

/// This replica can no longer be trusted: a write or a flush failed, a checksum did not match, a
/// stored row does not decode. It stops; nothing is acknowledged after it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What was being done, to which file or table.
    pub doing: String,
    /// What went wrong.
    pub cause: Arc<dyn std::error::Error + Send + Sync>,
}

impl Fault {
    /// Whether something stored was read and makes no sense, as opposed to what could not be read or written.
    pub fn is_damage(&self) -> bool {
        self.cause.downcast_ref::<Malformed>().is_some()
    }

    /// A fault met while `doing` something.
    pub fn new(doing: impl Into<String>, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { doing: doing.into(), cause: Arc::from(cause.into()) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.cause)
    }
}

impl std::error::Error for Fault {}
