//! For people at a terminal.

use super::Report;
use super::figures::Figures;
use std::fmt::Write;

pub(super) fn text(report: &Report, figures: &Figures) -> String {
    let mut text = String::new();
    for entry in &report.timeline {
        // Writing into a string does not fail.
        let _ = writeln!(text, "{}", entry.text(&figures.acknowledged, report.elapsed));
    }
    let (streams, events) = figures.watched;
    let seconds = report.elapsed as f64 / 1e6;
    let _ = writeln!(
        text,
        "seed {}, {seconds:.0} s, {} rounds of faults: {} calls answered, {} refused, {} unknown ({} of them carried out); {} writes acknowledged, {} revisions; \
         {} audits; {} leases granted, keys of {} went with them; {events} events over {streams} streams of {} watches",
        report.seed,
        report.timeline.len(),
        figures.counts.answered,
        figures.counts.refused,
        figures.counts.unknown,
        report.verdict.unknown_carried_out,
        figures.acknowledged.len(),
        report.verdict.revisions,
        report.verdict.audits,
        report.written.leases.len(),
        report.verdict.leases_ended,
        report.written.watched.len(),
    );
    let concerned = figures.kinds.iter().filter(|(_, of_kind)| of_kind.nodes > 0);
    let kinds: Vec<String> =
        concerned.map(|(kind, of_kind)| format!("{} {}", kind.name(), of_kind.nodes)).collect();
    if !kinds.is_empty() {
        let _ = writeln!(text, "nodes concerned: {}", kinds.join(", "));
    }
    for violation in &report.verdict.violations {
        let _ = writeln!(text, "VIOLATION: {violation}");
    }
    if report.verdict.violations.is_empty() {
        text.push_str("nothing wrong\n");
    }
    text
}
