//! What happens to the nodes, drawn from the seed: rounds of faults, each begun when all is well and ended by making all well again.
//!
//! Never more nodes are concerned at once than the cluster has to survive, unless that was asked for. A pair of nodes that does not hear each other
//! counts as one; so does the network of one node.

use super::ailments::Ailment;
use super::lasting::Lasting;
use clap::ValueEnum;
use quorate_consensus::random::Random;
use std::time::Duration;

/// How long a round's faults last, if nothing is said.
pub(super) const HOLD: Lasting = Lasting::millis(500, 9_000);
/// How long all is well between two rounds.
pub(super) const CALM: Lasting = Lasting::millis(500, 4_000);
/// How late what goes over a slow link may be.
const SLOW_MILLIS: std::ops::Range<u64> = 20..250;
/// In how many rounds of a hundred nodes come or go.
const CHANGES: u64 = 30;
/// In how many rounds of a hundred what is old is compacted.
const COMPACTIONS: u64 = 25;
/// More nodes than the cluster began with.
const EXTRA_MAX: usize = 2;

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Kind {
    /// kill -9, and a start
    Kill,
    /// SIGTERM, and a start
    Stop,
    /// SIGSTOP, and SIGCONT
    Pause,
    /// Nodes that neither hear nor are heard by the others
    Cut,
    /// A node that is not heard, or does not hear
    OneWay,
    /// Two nodes that do not hear each other, or one the other, while all others do
    Partial,
    /// A node whose messages are late
    Slow,
    /// kill -9, the data directory deleted, and a start: the node is filled again, if all that the cluster began with are there
    Wipe,
    /// A node that dies with its data for good: another joins in its place, or it joins itself, as a new one
    Lose,
    /// A node that joins, or one that is removed
    Join,
    /// A node that is emptied, and gets its share again
    Drain,
    /// A partition becomes two
    Split,
    /// What is old is compacted while clients read and watch it
    Compact,
    /// A disk that has no space any more, and then has
    FullDisk,
    /// A disk whose syncs, or syncs and writes, are late
    SlowDisk,
    /// A disk that stands still, of a leader most of the time
    HungDisk,
    /// A disk whose log or store cannot be written or synced: the node ends, and is started again
    FailingDisk,
    /// kill -9, what was not synced is lost or torn, and a start
    LyingPower,
    /// kill -9, bits of the log or the store flip, and a start
    Rot,
    /// kill -9 of all nodes at once, on disks of ours with what was not synced, and a start; only when asked for
    Power,
}

impl Kind {
    /// Whether it takes a disk that does as it is told.
    pub(super) fn is_of_disks(self) -> bool {
        DISKS.contains(&self)
    }

    /// As it is called on the command line.
    pub(super) fn name(self) -> String {
        // None is hidden, so all have one.
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// What happens when nothing is said, besides [`DISKS`].
pub(super) const USUAL: [Kind; 13] = [
    Kind::Kill,
    Kind::Stop,
    Kind::Pause,
    Kind::Cut,
    Kind::OneWay,
    Kind::Partial,
    Kind::Slow,
    Kind::Wipe,
    Kind::Lose,
    Kind::Join,
    Kind::Drain,
    Kind::Split,
    Kind::Compact,
];

/// What happens when nothing is said, where disks can be had that do as they are told.
pub(super) const DISKS: [Kind; 6] =
    [Kind::FullDisk, Kind::SlowDisk, Kind::HungDisk, Kind::FailingDisk, Kind::LyingPower, Kind::Rot];

/// One fault, of nodes by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Kill(String),
    Stop(String),
    Pause(String),
    Cut(Vec<String>),
    /// Not heard, or deaf.
    OneWay(String, bool),
    /// The second does not hear the first; nor the first the second, when it says so.
    Partial(String, String, bool),
    Slow(String, Duration),
    Wipe(String),
    Disk(String, Ailment),
    Power,
}

impl Fault {
    /// Whether what its node had is gone, or cannot be relied on.
    fn is_ruin(&self) -> bool {
        matches!(self, Self::Wipe(_) | Self::Disk(_, Ailment::Rot(_)))
    }
}

/// Nodes that come or go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Join,
    Remove(String),
    Drain(String),
    /// Another takes its place.
    Lose(String),
    /// It joins again under its name, with nothing.
    Return(String),
    /// The partition with the most slots becomes two.
    Split,
}

/// One round.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) calm: Duration,
    pub(super) change: Option<Change>,
    pub(super) faults: Vec<Fault>,
    /// How much of what is known is compacted meanwhile, in thousandths.
    pub(super) compacts: Option<u64>,
    pub(super) hold: Duration,
    /// Whether connections that waited for a link are gone when it is whole again.
    pub(super) by_reset: bool,
}

