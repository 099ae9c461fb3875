//! What was done, how each node was, and who led: bars from when to when.

use super::Report;
use super::figures::Figures;
use super::timeline::{Canvas, times};
use crate::chaos::lives::{Condition, Life};
use crate::chaos::plan::{DISKS, Kind};
use crate::chaos::timeline::Deed;
use crate::cli::columns::fit;

const FAULTS_HEIGHT: f64 = 20.0;
const NODE_HEIGHT: f64 = 18.0;
const GROUP_HEIGHT: f64 = 14.0;
/// So that a page is of some megabytes at most.
pub(super) const ROUNDS_MAX: usize = 1_500;
const NODES_MAX: usize = 40;
const CONDITIONS_MAX: usize = 4_000;
const GROUPS_MAX: usize = 40;
const LED_MAX: usize = 6_000;
/// Letters beside a lane.
const NAME_MAX: usize = 18;

/// What faults are about, each with a lane of its own.
const ABOUT: [(&str, &str, &[Kind]); 5] = [
    ("processes", "process", &[Kind::Kill, Kind::Stop, Kind::Pause, Kind::Wipe, Kind::Power]),
    ("network", "links", &[Kind::Cut, Kind::OneWay, Kind::Partial, Kind::Slow]),
    ("disks", "disks", &DISKS),
    ("come and go", "members", &[Kind::Lose, Kind::Join, Kind::Drain]),
    ("data", "data", &[Kind::Split, Kind::Compact]),
];

/// Where a bar of a condition is in its node's lane, as parts of its height.
pub(super) fn place(condition: Condition) -> (f64, f64) {
    match condition {
        Condition::Starting | Condition::Down | Condition::Paused | Condition::Lost => (0.0, 1.0),
        Condition::Cut | Condition::Deaf | Condition::Mute | Condition::Partial | Condition::Slow => {
            (0.0, 0.42)
        }
        Condition::Full | Condition::SlowDisk | Condition::Hung | Condition::Failing => (0.42, 0.58),
        Condition::Filling
        | Condition::Rotten
        | Condition::Joining
        | Condition::Draining
        | Condition::Leaving => (0.62, 0.38),
    }
}

fn words(deeds: &[&Deed], between: &str) -> String {
    deeds.iter().map(|deed| deed.text()).collect::<Vec<_>>().join(between)
}

/// How many are drawn; of what else there is, it is said that it is left out.
fn limit(canvas: &mut Canvas, count: usize, max: usize, what: &str) -> usize {
    if count > max {
        canvas.left_out.push(format!("{} of {count} {what}", count - max));
    }
    count.min(max)
}

/// Rounds of faults: dark until all was made well, light until all served.
pub(super) fn faults(canvas: &mut Canvas, report: &Report, figures: &Figures) {
    canvas.heading("faults");
    let count = limit(canvas, report.timeline.len(), ROUNDS_MAX, "rounds of faults");
    let mut is_marked = vec![false; count];
    for (name, class, kinds) in ABOUT {
        let y = canvas.lane(name, FAULTS_HEIGHT);
        let room = (y, FAULTS_HEIGHT - 2.0);
        for (round, entry) in report.timeline.iter().enumerate().take(count) {
            let mine: Vec<&Deed> = entry.deeds.iter().filter(|deed| kinds.contains(&deed.kind)).collect();
            if mine.is_empty() {
                continue;
            }
            let all: Vec<&Deed> = entry.deeds.iter().collect();
            let gap = entry.gap(&figures.acknowledged, report.elapsed).0 / 1000;
            let title = format!(
                "round {}: {}, {}\n{}\nlongest time without an acknowledged write until all served: {gap} ms",
                round + 1,
                words(&all, "; "),
                times(entry.begun, entry.served),
                entry.what,
            );
            let is_first = !std::mem::replace(&mut is_marked[round], true);
            let id = if is_first { format!(r#"id="round-{round}" "#) } else { String::new() };
            canvas.bar(&format!(r#"{id}class="fault {class}""#), (entry.begun, entry.healed), room, &title);
            if let Some(healed) = entry.healed {
                let more = format!(r#"class="fault {class} after""#);
                canvas.bar(&more, (healed, entry.served), room, &title);
            }
            canvas.word("word", (entry.begun, entry.served), y + 13.0, &words(&mine, " + "));
        }
    }
}

/// Each node from its coming to its going, and what it was in meanwhile.
pub(super) fn nodes(canvas: &mut Canvas, report: &Report) {
    canvas.heading("nodes");
    let lives = &report.lives.nodes;
    let count = limit(canvas, lives.len(), NODES_MAX, "nodes");
    let shown = &lives[..count];
    let spans: usize = shown.iter().map(|life| life.spans.len()).sum();
    let mut room = limit(canvas, spans, CONDITIONS_MAX, "times of nodes being in some state");
    for life in shown {
        node(canvas, life, &mut room);
    }
}

fn node(canvas: &mut Canvas, life: &Life, room: &mut usize) {
    let y = canvas.lane(&fit(&life.name, NAME_MAX), NODE_HEIGHT);
    canvas.swatch(&life.name, y);
    let height = NODE_HEIGHT - 2.0;
    let more = format!(r#"class="life" fill="{}""#, canvas.colour(&life.name));
    let title = format!("{}: part of the cluster, {}", life.name, times(life.from, life.until));
    canvas.bar(&more, (life.from, life.until), (y, height), &title);
    for span in life.spans.iter().take(*room) {
        let name = span.condition.name();
        let title = format!("{}: {name}, {}", life.name, times(span.from, span.until));
        let (top, part) = place(span.condition);
        let at = (y + top * height, part * height);
        canvas.bar(&format!(r#"class="state {name}""#), (span.from, span.until), at, &title);
        if part == 1.0 {
            canvas.word("state-word", (span.from, span.until), y + 12.0, name);
        }
    }
    *room -= life.spans.len().min(*room);
}

/// Who led each group: pale as long as only others said so.
pub(super) fn leaders(canvas: &mut Canvas, report: &Report) {
    canvas.heading("leaders");
    let groups = &report.leaders.groups;
    let count = limit(canvas, groups.len(), GROUPS_MAX, "groups");
    let spans: usize = groups.values().take(count).map(|group| group.led.len()).sum();
    limit(canvas, spans, LED_MAX, "times of a node leading a group");
    // Each group has its share, so that none is cut off much earlier than the others.
    let each = LED_MAX / count.max(1);
    let is_cut = spans > LED_MAX;
    for group in groups.values().take(count) {
        let name = match group.keyspace.as_str() {
            "default" => format!("partition {}", group.partition),
            keyspace => format!("{keyspace}/{}", group.partition),
        };
        let y = canvas.lane(&fit(&name, NAME_MAX), GROUP_HEIGHT);
        for led in group.led.iter().take(if is_cut { each } else { usize::MAX }) {
            let says = if led.is_own_word { "leads" } else { "is believed to lead" };
            let when = times(led.from, led.until);
            let title = format!("{name}: {} {says}, term {}, {when}", led.node, led.term);
            let pale = if led.is_own_word { "led" } else { "led pale" };
            let more = format!(r#"class="{pale}" fill="{}""#, canvas.colour(&led.node));
            canvas.bar(&more, (led.from, led.until), (y, GROUP_HEIGHT - 2.0), &title);
            let word = if led.is_own_word { "led-word" } else { "led-word dim" };
            canvas.word(word, (led.from, led.until), y + 9.5, &led.node);
        }
    }
}
