//! What it takes to find a key's partition: time of a lookup and memory of a table.
//!
//! `cargo run --release -p quorate-node --example lookup`
//!
//! Keys have 30 bytes and there are 4,096 of them, so that branches are not learnt by heart. The time is that of the
//! best of several runs, with the loop around it; the memory is what the allocator is asked for.

// Counting what is allocated takes an allocator, and those are unsafe to write.
#![allow(unsafe_code)]

use quorate_node::Router;
use quorate_types::{KeyspaceId, KeyspaceMap, Rule, Rules};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KEYSPACE: KeyspaceId = KeyspaceId(7);
const RUNS: usize = 15;
const ROUNDS: usize = 100;

/// Keys of 30 bytes in 200 directories.
fn keys() -> Vec<String> {
    let keys = (0..4096).map(|at| at * 2_654_435_761usize % 1_000_003);
    keys.map(|at| format!("/registry/ns-{:04}/k-{:010}", at % 200, at)).collect()
}

fn pins(prefix: impl Fn(usize) -> String) -> Vec<Rule> {
    (0..100).map(|at| Rule::Pin { prefix: prefix(at).into() }).collect()
}

fn main() {
    let spreads = |at: usize| Rule::Spread { directory: format!("/registry/ns-{at:04}/").into(), bits: 8 };
    let cases = [
        ("no rules", vec![]),
        ("100 pins, no key in any", pins(|at| format!("/r{at}/"))),
        ("100 pins, half of the keys in one", pins(|at| format!("/registry/ns-{:04}/", at * 2))),
        ("100 pins that differ late", {
            let mut pins = pins(|at| format!("/registry/ns-{:04}/", at * 2));
            pins[0] = Rule::Pin { prefix: "/rest/".into() };
            pins
        }),
        ("100 spreads, half of the keys in one", (0..100).map(spreads).collect()),
        (
            "50 pins and 50 spreads",
            pins(|at| format!("/registry/ns-{:04}/", at * 2))
                .into_iter()
                .take(50)
                .chain((100..150).map(spreads))
                .collect(),
        ),
    ];
    let keys = keys();
    assert!(keys.iter().all(|key| key.len() == 30));
    println!("1,024 partitions, keys of 30 bytes");
    for (case, rules) in cases {
        let rules = Rules::new(rules).expect("these agree");
        let map = KeyspaceMap::new(KEYSPACE, "lookup", 1024, rules, None).expect("a valid map");
        let mut router = Router::with(&[]);
        let before = BYTES.load(Ordering::Relaxed);
        router.set(&map);
        let table = BYTES.load(Ordering::Relaxed) - before;
        let mut best = f64::MAX;
        for _ in 0..RUNS {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                for key in &keys {
                    black_box(router.partition_of(KEYSPACE, black_box(key.as_bytes()))).expect("it is there");
                }
            }
            best = best.min(start.elapsed().as_nanos() as f64 / (ROUNDS * keys.len()) as f64);
        }
        println!("{best:6.1} ns a lookup   {table:7} bytes a table   {case}");
    }
}
