//! The network: what is sent is lost, repeated and late, and comes in any order. Some of it is damaged on its way: what is sent is laid out in a frame as the server does it
//! (`server/src/runtime/frames.rs`), bits of that flip, and whoever reads it finds that its checksum does not match and breaks the connection. In a quarter of
//! the runs everything goes through the codec on its way.

use super::World;
use crate::checker::Violation;
use crate::random::Random;
use quorate_node::PeerMessage;
use quorate_types::{Bytes, Decode, Encode, Incarnation, NodeId, reached};

/// More messages on their way than any load of ours explains: they answer each other without end.
const FLYING_MAX: usize = 50_000;

/// Five seconds: no message is later.
const LATE_TICKS_MAX: u64 = 250;
/// Bytes before the messages of a frame: how long they are, and their checksum.
const FRAME_HEADER: usize = 8;

/// What the wires do beside losing, repeating and delaying a little, in thousandths of messages.
#[derive(Debug)]
pub(super) struct Wire {
    /// Of its own: other runs are what they are without it.
    random: Random,
    /// Much later than the others.
    late: u64,
    late_ticks_max: u64,
    /// Damaged.
    damaged: u64,
    /// Everything is encoded and decoded.
    is_recoded: bool,
    /// Of those who exchange snapshots a row is damaged before it comes into a frame, and its checksum with it.
    spoilt_row: u64,
}

impl Wire {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7769_7265);
        let mut rate = |max: u64| if random.chance(300) { 1 + random.below(max) } else { 0 };
        let (late, damaged, spoilt_row) = (rate(60), rate(8), rate(30));
        let late_ticks_max = [20, 60, LATE_TICKS_MAX][random.below(3) as usize];
        let is_recoded = random.chance(250);
        Self { random, late, late_ticks_max, damaged, is_recoded, spoilt_row }
    }

    pub(super) fn none() -> Self {
        let random = Random::new(0);
        Self { random, late: 0, late_ticks_max: 0, damaged: 0, is_recoded: false, spoilt_row: 0 }
    }

    /// How much later than the others a message is.
    fn lateness(&mut self) -> u64 {
        if self.random.chance(self.late) { self.random.below(self.late_ticks_max) } else { 0 }
    }

    /// A bit of a snapshot's row flips in its sender's memory: no frame's checksum tells, only the row's own.
    fn spoil(&mut self, message: &mut PeerMessage) {
        let PeerMessage::SnapshotChunk { chunk, .. } = message else { return };
        if chunk.rows.is_empty() || !self.random.chance(self.spoilt_row) {
            return;
        }
        let row = self.random.below(chunk.rows.len() as u64) as usize;
        let value = &mut chunk.rows[row].value;
        let mut bytes = value.to_vec();
        let bit = self.random.below(8 * bytes.len() as u64) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        *value = bytes.into();
        reached!("snapshot-row-spoilt");
    }

    /// What is read of a frame in which bits have flipped, if anybody takes it for one.
    fn damage(&mut self, message: &PeerMessage) -> Option<PeerMessage> {
        let mut frame = vec![0; FRAME_HEADER];
        message.encode(&mut frame);
        let checksum = crc32c::crc32c(&frame[FRAME_HEADER..]);
        let length = (frame.len() - FRAME_HEADER) as u32;
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4..FRAME_HEADER].copy_from_slice(&checksum.to_le_bytes());
        for _ in 0..=self.random.below(3) {
            let bit = self.random.below(8 * frame.len() as u64) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        let word = |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let payload = frame.get(FRAME_HEADER..FRAME_HEADER.checked_add(word(0) as usize)?)?;
        (crc32c::crc32c(payload) == word(4))
            .then(|| PeerMessage::from_bytes(Bytes::copy_from_slice(payload)).ok())?
    }
}

/// A message on its way.
pub(super) struct Flying {
    due: u64,
    pub(super) from: NodeId,
    /// The disk that it was sent from.
    incarnation: Incarnation,
    pub(super) to: NodeId,
    pub(super) message: PeerMessage,
}

impl World {
    /// Puts what a node sends on its way.
    pub(super) fn send(&mut self, at: usize, messages: Vec<(NodeId, PeerMessage)>) {
        let (from, incarnation) = (self.nodes[at].id, self.nodes[at].incarnation);
        for (to, mut message) in messages {
            self.wire.spoil(&mut message);
            if self.random.chance(self.rates.loss) {
                continue;
            }
            // Requests and replies travel over one TCP connection, which repeats nothing.
            let is_call = matches!(message, PeerMessage::Request { .. } | PeerMessage::Reply { .. });
            let copies = 1 + u64::from(!is_call && self.random.chance(self.rates.repeat));
            for _ in 0..copies {
                let due = self.now + self.random.below(self.rates.delay_ticks_max) + self.wire.lateness();
                self.flying.push(Flying { due, from, incarnation, to, message: message.clone() });
            }
        }
    }

    /// The network is as good as it can be from now on: what was very late is not later than others.
    pub(super) fn heal_network(&mut self) {
        self.wire = Wire::none();
        let latest = self.now + self.rates.delay_ticks_max;
        self.flying.iter_mut().for_each(|flying| flying.due = flying.due.min(latest));
    }

    /// Who read what makes no sense closes the connection; both ends notice, and what was on its way is lost.
    fn break_connection(&mut self, from: NodeId, to: NodeId) {
        for (one, other) in [(from, to), (to, from)] {
            if let Some(running) = self.awake(one.0 as usize - 1) {
                running.host.peer_lost(other);
            }
        }
        self.flying.retain(|flying| (flying.from, flying.to) != (from, to));
    }

    /// Gives nodes what is due.
    pub(super) fn deliver(&mut self) -> Result<(), Violation> {
        let mut due = Vec::new();
        let mut at = 0;
        while at < self.flying.len() {
            if self.flying[at].due <= self.now {
                due.push(self.flying.swap_remove(at));
            } else {
                at += 1;
            }
        }
        if due.len() > FLYING_MAX {
            return Err(self.violation("messages multiply"));
        }
        while !due.is_empty() {
            let next = self.random.below(due.len() as u64) as usize;
            let flying = due.swap_remove(next);
            if self.cut.contains_key(&(flying.from, flying.to)) || self.is_muted(&flying) {
                continue;
            }
            let at = flying.to.0 as usize - 1;
            // A member whose row is there and that has not begun yet.
            if at >= self.nodes.len() {
                continue;
            }
            let is_paused = self.nodes[at].paused_until.is_some();
            if let Some(running) = self.nodes[at].running.as_mut().filter(|_| is_paused) {
                running.mail.push(flying);
                continue;
            }
            if self.wire.random.chance(self.wire.damaged) {
                match self.wire.damage(&flying.message) {
                    // Bits that flipped back, all of them.
                    Some(message) if message == flying.message => {}
                    Some(_) => return Err(self.violation("a damaged frame was taken for a whole one")),
                    None => {
                        reached!("damaged-frame-refused");
                        self.break_connection(flying.from, flying.to);
                        continue;
                    }
                }
            }
            let Flying { from, incarnation, message, .. } = flying;
            let encoded = message.encoded_vec();
            self.note(&encoded);
            let message = if self.wire.is_recoded {
                match PeerMessage::from_bytes(encoded.into()) {
                    Ok(decoded) if decoded == message => decoded,
                    other => return Err(self.violation(format!("{message:?} became {other:?} on its way"))),
                }
            } else {
                message
            };
            let Some(running) = &mut self.nodes[at].running else { continue };
            let received = running.host.receive(from, incarnation, message);
            self.settle(at, received)?;
        }
        Ok(())
    }
}
