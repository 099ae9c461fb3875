//! partitions recover: a group whose quorum is lost for good goes on with one survivor, in spite of what that may cost.

use super::{CliError, Target, http_call, status};
use crate::services::recovery::WantedRecovery;
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};
use tonic::codegen::http::{Method, StatusCode};

/// Between two looks at whether the survivor leads.
const LOOK: Duration = Duration::from_millis(100);
/// How long it is waited for that.
const LEADS_MAX: Duration = Duration::from_secs(30);
const SURVIVORS: &str = "/partitions/survivors";

/// Go on with one survivor of a partition that has lost its quorum for good
#[derive(Args, Debug)]
#[command(
    after_help = "A partition goes on by itself when most of its replicas live. When most are lost FOR GOOD (burnt, not switched off: start them if they can be started) \
nobody can tell what those had acknowledged, and it stands still. This command makes one survivor's copy the partition, whatever it lacks:

  * Writes that were acknowledged and are not on that survivor are lost.
  * Of a transaction over several partitions part may be lost.
  * What was lost stays lost: if the dead come back, what they have of the partition is thrown away, and they are filled anew.

Without names it lists what has lost its quorum, and what each node has of that. The survivor with the longest log is taken. First comes «system», the cluster's own rows, \
which say where all else is; then partitions, as KEYSPACE/NUMBER. «all» is everything that is lost. The names have to be typed once more, or given with --yes.

It is refused where a majority lives. The survivor's journal tells it (quorate events).

Examples:
  quorate partitions recover
  quorate partitions recover system
  quorate partitions recover default/3 default/5
  quorate partitions recover all --yes"
)]
pub struct Recover {
    /// What to recover: system, KEYSPACE/NUMBER, or all
    names: Vec<String>,
    /// Do not ask for the names a second time
    #[arg(long, requires = "names")]
    yes: bool,
}

/// What a node has, as it says.
#[derive(Clone, Debug, Deserialize)]
struct Told {
    node: String,
    groups: Vec<Replica>,
}

/// One replica.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Replica {
    keyspace: String,
    partition: u32,
    last_term: u64,
    last_index: u64,
    committed: u64,
    lineage: u64,
    whole: bool,
    admitted: bool,
    leader: Option<String>,
    voters: Vec<String>,
    heard: Vec<String>,
    quorum: bool,
}

impl Replica {
    fn name(&self) -> String {
        if self.keyspace == "system" {
            "system".into()
        } else {
            format!("{}/{}", self.keyspace, self.partition)
        }
    }

    /// Its log is as new as can be when this is the greatest: what elections compare, too.
    fn rank(&self) -> (bool, u64, u64) {
        (self.whole && self.admitted, self.last_term, self.last_index)
    }

    fn is_lost(&self) -> bool {
        self.leader.is_none() && !self.quorum
    }
}

/// A group that has lost its quorum, for all that is heard.
#[derive(Debug, PartialEq, Eq)]
struct Lost {
    name: String,
    /// The node's name and endpoint, and its replica; the best first.
    survivors: Vec<(String, String, Replica)>,
}

/// What is lost: nobody that was asked knows a leader or hears a quorum. The cluster's own rows come first.
fn lost(told: &[(String, Told)]) -> Vec<Lost> {
    type Group = (bool, String, u32);
    let mut groups: BTreeMap<Group, Vec<(String, String, Replica)>> = BTreeMap::new();
    for (endpoint, told) in told {
        for replica in &told.groups {
            let key = (replica.keyspace != "system", replica.keyspace.clone(), replica.partition);
            let survivor = (told.node.clone(), endpoint.clone(), replica.clone());
            groups.entry(key).or_default().push(survivor);
        }
    }
    let is_lost = |survivors: &Vec<(String, String, Replica)>| {
        survivors.iter().all(|(_, _, replica)| replica.is_lost())
    };
    let lost = groups.into_values().filter(is_lost).map(|mut survivors| {
        // A replica that has been left behind by an earlier recovery waits to be filled: it is nobody's survivor.
        let newest = survivors.iter().map(|(_, _, replica)| replica.lineage).max();
        survivors.retain(|(_, _, replica)| Some(replica.lineage) == newest);
        survivors.sort_by_key(|(name, _, replica)| (std::cmp::Reverse(replica.rank()), name.clone()));
        Lost { name: survivors[0].2.name(), survivors }
    });
    lost.collect()
}

