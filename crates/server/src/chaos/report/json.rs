//! For programs. What the fields mean: `docs/chaos.md`; they keep their names, and more may come.

use super::Report;
use super::figures::Figures;
use crate::chaos::leaders::{Group, Led};
use crate::chaos::lives::{Life, Span};
use quorate_checker::Violation;
use serde_json::{Map, Value, json};

fn millis(micros: u64) -> u64 {
    micros / 1000
}

pub(super) fn json(report: &Report, figures: &Figures) -> Value {
    let (streams, events) = figures.watched;
    let violations = report.verdict.violations.iter().zip(&figures.moments).map(violation);
    let rounds = report.timeline.iter().map(|entry| entry.json(&figures.acknowledged, report.elapsed));
    let kinds = figures.kinds.iter().map(|(kind, of_kind)| {
        let told = json!({
            "rounds": of_kind.rounds,
            "nodes": of_kind.nodes,
            "write_gap_median_ms": millis(of_kind.gap_median),
            "write_gap_max_ms": millis(of_kind.gap_max),
            "worst_round": of_kind.worst,
            "recovery_max_ms": millis(of_kind.recovery_max),
        });
        (kind.name(), told)
    });
    let gaps = figures
        .gaps
        .iter()
        .map(|(from, until)| json!({"from_ms": millis(*from), "until_ms": millis(*until)}));
    json!({
        "seed": report.seed,
        "command": report.command,
        "elapsed_ms": millis(report.elapsed),
        "is_right": report.verdict.violations.is_empty(),
        "violations": violations.collect::<Vec<_>>(),
        "rounds": rounds.collect::<Vec<_>>(),
        "kinds": kinds.collect::<Map<String, Value>>(),
        "calls": {
            "answered": figures.counts.answered,
            "refused": figures.counts.refused,
            "unknown": figures.counts.unknown,
            "unknown_carried_out": report.verdict.unknown_carried_out,
        },
        "writes_acknowledged": figures.acknowledged.len(),
        "revisions": report.verdict.revisions,
        "audits": report.verdict.audits,
        "leases": {"granted": report.written.leases.len(), "ended": report.verdict.leases_ended},
        "watches": {"count": report.written.watched.len(), "streams": streams, "events": events},
        "write_gaps": gaps.collect::<Vec<_>>(),
        "nodes": report.lives.nodes.iter().map(life).collect::<Vec<_>>(),
        "leaders": report.leaders.groups.iter().map(group).collect::<Vec<_>>(),
        "left_out": {"nodes": report.lives.left_out, "leaders": report.leaders.left_out},
        "series": figures.series.json(),
    })
}

fn violation((violation, moment): (&Violation, &Option<(u64, u64)>)) -> Value {
    json!({
        "what": violation.what,
        "evidence": violation.evidence,
        "from_ms": moment.map(|(from, _)| millis(from)),
        "until_ms": moment.map(|(_, until)| millis(until)),
    })
}

fn life(life: &Life) -> Value {
    let span = |span: &Span| {
        json!({
            "condition": span.condition.name(),
            "from_ms": millis(span.from),
            "until_ms": span.until.map(millis),
        })
    };
    json!({
        "name": life.name,
        "from_ms": millis(life.from),
        "until_ms": life.until.map(millis),
        "conditions": life.spans.iter().map(span).collect::<Vec<_>>(),
    })
}

fn group((_, group): (&(u32, u32), &Group)) -> Value {
    let led = |led: &Led| {
        json!({
            "node": led.node,
            "term": led.term,
            "own_word": led.is_own_word,
            "from_ms": millis(led.from),
            "until_ms": led.until.map(millis),
        })
    };
    json!({
        "keyspace": group.keyspace,
        "partition": group.partition,
        "led": group.led.iter().map(led).collect::<Vec<_>>(),
    })
}

/// A line for each field of an object, so that it can be looked at, and nothing is as long as it would be with a line for each number.
pub(super) fn lines(value: &Value) -> String {
    let Value::Object(fields) = value else { return format!("{value}\n") };
    let lines: Vec<String> =
        fields.iter().map(|(name, value)| format!("  {}: {value}", Value::from(name.as_str()))).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}
