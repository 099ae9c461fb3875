//! The ring of slots: a band for leaders around bands for the other replicas, with marks where something is wrong or under way.

use super::{ALARM, CENTRE, FAINT, GREY, MOVING, Paint, escaped, number};
use crate::cli::columns::counted;
use crate::cli::ring::picture::{Figures, Partition, Picture};
use crate::cli::ring::what_if::WhatIf;
use quorate_placement::Move;
use quorate_types::SLOTS;
use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::fmt::Write;

/// Where the bands begin and end, from the centre.
pub(super) const RADII: (f64, f64) = (112.0, 254.0);
/// How much wider the leaders' band is than another.
const LEADER_BAND: f64 = 1.5;
/// Partitions of a picture that has their numbers at the ring.
const NUMBERED_MAX: usize = 64;
/// Slots of a partition that has room for its number.
const NUMBERED_SLOTS_MIN: u32 = 120;

/// Slots' numbers around the ring, and partitions' where there is room.
pub(super) fn scale(svg: &mut String, picture: &Picture) {
    for eighth in 0..8_u16 {
        let slot = eighth * (SLOTS / 8);
        let (from, to) = (point(f64::from(slot), RADII.1 + 22.0), point(f64::from(slot), RADII.1 + 28.0));
        let at = point(f64::from(slot), RADII.1 + 36.0);
        let anchor = match eighth {
            0 | 4 => "middle",
            1..=3 => "start",
            _ => "end",
        };
        let _ = writeln!(
            svg,
            r#"<path d="M{} {}L{} {}" stroke="{GREY}" stroke-width="1"/><text x="{}" y="{}" font-size="11" fill="{GREY}" text-anchor="{anchor}" dominant-baseline="central">{slot}</text>"#,
            number(from.0),
            number(from.1),
            number(to.0),
            number(to.1),
            number(at.0),
            number(at.1),
        );
    }
    if picture.partitions.len() > NUMBERED_MAX {
        return;
    }
    for partition in &picture.partitions {
        for [first, last] in &partition.ranges {
            if u32::from(last - first) + 1 < NUMBERED_SLOTS_MIN {
                continue;
            }
            let (x, y) = point((f64::from(*first) + f64::from(*last) + 1.0) / 2.0, RADII.1 + 13.0);
            let _ = writeln!(
                svg,
                r#"<text x="{}" y="{}" font-size="10" fill="{GREY}" text-anchor="middle" dominant-baseline="central">{}</text>"#,
                number(x),
                number(y),
                partition.id
            );
        }
    }
}

/// Every partition's bands. The outer one is pale where nobody is known to lead.
pub(super) fn ring(svg: &mut String, paint: &Paint, figures: &Figures, what_if: Option<&WhatIf>) {
    let picture = paint.picture;
    let bands = picture.partitions.iter().map(|partition| partition.row.replicas.len()).max().unwrap_or(0);
    let bands = bands.max(picture.replicas);
    let unit = (RADII.1 - RADII.0) / (LEADER_BAND + (bands - 1).max(1) as f64);
    let gap = if picture.partitions.len() > 256 { 0.25 } else { 0.75 };
    let changed: BTreeMap<usize, &Move> = what_if
        .into_iter()
        .flat_map(|what_if| &what_if.moves)
        .map(|change| (change.partition, change))
        .collect();
    let _ = writeln!(svg, r##"<g id="ring" stroke="#ffffff" stroke-width="{gap}">"##);
    for (at, partition) in picture.partitions.iter().enumerate() {
        let is_faint =
            |is_changed: &dyn Fn(&Move) -> bool| !changed.get(&at).is_some_and(|change| is_changed(change));
        let _ = write!(svg, "<g><title>{}</title>", escaped(&words(picture, partition)));
        let holders = paint.holders(partition);
        let mut outer = RADII.1;
        for place in 0..bands {
            let radii = (outer - if place == 0 { LEADER_BAND * unit } else { unit }, outer);
            outer = radii.0;
            let Some(id) = holders.get(place) else {
                band(svg, partition, radii, FAINT, true);
                continue;
            };
            let leads = partition.row.leader == Some(*id);
            let faint = match what_if {
                None => place == 0 && !leads,
                Some(_) if place == 0 => is_faint(&|change| change.leader.is_some()),
                Some(_) => is_faint(&|change| change.joins.contains(id)),
            };
            band(svg, partition, radii, paint.of(*id), faint);
        }
        if figures.under_replicated.contains(&at) {
            band(svg, partition, (RADII.1 + 1.0, RADII.1 + 5.0), ALARM, false);
        } else if partition.target.is_some() {
            band(svg, partition, (RADII.1 + 1.0, RADII.1 + 5.0), MOVING, false);
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</g>\n");
}

/// What a pointer over a partition is told.
fn words(picture: &Picture, partition: &Partition) -> String {
    let leader = partition.row.leader.map_or("nobody".into(), |leader| picture.name_of(leader));
    let holders: Vec<String> = partition.row.replicas.iter().map(|id| picture.name_of(*id)).collect();
    let slots = counted(partition.slots() as usize, "slot");
    format!("partition {}, {slots}: {leader} leads; on {}", partition.id, holders.join(", "))
}

/// A partition's slots between two radii.
fn band(svg: &mut String, partition: &Partition, radii: (f64, f64), fill: &str, is_faint: bool) {
    let mut path = String::new();
    for [first, last] in &partition.ranges {
        let (first, end) = (f64::from(*first), f64::from(*last) + 1.0);
        // An arc that ends where it begins would be none.
        let pieces = if end - first > f64::from(SLOTS) / 2.0 { 2 } else { 1 };
        for piece in 0..pieces {
            let bound = |at: i32| first + (end - first) * f64::from(at) / f64::from(pieces);
            sector(&mut path, bound(piece), bound(piece + 1), radii);
        }
    }
    let opacity = if is_faint { r#" opacity="0.22""# } else { "" };
    let _ = write!(svg, r#"<path fill="{fill}"{opacity} d="{path}"/>"#);
}

fn sector(path: &mut String, first: f64, end: f64, (inner, outer): (f64, f64)) {
    let corners = [point(first, outer), point(end, outer), point(end, inner), point(first, inner)];
    let [a, b, c, d] = corners.map(|(x, y)| format!("{} {}", number(x), number(y)));
    let (inner, outer) = (number(inner), number(outer));
    let _ = write!(path, "M{a}A{outer} {outer} 0 0 1 {b}L{c}A{inner} {inner} 0 0 0 {d}Z");
}

/// Where a slot is: the first at the top, the others clockwise.
fn point(slot: f64, radius: f64) -> (f64, f64) {
    let angle = slot / f64::from(SLOTS) * TAU;
    (CENTRE.0 + radius * angle.sin(), CENTRE.1 - radius * angle.cos())
}
