//! A replica applies something else than the others, as when bits of its memory flip: it notices, gives its state up and is given theirs.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, put};
use quorate_consensus::Message;
use quorate_node::{Notice, Options, PeerMessage};
use quorate_types::{Bytes, EntryKind, GroupId, KeyspaceId};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;
const GROUP: GroupId = GroupId::FIRST;

fn often(options: &mut Options) {
    options.digest_ticks = 25;
    options.checkpoint_entries = 8;
}

/// Three nodes, of which the one at `leader` leads, and have written something.
fn cluster(seed: u64) -> (Cluster, usize) {
    let mut cluster = Cluster::with(3, seed, often);
    for number in 0..20 {
        cluster.put(KEYSPACE, &format!("/k{number}"), 10).unwrap();
    }
    let leader = (0..3).find(|at| cluster.status(*at, GROUP).is_serving).unwrap();
    (cluster, leader)
}

/// From now on the values that these nodes are sent, of the next entry that has one, are not what was sent.
fn spoil_next(cluster: &mut Cluster, receivers: Vec<usize>, each_its_own: bool) {
    let mut receivers = receivers;
    cluster.tampering = Some(Box::new(move |_, to, message| {
        let PeerMessage::Group { group: GROUP, message: Message::Append { entries, .. }, .. } = message
        else {
            return;
        };
        let Some(entry) = entries.iter_mut().find(|entry| entry.kind == EntryKind::Write) else { return };
        if let Some(at) = receivers.iter().position(|receiver| *receiver == to) {
            receivers.remove(at);
            let mut data = entry.data.to_vec();
            // Of the value: it ends with a few fields.
            let at = data.len() - 12;
            data[at] ^= if each_its_own { 1 << to } else { 1 };
            entry.data = Bytes::from(data);
        }
    }));
}

fn digests(cluster: &mut Cluster) -> Vec<Option<u64>> {
    (0..3).map(|at| cluster.status(at, GROUP).digest).collect()
}

fn diverged(cluster: &Cluster) -> Vec<usize> {
    let is_of_it = |notice: &Notice| matches!(notice, Notice::Diverged { group: GROUP, .. });
    cluster.notices.iter().filter(|(_, notice)| is_of_it(notice)).map(|(at, _)| *at).collect()
}

fn are_equal(cluster: &mut Cluster) -> bool {
    let digests = digests(cluster);
    digests[0].is_some() && digests.iter().all(|digest| *digest == digests[0])
}

#[test]
fn a_follower_that_applied_something_else_is_given_the_state_of_the_others() {
    for seed in 0..6 {
        let (mut cluster, leader) = cluster(70 + seed);
        assert!(are_equal(&mut cluster));
        let victim = (leader + 1) % 3;
        spoil_next(&mut cluster, vec![victim], false);
        // Some are busy when it is found, some idle.
        for number in 0..1 + seed * 7 {
            cluster.request(leader, KEYSPACE, put(&format!("/k{number}"), 10)).unwrap();
        }
        cluster.seconds(4);
        assert_eq!(diverged(&cluster), [victim], "seed {seed}");
        assert!(are_equal(&mut cluster), "seed {seed}");
        // It has a voice, and what it would send to others is theirs.
        cluster.cut = vec![leader];
        cluster.seconds(3);
        cluster.take_over(victim, GROUP);
        cluster.seconds(1);
        cluster.request(victim, KEYSPACE, put("/more", 10)).unwrap();
        cluster.cut.clear();
        cluster.seconds(4);
        assert!(are_equal(&mut cluster) && diverged(&cluster).len() == 1, "seed {seed}");
    }
}

#[test]
fn a_leader_that_applied_something_else_leaves_its_office_first() {
    let (mut cluster, leader) = cluster(81);
    let others = (0..3).filter(|at| *at != leader).collect();
    spoil_next(&mut cluster, others, false);
    cluster.request(leader, KEYSPACE, put("/k", 10)).unwrap();
    cluster.seconds(6);
    assert_eq!(diverged(&cluster), [leader]);
    assert!(are_equal(&mut cluster));
    cluster.request(leader, KEYSPACE, put("/more", 10)).unwrap();
}

#[test]
fn where_all_differ_nobody_gives_anything_up_and_operators_are_told() {
    let (mut cluster, leader) = cluster(91);
    let others = (0..3).filter(|at| *at != leader).collect();
    spoil_next(&mut cluster, others, true);
    cluster.request(leader, KEYSPACE, put("/k", 10)).unwrap();
    cluster.seconds(10);
    assert_eq!(diverged(&cluster), [0usize; 0]);
    let is_doubt =
        |(_, notice): &&(usize, Notice)| matches!(notice, Notice::DigestsDiffer { group: GROUP, .. });
    assert_eq!(cluster.notices.iter().filter(is_doubt).count(), 3, "each says it once");
    assert!(digests(&mut cluster).iter().all(Option::is_some));
}
