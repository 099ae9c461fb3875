//! A picture as text that fits 80 columns.

use super::picture::{Figures, Node, Picture, leaders, replicas};
use super::what_if::WhatIf;
use crate::cli::columns::{counted, fit};
use crate::cli::status;
use crate::services::ring::StandingTold;
use quorate_placement::{Balance, Load};
use std::fmt::Write;

const REPLICA_BAR: usize = 16;
const LEADER_BAR: usize = 7;
/// Ways from node to node that are named; the others are counted.
const FLOWS_SHOWN_MAX: usize = 16;
/// Partitions that are named in a line.
const NAMED_MAX: usize = 12;

/// The cluster as it is.
pub(crate) fn picture(picture: &Picture) -> String {
    let figures = picture.figures();
    let mut text = String::new();
    head(&mut text, picture);
    nodes(&mut text, picture, &figures, None);
    balance(&mut text, picture, &figures);
    let mut some = |positions: &[usize], what: &str| {
        if positions.is_empty() {
            return;
        }
        let ids = named(positions.iter().map(|at| picture.partitions[*at].id.to_string()));
        wrap(&mut text, &format!("{} {what}: {ids}", counted(positions.len(), "partition")));
    };
    some(&figures.under_replicated, "under-replicated");
    some(&figures.moving, "being moved");
    text
}

/// The cluster as it would be, and the way there.
pub(super) fn what_if(now: &Picture, what_if: &WhatIf) -> String {
    let figures = what_if.after.figures();
    let mut text = String::new();
    match what_if.changes.is_empty() {
        true => text.push_str("if the planner had its way:\n"),
        false => wrap(&mut text, &format!("if {}:", what_if.words())),
    }
    head(&mut text, &what_if.after);
    nodes(&mut text, &what_if.after, &figures, Some(now));
    balance(&mut text, &what_if.after, &figures);
    let under = figures.under_replicated.len();
    if under > 0 {
        let _ = writeln!(text, "{} under-replicated: there are too few nodes", counted(under, "partition"));
    }
    text.push('\n');
    moves(&mut text, now, what_if);
    text
}

fn head(text: &mut String, picture: &Picture) {
    let _ = writeln!(
        text,
        "keyspace {}, {}: {} x {}; {} in {}",
        picture.keyspace,
        picture.name,
        counted(picture.partitions.len(), "partition"),
        counted(picture.replicas, "replica"),
        counted(picture.nodes.len(), "node"),
        counted(picture.zones(), "zone"),
    );
}

