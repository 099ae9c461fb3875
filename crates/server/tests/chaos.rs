//! `quorate chaos` itself: a short run that finds nothing wrong, and one that is interrupted.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;
use support::ended::{Starter, mounted_below};
use support::{PATIENCE, quorate, run, run_for, until};

/// Processes whose parent is this one.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        // "PID (NAME) STATE PARENT ..." (proc(5)); the name may hold anything.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1) == Some(&parent.to_string())
    };
    pids.filter(is_child).collect()
}

#[test]
fn a_cluster_that_suffers_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (data, report) = (path("data"), path("report"));
    let size = "--nodes 4 --partitions 3 --clients 6 --rate 100 --duration 15s --seed 3";
    let args: Vec<&str> =
        ["chaos", "--data-dir", &data, "--report", &report].into_iter().chain(size.split(' ')).collect();
    // The last round ends when all serve again.
    let (code, said) = run_for(&args, Duration::from_secs(15) + 4 * PATIENCE);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("nothing wrong\n"), "{said}");
    let file = |name: &str| std::fs::read_to_string(folder.path().join("report").join(name)).unwrap();
    assert!(said.ends_with(&file("report.txt")), "{said}");
    let report: Value = serde_json::from_str(&file("report.json")).unwrap();
    assert_eq!(report["is_right"], true, "{report}");
    for what in ["/rounds/0/write_gap_ms", "/writes_acknowledged", "/audits", "/watches/events"] {
        assert!(report.pointer(what).unwrap().as_u64().unwrap() > 0, "{what}: {report}");
    }
    everything_is_shown(&report, &file("report.html"));
    history_fits(&report, &file("history.jsonl"));
}

/// What happened to the cluster is in the figures and on the page.
fn everything_is_shown(report: &Value, page: &str) {
    let list = |of: &Value| of.as_array().unwrap().clone();
    for round in list(&report["rounds"]) {
        assert!(page.contains(round["what"].as_str().unwrap()), "{round}");
        for fault in list(&round["faults"]) {
            let rounds = &report["kinds"][fault["kind"].as_str().unwrap()]["rounds"];
            assert!(rounds.as_u64().unwrap() > 0, "{fault}: {report}");
        }
    }
    assert!(list(&report["nodes"]).len() >= 4, "{report}");
    // The partitions and the cluster's own rows; each was led by one of the nodes, which said so.
    let leaders = list(&report["leaders"]);
    assert_eq!(leaders.iter().filter(|group| group["keyspace"] == "default").count(), 3, "{report}");
    for group in leaders {
        assert!(list(&group["led"]).iter().any(|led| led["own_word"] == true), "{group}");
        assert!(page.contains(&format!("term {}, ", group["led"][0]["term"])), "{group}");
    }
    let writes: u64 =
        list(&report["series"]["steps"]).iter().map(|step| step["writes"].as_u64().unwrap()).sum();
    // Some are acknowledged after the end, when all is checked.
    assert!(writes > 0 && writes <= report["writes_acknowledged"].as_u64().unwrap(), "{report}");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "it fetches nothing");
}

/// Every call is a line; every value that was read was written by one of them.
fn history_fits(report: &Value, history: &str) {
    let lines: Vec<Value> = history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |outcome: &str| lines.iter().filter(|line| line["outcome"] == outcome).count() as u64;
    for (outcome, of_report) in [("ok", "answered"), ("fail", "refused"), ("unknown", "unknown")] {
        assert_eq!(count(outcome), report["calls"][of_report].as_u64().unwrap(), "{outcome}");
    }
    let leases = lines.iter().filter(|line| line["kind"] == "lease").count() as u64;
    assert_eq!(leases, report["leases"]["granted"].as_u64().unwrap());
    let mut written = BTreeSet::new();
    for line in &lines {
        let branches = [&line["then"], &line["else"]];
        let within = branches.into_iter().filter_map(|branch| branch.as_array()).flatten();
        let puts = within.chain([line]).filter(|operation| operation["kind"] == "put");
        written.extend(puts.map(|put| (put["key"].to_string(), put["value"].to_string())));
    }
    let gets = lines.iter().filter(|line| line["kind"] == "get" && line["outcome"] == "ok");
    let mut read = 0;
    for get in gets.filter(|get| !get["value"].is_null()) {
        read += 1;
        assert!(written.contains(&(get["key"].to_string(), get["value"].to_string())), "{get}");
    }
    assert!(read > 0, "nothing was read");
}

