//! The data directory: whose it is, in which format, and that only one process uses it.
//!
//! ```text
//! DATA_DIR/
//!   LOCK        held by the running process
//!   IDENTITY    format, cluster, node and this directory's incarnation, as text with a checksum; of a node that joined a cluster also
//!               what it was told of it then
//!   ADMITTED    that the node takes part, and the directories of the others as it knows them; likewise
//!   log/        the write-ahead log of all groups
//!   store/      the ordered store; store.damaged and log.damaged: what was given up, until the new one is filled
//!   REPAIR      what the next start is to do with the store, and when the last orders were given (repair.rs)
//!   events/     what happened, for people; the node does without it
//! ```

use crate::membership::ToldMember;
use quorate_node::{Cluster, Life, Lives, Standing};
use quorate_types::{ClusterId, Incarnation, NodeId, crash_point};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// In `ADMITTED`: a member in the directory that the cluster began with, or in a later one.
const ORIGINAL: &str = "original";
const LATER: &str = "later";
/// The file that says that the node takes part.
const ADMITTED: &str = "ADMITTED";
/// The file that says who takes the node for a member of a cluster that the directory knows nothing of.
const MISSED: &str = "MISSED";
/// The file that says that the node was removed.
const REMOVED: &str = "REMOVED";

/// Of the layout of everything below the data directory.
pub const FORMAT: u32 = 1;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Some file operation failed.
    #[error("{doing} {path}: {cause}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another process holds the lock.
    #[error("{0} is in use by another process; stop that one, or give this one a --data-dir of its own")]
    InUse(String),
    /// The directory belongs to something else.
    #[error(
        "{path} belongs to {found}, but this is {expected}; start with the --name, --initial-cluster and \
         --cluster-token that it was made with, or give another --data-dir"
    )]
    Foreign {
        /// The directory.
        path: String,
        /// What its identity file says.
        found: String,
        /// Who we are.
        expected: String,
    },
    /// A later version wrote it.
    #[error("{path} has format {found}, this program knows formats up to {FORMAT}; use a newer quorate")]
    Newer {
        /// The directory.
        path: String,
        /// Its format.
        found: u32,
    },
    /// The identity file makes no sense.
    #[error(
        "{0} is damaged, and with it what this data directory is. If the cluster has other nodes, move the whole directory away and \
         start with an empty one: it is filled from them"
    )]
    Damaged(String),
    /// There is data but no identity file.
    #[error("{0} is not empty and not a quorate data directory; give another --data-dir")]
    NotOurs(String),
}

/// A data directory that this process holds.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    incarnation: Incarnation,
    /// Held for as long as it is open.
    _lock: File,
}

/// Whose a data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

impl Owner {
    /// What the node's log bears in every segment, so that no other's is taken for it.
    pub fn log_identity(self) -> u64 {
        self.cluster.0 ^ self.node.0.rotate_left(32)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of cluster {}", self.node, self.cluster)
    }
}

/// A directory that this process has locked, but not used yet.
#[derive(Debug)]
pub struct Claimed {
    path: PathBuf,
    lock: File,
    found: Option<(Owner, Incarnation)>,
}

impl Claimed {
    /// Locks the directory, making it if it is not there. Refused if it holds something else.
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        let io = |doing| move |cause| DataDirError::Io { doing, path: path.display().to_string(), cause };
        std::fs::create_dir_all(path).map_err(io("cannot make"))?;
        let lock = lock(path)?;
        let found = if path.join("IDENTITY").exists() {
            Some(read_identity(path)?)
        } else {
            let mut others = std::fs::read_dir(path).map_err(io("cannot list"))?.flatten();
            // A start that was cut short has left the draft; a file system of its own has the other.
            if others.any(|entry| {
                !["LOCK", "IDENTITY.new", "lost+found"].iter().any(|name| entry.file_name() == *name)
            }) {
                return Err(DataDirError::NotOurs(path.display().to_string()));
            }
            None
        };
        Ok(Self { path: path.to_owned(), lock, found })
    }

    /// Whose it is; `None` while it is empty.
    pub fn owner(&self) -> Option<Owner> {
        self.found.map(|(owner, _)| owner)
    }

    /// What the node was told when it joined; `None` for one that the cluster began with, or that is empty.
    pub fn joined(&self) -> Result<Option<Cluster>, DataDirError> {
        if self.found.is_some() { read_joined(&self.path) } else { Ok(None) }
    }

    /// Uses it as this node's; an empty one becomes it. What a node that joins was told of the cluster is written with whose it is, in one file:
    /// so a join is done or not.
    pub fn open(self, owner: Owner, joined: Option<&Cluster>) -> Result<DataDir, DataDirError> {
        let path = &*self.path;
        let io = |doing| move |cause| DataDirError::Io { doing, path: path.display().to_string(), cause };
        let incarnation = match self.found {
            Some((found, _)) if found != owner => {
                return Err(DataDirError::Foreign {
                    path: path.display().to_string(),
                    found: found.to_string(),
                    expected: owner.to_string(),
                });
            }
            Some((_, incarnation)) => incarnation,
            None => {
                let incarnation = draw_incarnation();
                write_identity(path, owner, incarnation, joined).map_err(io("cannot write IDENTITY in"))?;
                incarnation
            }
        };
        make_parts(path)?;
        Ok(DataDir { path: path.to_owned(), incarnation, _lock: self.lock })
    }
}