/// A line for each node: what it holds and leads, against its share. In a picture of what would be, also what it had.
fn nodes(text: &mut String, picture: &Picture, figures: &Figures, before: Option<&Picture>) {
    let _ = writeln!(
        text,
        "{:<9} {:<11} {:>8} {:<width$} LEADERS / SHARE{}",
        "ZONE",
        "NODE",
        "WEIGHT",
        "REPLICAS / SHARE",
        before.map_or("", |_| " WAS"),
        width = REPLICA_BAR + 13,
    );
    let most = |of: fn(&Load) -> (u64, u64)| {
        let fullest = figures.loads.iter().map(of).map(|(load, fair)| load.max(fair.div_ceil(1_000)));
        fullest.max().unwrap_or(0).max(1)
    };
    let (most_replicas, most_leaders) = (most(replicas), most(leaders));
    let had = before.map(Picture::figures);
    let mut last_zone = None;
    for (node, load) in picture.nodes.iter().zip(&figures.loads) {
        let zone = match (node.zone.as_str(), last_zone == Some(&node.zone)) {
            ("", _) => "-",
            (_, true) => "",
            (zone, false) => zone,
        };
        last_zone = Some(&node.zone);
        let _ = write!(text, "{:<9} {:<11} {:>8} ", fit(zone, 9), fit(&node.name, 11), weight(node));
        let ((held, fair), (led, leads)) = (replicas(load), leaders(load));
        let _ =
            write!(text, "{} {held:>4} /{:>6} ", bar(held, fair, most_replicas, REPLICA_BAR), tenths(fair));
        match (before, &had) {
            (Some(before), Some(had)) => {
                let at = before.nodes.iter().position(|known| known.id == node.id);
                let was = at.map_or("new".into(), |at| had.loads[at].replicas.to_string());
                let _ = writeln!(text, "{led:>4} /{:>6} {was:>6}", tenths(leads));
            }
            _ => {
                let bar = bar(led, leads, most_leaders, LEADER_BAR);
                let line = format!("{bar} {led:>4} /{:>5}", tenths(leads));
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
}

fn weight(node: &Node) -> String {
    match node.standing {
        StandingTold::Active => node.weight.to_string(),
        standing => standing.word().to_owned(),
    }
}

fn balance(text: &mut String, picture: &Picture, figures: &Figures) {
    let mut line = |what: &str, balance: Balance, of| {
        let Some((fullest, emptiest)) = picture.extremes(figures, of) else { return };
        let _ = writeln!(
            text,
            "{what}: fullest {} of its share ({}), emptiest {} ({})",
            thousandths(balance.most_per_mille),
            fit(&fullest.name, 11),
            thousandths(balance.least_per_mille),
            fit(&emptiest.name, 11),
        );
    };
    line("replicas", figures.replicas, replicas);
    line("leaders", figures.leaders, leaders);
    if picture.nodes.iter().all(|node| node.standing != StandingTold::Active) {
        text.push_str("no node may be given anything\n");
    }
    text.push_str("█ held   ░ short of its share   ▓ above it\n");
}

fn moves(text: &mut String, now: &Picture, what_if: &WhatIf) {
    let replicas: usize = what_if.after.partitions.iter().map(|partition| partition.row.replicas.len()).sum();
    let bytes = match what_if.bytes {
        Some(bytes) => format!(" ({})", status::size(i64::try_from(bytes).unwrap_or(i64::MAX))),
        None => String::new(),
    };
    let moved = match what_if.replicas_moved {
        0 => "no replica has to move".to_owned(),
        moved => {
            format!("{moved} of {} move{bytes}, {}", counted(replicas, "replica"), what_if.least_words())
        }
    };
    let changes = if what_if.leaders_moved == 1 { "changes" } else { "change" };
    let sentence = format!("{moved}; {} {changes}", counted(what_if.leaders_moved, "leader"));
    wrap(text, &sentence);
    let ways = what_if.ways(now);
    for (count, from, to) in ways.iter().take(FLOWS_SHOWN_MAX) {
        let _ = writeln!(text, "  {:>11} -> {:<11} {count:>5}", fit(from, 11), fit(to, 11));
    }
    let rest = ways.get(FLOWS_SHOWN_MAX..).unwrap_or_default();
    if !rest.is_empty() {
        let count: usize = rest.iter().map(|(count, ..)| count).sum();
        let _ = writeln!(text, "  and {count} by {}; all are in -o json", counted(rest.len(), "other way"));
    }
}

/// What is held, against a share in thousandths, as a bar of `width` columns for `most`.
fn bar(held: u64, fair_milli: u64, most: u64, width: usize) -> String {
    let columns = |milli: u64| {
        // Half a column is one.
        let columns = (u128::from(milli) * width as u128 * 2 / (u128::from(most) * 1_000)).div_ceil(2);
        usize::try_from(columns).unwrap_or(width).min(width)
    };
    // Rounding a share up or down is not above or short of it.
    let is_met = (held * 1_000).abs_diff(fair_milli) < 1_000;
    let (held, fair) = (columns(held * 1_000), columns(if is_met { held * 1_000 } else { fair_milli }));
    let (full, short, above) = (held.min(fair), fair.saturating_sub(held), held.saturating_sub(fair));
    let blank = width - full - short - above;
    ["█".repeat(full), "▓".repeat(above), "░".repeat(short), " ".repeat(blank)].concat()
}

/// Thousandths with one digit behind the point.
pub(super) fn tenths(milli: u64) -> String {
    let tenths = (milli + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

pub(super) fn thousandths(milli: u64) -> String {
    format!("{}.{:03}", milli / 1_000, milli % 1_000)
}

/// Names in a row, as far as a line has room.
fn named(names: impl ExactSizeIterator<Item = String>) -> String {
    let rest = names.len().saturating_sub(NAMED_MAX);
    let names: Vec<String> = names.take(NAMED_MAX).collect();
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    names.join(", ") + &rest
}

/// A sentence, broken where a line is full.
fn wrap(text: &mut String, sentence: &str) {
    let mut column = 0;
    for word in sentence.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > 80 {
            text.push_str("\n  ");
            column = 2;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::{cluster, nine};
    use super::*;

    fn assert_fits(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn a_cluster_reads_as_one_line_a_node() {
        let mut picture = cluster(&[("a", "north", 1), ("b", "north", 1), ("c", "south", 2)], 8, 2);
        picture.partitions[3].row.replicas.pop();
        picture.partitions[5].target = Some(Vec::new());
        let text = super::picture(&picture);
        assert_eq!(
            text,
            "\
keyspace 1, default: 8 partitions x 2 replicas; 3 nodes in 2 zones
ZONE      NODE          WEIGHT REPLICAS / SHARE              LEADERS / SHARE
north     a                  1 ████████            4 /   4.0 ████       2 /  2.0
          b                  1 ████████            4 /   4.0 ████       2 /  2.0
south     c                  2 ██████████████░░    7 /   8.0 ███████    4 /  4.0
replicas: fullest 1.000 of its share (b), emptiest 0.875 (c)
leaders: fullest 1.000 of its share (c), emptiest 1.000 (a)
█ held   ░ short of its share   ▓ above it
1 partition under-replicated: 3
1 partition being moved: 5
"
        );
    }

    #[test]
    fn eighty_columns_are_enough() {
        let name = "a-node-whose-name-is-long";
        let nodes: Vec<(String, String, u32)> = (0..40)
            .map(|at| (format!("{name}-{at}"), format!("a-zone-with-a-name-{}", at % 5), 1_000_000 - at))
            .collect();
        let nodes: Vec<(&str, &str, u32)> =
            nodes.iter().map(|(name, zone, weight)| (name.as_str(), zone.as_str(), *weight)).collect();
        let mut now = cluster(&nodes, 1_024, 5);
        assert_fits(&super::picture(&now));
        now.partitions.iter_mut().skip(1_000).for_each(|partition| partition.target = Some(Vec::new()));
        now.nodes[3].standing = StandingTold::Draining;
        now.nodes[4].standing = StandingTold::Lost;
        assert_fits(&super::picture(&now));
        let changes = (0..6).map(|at| format!("remove={name}-{at}").parse().unwrap());
        let changes = changes.chain(["add=x:a-zone-with-a-name-1:1000000".parse().unwrap()]);
        let then = WhatIf::of(&now, changes.collect(), 5).unwrap();
        let text = what_if(&now, &then);
        assert_fits(&text);
        assert!(text.contains("all are in -o json"), "{text}");
    }

    #[test]
    fn what_would_be_says_what_moves() {
        let now = nine(256);
        let then = WhatIf::of(&now, vec!["add=n10:west:1".parse().unwrap()], 3).unwrap();
        let text = what_if(&now, &then);
        assert!(text.starts_with("if n10 joins in zone west:\n"), "{text}");
        assert!(text.contains("64 of 768 replicas move, the least there is; "), "{text}");
    }

    #[test]
    fn a_bar_shows_what_is_missing_and_what_is_too_much() {
        let check = |held, fair, expected| assert_eq!(bar(held, fair, 8, 8), expected);
        check(8, 8_000, "████████");
        check(4, 6_000, "████░░  ");
        check(8, 6_000, "██████▓▓");
        check(0, 0, "        ");
    }
}
