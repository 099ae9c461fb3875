//! A run on a cluster that somebody else has started, and may use: load and checks stay below a prefix, and faults are what a command of his does, or none.
//!
//! What is left out, as only one who starts the nodes knows it: processes that end by themselves, whether a node takes part, hashes of all that is stored,
//! compactions and splits. The prefix has to be empty before, and is empty afterwards; leases run out by themselves within seconds.

use super::book::Book;
use super::client::channel_to;
use super::cluster::Cluster;
use super::faults::{Ended, Tormentor};
use super::plan::{Kind, Plan};
use super::prefix::Prefix;
use super::stopping::until_stopped;
use super::timeline::{Deed, Entry};
use super::{Chaos, wire};
use quorate_api::pb;
use quorate_api::pb::kv_client::KvClient;
use quorate_types::request::RangeRequest;
use quorate_types::{Answer, KeyRange, Request, Revision};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer no command takes.
const COMMAND_MAX: Duration = Duration::from_secs(60);
const ANSWER_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);
/// The history is told so often.
const CHRONICLE_MICROS: u64 = 20_000_000;
/// Without faults there is a look at all nodes so often.
const QUIET: Duration = Duration::from_secs(5);

/// Where, and what does faults.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) endpoints: Vec<String>,
    pub(super) prefix: String,
    pub(super) inject: Option<String>,
}

/// Kinds that concern one node, end with `heal`, and take nothing away from it. Who loses data serves before he has it again, by asking others, and whether a
/// node takes part only who starts it knows: the next round might take from the rest what is nowhere else, in a cluster that is somebody else's.
pub(super) const POSSIBLE: [Kind; 11] = [
    Kind::Kill,
    Kind::Stop,
    Kind::Pause,
    Kind::Cut,
    Kind::OneWay,
    Kind::Slow,
    Kind::FullDisk,
    Kind::SlowDisk,
    Kind::HungDisk,
    Kind::FailingDisk,
    Kind::LyingPower,
];

/// The user's command; what it has broken is healed when this is dropped, too.
struct Injection<'a> {
    command: &'a str,
    node: String,
    is_open: bool,
}

impl Injection<'_> {
    fn command(&self, what: &str) -> Command {
        let mut command = Command::new("sh");
        // As it would be typed, with two words more.
        command
            .arg("-c")
            .arg(format!("{} \"$@\"", self.command))
            .arg("quorate-chaos")
            .args([what, &self.node]);
        command.stdin(Stdio::null());
        command
    }

    async fn run(&mut self, what: &str) -> Result<(), String> {
        self.is_open = true;
        let mut command = tokio::process::Command::from(self.command(what));
        command.kill_on_drop(true).stdout(Stdio::null());
        let status = tokio::time::timeout(COMMAND_MAX, command.status()).await;
        let said = format!("--inject: {} {what} {}", self.command, self.node);
        match status {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{said}: {status}")),
            Ok(Err(error)) => Err(format!("{said}: {error}")),
            Err(_) => Err(format!("{said}: still runs after {COMMAND_MAX:?}")),
        }
    }
}

