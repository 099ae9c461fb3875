//! Carries a plan out: rounds, systems in turns, and again what somebody disturbed.

use crate::cluster::{Cluster, System};
use crate::keys;
use crate::plan::Session;
use crate::point::{Kind, Measured, Outcome, Point};
use crate::{Failure, Options, failover, idle, load, many, report};
use quorate_load::Times;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How everything is measured.
pub(crate) struct How {
    pub(crate) rounds: u32,
    pub(crate) times: Times,
    /// Keys of [`Kind::Keys`] and [`Kind::Compaction`].
    pub(crate) many: u64,
    /// How often a leader is killed or paused for a measurement.
    pub(crate) kills: u32,
    /// How often something is measured until it is undisturbed, and until when it is tried again.
    pub(crate) tries: u32,
    pub(crate) try_until: Option<Instant>,
}

/// What came out, and how many measurements were thrown away.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) all: Vec<Measured>,
    pub(crate) thrown_away: u32,
}

/// Measures all of it.
pub(crate) async fn run(options: &Options, sessions: &[Session], how: &How) -> Result<Found, Failure> {
    let mut found = Found::default();
    // What makes no sense is said before anything is started.
    for point in sessions.iter().flat_map(|session| &session.points) {
        keys::keys_for(point.kind, options.directories, options.partitions)?;
    }
    for round in 0..how.rounds {
        for session in sessions {
            // Who goes first changes from round to round.
            for turn in 0..session.systems.len() {
                let system = session.systems[(turn + round as usize) % session.systems.len()];
                let program = program(options, system)?;
                let mut cluster =
                    Cluster::start(system, &program, &options.directory, session.nodes, options.partitions)
                        .await?;
                for &point in &session.points {
                    if system != System::Quorate && point.kind == Kind::Txn2 {
                        continue;
                    }
                    let (outcome, is_disturbed) =
                        undisturbed(options, &mut cluster, point, how, &mut found.thrown_away).await?;
                    let measured = Measured { system, round, point, outcome, is_disturbed };
                    report::line(&measured, options.costs);
                    found.all.push(measured);
                }
            }
        }
    }
    Ok(found)
}

fn program(options: &Options, system: System) -> Result<PathBuf, Failure> {
    match system {
        System::Quorate => Ok(options.quorate.clone()),
        System::Etcd | System::EtcdSooner => {
            Ok(options.etcd.clone().ok_or("where is etcd? --etcd says it")?)
        }
    }
}

/// The first measurement that nobody disturbs, or else the least disturbed one, and that it is.
async fn undisturbed(
    options: &Options,
    cluster: &mut Cluster,
    point: Point,
    how: &How,
    thrown_away: &mut u32,
) -> Result<(Outcome, bool), Failure> {
    let most = options.disturbed_above / 100.0;
    let mut best: Option<Outcome> = None;
    for attempt in 1.. {
        let outcome = measure(options, cluster, point, how).await?;
        if outcome.others <= most {
            return Ok((outcome, false));
        }
        report::disturbed(cluster.system(), point, outcome.others);
        *thrown_away += 1;
        if best.as_ref().is_none_or(|best| outcome.others < best.others) {
            best = Some(outcome);
        }
        let is_late = how.try_until.is_some_and(|until| Instant::now() >= until);
        if attempt >= how.tries || is_late || !point.kind.is_repeatable() {
            break;
        }
    }
    Ok((best.ok_or("nothing was tried")?, true))
}

async fn measure(
    options: &Options,
    cluster: &mut Cluster,
    point: Point,
    how: &How,
) -> Result<Outcome, Failure> {
    let partitions = options.partitions;
    let duration: Duration = how.times.duration;
    match point.kind {
        Kind::Killed | Kind::Paused => failover::run(cluster, point.kind, how.kills).await,
        Kind::Keys => many::keys(cluster, how.many).await,
        Kind::Compaction => many::compaction(cluster, how.many).await,
        Kind::Idle => idle::run(cluster, partitions, duration).await,
        Kind::Survivors => idle::survivors(cluster, partitions, duration).await,
        kind => {
            let keys = keys::keys_for(kind, options.directories, partitions)?;
            let load = load::load_of(point, &keys).ok_or("this is no load")?;
            load::run(cluster, &load, how.times).await
        }
    }
}
