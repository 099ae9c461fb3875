//! What people and programs get to see.

use crate::cluster::System;
use crate::costs::{Costs, Threads};
use crate::point::{Kind, Measured, Outcome, Point};
use serde_json::json;

/// One measurement, as soon as it is there.
pub(crate) fn line(measured: &Measured, with_costs: bool) {
    let label = format!("round {} {:<8}", measured.round + 1, measured.system.name());
    println!("{label}{}", row(measured.point, &measured.result));
    if with_costs {
        costs(&measured.result.costs);
    }
}

/// Medians over the rounds, ours over etcd's.
pub(crate) fn table(all: &[Measured], with_costs: bool) {
    let mut points: Vec<Point> = Vec::new();
    for measured in all {
        if !points.contains(&measured.point) {
            points.push(measured.point);
        }
    }
    println!("\nmedians");
    for point in points {
        let ours = median(all, System::Quorate, point);
        let theirs = median(all, System::Etcd, point);
        for (system, outcome) in [(System::Quorate, &ours), (System::Etcd, &theirs)] {
            if let Some(outcome) = outcome {
                println!("{:<8}{}", system.name(), row(point, outcome));
                if with_costs {
                    costs(&outcome.costs);
                }
            }
        }
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let speed = if !point.kind.is_load() {
                String::new()
            } else {
                format!(
                    "ops/s x{:.2}  cpu x{:.2}  ",
                    ours.ops_per_second / theirs.ops_per_second,
                    ours.cpu_per_op / theirs.cpu_per_op
                )
            };
            println!(
                "  ours/etcd: {speed}p50 x{:.2}  p99 x{:.2}  rss x{:.2}",
                ours.p50 / theirs.p50,
                ours.p99 / theirs.p99,
                ours.rss as f64 / theirs.rss as f64
            );
        }
    }
}

/// Every measurement, as JSON.
pub(crate) fn json(all: &[Measured]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|measured| {
            let (point, result) = (measured.point, &measured.result);
            json!({
                "system": measured.system.name(), "round": measured.round + 1,
                "point": point.kind.name(), "nodes": point.nodes, "clients": point.clients,
                "ops_per_second": result.ops_per_second, "p50_us": result.p50, "p99_us": result.p99,
                "cpu_us_per_op": result.cpu_per_op, "rss_bytes": result.rss, "errors": result.errors,
                "leader_us_per_op": result.costs.leader, "follower_us_per_op": result.costs.follower,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(rows))
}

fn row(point: Point, outcome: &Outcome) -> String {
    let Point { kind, nodes, clients } = point;
    let rss = outcome.rss >> 20;
    if kind == Kind::Failover {
        return format!("{nodes} nodes  leader killed: no write for {:.0} ms", outcome.p50 / 1e3);
    }
    if !kind.is_load() {
        let percent = |micros: f64| micros / 1e4;
        let sum = |threads: &Threads| percent(threads.values().sum());
        return format!(
            "{nodes} nodes {kind:<9} {:>6.2} % of a core in all: leader {:.2} %, the others {:.2} % each  rss {rss} MiB in all  \
             writes in all partitions {:.0} to {:.0} ms",
            percent(outcome.cpu_per_op),
            sum(&outcome.costs.leader),
            sum(&outcome.costs.follower),
            outcome.p50 / 1e3,
            outcome.p99 / 1e3,
        );
    }
    format!(
        "{nodes} nodes {clients:>4} clients {kind:<5} {:>8.0} ops/s  p50 {:>7.0} us  p99 {:>8.0} us  \
         cpu {:>6.1} us/op  rss {rss:>5} MiB  errors {}",
        outcome.ops_per_second, outcome.p50, outcome.p99, outcome.cpu_per_op, outcome.errors
    )
}

/// What each thread took.
fn costs(costs: &Costs) {
    for (who, threads) in [("leader", &costs.leader), ("follower", &costs.follower)] {
        let mut threads: Vec<_> = threads.iter().collect();
        threads.sort_by(|one, other| other.1.total_cmp(one.1));
        let shown: Vec<String> = threads.iter().map(|(name, micros)| format!("{name} {micros:.1}")).collect();
        if !shown.is_empty() {
            let sum: f64 = threads.iter().map(|(_, micros)| **micros).sum();
            println!("    us/op {who:<8} {sum:>7.1}: {}", shown.join(", "));
        }
    }
}

/// The median of each number by itself.
fn median(all: &[Measured], system: System, point: Point) -> Option<Outcome> {
    let of: Vec<Outcome> = all
        .iter()
        .filter(|measured| measured.system == system && measured.point == point)
        .map(|measured| measured.result.clone())
        .collect();
    let middle = |number: fn(&Outcome) -> f64| middle(of.iter().map(number).collect());
    let costs: Vec<Costs> = of.iter().map(|outcome| outcome.costs.clone()).collect();
    (!of.is_empty()).then(|| Outcome {
        ops_per_second: middle(|outcome| outcome.ops_per_second),
        p50: middle(|outcome| outcome.p50),
        p99: middle(|outcome| outcome.p99),
        cpu_per_op: middle(|outcome| outcome.cpu_per_op),
        rss: middle(|outcome| outcome.rss as f64) as u64,
        errors: of.iter().map(|outcome| outcome.errors).sum(),
        costs: Costs::combined(&costs, self::middle),
    })
}

/// The one in the middle, or between the two there.
pub(crate) fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[half] } else { (numbers[half - 1] + numbers[half]) / 2.0 }
}