/// A node, as far as it matters.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    /// How many groups it leads.
    pub(super) leads: u64,
    pub(super) is_founder: bool,
}

/// What rounds are drawn from.
pub(super) struct Plan {
    pub(super) kinds: Vec<Kind>,
    /// Nodes that the cluster began with.
    pub(super) nodes: usize,
    /// On how many everything is kept.
    pub(super) replicas: usize,
    /// How many nodes may be concerned at once.
    pub(super) faults_max: usize,
    pub(super) calm: Lasting,
    pub(super) hold: Lasting,
}

pub(super) fn millis(random: &mut Random, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.between(range.start, range.end))
}

impl Plan {
    /// The next round.
    pub(super) fn draw(&self, random: &mut Random, seen: &[Seen]) -> Round {
        let mut left = seen.to_vec();
        let change = (random.between(0, 100) < CHANGES).then(|| self.change(random, &left)).flatten();
        let mut budget = random.between(1, self.faults_max as u64 + 1) as usize;
        match &change {
            // What it had is in danger until others have it.
            Some(Change::Lose(_) | Change::Return(_)) => budget = 0,
            // It is to be seen that it moves also when others fail, and when nobody does.
            Some(_) if random.between(0, 3) == 0 => budget = 0,
            _ => {}
        }
        let founders = seen.iter().filter(|node| node.is_founder).count();
        let mut faults = Vec::new();
        while budget > 0
            && let Some((mut fault, nodes)) = self.fault(random, &mut left, budget, founders)
        {
            // Also where more are to be concerned than it has to survive, somebody has to have what was there.
            let ruined = faults.iter().filter(|fault: &&Fault| fault.is_ruin()).count();
            if let Fault::Wipe(name) | Fault::Disk(name, Ailment::Rot(_)) = &fault
                && ruined >= self.ruined_max()
            {
                fault = Fault::Kill(name.clone());
            }
            let is_all = fault == Fault::Power;
            faults.push(fault);
            budget = if is_all { 0 } else { budget.saturating_sub(nodes) };
        }
        Round {
            calm: self.calm.draw(random),
            change,
            faults,
            hold: self.hold.draw(random),
            compacts: self.compacts(random),
            by_reset: random.between(0, 2) == 0,
        }
    }

    /// How many may lose what they have at once: a minority of those that hold a group.
    fn ruined_max(&self) -> usize {
        (self.replicas.min(self.nodes).max(1) - 1) / 2
    }

    fn compacts(&self, random: &mut Random) -> Option<u64> {
        let is_due = self.kinds.contains(&Kind::Compact) && random.between(0, 100) < COMPACTIONS;
        is_due.then(|| random.between(1, 1_001))
    }

    fn change(&self, random: &mut Random, seen: &[Seen]) -> Option<Change> {
        let kinds: Vec<Kind> = self.kinds.iter().copied().filter(|kind| is_change(*kind)).collect();
        let kind = kinds.get(random.between(0, kinds.len() as u64) as usize)?;
        let node = seen.get(random.between(0, seen.len() as u64) as usize)?.name.clone();
        let spare = seen.len().saturating_sub(self.replicas);
        Some(match kind {
            Kind::Join if seen.len() >= self.nodes + EXTRA_MAX => Change::Remove(node),
            Kind::Join if seen.len() > self.nodes && random.between(0, 2) == 0 => Change::Remove(node),
            Kind::Join => Change::Join,
            // There must be somebody to take what it has.
            Kind::Drain if spare > 0 => Change::Drain(node),
            Kind::Drain => Change::Join,
            Kind::Split => Change::Split,
            _ if random.between(0, 2) == 0 => Change::Return(node),
            _ => Change::Lose(node),
        })
    }

    /// A fault, and how many nodes it concerns, which are then taken out of `left`.
    fn fault(
        &self,
        random: &mut Random,
        left: &mut Vec<Seen>,
        budget: usize,
        founders: usize,
    ) -> Option<(Fault, usize)> {
        let kinds: Vec<Kind> =
            self.kinds.iter().copied().filter(|kind| !is_change(*kind) && *kind != Kind::Compact).collect();
        let kind = *kinds.get(random.between(0, kinds.len() as u64) as usize)?;
        let is_of_leader = kind == Kind::HungDisk && random.between(0, 2) == 0;
        let first = if is_of_leader { take_leader(left) } else { take(random, left) }?;
        let name = first.name;
        Some(match kind {
            Kind::Kill => (Fault::Kill(name), 1),
            Kind::Stop => (Fault::Stop(name), 1),
            Kind::Pause => (Fault::Pause(name), 1),
            Kind::Cut => {
                let mut names = vec![name];
                let size = random.between(1, budget as u64 + 1) as usize;
                while names.len() < size
                    && let Some(next) = take(random, left)
                {
                    names.push(next.name);
                }
                let nodes = names.len();
                (Fault::Cut(names), nodes)
            }
            Kind::OneWay => (Fault::OneWay(name, random.between(0, 2) == 0), 1),
            Kind::Partial => {
                let other = take(random, left)?.name;
                (Fault::Partial(name, other, random.between(0, 2) == 0), 1)
            }
            Kind::Slow => (Fault::Slow(name, millis(random, SLOW_MILLIS)), 1),
            // Only founders come back without their directory, and ask other founders who is a member now, of whom one may leave just then; others join
            // anew.
            Kind::Wipe if first.is_founder && founders > 2 => (Fault::Wipe(name), 1),
            Kind::Power => (Fault::Power, left.len() + 1),
            _ => match Ailment::draw(kind, random) {
                Some(ailment) => (Fault::Disk(name, ailment), 1),
                None => (Fault::Kill(name), 1),
            },
        })
    }
}

