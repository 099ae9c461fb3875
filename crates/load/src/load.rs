//! What is asked for, and how hard.

use crate::keys::Keys;
use crate::kind::Kind;

/// A load. Two of the same numbers ask for the same keys.
#[derive(Clone, Debug)]
pub struct Load {
    /// What is asked for.
    pub kind: Kind,
    /// How many ask at once: clients, watchers, contenders.
    pub clients: usize,
    /// Operations a second in all, due at even distances whether or not those before are answered; `None` is a closed loop, in which each client
    /// asks again when it was answered. Of a watch: the writes, not the events.
    pub rate: Option<f64>,
    /// Which keys.
    pub keys: Keys,
    /// Whether whoever asks knows that they are all there; else loads that read look, and put those that are missing.
    pub are_keys_there: bool,
    /// How large their values are.
    pub value_bytes: usize,
    /// How many keys a range asks for.
    pub range_keys: u64,
    /// How many leases there are to prolong.
    pub leases: u64,
}

impl Load {
    /// Of every hundred operations of a mixed load, so many are writes.
    pub const MIXED_PUTS_PERCENT: u64 = 5;

    /// So many clients in closed loops, over these keys, with values of 256 bytes.
    pub fn new(kind: Kind, clients: usize, keys: Keys) -> Self {
        Self {
            kind,
            clients,
            rate: None,
            keys,
            are_keys_there: false,
            value_bytes: 256,
            range_keys: 100,
            leases: 1_000,
        }
    }
}
