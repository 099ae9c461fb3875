//! A few seeds over each number of partitions, for who runs the tests and not the simulation: `cargo xtask sim` runs more, and the
//! gate 300.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_sim::{Summary, run};

#[test]
fn nothing_is_wrong_over_any_number_of_partitions() {
    let mut decided = 0;
    let mut inherited = 0;
    for partitions in [1, 2, 3, 4, 16] {
        for seed in 0..6 {
            let Summary { transactions, .. } = run(seed, partitions).unwrap();
            decided += transactions.decided;
            inherited += transactions.inherited;
        }
    }
    assert!(decided > 500 && inherited > 5, "{decided} transactions, {inherited} ended by another leader");
}
