//! `quorate chaos`: a cluster of real processes, clients at work on it, faults from outside, and a check of everything that any client was told.
//!
//! * [`plan`]: which faults, drawn from a seed; [`faults`]: carrying them out; [`links`]: the network between the nodes; [`cluster`]: their processes.
//! * [`load`], [`watching`]: clients; [`client`], [`wire`]: how they ask; [`book`]: what they write down.
//! * [`disks`]: what the nodes' data directories are on; [`ailments`]: what can be wrong with that; [`rot`]: a node that has to mend what it has.
//! * [`guest`], [`prefix`]: a cluster that is somebody else's.
//! * [`changes`]: nodes that come and go; [`lives`]: what was done to each node; [`leaders`]: who led.
//! * [`chronicle`]: the history so far, of which the old may be compacted; [`settling`]: the end of a run; [`stopping`]: its end before that; [`judge`]: whether what clients wrote down fits, with `quorate_checker`.
//! * [`report`], [`timeline`]: what people and programs are told; [`history`]: what clients were, for others to check; [`again`]: the command that does it
//!   once more.
//!
//! What it finds, how to read it and what it does not see: `docs/chaos.md`. The seed says which faults come in which order; when they meet what the
//! nodes are doing, it cannot say: a run is not repeated to the bit, as in the simulator.

mod again;
mod ailments;
mod book;
mod changes;
mod chronicle;
mod client;
mod cluster;
#[cfg(target_os = "linux")]
mod disks;
#[cfg(not(target_os = "linux"))]
#[path = "no_disks.rs"]
mod disks;
mod faults;
mod guest;
mod history;
mod judge;
mod lasting;
mod leaders;
mod links;
mod lives;
mod load;
mod plan;
mod prefix;
mod report;
mod rot;
mod settling;
mod stopping;
mod timeline;
mod watching;
mod wire;

use book::Book;
use chronicle::Chronicle;
use clap::Args;
use client::Client;
use cluster::Cluster;
use faults::{Ended, Tormentor};
use guest::Guest;
use judge::Verdict;
use lasting::Lasting;
use leaders::Leaders;
use lives::{Condition, Lives};
use parking_lot::Mutex;
use plan::{CALM, DISKS, HOLD, Kind, Plan, USUAL};
use quorate_checker::Violation;
use quorate_checker::calls::Outcome;
use quorate_consensus::random::Random;
use quorate_types::Revision;
use report::Report;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stopping::until_stopped;
use tokio::task::JoinHandle;

/// Those of clients begin at 1.
const OWN_CLIENT: u32 = 0;
/// Megabytes a second that nodes read in search of damage where disks rot: what there is of it is found before the next round.
const SCRUB_RATE: u64 = 100;

/// Start a cluster of real processes on this machine, put load on it, let it suffer, and check everything that any client was told
#[derive(Args, Debug)]
#[command(
    after_help = "Ends with 0 if nothing was wrong, else with 1: what contradicts each other is printed, and the nodes' data and logs are
kept. Settings of quorate serve, for all nodes, come after --.