fn is_change(kind: Kind) -> bool {
    matches!(kind, Kind::Lose | Kind::Join | Kind::Drain | Kind::Split)
}

/// Takes a node out: half of the time the one that leads most.
fn take(random: &mut Random, left: &mut Vec<Seen>) -> Option<Seen> {
    let drawn = random.between(0, left.len() as u64) as usize;
    if random.between(0, 2) == 0 {
        return take_leader(left);
    }
    (drawn < left.len()).then(|| left.remove(drawn))
}

/// Takes out the node that leads most.
fn take_leader(left: &mut Vec<Seen>) -> Option<Seen> {
    let leader = (0..left.len()).max_by_key(|at| left[*at].leads)?;
    Some(left.remove(leader))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kinds: Vec<Kind>, replicas: usize, faults_max: usize) -> Plan {
        Plan { kinds, nodes: 5, replicas, faults_max, calm: CALM, hold: HOLD }
    }

    fn concerned(fault: &Fault) -> usize {
        match fault {
            Fault::Cut(names) => names.len(),
            _ => 1,
        }
    }

    #[test]
    fn a_founder_loses_its_directory_only_while_there_are_others_to_ask() {
        let seen = |founders| -> Vec<Seen> {
            (1..=5).map(|at| Seen { name: format!("n{at}"), leads: 0, is_founder: at <= founders }).collect()
        };
        let plan = plan(USUAL.to_vec(), 3, 1);
        for founders in 1..=5 {
            let mut random = Random::new(founders);
            let mut rounds = (0..2_000).map(|_| plan.draw(&mut random, &seen(founders)));
            let is_wiped =
                rounds.any(|round| round.faults.iter().any(|fault| matches!(fault, Fault::Wipe(_))));
            assert_eq!(is_wiped, founders > 2);
        }
    }

    /// Where more may be concerned than the cluster has to survive, enough have all that was acknowledged.
    #[test]
    fn never_too_many_lose_what_they_have() {
        let seen: Vec<Seen> =
            (1..=5).map(|at| Seen { name: format!("n{at}"), leads: 0, is_founder: true }).collect();
        for (replicas, ruined_max) in [(1, 0), (3, 1), (5, 2)] {
            let kinds = vec![Kind::Wipe, Kind::Rot];
            let plan = plan(kinds, replicas, 5);
            let mut random = Random::new(3);
            let ruined = (0..500)
                .map(|_| plan.draw(&mut random, &seen).faults.iter().filter(|fault| fault.is_ruin()).count());
            assert_eq!(ruined.max(), Some(ruined_max));
        }
    }

    #[test]
    fn a_seed_gives_the_same_rounds_and_never_too_much_at_once() {
        let seen: Vec<Seen> = (1..=5)
            .map(|at| Seen { name: format!("n{at}"), leads: u64::from(at == 2), is_founder: at != 5 })
            .collect();
        for faults_max in [1, 2] {
            let kinds = [USUAL.as_slice(), DISKS.as_slice()].concat();
            let plan = plan(kinds, 2 * faults_max + 1, faults_max);
            let (mut random, mut again) = (Random::new(7), Random::new(7));
            for _ in 0..2_000 {
                let round = plan.draw(&mut random, &seen);
                assert_eq!(format!("{round:?}"), format!("{:?}", plan.draw(&mut again, &seen)));
                let nodes: usize = round.faults.iter().map(concerned).sum();
                assert!(nodes <= faults_max, "{round:?}");
                assert!(!round.faults.contains(&Fault::Wipe("n5".into())), "{round:?}");
                let is_loss = matches!(round.change, Some(Change::Lose(_) | Change::Return(_)));
                assert!(!is_loss || round.faults.is_empty(), "{round:?}");
            }
        }
    }
}
