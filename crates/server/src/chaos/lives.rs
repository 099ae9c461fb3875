//! What each node went through: from when to when it was part of the cluster, and what was done to it meanwhile.
//!
//! Written down by who does it ([`super::faults`]), so it says what was done, not what the node made of it. Times are microseconds, as in the book.

use super::plan::{Change, Fault};
use std::collections::BTreeMap;

/// Spans of all nodes together; what would be more is only counted. A run of a day has about 60,000.
const SPANS_MAX: usize = 100_000;

/// What a node can be in, at times in several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    /// Its process was started and has not served yet.
    Starting,
    Down,
    /// SIGSTOP.
    Paused,
    /// It had to begin with nothing, and has not served yet.
    Filling,
    /// It and the others do not hear each other.
    Cut,
    /// It hears nobody.
    Deaf,
    /// Nobody hears it.
    Mute,
    /// One other and it do not hear each other, or one the other.
    Partial,
    Slow,
    /// Its disk has no space, or little.
    Full,
    SlowDisk,
    /// Its disk stands still.
    Hung,
    /// Its disk refuses to write or sync.
    Failing,
    /// Bits on its disk have flipped, and it is not known yet that it is well again.
    Rotten,
    Joining,
    Draining,
    Leaving,
    /// It is away for so long that it counts as lost.
    Lost,
}

impl Condition {
    /// As reports say it; these names stay.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Down => "down",
            Self::Paused => "paused",
            Self::Filling => "filling",
            Self::Cut => "cut",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
            Self::Partial => "partial",
            Self::Slow => "slow",
            Self::Full => "full",
            Self::SlowDisk => "slow-disk",
            Self::Hung => "hung",
            Self::Failing => "failing",
            Self::Rotten => "rotten",
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Lost => "lost",
        }
    }

    fn is_of_links(self) -> bool {
        matches!(self, Self::Cut | Self::Deaf | Self::Mute | Self::Partial | Self::Slow)
    }

    fn is_of_disks(self) -> bool {
        matches!(self, Self::Full | Self::SlowDisk | Self::Hung | Self::Failing)
    }
}

/// From when to when; without an end it lasted until the run was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) condition: Condition,
    pub(super) from: u64,
    pub(super) until: Option<u64>,
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) name: String,
    pub(super) from: u64,
    /// When it was gone for good.
    pub(super) until: Option<u64>,
    /// In order of their beginnings.
    pub(super) spans: Vec<Span>,
    /// Where the spans are that have not ended.
    open: BTreeMap<Condition, usize>,
    /// Whether its data was deleted, and it has not begun without them yet.
    is_wiped: bool,
}

/// All that ever took part, in order of their coming.
#[derive(Clone, Debug, Default)]
pub(super) struct Lives {
    pub(super) nodes: Vec<Life>,
    /// Spans that there was no room for.
    pub(super) left_out: u64,
    count: usize,
}

impl Lives {
    /// The cluster has it from now on.
    pub(super) fn born(&mut self, name: &str, at: u64) {
        let (spans, open) = (Vec::new(), BTreeMap::new());
        self.nodes.push(Life { name: name.to_owned(), from: at, until: None, spans, open, is_wiped: false });
    }

    /// It is gone, with whatever it was in.
    pub(super) fn gone(&mut self, name: &str, at: u64) {
        let Some(life) = self.of(name) else { return };
        life.until = Some(at);
        life.end(|_| true, at);
    }

    pub(super) fn begin(&mut self, name: &str, condition: Condition, at: u64) {
        let is_full = self.count >= SPANS_MAX;
        let Some(life) = self.of(name) else { return };
        if life.open.contains_key(&condition) {
            return;
        }
        if is_full {
            self.left_out += 1;
            return;
        }
        life.open.insert(condition, life.spans.len());
        life.spans.push(Span { condition, from: at, until: None });
        self.count += 1;
    }

    pub(super) fn end(&mut self, name: &str, condition: Condition, at: u64) {
        if let Some(life) = self.of(name) {
            life.end(|of| of == condition, at);
        }
    }

