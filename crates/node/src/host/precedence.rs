//! Who has waited long for locks goes first: nobody starves behind those that came later.
//!
//! Locks are taken by whoever finds them free, which is fast and, where many want the same keys, unfair: an attempt over many partitions, or the end
//! of a lease, may find something locked each time it comes, for as long as others go on. So what has waited for [`LONG_TICKS`], all its attempts
//! counted, lays *claim* to what it touches: whoever came later and touches it stands behind, as if it were locked. And attempts that hold something of
//! it, have not waited long and are not decided yet are asked to *yield*: their coordinators give them up and begin them anew (wound-wait: Rosenkrantz,
//! Stearns, Lewis, "System level concurrency control", 1978; here for the old only).
//!
//! No deadlock comes of it: who waits in a partition waits for somebody who has waited longer there, or for a holder, who waits in a later partition
//! if at all ([`Attempt::in_order`]).
//!
//! Claims are a leader's own, in memory, a few, and forgotten when nobody has renewed them for a while. How long somebody has waited is told as a
//! number of ticks, so no clocks are compared; that messages take time makes it a little less, which does no harm: nobody yields to who has not waited much longer.
//!
//! [`Attempt::in_order`]: crate::transaction::Attempt::in_order

use super::Host;
use super::requests::footprint;
use super::transacting::LOOK_TICKS;
use crate::group::{Blocked, Group, Origin, Work};
use crate::transaction::{Phase, TxnMessage};
use quorate_mvcc::engine::Engine;
use quorate_partition::Claim;
use quorate_types::{Fault, Footprint, GroupId, LeaseId, Request, Tick, TxnId};
use std::collections::BTreeMap;

/// Who has waited for so long goes before those that came later; and nobody yields but to one who has waited so much longer. In ticks; as long as one
/// attempt waits for one vote.
const LONG_TICKS: u64 = 25;
/// A claim that nobody has renewed for so long is forgotten; in ticks.
const FORGOTTEN_TICKS: u64 = 2 * LOOK_TICKS;
/// So many have claims in one partition, those that have waited longest; the others' turn comes.
const CLAIMS_MAX: usize = 16;

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// An attempt at a transaction over partitions.
    Attempt(TxnId),
    /// A request that is this partition's alone.
    Request(Origin),
    /// The end of a lease.
    LeaseEnd(LeaseId),
}

#[derive(Debug)]
struct Claimed {
    since: Tick,
    renewed: Tick,
    waiter: Waiter,
    claim: Claim,
}

/// The claims in one partition, longest wait first.
#[derive(Debug, Default)]
pub(crate) struct Precedence {
    claims: Vec<Claimed>,
    /// Somebody has gone whom others stood behind, and who held no lock that is given back.
    has_freed: bool,
}

impl Precedence {
    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Whether somebody else has waited longer, and long, for something of this.
    pub(crate) fn stands_before(&self, waiter: Waiter, since: Tick, asked: &Footprint) -> bool {
        let longer = self.claims.iter().take_while(|claimed| claimed.since < since);
        longer.filter(|claimed| claimed.waiter != waiter).any(|claimed| claimed.claim.excludes(asked))
    }

    /// Notes that somebody waits; nothing comes of it before it has lasted.
    pub(crate) fn wait(&mut self, waiter: Waiter, since: Tick, asked: &Footprint, now: Tick) {
        if now.since(since) < LONG_TICKS {
            return;
        }
        if let Some(claimed) = self.claims.iter_mut().find(|claimed| claimed.waiter == waiter) {
            claimed.renewed = now;
            return;
        }
        let at = self.claims.partition_point(|claimed| claimed.since <= since);
        if at < CLAIMS_MAX {
            let claim = Claim::new(asked.clone());
            self.claims.insert(at, Claimed { since, renewed: now, waiter, claim });
            self.claims.truncate(CLAIMS_MAX);
        }
    }

    /// It does not wait any more. Returns whether it had a claim.
    pub(crate) fn withdraw(&mut self, waiter: Waiter) -> bool {
        let before = self.claims.len();
        self.claims.retain(|claimed| claimed.waiter != waiter);
        let had_one = self.claims.len() < before;
        self.has_freed |= had_one;
        had_one
    }

    /// Whether somebody has withdrawn since this was asked last: those behind have to be woken.
    pub(crate) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.has_freed)
    }

    /// Forgets those that nobody has renewed. Returns whether there were any.
    fn forget(&mut self, now: Tick) -> bool {
        let before = self.claims.len();
        self.claims.retain(|claimed| now.since(claimed.renewed) < FORGOTTEN_TICKS);
        self.claims.len() < before
    }
}

/// Who waits when a request does.
fn waiter_of(work: &Work) -> Waiter {
    match work.request {
        Request::LeaseRevoke { lease } if work.origin == Origin::Own => Waiter::LeaseEnd(lease),
        _ => Waiter::Request(work.origin),
    }
}

impl<E: Engine> Group<E> {
    /// Whether a request has to wait: something of it is locked, or somebody has waited longer for it. If so, its wait is noted.
    pub(crate) fn is_to_wait(&mut self, work: &Work, now: Tick) -> Result<bool, Fault> {
        let Some(partition) = self.partition() else { return Ok(false) };
        if !partition.has_locks() && self.precedence.is_empty() {
            return Ok(false);
        }
        let footprint = partition.with_keys_of_leases(footprint(&work.request))?;
        let waiter = waiter_of(work);
        // A renewal may come before the end that waits: then there is none.
        let may_pass = matches!(work.request, Request::LeaseKeepAlive { .. });
        let stands_behind = !may_pass && self.precedence.stands_before(waiter, work.received, &footprint);
        let waits = partition.is_locked(&footprint) || stands_behind;
        if waits {
            self.precedence.wait(waiter, work.received, &footprint, now);
        } else {
            self.precedence.withdraw(waiter);
        }
        Ok(waits)
    }

