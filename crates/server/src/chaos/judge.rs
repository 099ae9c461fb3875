//! When all is over: the history that the nodes have, whether it is the same on all of them, and whether what clients were told fits it.

use super::book::{Compaction, Written};
use super::client::channel_to;
use super::load::{BANK, LEASE_TOLERANCE_MICROS, NO_SPACE, sum, total};
use super::prefix::Prefix;
use super::watching::Stream;
use super::wire::{event, revision_of as revision_of_header};
use quorate_api::pb;
use quorate_api::pb::maintenance_client::MaintenanceClient;
use quorate_checker::calls::{Call, Outcome};
use quorate_checker::model::{self, State};
use quorate_checker::watches::revision_of;
use quorate_checker::{History, Violation, leases, strict, watches};
use quorate_types::request::PutLease;
use quorate_types::{Answer, KeyRange, Request, Revision};
use std::time::{Duration, Instant};

/// How a refusal begins to read what was compacted, and what it says. One for the future begins alike.
const OUT_OF_RANGE: &str = "OutOfRange";
const COMPACTED: &str = "compacted";
const REFUSALS_SHOWN: usize = 5;
const PAUSE: Duration = Duration::from_millis(100);
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What was found, and how much there was.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) violations: Vec<Violation>,
    pub(super) revisions: usize,
    pub(super) unknown_carried_out: u64,
    pub(super) leases_ended: usize,
    pub(super) audits: usize,
}

/// Why a node did not tell the history.
#[derive(Debug)]
pub(super) enum Untold {
    /// What comes next was compacted.
    Compacted(String),
    /// It has not told all of it in time.
    Late(String),
}

impl std::fmt::Display for Untold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Compacted(what) | Self::Late(what)) = self;
        f.write_str(what)
    }
}

/// Everything from a revision to another, as a watch at one node tells it.
pub(super) async fn history_of(
    address: &str,
    prefix: &Prefix,
    from: Revision,
    until: Revision,
    patience: Duration,
) -> Result<History, Untold> {
    let begun = Instant::now();
    let mut history = History::new();
    let mut next = from;
    while next <= until {
        if begun.elapsed() > patience {
            let what = format!("told of what is before revision {next}, of {until}, after {patience:?}");
            return Err(Untold::Late(what));
        }
        let Some(mut stream) = Stream::open(address, &prefix.range(&KeyRange::all()), next).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        while next <= until
            && let Some(response) = stream.next().await
        {
            if response.canceled && response.compact_revision > 0 {
                return Err(Untold::Compacted(format!("revision {next}, which comes next, was compacted")));
            }
            if response.canceled {
                break;
            }
            if response.events.is_empty() && !response.created {
                next = next.max(revision_of_header(response.header.as_ref()).next());
            }
            for event in response.events.into_iter().filter_map(event).map(|event| prefix.event(event)) {
                let revision = revision_of(&event);
                next = next.max(revision.next());
                history.entry(revision).or_default().push(event);
            }
        }
    }
    history.retain(|revision, _| *revision <= until);
    Ok(history)
}

/// The hash of a node's history, if it has all of it itself.
pub(super) async fn hash_of(address: &str, until: Revision) -> Option<u32> {
    let channel = channel_to(address, Some(ANSWER_MAX)).ok()?;
    let request = pb::HashKvRequest { revision: until.0 as i64 };
    let answer = MaintenanceClient::new(channel).hash_kv(request).await.ok()?;
    Some(answer.into_inner().hash)
}

/// All nodes tell the same; the first of them is right.
pub(super) fn same(histories: &[(String, History)], violations: &mut Vec<Violation>) {
    let Some(((first, truth), others)) = histories.split_first() else { return };
    for (node, history) in others {
        let differs = |revision: &&Revision| truth.get(revision) != history.get(revision);
        if let Some(revision) = truth.keys().chain(history.keys()).filter(differs).min() {
            let evidence = vec![shown(first, truth.get(revision)), shown(node, history.get(revision))];
            violations.push(Violation::new(format!("nodes differ about revision {revision}"), evidence));
        }
    }
}

