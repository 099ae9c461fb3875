//! A cluster's life in tables: it begins with three nodes, one in each zone, grows, loses a node, and drains one.
//!
//! `cargo run -p quorate-placement --example cluster`

use quorate_placement::{Assignment, Member, Node, NodeId, PlacementError, Standing, plan};

const PARTITIONS: usize = 64;
const REPLICAS: usize = 3;

/// Plans from the table as it is, and shows what each node has then.
fn step(what: &str, members: &[Member], table: &mut Vec<Assignment>) -> Result<(), PlacementError> {
    let next = plan(members, PARTITIONS, REPLICAS, table)?;
    println!("{what}: {} replicas and {} leaders move", next.replicas_moved(), next.leaders_moved());
    for load in &next.loads {
        let member = members.iter().find(|member| member.node.id == load.node);
        println!(
            "  node {:<2} {:<6} {:>3} replicas of {:>5.1}  {:<64}  {:>2} lead",
            load.node.0,
            member.and_then(|member| member.node.zone.as_deref()).unwrap_or("-"),
            load.replicas,
            load.replicas_fair_milli as f64 / 1_000.0,
            "#".repeat(load.replicas as usize),
            load.leaders,
        );
    }
    if !next.under_replicated.is_empty() {
        println!("  {} partitions have too few replicas", next.under_replicated.len());
    }
    *table = next.table;
    Ok(())
}

fn main() -> Result<(), PlacementError> {
    let node = |id: u64| Node::new(NodeId(id)).in_zone(["west", "east", "north"][id as usize % 3]);
    let mut members: Vec<Member> = (1..=3).map(|id| node(id).into()).collect();
    let mut table = Vec::new();
    step("three nodes", &members, &mut table)?;

    members.extend((4..=6).map(|id| Member::from(node(id))));
    step("three more", &members, &mut table)?;

    members.push(node(7).with_weight(2).into());
    step("a larger one in zone east", &members, &mut table)?;

    members[1].standing = Standing::Gone;
    step("node 2 is lost", &members, &mut table)?;

    members[0].standing = Standing::Draining;
    step("node 1 is drained", &members, &mut table)?;

    // Until others hold what it had, it is in the table no more: the caller moves, one partition after the other.
    members.remove(0);
    step("node 1 has gone, which moves nothing", &members, &mut table)
}
