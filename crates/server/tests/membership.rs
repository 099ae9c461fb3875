//! Nodes that come and go under the real binary: joining, being emptied and removed, and everything that is refused.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_api::pb;
use quorate_api::pb::cluster_client::ClusterClient;
use serde_json::{Value, json};
use support::load::{self, Load};
use support::{Cluster, Node, free_address, http_at, run, until};
use tonic::Code;
use tonic::transport::Channel;

/// Acknowledged writes that show that the cluster goes on.
const SOME: u64 = 100;

/// What `quorate node` says, and whether it succeeded.
fn node(cluster: &Cluster, args: &[&str]) -> (bool, String) {
    let endpoints = cluster.endpoints().join(",");
    let (code, said) = run(&[&["node"], args, &["--endpoints", endpoints.as_str()]].concat());
    (code == Some(0), said)
}

/// All nodes, as `quorate node list` shows them to programs.
fn list(cluster: &Cluster) -> Option<Vec<Value>> {
    let (is_right, said) = node(cluster, &["list", "-o", "json"]);
    let answer: Value = serde_json::from_str(&said).ok().filter(|_| is_right)?;
    Some(answer["nodes"].as_array().unwrap().clone())
}

fn named<'a>(list: &'a [Value], name: &str) -> Option<&'a Value> {
    list.iter().find(|node| node["name"] == name)
}

/// Waits until a node is in the list and `is_right`.
async fn listed(cluster: &Cluster, name: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    until(&format!("{name} is listed as it should be"), async || {
        let list = list(cluster)?;
        named(&list, name).filter(|node| is_right(node)).cloned()
    })
    .await
}

/// A node that joined and has told its addresses: it runs, and has what all nodes have.
async fn joined(cluster: &Cluster, at: usize) -> Value {
    let name = cluster.nodes[at].name.clone();
    listed(cluster, &name, |node| node["client"] == cluster.nodes[at].client.as_str()).await
}

fn members(at: &Node) -> ClusterClient<Channel> {
    ClusterClient::new(at.only().channel())
}

