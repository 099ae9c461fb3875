//! Looking for cliffs: one dimension after the other, from little to much, with all else as usual. Each gives two pictures, of rates and of latencies.

use crate::chart::{self, Line};
use crate::cluster::{Cluster, System};
use crate::keys::PREFIX;
use crate::point::{Metric, Outcome};
use crate::{Failure, Options, load, report};
use quorate_load::{Keys, Kind, Load, Times, fill};
use serde_json::{Value, json};
use std::path::Path;

const NODES: usize = 3;
const CLIENTS: usize = 64;
const KEYS: u64 = 10_000;
/// Of the watches, as in the fan-out of the targets.
const EVENTS: f64 = 100.0;
/// Many watchers are told of fewer writes: otherwise the generator is what is measured.
const EVENTS_MAX: f64 = 50_000.0;
/// etcd refuses writes above 2 GiB if nothing is said; ours has this by default.
const QUOTA: [&str; 2] = ["--quota-backend-bytes", "8589934592"];

/// A dimension.
struct Axis {
    name: &'static str,
    /// What is varied, for people.
    across: &'static str,
    values: &'static [u64],
    kinds: &'static [Kind],
    load: fn(Kind, u64) -> Load,
    /// Whether a value begins with an empty cluster: what an earlier one left would be in its way.
    is_alone: bool,
}

fn usual(kind: Kind) -> Load {
    Load::new(kind, CLIENTS, Keys::new(PREFIX, KEYS, 1))
}

const AXES: [Axis; 5] = [
    Axis {
        name: "clients",
        across: "clients",
        values: &[1, 4, 16, 64, 256, 1_000, 2_000],
        kinds: &[Kind::Put, Kind::Get],
        load: |kind, value| Load { clients: value as usize, ..usual(kind) },
        is_alone: false,
    },
    Axis {
        name: "values",
        across: "bytes of a value",
        values: &[16, 256, 4 << 10, 64 << 10, 1 << 20],
        kinds: &[Kind::Put, Kind::Get],
        // A hundred keys of the largest are as much as a store likes to have twice.
        load: |kind, value| Load {
            value_bytes: value as usize,
            keys: Keys::new(PREFIX, (100_000_000 / value).clamp(100, KEYS), 1),
            ..usual(kind)
        },
        is_alone: true,
    },
    Axis {
        name: "keys",
        across: "keys",
        values: &[100_000, 300_000, 1_000_000, 3_000_000, 10_000_000],
        kinds: &[Kind::Put, Kind::Get],
        load: |kind, value| Load { keys: Keys::new(PREFIX, value, 1), ..usual(kind) },
        is_alone: false,
    },
    Axis {
        name: "watchers",
        across: "watchers",
        values: &[1, 10, 100, 1_000, 3_000, 10_000],
        kinds: &[Kind::Watch],
        load: |kind, value| Load {
            clients: value as usize,
            rate: Some(EVENTS.min(EVENTS_MAX / value as f64)),
            ..usual(kind)
        },
        is_alone: false,
    },
    Axis {
        name: "leases",
        across: "leases",
        values: &[100, 1_000, 10_000, 50_000, 200_000],
        kinds: &[Kind::KeepAlive],
        load: |kind, value| Load { leases: value, ..usual(kind) },
        is_alone: false,
    },
];

/// The names of the dimensions.
pub(crate) fn axes() -> [&'static str; AXES.len()] {
    AXES.map(|axis| axis.name)
}

/// Goes along the axes with each system, and writes what it finds into a directory: JSON, and pictures.
pub(crate) async fn run(options: &Options, directory: &Path, times: Times) -> Result<Value, Failure> {
    std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut systems = vec![System::Quorate];
    systems.extend(options.etcd.is_some().then_some(System::Etcd));
    let mut all = Vec::new();
    let is_meant =
        |axis: &&Axis| options.axes.is_empty() || options.axes.iter().any(|name| name == axis.name);
    for axis in AXES.iter().filter(is_meant) {
        let mut found: Vec<(System, Kind, u64, Outcome)> = Vec::new();
        for &system in &systems {
            let mut cluster = None;
            for &value in axis.values.iter().filter(|value| options.up_to.is_none_or(|most| **value <= most))
            {
                if axis.is_alone || cluster.is_none() {
                    // The old one has to be gone before its directory is used again.
                    drop(cluster.take());
                    cluster = Some(start(options, system).await?);
                }
                let cluster = cluster.as_ref().ok_or("there is no cluster")?;
                for &kind in axis.kinds {
                    let load = (axis.load)(kind, value);
                    let outcome = measure(cluster, axis, &load, times).await;
                    let outcome = outcome.map_err(|failure| format!("{} {value}: {failure}", axis.name))?;
                    report::swept(system, axis.name, kind.name(), value, &outcome);
                    found.push((system, kind, value, outcome));
                }
            }
        }
        draw(axis, &found, directory)?;
        all.extend(found.iter().map(|found| row(axis, found)));
    }
    let all = Value::from(all);
    let file = directory.join("sweep.json");
    std::fs::write(&file, format!("{all:#}\n")).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(all)
}

async fn start(options: &Options, system: System) -> Result<Cluster, Failure> {
    let (program, more): (_, &[&str]) = match system {
        System::Quorate => (&options.quorate, &[]),
        _ => (options.etcd.as_ref().ok_or("where is etcd? --etcd says it")?, &QUOTA),
    };
    Cluster::start_with(system, program, &options.directory, NODES, options.partitions, more).await
}

async fn measure(cluster: &Cluster, axis: &Axis, load: &Load, times: Times) -> Result<Outcome, Failure> {
    // Also writes are to find as many keys as they are said to.
    if axis.name == "keys" && load.kind == Kind::Put {
        fill(&cluster.lines().await?, &load.keys, load.value_bytes).await?;
    }
    load::run(cluster, load, times).await
}

fn row(axis: &Axis, (system, kind, value, outcome): &(System, Kind, u64, Outcome)) -> Value {
    let mut row = json!({
        "axis": axis.name, "system": system.name(), "kind": kind.name(), "value": value,
        "errors": outcome.errors, "problem": outcome.problem, "others_share": outcome.others,
    });
    for (metric, number) in &outcome.metrics {
        row[metric.key()] = json!(number);
    }
    row
}

fn draw(axis: &Axis, found: &[(System, Kind, u64, Outcome)], directory: &Path) -> Result<(), Failure> {
    for &kind in axis.kinds {
        for (metric, up) in [(Metric::Rate, "ops/s"), (Metric::P99, "p99, us")] {
            let line = |system: System| {
                let of = found.iter().filter(|(of, of_kind, ..)| *of == system && *of_kind == kind);
                let point = |(.., value, outcome): &(System, Kind, u64, Outcome)| {
                    Some((*value as f64, *outcome.metrics.get(&metric)?))
                };
                Line { name: system.name().to_owned(), points: of.filter_map(point).collect() }
            };
            let lines = [line(System::Quorate), line(System::Etcd)];
            let title = format!("{}: {} by {}", kind.name(), metric.words(), axis.across);
            let name = format!("{}-{}-{}.svg", axis.name, kind.name(), metric.words());
            let file = directory.join(name);
            std::fs::write(&file, chart::draw(&title, axis.across, up, &lines))
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    Ok(())
}
