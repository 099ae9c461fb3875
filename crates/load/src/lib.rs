//! A load generator for anything that speaks the etcd v3 API: `quorate bench` gives it to users, `crates/bench` measures quorate and etcd with it.
//!
//! * [`Load`] says what is asked for, by how many clients, in a closed loop or at a rate (open loop).
//! * [`measure`] prepares it (keys, leases, watches), lets it warm up, and measures for a while.
//! * [`Measured`] is what came out: how many operations, and how long they took, in an HdrHistogram.
//!
//! **Coordinated omission**: a client that waits for a slow answer asks for nothing meanwhile, so the slow time is seen once where many would have felt it. In an
//! open loop each operation has a time at which it is due, whatever became of those before it, and counts from then (`pace.rs`). In a closed loop there is
//! no such time; there the histogram is corrected as HdrHistogram does it: an answer that took many times the mean between two of a client's
//! operations stands for those that would have begun meanwhile (`tally.rs`). Operations that are not answered when the time is over are waited for a while and
//! count with what they have taken.
//!
//! **Connections** ([`Line`]) speak gRPC over the `h2` crate, without the layers of a client library above it: a call is a head that was put together before, one frame,
//! and an answer (`exchange.rs`, `framing.rs`). What a client of the library would add, compression, deadlines, balancing, no load needs.
//!
//! Caveat: the generator runs where it is started, and takes its share of that machine. Calls that its clients begin at the same time leave in one write, as those
//! of one busy program do; as many programs with a connection each would cost servers more.

mod calls;
mod endpoint;
mod exchange;
mod fill;
mod framing;
mod keepalive;
mod keys;
mod kind;
mod line;
mod load;
mod lock;
mod measure;
mod method;
mod pace;
mod random;
mod tally;
mod values;
mod watch;
mod window;

pub use endpoint::{ConnectError, Endpoint};
pub use fill::{clear, count, fill};
pub use keys::Keys;
pub use kind::Kind;
pub use line::Line;
pub use load::Load;
pub use measure::{Observer, measure};
pub use tally::Measured;
pub use window::{Stop, Times};

/// A runtime for it: of half of the processors, as those that are measured need some, too. One thread does without handing anything to another, which
/// takes least.
///
/// # Errors
/// The system has no threads or files left.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    match processors / 2 {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// What may go wrong before anything is measured, or with what is measured; it ends the run with its words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
