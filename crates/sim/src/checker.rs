//! What must hold of a run: linearizability, in the order of revisions.
//!
//! Revisions give the order in which writes took effect, so no search for one is needed: the history is
//! replayed in that order, and each answer is compared with what a model of the key space says at its revision (strict
//! serializability: Papadimitriou 1979; the real-time part as in Herlihy and Wing 1990). What has no revision of
//! its own, leases and refusals, must have been right at some moment between the question and the answer.

use crate::applied::{AppliedLog, Moment, Replayed};
use crate::clients::{Ask, Call, Outcome};
use crate::leases;
use crate::world::World;
use quorate_checker::model::{self, Model, State, range_of, says_changed};
use quorate_checker::order::{Floors, Sight};
use quorate_types::reply::{Answer, RangeAnswer};
use quorate_types::request::RangeRequest;
use quorate_types::{Event, LeaseId, Rejection, Request, Revision};
use std::collections::BTreeMap;
use std::fmt;

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The run.
    pub seed: u64,
    /// Over so many partitions.
    pub partitions: u32,
    /// When it was noticed.
    pub tick: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} at tick {}: {}\nto see it again: cargo xtask sim --seed {} --partitions {}",
            self.seed, self.tick, self.what, self.seed, self.partitions
        )
    }
}

/// What calls are compared with.
struct Truth<'a> {
    world: &'a World,
    states: BTreeMap<Revision, State>,
    replayed: Replayed,
}

/// Checks everything that was answered; how many leases ended.
pub fn check(world: &World) -> Result<u64, Violation> {
    let states = replay(world)?;
    let replayed = AppliedLog::replay(&world.applied).map_err(|what| world.violation(what))?;
    check_order(world)?;
    let truth = Truth { world, states, replayed };
    let mut makers: BTreeMap<Revision, &Call> = BTreeMap::new();
    for call in &world.calls {
        let Some(outcome) = &call.outcome else { continue };
        let problem = match (&call.ask, outcome) {
            (_, Outcome::Rejected(Rejection::Unknown)) => None,
            (Ask::Request(request), Outcome::Rejected(rejection)) => {
                check_absent(world, request).or_else(|| truth.refusal(call, request, rejection))
            }
            (Ask::Read(_), Outcome::Rejected(rejection)) => truth.read_refusal(call, rejection),
            (Ask::Read(request), Outcome::Read(revision, answer)) => truth.range(*revision, request, answer),
            (Ask::Request(request), Outcome::Reply(reply)) => {
                if says_changed(&reply.answer)
                    && let Some(other) = makers.insert(reply.revision, call)
                {
                    return Err(world.violation(format!("two calls made a revision: {other:?} and {call:?}")));
                }
                truth.reply(call, request, reply.revision, &reply.answer)
            }
            (Ask::Read(_), Outcome::Reply(_)) | (Ask::Request(_), Outcome::Read(..)) => {
                Some("it is the answer to something else".into())
            }
        };
        if let Some(problem) = problem {
            return Err(world.violation(format!("{problem}: {call:?}")));
        }
    }
    leases::check(world, &truth.replayed)?;
    Ok(truth.replayed.lives.iter().filter(|life| life.ended.is_some()).count() as u64)
}

/// The state after each revision.
fn replay(world: &World) -> Result<BTreeMap<Revision, State>, Violation> {
    let mut states = BTreeMap::from([(Revision::FIRST, State::new())]);
    let mut state = State::new();
    for (revision, (events, _)) in &world.history.revisions {
        model::apply(&mut state, *revision, events).map_err(|what| world.violation(what))?;
        states.insert(*revision, state.clone());
    }
    Ok(states)
}

/// Whoever asks after an answer was given, or a watch was told of something, sees at least what that saw.
fn check_order(world: &World) -> Result<(), Violation> {
    let seen = |call: &Call| call.outcome.as_ref().and_then(seen);
    let sights = world
        .calls
        .iter()
        .filter_map(|call| Some(Sight { answered: call.answered?, revision: seen(call)?, by: () }));
    let published = &world.history.published;
    let published =
        published.iter().map(|(step, revision)| Sight { answered: *step, revision: *revision, by: () });
    let floors = Floors::new(sights.chain(published).collect());
    for call in &world.calls {
        let Some(revision) = seen(call) else { continue };
        let is_write = matches!(&call.outcome, Some(Outcome::Reply(reply)) if says_changed(&reply.answer));
        if let Some(floor) = floors.above(call.asked, revision, is_write) {
            let floor = floor.revision;
            return Err(world
                .violation(format!("{call:?} saw {revision} after {floor} had been answered or published")));
        }
    }
    Ok(())
}

