//! What is told of what is noticed.

use super::*;
use quorate_types::{Index, PartitionId, Position, Revision, Rules};

/// Node 1 of three, in a cluster with keyspace default of four partitions.
fn telling() -> Telling {
    let member = |id| Member::new(NodeId(id), format!("n{id}"), format!("host-{id}:2380"));
    let map = KeyspaceMap::new(KeyspaceId::DEFAULT, "default", 4, Rules::default(), None).unwrap();
    let mut it = Telling::new(NodeId(1), Duration::from_secs(300), (1..=3).map(member).collect(), vec![map]);
    it.tell(0, Told::Notice(Notice::Current));
    it
}

fn group(partition: u32) -> GroupId {
    GroupId { keyspace: KeyspaceId::DEFAULT, partition: PartitionId(partition) }
}

/// What is told, with the reason behind a colon.
fn say(telling: &mut Telling, at: u64, notice: Notice) -> Vec<String> {
    told(telling.tell(at, Told::Notice(notice)))
}

fn told(records: Vec<Record>) -> Vec<String> {
    let line = |record: Record| match record.why.is_empty() {
        true => record.what,
        false => format!("{}: {}", record.what, record.why),
    };
    records.into_iter().map(line).collect()
}

fn leads(term: u64) -> Notice {
    let fence = Position { index: Index(1), term: Term(term) };
    Notice::Role { group: group(0), term: Term(term), role: Role::Leader { fence } }
}

fn follows(term: u64, leader: u64) -> Notice {
    let role = Role::Follower { leader: Some(NodeId(leader)) };
    Notice::Role { group: group(0), term: Term(term), role }
}

#[test]
fn an_election_is_told_with_what_became_of_the_leader() {
    let mut it = telling();
    // Found at the start.
    assert_eq!(say(&mut it, 0, follows(3, 2)), [""; 0]);
    assert_eq!(say(&mut it, 0, follows(3, 2)), [""; 0]);
    it.tell(1_000, Told::ConnectionLost(NodeId(2)));
    let why = "n1 leads {}: the connection to n2, which led, broke";
    assert_eq!(say(&mut it, 1_500, leads(4)), [why]);
    assert_eq!(say(&mut it, 2_000, follows(5, 3)), ["n3 leads {}"]);
    assert_eq!(say(&mut it, 2_000, Notice::Silent { node: NodeId(3) }), ["n3 is not heard"]);
    assert_eq!(say(&mut it, 3_000, leads(6)), ["n1 leads {}: n3, which led, is not heard"]);
    let heard = "n3 is heard again: after 2.5 s";
    assert_eq!(say(&mut it, 4_500, Notice::Heard { node: NodeId(3) }), [heard]);
    assert_eq!(say(&mut it, 5_000, follows(7, 3)), ["n3 leads {}"]);
    say(&mut it, 6_000, Notice::HandedOver { group: group(0), by: NodeId(3) });
    assert_eq!(say(&mut it, 6_000, leads(8)), ["n1 leads {}: n3 handed over"]);
    // An old word.
    assert_eq!(say(&mut it, 6_000, follows(7, 3)), [""; 0]);
    assert_eq!(say(&mut it, 7_000, leads(9)), ["n1 leads {}: it led before, in an older term"]);
}

#[test]
fn a_member_is_told_by_what_changed_in_its_row() {
    let mut it = telling();
    let n2 = Member::new(NodeId(2), "n2", "host-2:2380");
    let mut change = |before: &Member, now: Option<Member>| {
        let (before, now) = (Some(Box::new(before.clone())), now.map(Box::new));
        say(&mut it, 0, Notice::Member { before, now, revision: Revision(9) })
    };
    let standing = |standing| Member { standing, ..n2.clone() };
    let (lost, leaving) = (standing(Standing::Lost), standing(Standing::Leaving));
    assert_eq!(
        change(&n2, Some(lost.clone())),
        ["n2 is lost: nobody heard it for the grace period of 5 min"]
    );
    assert_eq!(change(&lost, Some(n2.clone())), ["n2 is taken into use again: it is heard again"]);
    assert_eq!(change(&n2, Some(standing(Standing::Draining))), ["n2 is to hold nothing: ordered"]);
    let moved = Member { zone: "west".into(), weight: 2, ..leaving.clone() };
    let said = ["n2 is to leave: ordered", "n2 is in zone «west», was in «»", "n2 has weight 2, had 1"];
    assert_eq!(change(&n2, Some(moved)), said);
    assert_eq!(change(&leaving, None), ["n2 is not a member any more: nothing is on it any more"]);
    let n4 = Some(Box::new(Member::new(NodeId(4), "n4", "host-4:2380")));
    let joins = Notice::Member { before: None, now: n4, revision: Revision(10) };
    assert_eq!(say(&mut it, 0, joins), ["n4 is a member, at host-4:2380"]);
    // Who has gone still has its name.
    assert_eq!(it.name(NodeId(2)), "n2");
}

