//! A picture as SVG: the slots as a ring, a band for leaders around bands for the other replicas, and the nodes with what they hold
//! against their shares. A zone is a hue, a node a shade of it.
//!
//! The picture is one file without scripts, fonts or links; what people called things is escaped. The same input gives the same bytes.
//! Of what would be, only what changes is in full colour.

mod panel;
mod ring;

use super::colours;
use super::picture::{Figures, Partition, Picture};
use super::what_if::WhatIf;
use crate::cli::columns::{counted, fit};
use crate::cli::markup::{ALARM, FAINT, GREY, INK, MOVING, escaped, number};
use quorate_placement::NodeId;
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1_000.0;
const CENTRE: (f64, f64) = (332.0, 412.0);
/// Where what stands on the left begins, and what stands on the right ends.
const LEFT: f64 = 36.0;
const RIGHT: f64 = 968.0;

/// The cluster as it is or, if something is asked for, as it would be.
pub(crate) fn picture(now: &Picture, what_if: Option<&WhatIf>) -> String {
    let shown = what_if.map_or(now, |what_if| &what_if.after);
    let figures = shown.figures();
    let colours = colours::of(&shown.nodes);
    let paint = Paint { picture: shown, colours: &colours };
    let mut panel = String::new();
    let end = panel::panel(&mut panel, &paint, &figures, now, what_if);
    let height = (end + 56.0).max(CENTRE.1 + ring::RADII.1 + 118.0);

    let mut svg = String::new();
    let title = escaped(&shown.name);
    let _ = write!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" font-family="system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif" font-size="13" fill="{INK}">
<title>The ring of keyspace {title}</title>
<defs>
<pattern id="lost" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#f5f5f5"/><rect width="2.5" height="6" fill="#9aa5b1"/></pattern>
</defs>
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
"##,
        height = number(height),
    );
    head(&mut svg, shown, what_if);
    ring::scale(&mut svg, shown);
    ring::ring(&mut svg, &paint, &figures, what_if);
    middle(&mut svg, shown, &figures, what_if);
    svg.push_str(&panel);
    legend(&mut svg, height, &figures, shown, what_if.is_some());
    svg.push_str("</svg>\n");
    svg
}

/// What fills a node's part of a band.
struct Paint<'a> {
    picture: &'a Picture,
    colours: &'a BTreeMap<NodeId, String>,
}

impl Paint<'_> {
    fn of(&self, id: NodeId) -> &str {
        let is_there = self.picture.nodes.iter().any(|node| node.id == id && node.is_there());
        match self.colours.get(&id) {
            Some(colour) if is_there => colour,
            _ => "url(#lost)",
        }
    }

    /// Who holds a partition, the leader first and the others in the order of the nodes.
    fn holders(&self, partition: &Partition) -> Vec<NodeId> {
        let place = |id: &NodeId| self.picture.nodes.iter().position(|node| node.id == *id);
        let mut holders = partition.row.replicas.clone();
        let rank = |id: &NodeId| (Some(*id) != partition.row.leader, place(id).unwrap_or(usize::MAX), *id);
        holders.sort_by_key(rank);
        holders
    }
}

fn head(svg: &mut String, picture: &Picture, what_if: Option<&WhatIf>) {
    let _ = writeln!(
        svg,
        r#"<text x="{LEFT}" y="52" font-size="26" font-weight="600">{}</text>"#,
        escaped(&picture.name)
    );
    let _ = writeln!(
        svg,
        r#"<text x="{LEFT}" y="76" fill="{GREY}">{} × {} · {} in {}</text>"#,
        counted(picture.partitions.len(), "partition"),
        counted(picture.replicas, "replica"),
        counted(picture.nodes.len(), "node"),
        counted(picture.zones(), "zone"),
    );
    if let Some(what_if) = what_if {
        let words = match what_if.changes.is_empty() {
            true => "if the planner had its way".into(),
            false => format!("if {}", what_if.words()),
        };
        let _ = writeln!(
            svg,
            r#"<text x="{RIGHT}" y="52" font-size="15" font-style="italic" text-anchor="end">{}</text>"#,
            escaped(&fit(&words, 84))
        );
    }
}

/// What counts, in the middle of the ring.
fn middle(svg: &mut String, picture: &Picture, figures: &Figures, what_if: Option<&WhatIf>) {
    let mut line = |y: f64, size: u32, fill: &str, text: &str| {
        let _ = writeln!(
            svg,
            r#"<text x="{}" y="{}" font-size="{size}" fill="{fill}" text-anchor="middle">{text}</text>"#,
            number(CENTRE.0),
            number(CENTRE.1 + y)
        );
    };
    match what_if {
        Some(what_if) => {
            let of: usize = picture.partitions.iter().map(|partition| partition.row.replicas.len()).sum();
            line(-6.0, 44, INK, &what_if.replicas_moved.to_string());
            line(18.0, 13, GREY, &format!("of {} move", counted(of, "replica")));
            if what_if.replicas_moved > 0 {
                line(36.0, 13, GREY, &what_if.least_words());
            }
        }
        None => {
            let percent = |milli: u64| format!("{}.{} %", milli / 10, milli % 10);
            line(-40.0, 13, GREY, "the fullest node has");
            line(2.0, 38, INK, &percent(figures.replicas.most_per_mille));
            line(24.0, 13, GREY, "of its fair share,");
            line(42.0, 13, GREY, &format!("the emptiest {}", percent(figures.replicas.least_per_mille)));
        }
    }
    match figures.under_replicated.len() {
        0 => {}
        count => line(66.0, 13, ALARM, &format!("{count} under-replicated")),
    }
}

