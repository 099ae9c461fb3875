//! The ordered store in memory keeps the contract of the engine seam.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

#[path = "../../mvcc/tests/support/engine_contract.rs"]
mod contract;

use quorate_storage::memory::MemoryEngine;

#[test]
fn operations_do_what_they_do_on_ordered_maps() {
    for seed in 0..50 {
        contract::check_operations(seed, 40, MemoryEngine::default(), |engine| {
            engine.crash(0);
            engine
        });
    }
}

#[test]
fn batches_are_seen_whole_and_in_order() {
    contract::check_batches_are_atomic(&MemoryEngine::default());
}
