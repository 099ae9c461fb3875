//! A damaged store is given up, and filled from the other nodes, without an operator. So is a damaged log, and then the store with it.
//!
//! The store's files hold all groups mixed, so what is damaged costs all that is in it, and nothing else: the log is another file, and with it every vote and
//! acknowledgement (`docs/membership.md`, Damage). Whose log is damaged has forgotten those: [`forgetting`].
//!
//! ```text
//! a read, the scrub or the store itself meets damage ──▶ the worker hands over what it leads, until others lead every
//!                                                         group that is here (Host::leave_store)
//! an order is written to DATA_DIR/REPAIR            ◀──── then, or when the worker cannot go on
//! the process begins anew, in place of itself        ──▶ what the order says is done before anything opens the store
//! ```
//!
//! Rules:
//! * A store that can be opened is given up only while others lead all that it holds: who leads has the whole state. So what hits all nodes at once leaves
//!   the last copy alone.
//! * One that cannot be opened, or that the worker cannot go on with twice, is put aside at once: it serves nobody.
//! * A log is given up when it cannot be opened: it is read at no other time.
//! * What is given up is put aside, and removed when every group is whole again.
//! * No more than [`TIMES_MAX`] times a day: a disk or memory that goes on spoiling what it is given is not repaired by giving it more.

mod forgetting;

use crate::data_dir::{self, DataDirError};
use crate::disk::FileDisk;
use crate::engine::{self, DiskEngine};
use crate::runtime::gateway::Gateway;
use quorate_mvcc::engine::Engine;
use quorate_node::Standing;
use quorate_partition::Partition;
use quorate_storage::wal::{Wal, WalOptions};
use quorate_types::{Fault, GroupId, crash_point};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

/// The file with the order, and how often there was one.
const REPAIR: &str = "REPAIR";
/// How often a node repairs itself in a day; after that it stops, as for any other fault.
const TIMES_MAX: usize = 3;
const DAY: u64 = 24 * 60 * 60;
/// Between two looks whether every group is whole.
const LOOK: Duration = Duration::from_secs(2);
/// For the cache of an empty store.
const CACHE_BYTES: u64 = 8 << 20;

/// What the next start is to do with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It is used; somebody has to read all of it soon: it gave up by itself, which may have been for damage.
    Check,
    /// It is used until others lead what it holds, and then given up.
    Leave,
    /// It is put aside at once: others lead what it holds, or it cannot be opened.
    PutAside,
    /// Store and log are put aside, and the node asks the others what it has promised, as one does that has lost its disk.
    Forget,
}

impl Order {
    const ALL: [Self; 4] = [Self::Check, Self::Leave, Self::PutAside, Self::Forget];

    fn word(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Leave => "leave",
            Self::PutAside => "put-aside",
            Self::Forget => "forget",
        }
    }
}

/// What stands in the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) order: Option<Order>,
    pub(crate) why: String,
    /// When there were orders, in seconds since 1970.
    times: Vec<u64>,
    /// What the stores that were put aside may have held, as [`GroupId`]s are written.
    groups: BTreeSet<String>,
    /// The directory is not the node's first: one that it had has been given up with its log.
    has_forgotten: bool,
}

impl Record {
    pub(crate) fn read(path: &Path) -> Result<Self, DataDirError> {
        let mut record = Self::default();
        let Some(body) = data_dir::read_if_there(path, REPAIR)? else { return Ok(record) };
        // Not `lines`, which takes a carriage return of a reason for a part of the line's end.
        for (field, value) in body.split('\n').filter_map(|line| line.split_once('=')) {
            match field {
                "store" => {
                    record.order = Order::ALL.into_iter().find(|order| order.word() == value);
                }
                "why" => record.why = value.to_owned(),
                "time" => record.times.extend(value.parse::<u64>()),
                "group" => record.groups.extend([value.to_owned()]),
                "forgotten" => record.has_forgotten = true,
                _ => {}
            }
        }
        Ok(record)
    }

    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut body = String::new();
        if let Some(order) = self.order {
            body.push_str(&format!("store={}\nwhy={}\n", order.word(), self.why.replace('\n', " ")));
        }
        for time in &self.times {
            body.push_str(&format!("time={time}\n"));
        }
        for group in &self.groups {
            body.push_str(&format!("group={group}\n"));
        }
        if self.has_forgotten {
            body.push_str("forgotten=yes\n");
        }
        data_dir::write_checked(path, REPAIR, &body)
    }
}

/// Has the next start do something about a fault, if it can: not for one that is no damage, of a node without others, or of one that has been repaired
/// too often. `order` is what to do if the fault is damage. Returns whether the process is to begin anew.
pub fn order(path: &Path, fault: &Fault, order: Order) -> bool {
    let order = match (fault.is_damage(), engine::has_given_up(fault)) {
        (true, _) => order,
        (false, true) => Order::Check,
        (false, false) => return false,
    };
    match try_order(path, fault, order) {
        Ok(()) => true,
        Err(why_not) => {
            warn!(why_not, "the damage is not repaired by itself");
            false
        }
    }
}

