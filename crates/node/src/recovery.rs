//! Whether a group has lost its quorum for good, as far as one of its survivors can tell, and may go on with that one alone.
//!
//! Pure: [`judge`] is told how the replica and its group stand here, and refuses with what there is to do instead. What nobody can tell is whether
//! those that are silent are dead; that is what the operator says by ordering it.

use quorate_types::{GroupId, Index, NodeId, Position};
use std::fmt;

/// How a group stands on the node that is asked to go on with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survivor {
    /// The end of its log.
    pub last: Position,
    /// Up to where that is known to be committed.
    pub commit: Index,
    /// How often the group was recovered before.
    pub lineage: u64,
    /// Its state is here, and is not being replaced.
    pub is_whole: bool,
    /// It votes: it has not lost what it promised.
    pub is_admitted: bool,
    /// Who leads the group, if that one is heard.
    pub leader: Option<NodeId>,
    /// Those that vote, as its log says; while joint, of both sets.
    pub voters: Vec<NodeId>,
    /// Of these, those that are heard, itself included.
    pub heard: Vec<NodeId>,
    /// So many that are heard could elect a leader.
    pub has_quorum: bool,
    /// For how long this node has listened: at the beginning nobody counts as silent.
    pub listened_ticks: u64,
    /// The meta group has a leader that is heard, this node or another.
    pub is_meta_led: bool,
}

/// Why the group does not go on in this way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverRefused {
    /// This node has no replica of the group.
    NotHere,
    /// It has one that is being filled from others.
    NotWhole,
    /// It lost its disk, and has not caught up.
    NotAdmitted,
    /// It has only just begun to listen.
    TooEarly,
    /// Somebody leads the group.
    IsLed(NodeId),
    /// A quorum is heard: it elects a leader by itself.
    HasQuorum(Vec<NodeId>),
    /// What was shown to whoever ordered it is not what is here now.
    Changed(Position),
    /// Where groups are is written in the meta group, which has to be recovered first.
    MetaFirst,
}

/// Looks whether the replica may become what its group goes on with. `shown` is the end of its log as it was shown to whoever orders it. So long must have been
/// listened: the longest election timeout, twice.
pub fn judge(
    group: GroupId,
    survivor: &Survivor,
    shown: Option<Position>,
    listen_ticks: u64,
) -> Result<(), RecoverRefused> {
    if !survivor.is_admitted {
        Err(RecoverRefused::NotAdmitted)
    } else if !survivor.is_whole {
        Err(RecoverRefused::NotWhole)
    } else if let Some(leader) = survivor.leader {
        Err(RecoverRefused::IsLed(leader))
    } else if survivor.listened_ticks < listen_ticks {
        Err(RecoverRefused::TooEarly)
    } else if survivor.has_quorum {
        Err(RecoverRefused::HasQuorum(survivor.heard.clone()))
    } else if shown.is_some_and(|shown| shown != survivor.last) {
        Err(RecoverRefused::Changed(survivor.last))
    } else if group != GroupId::META && !survivor.is_meta_led {
        Err(RecoverRefused::MetaFirst)
    } else {
        Ok(())
    }
}

impl fmt::Display for RecoverRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHere => write!(f, "this node has no replica of it"),
            Self::NotWhole => write!(
                f,
                "its replica here is not whole: it was being filled from others, and what it had is gone; take another survivor"
            ),
            Self::NotAdmitted => write!(
                f,
                "this node has lost its disk and was not filled again, so it cannot know what was promised; take another survivor"
            ),
            Self::TooEarly => {
                write!(
                    f,
                    "this node has only just started and does not know yet who is silent; try again in some seconds"
                )
            }
            Self::IsLed(leader) => {
                write!(
                    f,
                    "node {leader} leads it and is heard: nothing is lost, so there is nothing to recover"
                )
            }
            Self::HasQuorum(heard) => {
                let heard: Vec<String> = heard.iter().map(NodeId::to_string).collect();
                write!(
                    f,
                    "a majority of its voters is heard (nodes {}) and elects a leader by itself, without any loss; wait, and see quorate status",
                    heard.join(" ")
                )
            }
            Self::Changed(last) => {
                write!(f, "its log ends at {last} here, which is not what was shown; look again")
            }
            Self::MetaFirst => write!(
                f,
                "nobody leads the group of the cluster's own rows, which say where everything is: recover that first (quorate partitions recover \
                 system)"
            ),
        }
    }
}

impl std::error::Error for RecoverRefused {}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: u64 = 80;

    /// One of three, the others dead for long.
    fn lost() -> Survivor {
        Survivor {
            is_whole: true,
            is_admitted: true,
            voters: [1, 2, 3].map(NodeId).into(),
            heard: vec![NodeId(1)],
            listened_ticks: LISTEN,
            is_meta_led: true,
            ..Survivor::default()
        }
    }

    #[test]
    fn only_what_has_lost_its_quorum_goes_on_with_one() {
        let first = |survivor: Survivor| judge(GroupId::FIRST, &survivor, Some(Position::default()), LISTEN);
        assert_eq!(first(lost()), Ok(()));
        let quorum = Survivor { has_quorum: true, heard: [1, 2].map(NodeId).into(), ..lost() };
        assert_eq!(first(quorum), Err(RecoverRefused::HasQuorum([1, 2].map(NodeId).into())));
        assert_eq!(
            first(Survivor { leader: Some(NodeId(2)), ..lost() }),
            Err(RecoverRefused::IsLed(NodeId(2)))
        );
        assert_eq!(first(Survivor { listened_ticks: LISTEN - 1, ..lost() }), Err(RecoverRefused::TooEarly));
        assert_eq!(first(Survivor { is_whole: false, ..lost() }), Err(RecoverRefused::NotWhole));
        assert_eq!(first(Survivor { is_admitted: false, ..lost() }), Err(RecoverRefused::NotAdmitted));
        let last = Position { index: Index(7), ..Position::default() };
        assert_eq!(first(Survivor { last, ..lost() }), Err(RecoverRefused::Changed(last)));
    }

    #[test]
    fn the_meta_group_comes_first() {
        let alone = Survivor { is_meta_led: false, ..lost() };
        assert_eq!(judge(GroupId::FIRST, &alone, None, LISTEN), Err(RecoverRefused::MetaFirst));
        assert_eq!(judge(GroupId::META, &alone, None, LISTEN), Ok(()));
    }
}