    /// A fault has just been done.
    pub(super) fn suffered(&mut self, fault: &Fault, at: u64) {
        let one = |name: &String, condition| vec![(name.clone(), condition)];
        let there = || self.nodes.iter().filter(|life| life.until.is_none());
        let begun = match fault {
            Fault::Kill(name) | Fault::Stop(name) | Fault::Wipe(name) => one(name, Condition::Down),
            Fault::Pause(name) => one(name, Condition::Paused),
            Fault::Cut(names) => names.iter().map(|name| (name.clone(), Condition::Cut)).collect(),
            Fault::OneWay(name, true) => one(name, Condition::Deaf),
            Fault::OneWay(name, false) => one(name, Condition::Mute),
            Fault::Partial(a, b, _) => [a, b].map(|name| (name.clone(), Condition::Partial)).to_vec(),
            Fault::Slow(name, _) => one(name, Condition::Slow),
            Fault::Disk(name, ailment) => {
                ailment.conditions().iter().map(|condition| (name.clone(), *condition)).collect()
            }
            Fault::Power => there().map(|life| (life.name.clone(), Condition::Down)).collect(),
        };
        for (name, condition) in begun {
            self.begin(&name, condition, at);
        }
        if let Fault::Wipe(name) = fault
            && let Some(life) = self.of(name)
        {
            life.is_wiped = true;
        }
    }

    /// A change of nodes has begun.
    pub(super) fn changed(&mut self, change: &Change, at: u64) {
        match change {
            // Its name is known when it has come.
            Change::Join | Change::Split => {}
            Change::Remove(name) => self.begin(name, Condition::Leaving, at),
            Change::Drain(name) => self.begin(name, Condition::Draining, at),
            Change::Lose(name) => self.gone(name, at),
            Change::Return(name) => self.begin(name, Condition::Lost, at),
        }
    }

    /// All links and disks are well again.
    pub(super) fn mended(&mut self, at: u64) {
        let is_over = |condition: Condition| condition.is_of_links() || condition.is_of_disks();
        self.nodes.iter_mut().for_each(|life| life.end(is_over, at));
    }

    /// Its process runs again, and has to begin.
    pub(super) fn started(&mut self, name: &str, at: u64) {
        self.end(name, Condition::Down, at);
        self.begin(name, Condition::Starting, at);
        if self.of(name).is_some_and(|life| std::mem::take(&mut life.is_wiped)) {
            self.begin(name, Condition::Filling, at);
        }
    }

    /// It was asked, and does what a node shall do.
    pub(super) fn served(&mut self, name: &str, at: u64) {
        for condition in [Condition::Starting, Condition::Filling] {
            self.end(name, condition, at);
        }
    }

    /// The one of that name that is there: a name can have been of another before.
    fn of(&mut self, name: &str) -> Option<&mut Life> {
        self.nodes.iter_mut().rev().find(|life| life.name == name && life.until.is_none())
    }
}

impl Life {
    fn end(&mut self, is_meant: impl Fn(Condition) -> bool, at: u64) {
        self.open.retain(|condition, span| {
            let is_over = is_meant(*condition);
            if is_over {
                self.spans[*span].until = Some(at);
            }
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(lives: &Lives, name: &str) -> Vec<(&'static str, u64, Option<u64>)> {
        let of_name = lives.nodes.iter().filter(|life| life.name == name).flat_map(|life| &life.spans);
        of_name.map(|span| (span.condition.name(), span.from, span.until)).collect()
    }

    #[test]
    fn a_node_is_down_then_starts_then_serves() {
        let mut lives = Lives::default();
        lives.born("n1", 0);
        lives.born("n2", 0);
        lives.suffered(&Fault::Wipe("n1".into()), 10);
        lives.suffered(&Fault::Slow("n2".into(), std::time::Duration::from_millis(20)), 11);
        lives.mended(20);
        lives.started("n1", 20);
        // It was never away.
        lives.served("n2", 21);
        lives.served("n1", 30);
        let expected = [("down", 10, Some(20)), ("starting", 20, Some(30)), ("filling", 20, Some(30))];
        assert_eq!(spans(&lives, "n1"), expected);
        assert_eq!(spans(&lives, "n2"), [("slow", 11, Some(20))]);
    }

    #[test]
    fn who_is_gone_is_in_nothing_any_more_and_its_name_can_come_again() {
        let mut lives = Lives::default();
        lives.born("n1", 0);
        lives.changed(&Change::Remove("n1".into()), 5);
        lives.gone("n1", 9);
        lives.suffered(&Fault::Kill("n1".into()), 10);
        assert_eq!(spans(&lives, "n1"), [("leaving", 5, Some(9))]);
        lives.born("n1", 12);
        lives.suffered(&Fault::Power, 13);
        assert_eq!(spans(&lives, "n1"), [("leaving", 5, Some(9)), ("down", 13, None)]);
        assert_eq!(lives.nodes.len(), 2);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut lives = Lives::default();
        lives.born("n1", 0);
        for at in 0..SPANS_MAX as u64 + 5 {
            lives.begin("n1", Condition::Down, at);
            lives.end("n1", Condition::Down, at);
        }
        assert_eq!((lives.nodes[0].spans.len(), lives.left_out), (SPANS_MAX, 5));
    }
}
