//! What a leader knows of one follower, and what it may send next (Raft paper, 5.3; thesis, 10.2.1).
//!
//! Invariant: `matched < next`, and `matched` never falls within a term. An answer that would break it
//! is late or repeated and changes nothing. Caveat: whether a follower answered lately, and what was
//! lost, is for the leader to notice from heartbeats; this type only keeps count.

use quorate_types::{Index, Position};

/// How entries are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Where the logs agree is not known: one append at a time, then wait for its answer or a heartbeat's.
    Probe {
        /// One is on its way.
        waiting: bool,
    },
    /// Appends leave one after the other without waiting; `next` runs ahead of `matched`.
    Replicate,
    /// Its next entries are gone; nothing is appended until a snapshot is there.
    Snapshot,
}

/// One follower, as its leader sees it.
#[derive(Clone, Debug)]
pub struct Progress {
    matched: Index,
    next: Index,
    mode: Mode,
    /// The last index of each append not yet answered, ascending.
    inflight: std::collections::VecDeque<Index>,
    inflight_max: usize,
}

impl Progress {
    /// At the start of a term: nothing is known, so the end of the leader's log is tried first.
    pub fn new(last: Index, inflight_max: usize) -> Self {
        Self {
            matched: Index::START,
            next: last.next(),
            mode: Mode::Probe { waiting: false },
            inflight: std::collections::VecDeque::new(),
            inflight_max,
        }
    }

    /// Known to be durable there and equal to the leader's.
    pub fn matched(&self) -> Index {
        self.matched
    }

    /// The first entry of the next append.
    pub fn next(&self) -> Index {
        self.next
    }

    /// How entries are sent.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether nothing more may be sent before an answer comes.
    pub fn is_paused(&self) -> bool {
        match self.mode {
            Mode::Probe { waiting } => waiting,
            Mode::Replicate => self.inflight.len() >= self.inflight_max,
            Mode::Snapshot => true,
        }
    }

    /// An append that ends at `last` leaves.
    pub fn sent(&mut self, last: Index) {
        assert!(!self.is_paused(), "sent up to {last} to a paused follower, {self:?}");
        match self.mode {
            Mode::Probe { .. } => self.mode = Mode::Probe { waiting: true },
            Mode::Replicate if last >= self.next => {
                self.next = last.next();
                self.inflight.push_back(last);
            }
            Mode::Replicate | Mode::Snapshot => {}
        }
    }

    /// The follower holds everything up to `matched`, which is at most the leader's last index. Returns
    /// whether that is news.
    pub fn acknowledged(&mut self, matched: Index) -> bool {
        while self.inflight.front().is_some_and(|last| *last <= matched) {
            self.inflight.pop_front();
        }
        let is_news = matched > self.matched;
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        // A repeated acknowledgement of 0 says nothing about where the logs agree; a probe's answer does,
        // also when it acknowledges what was known.
        if matched >= self.matched && matches!(self.mode, Mode::Probe { .. }) {
            self.next = self.matched.next();
            self.mode = Mode::Replicate;
        }
        is_news
    }

    /// The follower refused `refused` as a predecessor; `agreed` is the newest place where the leader's
    /// log may agree with the follower's hint. Returns whether the answer was current.
    pub fn rejected(&mut self, refused: Index, agreed: Position) -> bool {
        let is_current = match self.mode {
            // Only the probe on its way can be refused; any other number is an old answer.
            Mode::Probe { .. } => refused == self.next.previous(),
            Mode::Replicate => refused > self.matched && refused < self.next,
            Mode::Snapshot => false,
        };
        if !is_current {
            return false;
        }
        self.probe();
        // Falling to or below `matched` would send again, and for ever, what the follower acknowledged.
        self.next = agreed.index.next().min(refused).max(self.matched.next());
        true
    }

    /// Appends may have been lost: begin again right after what is known to be there.
    pub fn probe(&mut self) {
        self.inflight.clear();
        self.mode = Mode::Probe { waiting: false };
        self.next = self.matched.next();
    }

    /// It may be that everything up to there is the same: a probe of what comes next shows it.
    pub fn probe_after(&mut self, index: Index) {
        self.probe();
        self.next = self.next.max(index.next());
    }

    /// A probe got no answer: allows another.
    pub fn resume(&mut self) {
        if let Mode::Probe { waiting } = &mut self.mode {
            *waiting = false;
        }
    }

    /// The entries it needs are gone.
    pub fn await_snapshot(&mut self) {
        self.inflight.clear();
        self.mode = Mode::Snapshot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Term;

    fn at(index: u64) -> Position {
        Position { term: Term(1), index: Index(index) }
    }

    #[test]
    fn a_stale_rejection_never_moves_next_to_or_below_matched() {
        let mut progress = Progress::new(Index(9), 4);
        progress.acknowledged(Index(9));
        progress.sent(Index(12));
        assert!(!progress.rejected(Index(5), at(3)));
        assert!(progress.rejected(Index(12), at(3)));
        assert_eq!((progress.matched(), progress.next()), (Index(9), Index(10)));
    }

    #[test]
    fn a_full_window_pauses_until_an_answer() {
        let mut progress = Progress::new(Index(0), 2);
        progress.acknowledged(Index(0));
        progress.sent(Index(1));
        progress.sent(Index(2));
        assert!(progress.is_paused());
        assert!(progress.acknowledged(Index(1)));
        assert!(!progress.is_paused());
    }

    #[test]
    fn a_probe_waits_and_a_rejection_moves_it_back() {
        let mut progress = Progress::new(Index(9), 2);
        progress.sent(Index(9));
        assert!(progress.is_paused());
        assert!(progress.rejected(Index(9), at(4)));
        assert_eq!((progress.next(), progress.mode()), (Index(5), Mode::Probe { waiting: false }));
        assert!(!progress.rejected(Index(9), at(4)), "the same answer again");
        progress.await_snapshot();
        assert!(progress.is_paused());
    }
}
