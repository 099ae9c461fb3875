//! How many puts a second larger clusters could take, from what a put was measured to cost (`docs/scaling.md` has the formulas and what is doubtful).
//!
//! As built, all leaders are on one node and its worker thread is the limit. With leaders on all nodes, which is not built, processors, workers and the
//! sequencer are limits, and the lowest counts.

use crate::report::middle;
use crate::{Failure, baseline};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const REPLICAS: f64 = 3.0;
/// What part of the sequencer's worker may go into messages. With more nodes than that allows they ask less often, for more at a time.
const MESSAGES_SHARE_MAX: f64 = 0.25;

/// What the model takes for given.
#[derive(clap::Args)]
#[command(next_help_heading = "The model")]
pub(crate) struct Given {
    /// Measure nothing: say what larger clusters could take, from the puts in a file that --json and --points put wrote with three nodes
    #[arg(long = "model", value_name = "FILE")]
    pub(crate) measured: Option<PathBuf>,
    /// What a revision takes of the sequencer; examples/sequencer_draws.rs in crates/node measures it
    #[arg(long, value_name = "NANOSECONDS", default_value_t = 300.0)]
    draw: f64,
    /// What a message and its answer take of a worker; examples/idle_groups.rs in crates/node says how much
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 2.0)]
    message: f64,
    /// Between two nodes and back
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 200.0)]
    round_trip: f64,
    /// Of each node
    #[arg(long, value_name = "NUMBER", default_value_t = 4.0)]
    cores: f64,
    /// Sizes of clusters
    #[arg(long, value_name = "NODES", value_delimiter = ',', default_values_t = [3.0, 10.0, 30.0, 100.0, 300.0])]
    sizes: Vec<f64>,
}

/// Microseconds that a put takes of a node: of all its threads, and of its worker alone.
#[derive(Clone, Copy, Debug)]
struct Share {
    all: f64,
    worker: f64,
}

/// A put, by the node that decides and by each that follows.
#[derive(Clone, Copy, Debug)]
struct Put {
    leader: Share,
    follower: Share,
}

impl Put {
    /// On the nodes of all replicas together.
    fn everywhere(&self, share: impl Fn(&Share) -> f64) -> f64 {
        share(&self.leader) + (REPLICAS - 1.0) * share(&self.follower)
    }
}

/// Puts a second.
#[derive(Debug, PartialEq)]
struct Limits {
    processors: f64,
    workers: f64,
    sequencer: f64,
    /// What a put waits for its revision, in microseconds.
    draw_wait: f64,
}

impl Given {
    /// With leaders on all of `nodes` nodes, which draw revisions in batches, each node one batch at a time.
    fn limits(&self, put: &Put, nodes: f64) -> Limits {
        let messages = nodes * self.message;
        let between_batches = self.round_trip.max(messages / MESSAGES_SHARE_MAX);
        Limits {
            processors: nodes * self.cores * 1e6 / put.everywhere(|share| share.all),
            workers: nodes * 1e6 / put.everywhere(|share| share.worker),
            sequencer: (1.0 - messages / between_batches) * 1e9 / self.draw,
            // A put comes when a batch is under way, and goes with the next.
            draw_wait: between_batches / 2.0 + self.round_trip,
        }
    }
}

/// Prints the tables for each number of clients that was measured.
pub(crate) fn print(given: &Given, file: &Path) -> Result<(), Failure> {
    let puts = puts(&baseline::read(file)?)?;
    for (clients, put) in puts {
        let Put { leader, follower } = put;
        println!(
            "{clients} clients: a put takes {:.1} us of the leader's node (worker {:.1}), {:.1} us of each follower's (worker {:.1})",
            leader.all, leader.worker, follower.all, follower.worker
        );
        let bound = 1e6 / leader.worker;
        println!(
            "  as built: at most {bound:.0} puts/s, when the leaders' worker has a core of its own and {:.1} are there in all on its node, \
             {:.1} on each other",
            bound * leader.all / 1e6,
            bound * follower.all / 1e6
        );
        println!("  not built: leaders on all nodes, {} cores each", given.cores);
        println!("  nodes   processors      workers    sequencer   puts/s at most  waits for its revision");
        for &nodes in &given.sizes {
            let Limits { processors, workers, sequencer, draw_wait } = given.limits(&put, nodes);
            let most = processors.min(workers).min(sequencer);
            println!(
                "  {nodes:>5} {processors:>12.0} {workers:>12.0} {sequencer:>12.0} {most:>16.0} {draw_wait:>20.0} us"
            );
        }
    }
    Ok(())
}

/// Medians over the rounds, by the number of clients.
fn puts(rows: &[Value]) -> Result<BTreeMap<u64, Put>, Failure> {
    let mut rounds: BTreeMap<u64, Vec<Put>> = BTreeMap::new();
    for row in
        rows.iter().filter(|row| row["system"] == "quorate" && row["point"] == "put" && row["nodes"] == 3)
    {
        let share = |threads: &Value| -> Option<Share> {
            let all = threads.as_object()?.values().filter_map(Value::as_f64).sum();
            Some(Share { all, worker: threads["worker"].as_f64()? })
        };
        let shares = share(&row["leader_us_per_op"]).zip(share(&row["follower_us_per_op"]));
        if let (Some((leader, follower)), Some(clients)) = (shares, row["clients"].as_u64()) {
            rounds.entry(clients).or_default().push(Put { leader, follower });
        }
    }
    if rounds.is_empty() {
        return Err("there are no puts on three nodes of quorate's in it; write one with --points put --nodes 3 --json".into());
    }
    let median = |puts: &[Put], side: fn(&Put) -> Share| Share {
        all: middle(puts.iter().map(|put| side(put).all).collect()),
        worker: middle(puts.iter().map(|put| side(put).worker).collect()),
    };
    let put = |puts: Vec<Put>| Put {
        leader: median(&puts, |put| put.leader),
        follower: median(&puts, |put| put.follower),
    };
    Ok(rounds.into_iter().map(|(clients, puts)| (clients, put(puts))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        Given { measured: None, draw: 250.0, message: 2.0, round_trip: 200.0, cores: 4.0, sizes: Vec::new() }
    }

    #[test]
    fn a_put_is_paid_for_on_three_nodes_and_the_sequencer_is_left_for_draws() {
        let row = r#"[{"system":"quorate","point":"put","nodes":3,"clients":64,
            "leader_us_per_op":{"worker":20.0,"log":20.0},"follower_us_per_op":{"worker":10.0,"log":10.0}}]"#;
        let rows: Vec<Value> = serde_json::from_str(row).unwrap();
        let put = puts(&rows).unwrap()[&64];
        let limits = given().limits(&put, 10.0);
        let expected = Limits { processors: 500e3, workers: 250e3, sequencer: 3.6e6, draw_wait: 300.0 };
        assert_eq!(limits, expected);
    }

    #[test]
    fn with_many_nodes_batches_are_further_apart() {
        let share = Share { all: 40.0, worker: 20.0 };
        let limits = given().limits(&Put { leader: share, follower: share }, 100.0);
        assert_eq!((limits.sequencer, limits.draw_wait), (3e6, 600.0));
    }

    #[test]
    fn a_file_without_puts_is_refused() {
        assert!(puts(&[]).is_err());
    }
}
