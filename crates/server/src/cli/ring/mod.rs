//! ring: who holds which partitions, how even that is, and what would move if nodes came or went; as text, JSON or a picture.
//!
//! Put together from what all nodes say (`picture.rs`), with changes that are only thought of (`what_if.rs`), and shown (`text.rs`,
//! `json.rs`, `svg.rs`).
//!
//! Caveat: what would be is what [`quorate_placement::plan()`] gives this keyspace alone, by whole partitions. The cluster may carry out
//! less of it at a time, or place several keyspaces together.

pub(crate) mod colours;
pub(crate) mod json;
pub(crate) mod picture;
pub(crate) mod svg;
pub(crate) mod text;
pub(crate) mod what_if;

use super::columns::counted;
use super::{CliError, Output, Target, http_call, partitions, status};
use crate::services::ring::RingTold;
use clap::Args;
use picture::Picture;
use quorate_placement::REPLICAS_MAX;
use serde_json::json;
use std::collections::BTreeMap;
use tokio::task::JoinSet;
use tonic::codegen::http::{Method, StatusCode};
use tonic::transport::Channel;
use what_if::{Change, WhatIf};

/// Which nodes hold and lead which partitions, how even that is, and what would move if nodes came or went
#[derive(Args, Debug)]
#[command(
    after_help = "Replicas are spread over zones first, then by weight: a node's share is what it would hold if replicas could be cut. With --if nothing is \
changed: it is said which table the planner would make, and what had to move for it. Changes are separated by commas:

  add=NAME[:ZONE[:WEIGHT]]   a node joins; without a zone it is one of its own
  remove=NAME                a node goes, or is lost
  weight=NAME:WEIGHT         a node shall hold more, or less
  zone=NAME:ZONE             a node is moved

Examples:
  quorate ring
  quorate ring --if add=n4:west:2,remove=n1
  quorate ring --if weight=n2:3 --sizes
  quorate ring --replicas 5
  quorate --keyspace orders ring -o svg > orders.svg"
)]
pub struct Ring {
    /// What would be if so
    #[arg(long = "if", value_name = "CHANGE", value_delimiter = ',')]
    changes: Vec<Change>,
    /// What would be with so many replicas of each partition [default: as many as there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=REPLICAS_MAX as i64))]
    replicas: Option<u8>,
    /// Say also how many bytes would move. A node counts what it holds, which reads all of it
    #[arg(long)]
    sizes: bool,
}

impl Ring {
    /// Carries it out.
    pub async fn run(self, target: &Target) -> Result<(), CliError> {
        // The answer is about all keyspaces, also about the one that cannot be read.
        let of_cluster = Target { keyspace: None, ..target.clone() };
        let endpoints = status::endpoints(&of_cluster).await?;
        let (told, problems) = ask_all(&of_cluster, &endpoints).await;
        if told.is_empty() {
            let problems: Vec<String> =
                problems.iter().map(|(name, what)| format!("{name}: {what}")).collect();
            return Err(CliError::Unreachable(problems.join(", ")));
        }
        let name = target.keyspace.as_deref().unwrap_or("default");
        let pictures = Picture::of(&told, None);
        let picture = pictures.into_iter().find(|picture| picture.name == name);
        let Some(mut picture) = picture else {
            return Err(CliError::Usage(format!("there is no keyspace {name}")));
        };
        if self.sizes {
            let named = Target { keyspace: Some(name.to_owned()), ..target.clone() };
            count(&named, &endpoints, &mut picture).await?;
        }
        let replicas = self.replicas.map_or(picture.replicas, usize::from);
        let is_asked = self.replicas.is_some() || !self.changes.is_empty();
        let what_if = is_asked.then(|| WhatIf::of(&picture, self.changes, replicas)).transpose();
        let what_if = what_if.map_err(CliError::Usage)?;
        match target.output {
            Output::Json => {
                let mut shown = json::picture(&picture, what_if.as_ref());
                shown["problems"] = json!(problems);
                println!("{shown}");
            }
            Output::Svg => print!("{}", svg::picture(&picture, what_if.as_ref())),
            Output::Table => match &what_if {
                None => print!("{}", text::picture(&picture)),
                Some(what_if) => print!("{}", text::what_if(&picture, what_if)),
            },
        }
        if target.output != Output::Json {
            // A node that is lost is part of the picture; whose leaders are not known is said all the same.
            problems.iter().for_each(|(name, problem)| eprintln!("{name}: {problem}"));
        }
        Ok(())
    }
}

/// What each node says, and why others say nothing.
async fn ask_all(
    target: &Target,
    endpoints: &[(String, String)],
) -> (Vec<RingTold>, BTreeMap<String, String>) {
    let mut asked = JoinSet::new();
    let mut problems = BTreeMap::new();
    for (name, endpoint) in endpoints.iter().cloned() {
        if endpoint.is_empty() {
            problems.insert(name.clone(), status::addressless(&name).to_owned());
            continue;
        }
        let target = target.clone();
        asked.spawn(async move { (name, ask(&target, &endpoint).await) });
    }
    let mut told = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((_, Ok(answer))) => told.push(answer),
            Ok((name, Err(problem))) => {
                problems.insert(name, problem);
            }
            Err(error) => {
                problems.insert("?".into(), error.to_string());
            }
        }
    }
    // In whatever order they answer, the same is shown.
    told.sort_by(|a, b| a.node.cmp(&b.node));
    (told, problems)
}

async fn ask(target: &Target, endpoint: &str) -> Result<RingTold, String> {
    ask_by(target.connect_to_one(endpoint).await?).await
}

/// What a node says of members and places.
pub(crate) async fn ask_by(channel: Channel) -> Result<RingTold, String> {
    let (status, answer) = http_call(channel, Method::GET, "/ring", Vec::new()).await?;
    if status != StatusCode::OK {
        return Err(format!("it answers {status} for /ring: {}", answer["reason"].as_str().unwrap_or("?")));
    }
    serde_json::from_value(answer).map_err(|error| format!("its answer makes no sense: {error}"))
}

/// Has nodes count until somebody has counted each partition: a node knows the size only of what it holds.
async fn count(
    target: &Target,
    endpoints: &[(String, String)],
    picture: &mut Picture,
) -> Result<(), CliError> {
    for (name, endpoint) in endpoints.iter().filter(|(_, endpoint)| !endpoint.is_empty()) {
        let Some(node) = picture.nodes.iter().find(|node| node.name == *name).map(|node| node.id) else {
            continue;
        };
        let is_uncounted = |partition: &picture::Partition| {
            partition.bytes.is_none() && partition.row.replicas.contains(&node)
        };
        if !picture.partitions.iter().any(is_uncounted) {
            continue;
        }
        let sizes = match partitions::sizes(target, name, endpoint).await {
            Ok(sizes) => sizes,
            Err(problem) => {
                eprintln!("{name} does not count: {problem}");
                continue;
            }
        };
        for partition in picture.partitions.iter_mut().filter(|partition| is_uncounted(partition)) {
            let size = sizes.get(&(picture.keyspace, partition.id));
            partition.bytes = size.and_then(|(_, bytes)| *bytes);
        }
    }
    match picture.partitions.iter().filter(|partition| partition.bytes.is_none()).count() {
        0 => Ok(()),
        unknown => Err(CliError::Usage(format!("nobody counted {}", counted(unknown, "partition")))),
    }
}
