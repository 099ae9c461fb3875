//! Orders about nodes, carried out one after the other and at the same time, against rows in a map.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_node::{ClusterOrder, ClusterOrders, Nodes, OrderRefused, OrderStep, Which};
use quorate_types::member::{MEMBERS_MAX, Standing};
use quorate_types::reply::{OperationAnswer, RangeAnswer, TxnAnswer};
use quorate_types::request::{CompareResult, CompareTarget, Operation};
use quorate_types::{
    Answer, Bytes, Encode, GroupId, Key, KeyRange, KeyValue, Member, NodeId, Place, Reply, Request, Revision,
    Term,
};
use std::collections::BTreeMap;

/// As much of the system keyspace as orders use.
#[derive(Default)]
struct Rows {
    rows: BTreeMap<Key, (Bytes, u64)>,
    revision: u64,
}

impl Rows {
    fn put(&mut self, key: Key, value: Bytes) {
        self.rows.insert(key, (value, self.revision));
    }

    fn within(&self, range: &KeyRange) -> Vec<KeyValue> {
        let found = self.rows.iter().filter(|(key, _)| range.contains(key));
        found
            .map(|(key, (value, modified))| KeyValue {
                key: key.clone(),
                value: value.clone(),
                create: Revision(*modified),
                modified: Revision(*modified),
                version: 1,
                lease: None,
            })
            .collect()
    }

    fn ask(&mut self, request: Request) -> Reply {
        let Request::Txn(txn) = request else { panic!("{request:?}") };
        let succeeded = txn.compares.iter().all(|compare| {
            let pairs = self.within(&compare.range);
            match (&compare.target, compare.result) {
                (CompareTarget::Modified(given), CompareResult::Less) => {
                    pairs.iter().all(|pair| (pair.modified.0 as i64) < *given)
                }
                (CompareTarget::Version(0), CompareResult::Greater) => !pairs.is_empty(),
                other => panic!("{other:?}"),
            }
        });
        let mut responses = Vec::new();
        self.revision += 1;
        for operation in txn.success.into_iter().filter(|_| succeeded) {
            match operation {
                Operation::Range(request) => {
                    let pairs = self.within(&request.range);
                    let answer = RangeAnswer { count: pairs.len() as u64, pairs, more: false };
                    responses.push(OperationAnswer::Range(Revision(self.revision), answer));
                }
                Operation::Put(put) => self.put(put.key, put.value.unwrap()),
                Operation::DeleteRange(delete) => self.rows.retain(|key, _| !delete.range.contains(key)),
                Operation::Txn(_) => panic!("a transaction within"),
            }
        }
        let answer = Answer::Txn(TxnAnswer { succeeded, responses });
        Reply { revision: Revision(self.revision), term: Term(1), answer }
    }

    fn order(&mut self, order: ClusterOrder) -> Result<Nodes, OrderRefused> {
        let (mut order, mut request) = ClusterOrders::begin(order)?;
        loop {
            match order.answered(self.ask(request))? {
                OrderStep::Ask(next) => request = next,
                OrderStep::Done(nodes) => return Ok(nodes),
            }
        }
    }

    /// Three members and a group on all of them.
    fn founded() -> Self {
        let mut rows = Self::default();
        for id in 1..=3 {
            rows.put(Member::row_key(NodeId(id)), member(id).encoded());
        }
        rows.place(GroupId::META, &[1, 2, 3]);
        rows
    }

    fn place(&mut self, group: GroupId, voters: &[u64]) {
        self.revision += 1;
        let place = Place::new(voters.iter().copied().map(NodeId).collect());
        self.put(Place::row_key(group), place.encoded());
    }

    fn standing(&mut self, id: u64) -> Standing {
        self.order(ClusterOrder::List).unwrap().member(NodeId(id)).unwrap().standing
    }

    /// What the cluster itself does.
    fn set_standing(&mut self, id: u64, standing: Standing) {
        let nodes = self.order(ClusterOrder::List).unwrap();
        let member = Member { standing, ..nodes.member(NodeId(id)).unwrap().clone() };
        self.put(Member::row_key(member.id), member.encoded());
    }
}

fn member(id: u64) -> Member {
    Member::new(NodeId(id), format!("n{id}"), format!("10.0.0.{id}:2380"))
}

fn called(name: &str) -> Which {
    Which::Called(name.to_owned())
}

fn drain(name: &str) -> ClusterOrder {
    ClusterOrder::Drain { member: called(name), is_forced: false }
}

