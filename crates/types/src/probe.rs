//! Names for states that a simulation must have been in, and how often it was.
//!
//! A simulation says what never went wrong; it does not say that what could go wrong was ever there. So the code that decides names the states that are rare and matter, where it is in
//! them: `reached!("vote-refused-shorter-log")`. A run over many seeds counts them, and one that was never reached shows what the simulation does not test
//! (`docs/simulation.md`, States; FoundationDB calls such points test probes, Antithesis "sometimes" assertions).
//!
//! Counting is a feature, `probes`, that only `quorate-sim` asks for. Without it [`reach`] is empty and [`COUNTS`] is false, so nothing is left of a probe, nor of the
//! condition it may have; in a build of the whole workspace, where the feature is on for all, it is a look into a small map of this thread, at places that are rare.
//!
//! Invariants:
//! * Nothing that decides reads the counts: a run is the same with them and without. They are taken by who runs it, when it is over.
//! * Names are unique, and all that the program names are in the table of `quorate-sim`, which says what each is (`crates/sim/tests/states.rs`).

/// Whether anybody counts.
pub const COUNTS: bool = cfg!(feature = "probes");

/// Says that this place was reached; with a condition, if it holds. The condition is not looked at when nobody counts, so it must have no effect.
#[macro_export]
macro_rules! reached {
    ($name:literal) => {
        $crate::probe::reach($name)
    };
    ($name:literal, $is:expr) => {
        if $crate::probe::COUNTS && $is {
            $crate::probe::reach($name)
        }
    };
}

#[cfg(feature = "probes")]
mod counting {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        static REACHED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Counts one.
    pub fn reach(name: &'static str) {
        REACHED.with_borrow_mut(|reached| *reached.entry(name).or_default() += 1);
    }

    /// What this thread has reached since it was last asked, and how often.
    pub fn take() -> BTreeMap<&'static str, u64> {
        REACHED.take()
    }
}

#[cfg(feature = "probes")]
pub use counting::{reach, take};

/// Nobody counts.
#[cfg(not(feature = "probes"))]
#[inline(always)]
pub fn reach(_: &'static str) {}

#[cfg(all(test, feature = "probes"))]
mod tests {
    #[test]
    fn what_was_reached_is_counted_until_it_is_taken() {
        for number in 0..3 {
            reached!("probe-of-a-test");
            reached!("probe-of-a-test-that-is-met", number == 1);
            reached!("probe-of-a-test-that-is-never-met", number > 7);
        }
        let expected = [("probe-of-a-test", 3), ("probe-of-a-test-that-is-met", 1)];
        assert_eq!(super::take().into_iter().collect::<Vec<_>>(), expected);
        assert!(super::take().is_empty());
    }
}
