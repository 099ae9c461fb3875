//! What a run comes to in numbers, worked out once for all ways to show it.

use super::Report;
use super::series::Series;
use crate::chaos::plan::Kind;
use crate::chaos::timeline::acknowledged;
use quorate_checker::Violation;
use quorate_checker::calls::Outcome;
use quorate_checker::watches::Told;
use std::collections::BTreeMap;

/// A time without any acknowledged write is worth a mark from here on, in microseconds: no calm second has one.
const GAP_MARKED: u64 = 500_000;
/// The longest are listed.
const GAPS_MAX: usize = 500;

/// How calls ended.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) answered: usize,
    pub(super) refused: usize,
    pub(super) unknown: usize,
}

/// What rounds with faults of a kind came to; others may have been in the same round. Microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfKind {
    pub(super) rounds: usize,
    /// How many nodes were concerned, all rounds together.
    pub(super) nodes: usize,
    pub(super) gap_median: u64,
    pub(super) gap_max: u64,
    /// In which round that was.
    pub(super) worst: usize,
    /// How long at most it took until all served, after all was made well.
    pub(super) recovery_max: u64,
}

/// All of it.
pub(super) struct Figures {
    /// When writes were acknowledged, in order.
    pub(super) acknowledged: Vec<u64>,
    pub(super) counts: Counts,
    /// Streams and events of all watches.
    pub(super) watched: (usize, usize),
    pub(super) series: Series,
    /// From when to when no write was acknowledged, in order of time.
    pub(super) gaps: Vec<(u64, u64)>,
    pub(super) kinds: BTreeMap<Kind, OfKind>,
    /// From when to when each violation was, where it says so.
    pub(super) moments: Vec<Option<(u64, u64)>>,
}

impl Figures {
    pub(super) fn of(report: &Report) -> Self {
        let acknowledged = acknowledged(&report.written.calls);
        let moments = report.verdict.violations.iter().enumerate().map(|(at, violation)| {
            // The first is the one that ended the run, if any did.
            moment(violation).or_else(|| report.stopped.filter(|_| at == 0).map(|stopped| (stopped, stopped)))
        });
        Self {
            counts: counts(report),
            watched: watched(report),
            series: Series::of(&report.written.calls, report.elapsed),
            gaps: gaps(&acknowledged, report.elapsed),
            kinds: kinds(report, &acknowledged),
            moments: moments.collect(),
            acknowledged,
        }
    }
}

fn counts(report: &Report) -> Counts {
    let mut counts = Counts::default();
    for call in &report.written.calls {
        match call.outcome {
            Outcome::Reply(..) => counts.answered += 1,
            Outcome::Refused(_) => counts.refused += 1,
            Outcome::Unknown(_) => counts.unknown += 1,
        }
    }
    counts
}

fn watched(report: &Report) -> (usize, usize) {
    let told = || report.written.watched.iter().flat_map(|watched| &watched.told);
    let events = told().map(|told| match told {
        Told::Events(events) => events.len(),
        _ => 0,
    });
    (told().filter(|told| matches!(told, Told::Opened(_))).count(), events.sum())
}

/// From the first acknowledged write on: before it nobody was to expect one.
fn gaps(acknowledged: &[u64], elapsed: u64) -> Vec<(u64, u64)> {
    let end = acknowledged.partition_point(|at| *at < elapsed);
    let within = &acknowledged[..end];
    let behind = within.iter().skip(1).copied().chain([elapsed]);
    let gaps = within.iter().copied().zip(behind);
    let mut gaps: Vec<(u64, u64)> = gaps.filter(|(from, until)| until - from >= GAP_MARKED).collect();
    gaps.sort_unstable_by_key(|(from, until)| std::cmp::Reverse(until - from));
    gaps.truncate(GAPS_MAX);
    gaps.sort_unstable();
    gaps
}

