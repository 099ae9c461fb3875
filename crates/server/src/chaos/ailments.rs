//! What can be wrong with a node's disk: drawn, and in words. Carried out by [`super::disks`].

use super::lives::Condition;
use super::plan::{Kind, millis};
use quorate_consensus::random::Random;
use std::time::Duration;

/// How late a slow disk is, in milliseconds: each call of a kind.
const LATE_MILLIS: std::ops::Range<u64> = 5..150;

/// What the log of a program in Rust has where something in it has panicked.
const PANICKED: &str = "panicked at";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ailment {
    /// Less is free than a node keeps in reserve; all of a sudden, it is nothing at all.
    Full { is_sudden: bool },
    /// Syncs take longer; and writes, too.
    Slow { late: Duration, has_late_writes: bool },
    /// Syncs of the log do not return, or no call does.
    Hung { is_whole: bool },
    /// Calls fail with EIO.
    Failing(Calls),
    /// The node and its power fail: what was not synced is lost, or, drawn from a seed, some of it, with torn writes.
    PowerLoss(Option<u64>),
    /// While the node is down bits flip.
    Rot(u64),
}

/// Which calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    LogSyncs,
    LogWrites,
    StoreSyncs,
    StoreWrites,
}

impl Calls {
    const ALL: [Self; 4] = [Self::LogSyncs, Self::LogWrites, Self::StoreSyncs, Self::StoreWrites];

    fn text(self) -> &'static str {
        match self {
            Self::LogSyncs => "syncs of the log",
            Self::LogWrites => "writes of the log",
            Self::StoreSyncs => "syncs of the store",
            Self::StoreWrites => "writes of the store",
        }
    }
}

impl Ailment {
    /// One of this kind; none, if it is no kind of this.
    pub(super) fn draw(kind: Kind, random: &mut Random) -> Option<Self> {
        Some(match kind {
            Kind::FullDisk => Self::Full { is_sudden: random.between(0, 2) == 0 },
            Kind::SlowDisk => {
                let has_late_writes = random.between(0, 2) == 0;
                Self::Slow { late: millis(random, LATE_MILLIS), has_late_writes }
            }
            Kind::HungDisk => Self::Hung { is_whole: random.between(0, 2) == 0 },
            Kind::FailingDisk => Self::Failing(Calls::ALL[random.between(0, 4) as usize]),
            Kind::LyingPower => {
                let is_some_kept = random.between(0, 3) > 0;
                Self::PowerLoss(is_some_kept.then(|| random.draw()))
            }
            Kind::Rot => Self::Rot(random.draw()),
            _ => return None,
        })
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Full { .. } => Kind::FullDisk,
            Self::Slow { .. } => Kind::SlowDisk,
            Self::Hung { .. } => Kind::HungDisk,
            Self::Failing(_) => Kind::FailingDisk,
            Self::PowerLoss(_) => Kind::LyingPower,
            Self::Rot(_) => Kind::Rot,
        }
    }

    /// In a word, for a lane of the report.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Full { .. } => "full",
            Self::Slow { .. } => "slow-disk",
            Self::Hung { .. } => "hung",
            Self::Failing(_) => "failing",
            Self::PowerLoss(_) => "power-loss",
            Self::Rot(_) => "rot",
        }
    }

    /// What its node is in meanwhile.
    pub(super) fn conditions(&self) -> &'static [Condition] {
        match self {
            Self::Full { .. } => &[Condition::Full],
            Self::Slow { .. } => &[Condition::SlowDisk],
            Self::Hung { .. } => &[Condition::Hung],
            Self::Failing(_) => &[Condition::Failing],
            Self::PowerLoss(_) => &[Condition::Down],
            Self::Rot(_) => &[Condition::Down, Condition::Rotten],
        }
    }

    /// Whether a node may end by itself of it.
    pub(super) fn may_end_a_node(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Failing(_))
    }

    /// What happens to the disk of this node.
    pub(super) fn text(&self, node: &str) -> String {
        match self {
            Self::Full { is_sudden: true } => format!("the disk of {node} is full all of a sudden"),
            Self::Full { is_sudden: false } => format!("the disk of {node} runs full"),
            Self::Slow { late, has_late_writes } => {
                let calls = if *has_late_writes { "each sync and write" } else { "each sync" };
                format!("the disk of {node} is slow: {calls} is {} ms late", late.as_millis())
            }
            Self::Hung { is_whole: true } => format!("the disk of {node} hangs"),
            Self::Hung { is_whole: false } => format!("the disk of {node} hangs in syncs of the log"),
            Self::Failing(calls) => format!("the disk of {node} fails: EIO for {}", calls.text()),
            Self::PowerLoss(None) => format!("the power of {node} fails: all that was not synced is lost"),
            Self::PowerLoss(Some(_)) => {
                format!("the power of {node} fails: of what was not synced some is there, torn")
            }
            Self::Rot(_) => format!("kill -9 of {node}; bits flip on its disk"),
        }
    }
}

/// Whether a node has ended as it does of its disk: with an error that it says, of its own will.
pub(super) fn is_of_its_disk(code: Option<i32>, logged: &str) -> bool {
    code == Some(1) && !logged.contains(PANICKED)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only as a node ends that cannot go on without its disk.
    #[test]
    fn a_disk_excuses_an_error_and_no_crash() {
        let check = |code, logged: &str, expected| {
            assert_eq!(is_of_its_disk(code, logged), expected, "{code:?}: {logged}");
        };
        check(Some(1), "quorate: writing the log: Input/output error\n", true);
        check(Some(1), "", true);
        // A panic, an abort or a signal, an end that says that all is well.
        check(Some(101), "", false);
        check(None, "", false);
        check(Some(0), "", false);
        check(Some(1), "thread 'store' panicked at crates/node/src/a.rs:1:2:\nunreachable\n", false);
    }
}
