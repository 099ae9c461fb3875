//! The nodes with what they hold and lead against their shares, by zone; and how even that is, or what moves.

use super::{ALARM, FAINT, GREY, INK, Paint, RIGHT, escaped, number};
use crate::cli::columns::fit;
use crate::cli::ring::picture::{Figures, Node, Picture, leaders, replicas};
use crate::cli::ring::text::{tenths, thousandths};
use crate::cli::ring::what_if::WhatIf;
use crate::services::ring::StandingTold;
use quorate_placement::{Balance, Load};
use std::fmt::Write;

pub(super) const LEFT: f64 = 680.0;
const TOP: f64 = 128.0;
const BAR: (f64, f64) = (792.0, 898.0);
/// Nodes of a panel with roomy lines.
pub(super) const ROOMY_MAX: usize = 20;
/// Ways from node to node that are named; the others are counted.
const FLOWS_SHOWN_MAX: usize = 9;

/// All of it; returns where it ends.
pub(super) fn panel(
    svg: &mut String,
    paint: &Paint,
    figures: &Figures,
    now: &Picture,
    what_if: Option<&WhatIf>,
) -> f64 {
    let had = what_if.map(|_| now.figures().loads);
    let y = nodes(svg, paint, figures, had.as_deref()) + 8.0;
    match what_if {
        None => balance(svg, paint.picture, figures, y),
        Some(what_if) => ways(svg, what_if, now, y),
    }
}

fn heading(svg: &mut String, y: f64, text: &str) {
    let (y, text) = (number(y), escaped(text));
    let _ = writeln!(
        svg,
        r#"<text x="{LEFT}" y="{y}" font-weight="600" font-size="12" fill="{GREY}">{text}</text>"#
    );
}

/// How even replicas and leaders are.
fn balance(svg: &mut String, picture: &Picture, figures: &Figures, mut y: f64) -> f64 {
    heading(svg, y, "of its share");
    let _ = writeln!(
        svg,
        r#"<text y="{y}" font-size="12" fill="{GREY}"><tspan x="{}">fullest</tspan><tspan x="{RIGHT}" text-anchor="end">emptiest</tspan></text>"#,
        number(LEFT + 112.0),
        y = number(y),
    );
    let mut line = |what: &str, balance: Balance, of| {
        let Some((fullest, emptiest)) = picture.extremes(figures, of) else { return };
        y += 19.0;
        let _ = writeln!(
            svg,
            r#"<text x="{LEFT}" y="{}" font-size="12"><tspan>{what}</tspan><tspan x="{}">{} {}</tspan><tspan x="{RIGHT}" text-anchor="end">{} {}</tspan></text>"#,
            number(y),
            number(LEFT + 112.0),
            thousandths(balance.most_per_mille),
            escaped(&fit(&fullest.name, 11)),
            thousandths(balance.least_per_mille),
            escaped(&fit(&emptiest.name, 11)),
        );
    };
    line("replicas", figures.replicas, replicas);
    line("leaders", figures.leaders, leaders);
    y
}

/// From whom to whom replicas go.
fn ways(svg: &mut String, what_if: &WhatIf, now: &Picture, mut y: f64) -> f64 {
    let ways = what_if.ways(now);
    if ways.is_empty() {
        return y;
    }
    heading(svg, y, "what moves");
    for (count, from, to) in ways.iter().take(FLOWS_SHOWN_MAX) {
        y += 18.0;
        let way = format!("{} → {}", fit(from, 15), fit(to, 15));
        let _ = writeln!(
            svg,
            r#"<text x="{LEFT}" y="{y}" font-size="12">{}<tspan x="{RIGHT}" text-anchor="end">{count}</tspan></text>"#,
            escaped(&way),
            y = number(y),
        );
    }
    let rest = ways.get(FLOWS_SHOWN_MAX..).unwrap_or_default();
    if !rest.is_empty() {
        y += 18.0;
        let count: usize = rest.iter().map(|(count, ..)| count).sum();
        let _ = writeln!(
            svg,
            r#"<text x="{LEFT}" y="{y}" font-size="12" fill="{GREY}">{} other ways<tspan x="{RIGHT}" text-anchor="end">{count}</tspan></text>"#,
            rest.len(),
            y = number(y),
        );
    }
    y
}