fn make_parts(path: &Path) -> Result<(), DataDirError> {
    for part in ["log", "store"] {
        let part = path.join(part);
        let io = |cause| DataDirError::Io { doing: "cannot make", path: part.display().to_string(), cause };
        std::fs::create_dir_all(&part).map_err(io)?;
        crash_point("directory.part_made");
    }
    // What is synced in them is of no use without their names.
    let io = |cause| DataDirError::Io { doing: "cannot sync", path: path.display().to_string(), cause };
    File::open(path).and_then(|names| names.sync_all()).map_err(io)?;
    crash_point("directory.parts_named");
    Ok(())
}

impl DataDir {
    /// Takes the directory for this process, making it if it is not there.
    pub fn open(path: &Path, owner: Owner) -> Result<Self, DataDirError> {
        Claimed::take(path)?.open(owner, None)
    }

    /// What [`begin_new_life`] has changed since it was opened is known from now on.
    pub(crate) fn reread(&mut self) -> Result<(), DataDirError> {
        (_, self.incarnation) = read_identity(&self.path)?;
        make_parts(&self.path)
    }

    /// Tells this directory from any other that the node had or will have.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether the node takes part, as last recorded.
    pub fn standing(&self) -> Result<Standing, DataDirError> {
        read_standing(&self.path)
    }

    /// Whether its node was removed from the cluster.
    pub fn is_removed(&self) -> bool {
        is_removed(&self.path)
    }

    /// Where the log is.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where it is told what happened.
    pub fn events(&self) -> PathBuf {
        self.path.join("events")
    }

    /// Where the ordered store is.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }
}

/// Takes the lock of a data directory that exists; it is held until the file is dropped.
pub fn lock(path: &Path) -> Result<File, DataDirError> {
    let file_path = path.join("LOCK");
    let io = |cause| DataDirError::Io { doing: "cannot lock", path: file_path.display().to_string(), cause };
    let file = File::options().create(true).truncate(false).write(true).open(&file_path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.display().to_string())),
        Err(TryLockError::Error(cause)) => {
            Err(DataDirError::Io { doing: "cannot lock", path: file_path.display().to_string(), cause })
        }
    }
}

/// The directory's node takes part no more under what it had recorded: it is a new directory, of the same node, which has to ask the others before it does
/// anything. The caller holds the directory.
pub(crate) fn begin_new_life(path: &Path) -> Result<(), DataDirError> {
    let io = |doing| move |cause| DataDirError::Io { doing, path: path.display().to_string(), cause };
    let (owner, _) = read_identity(path)?;
    let joined = read_joined(path)?;
    // First: who takes part in a life that the others do not know would not be heard, and would not know why.
    match std::fs::remove_file(path.join(ADMITTED)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("cannot remove ADMITTED in")(error));
        }
        _ => {}
    }
    crash_point("life.ended");
    write_identity(path, owner, draw_incarnation(), joined.as_ref()).map_err(io("cannot write IDENTITY in"))
}

/// Makes durable who takes this new directory's node for a member: next time it may not come to say so.
pub fn record_missed(path: &Path, by: NodeId) -> std::io::Result<()> {
    write_checked(path, MISSED, &format!("by={by}\n"))
}

/// Who does, if that was recorded.
pub fn missed_by(path: &Path) -> Result<Option<NodeId>, DataDirError> {
    let Some(body) = read_if_there(path, MISSED)? else { return Ok(None) };
    let by = body.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("by=")?, 16).ok());
    by.map(|by| Some(NodeId(by)))
        .ok_or_else(|| DataDirError::Damaged(path.join(MISSED).display().to_string()))
}

/// Makes durable that the node was removed from its cluster: its id never comes again.
pub fn record_removal(path: &Path) -> std::io::Result<()> {
    write_checked(path, REMOVED, "removed=yes\n")
}

/// Whether a directory's node was removed from its cluster, and has heard of it.
pub fn is_removed(path: &Path) -> bool {
    path.join(REMOVED).exists()
}

