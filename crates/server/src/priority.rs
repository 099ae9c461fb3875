//! Which threads go first when there are more than processors.

/// How much processor time a thread that keeps house leaves to others (`setpriority(2)`): against one that works for clients it gets a tenth.
const NICE: i32 = 10;

/// Gives this thread a low priority: what it does has time, and those who work for clients have not. What it holds a lock for is to be short all the same, since whoever wants that lock
/// then waits for all that goes first, too. (Who writes waits for a whole layer where two are full. With three nodes on two
/// processors that 256 clients keep busy that costs nothing; where something else takes all processors, flushing has a tenth of one.)
pub fn yield_to_others() {
    // On Linux this is the thread alone. Where it is not allowed it works with the priority of the others.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}
