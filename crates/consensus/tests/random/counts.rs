//! How often things happened in a run, and whether all of them did.

/// Of one run, or of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) leaders: u64,
    pub(crate) commits: u64,
    pub(crate) reads: u64,
    pub(crate) failed_reads: u64,
    pub(crate) crashes: u64,
    pub(crate) snapshots: u64,
    pub(crate) hibernations: u64,
    pub(crate) replaced: u64,
    pub(crate) transfers: u64,
    pub(crate) changes: u64,
    pub(crate) resignations: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.leaders += other.leaders;
        self.commits += other.commits;
        self.reads += other.reads;
        self.failed_reads += other.failed_reads;
        self.crashes += other.crashes;
        self.snapshots += other.snapshots;
        self.hibernations += other.hibernations;
        self.replaced += other.replaced;
        self.transfers += other.transfers;
        self.changes += other.changes;
        self.resignations += other.resignations;
    }

    pub(crate) fn is_eventful(&self) -> bool {
        let all = [
            self.leaders,
            self.commits,
            self.reads,
            self.failed_reads,
            self.crashes,
            self.snapshots,
            self.hibernations,
            self.replaced,
            self.transfers,
        ];
        all.iter().all(|count| *count > 0)
    }
}
