//! Colours of nodes: a hue for each zone, and within a zone lighter and darker ones.

use super::picture::Node;
use quorate_placement::NodeId;
use std::collections::BTreeMap;

/// Hues that are told apart at a glance, and by most who see colours otherwise, since lightness differs, too.
const HUES: [f64; 8] = [212.0, 26.0, 148.0, 282.0, 350.0, 186.0, 46.0, 322.0];
/// Further ones: the golden angle never comes near the same place soon.
const GOLDEN_ANGLE: f64 = 137.508;
/// How far hues swing within a zone.
const SWING: f64 = 13.0;
const LIGHTNESS: (f64, f64) = (0.37, 0.73);

/// The colour of each node, as `#rrggbb`. Nodes come in their zones' order.
pub(super) fn of(nodes: &[Node]) -> BTreeMap<NodeId, String> {
    let mut colours = BTreeMap::new();
    for (zone, nodes) in nodes.chunk_by(|a, b| a.zone_key() == b.zone_key()).enumerate() {
        let hue = hue(zone);
        for (at, node) in nodes.iter().enumerate() {
            // From -1 to 1; one node alone is in the middle.
            let part = if nodes.len() == 1 { 0.0 } else { 2.0 * at as f64 / (nodes.len() - 1) as f64 - 1.0 };
            let (darkest, lightest) = LIGHTNESS;
            let lightness = (darkest + lightest) / 2.0 + part * (lightest - darkest) / 2.0;
            colours.insert(node.id, hex(hue + part * SWING, 0.6, lightness));
        }
    }
    colours
}

/// The colour of one of several nodes that are in no zones: when hues are used up they come again, darker, then lighter.
pub(crate) fn one(at: usize) -> String {
    let (darkest, lightest) = LIGHTNESS;
    let lightness = [(darkest + lightest) / 2.0, darkest, lightest][at / HUES.len() % 3];
    hex(HUES[at % HUES.len()], 0.6, lightness)
}

fn hue(at: usize) -> f64 {
    HUES.get(at).copied().unwrap_or(HUES[0] + GOLDEN_ANGLE * at as f64)
}

/// Hue in degrees, saturation and lightness from 0 to 1.
fn hex(hue: f64, saturation: f64, lightness: f64) -> String {
    let chroma = (1.0 - (2.0 * lightness - 1.0).abs()) * saturation;
    let channel = |shift: f64| {
        let sector = (hue / 60.0 + shift).rem_euclid(6.0);
        // 1 at the channel's own hue, 0 from two sectors away on.
        let near = (2.0 - (sector - 3.0).abs().min(3.0)).clamp(0.0, 1.0);
        let near = 1.0 - near;
        ((lightness - chroma / 2.0 + chroma * near) * 255.0).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(0.0), channel(4.0), channel(2.0))
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::cluster;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hues_are_hues() {
        let check = |hue, expected| assert_eq!(hex(hue, 1.0, 0.5), expected);
        check(0.0, "#ff0000");
        check(60.0, "#ffff00");
        check(120.0, "#00ff00");
        check(240.0, "#0000ff");
        check(300.0, "#ff00ff");
        check(720.0, "#ff0000");
        assert_eq!(hex(212.0, 0.0, 0.5), "#808080");
    }

    #[test]
    fn nodes_without_zones_differ_as_long_as_there_are_colours() {
        let colours: BTreeSet<String> = (0..24).map(one).collect();
        assert_eq!((colours.len(), one(24)), (24, one(0)));
    }

    #[test]
    fn nodes_differ() {
        let nodes: Vec<(String, String)> =
            (0..30).map(|at| (format!("n{at}"), format!("z{}", at % 6))).collect();
        let mut nodes: Vec<(&str, &str, u32)> =
            nodes.iter().map(|(name, zone)| (&**name, &**zone, 1)).collect();
        nodes.push(("lonely", "", 1));
        nodes.push(("lonelier", "", 1));
        let colours = of(&cluster(&nodes, 8, 3).nodes);
        let distinct: BTreeSet<&String> = colours.values().collect();
        assert_eq!((colours.len(), distinct.len()), (32, 32));
    }
}
