//! What `quorate ring` and `quorate top` say of three nodes of the real binary: as they are, as they might be, and when one is down.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use serde_json::Value;
use support::{Cluster, run, until};

/// What the command says, and that it succeeds.
fn ring(cluster: &Cluster, args: &[&str]) -> String {
    let endpoints: Vec<&str> = cluster.nodes.iter().map(|node| node.client.as_str()).collect();
    let endpoints = endpoints.join(",");
    let (code, said) = run(&[&["--endpoints", &endpoints, "ring"], args].concat());
    assert_eq!(code, Some(0), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_and_leads_what_is_shown_and_what_would_move_is_told() {
    let mut cluster = Cluster::partitioned(3, 16).await;
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let json = |said: &str| serde_json::from_str::<Value>(said).unwrap_or_else(|_| panic!("{said}"));
    // All leaders are known as soon as all nodes have heard of them.
    let shown = until("every partition has a leader", async || {
        let shown = json(&ring(&cluster, &["-o", "json"]));
        let led = shown["partitions"]
            .as_array()?
            .iter()
            .filter(|partition| partition["leader"].is_string())
            .count();
        (led == 16).then_some(shown)
    })
    .await;
    assert_eq!((&shown["name"], &shown["replicas"]), (&"default".into(), &3.into()));
    for node in shown["nodes"].as_array().unwrap() {
        assert!(names.iter().any(|name| node["name"] == **name), "{node}");
        assert_eq!((&node["replicas"], &node["replicas_fair"]), (&16.into(), &16.0.into()));
    }
    let text = ring(&cluster, &[]);
    assert!(text.contains("16 partitions x 3 replicas; 3 nodes in 3 zones"), "{text}");
    names.iter().for_each(|name| assert!(text.contains(name.as_str()), "{text}"));

    let heavier = format!("add=d,weight={}:2", names[0]);
    let then = json(&ring(&cluster, &["-o", "json", "--sizes", "--if", &heavier]));
    assert_eq!(then["if"]["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(then["if"]["replicas_moved"], then["if"]["replicas_moved_by_shares"]);
    assert!(then["if"]["bytes_moved"].is_u64(), "{then}");
    let said = ring(&cluster, &["--if", &heavier]);
    assert!(
        said.starts_with(&format!("if d joins in a zone of its own, {} has weight 2:\n", names[0])),
        "{said}"
    );

    let drawn = ring(&cluster, &["-o", "svg"]);
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
    let system = run(&["--endpoints", &cluster.nodes[0].client, "--keyspace", "system", "ring"]);
    assert!(system.1.contains("keyspace 0, system: 1 partition x 3 replicas"), "{}", system.1);

    // Who does not answer is named, and the others know the places.
    cluster.nodes[2].kill();
    let said = ring(&cluster, &[]);
    assert!(said.contains("16 partitions x 3 replicas"), "{said}");
    assert!(said.contains(&format!("\n{}: ", names[2])), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_in_words() {
    let cluster = Cluster::partitioned(1, 2).await;
    let at = cluster.nodes[0].client.as_str();
    let check = |args: &[&str], code: i32, part: &str| {
        let (found, said) = run(&[&["--endpoints", at], args].concat());
        assert!(found == Some(code) && said.contains(part), "{args:?}: {found:?} {said}");
    };
    check(&["ring", "--if", "remove=nobody"], 1, "no node is called nobody");
    check(&["ring", "--if", "weight=n1"], 2, "it is weight=NAME:WEIGHT");
    check(&["ring", "--if", "add=x:y:0"], 2, "one is 1 to");
    check(
        &["ring", "--if", &format!("remove={}", cluster.nodes[0].name)],
        1,
        "no node that may hold replicas",
    );
    check(&["ring", "--replicas", "0"], 2, "0");
    check(&["--keyspace", "none", "ring"], 1, "there is no keyspace none");
    check(&["status", "-o", "svg"], 2, "only `quorate ring` draws");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_nodes_and_partitions_at_work() {
    let mut cluster = Cluster::partitioned(3, 4).await;
    let endpoints = cluster.nodes.iter().map(|node| node.client.as_str()).collect::<Vec<_>>().join(",");
    let top = |args: &[&str]| run(&[&["--endpoints", &endpoints, "top", "--once"], args].concat());
    let (code, said) = top(&[]);
    assert!(code == Some(0) && said.starts_with("3 of 3 nodes heard; "), "{said}");
    assert!(said.contains("\nsystem/0 ") && said.contains("\ndefault/3 "), "{said}");
    cluster.nodes[1].kill();
    let (code, said) = top(&["--keyspace", "default", "-o", "json"]);
    assert_eq!(code, Some(0), "{said}");
    let shown: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(shown["partitions"].as_array().unwrap().len(), 4);
    let node =
        |name: &str| shown["nodes"].as_array().unwrap().iter().find(|node| node["name"] == *name).cloned();
    let (dead, live) = (node(&cluster.nodes[1].name).unwrap(), node(&cluster.nodes[0].name).unwrap());
    assert!(dead["problem"].as_str().is_some_and(|why| why.starts_with("does not answer: ")), "{dead}");
    assert!(live["problem"].is_null() && live["resident_bytes"].as_f64() > Some(0.0), "{live}");
}
