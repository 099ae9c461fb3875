//! How much of the machine somebody else has while we measure.
//!
//! The kernel counts the time in which processors ran programs; what our servers and we took of it is known. The rest is somebody else's, and so is what
//! the machine below us takes for itself (steal). Interrupts are left out: on loopback they are the load's own.
//!
//! Caveat: both are counted in hundredths of a second, so short measurements are coarse.

use crate::process;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So little time of others is not told from rounding.
const MICROS_MIN: f64 = 50_000.0;

/// A time in which it is watched.
pub(crate) struct Watch {
    begun: Instant,
    busy: f64,
    ours: BTreeMap<u32, f64>,
}

impl Watch {
    /// Begins, with these servers.
    pub(crate) fn start(servers: &[u32]) -> Self {
        let ours = servers.iter().copied().chain([std::process::id()]);
        let ours = ours.map(|pid| (pid, process::cpu_micros(&[pid]))).collect();
        Self { begun: Instant::now(), busy: busy_micros(), ours }
    }

    /// What part of all processors' time others had since then. Servers that were started meanwhile are among these.
    pub(crate) fn stop(&self, servers: &[u32]) -> f64 {
        let ours = servers.iter().copied().chain([std::process::id()]);
        let took = |pid: u32| process::cpu_micros(&[pid]) - self.ours.get(&pid).copied().unwrap_or(0.0);
        let ours: f64 = ours.map(|pid| took(pid).max(0.0)).sum();
        part(busy_micros() - self.busy, ours, self.begun.elapsed(), processors())
    }
}

fn part(busy: f64, ours: f64, elapsed: Duration, processors: f64) -> f64 {
    let others = busy - ours;
    if others < MICROS_MIN { 0.0 } else { others / (elapsed.as_secs_f64() * 1e6 * processors) }
}

fn processors() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

/// Time of all processors that went to programs (user, nice, system) or away (steal): the fields 1 to 3 and 8 of the first line.
fn busy_micros() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let of = |at: usize| fields.get(at).copied().unwrap_or(0.0);
    (of(0) + of(1) + of(2) + of(7)) * 1e6 / process::TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_ours_nor_rounding_is_somebody_elses() {
        let second = Duration::from_secs(1);
        assert_eq!(part(2e6, 1.96e6, second, 2.0), 0.0);
        assert_eq!(part(2e6, 1.5e6, second, 2.0), 0.25);
        assert_eq!(part(1e6, 1.5e6, second, 2.0), 0.0);
    }

    #[test]
    fn the_kernel_says_how_busy_the_machine_is() {
        assert!(busy_micros() > 0.0);
    }
}
