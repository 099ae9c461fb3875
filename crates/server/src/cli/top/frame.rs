//! A snapshot as lines that fit a terminal: the nodes, what is wrong or busy among the partitions, and what happened last.

use super::durations::Pace;
use super::snapshot::{Group, Node, Snapshot};
use crate::cli::columns::{counted, fit, grouped};
use crate::cli::status;
use std::cmp::Reverse;

/// What happened, and when.
pub(super) type Event = (String, String);

/// Lines of what happened, where there is room.
const EVENTS_SHOWN: usize = 6;
const BAR: usize = 9;
/// From so many columns on there is more to each node.
const WIDE: usize = 105;

/// At most `height` lines of at most `width` columns. `events` come oldest first, and the newest are shown.
pub(super) fn frame(snapshot: &Snapshot, events: &[Event], width: usize, height: usize) -> Vec<String> {
    let mut lines = head(snapshot);
    let is_wide = width >= WIDE;
    lines.push(String::new());
    let room = height.saturating_sub(lines.len());
    let happened = events.len().min(EVENTS_SHOWN).min(room / 5);
    let room = room.saturating_sub(if happened > 0 { happened + 1 } else { 0 });
    // Half the room is for nodes, and what partitions leave.
    let left = room.saturating_sub(snapshot.partitions.len() + 2);
    let nodes = table(
        node_head(is_wide),
        snapshot.nodes.iter().map(|node| node_line(node, is_wide)),
        left.max(room / 2),
    );
    let room = room.saturating_sub(nodes.len() + 1);
    lines.extend(nodes);
    lines.push(String::new());
    let busiest = snapshot.partitions.iter().map(|group| group.entries_per_second).fold(0.0, f64::max);
    lines.extend(table(group_head(), sorted(snapshot).map(|group| group_line(group, busiest)), room));
    if happened > 0 {
        lines.push(String::new());
        lines.extend(events[events.len() - happened..].iter().map(|(when, what)| format!("{when}  {what}")));
    }
    lines.truncate(height);
    lines.into_iter().map(|line| fit(line.trim_end(), width)).collect()
}

/// What counts, in three lines.
fn head(snapshot: &Snapshot) -> Vec<String> {
    let heard = snapshot.nodes.iter().filter(|node| node.problem.is_none()).count();
    let rate = snapshot.partitions.iter().fold(0.0, |sum, group| sum + group.entries_per_second);
    let count = |what: &str, is: fn(&Group) -> bool| match snapshot
        .partitions
        .iter()
        .filter(|group| is(group))
        .count()
    {
        0 => String::new(),
        count => format!(", {count} {what}"),
    };
    let troubles = [
        count("without a leader", |group| group.leader.is_none()),
        count("with a replica unheard", |group| group.heard < group.replicas),
        count("being moved", |group| group.target.is_some()),
        count("being split", |group| group.child.is_some()),
    ];
    let watches = snapshot.nodes.iter().fold(0.0, |sum, node| sum + node.watches);
    vec![
        format!(
            "{heard} of {} heard; {} entries/s; {watches:.0} watches",
            counted(snapshot.nodes.len(), "node"),
            thousands(rate)
        ),
        format!("writes: {}; reads: {}", pace(snapshot.writes), pace(snapshot.reads)),
        format!("{}{}", counted(snapshot.partitions.len(), "partition"), troubles.concat()),
    ]
}

fn pace(pace: Option<Pace>) -> String {
    let Some(Pace { per_second, p50_millis, p99_millis }) = pace else { return "none".to_owned() };
    format!("{}/s, p50 {p50_millis:.1} ms, p99 {p99_millis:.1} ms", thousands(per_second))
}

/// The p99.
fn slowest(pace: Option<Pace>) -> String {
    pace.map_or("-".to_owned(), |pace| format!("{:.1} ms", pace.p99_millis))
}

/// Rows under a head in so many lines; the last says how many there are besides.
fn table(head: String, rows: impl ExactSizeIterator<Item = String>, room: usize) -> Vec<String> {
    let count = rows.len();
    let shown = if count < room { count } else { room.saturating_sub(2) };
    let mut lines: Vec<String> = std::iter::once(head).chain(rows.take(shown)).collect();
    if shown < count {
        lines.push(format!("and {} more", count - shown));
    }
    lines.truncate(room);
    lines
}

fn node_head(is_wide: bool) -> String {
    let head = format!(
        "{:<9} {:<7} {:<8} {:>5} {:>5} {:>9} {:>6} {:>5} {:>8} {:>8}",
        "NODE", "ZONE", "STATE", "LEADS", "HOLDS", "ENTRIES/S", "LAG", "CPU", "MEMORY", "STORE"
    );
    if is_wide { format!("{head} {:>10} {:>10}", "P99 WRITES", "P99 READS") } else { head }
}

fn node_line(node: &Node, is_wide: bool) -> String {
    let zone = if node.zone.is_empty() { "-" } else { &node.zone };
    let (name, zone) = (fit(&node.name, 9), fit(zone, 7));
    let (state, leads, holds) = (node.state(), node.leads, node.holds);
    if let Some(problem) = &node.problem {
        return format!("{name:<9} {zone:<7} {state:<8} {leads:>5} {holds:>5} {problem}");
    }
    let line = format!(
        "{name:<9} {zone:<7} {state:<8} {leads:>5} {holds:>5} {:>9} {:>6} {:>4.0}% {:>8} {:>8}",
        thousands(node.entries_per_second),
        node.lag,
        node.cpu_percent,
        status::size(node.resident_bytes as i64),
        status::size(node.store_bytes as i64),
    );
    if is_wide { format!("{line} {:>10} {:>10}", slowest(node.writes), slowest(node.reads)) } else { line }
}

