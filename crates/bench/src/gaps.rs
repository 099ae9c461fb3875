//! For how long writes to each partition stand still when a node that leads some of them is killed, drained or stopped.
//!
//! Partitions are dealt over five nodes. One has the weight of two, so that it leads a third of them. Every partition has a writer of its own, a closed loop with
//! a short pause, connected with a node that stays. Its *gap* is the longest time from when it began a write to when that was acknowledged, all attempts
//! together; one that still lasts at the end counts. It is told beside the longest in as much time before, in which nothing was done.

use crate::Failure;
use crate::cluster::{Cluster, System};
use crate::http;
use crate::keys;
use quorate_api::pb::PutRequest;
use quorate_api::pb::kv_client::KvClient;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

const NODES: usize = 5;
const REPLICAS: &str = "3";
/// The node that leads a third.
const HEAVY: usize = 1;
const HEAVY_WEIGHT: u32 = 2;
/// Between two writes of a writer: else all of them together are all that the machine can do.
const PAUSE: Duration = Duration::from_millis(10);
/// After an attempt that failed.
const AGAIN: Duration = Duration::from_millis(1);
/// What is measured lasts at least so long, and so does what it is compared with.
const WINDOW: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(250);
/// Everything is where it is to be when it has stayed there for so long: leaders go back to who is to lead every two seconds.
const SETTLED: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(120);

/// What is done to a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// kill -9, of one that does not number the revisions.
    Kill,
    /// The same of the one that does: until another does, nobody can write.
    KillSequencer,
    /// It is emptied by order.
    Drain,
    /// SIGTERM, of one that does not number the revisions.
    Stop,
    /// The same of the one that does.
    StopSequencer,
}

impl Deed {
    fn words(self) -> &'static str {
        match self {
            Deed::Kill => "kill -9",
            Deed::KillSequencer => "kill -9, sequencer",
            Deed::Drain => "drain",
            Deed::Stop => "SIGTERM",
            Deed::StopSequencer => "SIGTERM, sequencer",
        }
    }
}

/// How one partition's writer fares.
#[derive(Default)]
struct Writer {
    /// When the write under way began, in microseconds since the beginning; 0 is none.
    begun: AtomicU64,
    /// The longest, in microseconds, since it was last forgotten.
    longest: AtomicU64,
}

