//! Stories about one group, to be read like prose: each file in `scripts/` is run and its output compared.
//!
//! A file is a row of blocks: commands, `---`, what happened, an empty line. The cluster lives on from
//! block to block. `cargo xtask scripts --update` writes down what happens now, for review.
//!
//! Messages arrive at once, in the order in which they were sent, and time passes only by command.
//!
//! ```text
//! cluster 3 [1]        new replicas n1 to n3 with empty logs; n1 leads them already
//! cluster 3 1 5        the same, with two more nodes that are no members
//! elect 2              time goes by until n2 leads; the others do not stand
//! tick 10 [2 3]        ten ticks for all, or for n2 and n3 only
//! propose 1 x          n1 is asked to append x
//! read 1 a             n1 is asked for a read barrier, named a
//! cut 1                n1 hears nobody and nobody hears it; "cut 1 2" cuts one link
//! mend                 everybody hears everybody
//! slow 2, fast 2       n2's disk does not finish any write, or finishes all
//! crash 2, start 2     what is not durable is lost
//! lose 2 1             n2's connection to n1 breaks
//! change 1 1,2,4 3,5   n1 is asked to make 1, 2 and 4 vote, and 3 and 5 learn
//! transfer 1 3         n1 is asked to hand over to n3
//! compact 1            n1 drops what it has applied
//! logs                 the terms of everybody's entries
//! ```

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_consensus::{
    Configuration, Consensus, Message, Options, ProposeError, Raft, ReadId, ReadOutcome, Recovered, Role,
    SnapshotFetch, SnapshotMeta, WriteId,
};
use quorate_types::{Bytes, Entry, EntryKind, Index, LogWrite, NodeId};
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Ticks after which `elect` gives up: several of the longest timeouts.
const ELECT_TICKS_MAX: usize = 200;

struct Node {
    options: Options,
    raft: Option<Raft>,
    durable: Recovered,
    lives: u64,
    writing: VecDeque<(WriteId, LogWrite)>,
    written: WriteId,
    held: Vec<(WriteId, NodeId, Message)>,
    is_slow: bool,
    /// The state machine is durable as soon as it has applied something.
    applied: Index,
}

#[derive(Default)]
struct Group {
    nodes: Vec<Node>,
    flying: VecDeque<(NodeId, NodeId, Message)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose messages are lost while `elect` waits.
    is_silent: bool,
    out: String,
}

fn apply_write(disk: &mut Recovered, write: LogWrite) {
    if let Some(position) = write.restart {
        disk.start = position;
        disk.entries.clear();
    }
    disk.hard_state = write.hard_state.unwrap_or(disk.hard_state);
    if let Some(first) = write.entries.first().map(|entry| entry.index) {
        disk.entries.retain(|entry| entry.index < first);
    }
    disk.entries.extend(write.entries);
    if let Some(position) = write.compact {
        disk.entries.retain(|entry| entry.index > position.index);
        disk.start = position;
    }
}

fn describe(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::Fence => format!("fence {}", entry.position()),
        EntryKind::Config => {
            let members = Configuration::from_entry(entry).unwrap();
            let list = |ids: &[NodeId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",");
            let outgoing =
                if members.is_joint() { format!(" and {}", list(&members.outgoing)) } else { String::new() };
            let learners = if members.learners.is_empty() {
                String::new()
            } else {
                format!(", learners {}", list(&members.learners))
            };
            format!("voters {}{outgoing}{learners} {}", list(&members.voters), entry.position())
        }
        _ => format!("{} {}", String::from_utf8_lossy(&entry.data), entry.position()),
    }
}

impl Group {
    fn say(&mut self, at: usize, what: impl std::fmt::Display) {
        let _ = writeln!(self.out, "n{}: {what}", at + 1); // Writing to a string cannot fail.
    }

