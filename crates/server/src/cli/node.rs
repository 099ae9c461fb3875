//! node: which nodes the cluster has and what they hold; emptying, removing and replacing them.

use super::keyspace::{ask, counted};
use super::{CliError, Target};
use crate::services::nodes::WantedOrder;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tonic::codegen::http::Method;

const PATH: &str = "/nodes";
/// The command that shows what has become of an order.
const LIST: &str = "quorate node list";
/// Between two looks at how far an order is.
const LOOK: Duration = Duration::from_millis(500);
/// Seconds that one look may take: there are others to ask.
const LOOK_SECONDS_MAX: u64 = 3;
/// So long may no node answer, while an order is waited for.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Nodes: who is there, what they hold, and how they come and go
#[derive(Subcommand, Debug)]
#[command(after_help = "A node joins by being started with an empty data directory and a name of its own:

  quorate serve --name n4 --join 10.0.0.1:2379 --zone north \\
      --listen-peer 10.0.0.4:2380 --listen-client 10.0.0.4:2379

The cluster then moves to it what it shall hold. A node that is silent for the grace period (of
quorate serve) is lost: others get what it had, as long as there are enough. It is active again by
itself when it is heard.

To take a node down for an hour, just stop it. To take it away for good: remove it, wait, stop it.

A node is named by its name or its id.

Examples:
  quorate node list
  quorate node drain n2         empty it, and keep it; undrain gives it its share again
  quorate node remove n2        empty it, then forget it
  quorate node replace n2 n4    the same, n4 being there to take what n2 has
  quorate node weight n4 2      it shall hold twice as much as one with weight 1
  quorate node zone n4 south    spread replicas over zones")]
pub enum Node {
    /// All nodes: zone, weight, standing, what they hold and lead
    List,
    /// Move everything away from a node, which stays a member
    Drain {
        /// Which.
        #[command(flatten)]
        order: Leave,
    },
    /// Let a node have its share again; also takes a removal back that is not finished
    Undrain {
        /// Its name or id
        node: String,
    },
    /// Move everything away from a node, then forget it for good
    Remove {
        /// Which.
        #[command(flatten)]
        order: Leave,
    },
    /// Remove a node, as another has come in its place
    Replace {
        /// The name or id of the one that goes
        old: String,
        /// The name or id of the one that is there for it
        new: String,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Set how much a node shall hold in proportion to others
    Weight {
        /// Its name or id
        node: String,
        /// 1 to 1000000; all nodes have 1 at first
        weight: u32,
    },
    /// Set what fails together with a node, as a rack or a site
    Zone {
        /// Its name or id
        node: String,
        /// The zone's name; "" is a zone of its own
        zone: String,
    },
    /// Set where other nodes reach a node, which has to listen there
    Peer {
        /// Its name or id
        node: String,
        /// HOST:PORT
        address: String,
    },
}

/// A node that is to be emptied.
#[derive(Args, Debug)]
pub struct Leave {
    /// Its name or id
    node: String,
    /// Also if too few nodes would be left to take what it has: a drained one keeps that until another joins, a removed one goes and leaves
    /// fewer copies
    #[arg(long)]
    force: bool,
    /// Whether to wait.
    #[command(flatten)]
    wait: Wait,
}

/// Whether to wait for what an order entails.
#[derive(Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Wait until nothing is left on the node, and show how far it is [default: true at a terminal]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    wait: Option<bool>,
}

impl Wait {
    fn is_wanted(self) -> bool {
        self.wait.unwrap_or_else(|| std::io::stderr().is_terminal())
    }
}

/// A node, as one of them tells of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Told {
    id: String,
    pub(crate) name: String,
    peer: String,
    #[serde(default)]
    client: String,
    zone: String,
    weight: u32,
    pub(crate) standing: String,
    #[serde(default)]
    pub(crate) heard: bool,
    pub(crate) replicas: u64,
    #[serde(default)]
    leads: u64,
    meta: String,
}

/// All nodes.
#[derive(Debug, Deserialize)]
pub(crate) struct List {
    /// How many nodes a group is on.
    copies: u64,
    /// How many groups are being moved.
    pub(crate) moves: u64,
    nodes: Vec<Told>,
}

impl List {
    /// The node of this name, if there is one.
    pub(crate) fn named(&self, name: &str) -> Option<&Told> {
        self.nodes.iter().find(|told| told.name == name)
    }
}

/// When an order is carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Empty,
    Gone,
}

impl Told {
    fn called(&self) -> &str {
        if self.name.is_empty() { &self.id } else { &self.name }
    }
}