/// What colours and lines mean.
fn legend(svg: &mut String, height: f64, figures: &Figures, picture: &Picture, is_what_if: bool) {
    let mut line = |y: f64, text: &str| {
        let y = number(height - y);
        let _ = writeln!(svg, r#"<text x="{LEFT}" y="{y}" font-size="12" fill="{GREY}">{text}</text>"#);
    };
    line(46.0, "Outer band: who leads. Inner bands: the other replicas. Slots run clockwise from the top.");
    line(
        28.0,
        match is_what_if {
            true => "Full colour: what changes. Dashed: what a node has now.",
            false => {
                "A node's bar: its replicas, with a line at its fair share; thin and grey: partitions it leads."
            }
        },
    );
    let mut x = panel::LEFT;
    let mut key = |colour: &str, text: &str| {
        let y = height - 28.0;
        let _ = writeln!(
            svg,
            r#"<rect x="{}" y="{}" width="11" height="11" rx="2.5" fill="{colour}"/><text x="{}" y="{}" font-size="12" fill="{GREY}">{text}</text>"#,
            number(x),
            number(y - 10.0),
            number(x + 17.0),
            number(y)
        );
        x += 34.0 + text.len() as f64 * 6.8;
    };
    if !figures.under_replicated.is_empty() {
        key(ALARM, "under-replicated");
    }
    if !figures.moving.is_empty() {
        key(MOVING, "being moved");
    }
    if picture.nodes.iter().any(|node| !node.is_there()) {
        key("url(#lost)", "lost");
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::{cluster, nine};
    use super::*;
    use crate::services::ring::StandingTold;
    use quorate_placement::Move;

    /// The names of all elements; every one is closed by its own name, and text stands in what is closed.
    fn elements(svg: &str) -> Vec<String> {
        let (mut open, mut all) = (Vec::new(), Vec::new());
        let mut rest = svg;
        while let Some((text, tagged)) = rest.split_once('<') {
            assert!(!text.contains('>'), "{text}");
            let (tag, after) = tagged.split_once('>').unwrap();
            rest = after;
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match (tag.strip_prefix('/'), tag.strip_suffix('/')) {
                (Some(name), _) => assert_eq!(open.pop().as_deref(), Some(name)),
                (None, single) => {
                    let name = tag.split([' ', '/']).next().unwrap().to_owned();
                    all.push(name.clone());
                    if single.is_none() {
                        open.push(name);
                    }
                }
            }
        }
        assert_eq!((open.len(), rest.trim()), (0, ""));
        all
    }

    fn bands(svg: &str) -> usize {
        svg.split("<g id=\"ring\"").nth(1).unwrap().split("\n</g>").next().unwrap().matches("<path").count()
    }

    #[test]
    fn a_partition_has_a_band_for_each_replica() {
        let svg = picture(&nine(64), None);
        assert_eq!(bands(&svg), 64 * 3);
        assert_eq!(svg, picture(&nine(64), None));
        let names = elements(&svg);
        assert_eq!(names.iter().filter(|name| *name == "title").count(), 1 + 64);
        for zone in ["zone east", "zone north", "zone west"] {
            assert!(svg.contains(zone));
        }
    }

    #[test]
    fn one_partition_on_one_node_is_a_ring_too() {
        let svg = picture(&cluster(&[("a", "", 1)], 1, 1), None);
        elements(&svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        // A circle is two arcs, each there and back.
        let band = svg.split("<g id=\"ring\"").nth(1).unwrap();
        assert_eq!(band.split("<path").nth(1).unwrap().matches('A').count(), 4);
    }

    #[test]
    fn nothing_is_fetched_and_names_are_only_names() {
        let nasty = "<script>alert('&\"')</script>\u{1}";
        let mut now = cluster(&[(nasty, "a&b", 1), ("b", nasty, 2), ("c", "", 1)], 8, 2);
        now.name = nasty.into();
        let then = WhatIf::of(&now, vec!["add=<x>:&".parse().unwrap()], 2).unwrap();
        for svg in [picture(&now, None), picture(&now, Some(&then))] {
            let names = elements(&svg);
            assert!(
                !names.iter().any(|name| ["script", "image", "use", "style", "a"].contains(&name.as_str()))
            );
            assert_eq!(svg.matches("http").count(), 1, "only what the language is called");
            assert!(!svg.contains('\u{1}'));
        }
    }

    #[test]
    fn what_is_lost_short_or_moving_is_marked() {
        let mut now = nine(16);
        now.nodes[0].standing = StandingTold::Lost;
        now.partitions[3].target = Some(Vec::new());
        let figures = now.figures();
        let svg = picture(&now, None);
        let marks = figures.under_replicated.len() + usize::from(!figures.under_replicated.contains(&3));
        assert_eq!(bands(&svg), 16 * 3 + marks);
        assert!(svg.contains(">lost</text>") && svg.contains(">under-replicated</text>"));
    }

    #[test]
    fn of_what_would_be_only_changes_are_in_full_colour() {
        let now = nine(64);
        let then = WhatIf::of(&now, vec!["add=n10:west:1".parse().unwrap()], 3).unwrap();
        let svg = picture(&now, Some(&then));
        let leaders = then.moves.iter().filter(|change| change.leader.is_some());
        let led = |change: &&Move| change.leader.is_some_and(|leader| change.joins.contains(&leader));
        // A replica that is made and leads is in the leaders' band only.
        let full = then.replicas_moved + then.leaders_moved - leaders.filter(led).count();
        assert_eq!(bands(&svg) - svg.matches("opacity=\"0.22\"").count(), full);
        assert!(svg.contains("stroke-dasharray"));
    }
}
