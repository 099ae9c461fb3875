//! A run as a page to look at: one file, which fetches nothing and needs no script but for looking closer. What people, nodes and errors called things is escaped.

use super::Report;
use super::figures::Figures;
use super::lanes::ROUNDS_MAX;
use super::timeline::{timeline, times};
use crate::chaos::lives::Condition;
use crate::cli::columns::{counted, grouped};
use crate::cli::markup::escaped;
use std::collections::BTreeSet;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Violations that are shown with their evidence.
const VIOLATIONS_MAX: usize = 100;
/// Lines of evidence of each.
const EVIDENCE_MAX: usize = 60;

pub(super) fn page(report: &Report, figures: &Figures) -> String {
    let mut page = String::new();
    let (picture, left_out) = timeline(report, figures);
    // Writing into a string does not fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>quorate chaos, seed {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        report.seed
    );
    head(&mut page, report, figures);
    violations(&mut page, report, figures);
    page.push_str("<h2>What happened</h2>\n");
    tools(&mut page);
    page.push_str(&picture);
    legend(&mut page, report);
    let marked = report.lives.left_out + report.leaders.left_out;
    if marked > 0 {
        let _ =
            writeln!(page, "<p>{marked} times of nodes and leaders were not kept: there were too many.</p>");
    }
    if !left_out.is_empty() {
        let what = escaped(&left_out.join(", "));
        let _ =
            writeln!(page, "<p>Of this picture are left out: {what}. <code>report.json</code> has them.</p>");
    }
    rounds(&mut page, report, figures);
    page.push_str(
        "<h2>Files beside this one</h2>\n<p><a href=\"report.json\">report.json</a>: all of this for programs. <a href=\"report.txt\">report.txt</a>: in words. \
         <code>history.jsonl</code>: every call with its answer, for other checkers, unless it was written elsewhere.</p>\n",
    );
    let _ = write!(page, "<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

fn head(page: &mut String, report: &Report, figures: &Figures) {
    let (class, verdict) = match report.verdict.violations.len() {
        0 => ("verdict", "nothing wrong".to_owned()),
        count => ("verdict bad", counted(count, "violation")),
    };
    let seconds = report.elapsed as f64 / 1e6;
    let _ = writeln!(
        page,
        "<h1>quorate chaos <span class=\"grey\">seed {}</span></h1>\n<p><span class=\"{class}\">{verdict}</span> \
         <span class=\"grey\">in {seconds:.0} s with {} at work</span></p>\n<div class=\"top\">\n<div>\n<div class=\"cards\">",
        report.seed,
        counted(report.lives.nodes.len(), "node"),
    );
    let longest = figures.gaps.iter().max_by_key(|(from, until)| until - from);
    let longest = longest.map_or("under 500 ms".into(), |(from, until)| millis(until - from));
    let mut card = |figure: String, of: &str| {
        let _ = writeln!(page, "<div class=\"card\"><b>{figure}</b>{of}</div>");
    };
    card(grouped(report.timeline.len() as u64), "rounds of faults");
    card(grouped(figures.counts.answered as u64), "calls answered");
    card(grouped(figures.acknowledged.len() as u64), "writes acknowledged");
    let unknown = format!("unknown, {} of them carried out", report.verdict.unknown_carried_out);
    card(grouped(figures.counts.unknown as u64), &unknown);
    card(grouped(figures.counts.refused as u64), "refused");
    card(longest, "longest time without an acknowledged write");
    card(grouped(report.verdict.revisions as u64), "revisions checked");
    card(grouped(report.verdict.audits as u64), "counts of the bank");
    let leases = format!("leases; keys of {} went with them", report.verdict.leases_ended);
    card(grouped(report.written.leases.len() as u64), &leases);
    let streams = format!("watched events, over {} streams", figures.watched.0);
    card(grouped(figures.watched.1 as u64), &streams);
    let _ = writeln!(
        page,
        "</div>\n<p class=\"grey\">The same faults once more; when they meet what the nodes do differs from run to run:</p>\n<pre>{}</pre>\n</div>",
        escaped(&report.command)
    );
    kinds(page, report, figures);
    page.push_str("</div>\n");
}

fn violations(page: &mut String, report: &Report, figures: &Figures) {
    let violations = &report.verdict.violations;
    if violations.is_empty() {
        return;
    }
    page.push_str("<h2>What is wrong</h2>\n");
    for (at, (violation, moment)) in violations.iter().zip(&figures.moments).enumerate().take(VIOLATIONS_MAX)
    {
        let _ = write!(page, "<div class=\"violation\"><b>{}</b>", escaped(&violation.what));
        if let Some((from, until)) = moment {
            let (a, b) = (from / 1000, until / 1000);
            let when = if from == until {
                format!("{:.1} s", *from as f64 / 1e6)
            } else {
                times(*from, Some(*until))
            };
            let _ = write!(page, " <a href=\"#wrong-{at}\" data-a=\"{a}\" data-b=\"{b}\">{when}</a>");
        }
        if !violation.evidence.is_empty() {
            let shown: Vec<String> =
                violation.evidence.iter().take(EVIDENCE_MAX).map(|line| escaped(line)).collect();
            let _ = write!(page, "\n<pre>{}</pre>", shown.join("\n"));
        }
        page.push_str("</div>\n");
    }
    if violations.len() > VIOLATIONS_MAX {
        let more = violations.len() - VIOLATIONS_MAX;
        let _ = writeln!(page, "<p>{more} more are in <code>report.json</code>.</p>");
    }
}

fn tools(page: &mut String) {
    page.push_str("<div class=\"tools\" hidden>");
    for (does, shown) in
        [("all", "whole run"), ("in", "closer"), ("out", "wider"), ("back", "←"), ("on", "→")]
    {
        let _ = write!(page, "<button data-move=\"{does}\">{shown}</button>");
    }
    page.push_str(
        "<span class=\"grey\">Drag over a time to see it closer, double-click for the whole run, Shift and the wheel for both. Whatever is pointed at says what it is.</span></div>\n",
    );
}

/// What colours mean, of those that occur.
fn legend(page: &mut String, report: &Report) {
    page.push_str("<div class=\"legend\">");
    let mut entry = |class: &str, text: &str| {
        let _ = write!(page, "<span><i class=\"{class}\"></i>{text}</span>");
    };
    let seen: BTreeSet<Condition> =
        report.lives.nodes.iter().flat_map(|life| &life.spans).map(|span| span.condition).collect();
    for condition in seen {
        entry(condition.name(), &format!("{}{}", condition.name(), meaning(condition)));
    }
    entry("writes", "writes acknowledged");
    entry("reads line", "reads answered");
    entry("unknown", "no answer: unknown");
    entry("refused", "refused");
    entry("p50 line", "half of the calls took no longer");
    entry("p99 line", "99 of 100");
    entry("max", "all");
    page.push_str("</div>\n<p class=\"grey\">Faults are dark until all was made well, and pale until every node served. Leaders have the colour of their node; pale where only others say so. \
         Writes are all calls that may write, reads those that are linearizable; those of the tester itself are not among the times.</p>\n");
}

fn meaning(condition: Condition) -> &'static str {
    match condition {
        Condition::Starting => " (its process runs and has not served yet)",
        Condition::Down => " (killed or stopped)",
        Condition::Paused => " (SIGSTOP)",
        Condition::Filling => " (it had lost its data)",
        Condition::Cut => " off from others",
        Condition::Deaf => " (hears nobody)",
        Condition::Mute => " (nobody hears it)",
        Condition::Partial => " (cut off from one)",
        Condition::Slow => " (far away)",
        Condition::Full => " (its disk has no space)",
        Condition::SlowDisk => " (syncs are late)",
        Condition::Hung => " (its disk stands still)",
        Condition::Failing => " (EIO)",
        Condition::Rotten => " (bits on its disk have flipped)",
        Condition::Lost => " with its data",
        Condition::Joining | Condition::Draining | Condition::Leaving => "",
    }
}