fn try_order(path: &Path, fault: &Fault, order: Order) -> Result<(), String> {
    can_be_filled(path)?;
    let mut record = Record::read(path).map_err(|error| error.to_string())?;
    let now = seconds();
    record.times.retain(|time| now.saturating_sub(*time) < DAY);
    if record.times.len() >= TIMES_MAX {
        return Err(format!(
            "it was, {TIMES_MAX} times within a day: the disk or the memory of this machine cannot be trusted"
        ));
    }
    record.times.push(now);
    (record.order, record.why) = (Some(order), fault.to_string());
    record.write(path).map_err(|error| format!("writing {REPAIR}: {error}"))?;
    crash_point("repair.ordered");
    Ok(())
}

/// For tests of a node that is stopped: how often it has repaired itself is not counted any more, as if a day had passed.
///
/// # Errors
/// In words for an operator.
pub(crate) fn forget_times(path: &Path) -> Result<(), String> {
    let mut record = Record::read(path).map_err(|error| error.to_string())?;
    if record.times.is_empty() {
        return Ok(());
    }
    record.times.clear();
    record.write(path).map_err(|error| format!("writing {REPAIR}: {error}"))
}

/// Whether others have what the store of this node holds, as far as its directory tells.
///
/// # Errors
/// Why not, for an operator.
pub fn can_be_filled(path: &Path) -> Result<(), String> {
    let says = |error: DataDirError| error.to_string();
    let joined = data_dir::read_joined(path).map_err(says)?;
    match data_dir::read_standing(path).map_err(says)? {
        Standing::New => {
            Err("the node does not take part yet: move the whole directory away and start with an empty one"
                .into())
        }
        Standing::Admitted(lives) if lives.is_empty() && joined.is_none() => {
            Err("this node is a cluster of its own: what its store held is nowhere else".into())
        }
        Standing::Admitted(_) => Ok(()),
    }
}

/// What was put aside, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The log went with the store.
    pub has_forgotten: bool,
    /// The damage.
    pub why: String,
}

/// What a start has to know of the store.
#[derive(Debug, Default)]
pub struct Outcome {
    /// It was put aside just now.
    pub was_put_aside: Option<Aside>,
    /// It is to be left, for this.
    pub is_to_be_left: Option<String>,
    /// All of it is to be read soon.
    pub is_to_be_checked: bool,
    /// The node had another log before this one, and does not know what it has promised until it is admitted.
    pub has_forgotten: bool,
}

/// Does what was ordered. The caller holds the directory, and has opened neither log nor store. `can_ask` tells whether the node's settings name others: without them
/// it would not know whom to ask what it has promised, and begin a cluster of its own.
pub fn carry_out(path: &Path, can_ask: bool) -> Result<Outcome, String> {
    let mut record = Record::read(path).map_err(|error| error.to_string())?;
    let mut outcome = Outcome { has_forgotten: record.has_forgotten, ..Outcome::default() };
    let order = match record.order.take() {
        None => return Ok(outcome),
        // Both are damaged.
        Some(Order::PutAside) if can_ask && forgetting::is_log_damaged(path)? => Order::Forget,
        Some(order) => order,
    };
    match order {
        Order::Check => outcome.is_to_be_checked = true,
        // It stands until the store is put aside: a start that is cut short must not forget it.
        Order::Leave => {
            outcome.is_to_be_left = Some(record.why);
            return Ok(outcome);
        }
        Order::PutAside => {
            let (aside, groups) = put_aside(path)?;
            // It was written there which groups those are.
            record.groups = Record::read(path).map_err(|error| error.to_string())?.groups;
            warn!(
                aside = %aside.display(),
                groups,
                why = record.why,
                "the store is damaged and was put aside; what it held is fetched from the other nodes"
            );
            outcome.was_put_aside =
                Some(Aside { has_forgotten: false, why: std::mem::take(&mut record.why) });
        }
        Order::Forget => {
            forgetting::forget(path)?;
            warn!(
                why = record.why,
                "the log is damaged and was put aside, and the store with it; what this node has promised it asks the others, and fetches what it held"
            );
            outcome.was_put_aside = Some(Aside { has_forgotten: true, why: std::mem::take(&mut record.why) });
            (record.has_forgotten, outcome.has_forgotten) = (true, true);
            // Nobody can tell which they were.
            record.groups.clear();
        }
    }
    record.write(path).map_err(|error| format!("writing {REPAIR}: {error}"))?;
    crash_point("repair.carried_out");
    Ok(outcome)
}

