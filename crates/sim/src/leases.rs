//! The two promises about when a lease ends, in real time.
//!
//! * **Never early.** A lease does not run out before its time to live after the grant, and after each keep-alive that was
//!   answered, has passed; whatever leaders, pauses and clocks do. It counts from when the client *asked*, which is
//!   all that the client knows (`quorate_partition::lease`, "Never early"; etcd's lease API).
//! * **Not for ever.** When nothing fails, it ends within its time to live, an election timeout (which a new leader
//!   adds) and [`LATE_TICKS`]. Where a leadership is handed over, whichever it is, before it was due, that begins anew; in a healed cluster hand-overs do not go on for ever.
//!
//! Both hold up to the rate of clocks: a node counts ticks that are up to 5 % shorter or longer than ours.
//!
//! Caveat: which lease a revocation with an unknown outcome has ended cannot be told, so it excuses every end
//! of that id that follows. Clients of the simulation revoke few ids.

use crate::applied::{LeaseLife, Replayed};
use crate::checker::Violation;
use crate::clients::{Ask, Call, Outcome};
use crate::world::World;
use quorate_types::{Answer, Rejection, Request};

/// Ticks in a second of the simulated nodes.
const TICKS_PER_SECOND: u64 = 50;
/// The rates at which nodes' clocks may run, in thousandths: up to a tenth apart.
pub(crate) const RATE_MIN: u64 = 955;
/// See [`RATE_MIN`].
pub(crate) const RATE_MAX: u64 = 1_050;
/// What a new leader adds to every lease, as `quorate_partition::Limits` has it.
const ELECTION_TICKS: u64 = 40;
/// How late a lease may end while nothing fails: to be noticed, proposed, committed.
const LATE_TICKS: u64 = 60;
/// After healing a leader is elected, and the calls of before are over, by then.
const SETTLED_TICKS: u64 = 600;

/// Checks every lease that ever was.
pub(crate) fn check(world: &World, replayed: &Replayed) -> Result<(), Violation> {
    for life in &replayed.lives {
        let calls = || world.calls.iter().filter(|call| is_about(call, life));
        if let Some(ended) = life.ended {
            let kept = calls().filter_map(|call| kept_alive(call, life, ended));
            let promised = kept.chain([life.granted + shortest(life.ttl_seconds)]).max().unwrap_or_default();
            if ended < promised && !calls().any(|call| may_have_revoked(call, ended)) {
                return Err(world.violation(format!("{life:?} was promised until {promised}")));
            }
        }
        let settled = world.healed_tick + SETTLED_TICKS;
        // Any answer of these may have renewed it: also a "no" whose renewal was not confirmed.
        let renewed = calls().filter(|call| matches!(call.ask, Ask::Request(Request::LeaseKeepAlive { .. })));
        let renewed = renewed.filter_map(|call| call.answered_tick);
        let renewed = renewed.filter(|tick| life.ended.is_none_or(|ended| *tick <= ended));
        let last = renewed.chain([settled, life.begun]).max().unwrap_or_default();
        // Those before it was due; they ascend.
        let handed_over = world.hand_overs();
        let latest = handed_over.fold(last + longest(life.ttl_seconds), |latest, tick| {
            if (last..=latest).contains(&tick) { tick + longest(life.ttl_seconds) } else { latest }
        });
        let ended = life.ended.unwrap_or(u64::MAX);
        if ended > latest && world.now() > latest {
            return Err(world.violation(format!("{life:?} should have ended by {latest}")));
        }
    }
    Ok(())
}

fn shortest(ttl_seconds: u64) -> u64 {
    // A tick is counted from its beginning, and one more is lost to rounding.
    (ttl_seconds * TICKS_PER_SECOND * 1_000 / RATE_MAX).saturating_sub(2)
}

fn longest(ttl_seconds: u64) -> u64 {
    (ttl_seconds * TICKS_PER_SECOND + ELECTION_TICKS) * 1_000 / RATE_MIN + LATE_TICKS
}

fn is_about(call: &Call, life: &LeaseLife) -> bool {
    let lease = match &call.ask {
        Ask::Request(Request::LeaseKeepAlive { lease } | Request::LeaseRevoke { lease }) => *lease,
        _ => return false,
    };
    lease == life.lease
}

/// Until when an answered keep-alive promised this life of the lease.
fn kept_alive(call: &Call, life: &LeaseLife, ended: u64) -> Option<u64> {
    let Some(Outcome::Reply(reply)) = &call.outcome else { return None };
    let Answer::LeaseKeepAlive { ttl_seconds: Some(ttl) } = reply.answer else { return None };
    // One that was asked in one life and answered in another, or within the tick that ended one and began the next, is about
    // either.
    let is_within = call.asked_tick > life.begun && call.answered_tick.is_some_and(|tick| tick < ended);
    is_within.then(|| call.asked_tick + shortest(ttl))
}

fn may_have_revoked(call: &Call, ended: u64) -> bool {
    matches!(call.ask, Ask::Request(Request::LeaseRevoke { .. }))
        && call.asked_tick <= ended
        && match &call.outcome {
            Some(Outcome::Reply(_)) => call.answered_tick.is_some_and(|tick| tick >= ended),
            Some(Outcome::Rejected(rejection)) => *rejection == Rejection::Unknown,
            Some(Outcome::Read(..)) => false,
            None => true,
        }
}