/// All writers at work.
struct Writers {
    start: Instant,
    each: BTreeMap<u64, Arc<Writer>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// One for each partition, at these nodes in turn.
    fn start(channels: &[Channel], partitions: u32) -> Result<Self, Failure> {
        let (start, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let (mut each, mut tasks) = (BTreeMap::new(), JoinSet::new());
        for (number, (partition, key)) in keys::one_of_each(partitions)?.into_iter().enumerate() {
            let writer = Arc::new(Writer::default());
            each.insert(u64::from(partition), writer.clone());
            let mut channels: Vec<Channel> = channels.to_vec();
            let first = number % channels.len();
            channels.rotate_left(first);
            tasks.spawn(write(key, channels, writer, (start, stop.clone())));
        }
        Ok(Self { start, each, stop, tasks })
    }

    /// Each partition's gap in what `during` takes, or a window if that is shorter.
    async fn gaps(
        &self,
        during: impl Future<Output = Result<(), Failure>>,
    ) -> Result<BTreeMap<u64, Duration>, Failure> {
        let begun = Instant::now();
        self.each.values().for_each(|writer| writer.longest.store(0, Ordering::Relaxed));
        during.await?;
        tokio::time::sleep(WINDOW.saturating_sub(begun.elapsed())).await;
        let now = self.start.elapsed().as_micros() as u64;
        let gap = |writer: &Writer| {
            let lasting = match writer.begun.load(Ordering::Relaxed) {
                0 => 0,
                begun => now.saturating_sub(begun),
            };
            Duration::from_micros(lasting.max(writer.longest.load(Ordering::Relaxed)))
        };
        Ok(self.each.iter().map(|(partition, writer)| (*partition, gap(writer))).collect())
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

async fn write(key: Vec<u8>, channels: Vec<Channel>, writer: Arc<Writer>, run: (Instant, Arc<AtomicBool>)) {
    let (start, stop) = run;
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let begun = start.elapsed().as_micros() as u64;
        writer.begun.store(begun, Ordering::Relaxed);
        let put = PutRequest { key: key.clone().into(), value: vec![b'v'; 256].into(), ..Default::default() };
        // Written twice it is the same.
        while KvClient::new(channels[at % channels.len()].clone()).put(put.clone()).await.is_err()
            && !stop.load(Ordering::Relaxed)
        {
            at += 1;
            tokio::time::sleep(AGAIN).await;
        }
        writer.begun.store(0, Ordering::Relaxed);
        writer.longest.fetch_max(start.elapsed().as_micros() as u64 - begun, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Measures all deeds one after the other, and prints what came out.
pub(crate) async fn run(program: &Path, parent: &Path, partitions: u32) -> Result<Value, Failure> {
    let more = ["--replicas", REPLICAS, "--placement", "dealt"];
    let mut cluster = Cluster::start_with(System::Quorate, program, parent, NODES, partitions, &more).await?;
    let heavy = json!({"weight": {"node": name(HEAVY), "weight": HEAVY_WEIGHT}});
    http::post(&cluster.endpoints()[0], "/nodes", &heavy).await?;
    let mut told = Vec::new();
    for deed in [Deed::KillSequencer, Deed::Kill, Deed::StopSequencer, Deed::Stop, Deed::Drain] {
        told.push(measure(&mut cluster, deed, partitions).await?);
    }
    Ok(Value::from(told))
}

async fn measure(cluster: &mut Cluster, deed: Deed, partitions: u32) -> Result<Value, Failure> {
    let (victim, leaders) = victim(cluster, deed, partitions).await?;
    let others: Vec<String> =
        (0..NODES).filter(|node| *node != victim).map(|node| cluster.endpoints()[node].clone()).collect();
    let mut channels = cluster.connect(NODES).await?;
    channels.remove(victim);
    let writers = Writers::start(&channels, partitions)?;
    // Connections and caches are warm then.
    writers.gaps(async { Ok(()) }).await?;
    let before = writers.gaps(async { Ok(()) }).await?;
    let name = name(victim);
    let during = match deed {
        Deed::Kill | Deed::KillSequencer => {
            cluster.kill(victim);
            writers.gaps(async { Ok(()) }).await?
        }
        Deed::Drain => writers.gaps(drained(&others[0], &name)).await?,
        Deed::Stop | Deed::StopSequencer => {
            writers
                .gaps(async {
                    cluster.terminate(victim)?;
                    cluster.ended(victim).await
                })
                .await?
        }
    };
    writers.end().await;
    match deed {
        Deed::Drain => _ = http::post(&others[0], "/nodes", &json!({"undrain": {"node": name}})).await?,
        _ => cluster.restart(victim)?,
    }
    let led: Vec<u64> = leaders.iter().filter(|(_, node)| **node == victim).map(|(id, _)| *id).collect();
    let of = |gaps: &BTreeMap<u64, Duration>, is_led: bool| {
        let of = gaps.iter().filter(|(partition, _)| led.contains(partition) == is_led);
        let mut of: Vec<f64> = of.map(|(_, gap)| gap.as_secs_f64() * 1e3).collect();
        of.sort_by(f64::total_cmp);
        of
    };
    let words = |gaps: &[f64]| match gaps {
        [] => "none".to_owned(),
        gaps => format!("{:.0} / {:.0}", gaps[gaps.len() / 2], gaps[gaps.len() - 1]),
    };
    let columns = [of(&before, true), of(&during, true), of(&before, false), of(&during, false)];
    println!(
        "{:<18} led {:>3} of {partitions}: median/longest gap before {}, then {} ms; the others: before {}, then {} ms",
        deed.words(),
        led.len(),
        words(&columns[0]),
        words(&columns[1]),
        words(&columns[2]),
        words(&columns[3]),
    );
    let [led_before, led_during, others_before, others_during] = columns;
    Ok(json!({
        "deed": deed.words(), "partitions": partitions, "led": led.len(),
        "led_before_ms": led_before, "led_during_ms": led_during,
        "others_before_ms": others_before, "others_during_ms": others_during,
    }))
}

fn name(node: usize) -> String {
    format!("n{node}")
}

/// To which node it is done, when everything is where it is to be, and who leads each partition then.
async fn victim(
    cluster: &mut Cluster,
    deed: Deed,
    partitions: u32,
) -> Result<(usize, BTreeMap<u64, usize>), Failure> {
    loop {
        let leaders = settled(cluster, partitions).await?;
        let sequencer = cluster.leader().await?;
        if matches!(deed, Deed::KillSequencer | Deed::StopSequencer) {
            return Ok((sequencer, leaders));
        }
        if sequencer != HEAVY {
            return Ok((HEAVY, leaders));
        }
        // The numbering of revisions stays where it has gone.
        cluster.terminate(HEAVY)?;
        cluster.ended(HEAVY).await?;
        cluster.restart(HEAVY)?;
    }
}

/// Waits until nothing moves; which node leads each partition.
async fn settled(cluster: &Cluster, partitions: u32) -> Result<BTreeMap<u64, usize>, Failure> {
    let begun = Instant::now();
    let (mut since, mut last) = (Instant::now(), None);
    while begun.elapsed() < LIMIT {
        let now = leaders(cluster, partitions).await.ok();
        if now != last {
            (since, last) = (Instant::now(), now);
        }
        if since.elapsed() >= SETTLED
            && let Some(leaders) = last.take()
        {
            return Ok(leaders);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err("the partitions were on the move for two minutes".into())
}

/// Which node leads each partition, when all are led and none moves.
async fn leaders(cluster: &Cluster, partitions: u32) -> Result<BTreeMap<u64, usize>, Failure> {
    let mut leaders = BTreeMap::new();
    for (node, endpoint) in cluster.endpoints().iter().enumerate() {
        if http::get(endpoint, "/nodes").await?["moves"].as_u64() != Some(0) {
            return Err("something moves".into());
        }
        let told = http::get(endpoint, "/partitions").await?;
        let all = told["keyspaces"].as_array().into_iter().flatten();
        let default = all.filter(|keyspace| keyspace["name"] == "default");
        for partition in default.flat_map(|keyspace| keyspace["partitions"].as_array()).flatten() {
            if let (Some(id), Some(true)) = (partition["partition"].as_u64(), partition["serves"].as_bool()) {
                leaders.insert(id, node);
            }
        }
    }
    if leaders.len() == partitions as usize { Ok(leaders) } else { Err("not all are led".into()) }
}

/// Has a node emptied, and waits until it is.
async fn drained(endpoint: &str, name: &str) -> Result<(), Failure> {
    http::post(endpoint, "/nodes", &json!({"drain": {"node": name}})).await?;
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let list = http::get(endpoint, "/nodes").await?;
        let told = list["nodes"].as_array().into_iter().flatten().find(|node| node["name"] == name);
        if told.is_some_and(|told| told["replicas"] == 0) && list["moves"] == 0 {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err("the node was not empty after two minutes".into())
}
