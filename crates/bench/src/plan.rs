//! What is measured on which clusters, and in which order.

use crate::cluster::System;
use crate::point::{Kind, Point};
use crate::targets;

/// A cluster of each system, and what is done with it, one after the other.
pub(crate) struct Session {
    pub(crate) nodes: usize,
    pub(crate) systems: Vec<System>,
    pub(crate) points: Vec<Point>,
}

/// Everything that there is a target for; with `all` also what has none and takes long.
pub(crate) fn targets(with_etcd: bool, all: bool) -> Vec<Session> {
    let systems = systems(with_etcd);
    let mut sessions = Vec::new();
    for nodes in [3, 1] {
        let (of_many, points): (Vec<Point>, Vec<Point>) =
            targets::points(nodes).into_iter().partition(|point| point.kind == Kind::Keys);
        sessions.push(Session { nodes, systems: systems.clone(), points });
        // On clusters of their own: nothing else is to be in what they take.
        for keys in of_many {
            let more = all.then_some(Point { kind: Kind::Compaction, ..keys });
            sessions.push(Session {
                nodes,
                systems: systems.clone(),
                points: [keys].into_iter().chain(more).collect(),
            });
        }
    }
    if with_etcd && all {
        let point = |kind| Point { kind, nodes: 3, clients: 0 };
        let points = vec![point(Kind::Killed), point(Kind::Paused)];
        sessions.push(Session { nodes: 3, systems: vec![System::EtcdSooner], points });
    }
    sessions
}

/// What was asked for on the command line.
pub(crate) fn asked(with_etcd: bool, nodes: &[usize], kinds: &[Kind], clients: &[usize]) -> Vec<Session> {
    let session = |&nodes: &usize| {
        let once = |kinds_now: [Kind; 3]| {
            let is_asked = move |kind: &Kind| kinds.contains(kind) && (nodes >= 3 || !kind.needs_survivors());
            kinds_now.into_iter().filter(is_asked).map(move |kind| Point { kind, nodes, clients: 0 })
        };
        // Before there is anything that could make it other than what rests, or larger than the keys.
        let mut points: Vec<Point> = once([Kind::Idle, Kind::Keys, Kind::Compaction]).collect();
        for &kind in kinds.iter().filter(|kind| kind.load().is_some()) {
            points.extend(clients.iter().map(|&clients| Point { kind, nodes, clients }));
        }
        // The last leaves a node less.
        points.extend(once([Kind::Killed, Kind::Paused, Kind::Survivors]));
        Session { nodes, systems: systems(with_etcd), points }
    };
    nodes.iter().map(session).collect()
}

fn systems(with_etcd: bool) -> Vec<System> {
    if with_etcd { vec![System::Quorate, System::Etcd] } else { vec![System::Quorate] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::TARGETS;

    #[test]
    fn every_target_is_measured_once_on_each_system() {
        for all in [false, true] {
            let sessions = targets(true, all);
            for target in TARGETS {
                for system in [System::Quorate, System::Etcd] {
                    let of = |session: &&Session| session.systems.contains(&system);
                    let points = sessions.iter().filter(of).flat_map(|session| &session.points);
                    assert_eq!(points.filter(|point| **point == target.point).count(), 1, "{}", target.point);
                }
            }
        }
    }

    #[test]
    fn what_costs_a_node_comes_last() {
        let asked = asked(false, &[1, 3], &[Kind::Survivors, Kind::Put, Kind::Killed], &[1, 64]);
        let kinds = |at: usize| asked[at].points.iter().map(|point| point.kind).collect::<Vec<_>>();
        assert_eq!(kinds(0), [Kind::Put, Kind::Put]);
        assert_eq!(kinds(1), [Kind::Put, Kind::Put, Kind::Killed, Kind::Survivors]);
    }
}