impl Drop for Injection<'_> {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let Ok(mut healing) = self.command("heal").stdout(Stdio::null()).spawn() else { return };
        let begun = Instant::now();
        while healing.try_wait().is_ok_and(|status| status.is_none()) {
            if begun.elapsed() > COMMAND_MAX {
                // It is ours, and nobody waits for it any more.
                let _ = healing.kill();
                let _ = healing.wait();
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Chaos {
    /// Whose guest it is, if it is.
    pub(super) fn guest(&self, endpoints: Option<Vec<String>>) -> Result<Option<Guest>, String> {
        let Some(endpoints) = endpoints else {
            return if self.inject.is_some() { Err("--inject needs --endpoints".into()) } else { Ok(None) };
        };
        if let Some(said) = self.of_own_nodes() {
            return Err(format!("{said}: not in a cluster of others, whose nodes are not ours to start"));
        }
        if self.prefix.is_empty() {
            return Err("--prefix: it must not be all keys there are".into());
        }
        match (&self.inject, self.faults.is_empty()) {
            (Some(_), true) => return Err("--inject needs --faults: which kinds it knows".into()),
            (None, false) => return Err("--faults needs --inject in a cluster of others".into()),
            _ => {}
        }
        if let Some(kind) = self.faults.iter().find(|kind| !POSSIBLE.contains(kind)) {
            let kind = kind.name();
            return Err(format!(
                "--faults {kind}: not in a cluster of others; there faults concern one node, end, and destroy nothing"
            ));
        }
        if endpoints.iter().any(|endpoint| endpoint.contains("//")) {
            return Err("--endpoints: say them as HOST:PORT; TLS is not spoken".into());
        }
        let (prefix, inject) = (self.prefix.clone(), self.inject.clone());
        Ok(Some(Guest { endpoints, prefix, inject }))
    }

    /// What was said that only nodes of our own can be told.
    fn of_own_nodes(&self) -> Option<&'static str> {
        let said = [
            ("--nodes", self.nodes.is_some()),
            ("--partitions", self.partitions.is_some()),
            ("--replicas", self.replicas.is_some()),
            ("--faults-max", self.faults_max.is_some()),
            ("--grace-period", self.grace_period.is_some()),
            ("--data-dir", self.data_dir.is_some()),
            ("settings after --", !self.settings.is_empty()),
        ];
        said.into_iter().find_map(|(what, is_said)| is_said.then_some(what))
    }

    pub(super) async fn run_as_guest(&self, seed: u64, guest: &Guest) -> Result<(), String> {
        let history = self.open_files()?;
        let first = guest.enter().await?;
        let say = self.say();
        let faults = if guest.inject.is_some() { "faults are those of --inject" } else { "no faults" };
        say(&format!(
            "{} endpoints of a cluster of others, keys below {}; seed {seed}; {faults}; left out: hashes, compactions, splits, and what only who starts the nodes knows",
            guest.endpoints.len(),
            guest.prefix,
        ));
        let plan = Plan {
            kinds: self.faults.clone(),
            nodes: guest.endpoints.len(),
            replicas: guest.endpoints.len(),
            faults_max: 1,
            calm: self.calm,
            hold: self.hold,
        };
        let cluster = Cluster::of_others(&guest.endpoints);
        let book = Book::open_below(guest.prefix(), first);
        let outcome = until_stopped(self.drive(seed, &plan, cluster, book, Some(guest), history)).await;
        let left = guest.leave(Duration::from_secs(self.patience)).await;
        outcome.and_then(|report| self.tell(&report)).and(left)
    }
}

impl Guest {
    fn prefix(&self) -> Prefix {
        Prefix::new(self.prefix.clone())
    }

    /// The revision after which all below the prefix is ours, if nothing is there.
    pub(super) async fn enter(&self) -> Result<Revision, String> {
        let mut problem = String::new();
        for endpoint in &self.endpoints {
            let channel = channel_to(endpoint, Some(ANSWER_MAX))?;
            let all = Request::Range(RangeRequest::new(KeyRange::all()));
            match wire::send(channel, &self.prefix().request(&all)).await {
                Ok((revision, Answer::Range(range))) if range.pairs.is_empty() => return Ok(revision.next()),
                Ok(_) => {
                    return Err(format!(
                        "--prefix {}: there are keys already; they are left alone",
                        self.prefix
                    ));
                }
                Err(status) => problem = format!("{endpoint}: {:?}: {}", status.code(), status.message()),
            }
        }
        Err(format!("--endpoints: nobody answers; {problem}"))
    }

    /// Deletes all below the prefix.
    pub(super) async fn leave(&self, patience: Duration) -> Result<(), String> {
        let (key, range_end) = wire::ends(&self.prefix().range(&KeyRange::all()));
        let begun = Instant::now();
        loop {
            let mut problem = String::new();
            for endpoint in &self.endpoints {
                let request =
                    pb::DeleteRangeRequest { key: key.clone(), range_end: range_end.clone(), prev_kv: false };
                let channel = channel_to(endpoint, Some(ANSWER_MAX))?;
                match KvClient::new(channel).delete_range(request).await {
                    Ok(_) => return Ok(()),
                    Err(status) => problem = format!("{endpoint}: {}", status.message()),
                }
            }
            if begun.elapsed() > patience {
                return Err(format!("what is below {} is still there: {problem}", self.prefix));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Tormentor {
    /// One round: a fault of the user's, or some quiet, until all nodes serve.
    pub(super) async fn guest_round(&mut self, guest: &Guest, plan: &Plan) -> Result<(), Ended> {
        if self.now().saturating_sub(self.chronicle.told) > CHRONICLE_MICROS {
            // While it is there: others compact.
            let mut violations = Vec::new();
            self.chronicle(self.book.newest(), &mut violations).await?;
            if let Some(violation) = violations.into_iter().next() {
                return Err(Ended::Wrong(violation));
            }
        }
        let Some(command) = &guest.inject else {
            tokio::time::sleep(QUIET).await;
            return self.serve().await;
        };
        tokio::time::sleep(plan.calm.draw(&mut self.random)).await;
        let kind = plan.kinds[self.random.between(0, plan.kinds.len() as u64) as usize];
        let node = guest.endpoints[self.random.between(0, guest.endpoints.len() as u64) as usize].clone();
        let hold = plan.hold.draw(&mut self.random);
        let mut injection = Injection { command, node: node.clone(), is_open: false };
        let what = format!("{} {node}", kind.name());
        let begun = self.now();
        let deeds = vec![Deed::named(kind, &node)];
        self.timeline.push(Entry { what: what.clone(), deeds, begun, healed: None, served: None });
        if kind == Kind::FullDisk {
            self.book.scarce_begins();
        }
        injection.run(&kind.name()).await?;
        self.say(&what);
        tokio::time::sleep(hold).await;
        injection.run("heal").await?;
        injection.is_open = false;
        self.healed();
        self.serve().await?;
        self.served();
        Ok(())
    }
}