Examples:
  quorate chaos                                   a minute
  quorate chaos --duration 30m --report chaos     then open chaos/report.html
  quorate chaos --seed 7 --faults kill,pause --nodes 3
  quorate chaos --faults kill,pause --hold 200ms..1s --calm 100ms..500ms
  quorate --endpoints a:2379,b:2379,c:2379 chaos --inject ./fault.sh --faults kill,pause
  quorate chaos --replicas 5 --duration 10m -- --election-timeout 1000"
)]
pub struct Chaos {
    /// How many nodes the cluster begins with [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=15))]
    nodes: Option<u16>,
    /// Into how many partitions the keys are dealt [default: 8]
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// On how many nodes everything is kept [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=7))]
    replicas: Option<u16>,
    /// How long, e.g. 90s or 30m
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = crate::cli::events::time::parse)]
    duration: Duration,
    /// Which faults come, and when, is drawn from this [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many clients read and write; others watch
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: u16,
    /// How many calls they make a second, all together
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Which faults there are [default: all but power; without those of disks where nothing can be mounted]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    faults: Vec<Kind>,
    /// How many nodes may be concerned at once; more than the default, and the cluster need not serve meanwhile [default: as many as it has to survive]
    #[arg(long, value_name = "N")]
    faults_max: Option<usize>,
    /// How long the faults of a round last; drawn anew each time
    #[arg(long, default_value_t = HOLD, value_name = "LEAST..MOST")]
    hold: Lasting,
    /// How long all is well between two rounds
    #[arg(long, default_value_t = CALM, value_name = "LEAST..MOST")]
    calm: Lasting,
    /// Seconds of silence before a node counts as lost [default: 5]
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u64>,
    /// Seconds that anything may take when all is well
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,
    /// Where the nodes keep their data and logs, which are left there [default: a temporary directory, removed if nothing is wrong]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Write what happened into this folder: report.html to look at, report.json, report.txt, and history.jsonl as --history does
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Write every call and what came of it to this file, as JSON, a line each, for other checkers [default with --report: DIR/history.jsonl]
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Print report.json at the end, instead of words
    #[arg(long)]
    json: bool,
    /// With --endpoints: where its keys are in a cluster that is not its own; nothing else is touched, and what is there is deleted at the end
    #[arg(long, default_value = "quorate-chaos/", value_name = "PREFIX")]
    prefix: String,
    /// With --endpoints: what does faults. It is called with a kind of --faults (of one node, which loses nothing: not wipe, not rot) and an endpoint, and later with heal and the endpoint
    #[arg(long, value_name = "COMMAND")]
    inject: Option<String>,
    /// Settings of quorate serve, for all nodes
    #[arg(last = true, value_name = "SETTINGS")]
    settings: Vec<String>,
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// We could not do our part: the run has failed, unless something wrong was found by then. That is told of, and why there is no more.
fn unfinished(what: String, has_wrong: bool, violations: &mut Vec<Violation>) -> Result<(), String> {
    if violations.is_empty() && !has_wrong {
        return Err(what);
    }
    violations.push(Violation::new(format!("and the run could not be finished: {what}"), Vec::new()));
    Ok(())
}

/// Clients at work.
struct Load {
    clients: Vec<JoinHandle<()>>,
    watches: Vec<JoinHandle<()>>,
    /// Names the last revision that watches have to be told of.
    until: tokio::sync::watch::Sender<Option<Revision>>,
}

/// Asks who leads for as long as it is there.
struct Asking(JoinHandle<()>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.clients.iter().chain(&self.watches).for_each(JoinHandle::abort);
    }
}

