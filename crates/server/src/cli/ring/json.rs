//! A picture for programs.

use super::picture::{Figures, Picture};
use super::what_if::WhatIf;
use quorate_placement::{Balance, NodeId};
use serde_json::{Value, json};

/// The cluster as it is, and what would be.
pub(crate) fn picture(picture: &Picture, what_if: Option<&WhatIf>) -> Value {
    let figures = picture.figures();
    let mut shown = table(picture, &figures);
    shown["if"] = json!(what_if.map(|what_if| {
        let name = |id: &NodeId| match picture.nodes.iter().any(|node| node.id == *id) {
            true => picture.name_of(*id),
            false => what_if.after.name_of(*id),
        };
        let moves = what_if.moves.iter().map(|change| {
            let partition = &picture.partitions[change.partition];
            json!({
                "partition": partition.id,
                "joins": change.joins.iter().map(name).collect::<Vec<_>>(),
                "leaves": change.leaves.iter().map(name).collect::<Vec<_>>(),
                "leader": change.leader.as_ref().map(name),
                "bytes": partition.bytes,
            })
        });
        let flows = what_if.flows(picture).into_iter().map(|((from, to), count)| {
            json!({"from": from.as_ref().map(name), "to": to.as_ref().map(name), "replicas": count})
        });
        let mut then = table(&what_if.after, &what_if.after.figures());
        then["changes"] = json!(what_if.changes.iter().map(ToString::to_string).collect::<Vec<_>>());
        then["moves"] = json!(moves.collect::<Vec<_>>());
        then["flows"] = json!(flows.collect::<Vec<_>>());
        then["replicas_moved"] = json!(what_if.replicas_moved);
        then["replicas_moved_by_shares"] = json!(what_if.least);
        then["leaders_moved"] = json!(what_if.leaders_moved);
        then["bytes_moved"] = json!(what_if.bytes);
        then
    }));
    shown
}

fn table(picture: &Picture, figures: &Figures) -> Value {
    let nodes = picture.nodes.iter().zip(&figures.loads).map(|(node, load)| {
        json!({
            "id": format!("{:x}", node.id.0),
            "name": node.name,
            "zone": node.zone,
            "weight": node.weight,
            "standing": node.standing,
            "replicas": load.replicas,
            "replicas_fair": parts(load.replicas_fair_milli),
            "leaders": load.leaders,
            "leaders_fair": parts(load.leaders_fair_milli),
        })
    });
    let name = |id: &NodeId| picture.name_of(*id);
    let partitions = picture.partitions.iter().map(|partition| {
        json!({
            "partition": partition.id,
            "slots": partition.slots(),
            "ranges": partition.ranges,
            "replicas": partition.row.replicas.iter().map(name).collect::<Vec<_>>(),
            "leader": partition.row.leader.as_ref().map(name),
            "target": partition.target.as_ref().map(|target| target.iter().map(name).collect::<Vec<_>>()),
            "bytes": partition.bytes,
        })
    });
    let ids = |positions: &[usize]| positions.iter().map(|at| picture.partitions[*at].id).collect::<Vec<_>>();
    json!({
        "keyspace": picture.keyspace,
        "name": picture.name,
        "replicas": picture.replicas,
        "zones": picture.zones(),
        "nodes": nodes.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
        "balance": {"replicas": balance(figures.replicas), "leaders": balance(figures.leaders)},
        "under_replicated": ids(&figures.under_replicated),
        "moving": ids(&figures.moving),
    })
}

fn balance(balance: Balance) -> Value {
    json!({"most": parts(balance.most_per_mille), "least": parts(balance.least_per_mille)})
}

fn parts(milli: u64) -> f64 {
    milli as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::nine;
    use super::*;

    #[test]
    fn names_stand_for_nodes_and_what_moves_is_told() {
        let now = nine(64);
        let then = WhatIf::of(&now, vec!["add=n10:west:1".parse().unwrap()], 3).unwrap();
        let shown = picture(&now, Some(&then));
        assert_eq!(shown["nodes"].as_array().unwrap().len(), 9);
        assert_eq!(shown["nodes"][0]["name"], "n1");
        assert_eq!(shown["partitions"][0]["replicas"].as_array().unwrap().len(), 3);
        assert_eq!(shown["if"]["replicas_moved"], shown["if"]["replicas_moved_by_shares"]);
        assert_eq!(shown["if"]["nodes"].as_array().unwrap().len(), 10);
        let moves = shown["if"]["moves"].as_array().unwrap();
        assert!(moves.iter().any(|change| change["joins"] == json!(["n10"])));
        assert!(picture(&now, None)["if"].is_null());
    }
}