fn remove(name: &str, is_forced: bool) -> ClusterOrder {
    ClusterOrder::Remove { member: called(name), is_forced }
}

#[test]
fn names_and_addresses_are_given_once() {
    assert_eq!(Rows::default().order(ClusterOrder::Join(member(1))), Err(OrderRefused::NotYet));
    let mut rows = Rows::founded();
    let other = Member { name: "n1".into(), ..member(4) };
    assert!(matches!(rows.order(ClusterOrder::Join(other)), Err(OrderRefused::NameTaken(_))));
    let other = Member { peer: "10.0.0.1:2380".into(), ..member(4) };
    assert!(matches!(rows.order(ClusterOrder::Join(other)), Err(OrderRefused::AddressTaken(_))));
    let nodes = rows.order(ClusterOrder::Join(member(4))).unwrap();
    assert_eq!((nodes.members.len(), nodes.concerned), (4, Some(member(4))));
    for senseless in [
        Member { peer: "nowhere".into(), ..member(5) },
        Member { weight: 0, ..member(5) },
        Member { name: "a,b".into(), ..member(5) },
        Member { zone: "z".repeat(256), ..member(5) },
    ] {
        assert!(matches!(rows.order(ClusterOrder::Join(senseless)), Err(OrderRefused::Senseless(_))));
    }
    for id in 5..=MEMBERS_MAX as u64 {
        rows.order(ClusterOrder::Join(member(id))).unwrap();
    }
    assert_eq!(rows.order(ClusterOrder::Join(member(1_000))), Err(OrderRefused::TooMany));
}

#[test]
fn of_two_who_want_one_name_at_the_same_time_one_is_refused() {
    let mut rows = Rows::founded();
    let (mut one, read) = ClusterOrders::begin(ClusterOrder::Join(member(4))).unwrap();
    let Ok(OrderStep::Ask(put)) = one.answered(rows.ask(read)) else { panic!("nothing to put") };
    rows.order(ClusterOrder::Join(Member { name: "n4".into(), ..member(5) })).unwrap();
    let Ok(OrderStep::Ask(again)) = one.answered(rows.ask(put)) else { panic!("it was carried out") };
    assert!(matches!(one.answered(rows.ask(again)), Err(OrderRefused::NameTaken(_))));
}

#[test]
fn a_row_that_went_away_meanwhile_does_not_come_back() {
    let mut rows = Rows::founded();
    rows.order(ClusterOrder::Join(member(4))).unwrap();
    let order = ClusterOrder::SetZone(called("n4"), "north".into());
    let (mut order, read) = ClusterOrders::begin(order).unwrap();
    let Ok(OrderStep::Ask(put)) = order.answered(rows.ask(read)) else { panic!("nothing to put") };
    rows.rows.remove(&Member::row_key(NodeId(4)));
    let Ok(OrderStep::Ask(again)) = order.answered(rows.ask(put)) else { panic!("it was carried out") };
    assert_eq!(order.answered(rows.ask(again)), Err(OrderRefused::NotFound(called("n4"))));
}

#[test]
fn who_joins_again_without_data_gets_a_new_id_unless_replicas_are_placed_on_it() {
    let mut rows = Rows::founded();
    rows.order(ClusterOrder::Join(member(4))).unwrap();
    let again = Member { id: NodeId(44), ..member(4) };
    let nodes = rows.order(ClusterOrder::Join(again.clone())).unwrap();
    assert_eq!((nodes.members.len(), nodes.member(NodeId(4))), (4, None));
    rows.place(GroupId::FIRST, &[1, 2, 44]);
    let once_more = Member { id: NodeId(444), ..member(4) };
    let refused = rows.order(ClusterOrder::Join(once_more.clone()));
    assert_eq!(refused, Err(OrderRefused::HasData { member: again, replicas: 1 }));
    // Told to go, or lost, it keeps neither name nor address from a successor.
    rows.order(remove("n4", false)).unwrap();
    let nodes = rows.order(ClusterOrder::Join(once_more)).unwrap();
    let old = nodes.member(NodeId(44)).unwrap();
    assert_eq!((old.standing, old.peer.as_str(), nodes.members.len()), (Standing::Leaving, "", 5));
    assert_ne!(old.name, "n4");
    let nodes = rows.order(ClusterOrder::SetWeight(called("n4"), 7)).unwrap();
    assert_eq!(nodes.concerned.unwrap().id, NodeId(444));
}