fn shown(lost: &Lost) -> String {
    let mut text = format!("{} has lost its quorum.\n", lost.name);
    let voters = &lost.survivors[0].2.voters;
    let silent: Vec<&str> = voters
        .iter()
        .filter(|voter| !lost.survivors.iter().any(|(name, ..)| name == *voter))
        .map(String::as_str)
        .collect();
    text += &format!("  votes in it: {}; not heard: {}\n", voters.join(" "), silent.join(" "));
    for (at, (name, _, replica)) in lost.survivors.iter().enumerate() {
        let mark = if at == 0 { "taken" } else { "     " };
        let defect = match (replica.whole, replica.admitted) {
            (false, _) => ", NOT WHOLE: it was being filled",
            (_, false) => ", HAS LOST ITS DISK and was not filled again",
            _ => "",
        };
        text += &format!(
            "  {mark}  {name}: log ends at entry {} of term {}, {} known to be committed{defect}\n",
            replica.last_index, replica.last_term, replica.committed
        );
    }
    text += "  lost is whatever the others acknowledged beyond that\n";
    text
}

impl Recover {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        let told = ask_all(target).await?;
        let lost = lost(&told);
        if target.is_json() && self.names.is_empty() {
            let told = lost.iter().map(|lost| {
                let nodes = lost.survivors.iter().map(|(name, _, replica)| {
                    json!({"node": name, "last_term": replica.last_term, "last_index": replica.last_index, "committed": replica.committed})
                });
                json!({"name": lost.name, "survivors": nodes.collect::<Vec<_>>()})
            });
            println!("{}", json!({"lost": told.collect::<Vec<_>>()}));
            return Ok(());
        }
        let chosen = chosen(&self.names, lost)?;
        for lost in &chosen {
            eprint!("{}", shown(lost));
        }
        if chosen.is_empty() {
            println!("nothing that was asked has lost its quorum");
            return Ok(());
        }
        if self.names.is_empty() {
            eprintln!("Nothing was done: name what is to go on with what is left, or say all.");
            return Ok(());
        }
        if !self.yes {
            confirm(&self.names.join(" "))?;
        }
        for lost in &chosen {
            carry_out(target, lost).await?;
        }
        Ok(())
    }
}

/// Of what is lost, what the names mean.
fn chosen(names: &[String], mut lost: Vec<Lost>) -> Result<Vec<Lost>, CliError> {
    if names.is_empty() || names == ["all"] {
        return Ok(lost);
    }
    for name in names {
        if !lost.iter().any(|lost| lost.name == *name) {
            return Err(CliError::Usage(format!(
                "{name} has a leader or hears most of its voters, or no node that was asked has it: there is nothing to recover; see quorate partitions"
            )));
        }
    }
    lost.retain(|lost| names.contains(&lost.name));
    Ok(lost)
}

fn confirm(names: &str) -> Result<(), CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::Usage("this has to be confirmed at a terminal, or with --yes".into()));
    }
    eprint!("The others are dead for good and what they had is given up. Type «{names}» to go on: ");
    std::io::stderr().flush().map_err(|error| CliError::Usage(error.to_string()))?;
    let mut typed = String::new();
    stdin.lock().read_line(&mut typed).map_err(|error| CliError::Usage(error.to_string()))?;
    if typed.trim() == names {
        Ok(())
    } else {
        Err(CliError::Usage("that is something else: nothing was done".into()))
    }
}

async fn ask_all(target: &Target) -> Result<Vec<(String, Told)>, CliError> {
    let mut endpoints: Vec<String> = target.endpoints.clone();
    // What the cluster knows, as far as it can be asked.
    if let Ok(known) = status::endpoints(target).await {
        let known = known.into_iter().map(|(_, endpoint)| endpoint).filter(|endpoint| !endpoint.is_empty());
        endpoints.extend(known);
    }
    let (mut told, mut problems): (Vec<(String, Told)>, Vec<String>) = (Vec::new(), Vec::new());
    for endpoint in endpoints {
        match ask(target, &endpoint).await {
            Ok(one) if told.iter().any(|(_, other)| other.node == one.node) => {}
            Ok(one) => told.push((endpoint, one)),
            Err(problem) => problems.push(format!("{endpoint}: {problem}")),
        }
    }
    if told.is_empty() {
        return Err(CliError::Unreachable(problems.join(", ")));
    }
    for problem in problems {
        eprintln!("not asked: {problem}");
    }
    Ok(told)
}

