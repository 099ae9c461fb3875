//! status, members, hash: what one looks at first when something is wrong.

use super::{CliError, Target};
use quorate_api::pb;
use serde_json::json;
use tonic::Code;

/// One node's answer.
struct NodeStatus {
    endpoint: String,
    answer: Result<pb::StatusResponse, String>,
}

async fn ask(target: &Target, endpoint: &str) -> NodeStatus {
    let answer = async {
        let channel = target.line_to(endpoint).await?;
        let mut client = pb::maintenance_client::MaintenanceClient::new(channel);
        Ok::<_, CliError>(client.status(pb::StatusRequest {}).await?.into_inner())
    };
    let shown = endpoint.trim_start_matches("http://").to_owned();
    NodeStatus { endpoint: shown, answer: answer.await.map_err(|error| error.to_string()) }
}

/// Everybody's client address, as the cluster knows them; what was typed when it cannot be asked.
/// Fails when it is asked for a keyspace that is not there: that is no node's trouble.
pub(super) async fn endpoints(target: &Target) -> Result<Vec<(String, String)>, CliError> {
    let asked = async {
        let mut client = pb::cluster_client::ClusterClient::new(target.line().await?);
        let request = pb::MemberListRequest { linearizable: false };
        Ok::<_, CliError>(client.member_list(request).await?.into_inner().members)
    };
    let members = match asked.await {
        Ok(members) => members,
        Err(CliError::Refused(status))
            if matches!(status.code(), Code::NotFound | Code::PermissionDenied) =>
        {
            return Err(status.into());
        }
        Err(_) => Vec::new(),
    };
    let known: Vec<(String, String)> = members
        .into_iter()
        .map(|member| {
            let address = member.client_ur_ls.first().cloned().unwrap_or_default();
            (member.name, address)
        })
        .collect();
    if known.is_empty() {
        return Ok(target.endpoints.iter().map(|endpoint| ("?".into(), endpoint.clone())).collect());
    }
    Ok(known)
}

/// Why a member tells no address for clients.
pub(super) fn addressless(name: &str) -> &'static str {
    if name.is_empty() { "has not started yet" } else { "has no port for this keyspace (--listen-keyspace)" }
}

/// Who leads, how far everybody is, how large, how healthy: on one screen. Fails when a node does not answer.
pub async fn status(target: &Target) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for (name, endpoint) in endpoints(target).await? {
        let status = if endpoint.is_empty() {
            NodeStatus { endpoint: "-".into(), answer: Err(addressless(&name).into()) }
        } else {
            ask(target, &endpoint).await
        };
        rows.push((name, status));
    }
    let furthest =
        rows.iter().filter_map(|(_, row)| Some(row.answer.as_ref().ok()?.raft_index)).max().unwrap_or(0);
    let is_down = rows.iter().filter(|(_, row)| row.answer.is_err()).count();
    if target.is_json() {
        let nodes: Vec<_> = rows
            .iter()
            .map(|(name, row)| match &row.answer {
                Ok(answer) => json!({
                    "name": name,
                    "endpoint": row.endpoint,
                    "healthy": answer.errors.is_empty(),
                    "leader": answer.header.as_ref().is_some_and(|header| header.member_id == answer.leader),
                    "term": answer.raft_term,
                    "revision": answer.header.as_ref().map_or(0, |header| header.revision),
                    "stands_by": stands_by(answer),
                    "lag": if stands_by(answer) { 0 } else { furthest.saturating_sub(answer.raft_applied_index) },
                    "bytes": answer.db_size,
                    "errors": answer.errors,
                }),
                Err(problem) => {
                    json!({"name": name, "endpoint": row.endpoint, "healthy": false, "errors": [problem]})
                }
            })
            .collect();
        println!("{}", json!({"nodes": nodes}));
    } else {
        println!(
            "{:<10} {:<22} {:<9} {:>5} {:>10} {:>6} {:>10}  HEALTH",
            "NAME", "ENDPOINT", "ROLE", "TERM", "REVISION", "LAG", "SIZE"
        );
        for (name, row) in &rows {
            match &row.answer {
                Ok(answer) => {
                    let header = answer.header.unwrap_or_default();
                    let role = match answer.leader {
                        _ if stands_by(answer) => "stands by",
                        0 => "no leader",
                        leader if leader == header.member_id => "leader",
                        _ => "follower",
                    };
                    let health =
                        if answer.errors.is_empty() { "ok".to_owned() } else { answer.errors.join(", ") };
                    // Where there is nothing, nothing is behind.
                    let (term, revision, lag) = if stands_by(answer) {
                        ("-".to_owned(), "-".to_owned(), "-".to_owned())
                    } else {
                        let lag = furthest.saturating_sub(answer.raft_applied_index);
                        (answer.raft_term.to_string(), header.revision.to_string(), lag.to_string())
                    };
                    println!(
                        "{:<10} {:<22} {:<9} {:>5} {:>10} {:>6} {:>10}  {}",
                        name,
                        row.endpoint,
                        role,
                        term,
                        revision,
                        lag,
                        size(answer.db_size),
                        health
                    );
                }
                Err(problem) => {
                    println!("{:<10} {:<22} {:<9} {:>35}  {}", name, row.endpoint, "down", "", problem)
                }
            }
        }
    }
    if is_down > 0 {
        return Err(CliError::Usage(format!("{is_down} of {} nodes did not answer", rows.len())));
    }
    Ok(())
}

