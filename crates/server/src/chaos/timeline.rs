//! What happened when, and for how long nothing was acknowledged meanwhile.

use super::plan::{Change, Fault, Kind};
use quorate_checker::calls::Call;
use quorate_checker::model::says_changed;
use serde_json::{Value, json};
use std::borrow::Cow;

/// Something that was done to nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    pub(super) kind: Kind,
    /// In a word; there are two of some kinds.
    pub(super) word: Cow<'static, str>,
    /// To whom, unless to all.
    pub(super) nodes: Vec<String>,
    /// To how many.
    pub(super) concerned: usize,
}

impl Deed {
    /// One of a kind that is called as the kind.
    fn new(kind: Kind, word: impl Into<Cow<'static, str>>, nodes: &[&String]) -> Self {
        Self::of(kind, word, nodes.iter().map(|name| (*name).clone()).collect())
    }

    fn of(kind: Kind, word: impl Into<Cow<'static, str>>, nodes: Vec<String>) -> Self {
        Self { kind, word: word.into(), concerned: nodes.len(), nodes }
    }

    /// Something that was done to some of so many nodes, or to all of them.
    pub(super) fn among(fault: &Fault, all: usize) -> Self {
        let deed = Self::from(fault);
        let concerned = if deed.nodes.is_empty() { all } else { deed.concerned };
        Self { concerned, ..deed }
    }

    pub(super) fn of_change(change: &Change, joined: Option<&String>) -> Self {
        match change {
            Change::Split => Self::new(Kind::Split, "split", &[]),
            Change::Join => Self::new(Kind::Join, "join", joined.as_slice()),
            Change::Remove(name) => Self::new(Kind::Join, "remove", &[name]),
            Change::Drain(name) => Self::new(Kind::Drain, "drain", &[name]),
            Change::Lose(name) => Self::new(Kind::Lose, "lose", &[name]),
            Change::Return(name) => Self::new(Kind::Lose, "rejoin", &[name]),
        }
    }

    /// Something that others do.
    pub(super) fn named(kind: Kind, node: &str) -> Self {
        Self::of(kind, kind.name(), vec![node.to_owned()])
    }

    pub(super) fn compaction() -> Self {
        Self::new(Kind::Compact, "compact", &[])
    }

    pub(super) fn text(&self) -> String {
        if self.nodes.is_empty() {
            self.word.to_string()
        } else {
            format!("{} {}", self.word, self.nodes.join("+"))
        }
    }
}

impl From<&Fault> for Deed {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Kill(name) => Self::new(Kind::Kill, "kill", &[name]),
            Fault::Stop(name) => Self::new(Kind::Stop, "stop", &[name]),
            Fault::Pause(name) => Self::new(Kind::Pause, "pause", &[name]),
            Fault::Cut(names) => Self::of(Kind::Cut, "cut", names.clone()),
            Fault::OneWay(name, true) => Self::new(Kind::OneWay, "deaf", &[name]),
            Fault::OneWay(name, false) => Self::new(Kind::OneWay, "mute", &[name]),
            Fault::Partial(a, b, _) => Self::new(Kind::Partial, "partial", &[a, b]),
            Fault::Slow(name, _) => Self::new(Kind::Slow, "slow", &[name]),
            Fault::Wipe(name) => Self::new(Kind::Wipe, "wipe", &[name]),
            Fault::Disk(name, ailment) => Self::new(ailment.kind(), ailment.word(), &[name]),
            Fault::Power => Self::new(Kind::Power, "power", &[]),
        }
    }
}

/// One fault, or several at a time, or a change of nodes. Times are microseconds. What has no end was under way when the run ended.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) what: String,
    pub(super) deeds: Vec<Deed>,
    pub(super) begun: u64,
    /// When all was made well again.
    pub(super) healed: Option<u64>,
    /// When all nodes served again.
    pub(super) served: Option<u64>,
}

impl Entry {
    /// How long at most no write was acknowledged from its beginning until all nodes served again, or the run ended; and since when.
    pub(super) fn gap(&self, acknowledged: &[u64], end: u64) -> (u64, u64) {
        let served = self.served.unwrap_or(end).max(self.begun);
        let first = acknowledged.partition_point(|at| *at < self.begun);
        let last = acknowledged.partition_point(|at| *at < served);
        let within = acknowledged[first..last].iter().copied();
        let mut gap = (0, self.begun);
        let mut last = self.begun;
        for at in within.chain([served]) {
            if at - last > gap.0 {
                gap = (at - last, last);
            }
            last = at;
        }
        gap
    }

    pub(super) fn text(&self, acknowledged: &[u64], end: u64) -> String {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let span = |from: Option<u64>, until: Option<u64>, done: &str, not: &str| match (from, until) {
            (Some(from), Some(until)) => format!("{done} {:.1} s", seconds(until.saturating_sub(from))),
            _ => not.to_owned(),
        };
        format!(
            "{:>7.1} s  {}; {}, {} later; longest write gap {} ms",
            seconds(self.begun),
            self.what,
            span(Some(self.begun), self.healed, "made well after", "not made well"),
            span(self.healed, self.served, "served", "not all served"),
            self.gap(acknowledged, end).0 / 1000
        )
    }

    pub(super) fn json(&self, acknowledged: &[u64], end: u64) -> Value {
        let millis = |micros: u64| micros / 1000;
        let (gap, since) = self.gap(acknowledged, end);
        let deed = |deed: &Deed| json!({"kind": deed.kind.name(), "word": deed.word, "nodes": deed.nodes});
        json!({
            "what": self.what,
            "faults": self.deeds.iter().map(deed).collect::<Vec<_>>(),
            "begun_ms": millis(self.begun),
            "healed_ms": self.healed.map(millis),
            "served_ms": self.served.map(millis),
            "write_gap_ms": millis(gap),
            "write_gap_since_ms": millis(since),
        })
    }
}

/// When writes were acknowledged, in order.
pub(super) fn acknowledged(calls: &[Call]) -> Vec<u64> {
    let changed = |call: &&Call| call.reply().is_some_and(|(_, answer)| says_changed(answer));
    let mut times: Vec<u64> = calls.iter().filter(changed).map(|call| call.answered).collect();
    times.sort_unstable();
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_reaches_from_the_fault_to_the_end() {
        let deeds = vec![Deed::from(&Fault::Kill("n1".into()))];
        let mut entry =
            Entry { what: "kill".into(), deeds, begun: 100, healed: Some(150), served: Some(200) };
        let check = |entry: &Entry, times: &[u64], gap| assert_eq!(entry.gap(times, 300), gap, "{times:?}");
        check(&entry, &[], (100, 100));
        check(&entry, &[90, 210], (100, 100));
        check(&entry, &[110, 170, 190], (60, 110));
        check(&entry, &[160, 170], (60, 100));
        // The run ended before it.
        entry.served = None;
        check(&entry, &[160, 170], (130, 170));
        assert!(entry.text(&[], 300).contains("not all served"), "{}", entry.text(&[], 300));
    }
}
