//! What people and programs get to see. What goes on is said on standard error; standard output has the result.

use crate::cluster::System;
use crate::costs::{Costs, Threads};
use crate::point::{Measured, Metric, Outcome, Point};
use crate::targets::Verdict;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SYSTEMS: [System; 3] = [System::Quorate, System::Etcd, System::EtcdSooner];

/// One measurement, as soon as it is there.
pub(crate) fn line(measured: &Measured, with_costs: bool) {
    let Measured { system, round, point, outcome, .. } = measured;
    let errors = match &outcome.problem {
        Some(problem) => format!("  errors {}: {problem}", outcome.errors),
        None if outcome.errors > 0 => format!("  errors {}", outcome.errors),
        None => String::new(),
    };
    let disturbed = if measured.is_disturbed { "  DISTURBED" } else { "" };
    let numbers = numbers(&outcome.metrics);
    eprintln!("round {} {:<10} {point:<28}{numbers}{errors}{disturbed}", round + 1, system.name());
    if with_costs {
        costs(&outcome.costs, |text| eprintln!("{text}"));
    }
}

/// A measurement on the way along an axis.
pub(crate) fn swept(system: System, axis: &str, kind: &str, value: u64, outcome: &Outcome) {
    let errors = if outcome.errors > 0 { format!("  errors {}", outcome.errors) } else { String::new() };
    eprintln!("{axis} {value:<10} {:<10} {kind:<12}{}{errors}", system.name(), numbers(&outcome.metrics));
}

/// A load that was drawn.
pub(crate) fn drawn(point: Point, outcome: &Outcome, seen: u64) {
    eprintln!("{point:<28}{}  {seen} stacks", numbers(&outcome.metrics));
}

/// A measurement that does not count.
pub(crate) fn disturbed(system: System, point: Point, others: f64) {
    let percent = others * 100.0;
    eprintln!(
        "        {:<10} {point:<28}others had {percent:.0} % of the machine: thrown away",
        system.name()
    );
}

/// Medians over the rounds, with their spread, and ours over etcd's.
pub(crate) fn table(all: &[Measured], with_costs: bool) {
    println!("\nmedians (least to most of the rounds)");
    for point in points(all) {
        let of = |system| medians(all, system, point);
        for system in SYSTEMS {
            let medians = of(system);
            if medians.is_empty() {
                continue;
            }
            let numbers: Vec<String> = medians.iter().map(|(metric, median)| median.words(*metric)).collect();
            println!("{:<10} {point:<28}{}", system.name(), numbers.join("  "));
            if with_costs {
                let of = counted(all, system, point);
                let all: Vec<Costs> = of.iter().map(|measured| measured.outcome.costs.clone()).collect();
                costs(&Costs::combined(&all, middle), |text| println!("{text}"));
            }
        }
        let (ours, theirs) = (of(System::Quorate), of(System::Etcd));
        let ratios: Vec<String> = ours
            .iter()
            .filter_map(|(metric, ours)| {
                let theirs = theirs.get(metric).filter(|theirs| theirs.middle > 0.0)?;
                Some(format!("{} x{:.2}", metric.words(), ours.middle / theirs.middle))
            })
            .collect();
        if !ratios.is_empty() {
            println!("{:<10} {:<28}{}", "  ours/etcd", "", ratios.join("  "));
        }
    }
}

/// How the targets fare.
pub(crate) fn verdicts(verdicts: &[Verdict]) {
    println!(
        "\n{:<28} {:<15} {:>12} {:>12}  {:<26} {:<12}",
        "target", "", "quorate", "etcd", "ratio (least to most)", "wanted"
    );
    for verdict in verdicts {
        let metric = verdict.target.metric;
        let number = |number: Option<f64>| number.map_or("-".to_owned(), |number| metric.shown(number));
        let ratio = match (verdict.ratio, verdict.ratios) {
            (Some(ratio), Some((least, most))) => format!("x {ratio:.2} ({least:.2} to {most:.2})"),
            _ => "-".to_owned(),
        };
        let point = verdict.target.point.to_string();
        let aim = verdict.target.aim.words(metric);
        println!(
            "{point:<28} {:<15} {:>12} {:>12}  {ratio:<26} {aim:<12} {}",
            metric.words(),
            number(verdict.ours),
            number(verdict.theirs),
            state(verdict)
        );
    }
}

fn state(verdict: &Verdict) -> &'static str {
    match verdict.is_met {
        Some(true) => "met",
        Some(false) => "FALLS SHORT",
        None if verdict.is_disturbed => "disturbed",
        None => "not measured",
    }
}

