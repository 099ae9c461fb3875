//! The promise of a lease from outside: its keys do not go before its time is over, counted from when the client *asked* for the grant or for the
//! keep-alive that was answered, whatever leaders, pauses and losses there are; unless somebody asked for its end.
//!
//! When keys went nobody tells; only when anybody was first told of a revision at which they were gone.

use crate::Violation;
use crate::order::Floors;
use quorate_types::{LeaseId, Revision};
use std::collections::BTreeMap;

/// What a client knows of a lease that it was granted. Times are microseconds.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its id, used once.
    pub id: LeaseId,
    /// Granted.
    pub ttl: u64,
    /// When the grant and each keep-alive that succeeded was asked for, and answered.
    pub renewals: Vec<(u64, u64)>,
    /// When a keep-alive was answered that the lease was gone.
    pub told_gone: Option<u64>,
    /// When its end was asked for.
    pub revoked: Option<u64>,
}

/// Checks all leases; `ends` says at which revision keys went with theirs. `tolerance` is what is lost to rounding.
pub fn check<B: Copy>(
    leases: &[Lease],
    ends: &BTreeMap<LeaseId, Revision>,
    floors: &Floors<B>,
    tolerance: u64,
) -> Vec<Violation> {
    leases.iter().filter_map(|lease| check_one(lease, ends, floors, tolerance)).collect()
}

fn check_one<B: Copy>(
    lease: &Lease,
    ends: &BTreeMap<LeaseId, Revision>,
    floors: &Floors<B>,
    tolerance: u64,
) -> Option<Violation> {
    let ended = ends.get(&lease.id);
    let seen_gone = ended.and_then(|revision| floors.first_told(*revision));
    let gone = [seen_gone, lease.told_gone].into_iter().flatten().min()?;
    if lease.revoked.is_some_and(|asked| asked <= gone) {
        return None;
    }
    let what = |asked: u64, answered: u64| {
        let seconds = |micros: u64| micros as f64 / 1e6;
        vec![
            format!(
                "{:.6} to {:.6} s: lease {} was renewed for {:.0} s",
                seconds(asked),
                seconds(answered),
                lease.id,
                seconds(lease.ttl)
            ),
            format!("{:.6} s: it is gone{}", seconds(gone), at(ended)),
        ]
    };
    let (asked, answered) = *lease.renewals.last()?;
    if asked > gone {
        return Some(Violation::new(
            format!("lease {} was kept alive after its end", lease.id),
            what(asked, answered),
        ));
    }
    let is_early = gone + tolerance < asked + lease.ttl;
    is_early.then(|| {
        let early = (asked + lease.ttl - gone) as f64 / 1e6;
        Violation::new(format!("lease {} ended {early:.3} s too early", lease.id), what(asked, answered))
    })
}

fn at(ended: Option<&Revision>) -> String {
    ended.map_or(String::new(), |revision| format!(", its keys at revision {revision}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Sight;

    #[test]
    fn a_lease_that_ends_early_is_found() {
        let id = LeaseId::new(1).unwrap();
        // Somebody saw revision 9 at 7 s.
        let sights = vec![Sight { answered: 7_000_000, revision: Revision(9), by: () }];
        let floors = Floors::new(sights);
        let ends = BTreeMap::from([(id, Revision(9))]);
        let lease = |renewals: &[(u64, u64)]| Lease {
            id,
            ttl: 2_000_000,
            renewals: renewals.to_vec(),
            told_gone: None,
            revoked: None,
        };
        let check = |lease: Lease, ends: &BTreeMap<LeaseId, Revision>, expected: Option<&str>| {
            let found = super::check(&[lease], ends, &floors, 1000);
            assert_eq!(found.is_empty(), expected.is_none(), "{found:?}");
            assert!(found.iter().all(|found| found.what.contains(expected.unwrap_or_default())), "{found:?}");
        };
        check(lease(&[(4_900_000, 4_910_000)]), &ends, None);
        check(lease(&[(5_000_500, 5_010_000)]), &ends, None);
        check(lease(&[(5_010_000, 5_020_000)]), &ends, Some("0.010 s too early"));
        check(lease(&[(5_010_000, 5_020_000)]), &BTreeMap::new(), None);
        check(lease(&[(7_100_000, 7_200_000)]), &ends, Some("after its end"));
        check(Lease { revoked: Some(6_000_000), ..lease(&[(5_500_000, 5_600_000)]) }, &ends, None);
        let told_gone = Some(6_000_000);
        check(Lease { told_gone, ..lease(&[(5_500_000, 5_600_000)]) }, &BTreeMap::new(), Some("1.500 s"));
    }
}