/// Every node with what it holds and leads; returns where it ends.
fn nodes(svg: &mut String, paint: &Paint, figures: &Figures, had: Option<&[Load]>) -> f64 {
    let picture = paint.picture;
    let step = if picture.nodes.len() <= ROOMY_MAX { 25.0 } else { 16.0 };
    let most = |of: fn(&Load) -> (u64, u64)| {
        let loads = figures.loads.iter().chain(had.into_iter().flatten()).map(of);
        loads.map(|(load, fair)| (load * 1_000).max(fair)).max().unwrap_or(0).max(1) as f64
    };
    let most_replicas = most(replicas);
    let most_leaders = most(leaders);
    let mut y = TOP;
    let mut last_zone = None;
    for (node, load) in picture.nodes.iter().zip(&figures.loads) {
        if last_zone != Some(&node.zone) {
            if last_zone.is_some() {
                y += step * 0.5;
            }
            let zone =
                if node.zone.is_empty() { "no zone".into() } else { format!("zone {}", fit(&node.zone, 34)) };
            heading(svg, y, &zone);
            y += step * 0.45 + 9.0;
            last_zone = Some(&node.zone);
        }
        let had = had.map(|had| had.iter().find(|had| had.node == node.id).map_or(0, |had| had.replicas));
        node_line(svg, paint, node, load, had, (most_replicas, most_leaders), y, step);
        y += step;
    }
    y
}

#[allow(clippy::too_many_arguments)] // A line of a table is as many things.
fn node_line(
    svg: &mut String,
    paint: &Paint,
    node: &Node,
    load: &Load,
    had: Option<u64>,
    (most_replicas, most_leaders): (f64, f64),
    y: f64,
    step: f64,
) {
    let (left, right) = BAR;
    let width = |milli: u64, most: f64| milli as f64 / most * (right - left);
    let (colour, size) = (paint.of(node.id), if step > 20.0 { 13 } else { 11 });
    let of = match node.standing {
        StandingTold::Active if node.weight == 1 => String::new(),
        StandingTold::Active => format!("×{}", node.weight),
        standing => standing.word().into(),
    };
    let of_colour = if node.standing == StandingTold::Lost { ALARM } else { GREY };
    let taken = if of.is_empty() { 0 } else { of.chars().count() + 1 };
    let name_room = if step > 20.0 { 12_usize } else { 14 }.saturating_sub(taken).max(4);
    let _ = write!(
        svg,
        r##"<rect x="{LEFT}" y="{}" width="11" height="11" rx="2.5" fill="{colour}"/><text x="{}" y="{}" font-size="{size}">{}<tspan dx="5" fill="{of_colour}" font-size="11">{of}</tspan></text>"##,
        number(y - 10.0),
        number(LEFT + 18.0),
        number(y),
        escaped(&fit(&node.name, name_room)),
    );
    let held = width(load.replicas * 1_000, most_replicas);
    let _ = write!(
        svg,
        r##"<rect x="{left}" y="{top}" width="{full}" height="8" rx="1.5" fill="{FAINT}" opacity="0.6"/><rect x="{left}" y="{top}" width="{}" height="8" rx="1.5" fill="{colour}"/>"##,
        number(held),
        top = number(y - 10.0),
        full = number(right - left),
    );
    if step > 20.0 {
        let led = width(load.leaders * 1_000, most_leaders);
        let _ = write!(
            svg,
            r#"<rect x="{left}" y="{}" width="{}" height="2.5" rx="1" fill="{INK}" opacity="0.55"/>"#,
            number(y),
            number(led)
        );
    }
    if let Some(had) = had {
        let _ = write!(
            svg,
            r#"<rect x="{left}" y="{}" width="{}" height="8" rx="1.5" fill="none" stroke="{INK}" stroke-width="0.9" stroke-dasharray="2.5 2"/>"#,
            number(y - 10.0),
            number(width(had * 1_000, most_replicas)),
        );
    }
    if load.replicas_fair_milli > 0 {
        let share = left + width(load.replicas_fair_milli, most_replicas);
        let _ = write!(
            svg,
            r#"<path d="M{x} {}V{}" stroke="{INK}" stroke-width="1.4"/>"#,
            number(y - 12.5),
            number(y + 0.5),
            x = number(share),
        );
    }
    let _ = writeln!(
        svg,
        r#"<text x="{RIGHT}" y="{}" font-size="11" text-anchor="end">{}<tspan dx="4" fill="{GREY}">/ {}</tspan></text>"#,
        number(y - 1.0),
        load.replicas,
        tenths(load.replicas_fair_milli),
    );
}
