//! What the kernel says about a process and its files.

use std::collections::BTreeMap;

/// The unit of times in /proc/PID/stat; Linux shows programs 100 a second, whatever it counts itself.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of these processes so far, in microseconds.
pub(crate) fn cpu_micros(pids: &[u32]) -> f64 {
    let ticks: u64 = pids.iter().filter_map(|&pid| ticks(pid)).sum();
    ticks as f64 * 1e6 / TICKS_PER_SECOND
}

/// Fields 14 and 15 (utime and stime), counted behind the name, which may hold anything but ends with ')'.
fn ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Processor time of a process's living threads so far, in microseconds by their names; nothing of one that is gone. From the scheduler's own count, which is
/// in nanoseconds.
pub(crate) fn threads(pid: u32) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
        // A thread may end while it is looked at.
        let (Some(name), Some(said)) = (read("comm"), read("schedstat")) else { continue };
        let nanos = said.split_whitespace().next().and_then(|first| first.parse::<u64>().ok());
        *all.entry(name.trim_end().to_owned()).or_default() += nanos.unwrap_or(0) as f64 / 1e3;
    }
    all
}

/// Resident memory of these processes, in bytes.
pub(crate) fn rss(pids: &[u32]) -> u64 {
    let kib = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    pids.iter().filter_map(kib).sum::<u64>() * 1024
}

/// What a directory takes on the disk, in bytes: blocks, not lengths, so that files that are allocated ahead count as they are.
pub(crate) fn disk(directory: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        // A file may go while it is looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk(&entry.path()) } else { metadata.blocks() * 512 };
    }
    bytes
}

/// What kind of file system a directory is on.
pub(crate) fn file_system(directory: &std::path::Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    });
    // The longest path that it is under; of equal ones the last, which hides the others.
    let under = mounts.filter(|(path, _)| directory.starts_with(path));
    under.max_by_key(|(path, _)| path.len()).map(|(_, kind)| kind)
}