/// Puts the store aside and begins an empty one, in which every group of the log waits for a snapshot. The log stays, and with it every vote and
/// acknowledgement from its beginning on: whoever this node votes for has what it acknowledged, so it need not ask the others first, as a node must that has
/// lost all. What was applied before the log's beginning others have, because it was committed. Returns where the old one is, and how many groups there are.
///
/// The caller holds the directory.
///
/// # Errors
/// In words for an operator; then the store is where it was.
pub fn put_aside(path: &Path) -> Result<(PathBuf, usize), String> {
    can_be_filled(path)?;
    let says = |error: &dyn std::fmt::Display| error.to_string();
    let (owner, _) = data_dir::read_identity(path).map_err(|error| says(&error))?;
    let (store, new) = (path.join("store"), path.join("store.new"));
    let disk = FileDisk::open(&path.join("log")).map_err(|error| format!("the log's folder: {error}"))?;
    let opened = Wal::open(disk, owner.log_identity(), WalOptions::default());
    let (_, groups, report) = opened
        .map_err(|error| format!("the log is not whole, so the store alone cannot be given up: {error}"))?;
    if report.segments.is_empty() {
        return Err(
            "there is no log, and so nothing that this node has promised; move the whole directory away"
                .into(),
        );
    }
    // What a run that was cut short has left.
    if new.exists() {
        std::fs::remove_dir_all(&new).map_err(|error| format!("{}: {error}", new.display()))?;
    }
    let engine = DiskEngine::open(&new, CACHE_BYTES).map_err(|fault| says(&fault))?;
    for group in groups.keys() {
        Partition::mark_incomplete(&engine, *group).map_err(|fault| says(&fault))?;
    }
    crash_point("repair.store_marked");
    engine.flush().map_err(|fault| says(&fault))?;
    crash_point("repair.store_made");
    drop(engine);
    let mut record = Record::read(path).map_err(|error| says(&error))?;
    record.groups.extend(groups.keys().map(GroupId::to_string));
    record.write(path).map_err(|error| format!("writing {REPAIR}: {error}"))?;
    crash_point("repair.groups_recorded");
    let aside = free_name(path, STORE_ASIDE);
    // One that was cut short between the two has put it aside already.
    if store.exists() {
        std::fs::rename(&store, &aside).map_err(|error| format!("{}: {error}", store.display()))?;
    }
    crash_point("repair.store_aside");
    std::fs::rename(&new, &store).map_err(|error| format!("{}: {error}", new.display()))?;
    crash_point("repair.store_exchanged");
    std::fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| says(&error))?;
    crash_point("repair.store_named");
    // An order was about the store that has gone.
    record.order = None;
    record.write(path).map_err(|error| format!("writing {REPAIR}: {error}"))?;
    crash_point("repair.order_gone");
    Ok((aside, groups.len()))
}

fn free_name(path: &Path, stem: &str) -> PathBuf {
    let (mut name, mut number) = (path.join(stem), 1);
    while name.exists() {
        number += 1;
        name = path.join(format!("{stem}.{number}"));
    }
    name
}

const STORE_ASIDE: &str = "store.damaged";
const LOG_ASIDE: &str = "log.damaged";

/// The stores and logs that were put aside and are still there.
pub fn aside(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_named = |name: &str| name.starts_with(STORE_ASIDE) || name.starts_with(LOG_ASIDE);
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_named));
    named.map(|entry| entry.path()).collect()
}

/// Waits until every group that was put aside is whole here; then that is not needed any more, and goes. It stays if a group never comes back: one that no other
/// node had, or that has moved away.
pub async fn clear_when_whole(path: PathBuf, gateway: Gateway) {
    let (aside, record) = (aside(&path), Record::read(&path));
    let (false, Ok(mut record)) = (aside.is_empty(), record) else { return };
    loop {
        tokio::time::sleep(LOOK).await;
        // Not any more when the worker has stopped.
        let Ok(standing) = gateway.standing().await else { return };
        let whole = standing.groups.iter().filter(|group| group.digest.is_some());
        let whole: BTreeSet<String> = whole.map(|group| group.group.to_string()).collect();
        // Of one that an earlier version put aside nobody knows what it held.
        let holds_those = !record.groups.is_empty() && record.groups.is_subset(&whole);
        // Who is admitted has passed a barrier in every group of the cluster's that it may have been in.
        let is_admitted = || matches!(data_dir::read_standing(&path), Ok(Standing::Admitted(_)));
        let holds_all = record.has_forgotten
            && record.groups.is_empty()
            && whole.len() == standing.groups.len()
            && is_admitted();
        if holds_those || holds_all {
            break;
        }
    }
    crash_point("repair.whole");
    for store in aside {
        let name = store.display().to_string();
        match tokio::task::spawn_blocking(move || std::fs::remove_dir_all(store)).await {
            Ok(Ok(())) => info!(aside = name, "every group is whole again; what was damaged is removed"),
            Ok(Err(error)) => {
                warn!(aside = name, %error, "what was damaged is not needed any more, and stays")
            }
            Err(_) => {}
        }
        crash_point("repair.aside_removed");
    }
    record.groups.clear();
    if let Err(error) = record.write(&path) {
        warn!(%error, "writing {REPAIR}");
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Begins the process anew, with the same arguments, in place of itself: whoever waits for it, or has its id, does not notice. Returns only if that failed.
pub fn begin_anew() -> std::io::Error {
    use std::os::unix::process::CommandExt;
    match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests;
