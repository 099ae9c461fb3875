//! A run that somebody breaks off: Ctrl-C, SIGTERM, a terminal that is closed.

use tokio::signal::unix::{SignalKind, signal};

/// Whether a process ignores SIGHUP, as one does that `nohup` started, by what the system says of it: a set of signals, of which it is the first (proc(5)).
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & 1 == 1)
}

/// Does this until it is done, or somebody stops it, or its terminal is gone. What was started is ended when it is dropped, by its process id.
pub(super) async fn until_stopped<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let fail = |error| format!("signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let is_to_stay = ignores_hangup(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    let mut hangup = if is_to_stay { None } else { Some(signal(SignalKind::hangup()).map_err(fail)?) };
    let hung_up = async {
        match &mut hangup {
            Some(hangup) => hangup.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err("stopped by Ctrl-C".into()),
        _ = terminate.recv() => Err("stopped".into()),
        _ = hung_up => Err("stopped: the terminal is gone".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_started_to_stay_is_not_stopped_with_its_terminal() {
        assert!(ignores_hangup("Name:\tquorate\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("Name:\tquorate\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }
}
