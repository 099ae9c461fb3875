//! Leases of a keyspace of several partitions, whose leaders are on different nodes.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::Cluster;
use quorate_node::PeerMessage;
use quorate_types::request::{PutLease, PutRequest, RangeRequest};
use quorate_types::{Bytes, GroupId, KeyRange, KeyspaceId, LeaseId, PartitionId, Request, Slot, SlotSet};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

fn group(partition: u32) -> GroupId {
    GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) }
}

/// A lease runs out in its home, which is asleep, and has a key in a partition that is led elsewhere. The first attempts to end it come to nothing;
/// what is due again has to wake the home.
#[test]
fn a_lease_ends_at_last_though_its_home_sleeps_when_an_attempt_fails() {
    let (home, holder) = (1, 2);
    let mut cluster = Cluster::with(3, 11, |options| {
        options.partitions = 2;
        options.spread_leaders = true;
    });
    cluster.take_over(0, GroupId::META);
    cluster.take_over(home, group(0));
    cluster.take_over(holder, group(1));
    cluster.seconds(1);
    let map = cluster.host(0).maps().find(|map| map.id == KEYSPACE).unwrap().clone();
    let slots: Vec<&SlotSet> = map.partitions.iter().map(|partition| &partition.slots).collect();
    let mut leases = (1..).filter_map(LeaseId::new);
    let lease = leases.find(|lease| slots[0].contains(Slot::of_lease(*lease))).unwrap();
    let mut keys = (0..).map(|number| Bytes::from(format!("/{number}/k")));
    let key = keys.find(|key| slots[1].contains(Slot::of(key))).unwrap();

    cluster.request(0, KEYSPACE, Request::LeaseGrant { lease, ttl_seconds: 3 }).unwrap();
    let (value, attached) = (Some(Bytes::from_static(b"v")), PutLease::Attach(lease));
    let leased = PutRequest { key: key.clone(), value, lease: attached, previous: false };
    cluster.request(0, KEYSPACE, Request::Put(leased)).unwrap();
    // Read where it is, without a word to anybody: a request would wake who leads.
    let count = |cluster: &mut Cluster| {
        let reader = cluster.host(0).reader(KEYSPACE).unwrap();
        let all = RangeRequest::new(KeyRange::Single(key.clone()));
        reader.range(&all, reader.revision()).unwrap().1.count
    };
    cluster.seconds(1);
    assert_eq!(count(&mut cluster), 1);
    cluster.lose(|_, _, message| matches!(message, PeerMessage::Txn { .. }));
    cluster.seconds(5);
    assert_eq!(count(&mut cluster), 1);
    assert!([0, 1].map(|of| cluster.status([home, holder][of], group(of as u32)).is_serving) == [true; 2]);
    cluster.losing = None;
    cluster.seconds(2);
    assert_eq!(count(&mut cluster), 0);
}
