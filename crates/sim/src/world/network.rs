//! The network: what is sent is lost, repeated and late, and comes in any order.

use super::World;
use crate::checker::Violation;
use quorate_node::PeerMessage;
use quorate_types::{Encode, Incarnation, NodeId};

/// More messages on their way than any load of ours explains: they answer each other without end.
const FLYING_MAX: usize = 50_000;

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
        for (to, message) in messages {
            if self.random.chance(self.rates.loss) {
                continue;
            }
            // Requests and replies travel over one TCP connection, which repeats nothing.
            let is_call = matches!(message, PeerMessage::Request { .. } | PeerMessage::Reply { .. });
            let copies = 1 + u64::from(!is_call && self.random.chance(self.rates.repeat));
            for _ in 0..copies {
                let due = self.now + self.random.below(self.rates.delay_ticks_max);
                self.flying.push(Flying { due, from, incarnation, to, message: message.clone() });
            }
        }
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
            let Flying { from, incarnation, message, .. } = flying;
            self.note(&message.encoded_vec());
            let Some(running) = &mut self.nodes[at].running else { continue };
            let received = running.host.receive(from, incarnation, message);
            self.settle(at, received)?;
        }
        Ok(())
    }
}