    fn run(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let number = |at: usize| -> u64 {
            let word = words.get(at).unwrap_or_else(|| panic!("{command:?} says too little"));
            word.parse().unwrap_or_else(|_| panic!("{command:?}: {word:?} is not a number"))
        };
        let node = |at: usize| number(at) as usize - 1;
        match words[0] {
            "cluster" => {
                *self = Self::new(number(1), if words.len() > 3 { number(3) } else { number(1) });
                if words.len() > 2 {
                    self.elect(node(2));
                }
                self.out.clear(); // How it came to be is told in `election.txt`.
            }
            "elect" => self.elect(node(1)),
            "tick" => {
                let named: Vec<usize> = (2..words.len()).map(node).collect();
                for _ in 0..number(1) {
                    for at in 0..self.nodes.len() {
                        if named.is_empty() || named.contains(&at) {
                            self.with(at, |raft| raft.tick());
                        }
                    }
                    self.settle();
                }
            }
            "propose" => self.propose(node(1), words[2]),
            "read" => {
                let name = u64::from(words[2].as_bytes()[0]);
                self.with(node(1), |raft| raft.read(ReadId(name)));
            }
            "cut" => {
                let id = NodeId(number(1));
                let peers = self.nodes.iter().map(|other| other.options.id);
                let peers: Vec<NodeId> =
                    if words.len() > 2 { vec![NodeId(number(2))] } else { peers.collect() };
                for other in peers {
                    self.cut.extend([(id, other), (other, id)]);
                }
            }
            "mend" => self.cut.clear(),
            "slow" => self.nodes[node(1)].is_slow = true,
            "fast" => {
                self.nodes[node(1)].is_slow = false;
                self.report(node(1));
            }
            "crash" => {
                let node = &mut self.nodes[node(1)];
                node.raft = None;
                node.writing.clear();
                node.held.clear();
            }
            "start" => self.start(node(1)),
            "lose" => self.with(node(1), |raft| raft.peer_lost(NodeId(number(2)), number(1))),
            "change" => self.change(node(1), words[2], words.get(3).unwrap_or(&"")),
            "transfer" => self.with(node(1), |raft| raft.transfer(Some(NodeId(number(2))))),
            "compact" => {
                let index = self.nodes[node(1)].applied;
                self.with(node(1), |raft| raft.compact(index));
            }
            "logs" => self.logs(),
            _ => panic!("unknown command {command:?}"),
        }
        self.settle();
    }

    fn new(voters: u64, size: u64) -> Self {
        let ids: Vec<NodeId> = (1..=size).map(NodeId).collect();
        let voters = ids[..voters as usize].to_vec();
        let node = |id: &NodeId| Node {
            options: Options::new(*id, voters.clone(), id.0),
            raft: None,
            durable: Recovered::default(),
            lives: 0,
            writing: VecDeque::new(),
            written: WriteId(0),
            held: Vec::new(),
            is_slow: false,
            applied: Index::START,
        };
        let mut group = Self { nodes: ids.iter().map(node).collect(), ..Self::default() };
        for at in 0..group.nodes.len() {
            group.start(at);
        }
        group
    }

    fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.lives += 1;
        let options = Options { seed: node.options.id.0 + 10 * node.lives, ..node.options.clone() };
        node.raft = Some(Raft::new(options, node.durable.clone(), node.applied));
        node.written = WriteId(0);
        self.take(at);
    }

    fn with(&mut self, at: usize, act: impl FnOnce(&mut Raft)) {
        if let Some(raft) = &mut self.nodes[at].raft {
            act(raft);
            self.take(at);
        }
    }

    fn elect(&mut self, at: usize) {
        // Nobody honours the old leader any more, and should they stand, nobody hears it.
        self.is_silent = true;
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let is_cut = self.cut.contains(&(NodeId(other as u64 + 1), NodeId(at as u64 + 1)));
            for _ in 0..if is_cut { 0 } else { self.nodes[other].options.election_ticks_min } {
                let said = self.out.len();
                self.with(other, |raft| raft.tick());
                self.out.truncate(said);
            }
        }
        self.is_silent = false;
        for _ in 0..ELECT_TICKS_MAX {
            self.with(at, |raft| raft.tick());
            self.settle();
            let status = self.nodes[at].raft.as_ref().map(|raft| raft.status().role);
            if matches!(status, Some(Role::Leader { .. })) {
                return;
            }
        }
        self.say(at, "is not elected");
    }

    fn propose(&mut self, at: usize, text: &str) {
        let Some(raft) = &mut self.nodes[at].raft else { return };
        let answer = raft.propose(EntryKind::Write, Bytes::from(text.to_owned()));
        self.say(
            at,
            match answer {
                Ok(position) => format!("appends {text} {position}"),
                Err(ProposeError::NotLeader(Some(leader))) => format!("refuses {text}, n{leader} leads"),
                Err(ProposeError::NotLeader(None)) => format!("refuses {text}, knows no leader"),
                Err(ProposeError::Transferring) => format!("refuses {text}, hands over"),
                Err(ProposeError::Full) => format!("refuses {text}, full"),
            },
        );
        self.take(at);
    }

    fn change(&mut self, at: usize, voters: &str, learners: &str) {
        let ids = |list: &str| {
            let names = list.split(',').filter(|name| !name.is_empty());
            names.map(|name| NodeId(name.parse().unwrap())).collect::<Vec<_>>()
        };
        let Some(raft) = &mut self.nodes[at].raft else { return };
        let answer = raft.change(ids(voters), ids(learners));
        self.say(
            at,
            match answer {
                Ok(position) => format!("appends a change of members {position}"),
                Err(error) => format!("refuses the change: {error:?}"),
            },
        );
        self.take(at);
    }

    fn logs(&mut self) {
        for at in 0..self.nodes.len() {
            let Some(raft) = &self.nodes[at].raft else {
                self.say(at, "is down");
                continue;
            };
            let (status, durable) = (raft.status(), &self.nodes[at].durable);
            let terms = durable.entries.iter().map(|entry| entry.term.to_string());
            let line = format!(
                "after {}: terms {}; committed {}",
                durable.start.index,
                terms.collect::<Vec<_>>().join(" "),
                status.commit
            );
            self.say(at, line);
        }
    }

    /// Does what a replica wants, until it wants nothing more.
    fn take(&mut self, at: usize) {
        loop {
            let Some(raft) = &mut self.nodes[at].raft else { return };
            let effects = raft.take();
            let (id, term) = (NodeId(at as u64 + 1), raft.status().term);
            let is_quiet = effects.persist.is_none() && effects.apply.is_empty();
            if let Some(role) = effects.role_changed {
                self.say(
                    at,
                    match role {
                        Role::Leader { .. } => format!("leads term {term}"),
                        Role::Candidate => format!("is a candidate in term {term}"),
                        Role::Follower { leader: Some(leader) } => {
                            format!("follows n{leader} in term {term}")
                        }
                        Role::Follower { leader: None } => format!("follows nobody in term {term}"),
                    },
                );
            }
            for (to, message) in effects.send_now {
                self.send(id, to, message);
            }
            for (write, to, message) in effects.send_after {
                if write <= self.nodes[at].written {
                    self.send(id, to, message);
                } else {
                    self.nodes[at].held.push((write, to, message));
                }
            }
            if let Some((write, content)) = effects.persist {
                let held = self.nodes[at].durable.entries.last().map(|entry| entry.index);
                if let Some(first) = content.entries.first()
                    && held.is_some_and(|last| first.index <= last)
                {
                    self.say(at, format!("replaces its log from {} on", first.index));
                }
                self.nodes[at].writing.push_back((write, content));
            }
            if !self.nodes[at].is_slow {
                self.write(at);
            }
            if let Some(last) = effects.apply.last() {
                let texts: Vec<String> = effects.apply.iter().map(describe).collect();
                self.say(at, format!("applies {}", texts.join(", ")));
                self.nodes[at].applied = last.index;
                let changes = effects.apply.iter().filter(|entry| entry.kind == EntryKind::Config);
                if let Some(members) = changes.last().and_then(Configuration::from_entry) {
                    self.nodes[at].options.configuration = members;
                }
                if let Some(raft) = &mut self.nodes[at].raft {
                    raft.applied(last.index);
                }
            }
            for (ReadId(name), outcome) in effects.reads {
                let name = char::from(name as u8);
                match outcome {
                    ReadOutcome::Ready(index) => self.say(at, format!("answers read {name} at {index}")),
                    ReadOutcome::Failed => self.say(at, format!("fails read {name}")),
                }
            }
            for to in effects.snapshots_wanted {
                self.offer(at, to);
            }
            if let Some(fetch) = effects.fetch {
                self.fetch(at, fetch);
                continue;
            }
            if is_quiet {
                return;
            }
        }
    }

    fn offer(&mut self, at: usize, to: NodeId) {
        let node = &mut self.nodes[at];
        let index = node.applied;
        let entry = node.durable.entries.iter().find(|entry| entry.index == index);
        let position = entry.map_or(node.durable.start, Entry::position);
        if let Some(raft) = &mut node.raft {
            let configuration = raft.configuration_at(position.index).clone();
            raft.offer_snapshot(to, SnapshotMeta { position, configuration });
        }
        self.say(at, format!("offers n{to} a snapshot at {position}"));
        self.take(at);
    }

    /// The snapshot is there at once.
    fn fetch(&mut self, at: usize, fetch: SnapshotFetch) {
        self.say(at, format!("installs the snapshot at {} from n{}", fetch.meta.position, fetch.from));
        let node = &mut self.nodes[at];
        node.applied = fetch.meta.position.index;
        node.options.configuration = fetch.meta.configuration.clone();
        if let Some(raft) = &mut node.raft {
            raft.state_lost();
            raft.restored(fetch.meta);
        }
    }

    fn write(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        for (write, content) in std::mem::take(&mut node.writing) {
            apply_write(&mut node.durable, content);
            node.written = write;
            if let Some(raft) = &mut node.raft {
                raft.persisted(write);
            }
        }
        for (write, to, message) in std::mem::take(&mut self.nodes[at].held) {
            assert!(write <= self.nodes[at].written, "nothing else is being written");
            self.send(NodeId(at as u64 + 1), to, message);
        }
    }

    /// The disk catches up.
    fn report(&mut self, at: usize) {
        self.write(at);
        self.take(at);
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if !self.is_silent && !self.cut.contains(&(from, to)) {
            self.flying.push_back((from, to, message));
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, message)) = self.flying.pop_front() {
            self.with(to.0 as usize - 1, |raft| raft.step(from, message));
        }
    }
}

