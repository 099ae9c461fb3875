//! A group whose quorum is lost for good goes on with one survivor, and what was left behind never counts again.
//!
//! No rule of Raft lets a minority go on: what only the dead held is gone, and the survivor cannot know whether that was acknowledged. An operator
//! says that it shall be so, for one replica. Its log, committed or not, becomes the group's: it appends a configuration that names itself
//! alone, and elects itself.
//!
//! The dead may come back, and are a quorum among themselves. So terms have a high part, the *lineage* ([`Term::lineage`]), which counts such
//! recoveries, and which elections never reach. Two replicas of different lineages have nothing to say to each other but that:
//!
//! * What an older lineage says is refused as what a former leader says is, with the newer term.
//! * A replica that hears of a newer one is *superseded*: it does not follow, because its log may hold committed entries which the newer
//!   lineage has not; it gives up its office, its votes and its say, until its owner throws it away and begins with nothing.
//! * One that begins with nothing takes whatever lineage it hears first.
//!
//! Invariants:
//! * The entries of one replica's log are of lineages that never fall, as their terms are; so two logs with the same position are the
//!   same up to there, across recoveries too.
//! * In one lineage all of Raft holds, beginning with the survivor's log.
//!
//! Caveat: replicas of the old lineage that hear nobody of the new one do not know, and are a group of their own. Their owner asks
//! somebody before they may vote, where it can.

use super::{Raft, TERMS_AHEAD_MAX};
use crate::{Configuration, Message};
use quorate_types::{Encode, EntryKind, Position, Term};

/// A replica that begins with nothing takes no lineage beyond this: a term that is made up must leave room for others.
pub(super) const LINEAGES_MAX: u64 = 1 << 20;

impl Raft {
    /// Whether what this message says can be meant for this replica: of its lineage, or of a former one, whose sender has to be told. Another one is
    /// noted, and ends what this replica is.
    pub(super) fn is_of_our_lineage(&mut self, message: &Message) -> bool {
        let (theirs, ours) = (message.term(), self.term);
        if theirs.lineage() <= ours.lineage() {
            // Taken and written down, the last of all terms would leave no term to elect anybody in.
            return theirs.0.saturating_sub(ours.0) <= TERMS_AHEAD_MAX;
        }
        let is_likely = theirs.lineage() < LINEAGES_MAX
            && theirs.0 - Term::first_of(theirs.lineage()).0 <= TERMS_AHEAD_MAX;
        // What asks for the next term of a lineage has not begun one.
        if !is_likely || matches!(message, Message::VoteRequest { pre: true, .. }) {
            return false;
        }
        if self.holds_nothing() {
            return true;
        }
        self.be_superseded(theirs.lineage());
        false
    }

    /// It never promised anything in any term, as far as it knows.
    fn holds_nothing(&self) -> bool {
        self.term == Term(0) && self.log.last() == Position::default()
    }

    fn be_superseded(&mut self, lineage: u64) {
        self.superseded = self.superseded.max(Some(lineage));
        self.is_withholding = true;
        self.become_follower(self.term, None);
    }

    pub(super) fn start_lineage(&mut self, lineage: u64) {
        assert!(lineage > self.term.lineage(), "lineage {lineage} after term {}", self.term);
        assert!(!self.is_stateless, "a replica without a state cannot be what is left of a group");
        self.superseded = None;
        self.is_withholding = false;
        self.fetch = None;
        self.fetch_is_new = false;
        self.become_follower(Term::first_of(lineage), None);
        let alone = Configuration::of_voters(vec![self.options.id]);
        self.push(EntryKind::Config, alone.encoded());
        self.is_hibernating = false;
        // Alone now: the next tick elects it.
        self.draw_timeout();
    }
}