impl Node {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        match self {
            Self::List => list(target).await,
            Self::Drain { order: Leave { node, force, wait } } => {
                let order = WantedOrder::Drain { node, force };
                leave(target, &order, wait, Until::Empty).await
            }
            Self::Remove { order: Leave { node, force, wait } } => {
                let order = WantedOrder::Remove { node, force };
                leave(target, &order, wait, Until::Gone).await
            }
            Self::Replace { old, new, wait } => {
                let order = WantedOrder::Replace { node: old, by: new };
                leave(target, &order, wait, Until::Gone).await
            }
            Self::Undrain { node } => {
                change(target, &WantedOrder::Undrain { node }, |told| {
                    format!("node {} is {} and gets its share again", told.called(), told.standing)
                })
                .await
            }
            Self::Weight { node, weight } => {
                change(target, &WantedOrder::Weight { node, weight }, |told| {
                    format!("node {} has weight {}", told.called(), told.weight)
                })
                .await
            }
            Self::Zone { node, zone } => {
                change(target, &WantedOrder::Zone { node, zone }, |told| match told.zone.as_str() {
                    "" => format!("node {} is a zone of its own", told.called()),
                    zone => format!("node {} is in zone {zone}", told.called()),
                })
                .await
            }
            Self::Peer { node, address } => {
                change(target, &WantedOrder::Peer { node, peer: address }, |told| {
                    format!("other nodes look for node {} at {}", told.called(), told.peer)
                })
                .await
            }
        }
    }
}

fn nonsense(error: &serde_json::Error) -> CliError {
    CliError::Usage(format!("the node's answer makes no sense: {error}"))
}

/// Gives an order: the whole answer, and the node that it is about.
pub(crate) async fn order(target: &Target, order: &WantedOrder) -> Result<(Value, Told), CliError> {
    let body = serde_json::to_vec(order).map_err(|error| CliError::Usage(error.to_string()))?;
    let answer = ask(target, Method::POST, PATH, body, LIST).await?;
    let told = Told::deserialize(&answer["node"]).map_err(|error| nonsense(&error))?;
    Ok((answer, told))
}

async fn change(
    target: &Target,
    wanted: &WantedOrder,
    words: impl Fn(&Told) -> String,
) -> Result<(), CliError> {
    let (answer, told) = order(target, wanted).await?;
    println!("{}", if target.is_json() { answer.to_string() } else { words(&told) });
    Ok(())
}

/// All nodes as they are now: the whole answer, and what it says.
pub(crate) async fn look(target: &Target) -> Result<(Value, List), CliError> {
    let answer = ask(target, Method::GET, PATH, Vec::new(), LIST).await?;
    let list = List::deserialize(&answer).map_err(|error| nonsense(&error))?;
    Ok((answer, list))
}

async fn list(target: &Target) -> Result<(), CliError> {
    let (answer, list) = look(target).await?;
    if target.is_json() {
        println!("{answer}");
    } else {
        print!("{}", table(&list));
    }
    Ok(())
}

/// For people.
pub(crate) fn table(list: &List) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let width = |title: &str, of: fn(&Told) -> &str| {
        list.nodes.iter().map(|node| of(node).chars().count()).max().unwrap_or(0).max(title.len())
    };
    let (name, zone) = (width("NAME", |node| &node.name), width("ZONE", |node| &node.zone));
    let peer = width("PEER", |node| &node.peer);
    let mut text = format!(
        "{:<name$}  {:<16}  {:<zone$}  {:>6}  {:<8}  {:<5}  {:>8}  {:>5}  {:<7}  {:<peer$}  CLIENT\n",
        "NAME", "ID", "ZONE", "WEIGHT", "STANDING", "HEARD", "REPLICAS", "LEADS", "META", "PEER"
    );
    for node in &list.nodes {
        let line = format!(
            "{:<name$}  {:<16}  {:<zone$}  {:>6}  {:<8}  {:<5}  {:>8}  {:>5}  {:<7}  {:<peer$}  {}",
            or_dash(&node.name),
            node.id,
            or_dash(&node.zone),
            node.weight,
            node.standing,
            if node.heard { "yes" } else { "no" },
            node.replicas,
            node.leads,
            node.meta,
            or_dash(&node.peer),
            or_dash(&node.client),
        );
        text.push_str(&line);
        text.push('\n');
    }
    if list.moves > 0 {
        text.push_str(&format!("{} under way\n", counted(list.moves, "move")));
    }
    text
}

/// Gives an order that empties a node, and waits for that if it is wanted.
async fn leave(target: &Target, wanted: &WantedOrder, wait: Wait, until: Until) -> Result<(), CliError> {
    let (answer, told) = order(target, wanted).await?;
    let outcome = if wait.is_wanted() {
        tokio::select! {
            outcome = done(target, &told, until) => outcome.map(|()| true),
            // An error means that Ctrl-C cannot be had, and the wait goes on.
            Ok(()) = tokio::signal::ctrl_c() => {
                let again = match until {
                    Until::Empty => format!("quorate node drain {} goes on waiting for it", told.called()),
                    Until::Gone => format!("quorate node remove {} goes on waiting for it", told.called()),
                };
                Err(CliError::Usage(format!(
                    "not waiting any more; the order stands and is being carried out. {again}, {LIST} shows how far it is, quorate \
                     node undrain {} takes it back",
                    told.called()
                )))
            }
        }?
    } else {
        false
    };
    if target.is_json() {
        println!("{}", json!({"node": answer["node"], "finished": outcome}));
        return Ok(());
    }
    let called = told.called();
    match (outcome, until) {
        (true, Until::Empty) => println!("node {called} holds nothing any more"),
        (true, Until::Gone) => {
            println!("node {called} is gone: its process can be stopped, its data directory deleted")
        }
        (false, _) => {
            let left = counted(told.replicas, "replica");
            println!(
                "node {called} is {}, with {left} to be moved away; {LIST} shows how far that is",
                told.standing
            );
        }
    }
    Ok(())
}

