//! Nodes that come and go: begun at the beginning of a round, together with faults or without, and finished when all nodes serve again.

use super::cluster::listed;
use super::faults::{Ended, LOOK, Tormentor};
use super::lives::Condition;
use super::plan::Change;
use super::timeline::Deed;
use serde_json::{Value, json};
use std::time::Instant;
use tonic::codegen::http::Method;

/// No more are made: what clients do is in fewer directories than that.
const PARTITIONS_MAX: u64 = 32;

/// What waits to be finished when all nodes serve again.
pub(super) enum Open {
    Joined(String),
    Removed(String),
    Drained(String),
    Lost(String),
    Returned(String),
    /// So many partitions there are then.
    Split(u64),
}

impl Tormentor {
    /// Begins it; what is to be finished, unless it was refused.
    pub(super) async fn begin(
        &mut self,
        change: Change,
        words: &mut Vec<String>,
        deeds: &mut Vec<Deed>,
    ) -> Result<Option<Open>, Ended> {
        let (open, what) = match change.clone() {
            Change::Join => {
                let name = self.join().await?;
                let what = format!("{name} joins");
                (Open::Joined(name), what)
            }
            Change::Drain(name) => {
                if !self.order(json!({"drain": {"node": name}})).await? {
                    return Ok(None);
                }
                let what = format!("{name} is drained");
                (Open::Drained(name), what)
            }
            Change::Remove(name) => {
                if !self.order(json!({"remove": {"node": name}})).await? {
                    return Ok(None);
                }
                let what = format!("{name} is removed");
                self.cluster.absent = Some(name.clone());
                (Open::Removed(name), what)
            }
            Change::Split => {
                let Some(before) = self.partitions().await.filter(|before| *before < PARTITIONS_MAX) else {
                    return Ok(None);
                };
                if !self.order_at("/partitions/split", json!({"keyspace": "default"})).await? {
                    return Ok(None);
                }
                (Open::Split(before + 1), "a partition is split".to_owned())
            }
            Change::Lose(name) => {
                let what = format!("{name} is lost for good, with its data");
                self.cluster.forget(&name)?;
                (Open::Lost(name), what)
            }
            Change::Return(name) => {
                let what = format!("{name} is lost, with its data, and joins again");
                if let Some(machine) = self.cluster.named(&name) {
                    machine.wipe()?;
                }
                self.cluster.absent = Some(name.clone());
                (Open::Returned(name), what)
            }
        };
        let joined = if let Open::Joined(name) = &open { Some(name) } else { None };
        deeds.push(Deed::of_change(&change, joined));
        words.push(what);
        self.lives.changed(&change, self.book.now());
        Ok(Some(open))
    }

    /// A node more; its name.
    async fn join(&mut self) -> Result<String, Ended> {
        let name = self.cluster.join().await?;
        let now = self.now();
        self.lives.born(&name, now);
        self.lives.begin(&name, Condition::Joining, now);
        Ok(name)
    }

    /// When all nodes serve again: waits until it is done.
    pub(super) async fn finish(&mut self, open: Open) -> Result<(), Ended> {
        match open {
            Open::Joined(name) => self.joined(&name).await,
            Open::Split(partitions) => {
                let begun = Instant::now();
                while self.partitions().await.is_none_or(|there| there < partitions) {
                    self.all_live()?;
                    if begun.elapsed() > self.patience {
                        let what = format!("a split is not finished after {:?}", self.patience);
                        return Err(self.wrong(what));
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Ok(())
            }
            Open::Drained(name) => {
                let is_empty = |node: &Value| node["replicas"] == 0;
                let drained = |list: &Value| listed(list, &name).is_some_and(is_empty) && list["moves"] == 0;
                self.until(&format!("{name} is drained and holds nothing"), drained).await?;
                self.order(json!({"undrain": {"node": name}})).await?;
                self.lives.end(&name, Condition::Draining, self.book.now());
                Ok(())
            }
            Open::Removed(name) => {
                self.until(&format!("{name} is removed"), |list| is_gone(list, &name)).await?;
                self.cluster.forget(&name)?;
                self.cluster.absent = None;
                self.lives.gone(&name, self.book.now());
                Ok(())
            }
            Open::Lost(old) => {
                let new = self.join().await?;
                self.say(&format!("{new} joins in the place of {old}"));
                self.joined(&new).await?;
                self.lost(&old).await?;
                let emptied = |list: &Value| listed(list, &old).is_some_and(|node| node["replicas"] == 0);
                self.until(&format!("others have what {old} had"), emptied).await?;
                self.order(json!({"replace": {"node": old, "by": new}})).await?;
                self.until(&format!("{old} is forgotten"), |list| is_gone(list, &old)).await
            }
            Open::Returned(name) => {
                self.lost(&name).await?;
                let list = self.cluster.list().await.unwrap_or(Value::Null);
                let old = listed(&list, &name).map(|node| node["id"].clone()).unwrap_or(Value::Null);
                self.cluster.join_again(&name)?;
                self.cluster.absent = None;
                self.lives.end(&name, Condition::Lost, self.book.now());
                self.lives.begin(&name, Condition::Joining, self.book.now());
                let is_new = |list: &Value| {
                    let mut nodes = list["nodes"].as_array().into_iter().flatten();
                    let is_gone = nodes.clone().all(|node| node["id"] != old);
                    is_gone && nodes.any(|node| node["name"] == name.as_str() && node["client"] != "")
                };
                self.until(&format!("{name} has joined again"), is_new).await?;
                self.lives.end(&name, Condition::Joining, self.book.now());
                Ok(())
            }
        }
    }

    /// How many partitions there are, if none is being split and somebody answers.
    async fn partitions(&self) -> Option<u64> {
        let (_, told) = self.cluster.ask(Method::GET, "/partitions", &Value::Null).await.ok()?;
        let mut keyspaces = told["keyspaces"].as_array()?.iter();
        let partitions =
            keyspaces.find(|keyspace| keyspace["name"] == "default")?["partitions"].as_array()?;
        let are_whole = partitions.iter().all(|partition| partition["splitting"].is_null());
        are_whole.then_some(partitions.len() as u64)
    }

    async fn lost(&mut self, name: &str) -> Result<(), Ended> {
        let lost = |list: &Value| listed(list, name).is_some_and(|node| node["standing"] == "lost");
        self.until(&format!("{name} counts as lost"), lost).await
    }

    async fn joined(&mut self, name: &str) -> Result<(), Ended> {
        let joined = |list: &Value| listed(list, name).is_some_and(|node| node["client"] != "");
        self.until(&format!("{name} has joined"), joined).await?;
        self.lives.end(name, Condition::Joining, self.book.now());
        Ok(())
    }
}

fn is_gone(list: &Value, name: &str) -> bool {
    list["nodes"].is_array() && listed(list, name).is_none()
}
