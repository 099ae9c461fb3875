//! How much the watches of a partition may take.

/// Bounds, and what happens at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open streams; one more is refused.
    pub streams_max: usize,
    /// Watches on one stream; one more is refused, the stream lives on.
    pub stream_watches_max: usize,
    /// Answers to requests that a stream has not taken; at it further requests are pushed back.
    pub stream_answers_max: usize,
    /// Events queued for a stream that has not taken them. Beyond it the queue is dropped, and its
    /// watches read from history what they miss. Marks of progress come on top of it: one of each watch that there is, or that was cancelled
    /// since the client has taken its answers.
    pub stream_queue_bytes_max: usize,
    /// History read in one go for a watch that is behind.
    pub catch_up_bytes_max: usize,
    /// A response of this size or more is split, if its watch allows.
    pub fragment_bytes: usize,
    /// How often a quiet watch that asks for it is told its progress; at least 1.
    pub progress_ticks: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_max: 65_536,
            stream_watches_max: 65_536,
            stream_answers_max: 1_024,
            stream_queue_bytes_max: 4 << 20,
            catch_up_bytes_max: 1 << 20,
            // etcd's: the greatest request, 1.5 MiB, and 512 KiB for what surrounds it.
            fragment_bytes: 2 << 20,
            // Ten minutes of ticks of 100 ms.
            progress_ticks: 6_000,
        }
    }
}

/// A call that did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such stream: it was closed.
    StreamNotFound,
    /// As many streams as allowed are open.
    TooManyStreams,
    /// The stream has not taken the answers to its earlier requests; try again after a poll.
    Backlog,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StreamNotFound => write!(f, "the watch stream is closed"),
            Self::TooManyStreams => write!(f, "too many watch streams"),
            Self::Backlog => write!(f, "the watch stream does not read its answers"),
        }
    }
}

impl std::error::Error for Refusal {}

/// What there is, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open streams.
    pub streams: usize,
    /// Watches on them, cancelled ones that the client has not given up included.
    pub watches: usize,
    /// Watches that are behind and read from history.
    pub lagging: usize,
    /// Bytes queued for streams. What several streams share is counted for each.
    pub queue_bytes: usize,
}
