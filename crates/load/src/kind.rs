//! The sorts of load.

/// What the clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Writes of one key each
    Put,
    /// Linearizable reads of one key each
    Get,
    /// Serializable reads of one key each: what the asked node has
    GetSerializable,
    /// Transactions that put a key if it is what this client has left there: compare and swap
    Cas,
    /// Transactions that compare and put two keys of one directory
    Txn,
    /// 95 of 100 are linearizable reads, the others writes
    Mixed,
    /// Linearizable reads of many keys in a row
    Range,
    /// One writer, and clients that watch what it writes; an operation is an event that arrived
    Watch,
    /// Lives of leases prolonged, over a stream for each client
    KeepAlive,
    /// One lock, taken and given back by each client in turn, as etcd's concurrency.Mutex does it
    Lock,
}

impl Kind {
    /// How it is called on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Get => "get",
            Kind::GetSerializable => "get-serializable",
            Kind::Cas => "cas",
            Kind::Txn => "txn",
            Kind::Mixed => "mixed",
            Kind::Range => "range",
            Kind::Watch => "watch",
            Kind::KeepAlive => "keep-alive",
            Kind::Lock => "lock",
        }
    }

    /// Whether it asks for keys that have to be there.
    pub fn reads(self) -> bool {
        matches!(self, Kind::Get | Kind::GetSerializable | Kind::Mixed | Kind::Range)
    }
}
