//! Lines over a scale of tens, as SVG: for seeing where a curve falls off.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 44.0;
const COLOURS: [&str; 3] = ["#1f6fb2", "#c05a1c", "#5b8c3e"];

/// A line and its name.
pub(crate) struct Line {
    pub(crate) name: String,
    /// Across and up; only what is above zero can be drawn.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Both axes have a scale of tens.
pub(crate) fn draw(title: &str, across: &str, up: &str, lines: &[Line]) -> String {
    let drawn =
        |line: &Line| line.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0).collect::<Vec<_>>();
    let all: Vec<(f64, f64)> = lines.iter().flat_map(drawn).collect();
    let (from_x, to_x) = decades(all.iter().map(|(x, _)| *x));
    let (from_y, to_y) = decades(all.iter().map(|(_, y)| *y));
    let x = |value: f64| LEFT + (value.log10() - from_x) / (to_x - from_x) * (WIDTH - LEFT - RIGHT);
    let y =
        |value: f64| HEIGHT - BOTTOM - (value.log10() - from_y) / (to_y - from_y) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    let text = |x: f64, y: f64, anchor: &str, colour: &str, text: &str| {
        let text = escaped(text);
        format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>\n")
    };
    for power in from_x as i32..=to_x as i32 {
        let at = x(10f64.powi(power));
        let _ = writeln!(svg, "<path d=\"M{at:.1} {TOP}V{:.1}\" stroke=\"#ddd\"/>", HEIGHT - BOTTOM);
        svg += &text(at, HEIGHT - BOTTOM + 16.0, "middle", "#444", &short(10f64.powi(power)));
    }
    for power in from_y as i32..=to_y as i32 {
        let at = y(10f64.powi(power));
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - RIGHT);
        svg += &text(LEFT - 6.0, at + 4.0, "end", "#444", &short(10f64.powi(power)));
    }
    svg += &text(WIDTH / 2.0, HEIGHT - 8.0, "middle", "#444", across);
    svg += &text(LEFT - 6.0, TOP - 8.0, "end", "#444", up);
    for (at, line) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points = drawn(line);
        let path: Vec<String> =
            points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (px, py) in points {
            let _ =
                writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(px), y(py));
        }
        svg += &text(WIDTH - RIGHT, TOP - 20.0 + 14.0 * at as f64, "end", colour, &line.name);
    }
    svg + "</svg>\n"
}

/// The powers of ten around these; at least one decade.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut from, mut to) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (from, to) = (from.min(value.log10().floor()), to.max(value.log10().ceil()));
    }
    if from > to { (0.0, 1.0) } else { (from, to.max(from + 1.0)) }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.0} M", value / 1e6),
        value if value >= 1e3 => format!("{:.0} k", value / 1e3),
        value => format!("{value}"),
    }
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_within_the_picture() {
        let line = |name: &str, points| Line { name: name.to_owned(), points };
        let lines = [line("a < b", vec![(1.0, 5.0), (2_000.0, 90_000.0)]), line("empty", vec![(0.0, 0.0)])];
        let svg = draw("title", "clients", "ops/s", &lines);
        assert!(svg.contains("a &lt; b") && svg.contains("100 k") && svg.ends_with("</svg>\n"));
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 2));
        let circles = svg.lines().filter(|line| line.starts_with("<circle"));
        for number in circles.flat_map(|line| line.split('"').filter_map(|word| word.parse::<f64>().ok())) {
            assert!((0.0..=WIDTH).contains(&number), "{number}");
        }
    }
}
