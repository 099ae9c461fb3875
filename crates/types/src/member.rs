//! The nodes of a cluster, as all nodes know them.
//!
//! One row of the system keyspace for each, under [`Member::row_key`]. The founders' rows are put by the first leader of the meta group; others when
//! they join. A node is removed when nothing is placed on it any more, and its row with it; its id never comes again, because
//! a joining node draws a new one.

use crate::codec::Malformed;
use crate::{Key, NodeId, wire_enum, wire_struct};

const ROWS: &str = "members/";

/// Bytes in a name, a zone or an address; longer ones are refused.
pub const TEXT_BYTES_MAX: usize = 255;
/// Members of a cluster; one more is refused.
pub const MEMBERS_MAX: usize = 256;
/// Greatest weight of a member.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub id: NodeId,
    /// What people call it; no two members have the same.
    pub name: String,
    /// Where peers reach it.
    pub peer: String,
    /// What fails together with it: a rack, a room, a site. Empty: it is a zone of its own.
    pub zone: String,
    /// How much it shall hold in proportion to others: 1 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// What may be placed on it.
    pub standing: Standing,
}

/// What may be placed on a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its share.
    Active,
    /// Nothing: what it has is moved away.
    Draining,
    /// Nothing, and it goes when it has nothing left.
    Leaving,
    /// Nothing: it is believed to be lost, with all it has. Set by the cluster itself after the grace period, and taken back when the node is heard again.
    Lost,
}

wire_struct!(Member { id, name, peer, zone, weight, standing });
wire_enum!(Standing { 0 => Active, 1 => Draining, 2 => Leaving, 3 => Lost });

impl Member {
    /// An active one of weight 1 in a zone of its own.
    pub fn new(id: NodeId, name: impl Into<String>, peer: impl Into<String>) -> Self {
        let (name, peer) = (name.into(), peer.into());
        Self { id, name, peer, zone: String::new(), weight: 1, standing: Standing::Active }
    }

    /// Where the row of a member is stored in the system keyspace.
    pub fn row_key(id: NodeId) -> Key {
        Key::from(format!("{ROWS}{:016x}", id.0))
    }

    /// What all [`Member::row_key`]s begin with.
    pub fn rows() -> Key {
        Key::from_static(ROWS.as_bytes())
    }

    /// Whose row it is; `None` for a key that [`Member::row_key`] does not give.
    pub fn parse_row_key(key: &[u8]) -> Option<NodeId> {
        let digits = std::str::from_utf8(key.strip_prefix(ROWS.as_bytes())?).ok()?;
        let id = NodeId(u64::from_str_radix(digits, 16).ok()?);
        (Self::row_key(id) == key).then_some(id)
    }

    /// Whether it makes sense.
    pub fn validate(&self) -> Result<(), Malformed> {
        let texts = [&self.name, &self.peer, &self.zone];
        if self.id == NodeId(0) || texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(Malformed("a member's id, name, address or zone"));
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(Malformed("a member's weight"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decode, Encode};

    #[test]
    fn a_row_reads_as_it_was_written_and_its_key_names_it() {
        let mut member = Member::new(NodeId(0xab), "a", "127.0.0.1:2380");
        member.zone = "north".into();
        member.standing = Standing::Draining;
        assert_eq!(Member::from_bytes(member.encoded()), Ok(member.clone()));
        assert_eq!(Member::parse_row_key(&Member::row_key(member.id)), Some(member.id));
        assert_eq!(Member::parse_row_key(b"members/ab"), None);
        assert_eq!(Member::parse_row_key(b"nodes/00000000000000ab"), None);
        assert_eq!(member.validate(), Ok(()));
        member.weight = 0;
        assert!(member.validate().is_err());
    }
}
