//! The run from left to right, as SVG: what was done, how each node was, who led, what was answered and how fast.
//!
//! What has a time is drawn in a plot of its own whose units are milliseconds, so that a look at a part of it is only another window on it; words keep
//! their shape and stand outside. Without a script all of it is there, unzoomed.

use super::Report;
use super::figures::Figures;
use super::{curves, lanes};
use crate::cli::markup::{escaped, number};
use crate::cli::ring::colours;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Where the plot begins, and how wide it is.
const LEFT: f64 = 140.0;
const WIDTH: f64 = 1_060.0;
/// Room for the times above and below.
const HEAD: f64 = 26.0;
const FOOT: f64 = 24.0;
/// How wide a letter is, about.
const LETTER: f64 = 6.1;
/// Space around a word.
const AROUND: f64 = 6.0;
/// Seconds between two marks of the scale.
const TICKS: [u64; 14] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600];
const TICKS_MAX: u64 = 14;

/// What is drawn on.
pub(super) struct Canvas {
    /// Microseconds from left to right.
    span: u64,
    /// Where the next lane begins.
    pub(super) y: f64,
    /// In milliseconds.
    plot: String,
    /// Behind the plot, and beside it.
    behind: String,
    words: String,
    /// What there was no room for, in words.
    pub(super) left_out: Vec<String>,
    colours: BTreeMap<String, String>,
}

/// From when to when, as people read it.
pub(super) fn times(from: u64, until: Option<u64>) -> String {
    let seconds = |micros: u64| format!("{:.1}", micros as f64 / 1e6);
    match until {
        Some(until) => format!("{} to {} s", seconds(from), seconds(until)),
        None => format!("{} s to the end", seconds(from)),
    }
}

/// A time of the run on the scale.
fn clock(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60),
    }
}

/// The picture, and what is left out of it.
pub(super) fn timeline(report: &Report, figures: &Figures) -> (String, Vec<String>) {
    let mut canvas = Canvas::new(report);
    lanes::faults(&mut canvas, report, figures);
    lanes::nodes(&mut canvas, report);
    lanes::leaders(&mut canvas, report);
    curves::curves(&mut canvas, figures);
    canvas.wrong(&figures.moments);
    canvas.finish()
}

/// The colour of each node that is named anywhere.
pub(super) fn colours_of(report: &Report) -> BTreeMap<String, String> {
    let mut colours = BTreeMap::new();
    let led = report.leaders.groups.values().flat_map(|group| &group.led).map(|led| &led.node);
    for name in report.lives.nodes.iter().map(|life| &life.name).chain(led) {
        if !colours.contains_key(name) {
            colours.insert(name.clone(), colours::one(colours.len()));
        }
    }
    colours
}

impl Canvas {
    fn new(report: &Report) -> Self {
        Self {
            span: report.elapsed.max(1_000),
            y: HEAD,
            plot: String::new(),
            behind: String::new(),
            words: String::new(),
            left_out: Vec::new(),
            colours: colours_of(report),
        }
    }

    /// The colour of a node.
    pub(super) fn colour(&self, node: &str) -> String {
        self.colours.get(node).cloned().unwrap_or_default()
    }

    /// What stands over several lanes.
    pub(super) fn heading(&mut self, text: &str) {
        self.y += 8.0;
        self.beside("heading", 6.0, self.y + 10.0, text);
        self.y += 16.0;
    }

    /// A lane's ground, and its name beside it; the next lane begins below.
    pub(super) fn lane(&mut self, name: &str, height: f64) -> f64 {
        let y = self.y;
        let _ = writeln!(
            self.behind,
            r#"<rect class="lane" x="{LEFT}" y="{}" width="{WIDTH}" height="{}"/>"#,
            number(y),
            number(height - 2.0)
        );
        let middle = y + (height - 2.0).min(16.0) / 2.0 + 4.0;
        self.beside("name", 6.0, middle, name);
        self.y += height;
        y
    }

    /// A square of a node's colour before the name of the lane that begins at `y`.
    pub(super) fn swatch(&mut self, node: &str, y: f64) {
        let colour = self.colour(node);
        let _ = writeln!(
            self.behind,
            r#"<rect x="{}" y="{}" width="9" height="9" rx="2" fill="{colour}"/>"#,
            LEFT - 17.0,
            number(y + 2.5)
        );
    }