/// What a start says that is refused.
fn refused(node: &Node) -> String {
    let (code, said) = run(&node.arguments());
    assert_ne!(code, Some(0), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_goes_on_with_or_without_being_told_to() {
    let mut cluster = Cluster::started(3).await;
    let at = cluster.add("n4");
    cluster.nodes[at].settings.insert("--zone", "north".into());
    cluster.nodes[at].settings.insert("--weight", "2".into());
    cluster.nodes[at].start();
    let told = joined(&cluster, at).await;
    assert_eq!(
        (&told["zone"], &told["weight"], &told["standing"]),
        (&json!("north"), &json!(2), &json!("active"))
    );
    assert_eq!((&told["meta"], &told["replicas"]), (&json!("learner"), &json!(0)));
    let all = members(&cluster.nodes[0]).member_list(pb::MemberListRequest { linearizable: true }).await;
    let learners = all.unwrap().into_inner().members.into_iter().filter(|member| member.is_learner);
    assert_eq!(learners.map(|member| member.name).collect::<Vec<_>>(), ["n4"]);
    // What it is told of the cluster it keeps.
    for is_told in [true, false] {
        assert!(cluster.nodes[at].stop().await.success());
        if !is_told {
            cluster.nodes[at].settings.remove("--join");
        }
        cluster.nodes[at].settings.insert("--log-level", "debug".into());
        cluster.nodes[at].start();
        cluster.nodes[at].ready().await;
        let again = listed(&cluster, "n4", |node| node["heard"] == true).await;
        assert_eq!(again["id"], told["id"]);
        until("it hears of a leader again", async || {
            http_at(&cluster.nodes[at].client, "GET", "/nodes", "").await.0.eq(&200).then_some(())
        })
        .await;
    }
    assert_eq!(cluster.nodes[at].log().matches("has joined").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_have_the_zones_they_were_started_with() {
    let mut cluster = Cluster::new(3);
    for (node, zone) in cluster.nodes.iter_mut().zip(["north", "east", "west"]) {
        node.settings.insert("--zone", zone.into());
        node.start();
    }
    cluster.ready().await;
    for (name, zone) in [("n1", "north"), ("n2", "east"), ("n3", "west")] {
        listed(&cluster, name, |node| node["zone"] == zone).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_join_is_told_why_and_nothing_has_changed() {
    let mut cluster = Cluster::started(1).await;
    let at = cluster.add("n2");
    cluster.nodes[at].settings.insert("--name", "n1".into());
    let said = refused(&cluster.nodes[at]);
    assert!(said.contains("the name n1 belongs to node n1") && said.contains("--name"), "{said}");
    let founder = cluster.nodes[0].peer.clone();
    let node = &mut cluster.nodes[at];
    node.settings.insert("--name", "n2".into());
    // It listens somewhere else than it says.
    node.settings.insert("--advertise-peer", founder);
    let said = refused(node);
    assert!(said.contains("belongs to node n1"), "{said}");
    node.settings.remove("--advertise-peer");
    node.settings.insert("--weight", "0".into());
    assert!(refused(node).contains("--weight"));
    node.settings.remove("--weight");
    // None of that has made anything of the directory, or of the cluster.
    assert!(!node.data_dir.join("IDENTITY").exists());
    assert_eq!(list(&cluster).unwrap().len(), 1);
    // A version that speaks otherwise, or with TLS.
    let ask =
        async |body: Value| http_at(&cluster.nodes[0].client, "POST", "/nodes/join", &body.to_string()).await;
    let (status, said) = ask(json!({"name": "x", "peer": "h:1", "protocol": 1})).await;
    assert!(status == 400 && said.contains("same version"), "{said}");
    let protocol = quorate::runtime::hello::PROTOCOL;
    let (status, said) =
        ask(json!({"name": "x", "peer": "h:1", "protocol": protocol, "is_peer_tls": true})).await;
    assert!(status == 400 && said.contains("no TLS"), "{said}");
    let (status, said) = ask(json!({"name": "", "peer": "h:1", "protocol": protocol})).await;
    assert!(status == 400 && said.contains("needs a name"), "{said}");
    assert_eq!(list(&cluster).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_belongs_to_one_node_of_one_cluster() {
    let mut cluster = Cluster::started(1).await;
    let mut other = Cluster::new(1);
    let elsewhere = &mut other.nodes[0];
    elsewhere.start();
    elsewhere.ready().await;
    let at = cluster.add("n2");
    let node = &mut cluster.nodes[at];
    node.start();
    until("it has joined", async || node.data_dir.join("IDENTITY").exists().then_some(())).await;
    node.kill();
    // Used by a node of another cluster, by one of another name, and by one that begins a cluster.
    let settings = node.settings.clone();
    node.settings.insert("--join", elsewhere.client.clone());
    let said = refused(node);
    assert!(said.contains("is of cluster") && said.contains("leave --join out"), "{said}");
    node.settings = settings.clone();
    node.settings.insert("--name", "n3".into());
    assert!(refused(node).contains("belongs to node n2"));
    node.settings = settings;
    node.settings.remove("--join");
    node.settings.insert("--initial-cluster", format!("n2={}", node.peer));
    assert!(refused(node).contains("leave --initial-cluster out"));
    // One that began a cluster joins none.
    elsewhere.kill();
    elsewhere.settings.remove("--initial-cluster");
    elsewhere.settings.insert("--join", cluster.nodes[0].client.clone());
    assert!(refused(elsewhere).contains("--join is for an empty --data-dir"));
    // Nobody there: said after a while, while nobody waits for it here.
    assert_eq!(list(&cluster).unwrap().len(), 2);
}

/// The cluster's answer to a node that joins is lost, or its disk is before it held anything: it joins again and gets another id, and
/// what it was is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_again_takes_its_own_place() {
    let mut cluster = Cluster::started(1).await;
    let at = cluster.add("n2");
    let protocol = quorate::runtime::hello::PROTOCOL;
    let body = json!({"name": "n2", "peer": cluster.nodes[at].peer, "protocol": protocol}).to_string();
    let (status, _) = http_at(&cluster.nodes[0].client, "POST", "/nodes/join", &body).await;
    assert_eq!(status, 201);
    let first = listed(&cluster, "n2", |_| true).await["id"].clone();
    cluster.nodes[at].start();
    let second = joined(&cluster, at).await["id"].clone();
    assert_ne!(first, second);
    assert_eq!(list(&cluster).unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_replaced_and_removed_under_load() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&cluster.client());
    load.goes_on(SOME).await;
    let (is_right, said) = node(&cluster, &["remove", "n2", "--wait"]);
    assert!(!is_right && said.contains("too few"), "{said}");
    let at = cluster.add("n4");
    cluster.nodes[at].start();
    joined(&cluster, at).await;
    load.goes_on(SOME).await;
    let (is_right, said) = node(&cluster, &["replace", "n2", "n4", "--wait", "--timeout", "10"]);
    assert!(is_right && said.contains("node n2 is gone"), "{said}");
    let now = list(&cluster).unwrap();
    let names: Vec<&str> = now.iter().filter_map(|node| node["name"].as_str()).collect();
    assert_eq!((names.len(), names.contains(&"n2")), (3, false), "{names:?}");
    assert_eq!(named(&now, "n4").unwrap()["meta"], "voter");
    load.goes_on(SOME).await;
    // Nobody misses it, and it knows.
    let mut gone = cluster.nodes.remove(1);
    assert_eq!(gone.ended().await.code(), Some(1), "it stops by itself");
    assert!(gone.log().contains("this node was removed"), "{}", gone.log());
    let (code, said) = run(&gone.arguments());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("was removed from cluster") && said.contains("--join"), "{said}");
    load.goes_on(SOME).await;
    let acknowledged = load.finish().await;
    cluster.ready().await;
    load::check(&cluster, &acknowledged).await;
}

/// An order is carried out by whoever leads, and who waits for it asks whoever is there: also when the node that was asked is the one that goes, and
/// others die and come back meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_is_carried_out_whoever_dies_meanwhile() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&cluster.client());
    load.goes_on(SOME).await;
    let at = cluster.add("n4");
    cluster.nodes[at].start();
    joined(&cluster, at).await;
    let leader = cluster.leader(Some(at)).await;
    let goes = (leader + 1) % 3;
    let (name, endpoint) = (cluster.nodes[goes].name.clone(), cluster.nodes[goes].client.clone());
    let waits = tokio::task::spawn_blocking(move || {
        run(&["node", "remove", &name, "--wait", "--endpoints", &endpoint, "--timeout", "3"])
    });
    for killed in [leader, at] {
        load.goes_on(SOME / 4).await;
        cluster.nodes[killed].kill();
        load.goes_on(SOME / 4).await;
        cluster.nodes[killed].start();
    }
    let (code, said) = waits.await.unwrap();
    assert_eq!(code, Some(0), "{said}");
    cluster.nodes.remove(goes).kill();
    load.goes_on(SOME).await;
    let acknowledged = load.finish().await;
    cluster.ready().await;
    load::check(&cluster, &acknowledged).await;
}

/// No node that the cluster began with is left, and what it began with is nowhere said any more: it goes on, also when all are started anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_founder_is_replaced() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&cluster.client());
    load.goes_on(SOME).await;
    let mut acknowledged = load.finish().await;
    for founder in 0..3 {
        let name = format!("m{founder}");
        let at = cluster.add(&name);
        cluster.nodes[at].start();
        joined(&cluster, at).await;
        // One after the other leads, or follows, or has just come.
        let load = Load::start(&cluster.client());
        load.goes_on(SOME).await;
        let (is_right, said) = node(&cluster, &["replace", &format!("n{}", founder + 1), &name, "--wait"]);
        assert!(is_right, "{said}");
        cluster.nodes.remove(0).kill();
        load.goes_on(SOME).await;
        acknowledged.extend(load.finish().await);
    }
    for node in &mut cluster.nodes {
        assert!(node.stop().await.success());
        node.settings.remove("--join");
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.ready().await;
    let load = Load::start(&cluster.client());
    load.goes_on(SOME).await;
    acknowledged.extend(load.finish().await);
    load::check(&cluster, &acknowledged).await;
}

/// One node becomes three, which then do without the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_and_survives_the_node_that_it_began_with() {
    let mut cluster = Cluster::started(1).await;
    let load = Load::start(&cluster.client());
    load.goes_on(SOME).await;
    for name in ["n2", "n3"] {
        let at = cluster.add(name);
        cluster.nodes[at].start();
        joined(&cluster, at).await;
        load.goes_on(SOME).await;
    }
    let replicas = listed(&cluster, "n1", |_| true).await["replicas"].clone();
    for name in ["n2", "n3"] {
        listed(&cluster, name, |node| node["meta"] == "voter" && node["replicas"] == replicas).await;
    }
    until("nothing moves", async || {
        let (_, said) = node(&cluster, &["list"]);
        (!said.contains("under way")).then_some(())
    })
    .await;
    let mut acknowledged = load.finish().await;
    let mut first = cluster.nodes.remove(0);
    first.kill();
    let load = Load::start(&cluster.client());
    load.goes_on(SOME).await;
    acknowledged.extend(load.finish().await);
    load::check(&cluster, &acknowledged).await;
}

/// A node dies for good: after the grace period the spare has what it had. When it is back it counts again. When a node that joined has lost its
/// disk it is refused for as long as that may be a mistake, then gets another id, and what it was goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_replaced_and_counts_again_when_it_is_back() {
    let mut cluster = Cluster::new(3);
    let grace = |node: &mut Node| node.settings.insert("--grace-period", "2".into());
    for node in &mut cluster.nodes {
        grace(node);
        node.start();
    }
    cluster.ready().await;
    let at = cluster.add("n4");
    grace(&mut cluster.nodes[at]);
    cluster.nodes[at].start();
    let spare = joined(&cluster, at).await["id"].clone();
    let load = Load::start(&cluster.client());
    load.goes_on(SOME).await;
    cluster.nodes[1].kill();
    listed(&cluster, "n2", |node| node["standing"] == "lost" && node["replicas"] == 0).await;
    load.goes_on(SOME).await;
    let replicas = listed(&cluster, "n1", |_| true).await["replicas"].clone();
    listed(&cluster, "n4", |node| node["meta"] == "voter" && node["replicas"] == replicas).await;
    cluster.nodes[1].start();
    listed(&cluster, "n2", |node| node["standing"] == "active" && node["replicas"] == 0).await;
    load.goes_on(SOME).await;
    // Its place is taken from the one that joined, which has lost its disk.
    let protocol = quorate::runtime::hello::PROTOCOL;
    let again = json!({"name": "n4", "peer": cluster.nodes[at].peer, "protocol": protocol}).to_string();
    let (status, said) = http_at(&cluster.nodes[0].client, "POST", "/nodes/join", &again).await;
    assert!(status == 409 && said.contains("quorate node remove n4"), "{said}");
    cluster.nodes[at].kill();
    std::fs::remove_dir_all(&cluster.nodes[at].data_dir).unwrap();
    listed(&cluster, "n4", |node| node["standing"] == "lost").await;
    cluster.nodes[at].start();
    listed(&cluster, "n4", |node| node["id"] != spare && node["client"] != "").await;
    until("what it was is gone", async || {
        let list = list(&cluster)?;
        list.iter().all(|node| node["id"] != spare).then_some(())
    })
    .await;
    load.goes_on(SOME).await;
    // The node without replicas does not answer for keys yet.
    let acknowledged = load.finish().await;
    cluster.nodes.remove(at).kill();
    cluster.ready().await;
    load::check(&cluster, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_and_gets_its_share_again() {
    let mut cluster = Cluster::started(3).await;
    let at = cluster.add("n4");
    cluster.nodes[at].start();
    joined(&cluster, at).await;
    let (is_right, said) = node(&cluster, &["drain", "n1", "--wait"]);
    assert!(is_right && said.contains("holds nothing any more"), "{said}");
    let drained = listed(&cluster, "n1", |_| true).await;
    assert_eq!((&drained["standing"], &drained["replicas"]), (&json!("draining"), &json!(0)));
    let (is_right, said) = node(&cluster, &["undrain", "n1"]);
    assert!(is_right && said.contains("is active"), "{said}");
    let (is_right, said) = node(&cluster, &["weight", "n1", "7"]);
    assert!(is_right && said.contains("weight 7"), "{said}");
    let (is_right, said) = node(&cluster, &["zone", "n1", "south"]);
    assert!(is_right && said.contains("zone south"), "{said}");
    let (is_right, said) = node(&cluster, &["weight", "n9", "7"]);
    assert!(!is_right && said.contains("no node is called n9"), "{said}");
    let told = listed(&cluster, "n1", |_| true).await;
    assert_eq!((&told["zone"], &told["weight"]), (&json!("south"), &json!(7)));
}

/// A node that etcd's client has announced has the id that it was told, wherever it comes from; and etcd's client removes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcds_clients_add_and_remove_members() {
    let mut cluster = Cluster::started(1).await;
    let at = cluster.add("n2");
    let urls = |address: &str| vec![format!("http://{address}")];
    let add = |peer: &str| pb::MemberAddRequest { peer_ur_ls: urls(peer), is_learner: true };
    let mut client = members(&cluster.nodes[0]);
    let peer = cluster.nodes[at].peer.clone();
    let added = client.member_add(add(&peer)).await.unwrap().into_inner();
    let id = added.member.unwrap().id;
    assert_eq!((added.members.len(), list(&cluster).unwrap().len()), (2, 2));
    let taken = client.member_add(add(&peer)).await.unwrap_err();
    assert_eq!(
        (taken.code(), taken.message()),
        (Code::FailedPrecondition, "etcdserver: Peer URLs already exists")
    );
    for nonsense in
        [vec![], vec!["h:1".to_owned()], vec!["https://h:1".to_owned()], vec!["http://h".to_owned()]]
    {
        let request = pb::MemberAddRequest { peer_ur_ls: nonsense, is_learner: false };
        let refused = client.member_add(request).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: given member URLs are invalid");
    }
    let early = client.member_promote(pb::MemberPromoteRequest { id }).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    cluster.nodes[at].start();
    let told = joined(&cluster, at).await;
    assert_eq!(told["id"], json!(format!("{id:x}")));
    let elsewhere = free_address();
    let update = pb::MemberUpdateRequest { id, peer_ur_ls: urls(&elsewhere) };
    let updated = client.member_update(update).await.unwrap().into_inner();
    let updated = updated.members.into_iter().find(|member| member.id == id).unwrap();
    assert_eq!(updated.peer_ur_ls, urls(&elsewhere));
    client.member_update(pb::MemberUpdateRequest { id, peer_ur_ls: urls(&peer) }).await.unwrap();
    let left = client.member_remove(pb::MemberRemoveRequest { id }).await.unwrap().into_inner();
    assert_eq!(left.members.len(), 1);
    until("it is gone", async || (list(&cluster)?.len() == 1).then_some(())).await;
    let unknown = client.member_remove(pb::MemberRemoveRequest { id }).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "etcdserver: member not found"));
    let last = client.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap().into_inner();
    let last = last.members[0].id;
    let refused = client.member_remove(pb::MemberRemoveRequest { id: last }).await.unwrap_err();
    assert!(refused.message().contains("not enough started members"), "{refused:?}");
    let voter = client.member_promote(pb::MemberPromoteRequest { id: last }).await.unwrap_err();
    assert_eq!(voter.message(), "etcdserver: can only promote a learner member");
}
