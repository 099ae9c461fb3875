//! Runs that are shown: empty, usual, broken off, and with names that are meant to hurt.

use super::*;
use crate::chaos::leaders::{Group, Led};
use crate::chaos::load::put_of;
use crate::chaos::plan::{Change, Fault};
use crate::chaos::timeline::Deed;
use quorate_checker::Violation;
use quorate_checker::calls::{Call, Outcome};
use quorate_types::reply::{PutAnswer, RangeAnswer};
use quorate_types::request::RangeRequest;
use quorate_types::{Answer, KeyRange, Request, Revision};
use serde_json::Value;

/// A write that was acknowledged.
pub(super) fn put(client: u32, asked: u64, answered: u64) -> Call {
    let request = Request::Put(put_of("k".into(), "v".into()));
    let outcome = Outcome::Reply(Revision(2), Answer::Put(PutAnswer::default()));
    Call { client, node: "n1".into(), request, asked, answered, outcome }
}

/// A read that was answered.
pub(super) fn get(client: u32, asked: u64, answered: u64) -> Call {
    let request = Request::Range(RangeRequest::new(KeyRange::Single("k".into())));
    let outcome = Outcome::Reply(Revision(2), Answer::Range(RangeAnswer::default()));
    Call { request, outcome, ..put(client, asked, answered) }
}

pub(super) fn entry(faults: &[Fault], begun: u64, healed: Option<u64>, served: Option<u64>) -> Entry {
    let deeds = faults.iter().map(Deed::from).collect();
    Entry { what: format!("{faults:?}"), deeds, begun, healed, served }
}

/// One in which nothing happened.
pub(super) fn report() -> Report {
    let (calls, leases, sights, watched, wrong, scarce, compactions, late) = Default::default();
    let told_compacted = Revision::default();
    Report {
        seed: 5,
        command: "quorate chaos --seed 5".into(),
        elapsed: 0,
        stopped: None,
        timeline: Vec::new(),
        lives: Lives::default(),
        leaders: Leaders::default(),
        written: Written { calls, leases, sights, watched, wrong, scarce, compactions, told_compacted, late },
        verdict: Verdict::default(),
    }
}

/// Two seconds: one node is killed and starts, another is cut off until the end.
fn usual() -> Report {
    let mut report = report();
    report.elapsed = 2_000_000;
    report.written.calls = (0..40).map(|at| put(1, at * 20_000, at * 20_000 + 5_000)).collect();
    report.written.calls.push(get(1, 100_000, 101_000));
    let kill = Fault::Kill("n1".into());
    let cut = Fault::Cut(vec!["n2".into()]);
    for name in ["n1", "n2"] {
        report.lives.born(name, 0);
    }
    report.lives.suffered(&kill, 200_000);
    report.lives.started("n1", 300_000);
    report.lives.served("n1", 400_000);
    report.lives.suffered(&cut, 800_000);
    let mut joined = entry(&[kill], 200_000, Some(300_000), Some(400_000));
    joined.deeds.push(Deed::of_change(&Change::Join, Some(&"n3".into())));
    report.timeline = vec![joined, entry(&[cut], 800_000, None, None)];
    let led =
        |node: &str, from, until, is_own_word| Led { node: node.into(), term: 7, is_own_word, from, until };
    let led = vec![led("n1", 10_000, Some(250_000), true), led("n2", 500_000, None, false)];
    let group = Group { keyspace: "default".into(), partition: 3, led };
    report.leaders.groups.insert((1, 3), group);
    report
}

/// The names of all elements of a page; every one is closed by its own name, and text stands in what is closed.
fn elements(page: &str) -> Vec<String> {
    const VOID: [&str; 2] = ["meta", "br"];
    let (mut open, mut all) = (Vec::<String>::new(), Vec::new());
    let mut rest = page.strip_prefix("<!doctype html>").unwrap();
    while let Some((_, tagged)) = rest.split_once('<') {
        let (tag, after) = tagged.split_once('>').unwrap();
        rest = after;
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        match (tag.strip_prefix('/'), tag.strip_suffix('/')) {
            (Some(name), _) => assert_eq!(open.pop().as_deref(), Some(name)),
            (None, single) => {
                let name = tag.split([' ', '/']).next().unwrap().to_owned();
                // What is in them is no markup.
                if ["script", "style"].contains(&name.as_str()) {
                    rest = rest.split_once(&format!("</{name}>")).unwrap().1;
                } else if single.is_none() && !VOID.contains(&name.as_str()) {
                    open.push(name.clone());
                }
                all.push(name);
            }
        }
    }
    assert_eq!((open.len(), rest.trim()), (0, ""));
    all
}

/// The texts of all hover titles.
fn titles(page: &str) -> Vec<&str> {
    page.split("<title>").skip(2).filter_map(|rest| rest.split("</title>").next()).collect()
}

fn json_of(told: &Told) -> Value {
    serde_json::from_str(&told.json).unwrap()
}

#[test]
fn a_run_without_anything_is_a_page_too() {
    let told = report().told();
    elements(&told.page);
    assert!(!told.page.contains("NaN") && !told.page.contains("inf\""), "{}", told.page);
    assert_eq!(json_of(&told)["series"]["steps"], serde_json::json!([]));
    assert!(told.text.ends_with("nothing wrong\n"));
}

