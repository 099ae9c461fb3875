//! Flame graphs: where servers spend their processor time under each load (Gregg, "The Flame Graph", CACM 59(6), 2016).
//!
//! `perf` looks at the three nodes many times a second while a load goes on. The server should be built with frame pointers, as `cargo xtask bench --flames` does it: without
//! them stacks end early. Each load gives a picture (SVG) and its stacks as `flamegraph.pl` and its like read them.

mod picture;
mod stacks;

use crate::cluster::{Cluster, System};
use crate::keys;
use crate::plan;
use crate::point::{Kind, Metric, Point};
use crate::{Failure, Options, load, report};
use quorate_load::Times;
use stacks::Tree;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Notify;

const NODES: usize = 3;
/// Looks a second, at each processor: odd, lest they keep time with ticks, and few, for each costs the servers something.
const FREQUENCY: &str = "499";
/// What is said if `perf` cannot be run.
const NEEDED: &str = "flame graphs need Linux's perf (package linux-perf or linux-tools), and the right to use it (as root, or with sysctl kernel.perf_event_paranoid=1)";

/// What is drawn if nothing is asked for.
const USUAL: [(Kind, usize); 8] = [
    (Kind::Put, 1),
    (Kind::Put, 64),
    (Kind::Get, 64),
    (Kind::Mixed, 64),
    (Kind::Range, 64),
    (Kind::Fanout, 1_000),
    (Kind::KeepAlive, 64),
    (Kind::Lock, 16),
];

/// Draws each load into a directory.
pub(crate) async fn run(options: &Options, directory: &Path, times: Times) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let points: Vec<Point> = if options.points.is_empty() {
        USUAL.map(|(kind, clients)| Point { kind, nodes: NODES, clients }).into()
    } else {
        let sessions = plan::asked(false, &[NODES], &options.points, &options.clients);
        sessions.into_iter().flat_map(|session| session.points).collect()
    };
    for point in points {
        let keys = keys::keys_for(point.kind, options.directories, options.partitions)?;
        let load = load::load_of(point, &keys)
            .ok_or_else(|| format!("{}: only loads of clients are drawn", point.kind))?;
        let (program, parent) = (&options.quorate, &options.directory);
        let cluster = Cluster::start(System::Quorate, program, parent, NODES, options.partitions).await?;
        let data = directory.join("perf.data");
        let begun = Notify::new();
        let (outcome, ()) = tokio::try_join!(
            load::run_and_tell(&cluster, &load, times, Some(&begun)),
            record(&cluster, times, &data, &begun)
        )?;
        let leader = cluster.pids()[cluster.leader().await?];
        let tree = Tree::read(&script(&data).await?, |pid| if pid == leader { "leader" } else { "follower" });
        let name = format!("{}-{}", point.kind, point.clients);
        let title = format!(
            "{point}, {} partition(s): {:.1} us of all servers' processors an operation",
            options.partitions,
            outcome.metrics.get(&Metric::CpuPerOp).copied().unwrap_or_default()
        );
        write(&directory.join(format!("{name}.svg")), &picture::draw(&title, &tree))?;
        write(&directory.join(format!("{name}.folded")), &tree.folded())?;
        let _ = std::fs::remove_file(&data);
        report::drawn(point, &outcome, tree.total());
    }
    Ok(())
}

/// Looks at the servers while operations count.
async fn record(cluster: &Cluster, times: Times, data: &Path, begun: &Notify) -> Result<(), Failure> {
    begun.notified().await;
    let pids: Vec<String> = cluster.pids().iter().map(u32::to_string).collect();
    let seconds = times.duration.saturating_sub(Duration::from_millis(200)).as_secs_f64();
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-e", "cpu-clock", "-F", FREQUENCY, "-g", "-o"]).arg(data);
    perf.args(["-p", &pids.join(","), "--", "sleep", &format!("{seconds:.1}")]);
    let output = perf.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("cannot run perf: {error}; {NEEDED}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("perf record: {}; {NEEDED}", said.trim()).into());
    }
    Ok(())
}

/// All that was seen, as text.
async fn script(data: &Path) -> Result<String, Failure> {
    let mut perf = Command::new("perf");
    perf.args(["script", "--no-inline", "-F", "comm,pid,ip,sym", "-i"]).arg(data);
    let output = perf.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        return Err(format!("perf script: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}
