//! The calls of clients: asked at any node, and answered once.

use super::{World, members};
use crate::checker::Violation;
use crate::clients::{self, Ask, Call, Outcome};
use quorate_node::{Grant, IfBehind, Reach, Ticket};
use quorate_partition::ReadError;
use quorate_types::{Answer, KeyspaceId, Rejection, Reply, Request, Revision};

/// More are read as a large range is.
const PAIRS_IF_SMALL: usize = 3;

const CALLS_OPEN_MAX: usize = 8;

impl World {
    /// Some client asks something, now and then.
    pub(super) fn make_calls(&mut self) -> Result<(), Violation> {
        self.read_inboxes()?;
        let at = self.random.below(self.nodes.len() as u64) as usize;
        let is_free =
            self.nodes[at].running.as_ref().is_some_and(|running| running.open.len() < CALLS_OPEN_MAX);
        if !is_free
            || !self.is_called(at)
            || self.now < self.lull_until
            || !self.random.chance(self.rates.calls / 4)
        {
            return Ok(());
        }
        let number = self.calls.len();
        let ask = clients::draw(&mut self.random, number as u64, self.history.newest());
        self.call(at, ask)
    }

    pub(super) fn call(&mut self, at: usize, ask: Ask) -> Result<(), Violation> {
        let number = self.calls.len();
        self.step += 1;
        self.calls.push(Call {
            ask,
            asked: self.step,
            asked_tick: self.now,
            answered: None,
            answered_tick: None,
            outcome: None,
        });
        let node = &mut self.nodes[at];
        let Some(running) = &mut node.running else { return Ok(()) };
        running.open.insert(Ticket(number as u64), number);
        if node.paused_until.is_some() {
            running.inbox.push(number);
            return Ok(());
        }
        self.begin_call(at, number)
    }

    /// Gives a node that woke up the calls that waited for it, now or a little later.
    fn read_inboxes(&mut self) -> Result<(), Violation> {
        for at in 0..self.nodes.len() {
            let is_waiting = self.awake(at).is_some_and(|running| !running.inbox.is_empty());
            if is_waiting && self.random.chance(500) {
                let Some(running) = self.awake(at) else { continue };
                for number in std::mem::take(&mut running.inbox) {
                    self.begin_call(at, number)?;
                }
            }
        }
        Ok(())
    }

    fn begin_call(&mut self, at: usize, number: usize) -> Result<(), Violation> {
        let ask = self.calls[number].ask.clone();
        let Some(running) = self.awake(at) else { return Ok(()) };
        let ticket = Ticket(number as u64);
        let asked = match ask {
            Ask::Request(request) => running.host.request(ticket, KeyspaceId::DEFAULT, request),
            Ask::Read(read) => {
                running.host.barrier(ticket, KeyspaceId::DEFAULT, vec![read.range], IfBehind::AskLeaders)
            }
        };
        self.settle(at, asked)
    }

    /// A request has its reply, or an order of the operator's.
    pub(super) fn replied(
        &mut self,
        at: usize,
        ticket: Ticket,
        outcome: Result<Reply, Rejection>,
    ) -> Result<(), Violation> {
        if members::is_order(ticket) {
            return Ok(());
        }
        let orders = self.nodes[at].running.as_mut().map(|running| &mut running.orders);
        if orders.is_some_and(|orders| orders.answered(ticket, &outcome)) {
            return Ok(());
        }
        let outcome = match outcome {
            Ok(reply) => {
                self.history.reach(reply.revision);
                let is_read =
                    matches!(self.calls.get(ticket.0 as usize), Some(Call { ask: Ask::Read(_), .. }));
                match reply.answer {
                    Answer::Range(answer) if is_read => Outcome::Read(reply.revision, answer),
                    _ => Outcome::Reply(reply),
                }
            }
            Err(rejection) => Outcome::Rejected(rejection),
        };
        self.answer(at, ticket, outcome)
    }

    /// A read may go on, or not.
    pub(super) fn granted(
        &mut self,
        at: usize,
        ticket: Ticket,
        grant: Result<Grant, Rejection>,
    ) -> Result<(), Violation> {
        let outcome = match grant {
            Ok(grant) if grant.reach != Reach::Here => {
                // Some of it is on other nodes only: those that have it answer.
                let Some(Call { ask: Ask::Read(read), .. }) = self.calls.get(ticket.0 as usize) else {
                    return Err(self.violation(format!("{ticket:?} reads what nobody asked for")));
                };
                let request = Request::Range(read.clone());
                let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
                let asked = running.host.request(ticket, KeyspaceId::DEFAULT, request);
                return self.settle(at, asked);
            }
            Ok(grant) => {
                self.history.reach(grant.revision);
                self.read(at, ticket, grant.revision)?
            }
            Err(rejection) => Outcome::Rejected(rejection),
        };
        self.answer(at, ticket, outcome)
    }

    fn read(&mut self, at: usize, ticket: Ticket, newest: Revision) -> Result<Outcome, Violation> {
        let Some(Call { ask: Ask::Read(request), .. }) = self.calls.get(ticket.0 as usize) else {
            return Err(self.violation(format!("{ticket:?} was granted a read that nobody asked for")));
        };
        let reader =
            self.nodes[at].running.as_ref().and_then(|running| running.host.reader(KeyspaceId::DEFAULT));
        // As a gateway does.
        let read = reader.map(|reader| match reader.range_if_small(request, newest, PAIRS_IF_SMALL) {
            Ok(None) => reader.range(request, newest),
            Ok(Some(read)) => Ok(read),
            Err(error) => Err(error),
        });
        match read {
            Some(Ok((revision, answer))) => Ok(Outcome::Read(revision, answer)),
            Some(Err(ReadError::Rejection(rejection))) => Ok(Outcome::Rejected(rejection)),
            Some(Err(ReadError::Fault(fault))) if fault.is_damage() && self.sees_rot(at) => {
                Ok(Outcome::Rejected(Rejection::Unavailable))
            }
            Some(Err(ReadError::Fault(fault))) => {
                Err(self.violation(format!("a read of a healthy store failed: {fault}")))
            }
            None => Err(self.violation("a read was granted where there is nothing to read")),
        }
    }

    fn answer(&mut self, at: usize, ticket: Ticket, outcome: Outcome) -> Result<(), Violation> {
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let Some(number) = running.open.remove(&ticket) else {
            return Err(self.violation(format!("{ticket:?} was answered twice, or never asked")));
        };
        self.step += 1;
        self.note(format!("{number} {outcome:?}").as_bytes());
        self.calls[number].answered = Some(self.step);
        self.calls[number].answered_tick = Some(self.now);
        self.calls[number].outcome = Some(outcome);
        Ok(())
    }
}
