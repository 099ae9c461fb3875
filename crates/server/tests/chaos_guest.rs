//! `quorate chaos` in a cluster that is there already: what it does stays below its prefix and is gone at the end, faults are those of a command, and are healed.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;
use support::ended::Starter;
use support::{Cluster, PATIENCE, quorate, run, run_for, until};

/// A command that pauses nodes and lets them go on, and writes down what it was told.
struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    fn new(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for node in &cluster.nodes {
            std::fs::write(folder.path().join(&node.client), node.pid().to_string()).unwrap();
        }
        let here = folder.path().display();
        let text = format!(
            "echo \"$1 $2\" >> {here}/told\n\
             case $1 in\n\
             pause) kill -STOP $(cat {here}/$2) ;;\n\
             heal) kill -CONT $(cat {here}/$2) ;;\n\
             *) exit 3 ;;\n\
             esac\n"
        );
        std::fs::write(folder.path().join("script"), text).unwrap();
        Self { folder }
    }

    fn command(&self) -> String {
        format!("sh {}", self.folder.path().join("script").display())
    }

    fn told(&self) -> Vec<String> {
        let told = std::fs::read_to_string(self.folder.path().join("told")).unwrap_or_default();
        told.lines().map(str::to_owned).collect()
    }
}

/// Every fault is followed by its being healed.
fn are_healed(told: &[String]) -> bool {
    let pairs = told.chunks(2);
    !told.is_empty()
        && pairs.into_iter().all(|pair| {
            pair.len() == 2 && pair[1] == pair[0].replace("pause ", "heal ") && pair[0].starts_with("pause ")
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_finds_nothing_wrong_and_leaves_nothing() {
    let cluster = Cluster::partitioned(3, 2).await;
    let client = cluster.client();
    client.put("quorate-chap", "mine").await;
    client.put("quorate-chaos0", "mine").await;
    let script = Script::new(&cluster);
    let (endpoints, command) = (cluster.endpoints().join(","), script.command());
    let words =
        "--json --duration 10s --clients 6 --rate 100 --seed 4 --hold 300ms..2s --calm 300ms --faults pause";
    let args: Vec<&str> = ["--endpoints", &endpoints, "chaos", "--inject", &command]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    let (code, said) = run_for(&args, Duration::from_secs(10) + 3 * PATIENCE);
    assert_eq!(code, Some(0), "{said}");
    let report: Value =
        serde_json::from_str(&said[said.find("{\n").unwrap()..=said.rfind('}').unwrap()]).unwrap();
    for what in
        ["/kinds/pause/nodes", "/writes_acknowledged", "/audits", "/watches/events", "/leases/granted"]
    {
        assert!(report.pointer(what).unwrap().as_u64().unwrap() > 0, "{what}: {report}");
    }
    let again = report["command"].as_str().unwrap();
    assert!(again.starts_with(&format!("quorate --endpoints {endpoints} chaos --seed 4 ")), "{again}");
    assert!(are_healed(&script.told()), "{:?}", script.told());
    let left = client.prefix("quorate-cha").await.1;
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["quorate-chaos0", "quorate-chap"]);
}

/// Ctrl-C while a node is paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_is_interrupted_heals_and_leaves_nothing() {
    let cluster = Cluster::partitioned(3, 2).await;
    let script = Script::new(&cluster);
    let (endpoints, command) = (cluster.endpoints().join(","), script.command());
    let words = "--duration 1h --faults pause --hold 1h --calm 1s";
    let args: Vec<&str> = ["--endpoints", &endpoints, "chaos", "--inject", &command]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    let child = quorate(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut child = Starter::new(child, None);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(" pause ")), "no node is paused");
    assert!(!cluster.client().prefix("quorate-chaos/").await.1.is_empty());
    support::signal(child.id(), "INT");
    let ended = until("it has ended", async || child.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(1));
    assert!(are_healed(&script.told()), "{:?}", script.told());
    assert!(cluster.client().prefix("quorate-chaos/").await.1.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_below_a_prefix_is_left_alone() {
    let cluster = Cluster::partitioned(1, 1).await;
    let client = cluster.client();
    client.put("p/mine", "v").await;
    let endpoints = cluster.endpoints().join(",");
    let refused = |more: &[&str], words: &str| {
        let (code, said) = run(&[&["--endpoints", &endpoints, "chaos"], more].concat());
        assert!(code == Some(1) && said.contains(words), "{more:?}: {said}");
    };
    refused(&["--prefix", "p/"], "there are keys already");
    refused(&["--prefix", ""], "--prefix");
    refused(&["--faults", "kill"], "--faults needs --inject");
    refused(&["--inject", "true"], "--inject needs --faults");
    refused(&["--inject", "true", "--faults", "join"], "--faults join");
    for kind in ["wipe", "rot"] {
        refused(
            &["--inject", "true", "--faults", kind],
            &format!("--faults {kind}: not in a cluster of others"),
        );
    }
    for (flag, value) in [
        ("--nodes", "5"),
        ("--partitions", "8"),
        ("--replicas", "3"),
        ("--faults-max", "1"),
        ("--data-dir", "d"),
        ("--grace-period", "5"),
    ] {
        refused(&[flag, value], &format!("{flag}: not in a cluster of others"));
    }
    refused(&["--", "--election-timeout", "1000"], "settings after --: not in a cluster of others");
    refused(&["--inject", "exit 7;", "--faults", "kill", "--calm", "1ms"], "exit status: 7");
    assert_eq!(client.get("p/mine").await.as_deref(), Some("v"));
    assert!(client.prefix("quorate-chaos/").await.1.is_empty());
}
