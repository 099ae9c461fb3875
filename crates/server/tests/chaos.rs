//! `quorate chaos` itself: a short run that finds nothing wrong, and one that is interrupted.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
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
    let (data, report) = (path("data"), path("report.json"));
    let size = "--nodes 4 --partitions 3 --clients 6 --rate 100 --duration 15s --seed 3";
    let args: Vec<&str> =
        ["chaos", "--data-dir", &data, "--report", &report].into_iter().chain(size.split(' ')).collect();
    // The last round ends when all serve again.
    let (code, said) = run_for(&args, Duration::from_secs(15) + 4 * PATIENCE);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("nothing wrong\n"), "{said}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["is_right"], true, "{report}");
    for what in ["/rounds/0/write_gap_ms", "/writes_acknowledged", "/audits", "/watches/events"] {
        assert!(report.pointer(what).unwrap().as_u64().unwrap() > 0, "{what}: {report}");
    }
}

/// Ctrl-C at a terminal: no process is left behind.
#[tokio::test]
async fn who_is_interrupted_ends_all_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let args = ["chaos", "--nodes", "3", "--duration", "1h", "--data-dir", data.to_str().unwrap()];
    let mut child = quorate(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let nodes = until("its nodes run", async || {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        Some(children(child.id())).filter(|nodes| nodes.len() == 3)
    })
    .await;
    support::signal(child.id(), "INT");
    let ended = until("it has ended", async || child.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(1));
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(said.contains("stopped by Ctrl-C"), "{said}");
    for node in nodes {
        assert!(!std::path::Path::new(&format!("/proc/{node}")).exists(), "{node} is left");
    }
}

#[test]
fn a_folder_that_is_used_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "").unwrap();
    let (code, said) = run(&["chaos", "--data-dir", folder.path().to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("is not empty"), "{said}");
}
