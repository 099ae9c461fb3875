//! The ordered store on disk keeps the contract of the engine seam, also when it is opened again.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

#[path = "../../mvcc/tests/support/engine_contract.rs"]
mod contract;

use quorate::engine::DiskEngine;

const CACHE_BYTES: u64 = 1 << 20;

fn check(seed: u64, value_bytes_max: u64) {
    let folder = tempfile::tempdir().unwrap();
    let open = || DiskEngine::open(folder.path(), CACHE_BYTES).unwrap();
    contract::check_operations(seed, value_bytes_max, open(), |engine| {
        drop(engine);
        open()
    });
}

#[test]
fn operations_do_what_they_do_on_ordered_maps() {
    for seed in 0..6 {
        check(seed, 40);
    }
}

/// Enough that what is flushed makes files that are merged.
#[test]
fn large_values_do_what_they_do_on_ordered_maps() {
    check(7, 300_000);
}

#[test]
fn batches_are_seen_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    contract::check_batches_are_atomic(&DiskEngine::open(folder.path(), CACHE_BYTES).unwrap());
}
