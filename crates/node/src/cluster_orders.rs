//! Nodes that join, leave, and are told to hold more, less or nothing: transactions of the system keyspace.
//!
//! Pure, and in the manner of [`crate::administration`]: [`ClusterOrders`] says what to ask the system keyspace, is told the answer, and says what to
//! ask next or that it is done. It reads all members and places, and writes rows of members only if no row of a member has changed since; then it reads
//! anew, so often. So of two nodes that want one name, one is refused, and of two orders that each leave one node too few, one.
//!
//! An order only says what shall be. Who moves what follows from the rows, and may take long; when nothing is left on a
//! member that is leaving, its row goes, and that is how everybody sees that the order is carried out.
//!
//! * What joins gets an id that nobody had before. The same node may ask again, because it heard no answer or because its disk was cleared before it held
//!   anything: then its old row goes and the new id counts.
//! * A row without a name was put for a node that has not come yet (etcd's MemberAdd). Who joins from its address takes it over, id and all: nobody has used that
//!   id.
//! * A member that is lost or leaving keeps neither its name nor its address from a successor: it is renamed after its id, and goes.

mod refused;

pub use refused::OrderRefused;

use quorate_types::member::{MEMBERS_MAX, Standing, TEXT_BYTES_MAX};
use quorate_types::reply::OperationAnswer;
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    TxnRequest,
};
use quorate_types::{
    Answer, Decode, Encode, GroupId, Key, KeyRange, KeyValue, Malformed, Member, NodeId, Place, Reply,
    Request,
};
use std::fmt;

/// So often is an order tried that others get in the way of.
const ATTEMPTS_MAX: u32 = 8;

/// Which member is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one with this id.
    Id(NodeId),
    /// The one with this name; or, if there is none, with this id, in hexadecimal digits.
    Called(String),
}

/// What an operator, or a node that joins, wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterOrder {
    /// A new member. Without a name: the node that will come from this address; nothing is placed on it until it has.
    Join(Member),
    /// All of them.
    List,
    /// Move everything away from it, and nothing to it; it stays a member.
    Drain {
        /// Which.
        member: Which,
        /// Also where too few would be left to take what it has.
        is_forced: bool,
    },
    /// Let it have its share again.
    Undrain(Which),
    /// Move everything away, then forget it for good.
    Remove {
        /// Which.
        member: Which,
        /// Also where too few would be left to take what it has.
        is_forced: bool,
    },
    /// The same, because another is there to take what it has.
    Replace {
        /// Which.
        member: Which,
        /// The other.
        by: Which,
    },
    /// How much it shall hold in proportion to others.
    SetWeight(Which, u32),
    /// What fails together with it.
    SetZone(Which, String),
    /// Where peers reach it from now on.
    SetPeer(Which, String),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Called(words) => write!(f, "{}", words.escape_default()),
        }
    }
}

/// The nodes, and what is where, when an order was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// By id.
    pub members: Vec<Member>,
    /// By group.
    pub places: Vec<(GroupId, Place)>,
    /// Which member the order was about, as it is now.
    pub concerned: Option<Member>,
}

impl Nodes {
    /// The replicas that a member has or gets.
    pub fn replicas_of(&self, member: NodeId) -> usize {
        self.places.iter().filter(|(_, place)| place.holds(member)).count()
    }

