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
    is_damage: bool,
}

impl Fault {
    /// Whether something stored was read and makes no sense, or is gone, as opposed to what could not be read or written.
    pub fn is_damage(&self) -> bool {
        self.is_damage
    }

    /// A fault met while `doing` something. It is damage if the cause is [`Malformed`].
    pub fn new(doing: impl Into<String>, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let cause: Arc<dyn std::error::Error + Send + Sync> = Arc::from(cause.into());
        let is_damage = cause.downcast_ref::<Malformed>().is_some();
        Self { doing: doing.into(), cause, is_damage }
    }

    /// The same of what is damage for another cause.
    pub fn damage(
        doing: impl Into<String>,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { is_damage: true, ..Self::new(doing, cause) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.cause)
    }
}

impl std::error::Error for Fault {}