/// The targets, as JSON.
pub(crate) fn verdicts_json(verdicts: &[Verdict]) -> Value {
    let row = |verdict: &Verdict| {
        let target = verdict.target;
        json!({
            "point": target.point.kind.name(), "nodes": target.point.nodes, "clients": target.point.clients,
            "metric": target.metric.key(), "wanted": target.aim.words(target.metric),
            "quorate": verdict.ours, "etcd": verdict.theirs, "ratio": verdict.ratio,
            "ratio_least": verdict.ratios.map(|(least, _)| least), "ratio_most": verdict.ratios.map(|(_, most)| most),
            "met": verdict.is_met, "state": state(verdict),
        })
    };
    verdicts.iter().map(row).collect()
}

/// Every measurement, as JSON.
pub(crate) fn measurements(all: &[Measured]) -> Value {
    let row = |measured: &Measured| {
        let (point, outcome) = (measured.point, &measured.outcome);
        let mut row = json!({
            "system": measured.system.name(), "round": measured.round + 1,
            "point": point.kind.name(), "nodes": point.nodes, "clients": point.clients,
            "errors": outcome.errors, "problem": outcome.problem,
            "others_share": outcome.others, "disturbed": measured.is_disturbed,
            "leader_us_per_op": outcome.costs.leader, "follower_us_per_op": outcome.costs.follower,
        });
        for (metric, number) in &outcome.metrics {
            row[metric.key()] = json!(number);
        }
        row
    };
    all.iter().map(row).collect()
}

fn numbers(metrics: &BTreeMap<Metric, f64>) -> String {
    let shown =
        metrics.iter().map(|(metric, number)| format!("{} {}", metric.words(), metric.shown(*number)));
    shown.collect::<Vec<String>>().join("  ")
}

/// What each thread took.
fn costs(costs: &Costs, print: impl Fn(String)) {
    let sides: [(&str, &Threads); 2] = [("leader", &costs.leader), ("follower", &costs.follower)];
    for (who, threads) in sides {
        let mut threads: Vec<_> = threads.iter().collect();
        threads.sort_by(|one, other| other.1.total_cmp(one.1));
        let shown: Vec<String> = threads.iter().map(|(name, micros)| format!("{name} {micros:.1}")).collect();
        if !shown.is_empty() {
            let sum: f64 = threads.iter().map(|(_, micros)| **micros).sum();
            print(format!("    us/op {who:<8} {sum:>7.1}: {}", shown.join(", ")));
        }
    }
}

/// All points that were measured, in that order.
pub(crate) fn points(all: &[Measured]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for measured in all {
        if !points.contains(&measured.point) {
            points.push(measured.point);
        }
    }
    points
}

/// The rounds of a point that count: those that nobody disturbed, or all if none is left.
fn counted(all: &[Measured], system: System, point: Point) -> Vec<&Measured> {
    let of = || all.iter().filter(|measured| measured.system == system && measured.point == point);
    let some = of().any(|measured| !measured.is_disturbed);
    of().filter(|measured| !some || !measured.is_disturbed).collect()
}

/// A number over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    pub(crate) middle: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Median {
    pub(crate) fn of(numbers: Vec<f64>) -> Option<Self> {
        let (least, most) = spread(numbers.clone())?;
        Some(Self { middle: middle(numbers), least, most })
    }

    fn words(&self, metric: Metric) -> String {
        let spread = if self.least == self.most {
            String::new()
        } else {
            format!(" ({} to {})", metric.shown(self.least), metric.shown(self.most))
        };
        format!("{} {}{spread}", metric.words(), metric.shown(self.middle))
    }
}

/// Each number of a point by itself.
pub(crate) fn medians(all: &[Measured], system: System, point: Point) -> BTreeMap<Metric, Median> {
    let mut numbers: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
    for measured in counted(all, system, point) {
        for (metric, number) in &measured.outcome.metrics {
            numbers.entry(*metric).or_default().push(*number);
        }
    }
    numbers.into_iter().filter_map(|(metric, numbers)| Some((metric, Median::of(numbers)?))).collect()
}

/// The least and the most.
pub(crate) fn spread(numbers: Vec<f64>) -> Option<(f64, f64)> {
    let least = numbers.iter().copied().reduce(f64::min)?;
    Some((least, numbers.into_iter().reduce(f64::max)?))
}

/// The one in the middle, or between the two there. Not a number if there is none.
pub(crate) fn middle(mut numbers: Vec<f64>) -> f64 {
    if numbers.is_empty() {
        return f64::NAN;
    }
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[half] } else { (numbers[half - 1] + numbers[half]) / 2.0 }
}
