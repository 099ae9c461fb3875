//! Moving the log to the followers, and deciding what is committed.

use super::{Raft, State};
use crate::progress::Mode;
use crate::{Configuration, Message, SnapshotFetch, SnapshotMeta};
use quorate_types::{Entry, EntryKind, Index, NodeId, Position, Term, reached};

impl Raft {
    /// Sends every follower what it can take: called once per take, so that what was proposed in between
    /// leaves in one message.
    pub(super) fn send_appends(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        let (last, start) = (self.log.last().index, self.log.start().index);
        for (id, follower) in &mut leader.followers {
            let progress = &mut follower.progress;
            let is_probing = matches!(progress.mode(), Mode::Probe { .. });
            while !progress.is_paused() && (progress.next() <= last || is_probing) {
                let previous = progress.next().previous();
                let Some(previous_term) = self.log.term_at(previous).filter(|_| previous >= start) else {
                    reached!("follower-behind-start");
                    progress.await_snapshot();
                    self.snapshots_wanted.push(*id);
                    break;
                };
                let entries = if progress.next() <= last {
                    self.log.slice(progress.next(), last, self.options.append_bytes_max)
                } else {
                    Vec::new()
                };
                let end = entries.last().map_or(previous, |entry| entry.index);
                follower.commit_sent = self.commit.min(end);
                progress.sent(end);
                let append = Message::Append {
                    term: self.term,
                    previous: Position { term: previous_term, index: previous },
                    entries,
                    commit: self.commit,
                };
                self.send_now.push((*id, append));
            }
            // Followers serve reads and watches too, so they hear of a commit at once, not at the next
            // heartbeat. Round 0 asks for no answer.
            let commit = self.commit.min(follower.progress.matched());
            if follower.commit_sent < commit {
                follower.commit_sent = commit;
                self.send_now.push((*id, Message::Heartbeat { term: self.term, commit, round: 0 }));
            }
        }
    }

    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        term: Term,
        previous: Position,
        entries: Vec<Entry>,
        commit: Index,
    ) {
        // While a snapshot replaces the state, only its end says where the log goes on.
        if self.fetch.is_some() || !is_well_formed(term, previous, &entries) {
            return;
        }
        if self.is_stateless {
            reached!("stateless-refused-append");
            return self.refuse_all(from);
        }
        reached!("append-from-before-start", previous.index < self.log.start().index);
        let start = self.log.start();
        let is_matching = previous.index < start.index
            || self.log.term_at(previous.index).is_some_and(|here| here == previous.term);
        if !is_matching {
            reached!("append-refused");
            let hint = self.log.hint(previous.index, previous.term);
            let refusal = Message::AppendRejected { term: self.term, refused: previous.index, hint };
            self.send_after.push((from, refusal));
            return;
        }
        let verified = entries.last().map_or(previous.index, |entry| entry.index);
        let contradicts = |entry: &Entry| {
            entry.index <= self.commit && self.log.term_at(entry.index).is_some_and(|here| here != entry.term)
        };
        if entries.iter().any(contradicts) {
            return;
        }
        // A message that begins before our start and ends after it: what is before is committed and equal.
        let follows = entries.iter().find(|entry| entry.index > start.index);
        if follows.is_some_and(|entry| entry.index > self.log.last().index.next()) {
            return;
        }
        reached!(
            "configuration-overwritten",
            entries.iter().any(|entry| entry.index <= self.log.configuration().0
                && self.log.term_at(entry.index).is_some_and(|here| here != entry.term))
        );
        if let Some(first) = self.log.append(entries, self.commit) {
            reached!("tail-overwritten-while-writing", first <= self.written && first > self.persisted);
            reached!("durable-tail-overwritten", first <= self.persisted);
            reached!("uncommitted-tail-overwritten");
            self.replaced_from(first);
        }
        self.commit = self.commit.max(commit.min(verified).min(self.log.last().index));
        self.send_after.push((from, Message::Appended { term: self.term, matched: verified }));
    }

    pub(super) fn on_appended(&mut self, from: NodeId, matched: Index) {
        let (last, start) = (self.log.last().index, self.log.start().index);
        let State::Leader(leader) = &mut self.state else { return };
        let Some(follower) = leader.followers.get_mut(&from) else { return };
        if matched > last {
            return;
        }
        follower.heard = self.now;
        if follower.progress.mode() == Mode::Snapshot && matched >= start {
            follower.offer = None;
            follower.progress.probe();
        }
        if follower.progress.acknowledged(matched) {
            self.advance_commit();
            self.maybe_hand_over();
        }
    }

    pub(super) fn on_append_rejected(&mut self, from: NodeId, refused: Index, hint: Position) {
        let agreed = self.log.hint(hint.index, hint.term);
        let State::Leader(leader) = &mut self.state else { return };
        let Some(follower) = leader.followers.get_mut(&from) else { return };
        follower.heard = self.now;
        if refused == Index::START {
            reached!("follower-asked-for-state");
            // It has lost its state and cannot begin even at the first entry.
            if follower.progress.mode() != Mode::Snapshot {
                follower.progress.await_snapshot();
                self.snapshots_wanted.push(from);
            }
            return;
        }
        // An agreed place at our start may lie beyond what the follower has: its hint counts then.
        let agreed = if hint.index < agreed.index { hint } else { agreed };
        follower.progress.rejected(refused, agreed);
    }

    /// Commits what a quorum holds durably, if it is of our own term: an entry of an earlier one can sit on
    /// a quorum and still be overwritten by a later leader (paper, 5.4.2).
    pub(super) fn advance_commit(&mut self) {
        let index = self.agreed(self.persisted, |follower| follower.progress.matched());
        let State::Leader(leader) = &mut self.state else { return };
        if index <= self.commit || self.log.term_at(index) != Some(self.term) {
            reached!("earlier-term-not-counted", index > self.commit);
            return;
        }
        for at in self.commit.0 + 1..=index.0 {
            let size = self.log.get(Index(at)).map_or(0, Entry::size);
            leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(size);
        }
        self.commit = index;
        self.go_on_changing();
    }

    pub(super) fn send_heartbeats(&mut self) {
        let now = self.now;
        let State::Leader(leader) = &mut self.state else { return };
        let round = leader.rounds.next(now);
        for (id, follower) in &mut leader.followers {
            let commit = self.commit.min(follower.progress.matched());
            follower.commit_sent = follower.commit_sent.max(commit);
            self.send_now.push((*id, Message::Heartbeat { term: self.term, commit, round }));
        }
    }

    pub(super) fn on_heartbeat(&mut self, from: NodeId, commit: Index, round: u64) {
        // Never beyond our log: the leader knows that we hold it, unless the message is made up.
        self.commit = self.commit.max(commit.min(self.log.last().index));
        // Without a state it needs a snapshot also of what it has the entries of.
        let last = if self.is_stateless { Index::START } else { self.log.last().index };
        if round > 0 {
            let withholds = self.is_withholding;
            // It says that nobody was promised more in a newer term, and of entries nothing that counts: reads need not wait for the disk behind them.
            let answer = Message::HeartbeatResponse { term: self.term, round, last, withholds };
            self.send_after_term.push((from, answer));
        }
        // Where nothing is written there is no append to refuse.
        if self.is_stateless && self.fetch.is_none() {
            self.refuse_all(from);
        }
    }

    /// Refusing the very beginning says that only a snapshot will do.
    fn refuse_all(&mut self, from: NodeId) {
        let (refused, hint) = (Index::START, Position::default());
        self.send_after.push((from, Message::AppendRejected { term: self.term, refused, hint }));
    }

    pub(super) fn on_heartbeat_response(&mut self, from: NodeId, round: u64, last: Index, withholds: bool) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(follower) = leader.followers.get_mut(&from) else { return };
        follower.heard = self.now;
        follower.withholds = Some(withholds);
        follower.round = follower.round.max(round.min(leader.rounds.newest()));
        // Its end may be a suffix that does not match, so it proves nothing; but it is worth a probe: of what comes after the snapshot, since what was before may be gone here.
        if let Some(offer) = follower.offer.take_if(|offer| last >= offer.position.index) {
            reached!("snapshot-seen-in-heartbeat");
            follower.progress.probe_after(offer.position.index);
        }
        self.confirm_reads();
    }

    pub(super) fn send_offer(&mut self, to: NodeId, meta: SnapshotMeta) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(follower) = leader.followers.get_mut(&to) else { return };
        if follower.progress.mode() == Mode::Snapshot {
            follower.offer = Some(meta.clone());
            self.send_now.push((to, Message::SnapshotOffer { term: self.term, meta }));
        }
    }

    pub(super) fn repeat_offers(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        for (id, follower) in &leader.followers {
            if let Some(meta) = &follower.offer {
                self.send_now.push((*id, Message::SnapshotOffer { term: self.term, meta: meta.clone() }));
            }
        }
    }

    pub(super) fn on_snapshot_offer(&mut self, from: NodeId, meta: SnapshotMeta) {
        // No leader has committed anything in a term after its own; taken all the same, it would leave no room for entries behind it. Nor would an index
        // that nobody gets to.
        if !meta.configuration.is_valid()
            || meta.position.term > self.term
            || meta.position.index.0 > crate::NUMBER_MAX
        {
            return;
        }
        // Without a state it needs the snapshot, however much of the log it holds; one from before the log's start would not reach that.
        if self.is_stateless && meta.position.index < self.applied {
            reached!("snapshot-too-old-refused");
            return;
        }
        if !self.is_stateless && meta.position.index <= self.commit {
            reached!("snapshot-not-needed");
            let matched = meta.position.index;
            // What is committed here is what the snapshot holds, or the offer is made up.
            if self.log.term_at(matched).is_none_or(|here| here == meta.position.term) {
                self.send_after.push((from, Message::Appended { term: self.term, matched }));
            }
            return;
        }
        if !self.is_stateless && self.log.term_at(meta.position.index) == Some(meta.position.term) {
            reached!("snapshot-shows-commit");
            // We hold everything up to there already; that a snapshot of it exists says that it is committed.
            self.commit = meta.position.index;
            let matched = meta.position.index;
            self.send_after.push((from, Message::Appended { term: self.term, matched }));
            return;
        }
        let fetch = SnapshotFetch { from, meta };
        if self.fetch.as_ref() != Some(&fetch) {
            self.fetch = Some(fetch);
            self.fetch_is_new = true;
        }
    }

    pub(super) fn on_restored(&mut self, meta: SnapshotMeta) {
        let position = meta.position;
        assert!(
            position.index >= self.applied,
            "restored to {position}, but {} was applied already",
            self.applied
        );
        self.fetch = None;
        self.fetch_is_new = false;
        self.is_stateless = false;
        if self.log.term_at(position.index) == Some(position.term) {
            reached!("snapshot-keeps-tail", self.log.last().index > position.index);
            // What follows was acknowledged, and stays.
            self.log.rebase(position, meta.configuration);
            self.compact = Some(position);
            self.commit = self.commit.max(position.index);
        } else {
            reached!("snapshot-replaces-log");
            reached!("snapshot-while-entries-wait", self.log.last().index > self.applied);
            self.log.restart(position, meta.configuration);
            self.replaced_from(Index::START.next());
            self.restart = Some(position);
            self.compact = None;
            self.written = position.index;
            self.persisted = position.index;
            self.commit = position.index;
        }
        self.applied = position.index;
        self.handed = position.index;
        if let State::Follower { leader: Some(leader) } = self.state {
            let matched = position.index;
            self.send_after.push((leader, Message::Appended { term: self.term, matched }));
        }
    }
}

/// Contiguous after `previous`, terms not falling and none newer than the sender's, and members that can be.
fn is_well_formed(term: Term, previous: Position, entries: &[Entry]) -> bool {
    let mut before = previous;
    for entry in entries {
        let is_legible = entry.kind != EntryKind::Config || Configuration::from_entry(entry).is_some();
        if before.index.0.checked_add(1) != Some(entry.index.0) || entry.term < before.term || !is_legible {
            return false;
        }
        before = entry.position();
    }
    before.term <= term
}
