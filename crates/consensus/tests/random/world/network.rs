//! The network: messages are lost, repeated and late.

use super::{Event, TICK, World};
use quorate_consensus::Message;
use quorate_types::NodeId;

impl World {
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        match &message {
            Message::VoteRequest { pre: false, term, .. } => self.invariants.votes(from, *term, from),
            Message::VoteResponse { pre: false, granted: true, term } => {
                self.invariants.votes(from, *term, to);
            }
            _ => {}
        }
        self.fly(from, to, Some(message));
    }

    pub(super) fn fly(&mut self, from: NodeId, to: NodeId, message: Option<Message>) {
        let is_lost = !self.is_healed && self.chance(self.weather.loss);
        if is_lost || self.cut.contains(&(from, to)) {
            return;
        }
        let is_repeated = !self.is_healed && self.chance(self.weather.repeat);
        let to = (to.0 - 1) as usize;
        for _ in 0..1 + u64::from(is_repeated) {
            let delay = self.delay();
            self.schedule(delay, Event::Deliver { from, to, message: message.clone() });
        }
    }

    pub(super) fn delay(&mut self) -> u64 {
        if !self.is_healed && self.chance(self.weather.late) {
            self.random.between(TICK, 50 * TICK)
        } else {
            self.random.between(0, 4)
        }
    }
}