/// A node tells what all have told before.
pub(super) fn same_as_kept(kept: &History, told: (String, History), violations: &mut Vec<Violation>) {
    let (node, told) = told;
    let differs = |revision: &&Revision| kept.get(revision) != told.get(revision);
    if let Some(revision) = kept.keys().chain(told.keys()).filter(differs).min() {
        let evidence = vec![shown("told before", kept.get(revision)), shown(&node, told.get(revision))];
        let what = format!("{node} tells something else about revision {revision} than was told before");
        violations.push(Violation::new(what, evidence));
    }
}

/// What somebody tells of a revision.
fn shown(who: &str, events: Option<&Vec<quorate_types::Event>>) -> String {
    match events {
        Some(events) => format!("{who}: {events:?}"),
        None => format!("{who}: nothing"),
    }
}

/// Checks all that was written down against the history.
pub(super) fn check(history: &History, written: &Written, until: Revision) -> Verdict {
    let floors = strict::floors(&written.calls, written.sights.clone());
    let findings = strict::check(history, &written.calls, &floors);
    let mut violations = written.wrong.clone();
    violations.extend(findings.violations);
    for watched in &written.watched {
        violations.extend(watches::check(history, watched, until).err());
    }
    for (watched, until) in &written.late {
        violations.extend(watches::check(history, watched, *until).err());
    }
    violations.extend(leases::check(&written.leases, &findings.ends, &floors, LEASE_TOLERANCE_MICROS));
    violations.extend(refusals(written));
    if written.told_compacted > until {
        let compacted = written.told_compacted;
        let what = format!(
            "a watch was told that what is before revision {compacted} was compacted; the newest is {until}"
        );
        violations.push(Violation::new(what, Vec::new()));
    }
    let audits = bank(history, written, &mut violations);
    Verdict {
        violations,
        revisions: history.len(),
        unknown_carried_out: findings.carried_out,
        leases_ended: findings.ends.len(),
        audits,
    }
}

/// Whether a node may have said that it has no space.
fn is_for_space(written: &Written, call: &Call) -> bool {
    let says_so = matches!(&call.outcome, Outcome::Refused(why) if why.starts_with(NO_SPACE));
    let meets = |(from, until): &(u64, Option<u64>)| {
        *from <= call.answered && until.is_none_or(|until| call.asked <= until)
    };
    says_so && written.scarce.iter().any(meets)
}

/// Whether a call is for what may have been compacted when it was answered.
fn is_for_the_past(written: &Written, call: &Call) -> bool {
    let (Request::Range(range), Outcome::Refused(why)) = (&call.request, &call.outcome) else { return false };
    let Some(revision) = range.revision else { return false };
    let compacts = |compaction: &Compaction| {
        compaction.asked <= call.answered && (revision.max(0) as u64) < compaction.until.0
    };
    why.starts_with(OUT_OF_RANGE) && why.contains(COMPACTED) && written.compactions.iter().any(compacts)
}

/// Clients ask for nothing that may be refused, but for keys under leases that have ended meanwhile, for space while there is none, and for a past that was compacted.
fn refusals(written: &Written) -> Option<Violation> {
    let is_leased =
        |request: &Request| matches!(request, Request::Put(put) if matches!(put.lease, PutLease::Attach(_)));
    let refused = written.calls.iter().filter(|call| matches!(call.outcome, Outcome::Refused(_)));
    let refused: Vec<String> = refused
        .filter(|call| {
            !is_leased(&call.request) && !is_for_space(written, call) && !is_for_the_past(written, call)
        })
        .map(ToString::to_string)
        .collect();
    let what = format!("{} calls were refused that make sense", refused.len());
    (!refused.is_empty()).then(|| Violation::new(what, refused.into_iter().take(REFUSALS_SHOWN).collect()))
}

