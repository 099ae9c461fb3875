//! The history as far as all nodes have told the same of it, which is kept: what it says may then be compacted, while clients read and watch.

use super::faults::{Ended, Tormentor};
use super::judge::{self, Untold};
use quorate_api::pb;
use quorate_api::pb::kv_client::KvClient;
use quorate_checker::{History, Violation};
use quorate_types::Revision;
use std::time::{Duration, Instant};
use tonic::Code;

/// Fewer revisions are not worth it.
const COMPACTED_MIN: u64 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// What is known of the history.
#[derive(Default)]
pub(super) struct Chronicle {
    pub(super) history: History,
    /// All nodes have told everything up to here.
    until: Revision,
    /// The oldest revision that can be read, unless nothing was compacted yet.
    compacted: Revision,
    /// When nodes told it last, in microseconds.
    pub(super) told: u64,
}

impl Chronicle {
    /// From where on everybody has to have everything, if it is ours from `first` on.
    fn kept_from(&self, first: Revision) -> Revision {
        self.compacted.next().max(first)
    }

    /// What nodes have told of this revision and those that came after it.
    fn kept(&self, from: Revision) -> History {
        self.history.range(from..).map(|(revision, events)| (*revision, events.clone())).collect()
    }
}

impl Tormentor {
    /// When all is well: all nodes tell what came since, up to this revision, and it is the same.
    pub(super) async fn chronicle(
        &mut self,
        until: Revision,
        violations: &mut Vec<Violation>,
    ) -> Result<(), Ended> {
        let from = self.chronicle.until.next().max(self.book.first);
        let mut histories = Vec::new();
        for (name, address) in self.cluster.members() {
            match judge::history_of(&address, &self.book.prefix, from, until, self.patience).await {
                Ok(history) => histories.push((name, history)),
                // There others compact. That is not ours to judge, but what was found before it is.
                Err(Untold::Compacted(what)) if self.book.is_guest && violations.is_empty() => {
                    return Err(Ended::Ours(format!("{name}: {what}")));
                }
                Err(what) => violations.push(Violation::new(format!("{name}: {what}"), Vec::new())),
            }
        }
        judge::same(&histories, violations);
        let Some((_, history)) = histories.into_iter().next() else {
            // Without a history nothing else can be checked.
            let nobody = || Violation::new("no node tells its history", Vec::new());
            return Err(Ended::Wrong(violations.pop().unwrap_or_else(nobody)));
        };
        self.chronicle.history.extend(history);
        self.chronicle.told = self.now();
        self.chronicle.until = until.max(self.chronicle.until);
        Ok(())
    }

    /// When all is over: all nodes tell once more what was not compacted, and it is still what they have told before. What is told while it is new
    /// says nothing about what has become of it.
    pub(super) async fn tell_again(&mut self, violations: &mut Vec<Violation>) {
        let (from, until) = (self.chronicle.kept_from(self.book.first), self.chronicle.until);
        let kept = self.chronicle.kept(from);
        for (name, address) in self.cluster.members() {
            match judge::history_of(&address, &self.book.prefix, from, until, self.patience).await {
                Ok(history) => judge::same_as_kept(&kept, (name, history), violations),
                Err(what) => {
                    let what = format!("{name} was asked for its history once more: {what}");
                    violations.push(Violation::new(what, Vec::new()));
                }
            }
        }
    }

    /// The revision up to which is to be compacted; `part` of a thousand of what there is.
    pub(super) async fn next_compaction(&mut self, part: u64) -> Result<Option<Revision>, Ended> {
        let mut violations = Vec::new();
        self.chronicle(self.book.newest(), &mut violations).await?;
        if let Some(violation) = violations.into_iter().next() {
            return Err(Ended::Wrong(violation));
        }
        let (compacted, until) = (self.chronicle.compacted.0, self.chronicle.until.0);
        let there_is = until.saturating_sub(compacted);
        Ok((there_is >= COMPACTED_MIN).then(|| Revision(compacted + (there_is * part / 1_000).max(1))))
    }

    /// Asks for a compaction, until somebody says that it is done, or this time is over; then nobody knows.
    pub(super) async fn compact(&mut self, until: Revision, time: Duration) -> Result<(), Ended> {
        self.book.compacts(until);
        self.chronicle.compacted = until;
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.all_live()?;
            let (name, channel) = self.client.node().await;
            let request = pb::CompactionRequest { revision: until.0 as i64, physical: false };
            match KvClient::new(channel).compact(request).await {
                Ok(_) => return Ok(()),
                // It was done by one before, of which nothing was heard.
                Err(status)
                    if status.code() == Code::OutOfRange && status.message().contains("compacted") =>
                {
                    return Ok(());
                }
                Err(status) if crate::cli::is_passing(&status) => {
                    self.client.turn().await;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(status) => {
                    let what = format!("{name} refuses to compact up to revision {until}: {status:?}");
                    return Err(self.wrong(what));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is not compacted is asked for once more, and nothing before what is ours.
    #[test]
    fn what_is_kept_begins_where_nothing_is_compacted() {
        let from = |compacted, first| {
            let chronicle = Chronicle { compacted: Revision(compacted), ..Chronicle::default() };
            chronicle.kept_from(Revision(first))
        };
        assert_eq!((from(0, 2), from(7, 2), from(7, 20)), (Revision(2), Revision(8), Revision(20)));
    }
}
