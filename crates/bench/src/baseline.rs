//! This commit beside an earlier one: what `--json FILE` wrote then, and what was measured now.
//!
//! A difference is one when the rounds of then and of now do not overlap, and the medians are further apart than rounding and luck with so few rounds explain.

use crate::Failure;
use crate::cluster::System;
use crate::point::{Measured, Metric};
use crate::report::{Median, medians, points};
use serde_json::{Value, json};
use std::path::Path;

/// Medians that are closer than this are the same.
const SAME: f64 = 0.05;

/// One number of then and now.
pub(crate) struct Compared {
    point: crate::point::Point,
    metric: Metric,
    then: Median,
    now: Median,
}

impl Compared {
    fn ratio(&self) -> f64 {
        self.now.middle / self.then.middle
    }

    /// `None` if it is as it was.
    fn is_better(&self) -> Option<bool> {
        let is_apart = self.now.least > self.then.most || self.now.most < self.then.least;
        let is_far = (self.ratio() - 1.0).abs() > SAME;
        (is_apart && is_far).then_some((self.ratio() > 1.0) == self.metric.is_gain())
    }

    fn words(&self) -> &'static str {
        match self.is_better() {
            Some(true) => "better",
            Some(false) => "WORSE",
            None => "as before",
        }
    }
}

/// The measurements of a file.
pub(crate) fn read(file: &Path) -> Result<Vec<Value>, Failure> {
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let rows = value.get("measurements").unwrap_or(&value).as_array().cloned();
    rows.ok_or_else(|| format!("{} has no measurements in it", file.display()).into())
}

/// Ours of now beside ours of then, where there is both.
pub(crate) fn compare(then: &[Value], all: &[Measured]) -> Vec<Compared> {
    let mut compared = Vec::new();
    for point in points(all) {
        for (metric, now) in medians(all, System::Quorate, point) {
            let is_same = |row: &&Value| {
                row["system"] == System::Quorate.name()
                    && row["point"] == point.kind.name()
                    && row["nodes"] == point.nodes
                    && row["clients"] == point.clients
                    && row["disturbed"] != true
            };
            let numbers = then.iter().filter(is_same).filter_map(|row| row[metric.key()].as_f64()).collect();
            if let Some(then) = Median::of(numbers).filter(|then| then.middle > 0.0) {
                compared.push(Compared { point, metric, then, now });
            }
        }
    }
    compared
}

/// For people.
pub(crate) fn print(compared: &[Compared]) {
    if compared.is_empty() {
        println!("\nthe baseline has none of these points, or only disturbed measurements of them");
        return;
    }
    println!("\n{:<28} {:<15} {:>12} {:>12} {:>8}", "beside the baseline", "", "then", "now", "ratio");
    for line in compared {
        let Compared { metric, then, now, .. } = line;
        println!(
            "{:<28} {:<15} {:>12} {:>12} {:>8.2} {}",
            line.point.to_string(),
            metric.words(),
            metric.shown(then.middle),
            metric.shown(now.middle),
            line.ratio(),
            line.words()
        );
    }
}

/// For programs.
pub(crate) fn json(compared: &[Compared]) -> Value {
    let row = |line: &Compared| {
        let Compared { point, metric, then, now } = line;
        json!({
            "point": point.kind.name(), "nodes": point.nodes, "clients": point.clients, "metric": metric.key(),
            "then": then.middle, "now": now.middle, "ratio": line.ratio(), "state": line.words(),
        })
    };
    compared.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::{Kind, Outcome, Point};
    use crate::report::measurements;

    fn rounds(metric: Metric, numbers: &[f64]) -> Vec<Measured> {
        let point = Point { kind: Kind::Put, nodes: 3, clients: 64 };
        let measured = |(round, number): (usize, &f64)| {
            let outcome = Outcome { metrics: [(metric, *number)].into(), ..Outcome::default() };
            Measured { system: System::Quorate, round: round as u32, point, outcome, is_disturbed: false }
        };
        numbers.iter().enumerate().map(measured).collect()
    }

    fn said(metric: Metric, then: &[f64], now: &[f64]) -> &'static str {
        let then = measurements(&rounds(metric, then));
        compare(then.as_array().unwrap(), &rounds(metric, now))[0].words()
    }

    #[test]
    fn rounds_that_overlap_are_as_before() {
        assert_eq!(said(Metric::Rate, &[100.0, 120.0], &[110.0, 200.0]), "as before");
        assert_eq!(said(Metric::Rate, &[100.0], &[104.0]), "as before");
    }

    #[test]
    fn more_operations_are_better_and_more_time_is_worse() {
        assert_eq!(said(Metric::Rate, &[100.0, 101.0], &[110.0, 111.0]), "better");
        assert_eq!(said(Metric::P99, &[100.0, 101.0], &[110.0, 111.0]), "WORSE");
        assert_eq!(said(Metric::P99, &[110.0, 111.0], &[100.0, 101.0]), "better");
    }
}
