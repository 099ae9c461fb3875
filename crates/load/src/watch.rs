//! One writer, many watchers: how long an event takes from the writer's hand to each watcher.
//!
//! Every watcher watches all that the writer writes, over a stream of its own, and has to be told of every write once and in order, or the run fails. A value says when
//! it was due, in nanoseconds since the beginning, and how many were written before it.

use crate::Failure;
use crate::calls;
use crate::exchange::Exchange;
use crate::line::Line;
use crate::load::Load;
use crate::lock;
use crate::measure::{Observer, look_on};
use crate::method;
use crate::pace::Pace;
use crate::tally::{Measured, Tally};
use crate::window::{Stop, Times, Window};
use quorate_api::pb::watch_request::RequestUnion;
use quorate_api::pb::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use quorate_api::prefix_end;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// In one directory, so many keys are written in turn.
const KEYS: u64 = 100;
/// A watch that was not created by then is none.
const CREATED: Duration = Duration::from_secs(30);
/// So many watches are created at once: with all of them some servers take no connection any more.
const CREATING_MAX: usize = 64;
/// The stamps in a value: of the run, of the time, of the number.
const STAMP_BYTES: usize = 24;
/// Events of writes that were due in time are waited for so long when the time is over.
const LATE_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
/// So many writes are remembered, so that what was never told of them counts.
const WRITES_MAX: usize = 1_000_000;
/// Runs of this process, so that a write of an earlier one is told apart.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// A watch and what it was told.
struct Watcher {
    number: usize,
    stream: Exchange<WatchRequest, WatchResponse>,
}

/// What all of a run know.
#[derive(Clone)]
struct Run {
    id: u64,
    origin: Instant,
    window: Window,
    tally: Arc<Tally>,
    /// When the writes were due, in their order.
    written: Arc<Mutex<Vec<Instant>>>,
}

impl Run {
    fn remember(&self, dues: impl IntoIterator<Item = Instant>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let room = WRITES_MAX.saturating_sub(written.len());
        written.extend(dues.into_iter().take(room));
    }
}

