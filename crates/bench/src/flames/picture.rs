//! A tree of frames as SVG: each a box as wide as it was seen often, upon the one that called it.

use super::stacks::Tree;
use crate::chart::escaped;
use std::fmt::Write;

const WIDTH: f64 = 1_200.0;
const ROW: f64 = 15.0;
const TOP: f64 = 28.0;
/// Narrower ones are left out.
const NARROWEST: f64 = 1.2;
/// About so wide is a letter.
const LETTER: f64 = 6.2;
/// What has room for fewer letters has none.
const LETTERS_MIN: usize = 3;

/// Whatever points at a box is told its name and share.
pub(super) fn draw(title: &str, tree: &Tree) -> String {
    let total = tree.total().max(1);
    let mut boxes = Vec::new();
    let scale = WIDTH / total as f64;
    collect(tree, 0, 0.0, scale, &mut boxes);
    let rows = boxes.iter().map(|found| found.row + 1).max().unwrap_or(0);
    let height = TOP + rows as f64 * ROW;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"10\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"4\" y=\"18\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    for Box { name, row, left, seen } in boxes {
        let (width, y) = (seen as f64 * scale, height - (row + 1) as f64 * ROW);
        let (share, told) = (seen as f64 / total as f64 * 100.0, escaped(name));
        let _ = write!(
            svg,
            "<g><title>{told} ({share:.1} %)</title><rect x=\"{left:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>",
            ROW - 1.0,
            colour(name)
        );
        let room = (width / LETTER) as usize;
        if room >= LETTERS_MIN {
            let shown: String = name.chars().take(room).collect();
            let _ =
                write!(svg, "<text x=\"{:.1}\" y=\"{}\">{}</text>", left + 2.0, y + 11.0, escaped(&shown));
        }
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

struct Box<'a> {
    name: &'a str,
    row: usize,
    left: f64,
    seen: u64,
}

fn collect<'a>(tree: &'a Tree, row: usize, mut left: f64, scale: f64, boxes: &mut Vec<Box<'a>>) {
    for (name, below) in &tree.called {
        let seen = below.total();
        let width = seen as f64 * scale;
        if width >= NARROWEST {
            boxes.push(Box { name, row, left, seen });
            collect(below, row + 1, left, scale, boxes);
        }
        left += width;
    }
}

/// A warm one, the same for the same name.
fn colour(name: &str) -> String {
    let sum = name.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("#{:02x}{:02x}{:02x}", 225 + sum % 30, 120 + sum / 30 % 100, 60 + sum / 3_000 % 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_stand_within_the_one_that_called_them() {
        let seen = "a 1\n\t1 x\n\t2 y<u8>\n\na 1\n\t1 z\n\t2 y<u8>\n\nb 1\n\t1 x\n\n";
        let tree = Tree::read(seen, |_| "leader & co");
        let svg = draw("1 < 2", &tree);
        assert!(
            svg.contains("1 &lt; 2")
                && svg.contains("leader &amp; co (100.0 %)")
                && svg.ends_with("</svg>\n")
        );
        assert!(svg.contains("<title>y (66.7 %)</title><rect x=\"0.0\""));
        assert!(svg.contains("<title>b (33.3 %)</title><rect x=\"800.0\""));
        // The root, two threads, y, and three that it or they call.
        assert_eq!(svg.matches("<title>").count(), 7);
        assert!(draw("nothing", &Tree::default()).ends_with("</svg>\n"));
    }
}
