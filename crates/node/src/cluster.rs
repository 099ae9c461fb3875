//! What a node is told of its cluster before it has applied anything of it.

use quorate_types::{Member, NodeId};

/// Who there is, to begin with. Later the rows of the system keyspace say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// All members there are, this node among them: of a new cluster its founders, else what the cluster said when it was asked last. One
    /// that is missing here is heard all the same; one that has left since is asked in vain.
    pub members: Vec<Member>,
    /// Who voted in the meta group when the cluster was founded: the same on every member for ever.
    pub first_voters: Vec<NodeId>,
}

impl Cluster {
    /// A new one: its founders all vote.
    pub fn of_founders(members: Vec<Member>) -> Self {
        let mut first_voters: Vec<NodeId> = members.iter().map(|member| member.id).collect();
        first_voters.sort_unstable();
        Self { members, first_voters }
    }
}