fn kinds(report: &Report, acknowledged: &[u64]) -> BTreeMap<Kind, OfKind> {
    let mut kinds: BTreeMap<Kind, (OfKind, Vec<u64>)> = BTreeMap::new();
    for (round, entry) in report.timeline.iter().enumerate() {
        let (gap, _) = entry.gap(acknowledged, report.elapsed);
        let mut of_round: Vec<Kind> = entry.deeds.iter().map(|deed| deed.kind).collect();
        of_round.sort_unstable();
        of_round.dedup();
        for deed in &entry.deeds {
            kinds.entry(deed.kind).or_default().0.nodes += deed.concerned;
        }
        let served = entry.served.unwrap_or(report.elapsed);
        let recovery = entry.healed.map_or(0, |healed| served.saturating_sub(healed));
        for kind in of_round {
            let (of_kind, gaps) = kinds.entry(kind).or_default();
            if gaps.is_empty() || gap > of_kind.gap_max {
                (of_kind.gap_max, of_kind.worst) = (gap, round);
            }
            gaps.push(gap);
            of_kind.rounds += 1;
            of_kind.recovery_max = of_kind.recovery_max.max(recovery);
        }
    }
    let median = |(kind, (mut of_kind, mut gaps)): (Kind, (OfKind, Vec<u64>))| {
        gaps.sort_unstable();
        of_kind.gap_median = gaps[(gaps.len() - 1) / 2];
        (kind, of_kind)
    };
    kinds.into_iter().map(median).collect()
}

/// When a violation was, as far as its evidence says: lines about calls begin with their times.
fn moment(violation: &Violation) -> Option<(u64, u64)> {
    let times = violation.evidence.iter().filter_map(|line| times(line));
    times.reduce(|(from, until), (first, last)| (from.min(first), until.max(last)))
}

/// "1.5 to 2.0 s, ..." or "1.5 s: ...", as calls and leases are shown, in microseconds.
fn times(line: &str) -> Option<(u64, u64)> {
    let (times, rest) = line.split_once(" s")?;
    if !rest.starts_with([',', ':']) {
        return None;
    }
    let micros = |text: &str| {
        let seconds: f64 =
            text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)?;
        Some((seconds * 1e6).round() as u64)
    };
    match times.split_once(" to ") {
        Some((from, until)) => Some((micros(from)?, micros(until)?)),
        None => micros(times).map(|at| (at, at)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, put, report};
    use super::*;
    use crate::chaos::plan::Fault;

    #[test]
    fn the_times_of_calls_are_read_from_what_is_said_of_them() {
        let call = put(4, 1_250_000, 61_000_001);
        assert_eq!(times(&call.to_string()), Some((1_250_000, 61_000_001)));
        assert_eq!(times("3.5 s: it is gone"), Some((3_500_000, 3_500_000)));
        for other in ["", "n1: 5 s", "-1.0 s: x", "inf s, x", "1.0 to s, x", "12 sheep"] {
            assert_eq!(times(other), None, "{other}");
        }
        let evidence = ["n2: nothing".to_owned(), call.to_string(), "70.0 s: gone".to_owned()];
        let violation = Violation::new("wrong", evidence.to_vec());
        assert_eq!(moment(&violation), Some((1_250_000, 70_000_000)));
        assert_eq!(moment(&Violation::new("wrong", Vec::new())), None);
    }

    #[test]
    fn what_ended_the_run_was_at_its_end() {
        let mut report = report();
        report.verdict.violations = vec![Violation::new("it ended", vec![]), Violation::new("x", vec![])];
        report.stopped = Some(9);
        assert_eq!(Figures::of(&report).moments, [Some((9, 9)), None]);
    }

    #[test]
    fn only_long_times_without_a_write_are_marked() {
        let check = |times: &[u64], expected: &[(u64, u64)]| {
            assert_eq!(gaps(times, 2_000_000), expected, "{times:?}");
        };
        check(&[], &[]);
        check(&[1_900_000], &[]);
        check(&[100_000, 600_000, 1_099_999, 1_600_000], &[(100_000, 600_000), (1_099_999, 1_600_000)]);
        // Until the end; what was acknowledged after it does not count.
        check(&[1_000_000, 2_500_000], &[(1_000_000, 2_000_000)]);
        let many: Vec<u64> = (0..2_000).map(|at| at * 1_000_000).collect();
        assert_eq!(gaps(&many, 2_000_000_000).len(), GAPS_MAX);
    }

    #[test]
    fn a_round_counts_once_for_each_kind() {
        let mut report = report();
        let kill = |name: &str| Fault::Kill(name.into());
        report.elapsed = 1_000;
        report.timeline = vec![
            entry(&[kill("n1"), kill("n2")], 0, Some(50), Some(80)),
            entry(&[kill("n1"), Fault::Power], 100, Some(200), None),
        ];
        let kinds = Figures::of(&report).kinds;
        let kill = OfKind { rounds: 2, nodes: 3, gap_median: 80, gap_max: 900, worst: 1, recovery_max: 800 };
        assert_eq!(kinds[&Kind::Kill], kill);
        assert_eq!(kinds[&Kind::Power], OfKind { rounds: 1, nodes: 0, gap_median: 900, ..kill });
        assert_eq!(kinds.len(), 2);
    }
}
