//! Creating, listing and deleting keyspaces, and splitting their partitions: transactions of the system keyspace.
//!
//! Pure: [`Administration`] says what to ask the system keyspace, is told the answer, and says what to ask next or that it is done. All of an order
//! is one transaction, which finds everything as it was read or changes nothing; then the order reads anew, so often.
//!
//! * A creation reads all maps and the next id, and puts the new map, the places of its groups and the id after, if the id is still the next one. Of two
//!   creations at once one finds it taken: so neither an id nor a name is given twice.
//! * A split names the child in the map, if that is still as it was read; the partition's leader does the rest (`host/splitting.rs`).
//! * A deletion removes the map's row if it is still as it was read. What follows from that is each node's own affair (`host/removal.rs`).
//!
//! An answer that is lost leaves open whether the order was carried out; the list says. Carried out again, it is refused.

use quorate_types::map::is_name;
use quorate_types::reply::OperationAnswer;
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, DeleteRequest, Operation, PutLease, PutRequest, RangeRequest,
    TxnRequest,
};
use quorate_types::{
    Answer, Decode, Encode, GroupId, Key, KeyRange, KeyValue, KeyspaceId, KeyspaceMap, Malformed, MapError,
    PartitionId, Place, Reply, Request, Rules, SplitError,
};
use std::fmt;

/// Keyspaces of a cluster; one more is refused.
pub const KEYSPACES_MAX: usize = 256;
/// So often is an order tried that others get in the way of.
const ATTEMPTS_MAX: u32 = 8;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A new keyspace.
    Create(NewKeyspace),
    /// All of them.
    List,
    /// The end of one, and of everything in it.
    Delete {
        /// Which.
        name: String,
    },
    /// One partition more: half of another's slots become its own, while it is used.
    Split {
        /// Of which keyspace.
        name: String,
        /// Which; `None`: the one with the most slots.
        partition: Option<PartitionId>,
    },
}

/// A keyspace to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKeyspace {
    /// What clients will call it.
    pub name: String,
    /// With how many partitions it begins.
    pub partitions: u32,
    /// Which keys are not placed by their directory.
    pub rules: Rules,
    /// The space it may take.
    pub quota_bytes: Option<u64>,
}

/// Why an order was not carried out. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is one of that name.
    Exists {
        /// The name.
        name: String,
    },
    /// There is none of that name.
    NotFound {
        /// The name.
        name: String,
    },
    /// The system's and the default one are always there.
    Permanent {
        /// The name.
        name: String,
    },
    /// The map that it would have is not one.
    Map(MapError),
    /// The partition cannot be split.
    Split(SplitError),
    /// A quota in which nothing fits.
    QuotaZero,
    /// [`KEYSPACES_MAX`] are there, or the ids have run out.
    TooMany,
    /// Others changed the keyspaces each time.
    Contended,
    /// What is stored is not what this version writes.
    Malformed(Malformed),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { name } => write!(f, "keyspace {name} exists already"),
            Self::NotFound { name } => write!(f, "keyspace {name} does not exist"),
            Self::Permanent { name } => {
                write!(f, "keyspace {name} is always there: it is not created or deleted")
            }
            Self::Map(error) => write!(f, "{error}"),
            Self::Split(error) => write!(f, "{error}"),
            Self::QuotaZero => write!(f, "a quota of 0 bytes would take no write; leave it out for none"),
            Self::TooMany => {
                write!(f, "a cluster has no more than {KEYSPACES_MAX} keyspaces; delete one first")
            }
            Self::Contended => {
                write!(f, "others change the keyspaces at the same time; nothing has happened, try again")
            }
            Self::Malformed(cause) => write!(f, "reading the keyspaces: {cause}"),
        }
    }
}

impl std::error::Error for Refused {}