/// Ctrl-C at a terminal: no process is left behind.
#[tokio::test]
async fn who_is_interrupted_ends_all_nodes() {
    nodes_end_with("INT", "stopped by Ctrl-C").await;
}

/// The terminal is closed.
#[tokio::test]
async fn who_has_no_terminal_any_more_ends_all_nodes() {
    // Where tests were started to outlive their terminal, so is what they start.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    if u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 0 {
        nodes_end_with("HUP", "stopped: the terminal is gone").await;
    }
}

async fn nodes_end_with(name: &str, words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let args = ["chaos", "--nodes", "3", "--duration", "1h", "--data-dir", data.to_str().unwrap()];
    let child = quorate(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Starter::new(child, Some(folder.path()));
    let nodes = until("its nodes run", async || {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        Some(children(child.id())).filter(|nodes| nodes.len() == 3)
    })
    .await;
    support::signal(child.id(), name);
    let ended = until("it has ended", async || child.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(1));
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(said.contains(words), "{said}");
    for node in nodes {
        assert!(!std::path::Path::new(&format!("/proc/{node}")).exists(), "{node} is left");
    }
}

/// Whether file systems of ours can be mounted; said loudly where not.
fn can_mount() -> bool {
    let folder = tempfile::tempdir().unwrap();
    support::disks::mounted(&folder.path().join("backing"), &folder.path().join("mounted")).is_some()
}

#[test]
fn a_cluster_whose_disks_fail_keeps_its_promises() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (data, report) = (path("data"), path("report"));
    let kinds = "full-disk,slow-disk,hung-disk,failing-disk,lying-power,rot";
    let size = "--nodes 3 --partitions 3 --clients 6 --rate 100 --duration 20s --seed 5 --hold 500ms..3s";
    let args: Vec<&str> = ["chaos", "--data-dir", &data, "--report", &report, "--faults", kinds]
        .into_iter()
        .chain(size.split(' '))
        .collect();
    let (code, said) = run_for(&args, Duration::from_secs(20) + 4 * PATIENCE);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("nothing wrong\n"), "{said}");
    let report = std::fs::read_to_string(folder.path().join("report/report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let kinds_met = report["kinds"].as_object().unwrap();
    // Twenty seconds are several rounds, each of a disk or more.
    assert!(!kinds_met.is_empty(), "no disk failed: {report}");
    for (kind, figures) in kinds_met {
        assert!(figures["rounds"].as_u64().unwrap() > 0, "{kind}: {figures}");
        assert!(kinds.split(',').any(|named| named == kind), "{kind}");
        assert!(
            figures["nodes"].as_u64().unwrap() >= figures["rounds"].as_u64().unwrap(),
            "{kind}: {figures}"
        );
    }
    assert!(mounted_below(folder.path()).is_empty());
    // What the nodes had is found where it always is.
    assert!(folder.path().join("data/n1/IDENTITY").exists());
}

#[tokio::test]
async fn who_is_interrupted_unmounts_all_disks() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // What hangs has to be let go before it can be ended.
    let words = "--nodes 3 --duration 1h --faults hung-disk --hold 1h --calm 1ms";
    let args: Vec<&str> =
        ["chaos", "--data-dir", data.to_str().unwrap()].into_iter().chain(words.split(' ')).collect();
    let child = quorate(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut child = Starter::new(child, Some(folder.path()));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hangs = lines.by_ref().map(Result::unwrap).any(|line| line.contains("the disk of"));
    assert!(hangs, "no disk hangs");
    assert_eq!(mounted_below(&data).len(), 3);
    support::signal(child.id(), "TERM");
    let ended = until("it has ended", async || child.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(1));
    assert!(mounted_below(&data).is_empty());
}

#[test]
fn a_folder_that_is_used_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "").unwrap();
    let (code, said) = run(&["chaos", "--data-dir", folder.path().to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("is not empty"), "{said}");
}

/// Half an hour is not spent for a report that cannot be written.
#[test]
fn what_cannot_be_written_is_said_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("file"), "").unwrap();
    for (flag, value) in [("--report", path("file")), ("--history", path("none/file"))] {
        let (code, said) = run(&["chaos", "--duration", "1h", "--data-dir", &path("data"), flag, &value]);
        assert!(code == Some(1) && said.contains(&format!("{flag}: {value}: ")), "{said}");
        assert!(std::fs::read_dir(path("data")).unwrap().next().is_none(), "a node was started");
    }
}