#[test]
fn moves_say_from_whom_to_whom_and_why() {
    let mut it = telling();
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    let moves = |from: &[u64], to: &[u64]| Notice::Moves {
        group: group(2),
        voters: ids(from),
        target: ids(to),
        revision: Revision(7),
    };
    let lost = Member { standing: Standing::Lost, ..Member::new(NodeId(2), "n2", "host-2:2380") };
    let n4 = Member::new(NodeId(4), "n4", "host-4:2380");
    it.tell(0, Told::Members(vec![lost, n4]));
    let records = it.tell(5, Told::Notice(moves(&[1, 2, 3], &[1, 3, 4])));
    assert_eq!(records[0].groups, [Group("default".into(), 2, Some(7))]);
    assert_eq!(told(records), ["{} is to go from n2 to n4: n2 is lost"]);
    assert_eq!(
        say(&mut it, 5, moves(&[1, 3], &[3, 4])),
        ["{} is to go from n1 to n4: so that each node has its share"]
    );
    assert_eq!(say(&mut it, 5, moves(&[1], &[1, 4])), ["{} is to be on n4, too: more replicas are wanted"]);
    let done =
        Notice::Moved { group: group(2), before: ids(&[1, 2]), voters: ids(&[1, 4]), revision: Revision(8) };
    assert_eq!(say(&mut it, 6, done), ["{} has gone from n2 to n4"]);
    let thrown = "n1 has thrown away its replica of {}: its row gives it no part in them any more";
    assert_eq!(say(&mut it, 7, Notice::Discarded { group: group(2) }), [thrown]);
}

#[test]
fn keyspaces_and_splits_are_told_by_their_maps() {
    let mut it = telling();
    let map = |it: &mut Telling, map: &KeyspaceMap| told(it.tell(0, Told::Map(Box::new(map.clone()))));
    let mut default = it.maps[&KeyspaceId::DEFAULT].clone();
    assert_eq!(map(&mut it, &default), [""; 0]);
    let child = default.begin_split(PartitionId(1)).unwrap();
    let begun = format!("default/1 is being split: default/{} is to come", child.0);
    assert_eq!(map(&mut it, &default), [begun]);
    assert_eq!(map(&mut it, &default), [""; 0]);
    default.finish_split(PartitionId(1)).unwrap();
    assert_eq!(map(&mut it, &default), [format!("default/{} was split off default/1", child.0)]);
    let orders = KeyspaceMap::new(KeyspaceId(7), "orders", 1, Rules::default(), None).unwrap();
    assert_eq!(map(&mut it, &orders), ["keyspace orders is there"]);
    let deleted = Notice::KeyspaceDeleted { keyspace: KeyspaceId(7) };
    assert_eq!(say(&mut it, 0, deleted.clone()), ["keyspace orders is deleted: ordered"]);
    assert_eq!(say(&mut it, 0, deleted), [""; 0]);
}

/// A node that joins applies the rows from the beginning, which is no news; but it has to know them.
#[test]
fn history_is_not_told() {
    let mut it = telling();
    it.is_current = false;
    let n4 = Some(Box::new(Member::new(NodeId(4), "n4", "host-4:2380")));
    let joins = Notice::Member { before: None, now: n4, revision: Revision(10) };
    assert_eq!(say(&mut it, 0, joins.clone()), [""; 0]);
    assert_eq!(it.name(NodeId(4)), "n4");
    // Who leads the meta group decides about rows.
    assert_eq!(say(&mut it, 0, Notice::Serving { group: GroupId::META, term: Term(1) }), [""; 0]);
    assert_eq!(say(&mut it, 0, joins), ["n4 is a member, at host-4:2380"]);
}

#[test]
fn a_start_after_a_run_that_was_cut_off_says_so() {
    let mut it = telling();
    assert!(!told(it.tell(0, Told::Started))[0].contains("cut off"));
    let stopped = it.tell(1, Told::Stopped).remove(0);
    it.last_run_ended_with(Some(&stopped));
    assert!(!told(it.tell(2, Told::Started))[0].contains("cut off"));
    let started = it.tell(3, Told::Started).remove(0);
    it.last_run_ended_with(Some(&started));
    assert!(told(it.tell(4, Told::Started))[0].contains("cut off"));
}