impl From<MapError> for Refused {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<Malformed> for Refused {
    fn from(cause: Malformed) -> Self {
        Self::Malformed(cause)
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this of the system keyspace.
    Ask(Request),
    /// The order is carried out: this is what was created or deleted, or all that there are, by id.
    Done(Vec<KeyspaceMap>),
}

/// An order on its way.
#[derive(Clone, Debug)]
pub struct Administration {
    order: Order,
    /// What the transaction that was asked for does; `None` while the keyspaces are being read.
    changing: Option<KeyspaceMap>,
    attempts: u32,
}

/// The keyspaces as they were read.
struct Found {
    maps: Vec<(KeyspaceMap, KeyValue)>,
    next: KeyspaceId,
    /// When the next id was last changed; 0: never.
    next_modified: i64,
    /// Where the meta group is, and when that was last changed.
    meta: Option<(Place, i64)>,
}

impl Administration {
    /// Begins: refuses what is wrong in itself, or says what to ask first.
    pub fn begin(order: Order) -> Result<(Self, Request), Refused> {
        match &order {
            Order::Create(new) => {
                if is_permanent(&new.name) {
                    return Err(Refused::Exists { name: new.name.clone() });
                }
                if new.quota_bytes == Some(0) {
                    return Err(Refused::QuotaZero);
                }
                new.map(KeyspaceId::FIRST_CREATED)?;
            }
            Order::Delete { name } if is_permanent(name) => {
                return Err(Refused::Permanent { name: name.clone() });
            }
            Order::Delete { name } | Order::Split { name, .. } if !is_name(name) => {
                return Err(Refused::Map(MapError::Name));
            }
            Order::Split { .. } | Order::Delete { .. } | Order::List => {}
        }
        Ok((Self { order, changing: None, attempts: 0 }, read()))
    }

    /// Takes the answer to what was asked last.
    pub fn answered(&mut self, reply: Reply) -> Result<Step, Refused> {
        let Answer::Txn(answer) = reply.answer else {
            return Err(Malformed("the answer to a transaction").into());
        };
        if let Some(map) = self.changing.take() {
            if answer.succeeded {
                return Ok(Step::Done(vec![map]));
            }
            self.attempts += 1;
            return if self.attempts < ATTEMPTS_MAX {
                Ok(Step::Ask(read()))
            } else {
                Err(Refused::Contended)
            };
        }
        let pairs = answer.responses.into_iter().flat_map(|response| match response {
            OperationAnswer::Range(_, answer) => answer.pairs,
            _ => Vec::new(),
        });
        let found = Found::from(pairs)?;
        let (map, txn) = match &self.order {
            Order::List => {
                let all = found.maps.into_iter().map(|(map, _)| map);
                return Ok(Step::Done(all.collect()));
            }
            Order::Create(new) => found.create(new)?,
            Order::Delete { name } => found.delete(name)?,
            Order::Split { name, partition } => found.split(name, *partition)?,
        };
        self.changing = Some(map);
        Ok(Step::Ask(Request::Txn(txn)))
    }
}

impl NewKeyspace {
    fn map(&self, id: KeyspaceId) -> Result<KeyspaceMap, MapError> {
        KeyspaceMap::new(id, self.name.clone(), self.partitions, self.rules.clone(), self.quota_bytes)
    }
}

impl Found {
    fn from(pairs: impl Iterator<Item = KeyValue>) -> Result<Self, Malformed> {
        let mut found =
            Self { maps: Vec::new(), next: KeyspaceId::FIRST_CREATED, next_modified: 0, meta: None };
        for pair in pairs {
            if pair.key == KeyspaceMap::next_id_key() {
                found.next = KeyspaceId::from_bytes(pair.value.clone())?;
                found.next_modified = modified(&pair);
            } else if pair.key == Place::row_key(GroupId::META) {
                found.meta = Some((Place::from_bytes(pair.value.clone())?, modified(&pair)));
            } else if KeyspaceMap::parse_row_key(&pair.key).is_some() {
                found.maps.push((KeyspaceMap::from_bytes(pair.value.clone())?, pair));
            }
        }
        Ok(found)
    }

    fn by_name(&self, name: &str) -> Option<&(KeyspaceMap, KeyValue)> {
        self.maps.iter().find(|(map, _)| map.name == name)
    }

