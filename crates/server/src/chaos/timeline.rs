//! What happened when, and for how long nothing was acknowledged meanwhile.

use quorate_checker::calls::Call;
use quorate_checker::model::says_changed;
use serde_json::{Value, json};

/// One fault, or several at a time, or a change of nodes. Times are microseconds.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) what: String,
    pub(super) begun: u64,
    /// When all was made well again.
    pub(super) healed: u64,
    /// When all nodes served again.
    pub(super) served: u64,
}

impl Entry {
    /// How long at most no write was acknowledged from its beginning until all nodes served again.
    pub(super) fn gap(&self, acknowledged: &[u64]) -> u64 {
        let first = acknowledged.partition_point(|at| *at < self.begun);
        let end = acknowledged.partition_point(|at| *at < self.served);
        let within = acknowledged[first..end].iter().copied();
        let mut gap = 0;
        let mut last = self.begun;
        for at in within.chain([self.served]) {
            gap = gap.max(at - last);
            last = at;
        }
        gap
    }

    pub(super) fn text(&self, acknowledged: &[u64]) -> String {
        let seconds = |micros: u64| micros as f64 / 1e6;
        format!(
            "{:>7.1} s  {}; made well after {:.1} s, served {:.1} s later; longest write gap {} ms",
            seconds(self.begun),
            self.what,
            seconds(self.healed.saturating_sub(self.begun)),
            seconds(self.served.saturating_sub(self.healed)),
            self.gap(acknowledged) / 1000
        )
    }

    pub(super) fn json(&self, acknowledged: &[u64]) -> Value {
        let millis = |micros: u64| micros / 1000;
        json!({
            "what": self.what,
            "begun_ms": millis(self.begun),
            "healed_ms": millis(self.healed),
            "served_ms": millis(self.served),
            "write_gap_ms": millis(self.gap(acknowledged)),
        })
    }
}

/// When writes were acknowledged, in order.
pub(super) fn acknowledged(calls: &[Call]) -> Vec<u64> {
    let changed = |call: &&Call| call.reply().is_some_and(|(_, answer)| says_changed(answer));
    let mut times: Vec<u64> = calls.iter().filter(changed).map(|call| call.answered).collect();
    times.sort_unstable();
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_reaches_from_the_fault_to_the_end() {
        let entry = Entry { what: "kill".into(), begun: 100, healed: 150, served: 200 };
        let check = |times: &[u64], gap: u64| assert_eq!(entry.gap(times), gap, "{times:?}");
        check(&[], 100);
        check(&[90, 210], 100);
        check(&[110, 170, 190], 60);
        check(&[160, 170], 60);
    }
}
