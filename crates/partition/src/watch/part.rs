//! What a stream is told of that is not told of everything.

use quorate_types::{Key, Rules, SlotSet};
use std::sync::Arc;

/// Some slots of a keyspace. A node that lacks partitions serves the slots of those that it has; whoever wants all of a
/// keyspace puts it together from several nodes.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which slot a key is in.
    pub rules: Arc<Rules>,
    /// Those that are told.
    pub slots: Arc<SlotSet>,
}

impl Part {
    /// Whether the key is in one of the slots.
    pub fn has(&self, key: &Key) -> bool {
        self.slots.contains(self.rules.slot(key))
    }
}