    fn create(&self, new: &NewKeyspace) -> Result<(KeyspaceMap, TxnRequest), Refused> {
        if self.by_name(&new.name).is_some() {
            return Err(Refused::Exists { name: new.name.clone() });
        }
        let after = self.next.0.checked_add(1).filter(|_| self.maps.len() < KEYSPACES_MAX);
        let after = KeyspaceId(after.ok_or(Refused::TooMany)?);
        let map = new.map(self.next)?;
        let put = |key, value| {
            let lease = PutLease::Detach;
            Operation::Put(PutRequest { key, value: Some(value), lease, previous: false })
        };
        // Its groups begin where the meta group is; if that moves meanwhile, one of its voters may be none of the cluster's any more.
        let (meta, meta_modified) = self.meta.as_ref().ok_or(Malformed("the place of the meta group"))?;
        let place = Place::new(meta.voters.clone()).encoded();
        let group = |partition| GroupId { keyspace: map.id, partition };
        let ids = map.partitions.iter().map(|partition| partition.id);
        let mut success: Vec<Operation> =
            ids.map(|partition| put(Place::row_key(group(partition)), place.clone())).collect();
        success.push(put(KeyspaceMap::next_id_key(), after.encoded()));
        success.push(put(KeyspaceMap::row_key(map.id), map.encoded()));
        let txn = TxnRequest {
            compares: vec![
                unchanged(KeyspaceMap::next_id_key(), self.next_modified),
                unchanged(Place::row_key(GroupId::META), *meta_modified),
            ],
            success,
            failure: Vec::new(),
        };
        Ok((map, txn))
    }

    fn split(
        &self,
        name: &str,
        partition: Option<PartitionId>,
    ) -> Result<(KeyspaceMap, TxnRequest), Refused> {
        let not_found = || Refused::NotFound { name: name.to_owned() };
        let (map, pair) = self.by_name(name).ok_or_else(not_found)?;
        let mut map = map.clone();
        // Of equals the one with the lowest number; one that is being split already is not it.
        let idle = map.partitions.iter().filter(|partition| partition.child().is_none());
        let largest = idle.rev().max_by_key(|partition| partition.slots.len()).map(|partition| partition.id);
        let under_way = || Refused::Split(SplitError::UnderWay(map.partitions[0].id));
        let partition = partition.or(largest).ok_or_else(under_way)?;
        map.begin_split(partition).map_err(Refused::Split)?;
        let lease = PutLease::Detach;
        let put = PutRequest { key: pair.key.clone(), value: Some(map.encoded()), lease, previous: false };
        let txn = TxnRequest {
            compares: vec![unchanged(pair.key.clone(), modified(pair))],
            success: vec![Operation::Put(put)],
            failure: Vec::new(),
        };
        Ok((map, txn))
    }

    fn delete(&self, name: &str) -> Result<(KeyspaceMap, TxnRequest), Refused> {
        let (map, pair) = self.by_name(name).ok_or_else(|| Refused::NotFound { name: name.to_owned() })?;
        let delete = |range| Operation::DeleteRange(DeleteRequest { range, previous: false });
        let places = KeyRange::prefix(Place::rows_of(map.id));
        let txn = TxnRequest {
            compares: vec![unchanged(pair.key.clone(), modified(pair))],
            success: vec![delete(KeyRange::Single(pair.key.clone())), delete(places)],
            failure: Vec::new(),
        };
        Ok((map.clone(), txn))
    }
}

fn is_permanent(name: &str) -> bool {
    matches!(name, "system" | "default")
}

fn modified(pair: &KeyValue) -> i64 {
    i64::try_from(pair.modified.0).unwrap_or(i64::MAX)
}

fn unchanged(key: Key, modified: i64) -> Compare {
    Compare {
        range: KeyRange::Single(key),
        result: CompareResult::Equal,
        target: CompareTarget::Modified(modified),
    }
}

/// All maps and the next id, which stands among them, and the place of the meta group. A transaction, because the leader answers it, whichever node is asked.
fn read() -> Request {
    let all = RangeRequest::new(KeyRange::prefix(KeyspaceMap::rows()));
    let meta = RangeRequest::new(KeyRange::Single(Place::row_key(GroupId::META)));
    let success = vec![Operation::Range(all), Operation::Range(meta)];
    Request::Txn(TxnRequest { success, ..TxnRequest::default() })
}
