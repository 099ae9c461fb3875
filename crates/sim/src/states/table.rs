//! The names of states, what each is, and whether the gate's seeds must reach it.
//!
//! A state is [`Often::Common`] when a run of the gate's seeds was in it in five seeds or more, so that a change which loses it is seen, and one that only draws other
//! numbers is not. Whoever adds a probe adds a row; `tests/states.rs` compares the two.

/// How often a state is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Often {
    /// Within the gate's seeds.
    Common,
    /// In some thousands.
    Rare,
}

/// A name, how often it is reached, and what it is.
pub type Row = (&'static str, Often, &'static str);

use Often::{Common, Rare};

/// All of them, by what they are about.
pub const TABLE: &[(&str, &[Row])] = &[
    (
        "Elections",
        &[
            (
                "candidate-of-newer-term-not-heard",
                Common,
                "a vote was asked in a newer term while a leader is heard: neither the vote is given nor the term taken",
            ),
            (
                "vote-refused-shorter-log",
                Common,
                "a vote was refused because the candidate's log is shorter or older",
            ),
            ("pre-vote-refused-shorter-log", Common, "a pre-vote was refused for that"),
            (
                "pre-vote-blocked-by-leader",
                Common,
                "a pre-vote was refused because a leader is heard, though the log is as long",
            ),
            ("vote-refused-given-to-other", Common, "a vote was refused because this term's is another's"),
            ("vote-asked-again", Common, "a candidate asked again for a vote that it was given"),
            (
                "vote-withheld",
                Common,
                "a voter that may have promised what it does not remember said nothing when asked for its vote",
            ),
            (
                "election-without-winner",
                Common,
                "a campaign ended without a winner, and another election began",
            ),
            ("election-while-joint", Common, "an election began under a joint configuration"),
            (
                "stateless-does-not-stand",
                Common,
                "a replica without a state, or without its promises, did not stand",
            ),
            (
                "leader-with-inherited-tail",
                Common,
                "a replica won with entries of an earlier term that are not known to be committed",
            ),
            (
                "leader-found-joint",
                Common,
                "a replica won under a joint configuration that an earlier leader had begun",
            ),
            ("leader-without-quorum-resigned", Common, "a leader that did not hear a quorum stepped down"),
            ("resignation-believed", Common, "a follower heard its leader resign and looked for another"),
            ("hand-over-given-up", Common, "a hand-over took too long and was given up"),
            ("hand-over-to-lost-connection", Common, "the connection broke to whom was being handed over"),
            ("hand-over-waits-for-log", Common, "a hand-over waited until the heir had the whole log"),
            (
                "committed-beyond-own-disk",
                Common,
                "the others had committed what the leader's own disk had not",
            ),
            (
                "appends-lost-probed",
                Common,
                "appends got no answer, and the leader probed where the follower is",
            ),
            ("leader-deposed-with-tail", Common, "a leader was deposed with entries that were not committed"),
            ("leader-deposed-while-joint", Common, "a leader was deposed in the midst of a change of voters"),
            (
                "leader-deposed-while-handing-over",
                Common,
                "a leader was deposed while it handed over, perhaps by its heir",
            ),
        ],
    ),
    (
        "Replication",
        &[
            ("append-refused", Common, "an append was refused because what is before it is missing or other"),
            ("append-from-before-start", Common, "an append began before the start of the follower's log"),
            (
                "stateless-refused-append",
                Common,
                "a replica without a state refused an append, to be sent a snapshot",
            ),
            (
                "uncommitted-tail-overwritten",
                Common,
                "a follower's uncommitted entries gave way to a newer leader's",
            ),
            ("durable-tail-overwritten", Common, "and they were durable here"),
            ("tail-overwritten-while-writing", Common, "and they were on their way to the disk"),
            (
                "earlier-term-not-counted",
                Common,
                "a quorum had an entry of an earlier term, which is not committed by that",
            ),
            (
                "follower-asked-for-state",
                Common,
                "a follower without a state made its leader want a snapshot",
            ),
            ("follower-behind-start", Common, "a follower needed entries that the leader had cut off"),
            (
                "snapshot-too-old-refused",
                Rare,
                "a replica without a state was offered a snapshot from before its log, and refused",
            ),
            (
                "snapshot-not-needed",
                Common,
                "a snapshot was offered of what the follower had committed already",
            ),
            (
                "snapshot-shows-commit",
                Rare,
                "a snapshot was offered of what the follower had in its log, which it committed by that",
            ),
            ("snapshot-keeps-tail", Common, "a snapshot was installed under a log that went on behind it"),
            (
                "snapshot-seen-in-heartbeat",
                Common,
                "a follower's answer to a heartbeat said that it may have the snapshot that it was offered, before it said so itself",
            ),
            ("snapshot-replaces-log", Common, "a snapshot was installed in place of the log"),
            ("snapshot-while-entries-wait", Common, "and there were entries that had not been applied"),
            (
                "read-waits-for-own-term",
                Common,
                "a read waited until the new leader had committed an entry of its term",
            ),
            ("read-confirmed-by-who-asks", Common, "a follower's question for a read was all that it needed"),
            (
                "read-left-to-leader-by-who-is-behind",
                Common,
                "a replica with no state, or far behind, had the leader answer a client's read",
            ),
            (
                "read-left-to-leader-by-who-lost-its-state",
                Rare,
                "a read waited for entries when a snapshot began to take the state's place, and leaders answered it",
            ),
            ("read-by-lease", Common, "a read was answered by a lease"),
            (
                "lease-given-up-for-hand-over",
                Common,
                "a leader that had let another campaign did not read by its lease",
            ),
            ("forwarded-read-late", Common, "a read that was forwarded to the leader got no answer in time"),
            ("reads-failed-with-leader", Common, "reads were waiting for a leader that was lost"),
        ],
    ),
    (
        "Members of a group",
        &[
            ("joint-begun", Common, "a leader appended a joint configuration"),
            (
                "joint-left-by-other-leader",
                Common,
                "a leader left a joint configuration that another had begun",
            ),
            ("leader-voted-out", Common, "a leader that is no voter any more left the group to another"),
            ("change-while-changing", Common, "a change of members was refused: another is under way"),
            (
                "change-waits-for-newcomer",
                Common,
                "a change of voters was refused: somebody has not caught up",
            ),
            (
                "configuration-overwritten",
                Common,
                "a configuration that was not committed gave way to a newer leader's entries",
            ),
        ],
    ),
    (
        "Sleep",
        &[
            ("group-asleep", Common, "a leader put its group to sleep"),
            ("sleep-refused", Common, "a follower that was told to sleep had something to do yet"),
            ("woken", Common, "a replica that slept was woken"),
            ("leader-died-in-sleep", Common, "the leader of a group that slept was found dead"),
        ],
    ),
    (
        "Forgotten promises",
        &[
            ("abstained", Common, "a node that had lost its promises gave away its vote in the newest term"),
            ("forgotten-vote-taken-back", Rare, "a candidate took back a vote that its giver has forgotten"),
            (
                "forgotten-acknowledgement-taken-back",
                Common,
                "a leader took back what a follower had acknowledged and has forgotten",
            ),
            ("former-life-not-heard", Common, "a message came late from a life whose disk is lost"),
            ("peer-reborn", Common, "a node was heard to have a new disk"),
            ("cluster-began", Common, "all had answered that nobody can have forgotten anything"),
            (
                "admission-catches-up",
                Common,
                "a node with a new disk had been answered by all, and caught up",
            ),
            ("admission-catches-up-again", Common, "newer rows named somebody who had not been asked"),
            (
                "admission-barrier-of-before",
                Common,
                "a barrier of an earlier round of the admission came late",
            ),
        ],
    ),
    (
        "The log on disk",
        &[
            ("unfinished-segment-removed", Rare, "a crash had left a segment whose making was not finished"),
            (
                "torn-tail-cut",
                Common,
                "a crash had left an unfinished frame at the log's end, which was cut off",
            ),
            (
                "damage-told-from-torn",
                Common,
                "a frame was damaged that a later one says was durable: that is no torn tail",
            ),
            (
                "damaged-header-told",
                Rare,
                "the newest segment's header was damaged, and what is behind it says that it was durable",
            ),
            (
                "damaged-first-frame-told",
                Rare,
                "the newest segment's first frame was damaged, and what is behind it says that it was durable",
            ),
            ("damage-in-older-segment", Rare, "an older segment ended before the next one says that it did"),
            ("rotated-with-unsynced", Common, "a segment was full while writes to it were not synced"),
            ("segment-removed", Common, "nothing in the oldest segment was needed any more"),
            ("segment-pinned", Common, "a group kept the oldest segment of a log that is too large"),
            ("log-poisoned", Common, "a write or a sync of the log failed"),
            (
                "gap-explained-by-compaction",
                Common,
                "older segments were gone, and a compaction further on said why",
            ),
            ("removed-group-read", Common, "a removed group was met in the log"),
            ("crash-while-writing", Common, "the power failed while the log had what was not synced"),
            ("log-forgotten", Common, "a log was given up because it was damaged"),
            (
                "log-found-no-space",
                Rare,
                "a log could not begin a segment because the disk was full, and the process ended",
            ),
            ("no-space-to-start", Rare, "a process could not start because its disk was full"),
            ("space-came-back", Common, "a disk that was full had space again"),
        ],
    ),
    (
        "The store",
        &[
            ("crash-while-flushing", Common, "a process ended while its store was being flushed"),
            (
                "crash-with-errands",
                Common,
                "a process ended while rows of snapshots were being read or written, or removed",
            ),
            ("store-lost-unflushed", Common, "a crash took what the store had not flushed"),
            ("damage-met-in-use", Common, "a damaged row was met by who needed it, not by the scrub"),
            ("damage-came-back", Rare, "a damaged row had been removed, and a crash brought it back"),
            (
                "store-stopped-again",
                Common,
                "a process stopped twice for a damaged row, and gave its store up at once",
            ),
            ("store-given-up", Common, "a store was given up because it was damaged"),
            ("row-misdirected", Common, "a row held what was written for another"),
            ("row-zeroed-or-torn", Common, "a row was zeros, or from some place on"),
            ("history-by-change", Common, "older versions of a changed key were looked for, to be removed"),
            ("history-read-through", Common, "all versions were read through for those to be removed"),
        ],
    ),
    (
        "Reads from memory",
        &[
            ("range-evaluated-from-memory", Common, "a leader evaluated a range that it had in memory"),
            ("read-from-memory", Common, "a range of the newest revision was answered from memory"),
            (
                "read-from-memory-too-new",
                Common,
                "not, because what is known of a key is newer than what is published",
            ),
            (
                "read-from-memory-removed-since",
                Common,
                "not, because a key was removed that may have been there",
            ),
            (
                "read-overtaken-not-kept",
                Common,
                "what a read brought was not kept, because something in its range is newer than it",
            ),
            ("key-from-memory", Common, "a single key was answered from memory"),
            (
                "key-too-new",
                Common,
                "not, because it was changed after the revision that is read, or may have been",
            ),
            (
                "key-overtaken-not-kept",
                Common,
                "a key that was read was not kept, because it was changed since",
            ),
        ],
    ),
    (
        "Snapshots",
        &[
            ("snapshot-shared", Common, "a snapshot was offered that is being read for somebody else"),
            ("snapshot-begun-anew", Common, "another snapshot was offered while one was being fetched"),
            ("snapshot-failed", Common, "the fetching of a snapshot was given up"),
            ("write-hidden-by-snapshot", Common, "a write was waited for whose place a snapshot had passed"),
            (
                "returning-replica-filled",
                Common,
                "a replica that came to its group again was given a state, and may vote",
            ),
            ("snapshot-row-spoilt", Common, "a row of a snapshot was damaged in its sender's memory"),
        ],
    ),
    (
        "Requests and roles",
        &[
            ("write-lost-its-place", Common, "another leader's entry stood where a write was to be"),
            (
                "write-waits-for-office",
                Common,
                "a write was applied before the sequencer's office was confirmed",
            ),
            (
                "unconfirmed-at-resignation",
                Common,
                "a leader that was deposed could not say whether a write counts",
            ),
            ("forwarded-to-lost-leader", Common, "a request had been forwarded to a leader that was lost"),
            ("disk-stalled", Common, "a node found that its disk had stopped, and handed over"),
            ("disk-back", Common, "a disk that had stopped took what was waiting"),
            ("node-silent", Common, "a node was taken for dead"),
            ("node-heard-again", Common, "a node that had been taken for dead was heard"),
            ("crash-of-paused", Common, "a process was killed while it was paused"),
            ("damaged-frame-refused", Common, "bits of a frame flipped, and its reader broke the connection"),
            (
                "writes-refused-for-own-space",
                Common,
                "a node's disk had little space left, and it refused writes",
            ),
            (
                "writes-refused-for-others-space",
                Common,
                "too many others had little space left, and writes were refused",
            ),
            ("writes-taken-again", Common, "there was space again, and writes were taken"),
        ],
    ),
    (
        "Transactions over partitions",
        &[
            (
                "part-left-to-leader-by-who-is-behind",
                Common,
                "a replica far behind, or with no state, had leaders answer a read over partitions",
            ),
            (
                "vote-of-deposed-participant",
                Common,
                "a participant that had voted was not registered in that term any more",
            ),
            ("decision-waits-for-sequencer", Common, "all had voted, and there was no sequencer"),
            ("split-under-attempt", Common, "a partition was split while a transaction gathered its votes"),
            (
                "past-read-too-early",
                Common,
                "a participant had looked at the past before it was known to be over",
            ),
            ("decision-overwritten", Common, "another leader's entry took a decision's place"),
            (
                "decision-owed-after-change",
                Common,
                "a new leader of a home partition owed what an earlier one had decided",
            ),
            ("prepare-after-end", Common, "a share was to be locked of a transaction that is over"),
            ("prepare-behind-draw", Common, "locks waited until the revisions had come that were asked for"),
            ("prepare-while-splitting", Common, "locks were refused because the partition is being split"),
            ("attempt-waits-for-locks", Common, "a transaction waited for locks of another at a participant"),
            (
                "attempt-met-locks",
                Common,
                "a transaction's first attempt met locks of another at a participant",
            ),
            ("decision-told-again", Common, "a participant was told a decision that it has in its log"),
            ("home-waits-for-locks", Common, "a transaction waited for locks at its home"),
            ("lease-renewed-while-its-end-locks", Rare, "a lease was renewed while its end waited for locks"),
            (
                "lease-came-to-be-held-elsewhere",
                Common,
                "another partition came to hold keys of a lease that waited for its lock",
            ),
            (
                "attached-by-copy",
                Common,
                "a key of several partitions' was attached to a lease that is known beside it",
            ),
            (
                "copy-of-lease-gone",
                Rare,
                "what was known of the lease there had gone when the locks were to be had",
            ),
            ("transaction-contended", Common, "a transaction got no locks in its time"),
            ("vote-of-other-epoch", Common, "a vote came that was given under another sequencer"),
            ("vote-after-attempt", Common, "a vote came for an attempt that was over"),
            ("asked-how-it-ended", Common, "a participant asked how a transaction ended"),
            ("ended-as-decided", Common, "and it had been decided"),
            (
                "coordinator-lost-while-collecting",
                Common,
                "a coordinator lost its office before it could decide",
            ),
            (
                "coordinator-lost-while-deciding",
                Common,
                "a coordinator lost its office between its decision's entry and the commit",
            ),
            ("attempt-out-of-time", Common, "an attempt took too long and was begun anew"),
            (
                "participant-inherited-prepared",
                Common,
                "a new leader found a transaction prepared by an earlier one, and asked how it ended",
            ),
            (
                "crash-while-prepared",
                Common,
                "the power failed somewhere while a transaction was prepared and not ended",
            ),
            (
                "committed-by-other-leader",
                Common,
                "a share was committed by another leader than the one that prepared it",
            ),
            (
                "given-back-by-other-leader",
                Common,
                "a share was given back by another leader than the one that prepared it",
            ),
        ],
    ),
    (
        "The sequencer",
        &[
            ("write-unconfirmed-for-good", Common, "the sequencer changed before a write was confirmed"),
            (
                "answer-of-deposed-sequencer",
                Common,
                "an answer was not given because the sequencer that counted it was deposed",
            ),
            ("write-of-former-epoch", Common, "a write was applied when there was a newer sequencer"),
            (
                "inherited-transactions-ended",
                Common,
                "all transactions had ended that a leader had found prepared",
            ),
            ("registered-here", Common, "a leader registered with the sequencer on its own node"),
            ("draws-in-flight-lost", Common, "the sequencer changed while revisions were asked for"),
            ("sequencer-came-here-while-asked", Rare, "and the next one is on the node that asked"),
            (
                "attempt-draws-again",
                Common,
                "a transaction's revision was on its way when the sequencer changed",
            ),
            ("draw-repeated", Common, "a sequencer elsewhere did not answer and was asked again"),
            ("draw-answered-again", Common, "the same was asked again, and answered the same"),
            ("draw-came-early", Common, "a sequencer was asked before it had all that it needs"),
            ("draw-waits-for-locks", Common, "a request that needs a revision waited for locks"),
            ("draw-refused", Rare, "the sequencer did not know who asked for a leader any more"),
            (
                "draw-overtaken",
                Rare,
                "a transaction's end with a later revision came before the revisions asked for",
            ),
            ("revisions-given-back", Common, "revisions came to nothing and were given back"),
            ("decision-overtaken", Rare, "the revision for a decision came after a later one was used"),
            (
                "decision-refused-by-sequencer",
                Common,
                "the sequencer refused a decision: somebody who voted is not in office",
            ),
            ("deaf-leader-left", Common, "a leader that did not hear the sequencer handed over"),
            (
                "draw-waits-for-mark",
                Common,
                "revisions were asked for beyond what was committed to be given out",
            ),
            ("split-while-drawing", Rare, "a partition was split while a request waited for its revision"),
        ],
    ),
    (
        "Splits and moves",
        &[
            ("split-waits-for-locks", Common, "a split waited for transactions to end"),
            ("split-waits-for-move", Common, "a split waited for members to come or go"),
            ("first-split", Common, "a keyspace's only partition was split"),
            ("child-elsewhere", Rare, "a split was applied late, when what was split off is on other nodes"),
            ("child-stood-for-again", Common, "the first candidate of what was split off had not won"),
            (
                "split-finished-by-other",
                Common,
                "a split was finished by a node that does not lead the parent",
            ),
            (
                "request-rerouted-by-split",
                Common,
                "a request that waited went to what was split off meanwhile",
            ),
            ("moving-leader-hands-over", Common, "a leader that is to go handed over before the change"),
            ("move-done", Common, "a group was where its row wants it"),
            ("move-redirected", Common, "a group was to go elsewhere while it was moving"),
            ("replica-discarded", Common, "a replica that is elsewhere now was thrown away"),
            ("unopened-replica-discarded", Common, "and it had not been opened since the start"),
        ],
    ),
    (
        "Leases",
        &[
            ("lease-begun-anew", Common, "a new leader gave a lease its whole time"),
            (
                "lease-begun-at-checkpoint",
                Common,
                "a new leader gave a lease what was left of it at its checkpoint",
            ),
            ("lease-ends-again", Common, "a lease's end came to nothing and was due again"),
            ("lease-renewed-while-ending", Common, "a lease was renewed whose end was under way"),
            ("lease-moved-by-split", Rare, "a lease went to what was split off"),
            ("lease-checkpointed", Common, "the time that is left of a lease was recorded"),
            (
                "lease-ended-by-later-leader",
                Common,
                "a lease was ended by a later leader than the one that granted it",
            ),
            (
                "lease-ended-in-other-partition",
                Common,
                "a lease was ended in another partition than it was granted in",
            ),
        ],
    ),
    (
        "Watches",
        &[
            ("watch-from-the-past", Common, "a watch was created from a revision that had passed"),
            (
                "watch-fell-behind",
                Common,
                "a stream's queue was full and dropped; its watches go on from the store",
            ),
            ("watch-skipped-by-snapshot", Common, "a snapshot passed what a watch had not been told"),
            ("watch-compacted", Common, "a watch needed what was compacted, and ended"),
            ("watch-caught-up", Common, "a watch that was behind had caught up"),
            ("progress-asked-while-behind", Common, "progress was asked for while a watch was behind"),
            (
                "watch-resumed",
                Common,
                "a client went on with a watch after a crash, from a revision that had passed",
            ),
            ("watch-resumed-after-compaction", Common, "and what it needs was compacted meanwhile"),
            ("watch-across-split", Common, "a partition was split under open watches"),
        ],
    ),
];