async fn ask(target: &Target, endpoint: &str) -> Result<Told, String> {
    let channel = target.connect_to(endpoint).await.map_err(|error| error.to_string())?;
    let (status, answer) = http_call(channel, Method::GET, SURVIVORS, Vec::new()).await?;
    if status != StatusCode::OK {
        return Err(answer["error"].as_str().unwrap_or("it does not know").to_owned());
    }
    serde_json::from_value(answer).map_err(|error| format!("its answer makes no sense: {error}"))
}

/// Gives the order, and waits until the survivor leads the group.
async fn carry_out(target: &Target, lost: &Lost) -> Result<(), CliError> {
    let (node, endpoint, replica) = &lost.survivors[0];
    let wanted = WantedRecovery {
        keyspace: replica.keyspace.clone(),
        partition: replica.partition,
        last_term: replica.last_term,
        last_index: replica.last_index,
    };
    let body = serde_json::to_vec(&wanted).map_err(|error| CliError::Usage(error.to_string()))?;
    let begun = Instant::now();
    loop {
        let channel = target.connect_to(endpoint).await?;
        let answer = http_call(channel, Method::POST, "/partitions/recover", body.clone()).await;
        let (status, answer) = answer.map_err(CliError::Usage)?;
        if status.is_success() {
            break;
        }
        // The cluster's own rows may have got their leader just now.
        if status != StatusCode::SERVICE_UNAVAILABLE || begun.elapsed() > LEADS_MAX {
            return Err(CliError::Usage(answer["error"].as_str().unwrap_or("it is refused").to_owned()));
        }
        tokio::time::sleep(LOOK).await;
    }
    loop {
        let told = ask(target, endpoint).await;
        let is_ours =
            |other: &&Replica| (&other.keyspace, other.partition) == (&replica.keyspace, replica.partition);
        let now = told.as_ref().ok().and_then(|told| told.groups.iter().find(is_ours));
        if now.is_some_and(|now| now.lineage > replica.lineage && now.leader.is_some()) {
            break;
        }
        if begun.elapsed() > LEADS_MAX {
            return Err(CliError::Usage(format!(
                "{}: ordered, and {node} does not lead it after {} s; see quorate events",
                lost.name,
                LEADS_MAX.as_secs()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    if target.is_json() {
        println!(
            "{}",
            json!({"recovered": lost.name, "node": node, "last_term": replica.last_term, "last_index": replica.last_index})
        );
    } else {
        println!(
            "{} goes on with what {node} has, up to entry {} of term {}",
            lost.name, replica.last_index, replica.last_term
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(keyspace: &str, partition: u32, last: (u64, u64)) -> Replica {
        Replica {
            keyspace: keyspace.into(),
            partition,
            last_term: last.0,
            last_index: last.1,
            committed: last.1,
            lineage: 0,
            whole: true,
            admitted: true,
            leader: None,
            voters: ["n1", "n2", "n3"].map(str::to_owned).into(),
            heard: vec!["n1".into()],
            quorum: false,
        }
    }

    fn told(node: &str, groups: Vec<Replica>) -> (String, Told) {
        (format!("{node}:2379"), Told { node: node.into(), groups })
    }

    #[test]
    fn the_longest_log_is_taken_and_the_clusters_own_rows_come_first() {
        let nodes = [
            told("n1", vec![replica("default", 0, (3, 90)), replica("system", 0, (2, 7))]),
            told("n4", vec![replica("default", 0, (4, 80)), replica("system", 0, (2, 9))]),
            told("n5", vec![Replica { whole: false, ..replica("default", 0, (9, 99)) }]),
        ];
        let lost = lost(&nodes);
        let taken: Vec<(&str, &str)> =
            lost.iter().map(|lost| (lost.name.as_str(), lost.survivors[0].0.as_str())).collect();
        assert_eq!(taken, [("system", "n4"), ("default/0", "n4")]);
        assert!(shown(&lost[1]).contains("NOT WHOLE"), "{}", shown(&lost[1]));
        let names = ["default/0".to_owned()];
        assert_eq!(chosen(&names, lost).unwrap().len(), 1);
    }

    #[test]
    fn what_anybody_knows_a_leader_of_is_not_lost() {
        let led = Replica { leader: Some("n2".into()), ..replica("default", 1, (3, 9)) };
        let quorum = Replica { quorum: true, ..replica("default", 2, (3, 9)) };
        let nodes = [
            told("n1", vec![replica("default", 1, (3, 9)), replica("default", 2, (3, 9))]),
            told("n2", vec![led, quorum]),
        ];
        assert_eq!(lost(&nodes), []);
        assert!(chosen(&["default/1".to_owned()], Vec::new()).is_err());
    }
}
