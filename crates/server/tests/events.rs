//! What `quorate events` tells of a cluster whose nodes are killed and stopped.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Cluster, http_at, run, until};

/// Answers of all nodes that run, and who did not answer.
fn ask(cluster: &Cluster) -> (Vec<Value>, Value) {
    let (code, said) = run(&["--endpoints", &cluster.endpoints().join(","), "events", "-o", "json"]);
    assert_eq!(code, Some(0), "{said}");
    let told: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    (told["events"].as_array().unwrap().clone(), told["problems"].clone())
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap()
}

/// The first event whose sentence begins and goes on like this.
async fn event(cluster: &Cluster, begins: &str, has: &str) -> Value {
    until(&format!("«{begins} … {has}» is told"), async || {
        let (events, _) = ask(cluster);
        let is_it = |event: &&Value| {
            let sentence = text(event, "event");
            sentence.starts_with(begins) && sentence.contains(has)
        };
        events.iter().find(is_it).cloned()
    })
    .await
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Who leads instead of a node that was killed is told by the others, once, with a time and a reason; so is everything when the node is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_is_told_by_those_who_are_left() {
    let mut cluster = Cluster::partitioned(3, 4).await;
    let killed = cluster.leader(None).await;
    let name = cluster.nodes[killed].name.clone();
    let before = now();
    cluster.nodes[killed].kill();
    let elected = cluster.leader(Some(killed)).await;
    let silent = event(&cluster, &format!("{name} is not heard"), "").await;
    assert_eq!(text(&silent, "kind"), "silence");
    let leads = format!("{} leads ", cluster.nodes[elected].name);
    // Whether it was missed or its connection broke first is for chance to say.
    let election = event(&cluster, &leads, &format!("{name}, which led,")).await;
    assert_eq!(text(&election, "kind"), "election");
    let time = election["millis"].as_u64().unwrap();
    assert!((before..=now()).contains(&time), "{election} at {time}, killed after {before}");
    let by = |event: &Value, name: &str| event["by"].as_array().unwrap().iter().any(|by| by == name);
    assert!(!by(&election, &name), "{election}");
    let (_, problems) = ask(&cluster);
    assert!(problems[&name].is_string(), "{problems}");

    cluster.nodes[killed].start();
    cluster.nodes[killed].ready().await;
    event(&cluster, &format!("{name} has started"), "cut off").await;
    event(&cluster, &format!("{name} is heard again"), "").await;
    let (events, problems) = ask(&cluster);
    assert_eq!(problems, serde_json::json!({}));
    let times: Vec<u64> = events.iter().map(|event| event["millis"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    // What all nodes apply is told once.
    let joined = |name: &str| {
        events.iter().filter(|event| text(event, "event").starts_with(&format!("{name} is a member"))).count()
    };
    assert_eq!(cluster.nodes.iter().map(|node| joined(&node.name)).collect::<Vec<_>>(), [1, 1, 1]);

    // Who is told to stop hands over, and says both.
    let stopped = cluster.leader(None).await;
    let name = cluster.nodes[stopped].name.clone();
    assert!(cluster.nodes[stopped].stop().await.success());
    event(&cluster, "", &format!(": {name} handed over")).await;
    cluster.nodes[stopped].start();
    cluster.nodes[stopped].ready().await;
    event(&cluster, &format!("{name} has stopped"), "").await;
    let (_, table) =
        run(&["--endpoints", &cluster.endpoints().join(","), "events", "--kind", "process,election"]);
    assert!(
        table.contains(&format!("{name} is told to stop")) && !table.contains("is not heard\n"),
        "{table}"
    );
    println!("{table}");
}

/// What a row orders is told once by all, with the reason, and a node that joins does not tell what was before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_are_told_with_their_reason() {
    let mut cluster = Cluster::partitioned(3, 4).await;
    // By whoever led when the rows were made.
    event(&cluster, "n3 is a member", "").await;
    let joins = cluster.add("n4");
    cluster.nodes[joins].start();
    cluster.nodes[joins].ready().await;
    event(&cluster, "n4 is a member", "").await;
    let (code, said) = run(&["--endpoints", &cluster.endpoints().join(","), "node", "drain", "n1"]);
    assert_eq!(code, Some(0), "{said}");
    event(&cluster, "n1 is to hold nothing", "ordered").await;
    event(&cluster, "default/", "is to go from n1 to n4: n1 is to hold nothing").await;
    event(&cluster, "default/", "has gone from n1 to n4").await;
    event(&cluster, "n4 has fetched default/", "").await;
    event(&cluster, "n1 has thrown away its replica of default/", "its row gives it no part").await;
    let (events, problems) = ask(&cluster);
    assert_eq!(problems, serde_json::json!({}));
    for founder in ["n1", "n2", "n3"] {
        let is_a_member =
            |event: &&Value| text(event, "event").starts_with(&format!("{founder} is a member"));
        let told: Vec<&Value> = events.iter().filter(is_a_member).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(!told[0]["by"].as_array().unwrap().iter().any(|by| by == "n4"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_read_events_page_by_page() {
    let cluster = Cluster::started(1).await;
    let node = &cluster.nodes[0].client;
    event(&cluster, "n1 leads ", "the meta group").await;
    let get = async |query: &str| http_at(node, "GET", &format!("/events{query}"), "").await;
    let page = async |query: &str| {
        let (code, said) = get(query).await;
        assert_eq!(code, 200, "{said}");
        serde_json::from_str::<Value>(said.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    };
    let first = page("?limit=1").await;
    assert_eq!((&first["events"][0]["n"], &first["more"]), (&1.into(), &true.into()), "{first}");
    assert_eq!(page("?after=1&limit=1").await["events"][0]["n"], 2);
    let none = page("?limit=0").await;
    assert_eq!((none["events"].as_array().unwrap().len(), &none["more"]), (0, &true.into()));
    let beyond = page(&format!("?after={}&since={}&limit={}", u64::MAX, u64::MAX, usize::MAX)).await;
    assert_eq!((beyond["events"].as_array().unwrap().len(), &beyond["more"]), (0, &false.into()));
    assert_eq!(page(&format!("?since={}", u64::MAX)).await["events"].as_array().unwrap().len(), 0);
    for senseless in ["?after=-1", "?limit=many", "?since=18446744073709551616"] {
        assert_eq!(get(senseless).await.0, 400, "{senseless}");
    }
}

/// Without a journal a node is as good as with one, and says that it has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_journal_cannot_be_opened_serves() {
    let mut cluster = Cluster::started(1).await;
    assert!(cluster.nodes[0].stop().await.success());
    let events = cluster.nodes[0].data_dir.join("events");
    std::fs::remove_dir_all(&events).unwrap();
    std::fs::write(&events, "in the way").unwrap();
    cluster.nodes[0].start();
    cluster.nodes[0].ready().await;
    let (code, said) = http_at(&cluster.nodes[0].client, "GET", "/events", "").await;
    assert!(code == 503 && said.contains("keeps no events"), "{code} {said}");
    assert!(cluster.nodes[0].stop().await.success());
}

#[test]
fn senseless_times_are_refused_in_words() {
    let (code, said) = run(&["events", "--since", "yesterday"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("say 90s, 15m, 2h or 7d"), "{said}");
    let (code, said) = run(&["--endpoints", "127.0.0.1:1", "events"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("none of the endpoints answers"), "{said}");
}
