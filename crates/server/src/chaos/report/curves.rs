//! What was answered and how fast, step by step: amounts on a plain scale, times on a logarithmic one.

use super::figures::Figures;
use super::series::{Latency, Series, Step};
use super::timeline::Canvas;
use crate::cli::markup::number;
use std::fmt::Write;

const GAPS_HEIGHT: f64 = 18.0;
const RATE_HEIGHT: f64 = 84.0;
const ERRORS_HEIGHT: f64 = 44.0;
const LATENCY_HEIGHT: f64 = 104.0;
/// Space above what is highest.
const ABOVE: f64 = 10.0;
/// Space between lanes, so that their scales do not meet.
const BETWEEN: f64 = 6.0;

/// A lane with a scale: where it begins, how high it is, and where a value is within it, from 0 to 1.
struct Scale<F: Fn(f64) -> f64> {
    y: f64,
    height: f64,
    part: F,
}

impl<F: Fn(f64) -> f64> Scale<F> {
    fn at(&self, value: f64) -> f64 {
        let bottom = self.y + self.height - 2.0;
        bottom - (self.part)(value).clamp(0.0, 1.0) * (self.height - 2.0 - ABOVE)
    }

    /// A line that stays at each step's value and is broken where there is none; as an area, down to the bottom.
    fn steps(&self, series: &Series, value: impl Fn(&Step) -> Option<f64>, is_area: bool) -> String {
        let millis = series.step / 1000;
        let bottom = number(self.y + self.height - 2.0);
        let mut path = String::new();
        let mut is_open = false;
        for (at, step) in series.steps.iter().enumerate() {
            let (from, until) = (at as u64 * millis, (at as u64 + 1) * millis);
            match value(step).map(|value| number(self.at(value))) {
                Some(y) if is_open => {
                    let _ = write!(path, "V{y}H{until}");
                }
                Some(y) if is_area => {
                    let _ = write!(path, "M{from} {bottom}V{y}H{until}");
                }
                Some(y) => {
                    let _ = write!(path, "M{from} {y}H{until}");
                }
                None if is_open && is_area => {
                    let _ = write!(path, "V{bottom}Z");
                }
                None => {}
            }
            is_open = value(step).is_some();
        }
        if is_open && is_area {
            let _ = write!(path, "V{bottom}Z");
        }
        path
    }
}

/// A round number that is not below: 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|part| part * power).find(|round| *round >= value).unwrap_or(value)
}

/// A time as people read it.
fn span(micros: f64) -> String {
    match micros {
        micros if micros < 1e3 => format!("{} µs", number(micros.round())),
        micros if micros < 1e6 => format!("{} ms", number((micros / 10.0).round() / 100.0)),
        micros => format!("{} s", number((micros / 1e4).round() / 100.0)),
    }
}