fn seen(outcome: &Outcome) -> Option<Revision> {
    match outcome {
        Outcome::Reply(reply) => Some(reply.revision),
        Outcome::Read(revision, _) => Some(*revision),
        Outcome::Rejected(_) => None,
    }
}

/// Values are unique, so a call that was refused must have left none.
fn check_absent(world: &World, request: &Request) -> Option<String> {
    let values = model::values_of(request);
    let found = world.history.revisions.iter().find(|(_, (events, _))| {
        events.iter().any(|event| {
            // A later put may keep the value, so only the first with it counts, and there must be none.
            matches!(event, Event::Put(pair) if values.contains(&&pair.value))
        })
    });
    found.map(|(revision, _)| format!("refused, but carried out at {revision}"))
}

impl Truth<'_> {
    /// The state as of a revision.
    fn state(&self, at: Revision) -> Option<&State> {
        self.states.range(..=at).next_back().map(|(_, state)| state)
    }

    /// The moments between a call and its answer: one of them must fit.
    fn moments(&self, call: &Call) -> &[Moment] {
        let moments = &self.replayed.moments;
        // What somebody had applied when it was asked was committed, so the answer cannot be from before.
        let first = moments.partition_point(|moment| moment.tick < call.asked_tick).saturating_sub(1);
        let end = moments.partition_point(|moment| call.answered_tick.is_none_or(|tick| moment.tick <= tick));
        &moments[first..end.max(first + 1)]
    }

    fn once(&self, call: &Call, what: &str, fits: impl Fn(&Moment) -> bool) -> Option<String> {
        (!self.moments(call).iter().any(fits)).then(|| format!("at no time {what}"))
    }

    fn refusal(&self, call: &Call, request: &Request, rejection: &Rejection) -> Option<String> {
        match rejection {
            // Moments follow the order in which partitions' entries were seen, so one partition's newest revision may hide another's: any
            // revision will do that the call can have met.
            Rejection::KeyNotFound if self.world.has_partitions() => {
                let moments = self.moments(call);
                let (first, last) = (moments[0].revision, moments[moments.len() - 1].revision);
                let mut met = self.states.range(first..).filter(|(revision, _)| {
                    let applied = self.world.history.revisions.get(revision);
                    let is_timely =
                        applied.is_some_and(|(_, tick)| call.answered_tick.is_none_or(|end| *tick <= end));
                    **revision <= last || is_timely
                });
                let at_first = self.state(first).into_iter();
                let is_missing = |state: &State| Model::new(state, first).answer(request).is_none();
                let was_missing = at_first.chain(met.by_ref().map(|(_, state)| state)).any(is_missing);
                (!was_missing).then(|| "at no time was a key missing".into())
            }
            Rejection::KeyNotFound => self.once(call, "was a key missing", |moment| {
                let state = self.state(moment.revision);
                state.is_some_and(|state| Model::new(state, moment.revision).answer(request).is_none())
            }),
            Rejection::LeaseNotFound(lease) => {
                self.once(call, "was the lease missing", |moment| !moment.leases.contains_key(lease))
            }
            Rejection::LeaseExists(lease) => {
                self.once(call, "was there such a lease", |moment| moment.leases.contains_key(lease))
            }
            _ => self.read_refusal(call, rejection),
        }
    }

    fn read_refusal(&self, call: &Call, rejection: &Rejection) -> Option<String> {
        match rejection {
            // Whoever reads his own copy knows what any partition of it has compacted, before any leader answers for it.
            Rejection::Compacted { asked, oldest } if self.world.has_partitions() => {
                let compacted = |(tick, revision): &(u64, Revision)| {
                    revision == oldest && call.answered_tick.is_none_or(|answer| *tick <= answer)
                };
                let was_compacted =
                    *oldest == Revision::FIRST || self.replayed.compactions.iter().any(compacted);
                (!was_compacted || *asked > oldest.0 as i64).then(|| "at no time was it compacted".into())
            }
            Rejection::Compacted { asked, oldest } => self.once(call, "was it compacted", |moment| {
                moment.compacted.unwrap_or(Revision::FIRST) == *oldest && *asked <= oldest.0 as i64
            }),
            // Of several partitions the sequencer says how far it is, which nobody may have applied.
            Rejection::FutureRevision { asked, newest } if self.world.has_partitions() => {
                let is_fresh = self.moments(call)[0].revision <= *newest;
                (!is_fresh || *asked <= newest.0 as i64).then(|| "that is not in the future".into())
            }
            Rejection::FutureRevision { asked, newest } => {
                self.once(call, "was that the newest revision", |moment| {
                    moment.revision == *newest && *asked > newest.0 as i64
                })
            }
            _ => None,
        }
    }

    fn range(&self, revision: Revision, request: &RangeRequest, answer: &RangeAnswer) -> Option<String> {
        let at = request.revision.map_or(revision, |asked| Revision(asked as u64));
        let Some(state) = self.state(at).filter(|_| at <= revision) else {
            return Some(format!("answered at {at}, which does not exist"));
        };
        let expected = range_of(state, request);
        (*answer != expected).then(|| format!("at {revision} it should have been {expected:?}"))
    }

    fn reply(&self, call: &Call, request: &Request, revision: Revision, answer: &Answer) -> Option<String> {
        let has = |lease: &LeaseId, ttl: u64| {
            let lease = *lease;
            move |moment: &Moment| moment.leases.get(&lease) == Some(&ttl)
        };
        match (request, answer) {
            (Request::Put(_) | Request::DeleteRange(_) | Request::Txn(_) | Request::Range(_), _) => {
                self.evaluated(request, revision, answer)
            }
            (Request::Compact { revision, .. }, Answer::Compact) => {
                self.once(call, "was it compacted", |moment| {
                    moment.compacted.is_some_and(|compacted| compacted.0 as i64 >= *revision)
                })
            }
            (
                Request::LeaseGrant { lease, ttl_seconds },
                Answer::LeaseGrant { lease: granted, ttl_seconds: ttl },
            ) => {
                if lease != granted || *ttl_seconds != *ttl as i64 {
                    return Some("another lease was granted".into());
                }
                self.once(call, "was it there", has(lease, *ttl))
            }
            (Request::LeaseRevoke { lease }, Answer::LeaseRevoke) => {
                self.once(call, "was it gone", |moment| !moment.leases.contains_key(lease))
            }
            (Request::LeaseKeepAlive { lease }, Answer::LeaseKeepAlive { ttl_seconds: Some(ttl) }) => {
                self.once(call, "was it there", has(lease, *ttl))
            }
            (Request::LeaseKeepAlive { lease }, Answer::LeaseKeepAlive { ttl_seconds: None })
            | (Request::LeaseTimeToLive { lease, .. }, Answer::LeaseTimeToLive(None)) => {
                self.once(call, "was it gone", |moment| !moment.leases.contains_key(lease))
            }
            (Request::LeaseTimeToLive { lease, .. }, Answer::LeaseTimeToLive(Some(time))) => {
                let state = self.state(revision)?;
                let keys: Vec<_> =
                    state.values().filter(|pair| pair.lease == Some(*lease)).map(|pair| &pair.key).collect();
                if time.keys.iter().ne(keys.iter().copied()) {
                    return Some(format!("at {revision} its keys are {keys:?}"));
                }
                if time.remaining_seconds > time.granted_seconds {
                    return Some("it has more left than it was granted".into());
                }
                self.once(call, "was it there", has(lease, time.granted_seconds))
            }
            (Request::Leases, Answer::Leases(leases)) => {
                let mut leases = leases.clone();
                leases.sort_unstable();
                // Several partitions are asked one after the other: each lease was there, or not, at some time.
                if self.world.has_partitions() {
                    let moments = self.moments(call);
                    let were_there =
                        leases.iter().all(|lease| moments.iter().any(|at| at.leases.contains_key(lease)));
                    let mut always = moments[0].leases.keys();
                    let are_all = always.all(|lease| {
                        leases.contains(lease) || !moments.iter().all(|at| at.leases.contains_key(lease))
                    });
                    return (!were_there || !are_all).then(|| {
                        let all: Vec<Vec<&LeaseId>> =
                            moments.iter().map(|at| at.leases.keys().collect()).collect();
                        format!("there were {all:?}, not these")
                    });
                }
                self.once(call, "were these all", |moment| moment.leases.keys().eq(&leases))
            }
            _ => Some("it is the answer to something else".into()),
        }
    }

    /// The model, on the state before, must give the same answer and the same events.
    fn evaluated(&self, request: &Request, revision: Revision, answer: &Answer) -> Option<String> {
        let is_changed = says_changed(answer);
        let base = if is_changed { revision.previous() } else { revision };
        let Some(state) = self.state(base) else {
            return Some(format!("answered at {revision}, which does not exist"));
        };
        let mut model = Model::new(state, base);
        let expected = model.answer(request);
        if expected.as_ref() != Some(answer) {
            return Some(format!("on the state of {base} the answer is {expected:?}"));
        }
        let events = self.world.history.revisions.get(&revision).map(|(events, _)| events);
        if is_changed && events != Some(&model.events) {
            return Some(format!("it should have changed {:?}, {revision} is {events:?}", model.events));
        }
        None
    }
}
