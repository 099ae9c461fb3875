//! What people and programs get to see.

use crate::cluster::System;
use crate::point::{Kind, Measured, Outcome, Point};
use serde_json::json;

/// One measurement, as soon as it is there.
pub(crate) fn line(measured: &Measured) {
    let label = format!("round {} {:<8}", measured.round + 1, measured.system.name());
    println!("{label}{}", row(measured.point, &measured.result));
}

/// Medians over the rounds, ours over etcd's.
pub(crate) fn table(all: &[Measured]) {
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
            }
        }
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let speed = if point.kind == Kind::Failover {
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
            let (point, result) = (measured.point, measured.result);
            json!({
                "system": measured.system.name(), "round": measured.round + 1,
                "point": point.kind.name(), "nodes": point.nodes, "clients": point.clients,
                "ops_per_second": result.ops_per_second, "p50_us": result.p50, "p99_us": result.p99,
                "cpu_us_per_op": result.cpu_per_op, "rss_bytes": result.rss, "errors": result.errors,
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
    format!(
        "{nodes} nodes {clients:>4} clients {kind:<5} {:>8.0} ops/s  p50 {:>7.0} us  p99 {:>8.0} us  \
         cpu {:>6.1} us/op  rss {rss:>5} MiB  errors {}",
        outcome.ops_per_second, outcome.p50, outcome.p99, outcome.cpu_per_op, outcome.errors
    )
}

/// The median of each number by itself.
fn median(all: &[Measured], system: System, point: Point) -> Option<Outcome> {
    let of: Vec<Outcome> = all
        .iter()
        .filter(|measured| measured.system == system && measured.point == point)
        .map(|measured| measured.result)
        .collect();
    let middle = |number: fn(&Outcome) -> f64| {
        let mut numbers: Vec<f64> = of.iter().map(number).collect();
        numbers.sort_by(f64::total_cmp);
        let half = numbers.len() / 2;
        if numbers.len() % 2 == 1 { numbers[half] } else { (numbers[half - 1] + numbers[half]) / 2.0 }
    };
    (!of.is_empty()).then(|| Outcome {
        ops_per_second: middle(|outcome| outcome.ops_per_second),
        p50: middle(|outcome| outcome.p50),
        p99: middle(|outcome| outcome.p99),
        cpu_per_op: middle(|outcome| outcome.cpu_per_op),
        rss: middle(|outcome| outcome.rss as f64) as u64,
        errors: of.iter().map(|outcome| outcome.errors).sum(),
    })
}