#[test]
fn everything_that_happened_is_on_the_page_and_in_the_figures() {
    let told = usual().told();
    elements(&told.page);
    let titles = titles(&told.page);
    let has = |part: &str| assert!(titles.iter().any(|title| title.contains(part)), "{part}: {titles:#?}");
    has("kill n1; join n3");
    has("n1: down, 0.2 to 0.3 s");
    has("n1: starting, 0.3 to 0.4 s");
    // It had no end.
    has("n2: cut, 0.8 s to the end");
    has("n1 leads, term 7, 0.0 to 0.2 s");
    has("n2 is believed to lead, term 7, 0.5 s to the end");
    has("no write was acknowledged for 1.22 s");
    let json = json_of(&told);
    let at = |pointer: &str| json.pointer(pointer).unwrap_or_else(|| panic!("{pointer}: {json}"));
    assert_eq!(
        at("/rounds/0/faults/1"),
        &serde_json::json!({"kind": "join", "word": "join", "nodes": ["n3"]})
    );
    assert_eq!((at("/rounds/1/healed_ms"), at("/rounds/1/served_ms")), (&Value::Null, &Value::Null));
    assert_eq!(at("/nodes/0/conditions/0/condition"), "down");
    assert_eq!(at("/nodes/1/conditions/0/until_ms"), &Value::Null);
    assert_eq!(at("/leaders/0/led/1/own_word"), false);
    assert_eq!(at("/kinds/cut/write_gap_max_ms"), 1_200);
    assert_eq!(at("/write_gaps/0/from_ms"), 785);
    assert_eq!(at("/series/steps/0/writes"), 40);
}

#[test]
fn nothing_is_fetched_and_names_are_only_names() {
    let nasty = "</title></script><script>alert('&\"')</script>\u{1}";
    let mut report = usual();
    report.command = nasty.into();
    report.lives.born(nasty, 10);
    report.lives.suffered(&Fault::Pause(nasty.into()), 20);
    report.timeline.push(entry(&[Fault::Kill(nasty.into())], 1_000_000, None, None));
    report.verdict.violations = vec![Violation::new(nasty, vec![nasty.into()])];
    report.leaders.groups.insert(
        (9, 9),
        Group {
            keyspace: nasty.into(),
            partition: 9,
            led: vec![Led { node: nasty.into(), term: 1, is_own_word: true, from: 0, until: None }],
        },
    );
    let told = report.told();
    let names = elements(&told.page);
    let count = |name: &str| names.iter().filter(|of| *of == name).count();
    assert_eq!(
        (count("script"), count("style"), count("link"), count("img"), count("image")),
        (1, 1, 0, 0, 0)
    );
    assert!(!told.page.contains("http") && !told.page.contains("url(") && !told.page.contains("@import"));
    assert!(!told.page.contains('\u{1}'));
    assert_eq!(json_of(&told)["violations"][0]["what"], nasty);
}

#[test]
fn what_is_wrong_leads_to_its_time() {
    let mut report = usual();
    let call = put(4, 1_250_000, 1_500_000).to_string();
    report.verdict.violations =
        vec![Violation::new("first", vec![call.clone()]), Violation::new("second", Vec::new())];
    let told = report.told();
    let page = &told.page;
    elements(page);
    assert!(page.contains("first") && page.contains(&crate::cli::markup::escaped(&call)), "{page}");
    assert!(page.contains("href=\"#wrong-0\"") && page.contains("id=\"wrong-0\""), "{page}");
    // It has no time.
    assert!(page.contains("second") && !page.contains("#wrong-1"), "{page}");
    let json = json_of(&told);
    assert_eq!((&json["is_right"], &json["violations"][0]["from_ms"]), (&false.into(), &1_250.into()));
    assert_eq!(json["violations"][1]["from_ms"], Value::Null);
}

/// The longest run that is usual, and far more happens in it than usual.
#[test]
fn a_page_is_never_longer_than_some_megabytes() {
    let mut report = report();
    report.elapsed = 1_800_000_000;
    report.written.calls = (0..180_000).map(|at| put(1, at * 10_000, at * 10_000 + 5_000)).collect();
    for at in 0..5_000_u64 {
        let from = at * 360_000;
        let fault = Fault::Kill(format!("n{}", at % 5));
        if at < 100 {
            report.lives.born(&format!("n{at}"), 0);
        }
        report.lives.suffered(&fault, from);
        report.lives.started(&format!("n{}", at % 5), from + 100_000);
        report.lives.served(&format!("n{}", at % 5), from + 200_000);
        report.timeline.push(entry(&[fault], from, Some(from + 100_000), Some(from + 200_000)));
    }
    for partition in 0..256 {
        let led = |at: u64| Led {
            node: format!("n{}", at % 5),
            term: at,
            is_own_word: true,
            from: at * 10_000_000,
            until: Some((at + 1) * 10_000_000),
        };
        let group = Group { keyspace: "default".into(), partition, led: (0..180).map(led).collect() };
        report.leaders.groups.insert((1, partition), group);
    }
    let page = report.told().page;
    elements(&page);
    assert!(page.len() < 6 << 20, "{} bytes", page.len());
    assert!(page.contains("left out"), "what is not shown is said");
}