/// Measures the fan-out.
pub(crate) async fn measure(
    lines: &[Line],
    load: &Load,
    times: Times,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<Measured, Failure> {
    // Of this run only: it is removed in the end.
    let prefix = format!("{}w-{}/", load.keys.prefix(), lock::name(&lines[0]).await?);
    let watchers = create(lines, load.clients, &prefix).await?;
    observer.prepared();
    let origin = Instant::now();
    let id = (u64::from(std::process::id()) << 32) | RUNS.fetch_add(1, Ordering::Relaxed);
    let (window, tally) = (Window::open(times, stop.clone()), Arc::new(Tally::new()?));
    let run = Run { id, origin, window, tally, written: Arc::default() };
    let told: Arc<Vec<AtomicU64>> = Arc::new((0..load.clients).map(|_| AtomicU64::new(0)).collect());
    let mut tasks = JoinSet::new();
    for watcher in watchers {
        tasks.spawn(watch(watcher, told.clone(), run.clone()));
    }
    tasks.spawn(write(lines[0].clone(), load.clone(), prefix.clone(), run.clone()));
    let ended = tokio::select! {
        ended = look_on(&run.window, &run.tally, observer) => ended,
        Some(by_itself) = tasks.join_next() => {
            by_itself??;
            return Err("the writer or a watch ended by itself".into());
        }
    };
    await_late(&run, &told).await;
    tasks.shutdown().await;
    count_untold(&run, &told);
    if let Some(deaf) = told.iter().position(|told| told.load(Ordering::Relaxed) == 0)
        && !stop.is_stopped()
    {
        return Err(format!("watcher {deaf} was told of nothing").into());
    }
    calls::remove(&lines[0], prefix.as_bytes()).await?;
    // An event's time counts from when its write was due: nothing is omitted.
    run.tally.measured(&run.window, ended, None)
}

/// Gives events that are on their way the time to arrive.
async fn await_late(run: &Run, told: &[AtomicU64]) {
    let until = Instant::now() + LATE_MAX;
    let written = run.written.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
    while told.iter().any(|told| told.load(Ordering::Relaxed) < written) && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
}

/// Events that have not arrived have taken at least until now.
fn count_untold(run: &Run, told: &[AtomicU64]) {
    let written = run.written.lock().unwrap_or_else(PoisonError::into_inner);
    for (watcher, told) in told.iter().enumerate() {
        for due in written.iter().skip(told.load(Ordering::Relaxed) as usize) {
            run.tally.unanswered(watcher, &run.window, *due);
        }
    }
}

async fn create(lines: &[Line], watchers: usize, prefix: &str) -> Result<Vec<Watcher>, Failure> {
    let mut created = Vec::with_capacity(watchers);
    let mut tasks: JoinSet<Result<Watcher, Failure>> = JoinSet::new();
    for number in 0..watchers {
        let (line, prefix) = (lines[number % lines.len()].clone(), prefix.to_owned());
        tasks.spawn(async move {
            tokio::time::timeout(CREATED, Watcher::create(line, number, &prefix))
                .await
                .map_err(|_| format!("watch {number} was not created within {} s", CREATED.as_secs()))?
        });
        if tasks.len() >= CREATING_MAX
            && let Some(watcher) = tasks.join_next().await
        {
            created.push(watcher??);
        }
    }
    while let Some(watcher) = tasks.join_next().await {
        created.push(watcher??);
    }
    Ok(created)
}

impl Watcher {
    async fn create(line: Line, number: usize, prefix: &str) -> Result<Self, Failure> {
        let key = prefix.as_bytes().to_vec();
        let range_end = prefix_end(&key).into();
        let create = WatchCreateRequest { key: key.into(), range_end, ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let mut stream = line.exchange(method::WATCH, &create).await?;
        match stream.next().await? {
            Some(answer) if answer.created && !answer.canceled => Ok(Self { number, stream }),
            _ => Err(format!("watch {number} was not created").into()),
        }
    }
}

/// Counts events until the watch ends.
async fn watch(mut watcher: Watcher, told: Arc<Vec<AtomicU64>>, run: Run) -> Result<(), Failure> {
    let mut expected = 0;
    while let Some(answer) = watcher.stream.next().await? {
        for pair in answer.events.iter().filter_map(|event| event.kv.as_ref()) {
            let words = pair.value.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word));
            let mut words = words.take(STAMP_BYTES / 8);
            let (Some(id), Some(due), Some(number)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            // What is left of an earlier run, or is removed after it.
            if id != run.id {
                continue;
            }
            if number != expected {
                let problem =
                    format!("watch {} was told of write {number}, not of {expected}", watcher.number);
                return Err(problem.into());
            }
            expected += 1;
            run.tally.succeeded(watcher.number, &run.window, run.origin + Duration::from_nanos(due));
        }
        told[watcher.number].store(expected, Ordering::Relaxed);
    }
    Ok(())
}

/// Writes until the time is over, and then waits to be ended.
async fn write(line: Line, load: Load, prefix: String, run: Run) -> Result<(), Failure> {
    let mut pace = Pace::new(load.rate, 0, 1, run.origin);
    let pace_is_open = pace.is_open();
    let filling = vec![b'v'; load.value_bytes.saturating_sub(STAMP_BYTES)];
    for number in 0u64.. {
        let due = pace.next().await;
        if run.window.is_over(Instant::now()) {
            // What was due and was not even written is not told of.
            let missed = [due].into_iter().chain(pace.missed(run.window.until.min(Instant::now())));
            run.remember(missed.filter(|due| pace_is_open && *due < run.window.until));
            std::future::pending::<()>().await;
        }
        run.remember([due]);
        let since = (due - run.origin).as_nanos() as u64;
        let mut value = [run.id, since, number].map(u64::to_be_bytes).concat();
        value.extend(&filling);
        let key = match load.keys.directories() {
            1 => format!("{prefix}{:08}", number % KEYS),
            directories => format!("{prefix}{:05}/k", number % directories),
        };
        let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        line.call(method::PUT, &put).await?;
    }
    Ok(())
}