/// The worst first, then the busiest.
fn sorted(snapshot: &Snapshot) -> impl ExactSizeIterator<Item = &Group> {
    let mut groups: Vec<&Group> = snapshot.partitions.iter().collect();
    // Below one entry a second none is busier than another: the order shall stay.
    groups.sort_by_key(|group| (Reverse(group.trouble()), Reverse(group.entries_per_second as u64)));
    groups.into_iter()
}

fn group_head() -> String {
    format!(
        "{:<16} {:<10} {:>5} {:>9} {:<width$} {:>8} {:>6}  {}",
        "PARTITION",
        "LEADER",
        "TERM",
        "ENTRIES/S",
        "",
        "REPLICAS",
        "LAG",
        "UNDER WAY",
        width = BAR
    )
}

fn group_line(group: &Group, busiest: f64) -> String {
    let bar = (group.entries_per_second / busiest.max(1.0) * BAR as f64).round() as usize;
    let target = group.target.as_ref().map(|target| format!("to {}", target.join(", ")));
    let split = group.child.map(|child| format!("split, {child} to come"));
    let under_way: Vec<String> = target.into_iter().chain(split).collect();
    format!(
        "{:<16} {:<10} {:>5} {:>9} {:<width$} {:>8} {:>6}  {}",
        fit(&group.name(), 16),
        fit(group.leader.as_deref().unwrap_or("none"), 10),
        group.term,
        thousands(group.entries_per_second),
        "█".repeat(bar.min(BAR)),
        format!("{}/{}", group.heard, group.replicas),
        group.lag,
        under_way.join("; "),
        width = BAR
    )
}

/// A rate, with its thousands told apart.
fn thousands(rate: f64) -> String {
    grouped(rate.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::{answer, look};
    use super::*;

    #[test]
    fn a_small_cluster_at_a_glance() {
        let before = look(0.0, vec![answer("a", &[("a", 1, 10, 10), ("b", 1, 10, 10), ("a", 1, 7, 7)])]);
        let mut now =
            look(1.0, vec![answer("a", &[("a", 1, 1_244, 1_244), ("b", 1, 627, 600), ("", 2, 7, 7)])]);
        now.answers.push(("node-b".into(), Err("refused".into())));
        let snapshot = Snapshot::of(&before, &now, None);
        let events = [("10:00:00".to_owned(), "default/2: no leader".to_owned())];
        let expected = "\
1 of 3 nodes heard; 1,851 entries/s; 3 watches
writes: none; reads: none
3 partitions, 1 without a leader, 3 with a replica unheard

NODE      ZONE    STATE    LEADS HOLDS ENTRIES/S    LAG   CPU   MEMORY    STORE
node-a    z       ok           1     3     1,234     27    0%   47 MiB 1907 MiB
node-b    z       silent       1     3 refused
node-c    z       silent       0     3 its address is not known

PARTITION        LEADER      TERM ENTRIES/S           REPLICAS    LAG  UNDER WAY
default/2        none           2         0                1/3      0
default/0        node-a         1     1,234 █████████      1/3      0
default/1        node-b         1       617 █████          1/3     27

10:00:00  default/2: no leader";
        assert_eq!(frame(&snapshot, &events, 96, 30).join("\n"), expected);
        let pace = |p99_millis| Some(Pace { per_second: 1_500.0, p50_millis: 0.5, p99_millis });
        let mut snapshot = Snapshot { writes: pace(2.25), ..snapshot };
        snapshot.nodes[0].reads = pace(1.0);
        let lines = frame(&snapshot, &events, 120, 30);
        assert_eq!(lines[1], "writes: 1,500/s, p50 0.5 ms, p99 2.2 ms; reads: none");
        assert!(lines[4].ends_with("STORE P99 WRITES  P99 READS"), "{lines:?}");
        assert!(lines[5].ends_with("1907 MiB          -     1.0 ms"), "{lines:?}");
    }

    #[test]
    fn it_fits_every_terminal() {
        let partitions: Vec<(&str, u64, u64, u64)> =
            (0..300).map(|at| (["a", "b", ""][at % 3], 1, at as u64, 0)).collect();
        let mut now = look(1.0, vec![answer("a", &partitions), answer("b", &partitions)]);
        let Ok(a) = &mut now.answers[0].1 else { unreachable!() };
        a.ring.revision = 2;
        let member = a.ring.members[0].clone();
        a.ring.members.extend((0..40).map(|at| crate::services::ring::MemberTold {
            name: format!("a-long-name-{at}"),
            id: format!("{at}f"),
            ..member.clone()
        }));
        let snapshot = Snapshot::of(&Default::default(), &now, None);
        let events: Vec<Event> =
            (0..50).map(|at| ("10:00:00".into(), format!("event {at}, {}", "long".repeat(40)))).collect();
        for width in (0..200).step_by(7) {
            for height in 0..100 {
                let lines = frame(&snapshot, &events, width, height);
                assert!(lines.len() <= height, "{} lines of {height}", lines.len());
                assert!(lines.iter().all(|line| line.chars().count() <= width));
            }
        }
        let lines = frame(&snapshot, &events, 100, 40);
        assert_eq!(lines.len(), 40);
        assert!(lines[39].contains("event 49"), "{lines:?}");
        assert!(
            lines.iter().any(|line| line == "and 27 more")
                || lines.iter().any(|line| line.ends_with(" more"))
        );
        // With room for all, all are there.
        let lines = frame(&snapshot, &events, 100, 1_000);
        assert!(!lines.iter().any(|line| line.ends_with(" more")));
        assert_eq!(lines.len(), 3 + 1 + 44 + 1 + 301 + 1 + EVENTS_SHOWN);
    }
}
