//! partitions split: one partition becomes two, and the command waits until they are.

use super::partitions::{Told, ask_by};
use super::{CliError, Target, keyspace};
use crate::services::keyspaces::WantedSplit;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use std::time::{Duration, Instant};
use tonic::codegen::http::Method;

/// Between two looks at a split that goes on.
const LOOK: Duration = Duration::from_millis(100);
/// When it is first said that it takes long, and between two times that it is said.
const SAY_AFTER: Duration = Duration::from_secs(2);
const SAY_AGAIN: Duration = Duration::from_secs(5);

/// Make two partitions of one, while it is used
#[derive(Args, Debug)]
#[command(
    after_help = "The upper half of the partition's slots, and with them every key that hashes there, becomes a new partition with a log and a leader \
of its own, on the same nodes. Nothing is copied: both halves keep their rows where they are. Clients see the same keys, revisions, leases and \
watches as before; requests of that partition wait for some tens of milliseconds, in which the new partition gets its leader.

A split begins when transactions over several partitions that are under way there have ended, and needs a majority of the nodes. It goes on by \
itself when a node fails and when this command is interrupted; `quorate partitions` shows it as PARENT->CHILD.

Partitions are never joined again, and a keyspace has at most 1024. What is all in one slot (one directory, or what a --pin keeps together) stays \
in one partition, however often that is split.

Splitting helps where one partition's log is the limit. The revisions of a keyspace of several partitions come from one node, and transactions \
over several of them cost more messages: a keyspace that one partition is enough for is better left with one.

Examples:
  quorate partitions split                          # the largest one of keyspace default
  quorate --keyspace orders partitions split 3"
)]
pub struct Split {
    /// Which; see `quorate partitions` [default: the one with the most slots]
    partition: Option<u32>,
}

/// A split that was ordered, as a node tells of it.
#[derive(Debug, Deserialize)]
struct Ordered {
    keyspace: u32,
    name: String,
    parent: u32,
    child: u32,
    parent_slots: u32,
    child_slots: u32,
    finished: bool,
}

impl Split {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        let begun = Instant::now();
        let wanted = WantedSplit { keyspace: target.keyspace.clone(), partition: self.partition };
        let body = serde_json::to_vec(&wanted).map_err(|error| CliError::Usage(error.to_string()))?;
        let mut answer =
            keyspace::ask(target, Method::POST, "/partitions/split", body, "quorate partitions").await?;
        let ordered = Ordered::deserialize(&answer)
            .map_err(|error| CliError::Usage(format!("the node's answer makes no sense: {error}")))?;
        if !ordered.finished {
            ordered.wait(target, begun).await?;
            answer["finished"] = Value::Bool(true);
        }
        if target.is_json() {
            println!("{answer}");
        } else {
            let Ordered { name, parent, child, parent_slots, child_slots, .. } = ordered;
            let kept = keyspace::counted(parent_slots.into(), "slot");
            println!(
                "keyspace {name}: partition {parent} is split; it keeps {kept}, and the new partition {child} has {child_slots}"
            );
        }
        Ok(())
    }
}

impl Ordered {
    /// Waits until some node knows that it is finished.
    async fn wait(&self, target: &Target, begun: Instant) -> Result<(), CliError> {
        let patience = Duration::from_secs(target.timeout.max(1));
        let mut say_at = begun + SAY_AFTER;
        let mut heard = Instant::now();
        loop {
            let told = look(target).await;
            let why = match &told {
                Ok(told) => {
                    heard = Instant::now();
                    match self.missing(told) {
                        None => return Ok(()),
                        Some(why) => why,
                    }
                }
                Err(problem) if heard.elapsed() > patience => {
                    return Err(CliError::Usage(format!(
                        "{problem}; the split of partition {} is ordered and goes on by itself: quorate partitions shows it",
                        self.parent
                    )));
                }
                Err(problem) => problem.clone(),
            };
            if Instant::now() >= say_at {
                say_at = Instant::now() + SAY_AGAIN;
                eprintln!(
                    "splitting partition {} of keyspace {}: not finished after {} s; {why}",
                    self.parent,
                    self.name,
                    begun.elapsed().as_secs()
                );
                // A node may not have heard of it; the leader of all keyspaces has.
                if !keyspace::is_there(target, self.keyspace).await.unwrap_or(true) {
                    return Err(CliError::Usage(format!("keyspace {} was deleted meanwhile", self.name)));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What it waits for, as far as a node can tell; `None` when it is finished.
    fn missing(&self, told: &Told) -> Option<String> {
        let keyspace = told.keyspaces.iter().find(|keyspace| keyspace.keyspace == self.keyspace);
        let partition = |id| {
            let partitions = keyspace.map(|keyspace| keyspace.partitions.iter());
            partitions.into_iter().flatten().find(|partition| partition.partition == id)
        };
        if partition(self.child).is_some() {
            return None;
        }
        let parent = partition(self.parent);
        let Some((parent, splitting)) = parent.and_then(|parent| Some((parent, parent.splitting.as_ref()?)))
        else {
            return Some("the node that was asked has not heard of it yet".to_owned());
        };
        Some(if parent.leader.is_none() {
            format!("partition {} has no leader: are most of the nodes up?", self.parent)
        } else if splitting.is_opened {
            format!("the new partition {} has no leader yet", self.child)
        } else {
            "transactions over several partitions that are under way end first".to_owned()
        })
    }
}

/// What the first node that can be reached says of the partitions.
async fn look(target: &Target) -> Result<Told, String> {
    let channel = target.connect().await.map_err(|error| error.to_string())?;
    ask_by(channel).await
}