    /// A word left of the plot.
    pub(super) fn beside(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let (x, y, text) = (number(x), number(y), escaped(text));
        let _ = writeln!(self.behind, r#"<text class="{class}" x="{x}" y="{y}">{text}</text>"#);
    }

    /// A line of a scale across the plot, with what it stands for.
    pub(super) fn grid(&mut self, y: f64, text: &str) {
        let _ = writeln!(
            self.behind,
            r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{y}" y2="{y}"/>"#,
            LEFT + WIDTH,
            y = number(y)
        );
        self.beside("scale", LEFT - 6.0, y + 3.5, text);
    }

    /// A bar from when to when; `more` are further attributes.
    pub(super) fn bar(
        &mut self,
        more: &str,
        (from, until): (u64, Option<u64>),
        (y, height): (f64, f64),
        title: &str,
    ) {
        let (from, until) = self.millis(from, until);
        let _ = writeln!(
            self.plot,
            r#"<rect {more} x="{from}" y="{}" width="{}" height="{}"><title>{}</title></rect>"#,
            number(y),
            until - from,
            number(height),
            escaped(title)
        );
    }

    /// A path whose points are milliseconds and heights.
    pub(super) fn path(&mut self, class: &str, points: &str) {
        let _ = writeln!(self.plot, r#"<path class="{class}" d="{points}"/>"#);
    }

    /// A word in a bar, shown where there is room for it. `x` is where the bar begins.
    pub(super) fn word(&mut self, class: &str, (from, until): (u64, Option<u64>), y: f64, text: &str) {
        let (from, until) = self.millis(from, until);
        let scale = WIDTH / (self.span / 1000) as f64;
        let needed = text.chars().count() as f64 * LETTER + AROUND;
        let hidden = if (until - from) as f64 * scale < needed { r#" style="display:none""# } else { "" };
        let _ = writeln!(
            self.words,
            r#"<text class="{class}" x="{}" y="{}" data-a="{from}" data-b="{until}"{hidden}>{}</text>"#,
            number(LEFT + from as f64 * scale + AROUND / 2.0),
            number(y),
            escaped(text)
        );
    }

    /// Milliseconds, within the run.
    fn millis(&self, from: u64, until: Option<u64>) -> (u64, u64) {
        let from = from.min(self.span);
        (from / 1000, until.map_or(self.span, |until| until.clamp(from, self.span)) / 1000)
    }

    /// Where something wrong was.
    fn wrong(&mut self, moments: &[Option<(u64, u64)>]) {
        for (at, (from, until)) in moments.iter().enumerate().filter_map(|(at, of)| Some((at, (*of)?))) {
            let more = format!(r#"id="wrong-{at}" class="wrong""#);
            let title = format!("violation {}, {}", at + 1, times(from, Some(until)));
            self.bar(&more, (from, Some(until)), (HEAD - 8.0, self.y - HEAD + 8.0), &title);
        }
    }

    fn finish(self) -> (String, Vec<String>) {
        let millis = self.span / 1000;
        let height = self.y + FOOT;
        let mut svg = String::new();
        let _ = writeln!(
            svg,
            r#"<svg id="timeline" viewBox="0 0 {} {height}" role="img" data-span="{millis}" data-left="{LEFT}" data-width="{WIDTH}" data-head="{HEAD}" data-bottom="{}">"#,
            number(LEFT + WIDTH + 12.0),
            number(self.y),
            height = number(height),
        );
        svg.push_str(&self.behind);
        svg.push_str("<g id=\"ticks\">\n");
        let seconds = self.span / 1_000_000;
        let step = TICKS.into_iter().find(|step| seconds / step <= TICKS_MAX).unwrap_or(86_400);
        for at in (0..=seconds).step_by(step as usize) {
            let x = number(LEFT + at as f64 * 1000.0 / millis as f64 * WIDTH);
            let (top, bottom) = (number(HEAD - 4.0), number(self.y));
            let _ = writeln!(
                svg,
                r#"<line class="tick" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/><text class="time" x="{x}" y="{}">{clock}</text><text class="time" x="{x}" y="{}">{clock}</text>"#,
                number(HEAD - 10.0),
                number(self.y + 15.0),
                clock = clock(at)
            );
        }
        let _ = writeln!(
            svg,
            r#"</g><svg id="plot" x="{LEFT}" y="0" width="{WIDTH}" height="{height}" viewBox="0 0 {millis} {height}" preserveAspectRatio="none">"#,
            height = number(height)
        );
        svg.push_str(&self.plot);
        svg.push_str("</svg>\n<g id=\"words\">\n");
        svg.push_str(&self.words);
        svg.push_str("</g>\n<g id=\"pointer\"></g>\n</svg>\n");
        (svg, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn a_word_is_shown_where_there_is_room() {
        let mut report = report();
        report.elapsed = 10_000_000;
        let mut canvas = Canvas::new(&report);
        canvas.word("w", (0, Some(1_000_000)), 0.0, "short");
        canvas.word("w", (0, Some(100_000)), 0.0, "short");
        canvas.word("w", (9_000_000, None), 0.0, "short");
        let is_hidden: Vec<bool> = canvas.words.lines().map(|line| line.contains("display:none")).collect();
        assert_eq!(is_hidden, [false, true, false]);
    }

    #[test]
    fn what_reaches_over_the_end_ends_there() {
        let mut report = report();
        report.elapsed = 5_000_000;
        let canvas = Canvas::new(&report);
        assert_eq!(canvas.millis(1_000_000, None), (1_000, 5_000));
        assert_eq!(canvas.millis(1_000_000, Some(9_000_000)), (1_000, 5_000));
        assert_eq!(canvas.millis(6_000_000, None), (5_000, 5_000));
        assert_eq!(canvas.millis(2_000_000, Some(1_000_000)), (2_000, 2_000));
    }

    #[test]
    fn times_are_short() {
        let check = |seconds, expected: &str| assert_eq!(clock(seconds), expected);
        check(0, "0 s");
        check(59, "59 s");
        check(61, "1:01");
        check(7_325, "2:02:05");
    }
}
