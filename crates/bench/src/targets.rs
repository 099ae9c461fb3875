//! What quorate is to reach, beside etcd on the same machine, and whether it does.
//!
//! Three nodes, or one, as processes on loopback; keys of 16 bytes, values of 256; data on disk. This table is the only place where the aims are
//! written down; `docs/performance.md` explains them.

use crate::cluster::System;
use crate::point::{Kind, Measured, Metric, Point};
use crate::report::{middle, spread};

/// What is wanted of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    /// Ours is at least so many times etcd's.
    Times(f64),
    /// Ours is at most such a part of etcd's.
    Part(f64),
    /// Ours is at most so much, whatever etcd's is.
    Within(f64),
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) point: Point,
    pub(crate) metric: Metric,
    pub(crate) aim: Aim,
}

const fn target(nodes: usize, kind: Kind, clients: usize, metric: Metric, aim: Aim) -> Target {
    Target { point: Point { kind, nodes, clients }, metric, aim }
}

/// A system of whose operations a larger part fails is not measured by those that do not.
const FAILED_MAX: f64 = 0.001;

/// The table.
pub(crate) const TARGETS: &[Target] = &[
    target(3, Kind::Put, 1, Metric::Rate, Aim::Times(1.5)),
    target(3, Kind::Put, 64, Metric::Rate, Aim::Times(2.5)),
    target(3, Kind::Put, 64, Metric::CpuPerOp, Aim::Part(0.4)),
    target(3, Kind::Put, 64, Metric::P99, Aim::Part(0.5)),
    target(3, Kind::Put, 256, Metric::Rate, Aim::Times(2.5)),
    target(3, Kind::Put, 256, Metric::CpuPerOp, Aim::Part(0.4)),
    target(3, Kind::Put, 256, Metric::P99, Aim::Part(0.5)),
    target(3, Kind::Get, 64, Metric::Rate, Aim::Times(2.5)),
    target(3, Kind::Get, 64, Metric::CpuPerOp, Aim::Part(0.4)),
    target(3, Kind::Get, 256, Metric::Rate, Aim::Times(2.0)),
    target(3, Kind::Get, 256, Metric::CpuPerOp, Aim::Part(0.4)),
    target(3, Kind::GetSerializable, 64, Metric::Rate, Aim::Times(2.0)),
    target(3, Kind::Cas, 64, Metric::Rate, Aim::Times(2.5)),
    target(3, Kind::Mixed, 64, Metric::Rate, Aim::Times(4.0)),
    target(3, Kind::Range, 64, Metric::Rate, Aim::Times(3.0)),
    target(3, Kind::Fanout, 1_000, Metric::P99, Aim::Part(0.3)),
    target(3, Kind::Fanout, 1_000, Metric::CpuPerOp, Aim::Part(0.5)),
    target(3, Kind::KeepAlive, 64, Metric::Rate, Aim::Times(2.5)),
    target(3, Kind::Lock, 16, Metric::Rate, Aim::Times(5.0)),
    target(3, Kind::Killed, 0, Metric::FirstWrite, Aim::Within(250.0)),
    target(3, Kind::Paused, 0, Metric::FirstWrite, Aim::Within(800.0)),
    target(1, Kind::Put, 64, Metric::Rate, Aim::Times(1.6)),
    target(1, Kind::Put, 256, Metric::Rate, Aim::Times(1.6)),
    target(1, Kind::Get, 64, Metric::Rate, Aim::Times(2.0)),
    target(3, Kind::Keys, 0, Metric::Rss, Aim::Part(0.4)),
    target(3, Kind::Keys, 0, Metric::Disk, Aim::Part(0.7)),
    target(3, Kind::Keys, 0, Metric::Restart, Aim::Part(0.3)),
    target(3, Kind::Keys, 0, Metric::RestartKilled, Aim::Part(0.3)),
];

/// The points of the table on clusters of some size, in its order.
pub(crate) fn points(nodes: usize) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for target in TARGETS.iter().filter(|target| target.point.nodes == nodes) {
        if !points.contains(&target.point) {
            points.push(target.point);
        }
    }
    points
}

impl Aim {
    /// As people write it.
    pub(crate) fn words(self, metric: Metric) -> String {
        match self {
            Aim::Times(times) => format!(">= {times} x"),
            Aim::Part(part) => format!("<= {part} x"),
            Aim::Within(most) => format!("<= {}", metric.shown(most)),
        }
    }

    fn is_met(self, ours: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Aim::Times(times) => ratio.map(|ratio| ratio >= times),
            Aim::Part(part) => ratio.map(|ratio| ratio <= part),
            Aim::Within(most) => Some(ours <= most),
        }
    }
}

/// How a target fares.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) target: Target,
    /// Medians over the rounds.
    pub(crate) ours: Option<f64>,
    pub(crate) theirs: Option<f64>,
    /// Ours over theirs, of the medians.
    pub(crate) ratio: Option<f64>,
    /// The least and the most of the rounds by themselves.
    pub(crate) ratios: Option<(f64, f64)>,
    /// `None` if that cannot be said: not measured, or only while others used the machine.
    pub(crate) is_met: Option<bool>,
    pub(crate) is_disturbed: bool,
}

/// Holds every target against what was measured.
pub(crate) fn verdicts(all: &[Measured]) -> Vec<Verdict> {
    TARGETS.iter().map(|target| verdict(*target, all)).collect()
}