/// The total never changes: after every revision, and in every read of all accounts. How many there were of these.
fn bank(history: &History, written: &Written, violations: &mut Vec<Violation>) -> usize {
    let accounts = KeyRange::prefix(BANK);
    let mut state = State::new();
    let mut is_open = false;
    for (revision, events) in history {
        let of_bank: Vec<_> = events.iter().filter(|event| accounts.contains(event.key())).cloned().collect();
        if of_bank.is_empty() {
            continue;
        }
        // That it does not fit is found elsewhere.
        if model::apply(&mut state, *revision, &of_bank).is_err() {
            break;
        }
        is_open = true;
        let found = sum(state.values());
        if found != Some(total()) {
            let what = format!("after revision {revision} the accounts hold {found:?}, not {}", total());
            violations.push(Violation::new(what, vec![format!("{of_bank:?}")]));
            break;
        }
    }
    if !is_open {
        violations.push(Violation::new("the accounts were never opened", Vec::new()));
    }
    let mut audits = 0;
    for call in &written.calls {
        let Some((_, Answer::Range(range))) = call.reply() else { continue };
        let is_whole = matches!(&call.request, Request::Range(range) if range.range == accounts);
        // Before they are opened there are none.
        if is_whole && !range.pairs.is_empty() {
            audits += 1;
            let found = sum(range.pairs.iter());
            if found != Some(total()) {
                let what = format!("an audit found {found:?}, not {}", total());
                violations.push(Violation::new(what, vec![call.to_string()]));
            }
        }
    }
    audits
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::request::RangeRequest;

    fn written(told_compacted: u64, compactions: Vec<Compaction>, calls: Vec<Call>) -> Written {
        let (leases, sights, watched, wrong, scarce, late) = Default::default();
        let told_compacted = Revision(told_compacted);
        Written { calls, leases, sights, watched, wrong, scarce, compactions, told_compacted, late }
    }

    fn put(revision: u64, value: &'static str) -> (Revision, Vec<quorate_types::Event>) {
        let (modified, create) = (Revision(revision), Revision(revision));
        let pair = quorate_types::KeyValue {
            key: "k".into(),
            value: value.into(),
            create,
            modified,
            version: 1,
            lease: None,
        };
        (modified, vec![quorate_types::Event::Put(pair)])
    }

    fn history(values: &[(u64, &'static str)]) -> History {
        values.iter().map(|(revision, value)| put(*revision, value)).collect()
    }

    #[test]
    fn what_was_told_before_is_told_again() {
        let kept = history(&[(5, "a"), (6, "b"), (9, "c")]);
        let check = |told: History, expected: Option<&str>| {
            let mut violations = Vec::new();
            same_as_kept(&kept, ("n2".into(), told), &mut violations);
            let found = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            match expected {
                Some(words) => assert!(violations.len() == 1 && found.contains(words), "{found}"),
                None => assert_eq!(found, ""),
            }
        };
        check(kept.clone(), None);
        // Lost, changed, and one that never was: the first of them is told of.
        check(history(&[(5, "a"), (9, "c")]), Some("about revision 6"));
        check(history(&[(5, "a"), (6, "x"), (9, "c")]), Some("about revision 6"));
        check(history(&[(5, "a"), (6, "b"), (7, "d"), (9, "c")]), Some("about revision 7"));
        check(History::new(), Some("about revision 5"));
    }

    /// A read of the past is refused for what was compacted by then, and for nothing else.
    #[test]
    fn what_is_refused_for_the_past_says_so() {
        let call = |revision, answered, why: &str| {
            let range = KeyRange::Single("k".into());
            let request =
                Request::Range(RangeRequest { revision: Some(revision), ..RangeRequest::new(range) });
            let (outcome, node) = (Outcome::Refused(why.into()), "n1".to_owned());
            Call { client: 1, node, request, asked: answered - 1, answered, outcome }
        };
        let check = |call: Call, expected: usize| {
            let compactions = vec![Compaction { asked: 100, until: Revision(50) }];
            let what = call.to_string();
            assert_eq!(
                refusals(&written(0, compactions, vec![call])).into_iter().count(),
                expected,
                "{what}"
            );
        };
        let compacted = "OutOfRange: etcdserver: mvcc: required revision has been compacted";
        check(call(49, 101, compacted), 0);
        check(call(50, 101, compacted), 1);
        check(call(49, 99, compacted), 1);
        check(call(49, 101, "OutOfRange: etcdserver: mvcc: required revision is a future revision"), 1);
        check(call(49, 101, "Internal: compacted"), 1);
    }

    #[test]
    fn what_is_said_to_be_the_oldest_was_there() {
        let wrong = |told_compacted| {
            let verdict =
                check(&History::new(), &written(told_compacted, Vec::new(), Vec::new()), Revision(9));
            verdict.violations.iter().any(|violation| violation.to_string().contains("was compacted"))
        };
        assert!(!wrong(0) && !wrong(9));
        assert!(wrong(10) && wrong(u64::MAX));
    }
}