    /// The same for an attempt's share here; one that does not wait is refused, and has no claim.
    pub(crate) fn is_share_to_wait(&mut self, txn: TxnId, since: Tick, footprint: &Footprint) -> bool {
        let Some(partition) = self.partition() else { return false };
        partition.is_locked(footprint)
            || self.precedence.stands_before(Waiter::Attempt(txn), since, footprint)
    }
}

impl<E: Engine> Host<E> {
    /// Notes who waits at each partition led here, forgets who does not any more, and asks for the locks of those that have not waited long.
    pub(super) fn tick_precedence(&mut self) -> Result<(), Fault> {
        let now = self.now;
        let mut yields: BTreeMap<(GroupId, TxnId), u64> = BTreeMap::new();
        for (id, group) in &mut self.groups {
            if group.blocked.is_empty() && group.precedence.is_empty() {
                continue;
            }
            let Some(partition) = group.state.partition() else {
                group.precedence = Precedence::default();
                continue;
            };
            for blocked in &group.blocked {
                let is_long = |since: Tick| now.since(since) >= LONG_TICKS;
                match blocked {
                    Blocked::Work(work) if is_long(work.received) => {
                        let footprint = partition.with_keys_of_leases(footprint(&work.request))?;
                        group.precedence.wait(waiter_of(work), work.received, &footprint, now);
                    }
                    Blocked::Home(txn, footprint, since) if is_long(*since) => {
                        group.precedence.wait(Waiter::Attempt(*txn), *since, footprint, now);
                    }
                    Blocked::Prepare(asked) if asked.waits && is_long(asked.since) => {
                        let waiter = Waiter::Attempt(asked.txn);
                        group.precedence.wait(waiter, asked.since, &asked.footprint, now);
                    }
                    Blocked::Work(_) | Blocked::Home(..) | Blocked::Prepare(_) => {}
                }
            }
            if group.precedence.forget(now) | group.precedence.take_freed() {
                self.rouse_blocked.insert(*id);
            }
            for claimed in &group.precedence.claims {
                let waited = now.since(claimed.since);
                for txn in partition.in_the_way_of(&claimed.claim) {
                    let most = yields.entry((*id, txn)).or_default();
                    *most = waited.max(*most);
                }
            }
        }
        for ((id, txn), waited) in yields {
            self.tell(id.keyspace, txn.home, TxnMessage::Yield { id: txn, waited });
        }
        Ok(())
    }

    /// Somebody has waited so long for what an attempt holds: if that has not, and is not decided, it is begun anew.
    pub(super) fn on_yield(&mut self, home: GroupId, id: TxnId, waited: u64) -> Result<(), Fault> {
        let Some(attempt) = self.attempts.get(&(home.keyspace, id)) else { return Ok(()) };
        let own = self.now.since(attempt.work.received);
        if attempt.phase == Phase::Collecting && waited >= own.saturating_add(LONG_TICKS) {
            return self.give_up(home.keyspace, id, true);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::Ticket;
    use quorate_types::{Key, KeyRange};

    fn touch(keys: &[&'static str]) -> Footprint {
        let exclusive = keys.iter().map(|key| KeyRange::Single(Key::from_static(key.as_bytes()))).collect();
        Footprint { exclusive, ..Footprint::default() }
    }

    fn client(number: u64) -> Waiter {
        Waiter::Request(Origin::Local(Ticket(number)))
    }

    #[test]
    fn who_came_later_stands_behind_who_has_waited_long() {
        let mut precedence = Precedence::default();
        let now = Tick(100);
        precedence.wait(client(1), Tick(100 - LONG_TICKS + 1), &touch(&["a"]), now);
        assert!(precedence.is_empty(), "it has not waited long");
        precedence.wait(client(1), Tick(10), &touch(&["a", "b"]), now);
        let later = |precedence: &Precedence, keys: &[&'static str]| {
            precedence.stands_before(client(2), Tick(11), &touch(keys))
        };
        assert!(later(&precedence, &["b"]) && !later(&precedence, &["c"]));
        assert!(!precedence.stands_before(client(2), Tick(9), &touch(&["a"])), "that one has waited longer");
        assert!(
            !precedence.stands_before(client(1), Tick(11), &touch(&["a"])),
            "nobody stands behind himself"
        );
        assert!(precedence.withdraw(client(1)) && !later(&precedence, &["b"]));
    }

    #[test]
    fn those_that_have_waited_longest_have_the_claims_and_who_is_gone_has_none() {
        let mut precedence = Precedence::default();
        let waiters = CLAIMS_MAX as u64 + 4;
        for number in (0..waiters).rev() {
            precedence.wait(client(number), Tick(number), &touch(&["a"]), Tick(200));
        }
        assert_eq!(precedence.claims.len(), CLAIMS_MAX);
        let waits = |precedence: &Precedence, number: u64| {
            precedence.claims.iter().any(|claimed| claimed.waiter == client(number))
        };
        assert!((0..waiters).all(|number| waits(&precedence, number) == (number < CLAIMS_MAX as u64)));
        precedence.wait(client(3), Tick(3), &touch(&["a"]), Tick(200 + FORGOTTEN_TICKS));
        assert!(precedence.forget(Tick(200 + FORGOTTEN_TICKS)));
        assert!(waits(&precedence, 3) && precedence.claims.len() == 1);
    }
}
