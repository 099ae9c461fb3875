//! What is to go wrong: rules that can be added and taken away while the file system is in use.
//!
//! A rule says which calls, on which files, how often, and what happens. Of several that fit a call all apply; of two that fail it the older one says how.

use crate::content::Landing;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Reading files.
    Read,
    /// Writing files and changing their length.
    Write,
    /// fsync and fdatasync, also of directories.
    Sync,
    /// Making, renaming and removing files and directories.
    Name,
    /// All calls, also those that only look.
    Any,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The call fails. A sync that fails loses what was to be synced, and the next one succeeds.
    Fail(Errno),
    /// The call takes so long.
    Delay(Duration),
    /// The call waits until the rule is taken away.
    Hang,
    /// A write takes so many bytes at most.
    Short(usize),
    /// A read that includes this offset gets the byte there with these bits flipped.
    Flip {
        /// Where in the file.
        offset: u64,
        /// Which bits.
        mask: u8,
    },
    /// A page that is synced is not written.
    Lose,
    /// A page that is synced is written so many pages further on instead.
    Misdirect(i64),
}

/// What is to go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// In which calls; of no matter for [`Effect::Flip`], [`Effect::Lose`] and [`Effect::Misdirect`], which say so themselves.
    pub on: On,
    /// The path below the mount point, without a slash at its beginning; `*` stands for anything, also for slashes.
    pub path: String,
    /// How often, then no more; `None` for always. Pages count for [`Effect::Lose`] and [`Effect::Misdirect`], else calls.
    pub times: Option<u32>,
    /// What happens.
    pub effect: Effect,
}

/// Names a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId(pub u64);

/// What applies to a call.
#[derive(Debug, Default)]
pub struct Met {
    /// It fails with this.
    pub fail: Option<Errno>,
    /// A write takes no more than this.
    pub short: Option<usize>,
    /// Of a read: where bits flip, and which.
    pub flips: Vec<(u64, u8)>,
    delay: Duration,
    hangs: Vec<RuleId>,
}

impl Met {
    /// Whether the call does not happen at once.
    pub fn waits(&self) -> bool {
        self.delay > Duration::ZERO || !self.hangs.is_empty()
    }
}

#[derive(Default)]
struct Rules {
    /// Also those that have happened as often as they should.
    rules: BTreeMap<RuleId, (Rule, u64)>,
    next: u64,
    /// Calls that hang.
    hanging: usize,
}

/// All rules.
#[derive(Default)]
pub struct Faults {
    rules: Mutex<Rules>,
    changed: Condvar,
}

impl Rules {
    /// Those that fit and have not happened often enough; each now has happened once more.
    fn take(&mut self, fits: impl Fn(&Rule) -> bool) -> Vec<(RuleId, Effect)> {
        let mut taken = Vec::new();
        for (id, (rule, hits)) in &mut self.rules {
            if rule.times.is_none_or(|times| *hits < u64::from(times)) && fits(rule) {
                *hits += 1;
                taken.push((*id, rule.effect));
            }
        }
        taken
    }
}

impl Faults {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut rules = self.rules();
        let id = RuleId(rules.next);
        rules.next += 1;
        rules.rules.insert(id, (rule, 0));
        id
    }

    /// Takes a rule away; calls that hang by it go on. Whether there was one.
    pub fn clear(&self, id: RuleId) -> bool {
        let was_there = self.rules().rules.remove(&id).is_some();
        self.changed.notify_all();
        was_there
    }

    /// Takes all rules away.
    pub fn clear_all(&self) {
        self.rules().rules.clear();
        self.changed.notify_all();
    }

    /// How often a rule has applied.
    pub fn hits(&self, id: RuleId) -> u64 {
        self.rules().rules.get(&id).map_or(0, |(_, hits)| *hits)
    }

    /// All rules with how often they have applied.
    pub fn list(&self) -> Vec<(RuleId, Rule, u64)> {
        self.rules().rules.iter().map(|(id, (rule, hits))| (*id, rule.clone(), *hits)).collect()
    }

    /// How many calls hang.
    pub fn hanging(&self) -> usize {
        self.rules().hanging
    }

    /// What applies to a call on a file; `range` is what is read.
    pub fn meet(&self, on: On, path: &str, range: std::ops::Range<u64>) -> Met {
        let fits = |rule: &Rule| {
            let is_meant = match rule.effect {
                Effect::Flip { offset, .. } => on == On::Read && range.contains(&offset),
                Effect::Lose | Effect::Misdirect(_) => false,
                Effect::Short(_) => on == On::Write,
                Effect::Fail(_) | Effect::Delay(_) | Effect::Hang => rule.on == On::Any || rule.on == on,
            };
            is_meant && matches(&rule.path, path)
        };
        let mut met = Met::default();
        for (id, effect) in self.rules().take(fits) {
            match effect {
                Effect::Fail(error) => met.fail = met.fail.or(Some(error)),
                Effect::Delay(delay) => met.delay += delay,
                Effect::Hang => met.hangs.push(id),
                Effect::Short(bytes) => met.short = Some(met.short.map_or(bytes, |other| other.min(bytes))),
                Effect::Flip { offset, mask } => met.flips.push((offset, mask)),
                Effect::Lose | Effect::Misdirect(_) => {}
            }
        }
        met
    }

    /// Where a page goes that is written back.
    pub fn landing(&self, path: &str, page: u64) -> Landing {
        let fits = |rule: &Rule| {
            matches!(rule.effect, Effect::Lose | Effect::Misdirect(_)) && matches(&rule.path, path)
        };
        let taken = self.rules().take(fits);
        match taken.first() {
            None => Landing::Home,
            Some((_, Effect::Misdirect(by))) => {
                page.checked_add_signed(*by).map_or(Landing::Nowhere, Landing::At)
            }
            Some(_) => Landing::Nowhere,
        }
    }

    /// Waits for as long as the call is to take.
    pub fn wait(&self, met: &Met) {
        std::thread::sleep(met.delay);
        let mut rules = self.rules();
        rules.hanging += 1;
        while met.hangs.iter().any(|id| rules.rules.contains_key(id)) {
            rules = self.changed.wait(rules).unwrap_or_else(PoisonError::into_inner);
        }
        rules.hanging -= 1;
    }
}

/// Whether a path is what a pattern means.
pub fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let mut is_open = false;
    let parts: Vec<&str> = parts.collect();
    for (at, part) in parts.iter().enumerate() {
        if at + 1 == parts.len() {
            return rest.ends_with(part);
        }
        let Some(found) = rest.find(part) else { return false };
        rest = &rest[found + part.len()..];
        is_open = true;
    }
    is_open || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, path, expected) in [
            ("*", "", true),
            ("*", "a/b", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("log/*", "log/1.log", true),
            ("log/*", "n1/log/1.log", false),
            ("*log/*.log", "n1/log/1.log", true),
            ("*log/*.log", "n1/log/spare", false),
            ("*.log", "x.log.new", false),
            ("a*a", "a", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_rule_applies_as_often_as_it_says() {
        let faults = Faults::default();
        let rule = Rule { on: On::Sync, path: "*".into(), times: Some(2), effect: Effect::Fail(Errno::IO) };
        let id = faults.add(rule);
        let is_failed = |on| faults.meet(on, "f", 0..0).fail.is_some();
        assert!(!is_failed(On::Write));
        assert_eq!([(); 3].map(|()| is_failed(On::Sync)), [true, true, false]);
        assert_eq!(faults.hits(id), 2);
    }
}
