//! Who and where: small numbers with a type each, so that they cannot be mixed up.

use crate::codec::{Decode, Encode, Input, Malformed, Output};
use crate::wire_newtype;
use std::fmt;
use std::num::NonZeroI64;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(
            /// The bare number.
            pub $inner,
        );
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
        wire_newtype!($name);
    };
}

number!(
    /// One cluster, for ever; drawn from the first members' addresses and the cluster token as in
    /// etcd. Two nodes with different ones refuse to talk.
    ClusterId(u64), "{:x}"
);
number!(
    /// One node: a process with one data directory. etcd's "member ID". Never 0 in a running
    /// cluster (clients take 0 for "none").
    NodeId(u64), "{:x}"
);
number!(
    /// One life of a node's data directory; drawn at random when the directory is made. A node that comes back with
    /// another one has forgotten what it promised before.
    Incarnation(u64), "{:x}"
);
number!(
    /// One revision domain, an etcd of its own. [`KeyspaceId::SYSTEM`] holds the cluster map.
    KeyspaceId(u32), "{}"
);
number!(
    /// One partition of a keyspace: a set of slots with a consensus group.
    PartitionId(u32), "{}"
);
number!(
    /// A leader's generation in one group. 0 is the term before the first election. The high part is the group's lineage
    /// ([`Term::lineage`]), nearly always 0.
    Term(u64), "{}"
);
/// Terms of one lineage; no group elects so often.
const LINEAGE_BITS: u32 = 40;

impl Term {
    /// How often the group was gone on with after it had lost its quorum for good. What replicas of different lineages hold may
    /// contradict each other.
    pub fn lineage(self) -> u64 {
        self.0 >> LINEAGE_BITS
    }

    /// The term that a lineage begins with.
    pub fn first_of(lineage: u64) -> Self {
        Self(lineage << LINEAGE_BITS)
    }
}

number!(
    /// Position in one group's log. The first entry is at 1; 0 is the place before it, which Raft
    /// names as the "previous" position of the first entry.
    Index(u64), "{}"
);
number!(
    /// A point of a node's own monotonic time, counted in ticks since the process started. Ticks of
    /// two nodes or two runs have nothing to do with each other.
    Tick(u64), "{}"
);

impl KeyspaceId {
    /// The keyspace of the meta group: nodes, keyspaces, partitions, settings.
    pub const SYSTEM: Self = Self(0);
    /// The keyspace a stock etcd client talks to.
    pub const DEFAULT: Self = Self(1);
    /// The first of those that are created on demand.
    pub const FIRST_CREATED: Self = Self(2);
}

impl Term {
    /// The following term.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Index {
    /// The place before the first entry.
    pub const START: Self = Self(0);

    /// The following place.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place before; the start's is the start.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Tick {
    /// The tick `ticks` later.
    pub fn after(self, ticks: u64) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// The tick `ticks` earlier; the first one when there were not so many.
    pub fn before(self, ticks: u64) -> Self {
        Self(self.0.saturating_sub(ticks))
    }

    /// How many ticks went by since `earlier`; none when it lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One consensus group: the partition of a keyspace that it replicates. The meta group is the one
/// partition of the system keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// The revision domain.
    pub keyspace: KeyspaceId,
    /// The partition within it.
    pub partition: PartitionId,
}

impl GroupId {
    /// The group that holds the cluster map.
    pub const META: Self = Self { keyspace: KeyspaceId::SYSTEM, partition: PartitionId(0) };
    /// The first partition of the default keyspace.
    pub const FIRST: Self = Self { keyspace: KeyspaceId::DEFAULT, partition: PartitionId(0) };
}

crate::wire_struct!(GroupId { keyspace, partition });

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.keyspace, self.partition)
    }
}

/// A lease. Negative ids are legal, as in etcd; etcd's 0 is "no lease", which here is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(NonZeroI64);

impl LeaseId {
    /// The lease of this number; `None` for 0.
    pub fn new(raw: i64) -> Option<Self> {
        NonZeroI64::new(raw).map(Self)
    }

    /// The bare number, never 0.
    pub fn get(self) -> i64 {
        self.0.get()
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl Encode for LeaseId {
    fn encode(&self, out: &mut impl Output) {
        self.0.get().encode(out);
    }
}

impl Decode for LeaseId {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        Self::new(i64::decode(input)?).ok_or(Malformed("a lease id, which is never 0"))
    }
}
