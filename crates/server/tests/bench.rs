//! `quorate bench` against a node: it counts what was answered, leaves nothing behind, leaves alone what is not its own, and can be stopped.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::pb;
use serde_json::Value;
use std::process::{Command, Stdio};
use support::client::Client;
use support::ended::Starter;
use support::{Cluster, quorate, run, signal, until};

/// What it prints for programs, of a load that lasts a second.
fn bench(endpoint: &str, arguments: &[&str]) -> Value {
    let common = ["--endpoints", endpoint, "bench", "--json", "--duration", "1", "--warm-up", "0"];
    let (code, said) = run(&[&common, arguments].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    serde_json::from_str(&said).unwrap_or_else(|problem| panic!("{arguments:?}: {problem}: {said}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_load_is_answered_and_leaves_nothing() {
    let cluster = Cluster::started(1).await;
    let (client, endpoint) = (cluster.nodes[0].only(), cluster.nodes[0].client.clone());
    client.put("mine", "stays").await;
    let few = ["--clients", "4", "--keys", "200", "--leases", "10"];
    for kind in
        ["put", "get", "get-serializable", "cas", "txn", "mixed", "range", "watch", "keep-alive", "lock"]
    {
        let said = bench(&endpoint, &[&[kind], few.as_slice()].concat());
        assert!(said["operations"].as_u64().unwrap() > 0, "{said}");
        assert_eq!(
            (&said["errors"], &said["unanswered"], &said["problem"]),
            (&0.into(), &0.into(), &Value::Null)
        );
        assert!(said["latency_us"]["p99"].as_f64() >= said["latency_us"]["p50"].as_f64(), "{said}");
    }
    let paced = bench(&endpoint, &[&["put", "--rate", "20"], few.as_slice()].concat());
    assert!((1..=25).contains(&paced["operations"].as_u64().unwrap()), "twenty were due: {paced}");
    assert_eq!(client.prefix("quorate-bench/").await.1.into_keys().collect::<Vec<_>>(), [""; 0]);
    assert_eq!(client.get("mine").await.as_deref(), Some("stays"));
    let leases = client.lease().lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner().leases;
    assert_eq!(leases, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_somebodys_are_left_alone() {
    let cluster = Cluster::started(1).await;
    let (client, endpoint) = (cluster.nodes[0].only(), cluster.nodes[0].client.clone());
    client.put("quorate-bench/mine", "stays").await;
    let (code, said) = run(&["--endpoints", &endpoint, "bench", "--duration", "1"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 keys begin with «quorate-bench/» already"), "{said}");
    bench(&endpoint, &["put", "--keep", "--clients", "2", "--keys", "10"]);
    assert_eq!(client.get("quorate-bench/mine").await.as_deref(), Some("stays"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_stopped_says_what_it_has_measured_and_cleans_up() {
    let cluster = Cluster::started(1).await;
    let (client, endpoint) = (cluster.nodes[0].only(), cluster.nodes[0].client.clone());
    let arguments =
        ["--endpoints", &endpoint, "bench", "put", "--json", "--duration", "86400", "--warm-up", "0"];
    let child = quorate(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    until("it writes", async || (client.prefix("quorate-bench/").await.1.len() > 10).then_some(())).await;
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said["operations"].as_u64().unwrap() > 0, "{said}");
    assert_eq!(client.prefix("quorate-bench/").await.1.len(), 0);
}

/// Waits until so many more revisions were given out.
async fn until_written(client: &Client, more: i64) {
    let revision = async || client.prefix("nothing/").await.0;
    let first = revision().await;
    until("it writes", async || (revision().await > first + more).then_some(())).await;
}

/// The generator's connections end with the node: what is asked meanwhile fails, and when the node is back it goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_goes_on_when_its_node_is_back() {
    let mut cluster = Cluster::started(1).await;
    let (client, endpoint) = (cluster.nodes[0].only(), cluster.nodes[0].client.clone());
    let arguments =
        ["--endpoints", &endpoint, "bench", "put", "--json", "--duration", "86400", "--warm-up", "0"];
    let child = quorate(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut child = Starter::new(child, None);
    until_written(&client, 100).await;
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.nodes[0].ready().await;
    until_written(&client, 100).await;
    signal(child.id(), "INT");
    let mut said = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(said["errors"].as_u64().unwrap() > 0, "{said}");
    assert!(said["operations"].as_u64().unwrap() > 200, "{said}");
    assert_eq!(client.prefix("quorate-bench/").await.1.len(), 0);
}
