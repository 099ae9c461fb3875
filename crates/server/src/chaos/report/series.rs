//! How much was answered, and how fast, second by second; of a long run, over steps of more seconds, so that there is an end to how many there are.

use crate::chaos::OWN_CLIENT;
use quorate_checker::calls::{Call, Outcome};
use quorate_checker::model::says_changed;
use quorate_types::Request;
use serde_json::{Value, json};

const SECOND: u64 = 1_000_000;
/// A run of forty minutes has them second by second.
const STEPS_MAX: u64 = 2_400;

/// How long calls took. Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latency {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

/// What ended within one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Acknowledged, and something was changed.
    pub(super) writes: u32,
    pub(super) reads: u32,
    pub(super) refused: u32,
    pub(super) unknown: u32,
    /// Of all answered calls that may write, whether they did or not.
    pub(super) write: Option<Latency>,
    /// Of answered reads that are linearizable.
    pub(super) read: Option<Latency>,
}

/// All steps of a run, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// How long a step is, in microseconds.
    pub(super) step: u64,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Write,
    Read,
}

impl Series {
    /// Of what ended before `elapsed`.
    pub(super) fn of(calls: &[Call], elapsed: u64) -> Self {
        let step = SECOND * elapsed.div_ceil(SECOND * STEPS_MAX).max(1);
        let mut steps = vec![Step::default(); elapsed.div_ceil(step) as usize];
        let mut took: Vec<(u32, Class, u64)> = Vec::with_capacity(calls.len());
        for call in calls.iter().filter(|call| call.answered < elapsed) {
            let at = (call.answered / step) as u32;
            let of = &mut steps[at as usize];
            let is_read = is_read(&call.request);
            match &call.outcome {
                Outcome::Reply(_, answer) if says_changed(answer) => of.writes += 1,
                Outcome::Reply(..) => of.reads += u32::from(is_read),
                Outcome::Refused(_) => of.refused += 1,
                Outcome::Unknown(_) => of.unknown += 1,
            }
            // Our own calls are about everything at once.
            let is_clients = call.client != OWN_CLIENT && call.reply().is_some();
            let class = if is_read { Class::Read } else { Class::Write };
            if is_clients && (!is_read || call.is_linearizable() && !is_of_past(&call.request)) {
                took.push((at, class, call.answered.saturating_sub(call.asked)));
            }
        }
        took.sort_unstable();
        for run in took.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (at, class, _) = run[0];
            let of = &mut steps[at as usize];
            let latency = Some(latency(run));
            match class {
                Class::Write => of.write = latency,
                Class::Read => of.read = latency,
            }
        }
        Self { step, steps }
    }

    /// How much more than a second a step is.
    pub(super) fn seconds(&self) -> f64 {
        self.step as f64 / SECOND as f64
    }

    pub(super) fn json(&self) -> Value {
        let latency = |latency: Option<Latency>| {
            latency.map(|latency| json!({"p50": latency.p50, "p99": latency.p99, "max": latency.max}))
        };
        let step = |step: &Step| {
            json!({
                "writes": step.writes,
                "reads": step.reads,
                "refused": step.refused,
                "unknown": step.unknown,
                "write_us": latency(step.write),
                "read_us": latency(step.read),
            })
        };
        json!({"step_ms": self.step / 1000, "steps": self.steps.iter().map(step).collect::<Vec<_>>()})
    }
}

fn is_read(request: &Request) -> bool {
    request.is_read_only()
}

fn is_of_past(request: &Request) -> bool {
    matches!(request, Request::Range(range) if range.revision.is_some())
}

/// Of calls in the order of how long they took, of which there are some.
fn latency(sorted: &[(u32, Class, u64)]) -> Latency {
    // The least that so many of a hundred took no longer than.
    let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1].2;
    Latency { p50: at(50), p99: at(99), max: at(100) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{get, put};
    use super::*;

    #[test]
    fn what_ends_within_a_second_counts_there() {
        let mut calls = vec![get(1, 100, SECOND + 100), put(1, 0, 7), put(OWN_CLIENT, 0, 500)];
        calls.push(Call { outcome: Outcome::Unknown("late".into()), ..put(1, 0, 2 * SECOND - 1) });
        calls.push(Call { outcome: Outcome::Refused("no".into()), ..put(1, 0, 5) });
        // After the end.
        calls.push(put(1, 0, 3 * SECOND));
        let series = Series::of(&calls, 2 * SECOND + 1);
        assert_eq!((series.step, series.steps.len()), (SECOND, 3));
        let write = Some(Latency { p50: 7, p99: 7, max: 7 });
        assert_eq!(series.steps[0], Step { writes: 2, refused: 1, write, ..Step::default() });
        let read = Some(Latency { p50: SECOND, p99: SECOND, max: SECOND });
        assert_eq!(series.steps[1], Step { reads: 1, unknown: 1, read, ..Step::default() });
        assert_eq!(series.steps[2], Step::default());
    }

    #[test]
    fn parts_of_a_hundred_are_the_least_that_so_many_stay_below() {
        let check = |count: u64, expected: (u64, u64, u64)| {
            let calls: Vec<Call> = (1..=count).map(|at| put(1, 0, at)).collect();
            let Latency { p50, p99, max } = Series::of(&calls, SECOND).steps[0].write.unwrap();
            assert_eq!((p50, p99, max), expected, "of {count}");
        };
        check(1, (1, 1, 1));
        check(2, (1, 2, 2));
        check(100, (50, 99, 100));
        check(1_000, (500, 990, 1_000));
    }

    #[test]
    fn a_long_run_has_longer_steps_and_none_has_none() {
        let day = Series::of(&[put(1, 0, 86_399 * SECOND)], 86_400 * SECOND);
        assert_eq!((day.step, day.steps.len()), (36 * SECOND, 2_400));
        assert_eq!(day.steps[2_399].writes, 1);
        assert!(Series::of(&[], 0).steps.is_empty());
    }
}
