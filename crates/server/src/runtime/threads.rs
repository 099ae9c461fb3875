//! How many threads serve clients and peers, and the worker with them.
//!
//! Where there is one, a call is read, evaluated, sent to the others and answered without ever being handed to another thread; each time it is, some
//! microseconds go into waking that one up, which is more than the work itself. With two processors three nodes that each used one thread did half as
//! many reads again, with half the processor time a read, as with one thread for the worker and two for connections (`docs/performance.md`). More of them pay where processors
//! would be idle otherwise.

use std::io;
use tokio::runtime::{Builder, Runtime};

/// More are senseless: one worker has to do with all that they bring.
pub const THREADS_MAX: usize = 256;

/// Half of the processors: the others are for the disk's threads, and for whatever else the machine does.
pub fn usual() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, THREADS_MAX)
}

/// A runtime of so many threads, of which the calling one is one if it is the only one.
///
/// # Errors
/// The system has no threads or files left.
pub fn runtime(threads: usize) -> io::Result<Runtime> {
    if threads == 1 {
        return Builder::new_current_thread().enable_all().build();
    }
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