/// The file with the output that its commands give now.
fn replay(text: &str) -> String {
    let mut group = Group::default();
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    while lines.peek().is_some() {
        let mut block = String::new();
        for line in lines.by_ref().take_while(|line| *line != "---") {
            block.push_str(line);
            block.push('\n');
            if !line.is_empty() && !line.starts_with('#') {
                group.run(line);
            }
        }
        lines.by_ref().find(|line| line.is_empty()); // The old output ends here.
        let said = std::mem::take(&mut group.out);
        let said = if said.is_empty() { "nothing\n".to_owned() } else { said };
        blocks.push(format!("{block}---\n{said}"));
    }
    blocks.join("\n")
}

#[test]
fn stories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|it| it == "txt")).collect();
    files.sort();
    assert!(!files.is_empty(), "no scripts in {}", folder.display());
    let mut wrong = Vec::new();
    for path in files {
        let before = std::fs::read_to_string(&path).unwrap();
        let now = replay(&before);
        if std::env::var_os("QUORATE_UPDATE_SCRIPTS").is_some() {
            std::fs::write(&path, now).unwrap();
        } else if before != now {
            let differs = before.lines().zip(now.lines()).position(|(old, new)| old != new);
            let at = differs.unwrap_or(before.lines().count().min(now.lines().count()));
            let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
            wrong.push(format!(
                "{}:{}: recorded {:?}, now {:?}",
                path.file_name().unwrap().display(),
                at + 1,
                line(&before),
                line(&now)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}\nif that is right: cargo xtask scripts --update", wrong.join("\n"));
}