/// Waits until an order is carried out, and says how far it is.
async fn done(target: &Target, ordered: &Told, until: Until) -> Result<(), CliError> {
    let (mut said, mut is_stuck) = (None, false);
    let mut heard = Instant::now();
    let mut target = Target { timeout: target.timeout.min(LOOK_SECONDS_MAX), ..target.clone() };
    loop {
        match look(&target).await {
            Ok((_, list)) => {
                heard = Instant::now();
                ask_the_others(&mut target, &list, ordered);
                let now = list.nodes.iter().find(|node| node.id == ordered.id);
                let left = match (now, until) {
                    (None, _) => return Ok(()),
                    (Some(node), Until::Empty) if node.replicas == 0 => return Ok(()),
                    (Some(node), _) if node.standing == "active" => {
                        return Err(CliError::Usage(format!(
                            "somebody has taken the order back: node {} is active",
                            node.called()
                        )));
                    }
                    (Some(node), _) => node.replicas,
                };
                if said != Some(left) && !target.is_json() {
                    eprintln!("{}: {} left", ordered.called(), counted(left, "replica"));
                    said = Some(left);
                }
                let active = list.nodes.iter().filter(|node| node.standing == "active").count() as u64;
                let waits = now.is_some_and(|node| node.standing == "draining");
                if waits && active < list.copies && left > 0 && !is_stuck && !target.is_json() {
                    let copies = list.copies;
                    eprintln!(
                        "everything is kept {copies} times, but {active} nodes are active: this waits for another to join"
                    );
                    is_stuck = true;
                }
            }
            Err(problem) if heard.elapsed() >= SILENCE_MAX => {
                return Err(CliError::Usage(format!(
                    "{problem}; the order stands, {LIST} shows how far it is"
                )));
            }
            // Perhaps the node that goes was asked, by another address: nobody talks to it any more.
            Err(_) => target.endpoints.rotate_left(1),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// From now on all nodes are asked, the one that goes after the others.
fn ask_the_others(target: &mut Target, list: &List, ordered: &Told) {
    fn plain(address: &str) -> &str {
        address.rsplit_once('/').map_or(address, |(_, plain)| plain)
    }
    let clients: Vec<&Told> = list.nodes.iter().filter(|node| !node.client.is_empty()).collect();
    for node in &clients {
        if target.endpoints.iter().all(|endpoint| plain(endpoint) != plain(&node.client)) {
            target.endpoints.push(node.client.clone());
        }
    }
    let goes = clients.iter().find(|node| node.id == ordered.id).map(|node| plain(&node.client));
    target.endpoints.sort_by_key(|endpoint| Some(plain(endpoint)) == goes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_asks_everybody_and_the_one_that_goes_last() {
        let node = |id: &str, client: &str| {
            json!({"id": id, "name": id, "peer": "", "client": client, "zone": "", "weight": 1, "standing": "active", "replicas": 0,
                "meta": "voter"})
        };
        let nodes = [node("a", "https://h:1"), node("b", "https://h:2"), node("c", "")];
        let list = List::deserialize(&json!({"copies": 3, "moves": 0, "nodes": nodes})).unwrap();
        let mut target =
            Target::to(vec!["h:1".into(), "other:1".into()], 7, crate::cli::TargetTls::default());
        for _ in 0..2 {
            ask_the_others(&mut target, &list, &list.nodes[0]);
            assert_eq!(target.endpoints, ["other:1", "https://h:2", "h:1"]);
        }
    }

    #[test]
    fn the_table_shows_each_node_on_a_line() {
        let node = |name: &str, standing: &str| {
            json!({"id": "ab", "name": name, "peer": "10.0.0.1:2380", "client": "10.0.0.1:2379", "zone": "", "weight": 1,
                "standing": standing, "heard": true, "replicas": 9, "leads": 3, "meta": "voter"})
        };
        let list = json!({"copies": 3, "moves": 1, "nodes": [node("a-rather-long-name", "active"), node("", "expected")]});
        let text = table(&List::deserialize(&list).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let columns = |line: &str| line.split_whitespace().count();
        assert_eq!((columns(lines[0]), columns(lines[1]), columns(lines[2])), (11, 11, 11));
        assert_eq!(lines[0].find("PEER"), lines[1].find("10.0.0.1:2380"));
        assert_eq!(lines[3], "1 move under way");
    }
}