fn verdict(target: Target, all: &[Measured]) -> Verdict {
    let of = |system| rounds(all, system, target);
    let ((ours, is_ours), (theirs, is_theirs)) = (of(System::Quorate), of(System::Etcd));
    let median = |rounds: &[(u32, f64)]| {
        (!rounds.is_empty()).then(|| middle(rounds.iter().map(|(_, number)| *number).collect()))
    };
    let over = |ours: f64, theirs: f64| (theirs > 0.0).then(|| ours / theirs);
    let ratio = median(&ours).zip(median(&theirs)).and_then(|(ours, theirs)| over(ours, theirs));
    let by_round = ours.iter().filter_map(|(round, number)| {
        let (_, theirs) = theirs.iter().find(|(of, _)| of == round)?;
        over(*number, *theirs)
    });
    let needs_theirs = !matches!(target.aim, Aim::Within(_));
    let is_disturbed = !is_ours || (needs_theirs && !is_theirs);
    let said = median(&ours).and_then(|ours| target.aim.is_met(ours, ratio));
    let said = match (fails(all, System::Quorate, target), fails(all, System::Etcd, target)) {
        (true, _) => said.map(|_| false),
        (false, true) if needs_theirs => None,
        _ => said,
    };
    Verdict {
        target,
        ours: median(&ours),
        theirs: median(&theirs),
        ratio,
        ratios: spread(by_round.collect()),
        is_met: said.filter(|_| !is_disturbed),
        is_disturbed,
    }
}

/// Whether so many operations failed that what is measured of the others says nothing.
fn fails(all: &[Measured], system: System, target: Target) -> bool {
    let of = |measured: &&Measured| measured.system == system && measured.point == target.point;
    all.iter().filter(of).any(|measured| measured.outcome.failed > FAILED_MAX)
}

/// The rounds' numbers, and whether they count. Those that somebody disturbed are left out, unless all were: then they are shown, and do not count.
fn rounds(all: &[Measured], system: System, target: Target) -> (Vec<(u32, f64)>, bool) {
    let of: Vec<_> =
        all.iter().filter(|measured| measured.system == system && measured.point == target.point).collect();
    let some = of.iter().any(|measured| !measured.is_disturbed);
    let kept = of.iter().filter(|measured| !some || !measured.is_disturbed);
    let number = |measured: &&&Measured| {
        measured.outcome.metrics.get(&target.metric).map(|number| (measured.round, *number))
    };
    (kept.filter_map(|measured| number(&measured)).collect(), some || of.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::Outcome;

    const TARGET: Target = target(3, Kind::Put, 64, Metric::Rate, Aim::Times(2.5));

    fn measured(system: System, round: u32, rate: f64, is_disturbed: bool) -> Measured {
        let metrics = [(Metric::Rate, rate)].into();
        let outcome = Outcome { metrics, ..Outcome::default() };
        Measured { system, round, point: TARGET.point, outcome, is_disturbed }
    }

    #[test]
    fn what_fails_meets_nothing_and_is_nothing_to_be_measured_by() {
        let of = |ours: f64, theirs: f64| {
            let mut all =
                [measured(System::Quorate, 0, 900.0, false), measured(System::Etcd, 0, 100.0, false)];
            (all[0].outcome.failed, all[1].outcome.failed) = (ours, theirs);
            verdict(TARGET, &all).is_met
        };
        assert_eq!([of(0.0, 0.0), of(0.01, 0.0), of(0.0, 0.01)], [Some(true), Some(false), None]);
    }

    #[test]
    fn medians_are_compared_and_the_spread_is_that_of_the_rounds() {
        let all: Vec<Measured> = [(0, 300.0, 100.0), (1, 500.0, 100.0), (2, 200.0, 100.0)]
            .into_iter()
            .flat_map(|(round, ours, theirs)| {
                [measured(System::Quorate, round, ours, false), measured(System::Etcd, round, theirs, false)]
            })
            .collect();
        let verdict = verdict(TARGET, &all);
        assert_eq!((verdict.ratio, verdict.ratios), (Some(3.0), Some((2.0, 5.0))));
        assert_eq!(verdict.is_met, Some(true));
    }

    #[test]
    fn what_falls_short_is_said_to() {
        let all = [measured(System::Quorate, 0, 249.0, false), measured(System::Etcd, 0, 100.0, false)];
        assert_eq!(verdict(TARGET, &all).is_met, Some(false));
    }

    #[test]
    fn a_disturbed_round_is_left_out_and_only_disturbed_ones_say_nothing() {
        let mut all =
            vec![measured(System::Quorate, 0, 900.0, true), measured(System::Etcd, 0, 100.0, false)];
        assert_eq!((verdict(TARGET, &all).is_met, verdict(TARGET, &all).is_disturbed), (None, true));
        all.push(measured(System::Quorate, 1, 200.0, false));
        assert_eq!((verdict(TARGET, &all).ours, verdict(TARGET, &all).is_met), (Some(200.0), Some(false)));
    }

    #[test]
    fn without_etcd_only_what_needs_none_is_judged() {
        assert_eq!(verdict(TARGET, &[measured(System::Quorate, 0, 1.0, false)]).is_met, None);
        let gap = target(3, Kind::Put, 64, Metric::Rate, Aim::Within(2.0));
        assert_eq!(verdict(gap, &[measured(System::Quorate, 0, 1.0, false)]).is_met, Some(true));
    }
}
