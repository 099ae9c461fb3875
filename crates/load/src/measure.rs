//! A load from its preparation to what came of it.

use crate::calls::Caller;
use crate::fill::fill_missing;
use crate::keepalive::{Keeper, Leases};
use crate::kind::Kind;
use crate::line::Line;
use crate::load::Load;
use crate::lock::{self, Contender};
use crate::pace::Pace;
use crate::tally::{Measured, Tally};
use crate::window::{Stop, Times, Window};
use crate::{Failure, watch};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Status;

/// After an error, so that a server that refuses everything is not asked all the time.
const AFTER_ERROR: Duration = Duration::from_millis(1);
const LOOK: Duration = Duration::from_secs(1);

/// Somebody who looks on. Every one of these is called on the task that measures, and delays what comes next.
pub trait Observer: Send {
    /// Everything is prepared; the clients begin.
    fn prepared(&mut self) {}
    /// From now on operations count.
    fn begun(&mut self) {}
    /// Another second has gone by; so many operations were answered since the clients began.
    fn second(&mut self, _answered: u64) {}
    /// No operation counts any more.
    fn ended(&mut self) {}
}

/// Nobody.
impl Observer for () {}

/// Any client that does one thing after the other.
enum Client {
    Caller(Box<Caller>),
    Keeper(Box<Keeper>),
    Contender(Box<Contender>),
}

impl Client {
    async fn operate(&mut self) -> Result<(), Status> {
        match self {
            Client::Caller(caller) => caller.call().await,
            Client::Keeper(keeper) => keeper.keep().await,
            Client::Contender(contender) => contender.cycle().await,
        }
    }
}

/// Prepares a load, lets it warm up and measures it. The clients take these connections in turn.
///
/// Leases that it makes it ends; keys stay, so that the next load finds them.
pub async fn measure(
    lines: &[Line],
    load: &Load,
    times: Times,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<Measured, Failure> {
    if lines.is_empty() || load.clients == 0 {
        return Err("a load needs a connection and a client".into());
    }
    if load.kind == Kind::Cas && (load.keys.count() as usize) < load.clients {
        return Err("compare and swap needs a key for each client".into());
    }
    if load.kind.reads() && !load.are_keys_there {
        tokio::select! {
            filled = fill_missing(lines, &load.keys, load.value_bytes) => filled?,
            () = stop.stopped() => return Err("stopped before anything was measured".into()),
        }
    }
    if load.kind == Kind::Watch {
        return watch::measure(lines, load, times, stop, observer).await;
    }
    let leases = match load.kind {
        Kind::KeepAlive => Some(Leases::grant(lines, load.leases.max(1)).await?),
        _ => None,
    };
    let clients = clients(lines, load, leases.as_ref()).await?;
    observer.prepared();
    let tally = Arc::new(Tally::new()?);
    let window = Window::open(times, stop.clone());
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let pace = Pace::new(load.rate, number, load.clients, start);
        tasks.spawn(work(client, number, pace, window.clone(), tally.clone()));
    }
    let ended = look_on(&window, &tally, observer).await;
    while let Some(client) = tasks.join_next().await {
        if let Client::Contender(contender) = client? {
            // What is not ended now ends by itself, after its time.
            let _ = contender.end().await;
        }
    }
    if let Some(leases) = leases {
        leases.revoke(lines).await?;
    }
    tally.measured(&window, ended, load.rate.is_none().then_some(load.clients))
}

async fn clients(lines: &[Line], load: &Load, leases: Option<&Leases>) -> Result<Vec<Client>, Failure> {
    let shared = Arc::new(load.clone());
    // A lock of another run's name would have contenders that are gone.
    let lock = match load.kind {
        Kind::Lock => format!("{}{}", load.keys.prefix(), lock::name(&lines[0]).await?),
        _ => String::new(),
    };
    let mut clients = Vec::with_capacity(load.clients);
    for number in 0..load.clients {
        let line = lines[number % lines.len()].clone();
        clients.push(match leases {
            Some(leases) => Client::Keeper(Box::new(Keeper::new(line, leases.clone(), number))),
            None if load.kind == Kind::Lock => {
                Client::Contender(Box::new(Contender::new(line, &lock).await?))
            }
            None => Client::Caller(Box::new(Caller::new(line, shared.clone(), number))),
        });
    }
    Ok(clients)
}

/// One client, until the window is over.
async fn work(
    mut client: Client,
    number: usize,
    mut pace: Pace,
    window: Window,
    tally: Arc<Tally>,
) -> Client {
    let (over, closed) = (window.over(), window.closed());
    tokio::pin!(over, closed);
    loop {
        let due = tokio::select! {
            biased;
            due = pace.next() => due,
            () = &mut over => break,
        };
        if window.is_over(Instant::now()) {
            // In a closed loop it was not due for anybody.
            if pace.is_open() && window.holds(due) {
                tally.unanswered(number, &window, due);
            }
            break;
        }
        let outcome = tokio::select! {
            biased;
            outcome = client.operate() => outcome,
            () = &mut closed => {
                tally.unanswered(number, &window, due);
                return client;
            }
        };
        match outcome {
            Ok(()) => tally.succeeded(number, &window, due),
            Err(status) => {
                tally.failed(number, &window, due, &status.to_string());
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
    for due in pace.missed(window.until.min(Instant::now())) {
        tally.unanswered(number, &window, due);
    }
    client
}

/// Tells the observer how it goes on; when the measurement ended.
pub(crate) async fn look_on(window: &Window, tally: &Tally, observer: &mut dyn Observer) -> Instant {
    let over = window.over();
    tokio::pin!(over);
    tokio::select! {
        biased;
        () = &mut over => {}
        () = tokio::time::sleep_until(window.from) => {}
    }
    observer.begun();
    let mut looks = tokio::time::interval_at(window.from + LOOK, LOOK);
    while !window.is_over(Instant::now()) {
        tokio::select! {
            biased;
            () = &mut over => break,
            _ = looks.tick() => observer.second(tally.answered.load(Ordering::Relaxed)),
        }
    }
    observer.ended();
    Instant::now()
}