/// Whether a node answers for others and has no replica of the keyspace itself: the log of one that has begins with 1.
fn stands_by(answer: &pb::StatusResponse) -> bool {
    answer.raft_index == 0 && answer.errors.is_empty()
}

/// Bytes, for people.
pub(super) fn size(bytes: i64) -> String {
    if bytes < 10 << 10 {
        format!("{bytes} B")
    } else if bytes < 10 << 20 {
        format!("{} KiB", bytes >> 10)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

/// The nodes of the cluster.
pub async fn members(target: &Target) -> Result<(), CliError> {
    let mut client = pb::cluster_client::ClusterClient::new(target.line().await?);
    let response = client.member_list(pb::MemberListRequest { linearizable: true }).await?.into_inner();
    if target.is_json() {
        let members: Vec<_> = response
            .members
            .iter()
            .map(|member| {
                json!({"id": format!("{:x}", member.id), "name": member.name, "peers": member.peer_ur_ls, "clients": member.client_ur_ls})
            })
            .collect();
        println!("{}", json!({"members": members}));
        return Ok(());
    }
    println!("{:<17} {:<10} {:<28} CLIENTS", "ID", "NAME", "PEERS");
    for member in response.members {
        let name = if member.name.is_empty() { "(not started)".into() } else { member.name };
        let (peers, clients) = (member.peer_ur_ls.join(","), member.client_ur_ls.join(","));
        println!("{:<17} {name:<10} {peers:<28} {clients}", format!("{:x}", member.id));
    }
    Ok(())
}

/// A hash of every endpoint's history; equal hashes, equal histories.
pub async fn hash(target: &Target, revision: i64) -> Result<(), CliError> {
    let mut seen = Vec::new();
    for endpoint in &target.endpoints {
        let mut client = pb::maintenance_client::MaintenanceClient::new(target.line_to(endpoint).await?);
        let response = client.hash_kv(pb::HashKvRequest { revision }).await?.into_inner();
        if target.is_json() {
            println!(
                "{}",
                json!({"endpoint": endpoint, "hash": response.hash, "revision": response.hash_revision, "compact_revision": response.compact_revision})
            );
        } else {
            println!("{endpoint} {:08x} at revision {}", response.hash, response.hash_revision);
        }
        seen.push((response.hash_revision, response.compact_revision, response.hash));
    }
    let differs = seen.iter().any(|a| seen.iter().any(|b| a.0 == b.0 && a.1 == b.1 && a.2 != b.2));
    if differs {
        return Err(CliError::Usage("the histories differ: a replica is damaged".into()));
    }
    Ok(())
}