/// The worst of each kind of fault.
fn kinds(page: &mut String, report: &Report, figures: &Figures) {
    if figures.kinds.is_empty() {
        return;
    }
    page.push_str(
        "<div>\n<table>\n<tr><th>fault</th><th class=\"n\">rounds</th><th class=\"n\">nodes</th><th class=\"n\">median gap</th><th class=\"n\">worst gap</th><th>when</th>\
         <th class=\"n\">all served after</th></tr>\n",
    );
    for (kind, of_kind) in &figures.kinds {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{:.1} s</td></tr>",
            kind.name(),
            of_kind.rounds,
            of_kind.nodes,
            millis(of_kind.gap_median),
            millis(of_kind.gap_max),
            link(report, of_kind.worst),
            of_kind.recovery_max as f64 / 1e6,
        );
    }
    page.push_str("</table>\n<p class=\"grey narrow\">A gap is the longest time without any acknowledged write from the first fault of a round until all served again; faults of one round share it. \
         All served so long after all was made well, at most.</p>\n</div>\n");
}

/// To a round, on the picture.
fn link(report: &Report, round: usize) -> String {
    let Some(entry) = report.timeline.get(round) else { return String::new() };
    let (a, b) = (entry.begun / 1000, entry.served.unwrap_or(report.elapsed) / 1000);
    let when = entry.begun as f64 / 1e6;
    format!("<a href=\"#round-{round}\" data-a=\"{a}\" data-b=\"{b}\">{when:.1} s</a>")
}

fn rounds(page: &mut String, report: &Report, figures: &Figures) {
    if report.timeline.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "<h2>Rounds</h2>\n<details><summary>all {}</summary>\n<table>\n<tr><th class=\"n\">at</th><th>what was done</th><th class=\"n\">made well after</th>\
         <th class=\"n\">all served</th><th class=\"n\">gap</th></tr>",
        counted(report.timeline.len().min(ROUNDS_MAX), "round")
    );
    let seconds = |from: Option<u64>, until: Option<u64>| match (from, until) {
        (Some(from), Some(until)) => format!("{:.1} s", until.saturating_sub(from) as f64 / 1e6),
        _ => "never".into(),
    };
    for (round, entry) in report.timeline.iter().enumerate().take(ROUNDS_MAX) {
        let _ = writeln!(
            page,
            "<tr><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            link(report, round),
            escaped(&entry.what),
            seconds(Some(entry.begun), entry.healed),
            seconds(entry.healed, entry.served),
            millis(entry.gap(&figures.acknowledged, report.elapsed).0),
        );
    }
    page.push_str("</table>\n</details>\n");
}

fn millis(micros: u64) -> String {
    format!("{} ms", grouped(micros / 1000))
}