#[test]
fn a_row_without_a_name_waits_for_who_comes_from_its_address() {
    let mut rows = Rows::founded();
    let expected = Member { name: String::new(), standing: Standing::Draining, ..member(4) };
    rows.order(ClusterOrder::Join(expected.clone())).unwrap();
    let second = Member { id: NodeId(5), ..expected.clone() };
    assert!(matches!(rows.order(ClusterOrder::Join(second)), Err(OrderRefused::AddressTaken(_))));
    assert!(matches!(
        rows.order(ClusterOrder::Undrain(Which::Id(NodeId(4)))),
        Err(OrderRefused::Unfit { .. })
    ));
    let comes = Member { id: NodeId(6), ..member(4) };
    let nodes = rows.order(ClusterOrder::Join(comes)).unwrap();
    assert_eq!((nodes.concerned, nodes.members.len()), (Some(member(4)), 4));
}

#[test]
fn draining_and_leaving_end_in_the_standing_that_was_ordered() {
    let mut rows = Rows::founded();
    let refused = rows.order(drain("n1"));
    assert!(matches!(refused, Err(OrderRefused::TooFew { left: 2, replicas: 3, .. })), "{refused:?}");
    rows.order(ClusterOrder::Join(member(4))).unwrap();
    rows.order(drain("n1")).unwrap();
    rows.order(drain("1")).unwrap();
    assert_eq!(rows.standing(1), Standing::Draining);
    rows.order(ClusterOrder::Undrain(called("n1"))).unwrap();
    assert_eq!(rows.standing(1), Standing::Active);
    rows.order(remove("n1", false)).unwrap();
    assert_eq!(rows.standing(1), Standing::Leaving);
    assert!(matches!(rows.order(drain("n1")), Err(OrderRefused::Unfit { .. })));
    assert!(matches!(rows.order(remove("n2", false)), Err(OrderRefused::TooFew { left: 2, .. })));
    rows.order(remove("n2", true)).unwrap();
    rows.order(remove("n3", true)).unwrap();
    assert!(matches!(rows.order(remove("n4", true)), Err(OrderRefused::LastActive(_))));
    assert_eq!(rows.order(drain("n9")), Err(OrderRefused::NotFound(called("n9"))));
}

#[test]
fn one_that_holds_nothing_may_always_go() {
    let mut rows = Rows::founded();
    rows.order(ClusterOrder::Join(member(4))).unwrap();
    rows.set_standing(3, Standing::Lost);
    rows.set_standing(2, Standing::Lost);
    rows.order(remove("n4", false)).unwrap();
    assert!(matches!(rows.order(drain("n3")), Err(OrderRefused::Unfit { .. })));
    assert!(matches!(rows.order(ClusterOrder::Undrain(called("n3"))), Err(OrderRefused::Unfit { .. })));
}

#[test]
fn a_replacement_must_be_there_and_another() {
    let mut rows = Rows::founded();
    let replace = |by: &str| ClusterOrder::Replace { member: called("n1"), by: called(by) };
    assert!(matches!(rows.order(replace("n4")), Err(OrderRefused::NotFound(_))));
    assert!(matches!(rows.order(replace("n1")), Err(OrderRefused::Unfit { .. })));
    rows.order(ClusterOrder::Join(member(4))).unwrap();
    rows.set_standing(4, Standing::Lost);
    assert!(matches!(rows.order(replace("n4")), Err(OrderRefused::Unfit { .. })));
    rows.set_standing(4, Standing::Active);
    rows.order(replace("n4")).unwrap();
    assert_eq!((rows.standing(1), rows.standing(4)), (Standing::Leaving, Standing::Active));
}

#[test]
fn weight_zone_and_address_are_changed_where_they_make_sense() {
    let mut rows = Rows::founded();
    let nodes = rows.order(ClusterOrder::SetWeight(called("n2"), 5)).unwrap();
    assert_eq!(nodes.concerned.unwrap().weight, 5);
    assert!(matches!(rows.order(ClusterOrder::SetWeight(called("n2"), 0)), Err(OrderRefused::Senseless(_))));
    let set = |peer: &str| ClusterOrder::SetPeer(called("n2"), peer.to_owned());
    assert!(matches!(rows.order(set("10.0.0.3:2380")), Err(OrderRefused::AddressTaken(_))));
    assert!(matches!(rows.order(set("10.0.0.3")), Err(OrderRefused::Senseless(_))));
    let nodes = rows.order(set("10.0.0.9:2380")).unwrap();
    assert_eq!(nodes.member(NodeId(2)).unwrap().peer, "10.0.0.9:2380");
    assert_eq!(nodes.members.len(), 3);
}
