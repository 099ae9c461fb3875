//! What people and programs are told at the end.

use super::book::Written;
use super::judge::Verdict;
use super::timeline::{Entry, acknowledged};
use quorate_checker::calls::Outcome;
use quorate_checker::watches::Told;
use serde_json::{Value, json};
use std::fmt::Write;

/// A run.
pub(super) struct Report {
    pub(super) seed: u64,
    /// Microseconds.
    pub(super) elapsed: u64,
    pub(super) timeline: Vec<Entry>,
    pub(super) written: Written,
    pub(super) verdict: Verdict,
}

/// How calls ended.
#[derive(Default)]
struct Counts {
    answered: usize,
    refused: usize,
    unknown: usize,
}

impl Report {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for call in &self.written.calls {
            match call.outcome {
                Outcome::Reply(..) => counts.answered += 1,
                Outcome::Refused(_) => counts.refused += 1,
                Outcome::Unknown(_) => counts.unknown += 1,
            }
        }
        counts
    }

    /// Streams and events of all watches.
    fn watched(&self) -> (usize, usize) {
        let told = || self.written.watched.iter().flat_map(|watched| &watched.told);
        let events = told().map(|told| match told {
            Told::Events(events) => events.len(),
            _ => 0,
        });
        (told().filter(|told| matches!(told, Told::Opened(_))).count(), events.sum())
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let acknowledged = acknowledged(&self.written.calls);
        for entry in &self.timeline {
            // Writing into a string does not fail.
            let _ = writeln!(text, "{}", entry.text(&acknowledged));
        }
        let counts = self.counts();
        let (streams, events) = self.watched();
        let seconds = self.elapsed as f64 / 1e6;
        let _ = writeln!(
            text,
            "seed {}, {seconds:.0} s, {} rounds of faults: {} calls answered, {} refused, {} unknown ({} of them carried out); {} writes acknowledged, {} revisions; \
             {} audits; {} leases granted, keys of {} went with them; {events} events over {streams} streams of {} watches",
            self.seed,
            self.timeline.len(),
            counts.answered,
            counts.refused,
            counts.unknown,
            self.verdict.unknown_carried_out,
            acknowledged.len(),
            self.verdict.revisions,
            self.verdict.audits,
            self.written.leases.len(),
            self.verdict.leases_ended,
            self.written.watched.len(),
        );
        for violation in &self.verdict.violations {
            let _ = writeln!(text, "VIOLATION: {violation}");
        }
        if self.verdict.violations.is_empty() {
            text.push_str("nothing wrong\n");
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let acknowledged = acknowledged(&self.written.calls);
        let counts = self.counts();
        let (streams, events) = self.watched();
        let violation = |violation: &quorate_checker::Violation| json!({"what": violation.what, "evidence": violation.evidence});
        json!({
            "seed": self.seed,
            "elapsed_ms": self.elapsed / 1000,
            "is_right": self.verdict.violations.is_empty(),
            "violations": self.verdict.violations.iter().map(violation).collect::<Vec<_>>(),
            "rounds": self.timeline.iter().map(|entry| entry.json(&acknowledged)).collect::<Vec<_>>(),
            "calls": {
                "answered": counts.answered,
                "refused": counts.refused,
                "unknown": counts.unknown,
                "unknown_carried_out": self.verdict.unknown_carried_out,
            },
            "writes_acknowledged": acknowledged.len(),
            "revisions": self.verdict.revisions,
            "audits": self.verdict.audits,
            "leases": {"granted": self.written.leases.len(), "ended": self.verdict.leases_ended},
            "watches": {"count": self.written.watched.len(), "streams": streams, "events": events},
        })
    }
}