/// Makes durable that the node takes part.
pub fn record_standing(path: &Path, lives: &Lives) -> std::io::Result<()> {
    let line = |(node, life): (&NodeId, &Life)| {
        format!("{}={node} {}\n", if life.is_original { ORIGINAL } else { LATER }, life.incarnation)
    };
    let lines = lives.iter().map(line);
    write_checked(path, ADMITTED, &format!("admitted=yes\n{}", lines.collect::<String>()))
}

/// Reads whether the node takes part.
pub fn read_standing(path: &Path) -> Result<Standing, DataDirError> {
    let Some(body) = read_if_there(path, ADMITTED)? else { return Ok(Standing::New) };
    let damaged = || DataDirError::Damaged(path.join(ADMITTED).display().to_string());
    let mut lives = Lives::new();
    for (kind, life) in body.lines().filter_map(|line| line.split_once('=')) {
        if kind != ORIGINAL && kind != LATER {
            continue;
        }
        let (node, incarnation) = life.split_once(' ').ok_or_else(damaged)?;
        let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|_| damaged());
        let life = Life { incarnation: Incarnation(hex(incarnation)?), is_original: kind == ORIGINAL };
        lives.insert(NodeId(hex(node)?), life);
    }
    Ok(Standing::Admitted(lives))
}

/// Reads whose the directory is.
pub fn read_identity(path: &Path) -> Result<(Owner, Incarnation), DataDirError> {
    let file = path.join("IDENTITY");
    let damaged = || DataDirError::Damaged(file.display().to_string());
    let body = read_checked(&file)?;
    let field = |name: &str| {
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.ok_or_else(damaged)
    };
    let format: u32 = field("format")?.parse().map_err(|_| damaged())?;
    if format > FORMAT {
        return Err(DataDirError::Newer { path: path.display().to_string(), found: format });
    }
    let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|_| damaged());
    let owner = Owner { cluster: ClusterId(hex(field("cluster")?)?), node: NodeId(hex(field("node")?)?) };
    Ok((owner, Incarnation(hex(field("incarnation")?)?)))
}

/// Reads what the directory's node was told when it joined, if it joined.
pub fn read_joined(path: &Path) -> Result<Option<Cluster>, DataDirError> {
    let file = path.join("IDENTITY");
    let damaged = || DataDirError::Damaged(file.display().to_string());
    let hex = |text: &str| u64::from_str_radix(text, 16).map(NodeId).map_err(|_| damaged());
    let body = read_checked(&file)?;
    let (mut members, mut first_voters) = (Vec::new(), None);
    for (field, value) in body.lines().filter_map(|line| line.split_once('=')) {
        match field {
            "member" => {
                let told: ToldMember = serde_json::from_str(value).map_err(|_| damaged())?;
                members.push(told.member().ok_or_else(damaged)?);
            }
            "first" => {
                first_voters = Some(value.split_whitespace().map(hex).collect::<Result<Vec<_>, _>>()?);
            }
            _ => {}
        }
    }
    Ok(first_voters.map(|first_voters| Cluster { members, first_voters }))
}

pub(crate) fn write_identity(
    path: &Path,
    owner: Owner,
    incarnation: Incarnation,
    joined: Option<&Cluster>,
) -> std::io::Result<()> {
    let mut body = format!(
        "format={FORMAT}\ncluster={}\nnode={}\nincarnation={incarnation}\n",
        owner.cluster, owner.node
    );
    if let Some(Cluster { members, first_voters }) = joined {
        let ids: Vec<String> = first_voters.iter().map(NodeId::to_string).collect();
        body.push_str(&format!("first={}\n", ids.join(" ")));
        for member in members {
            // A name may have anything in it.
            let told = serde_json::to_string(&ToldMember::from(member))?;
            body.push_str(&format!("member={told}\n"));
        }
    }
    write_checked(path, "IDENTITY", &body)
}

/// An id that no node has had.
pub fn draw_node_id() -> NodeId {
    NodeId(draw_incarnation().0.max(1))
}

/// Of the system's randomness, as far as the standard library hands it out.
fn draw_incarnation() -> Incarnation {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    hasher.write_u32(std::process::id());
    Incarnation(hasher.finish())
}

/// The text of a small file, if there is one.
pub(crate) fn read_if_there(path: &Path, name: &str) -> Result<Option<String>, DataDirError> {
    let file = path.join(name);
    if file.exists() { read_checked(&file).map(Some) } else { Ok(None) }
}

