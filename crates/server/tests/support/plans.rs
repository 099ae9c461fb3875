//! Which crash points nodes pass when, in an order in which they can be ended at one after the other.

/// What the three founders of a cluster pass before they take part, in an order in which none takes the way to the next away.
pub const BEGINNING: [&[&str]; 3] = [
    &[
        "file.draft_made",
        "file.draft_written",
        "file.draft_durable",
        "file.renamed",
        "directory.part_made",
        "directory.parts_named",
        "store.open.checked",
        "store.open.tree",
        "store.open.named",
        "log.open.read",
        "log.file.made",
        "log.file.filling:3",
        "log.segment.created",
        "log.open.unfinished_removed",
        "log.segment.headed",
        "log.segment.begun",
    ],
    &[
        "file.durable",
        "log.segment.wanted",
        "log.segment.synced",
        "log.open.rewritten",
        "log.open.synced",
        "log.open.named",
        "log.open.marked",
        // That it takes part.
        "file.draft_made",
        "file.draft_written",
        "file.draft_durable",
        "file.renamed",
    ],
    &[
        // The first folder was made by the start before.
        "directory.part_made:2",
        "log.segment.named",
        "standing.recorded",
    ],
];

/// What everybody passes while clients write small values into two partitions, and when he starts.
pub const WRITING: &[&str] = &[
    "log.batch.taken:9",
    "log.frame.ready:9",
    "log.frame.written:9",
    "log.frame.synced:9",
    "log.frame.marked:9",
    "log.batch.durable:9",
    "log.batch.told:9",
    "round.begun:30",
    "round.sent:30",
    "round.logged_here",
    "round.log_ordered:9",
    "round.answered:5",
    "apply.begun:9",
    "apply.prepare:2",
    "apply.decide:2",
    "apply.commit:2",
    "apply.forget",
    "apply.batched:9",
    "store.batch.ready:9",
    "store.batch.written:9",
    "apply.written:9",
    "apply.published:9",
    "log.open.rewritten",
    "log.open.marked",
];

/// While they write large ones, so that the log fills segments and is cut. Who ended while he did it does it first thing when he is started.
pub const FILLING: [&[&str]; 3] = [
    &[
        "log.segment.wanted",
        "log.segment.created",
        "log.segment.headed",
        "log.segment.begun",
        "log.spare.filled",
    ],
    &[
        "round.flush_ordered",
        "store.flush.begun",
        "store.spill.begun",
        "store.load.written",
        "store.spill.loaded",
        "store.flush.durable",
        "store.flush.told",
        "log.cut.decided",
        "log.segment.synced",
    ],
    &[
        "log.cut.segment_needless",
        "log.cut.segment_removed",
        "log.cut.segment_gone",
        "log.spare.taken",
        "log.segment.named",
        "log.segment.marked",
    ],
];

/// Of a follower that was away for long, in the order in which it passes them. From where the state is whole on there is nothing more to fetch: the next is for the next
/// time that it was away.
pub const FETCHING: [&[&str]; 3] = [
    &[
        "snapshot.state_marked",
        "snapshot.mark_durable",
        "snapshot.rows_removed",
        "snapshot.rows_gone",
        "snapshot.chunk_written",
        "snapshot.chunk_written:9",
        "snapshot.rows_durable",
        "snapshot.unmarked",
    ],
    &["snapshot.durable"],
    &["snapshot.in_place"],
];
/// Of the leader that has what it lacks.
pub const OFFERING: &[&str] = &["snapshot.offered", "snapshot.section_read:5"];

pub const COMPACTION: &[&str] = &[
    "compaction.step_done",
    "compaction.read_through",
    "compaction.pass_batched",
    "compaction.pass_done",
    "store.reclaim.written",
    "store.reclaim.merged",
];
/// Of a node that has taken in much and is left alone.
pub const REST: &[&str] = &["store.rest.spilled"];
pub const REMOVAL: &[&str] = &["removal.rows_removed", "removal.rows_gone", "removal.logs_needless"];
/// Of whoever passes them first.
pub const SPLIT: &[&str] =
    &["split.proposed", "apply.split", "split.applied", "split.opened", "split.finishing"];

pub const JOINING: &[&str] =
    &["join.told", "file.renamed", "directory.parts_named", "log.segment.named", "join.admitted"];
/// Who has to give its replicas to somebody else.
pub const DISCARD: &[&str] =
    &["apply.members", "discard.begun", "discard.rows_gone", "discard.unmarked", "discard.log_needless"];

/// Whose store cannot be opened, then whose log cannot.
pub const REPAIR: &[&str] = &[
    "repair.ordered",
    "repair.store_marked",
    "repair.store_made",
    "repair.groups_recorded",
    "repair.store_aside",
    "repair.store_exchanged",
    "repair.store_named",
    "repair.order_gone",
    "repair.whole",
    "repair.aside_removed",
];
pub const FORGET: &[&str] = &[
    // The log; then the store, as the log is out of the way by then.
    "forget.part_aside",
    "forget.part_aside",
    "forget.store_made",
    "life.ended",
    "forget.life_begun",
    "repair.carried_out",
    "standing.recorded",
    "repair.whole",
];

/// Of a node whose log ends in what makes no sense.
pub const TORN: &[&str] = &["log.open.tail_cleared"];

/// At which all nodes end at once, and the power of their machines fails with that; [`AT_ONCE_LATER`] in every second round.
pub const AT_ONCE: &[&str] = &[
    "log.frame.ready:20",
    "log.frame.written:20",
    "log.frame.synced:20",
    "log.frame.marked:20",
    "store.batch.written:9",
];
pub const AT_ONCE_LATER: &[&str] =
    &["log.batch.taken:5", "log.batch.durable:5", "round.sent:30", "apply.batched:9", "apply.published:9"];
/// The same while the log is filled and cut.
pub const AT_ONCE_FILLED: &[&str] = &["log.segment.begun", "store.flush.begun", "store.flush.durable"];
pub const AT_ONCE_FILLED_LATER: &[&str] = &[
    "log.segment.created",
    "log.segment.synced",
    "log.spare.taken",
    "log.cut.decided",
    "log.cut.segment_removed",
];