    /// Of this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Where a group is.
    pub fn place(&self, group: GroupId) -> Option<&Place> {
        self.places.iter().find(|(id, _)| *id == group).map(|(_, place)| place)
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderStep {
    /// Ask this of the system keyspace.
    Ask(Request),
    /// The order stands, and so do the nodes.
    Done(Nodes),
}

/// An order on its way.
#[derive(Clone, Debug)]
pub struct ClusterOrders {
    order: ClusterOrder,
    /// What there is when the transaction that was asked for has succeeded; `None` while everything is being read.
    changing: Option<Nodes>,
    attempts: u32,
}

/// Members and places as they were read.
struct Found {
    nodes: Nodes,
    /// When a row of either kind was changed last; 0: never.
    members_modified: i64,
    places_modified: i64,
}

/// What an order makes of a member.
type Changing<'a> = &'a dyn Fn(&Found, Member) -> Result<Member, OrderRefused>;

/// What an order changes: rows to put, and rows that go.
#[derive(Default)]
struct Change {
    put: Vec<Member>,
    gone: Vec<NodeId>,
    /// It is right only while nothing is placed anew.
    depends_on_places: bool,
}

impl ClusterOrders {
    /// Begins: refuses what is wrong in itself, or says what to ask first.
    pub fn begin(order: ClusterOrder) -> Result<(Self, Request), OrderRefused> {
        match &order {
            ClusterOrder::Join(member) => check(member)?,
            ClusterOrder::SetPeer(_, peer) => check_peer(peer)?,
            _ => {}
        }
        Ok((Self { order, changing: None, attempts: 0 }, read()))
    }

    /// Takes the answer to what was asked last.
    pub fn answered(&mut self, reply: Reply) -> Result<OrderStep, OrderRefused> {
        let Answer::Txn(answer) = reply.answer else {
            return Err(Malformed("the answer to a transaction").into());
        };
        if let Some(nodes) = self.changing.take() {
            if answer.succeeded {
                return Ok(OrderStep::Done(nodes));
            }
            self.attempts += 1;
            return if self.attempts < ATTEMPTS_MAX {
                Ok(OrderStep::Ask(read()))
            } else {
                Err(OrderRefused::Contended)
            };
        }
        let mut found = Found::from(answer.responses)?;
        let change = found.change(&self.order)?;
        if change.put.is_empty() && change.gone.is_empty() {
            return Ok(OrderStep::Done(found.nodes));
        }
        let txn = found.txn(&change);
        let mut nodes = found.nodes;
        nodes.members.retain(|member| {
            let is_put = change.put.iter().any(|put| put.id == member.id);
            !is_put && !change.gone.contains(&member.id)
        });
        nodes.concerned = change.put.first().cloned();
        nodes.members.extend(change.put);
        nodes.members.sort_unstable_by_key(|member| member.id);
        self.changing = Some(nodes);
        Ok(OrderStep::Ask(Request::Txn(txn)))
    }
}

impl Found {
    fn from(answers: Vec<OperationAnswer>) -> Result<Self, Malformed> {
        let mut ranges = answers.into_iter().map(|answer| match answer {
            OperationAnswer::Range(_, answer) => Ok(answer.pairs),
            _ => Err(Malformed("the answer to a range")),
        });
        let mut next = || ranges.next().unwrap_or(Err(Malformed("two ranges")));
        let (members, places) = (next()?, next()?);
        let mut nodes = Nodes::default();
        for pair in &members {
            if Member::parse_row_key(&pair.key).is_some() {
                nodes.members.push(Member::from_bytes(pair.value.clone())?);
            }
        }
        for pair in &places {
            if let Some(group) = Place::parse_row_key(&pair.key) {
                nodes.places.push((group, Place::from_bytes(pair.value.clone())?));
            }
        }
        Ok(Self { nodes, members_modified: newest(&members), places_modified: newest(&places) })
    }

    fn txn(&self, change: &Change) -> TxnRequest {
        let mut compares = vec![unchanged_since(Member::rows(), self.members_modified)];
        if change.depends_on_places {
            compares.push(unchanged_since(Place::rows(), self.places_modified));
        }
        let put = |member: &Member| {
            let (key, value) = (Member::row_key(member.id), Some(member.encoded()));
            Operation::Put(PutRequest { key, value, lease: PutLease::Detach, previous: false })
        };
        let delete = |id: &NodeId| {
            let range = KeyRange::Single(Member::row_key(*id));
            Operation::DeleteRange(DeleteRequest { range, previous: false })
        };
        // A row that went away meanwhile must not come back.
        let is_there = |member: &&Member| self.nodes.member(member.id).is_some();
        compares.extend(change.put.iter().filter(is_there).map(|member| Compare {
            range: KeyRange::Single(Member::row_key(member.id)),
            result: CompareResult::Greater,
            target: CompareTarget::Version(0),
        }));
        let success = change.put.iter().map(put).chain(change.gone.iter().map(delete)).collect();
        TxnRequest { compares, success, failure: Vec::new() }
    }

    fn find(&self, which: &Which) -> Result<Member, OrderRefused> {
        let by_id = |id: &NodeId| self.nodes.member(*id);
        let found = match which {
            Which::Id(id) => by_id(id),
            Which::Called(words) => {
                let by_name = self.nodes.members.iter().find(|it| !it.name.is_empty() && it.name == *words);
                by_name.or_else(|| by_id(&NodeId(u64::from_str_radix(words, 16).ok()?)))
            }
        };
        found.cloned().ok_or_else(|| OrderRefused::NotFound(which.clone()))
    }

    fn change(&mut self, order: &ClusterOrder) -> Result<Change, OrderRefused> {
        let (which, changed): (_, Changing) = match order {
            ClusterOrder::List => return Ok(Change::default()),
            _ if self.nodes.members.is_empty() => return Err(OrderRefused::NotYet),
            ClusterOrder::Join(member) => return self.join(member),
            ClusterOrder::Drain { member, is_forced } => {
                (member, &|found, member| found.drain(member, *is_forced))
            }
            ClusterOrder::Undrain(member) => (member, &|_, member| undrain(member)),
            ClusterOrder::Remove { member, is_forced } => {
                (member, &|found, member| found.remove(member, *is_forced))
            }
            ClusterOrder::Replace { member, by } => (member, &|found, member| found.replace(member, by)),
            ClusterOrder::SetWeight(member, weight) => {
                (member, &|_, member| Ok(Member { weight: *weight, ..member }))
            }
            ClusterOrder::SetZone(member, zone) => {
                (member, &|_, member| Ok(Member { zone: zone.clone(), ..member }))
            }
            ClusterOrder::SetPeer(member, peer) => (member, &|found, member| found.set_peer(member, peer)),
        };
        let now = self.find(which)?;
        let then = changed(self, now.clone())?;
        check(&then)?;
        self.nodes.concerned = Some(then.clone());
        // An order that is given twice is carried out once.
        Ok(Change { put: if now == then { Vec::new() } else { vec![then] }, ..Change::default() })
    }

    fn join(&self, new: &Member) -> Result<Change, OrderRefused> {
        let (mut new, mut change) = (new.clone(), Change::default());
        let is_expected = |other: &Member| other.name.is_empty() && !new.name.is_empty();
        for other in self.nodes.members.iter().filter(|other| other.id != new.id) {
            let has_name = !new.name.is_empty() && other.name == new.name;
            let has_address = other.peer == new.peer;
            let is_going = matches!(other.standing, Standing::Leaving | Standing::Lost);
            let replicas = self.nodes.replicas_of(other.id);
            if !has_name && !has_address {
                continue;
            } else if has_address && is_expected(other) {
                change.gone.push(other.id);
            } else if has_name && is_going {
                change.put.push(retired(other));
            } else if has_name && has_address && replicas == 0 {
                change.gone.push(other.id);
                change.depends_on_places = true;
            } else if has_name && has_address {
                return Err(OrderRefused::HasData { member: other.clone(), replicas });
            } else if has_name {
                return Err(OrderRefused::NameTaken(other.clone()));
            } else if is_going {
                change.put.push(retired(other));
            } else {
                return Err(OrderRefused::AddressTaken(other.clone()));
            }
        }
        // The row that was put for it: nobody had its id.
        let expected = self.nodes.members.iter().find(|other| other.peer == new.peer && is_expected(other));
        if let Some(expected) = expected {
            change.gone.retain(|id| *id != expected.id);
            new.id = expected.id;
        } else if self.nodes.member(new.id).is_some() {
            return Err(OrderRefused::Contended);
        }
        if self.nodes.members.len() - change.gone.len() >= MEMBERS_MAX && expected.is_none() {
            return Err(OrderRefused::TooMany);
        }
        change.put.insert(0, new);
        Ok(change)
    }

    /// Refuses to take one from the active members if the others are too few.
    fn spare(&self, member: &Member, is_forced: bool) -> Result<(), OrderRefused> {
        let is_active = |other: &&Member| other.standing == Standing::Active && other.id != member.id;
        let left = self.nodes.members.iter().filter(is_active).count();
        // The meta group may have more voters than anything else has replicas, and does with fewer where there are fewer nodes.
        let (meta, kept): (Vec<_>, Vec<_>) =
            self.nodes.places.iter().partition(|(group, _)| *group == GroupId::META);
        let most = |places: Vec<&(GroupId, Place)>| places.iter().map(|(_, place)| place.voters.len()).max();
        let replicas = most(kept).or(most(meta)).unwrap_or(0);
        if left == 0 {
            return Err(OrderRefused::LastActive(member.clone()));
        }
        if left < replicas && self.nodes.replicas_of(member.id) > 0 && !is_forced {
            return Err(OrderRefused::TooFew { member: member.clone(), left, replicas });
        }
        Ok(())
    }

    fn drain(&self, member: Member, is_forced: bool) -> Result<Member, OrderRefused> {
        match member.standing {
            Standing::Active => self.spare(&member, is_forced)?,
            Standing::Draining => {}
            Standing::Leaving => return unfit(member, "is leaving, which drains it, too"),
            Standing::Lost => {
                let why =
                    "is lost: what it had is replaced already; quorate node remove takes it out for good";
                return unfit(member, why);
            }
        }
        Ok(Member { standing: Standing::Draining, ..member })
    }

    fn remove(&self, member: Member, is_forced: bool) -> Result<Member, OrderRefused> {
        // Nothing is placed on one that has not come.
        if member.standing != Standing::Leaving && !member.name.is_empty() {
            self.spare(&member, is_forced)?;
        }
        Ok(Member { standing: Standing::Leaving, ..member })
    }

    fn replace(&self, member: Member, by: &Which) -> Result<Member, OrderRefused> {
        let by = self.find(by)?;
        if by.id == member.id {
            return unfit(member, "cannot take its own place: name another node");
        }
        if by.standing != Standing::Active {
            return unfit(by, "is not active, so nothing can be moved to it; quorate node list shows why");
        }
        self.remove(member, false)
    }

    fn set_peer(&self, member: Member, peer: &str) -> Result<Member, OrderRefused> {
        let other = self.nodes.members.iter().find(|other| other.id != member.id && other.peer == peer);
        match other {
            Some(other) => Err(OrderRefused::AddressTaken(other.clone())),
            None => Ok(Member { peer: peer.to_owned(), ..member }),
        }
    }
}

fn undrain(member: Member) -> Result<Member, OrderRefused> {
    match member.standing {
        Standing::Lost => unfit(member, "is lost: it is active again by itself when the cluster hears it"),
        _ if member.name.is_empty() => unfit(member, "has not started yet: it is active when it has joined"),
        _ => Ok(Member { standing: Standing::Active, ..member }),
    }
}

fn unfit(member: Member, why: &'static str) -> Result<Member, OrderRefused> {
    Err(OrderRefused::Unfit { member, why })
}

/// What becomes of a member whose name or address another one gets: nobody finds it there any more.
fn retired(member: &Member) -> Member {
    let mut name = format!("{}-{}", member.name, member.id);
    if name.len() > TEXT_BYTES_MAX {
        name = member.id.to_string();
    }
    Member { name, peer: String::new(), standing: Standing::Leaving, ..member.clone() }
}

fn check(member: &Member) -> Result<(), OrderRefused> {
    let senseless = |_| {
        OrderRefused::Senseless(
            "a node's name, zone and address have 255 bytes at most, and its weight is 1 to 1000000",
        )
    };
    member.validate().map_err(senseless)?;
    if member.name.contains(['=', ',', '/']) {
        return Err(OrderRefused::Senseless("a node's name has none of = , / in it"));
    }
    let is_retired = member.peer.is_empty() && member.standing == Standing::Leaving;
    if is_retired { Ok(()) } else { check_peer(&member.peer) }
}

fn check_peer(peer: &str) -> Result<(), OrderRefused> {
    let is_right = peer.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', ',', '=']) && port.parse::<u16>().is_ok()
    });
    if is_right { Ok(()) } else { Err(OrderRefused::Senseless("a node's address is HOST:PORT")) }
}

fn newest(pairs: &[KeyValue]) -> i64 {
    let newest = pairs.iter().map(|pair| pair.modified.0).max().unwrap_or(0);
    i64::try_from(newest).unwrap_or(i64::MAX)
}

/// That no row was put since. It does not see rows that went away.
fn unchanged_since(rows: Key, modified: i64) -> Compare {
    Compare {
        range: KeyRange::prefix(rows),
        result: CompareResult::Less,
        target: CompareTarget::Modified(modified.saturating_add(1)),
    }
}

/// All members and all places. A transaction, because the leader answers it, whichever node is asked.
fn read() -> Request {
    let all = |rows| Operation::Range(RangeRequest::new(KeyRange::prefix(rows)));
    Request::Txn(TxnRequest {
        success: vec![all(Member::rows()), all(Place::rows())],
        ..TxnRequest::default()
    })
}