pub(super) fn curves(canvas: &mut Canvas, figures: &Figures) {
    canvas.heading("answers");
    let series = &figures.series;
    gaps(canvas, figures);
    let top = canvas.y;
    rate(canvas, series);
    errors(canvas, series);
    latency(canvas, "writes take", series, |step| step.write);
    latency(canvas, "reads take", series, |step| step.read);
    // What the figures are, over all curves at once.
    let room = (top, canvas.y - top - 2.0);
    for (at, step) in series.steps.iter().enumerate() {
        let from = at as u64 * series.step;
        canvas.bar(r#"class="look""#, (from, Some(from + series.step)), room, &told(step, from, series));
    }
}

fn told(step: &Step, from: u64, series: &Series) -> String {
    let took = |latency: Option<Latency>| {
        let words = |Latency { p50, p99, max }: Latency| {
            let [p50, p99, max] = [p50, p99, max].map(|micros| span(micros as f64));
            format!("half within {p50}, 99 of 100 within {p99}, all within {max}")
        };
        latency.map_or("none answered".into(), words)
    };
    let seconds = from / 1_000_000;
    format!(
        "{seconds} to {} s\n{} writes acknowledged, {} reads answered, {} unknown, {} refused\nwrites: {}\nreads: {}",
        seconds + series.step / 1_000_000,
        step.writes,
        step.reads,
        step.unknown,
        step.refused,
        took(step.write),
        took(step.read)
    )
}

/// Times without any acknowledged write.
fn gaps(canvas: &mut Canvas, figures: &Figures) {
    let y = canvas.lane("no write for", GAPS_HEIGHT);
    for (from, until) in &figures.gaps {
        let long = (until - from) as f64;
        let title =
            format!("no write was acknowledged for {}, from {:.2} s on", span(long), *from as f64 / 1e6);
        canvas.bar(r#"class="gap""#, (*from, Some(*until)), (y, GAPS_HEIGHT - 2.0), &title);
        canvas.word("gap-word", (*from, Some(*until)), y + 12.0, &format!("{:.1} s", long / 1e6));
    }
}

fn amounts(canvas: &mut Canvas, name: &str, height: f64, most: f64) -> Scale<impl Fn(f64) -> f64 + use<>> {
    canvas.y += BETWEEN;
    let y = canvas.lane(name, height);
    let most = round_up(most);
    let scale = Scale { y, height, part: move |value: f64| value / most };
    canvas.grid(scale.at(most), &number(most));
    canvas.grid(scale.at(0.0), "0");
    scale
}

fn rate(canvas: &mut Canvas, series: &Series) {
    let seconds = series.seconds();
    let per_second = |count: u32| Some(f64::from(count) / seconds);
    let most = series.steps.iter().map(|step| f64::from(step.writes.max(step.reads)) / seconds);
    let scale = amounts(canvas, "answered/s", RATE_HEIGHT, most.fold(0.0, f64::max));
    canvas.path("writes", &scale.steps(series, |step| per_second(step.writes), true));
    canvas.path("reads", &scale.steps(series, |step| per_second(step.reads), false));
}

fn errors(canvas: &mut Canvas, series: &Series) {
    let seconds = series.seconds();
    let per_second = |count: u32| (count > 0).then(|| f64::from(count) / seconds);
    let most = series.steps.iter().map(|step| f64::from(step.unknown.max(step.refused)) / seconds);
    let scale = amounts(canvas, "unanswered/s", ERRORS_HEIGHT, most.fold(0.0, f64::max));
    canvas.path("unknown", &scale.steps(series, |step| per_second(step.unknown), true));
    canvas.path("refused", &scale.steps(series, |step| per_second(step.refused), true));
}

fn latency(canvas: &mut Canvas, name: &str, series: &Series, of: impl Fn(&Step) -> Option<Latency>) {
    canvas.y += BETWEEN;
    let y = canvas.lane(name, LATENCY_HEIGHT);
    let all = || series.steps.iter().filter_map(&of);
    let (Some(least), Some(most)) = (all().map(|of| of.p50).min(), all().map(|of| of.max).max()) else {
        return;
    };
    let low = (least.max(1) as f64).log10().floor();
    let high = (most.max(1) as f64).log10().ceil().max(low + 1.0);
    let part = move |value: f64| (value.max(1.0).log10() - low) / (high - low);
    let scale = Scale { y, height: LATENCY_HEIGHT, part };
    for power in low as i32..=high as i32 {
        let value = 10_f64.powi(power);
        canvas.grid(scale.at(value), &span(value));
    }
    let path = |pick: fn(Latency) -> u64, is_area| {
        scale.steps(series, |step| of(step).map(|latency| pick(latency) as f64), is_area)
    };
    canvas.path("max", &path(|latency| latency.max, true));
    canvas.path("p99", &path(|latency| latency.p99, false));
    canvas.path("p50", &path(|latency| latency.p50, false));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        let check = |value, expected: f64| assert!((round_up(value) - expected).abs() < 1e-9, "{value}");
        check(0.0, 1.0);
        check(1.0, 1.0);
        check(3.0, 5.0);
        check(51.0, 100.0);
        check(200.0, 200.0);
        check(201.0, 500.0);
    }

    #[test]
    fn spans_are_short() {
        let check = |micros, expected: &str| assert_eq!(span(micros), expected);
        check(100.0, "100 µs");
        check(1_000.0, "1 ms");
        check(1_234.0, "1.23 ms");
        check(1_220_000.0, "1.22 s");
        check(10_000_000.0, "10 s");
    }

    #[test]
    fn a_line_is_broken_where_nothing_was_answered() {
        let step = |writes| Step { writes, ..Step::default() };
        let series = Series { step: 1_000_000, steps: vec![step(1), step(2), step(0), step(1)] };
        let scale = Scale { y: 0.0, height: 12.0 + ABOVE, part: |value: f64| value / 2.0 };
        let value = |step: &Step| (step.writes > 0).then(|| f64::from(step.writes));
        assert_eq!(scale.steps(&series, value, false), "M0 15H1000V10H2000M3000 15H4000");
        assert_eq!(scale.steps(&series, value, true), "M0 20V15H1000V10H2000V20ZM3000 20V15H4000V20Z");
    }
}
