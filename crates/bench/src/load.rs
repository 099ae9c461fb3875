//! A point of load: what clients are told, and what it costs the servers.

use crate::Failure;
use crate::cluster::Cluster;
use crate::costs::{Costs, Meter};
use crate::disturbance::Watch;
use crate::point::{Kind, Metric, Outcome, Point};
use crate::process;
use quorate_load::{Keys, Load, Measured, Observer, Stop, Times};
use tokio::sync::Notify;

/// How many writes a second everybody is told of.
const FANOUT_RATE: f64 = 100.0;

/// What the servers took, and others, while operations counted.
struct Probe<'a> {
    cluster: &'a Cluster,
    leader: usize,
    pids: Vec<u32>,
    begun: Option<(Watch, Meter, f64)>,
    /// What others had, the servers' processor time, by thread and in all.
    found: Option<(f64, Result<Costs, Failure>, f64)>,
    told: Option<&'a Notify>,
}

impl Observer for Probe<'_> {
    fn begun(&mut self) {
        let meter = Meter::start(self.cluster, self.leader);
        self.begun = Some((Watch::start(&self.pids), meter, process::cpu_micros(&self.pids)));
        if let Some(told) = self.told {
            told.notify_one();
        }
    }

    fn ended(&mut self) {
        if let Some((watch, meter, cpu)) = &self.begun {
            let cpu = process::cpu_micros(&self.pids) - cpu;
            // In all; how many operations they were is not known yet.
            self.found = Some((watch.stop(&self.pids), meter.stop(1.0), cpu));
        }
    }
}

/// What a point asks for.
pub(crate) fn load_of(point: Point, keys: &Keys) -> Option<Load> {
    let rate = (point.kind == Kind::Fanout).then_some(FANOUT_RATE);
    Some(Load { rate, ..Load::new(point.kind.load()?, point.clients, keys.clone()) })
}

/// Measures a load on a cluster.
pub(crate) async fn run(cluster: &Cluster, load: &Load, times: Times) -> Result<Outcome, Failure> {
    run_and_tell(cluster, load, times, None).await
}

/// The same; somebody is told when operations begin to count.
pub(crate) async fn run_and_tell(
    cluster: &Cluster,
    load: &Load,
    times: Times,
    told: Option<&Notify>,
) -> Result<Outcome, Failure> {
    let lines = cluster.lines().await?;
    let leader = cluster.leader().await?;
    let mut probe = Probe { cluster, leader, pids: cluster.pids(), begun: None, found: None, told };
    let measured = quorate_load::measure(&lines, load, times, &Stop::default(), &mut probe).await?;
    let (others, costs, cpu) = probe.found.ok_or("the load ended before it began")?;
    Ok(outcome(&measured, others, &costs?, cpu, process::rss(&cluster.pids())))
}

fn outcome(measured: &Measured, others: f64, costs: &Costs, cpu: f64, rss: u64) -> Outcome {
    let operations = (measured.operations as f64).max(1.0);
    let metrics = [
        (Metric::Rate, measured.rate()),
        (Metric::P50, measured.micros(0.5)),
        (Metric::P99, measured.micros(0.99)),
        (Metric::P999, measured.micros(0.999)),
        (Metric::P99Felt, measured.raw.value_at_quantile(0.99) as f64 / 1e3),
        (Metric::Longest, measured.micros_max()),
        (Metric::CpuPerOp, cpu / operations),
        (Metric::Rss, rss as f64),
    ];
    Outcome {
        metrics: metrics.into(),
        errors: measured.errors + measured.unanswered,
        failed: (measured.errors + measured.unanswered) as f64 / operations,
        problem: measured.problem.clone(),
        costs: Costs::combined(std::slice::from_ref(costs), |micros| micros[0] / operations),
        others,
    }
}
