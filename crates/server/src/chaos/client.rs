//! A client: asks one node after the other, and writes down what it asked and was told.

use super::book::Book;
use super::wire;
use crate::cli::is_passing;
use parking_lot::RwLock;
use quorate_checker::calls::{Call, Outcome};
use quorate_consensus::random::Random;
use quorate_types::Request;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// After this an answer is given up.
const ANSWER_MAX: Duration = Duration::from_secs(3);
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// After a call that failed.
const PAUSE: Duration = Duration::from_millis(50);
/// Calls to one node before the next is asked, whatever this one says: so that some ask those that others avoid.
const CALLS_EACH_MAX: u64 = 40;

/// The nodes' names and where clients reach them; nodes come and go.
#[derive(Default)]
pub(super) struct Directory(RwLock<Vec<(String, String)>>);

impl Directory {
    pub(super) fn set(&self, nodes: Vec<(String, String)>) {
        *self.0.write() = nodes;
    }

    pub(super) fn all(&self) -> Vec<(String, String)> {
        self.0.read().clone()
    }

    /// One of them.
    fn draw(&self, random: &mut Random) -> Option<(String, String)> {
        let nodes = self.0.read();
        nodes.get(random.between(0, nodes.len() as u64) as usize).cloned()
    }
}

/// A way to a node, made when it is first used.
pub(super) fn channel_to(address: &str, answer_max: Option<Duration>) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(CONNECT_MAX).tcp_nodelay(true);
    Ok(match answer_max {
        Some(answer_max) => endpoint.timeout(answer_max).connect_lazy(),
        None => endpoint.connect_lazy(),
    })
}

/// What a call came to that was not answered.
fn outcome_of(status: &Status) -> Outcome {
    let cause = status.source().map_or(String::new(), |cause| format!(" ({cause})"));
    let words = format!("{:?}: {}{cause}", status.code(), status.message());
    if is_passing(status) { Outcome::Unknown(words) } else { Outcome::Refused(words) }
}

/// One client, which makes one call at a time.
pub(super) struct Client {
    number: u32,
    pub(super) book: Arc<Book>,
    directory: Arc<Directory>,
    pub(super) random: Random,
    /// The node whose turn it is, and how many calls it gets.
    node: Option<(String, Channel, u64)>,
}

impl Client {
    pub(super) fn new(number: u32, book: Arc<Book>, directory: Arc<Directory>, random: Random) -> Self {
        Self { number, book, directory, random, node: None }
    }

    /// The next call goes to another node.
    pub(super) async fn turn(&mut self) {
        self.node = None;
        tokio::time::sleep(PAUSE).await;
    }

    /// The node whose turn it is.
    pub(super) async fn node(&mut self) -> (String, Channel) {
        loop {
            if let Some((name, channel, calls)) = &mut self.node
                && *calls > 0
            {
                *calls -= 1;
                return (name.clone(), channel.clone());
            }
            let calls = self.random.between(1, CALLS_EACH_MAX);
            let drawn = self.directory.draw(&mut self.random);
            let drawn = drawn.and_then(|(name, address)| {
                Some((name, channel_to(&address, Some(ANSWER_MAX)).ok()?, calls))
            });
            self.node = drawn;
            if self.node.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Makes a call, once, and writes it down.
    pub(super) async fn call(&mut self, request: Request) -> Outcome {
        let (node, channel) = self.node().await;
        let outcome = self.call_at(node, channel, request).await;
        if matches!(outcome, Outcome::Unknown(_)) {
            self.turn().await;
        }
        outcome
    }

    /// The same, at a certain node.
    pub(super) async fn call_at(&self, node: String, channel: Channel, request: Request) -> Outcome {
        let asked = self.book.now();
        let answer = wire::send(channel, &self.book.prefix.request(&request)).await;
        let answered = self.book.now();
        let outcome = match answer {
            Ok((revision, answer)) => Outcome::Reply(revision, self.book.prefix.answer(answer)),
            Err(status) => outcome_of(&status),
        };
        let client = self.number;
        self.book.call(Call { client, node, request, asked, answered, outcome: outcome.clone() });
        outcome
    }
}