/// The text of a small file, without the checksum that it ends with.
fn read_checked(file: &Path) -> Result<String, DataDirError> {
    let mut text = std::fs::read_to_string(file).map_err(|cause| DataDirError::Io {
        doing: "cannot read",
        path: file.display().to_string(),
        cause,
    })?;
    let damaged = || DataDirError::Damaged(file.display().to_string());
    let (body, checksum) = text.trim_end().rsplit_once("checksum=").ok_or_else(damaged)?;
    if u32::from_str_radix(checksum, 16).ok() != Some(crc32c::crc32c(body.as_bytes())) {
        return Err(damaged());
    }
    let length = body.len();
    text.truncate(length);
    Ok(text)
}

/// Written beside and renamed, so that a crash leaves either nothing or the whole of it.
pub(crate) fn write_checked(path: &Path, name: &str, body: &str) -> std::io::Result<()> {
    let draft = path.join(format!("{name}.new"));
    let mut file = File::create(&draft)?;
    crash_point("file.draft_made");
    file.write_all(format!("{body}checksum={:08x}\n", crc32c::crc32c(body.as_bytes())).as_bytes())?;
    crash_point("file.draft_written");
    file.sync_all()?;
    crash_point("file.draft_durable");
    std::fs::rename(&draft, path.join(name))?;
    crash_point("file.renamed");
    File::open(path)?.sync_all()?;
    crash_point("file.durable");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Member;

    fn owner(node: u64) -> Owner {
        Owner { cluster: ClusterId(7), node: NodeId(node) }
    }

    #[test]
    fn a_directory_is_used_by_one_process_and_one_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = DataDir::open(&path, owner(1)).unwrap();
        assert!(matches!(DataDir::open(&path, owner(1)), Err(DataDirError::InUse(_))));
        drop(held);
        assert!(matches!(DataDir::open(&path, owner(2)), Err(DataDirError::Foreign { .. })));
        drop(DataDir::open(&path, owner(1)).unwrap());
        let file = path.join("IDENTITY");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("node=1", "node=2")).unwrap();
        assert!(matches!(DataDir::open(&path, owner(2)), Err(DataDirError::Damaged(_))));
        let body = "format=99\ncluster=7\nnode=1\nincarnation=5\n";
        let newer = format!("{body}checksum={:08x}\n", crc32c::crc32c(body.as_bytes()));
        std::fs::write(&file, newer).unwrap();
        assert!(matches!(DataDir::open(&path, owner(1)), Err(DataDirError::Newer { found: 99, .. })));
    }

    #[test]
    fn a_directory_remembers_that_its_node_takes_part() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path(), owner(1)).unwrap();
        assert_eq!(data_dir.standing().unwrap(), Standing::New);
        let incarnation = data_dir.incarnation();
        let life = |incarnation, is_original| Life { incarnation, is_original };
        let lives = Lives::from([
            (NodeId(1), life(incarnation, true)),
            (NodeId(0xfe), life(Incarnation(u64::MAX), false)),
        ]);
        record_standing(dir.path(), &lives).unwrap();
        drop(data_dir);
        let data_dir = DataDir::open(dir.path(), owner(1)).unwrap();
        assert_eq!(data_dir.incarnation(), incarnation, "it is drawn once");
        assert_eq!(data_dir.standing().unwrap(), Standing::Admitted(lives));
        std::fs::write(dir.path().join(ADMITTED), "admitted=yes\nchecksum=0\n").unwrap();
        assert!(matches!(data_dir.standing(), Err(DataDirError::Damaged(_))));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(DataDir::open(other.path(), owner(1)).unwrap().incarnation(), incarnation);
    }

    #[test]
    fn a_directory_remembers_what_its_node_was_told_when_it_joined() {
        let dir = tempfile::tempdir().unwrap();
        let claimed = Claimed::take(dir.path()).unwrap();
        assert_eq!((claimed.owner(), claimed.joined().unwrap()), (None, None));
        let odd =
            Member { zone: "a \"b\"\nchecksum=0".into(), weight: 9, ..Member::new(NodeId(2), "x y", "h:1") };
        let members = vec![Member::new(NodeId(1), "n1", "h:2"), odd];
        let joined = Cluster { members, first_voters: vec![NodeId(1), NodeId(u64::MAX)] };
        drop(claimed.open(owner(2), Some(&joined)).unwrap());
        let claimed = Claimed::take(dir.path()).unwrap();
        assert_eq!((claimed.owner(), claimed.joined().unwrap()), (Some(owner(2)), Some(joined)));
        assert!(matches!(claimed.open(owner(1), None), Err(DataDirError::Foreign { .. })));
        let other = tempfile::tempdir().unwrap();
        drop(DataDir::open(other.path(), owner(1)).unwrap());
        assert_eq!(Claimed::take(other.path()).unwrap().joined().unwrap(), None);
    }

    #[test]
    fn somebody_elses_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        assert!(matches!(DataDir::open(dir.path(), owner(1)), Err(DataDirError::NotOurs(_))));
    }
}