impl Chaos {
    /// Runs it, on a cluster of its own unless endpoints were given. An error is a sentence for the person at the terminal.
    pub async fn run(self, endpoints: Option<Vec<String>>) -> Result<(), String> {
        let seed = self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() % 1_000_000);
        match self.guest(endpoints)? {
            Some(guest) => self.run_as_guest(seed, &guest).await,
            None => self.run_at_home(seed).await,
        }
    }

    async fn run_at_home(&self, seed: u64) -> Result<(), String> {
        let (folder, is_own) = match &self.data_dir {
            Some(folder) => (folder.clone(), false),
            None => (std::env::temp_dir().join(format!("quorate-chaos-{}", std::process::id())), true),
        };
        let fail = |error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(fail)?;
        if std::fs::read_dir(&folder).map_err(fail)?.next().is_some() {
            return Err(format!("--data-dir: {} is not empty", folder.display()));
        }
        let outcome = match self.open_files() {
            Ok(history) => until_stopped(self.drive_at_home(seed, &folder, history)).await,
            Err(what) => Err(what),
        };
        let outcome = outcome.and_then(|report| self.tell(&report));
        outcome.map_err(|what| {
            // One that was refused has nothing in it, and is removed; any other cannot be.
            if is_own && std::fs::remove_dir(&folder).is_ok() || is_empty(&folder) {
                return what;
            }
            format!("{what}; data and logs are in {}", folder.display())
        })?;
        if is_own {
            std::fs::remove_dir_all(&folder).map_err(fail)?;
        }
        Ok(())
    }

    /// Writes and prints what came of it; an error if that was not right.
    fn tell(&self, report: &Report) -> Result<(), String> {
        let told = report.told();
        if let Some(folder) = &self.report {
            told.write(folder)?;
        }
        print!("{}", if self.json { &told.json } else { &told.text });
        match report.verdict.violations.len() {
            0 => Ok(()),
            violations => Err(format!("{violations} violations")),
        }
    }

    /// How it is said what happens.
    fn say(&self) -> fn(&str) {
        if self.json { |what| eprintln!("{what}") } else { |what| println!("{what}") }
    }

    /// Makes the folder of the report, and the file of the history: before the run, not after it, they are found not to be possible.
    fn open_files(&self) -> Result<Option<BufWriter<File>>, String> {
        if let Some(folder) = &self.report {
            std::fs::create_dir_all(folder)
                .map_err(|error| format!("--report: {}: {error}", folder.display()))?;
        }
        let beside = self.report.as_ref().map(|folder| folder.join(report::HISTORY));
        let Some(path) = self.history.clone().or(beside) else { return Ok(None) };
        let file = File::create(&path).map_err(|error| format!("--history: {}: {error}", path.display()))?;
        Ok(Some(BufWriter::new(file)))
    }

    // In a cluster of others these are not ours to say, so that what was said is told from what is usual.
    fn nodes(&self) -> u16 {
        self.nodes.unwrap_or(5)
    }

    fn partitions(&self) -> u32 {
        self.partitions.unwrap_or(8)
    }

    fn replicas(&self) -> u16 {
        self.replicas.unwrap_or(3)
    }

    fn grace_period(&self) -> u64 {
        self.grace_period.unwrap_or(5)
    }

    /// The least that must survive: a minority of those that hold a group.
    fn faults_max(&self) -> usize {
        let survived = (usize::from(self.replicas().min(self.nodes())) - 1) / 2;
        self.faults_max.unwrap_or(survived).min(usize::from(self.nodes()))
    }

    /// Which faults there are, and whether the nodes' disks are to do as they are told.
    fn kinds(&self, folder: &Path, say: fn(&str)) -> Result<(Vec<Kind>, bool), String> {
        if self.faults.is_empty() {
            return Ok(match disks::possible(folder) {
                Ok(()) => ([USUAL.as_slice(), DISKS.as_slice()].concat(), true),
                Err(why) => {
                    say(&format!("no faults of disks: {why}"));
                    (USUAL.to_vec(), false)
                }
            });
        }
        let kinds = self.faults.clone();
        if let Some(kind) = kinds.iter().find(|kind| kind.is_of_disks()) {
            disks::possible(folder).map_err(|why| format!("--faults {}: {why}", kind.name()))?;
        }
        let has_disks = kinds.iter().any(|kind| kind.is_of_disks());
        Ok((kinds, has_disks))
    }

    fn settings(&self, has_disks: bool) -> Vec<String> {
        let own = [
            ("--partitions", self.partitions().to_string()),
            ("--replicas", self.replicas().to_string()),
            ("--grace-period", self.grace_period().to_string()),
        ];
        let scrub = has_disks.then(|| ("--scrub-rate", SCRUB_RATE.to_string()));
        let own = own.into_iter().chain(scrub).filter(|(flag, _)| {
            // Said again, it would be said twice.
            !self.settings.iter().any(|word| word == flag || word.starts_with(&format!("{flag}=")))
        });
        own.flat_map(|(flag, value)| [flag.to_owned(), value]).chain(self.settings.iter().cloned()).collect()
    }

    async fn drive_at_home(
        &self,
        seed: u64,
        folder: &Path,
        history: Option<BufWriter<File>>,
    ) -> Result<Report, String> {
        let say = self.say();
        let nodes = usize::from(self.nodes());
        let (kinds, has_disks) = self.kinds(folder, say)?;
        let plan = Plan {
            kinds,
            nodes,
            replicas: usize::from(self.replicas()),
            faults_max: self.faults_max(),
            calm: self.calm,
            hold: self.hold,
        };
        say(&format!(
            "{nodes} nodes with {} partitions, everything on {} of them; seed {seed}; faults of {} at a time at most; {}",
            self.partitions(),
            self.replicas(),
            plan.faults_max,
            folder.display()
        ));
        let cluster = Cluster::new(folder, nodes, self.settings(has_disks), has_disks).await?;
        self.drive(seed, &plan, cluster, Book::open(), None, history).await
    }

    async fn drive(
        &self,
        seed: u64,
        plan: &Plan,
        cluster: Cluster,
        book: Book,
        guest: Option<&Guest>,
        history: Option<BufWriter<File>>,
    ) -> Result<Report, String> {
        let (say, book) = (self.say(), Arc::new(book));
        let mut random = Random::new(seed);
        let faults = Random::new(random.draw());
        let client =
            Client::new(OWN_CLIENT, book.clone(), cluster.directory.clone(), Random::new(random.draw()));
        let patience = Duration::from_secs(self.patience);
        let (timeline, mut lives) = (Vec::new(), Lives::default());
        for machine in &cluster.machines {
            lives.born(&machine.name, book.now());
            lives.begin(&machine.name, Condition::Starting, book.now());
        }
        let leaders = Arc::new(Mutex::new(Leaders::default()));
        let asking =
            Asking(tokio::spawn(leaders::watch(leaders.clone(), book.clone(), cluster.directory.clone())));
        let mut tormentor = Tormentor {
            cluster,
            book: book.clone(),
            client,
            random: faults,
            timeline,
            lives,
            leaders,
            patience,
            say,
            is_holding: false,
            rot: Vec::new(),
            chronicle: Chronicle::default(),
        };
        let mut load = None;
        let mut violations = Vec::new();
        let mut stopped = None;
        match self.suffer(&mut tormentor, plan, guest, &mut random, &mut load).await {
            Ok(()) => {}
            // What was answered until then is worth a check all the same.
            Err(Ended::Wrong(violation)) => {
                stopped = Some(book.now());
                violations.push(violation);
            }
            Err(Ended::Ours(what)) => {
                unfinished(what, book.has_wrong(), &mut violations)?;
                stopped = Some(book.now());
            }
        }
        drop(asking);
        say(&format!("{:>7.1} s  calls end; checking", book.now() as f64 / 1e6));
        let elapsed = book.now();
        let mut found = None;
        if let Some(load) = load {
            match settling::settle(&mut tormentor, load, &mut violations).await {
                Ok(history) => found = Some(history),
                Err(Ended::Wrong(violation)) => violations.push(violation),
                Err(Ended::Ours(what)) => unfinished(what, book.has_wrong(), &mut violations)?,
            }
        }
        let written = book.take();
        if let Some(mut file) = history {
            history::write(&written, &mut file).map_err(|error| format!("writing the history: {error}"))?;
        }
        let mut verdict = match &found {
            Some((history, until)) => judge::check(history, &written, *until),
            None => Verdict { violations: written.wrong.clone(), ..Verdict::default() },
        };
        verdict.violations.splice(0..0, violations);
        let Tormentor { timeline, lives, leaders, .. } = tormentor;
        let leaders = std::mem::take(&mut *leaders.lock());
        let command = self.again(seed, &plan.kinds, guest);
        Ok(Report { seed, command, elapsed, stopped, timeline, lives, leaders, written, verdict })
    }

    /// From the start of the nodes to the end of the last round.
    async fn suffer(
        &self,
        tormentor: &mut Tormentor,
        plan: &Plan,
        guest: Option<&Guest>,
        random: &mut Random,
        load: &mut Option<Load>,
    ) -> Result<(), Ended> {
        for machine in &mut tormentor.cluster.machines {
            machine.start()?;
        }
        if guest.is_none() {
            tormentor.cluster.tell();
        }
        tormentor.serve().await?;
        while !matches!(
            tormentor.client.call(load::opening(tormentor.book.unique())).await,
            Outcome::Reply(..)
        ) {}
        (tormentor.say)("all serve; clients begin");
        *load = Some(self.load(tormentor, random));
        let begun = Instant::now();
        while begun.elapsed() < self.duration {
            match guest {
                Some(guest) => tormentor.guest_round(guest, plan).await?,
                None => tormentor.round(plan).await?,
            }
        }
        Ok(())
    }

    fn load(&self, tormentor: &Tormentor, random: &mut Random) -> Load {
        let (book, directory) = (&tormentor.book, &tormentor.cluster.directory);
        // Each makes its share of the calls.
        let pause = Duration::from_secs(1) * u32::from(self.clients) / self.rate;
        let clients = (1..=u32::from(self.clients)).map(|number| {
            let random = Random::new(random.draw());
            let client = Client::new(number, book.clone(), directory.clone(), random);
            match number % 4 {
                2 => tokio::spawn(load::bank(client, pause)),
                3 => tokio::spawn(load::leases(client)),
                _ => tokio::spawn(load::keys(client, pause)),
            }
        });
        let clients = clients.collect();
        let (until, told) = tokio::sync::watch::channel(None);
        let watches = watching::watches().into_iter().map(|what| {
            let random = Random::new(random.draw());
            tokio::spawn(watching::watch(what, book.clone(), directory.clone(), random, told.clone()))
        });
        let watches = watches.collect();
        let mut clients: Vec<JoinHandle<()>> = clients;
        clients.push(tokio::spawn(watching::late(
            book.clone(),
            directory.clone(),
            Random::new(random.draw()),
        )));
        Load { clients, watches, until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was found is never lost because something else went wrong.
    #[test]
    fn a_run_that_found_something_is_told_of() {
        let mut violations = Vec::new();
        assert_eq!(unfinished("broken".into(), false, &mut violations), Err("broken".into()));
        assert!(violations.is_empty());
        // A client met something.
        assert_eq!(unfinished("broken".into(), true, &mut violations), Ok(()));
        assert_eq!(violations.len(), 1);
        // It was found between rounds.
        assert_eq!(unfinished("again".into(), false, &mut violations), Ok(()));
        assert_eq!(violations.len(), 2);
        assert!(violations[1].to_string().contains("again"), "{}", violations[1]);
    }
}
