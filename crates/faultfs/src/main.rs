//! Shows a directory as a disk that can fail; orders are taken at a socket.

use clap::Parser;
use quorate_faultfs::control;
use quorate_faultfs::disk::serve;
use quorate_faultfs::volume::Options;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows BACKING at MOUNTPOINT as a disk that loses what was not synced, and fails as it is told to.
///
/// Runs until MOUNTPOINT is unmounted (`umount MOUNTPOINT`), and then makes everything durable. When it is killed, all that was not synced is lost, and
/// the next start at the same MOUNTPOINT clears up. Needs /dev/fuse and the right to mount.
#[derive(Parser)]
#[command(name = "quorate-faultfs", version, after_help = ORDERS)]
struct Args {
    /// The directory that is shown; at any time what a power failure would leave.
    backing: PathBuf,
    /// Where it is shown: an empty directory.
    mountpoint: PathBuf,
    /// Socket for orders [default: MOUNTPOINT.control].
    #[arg(long)]
    control: Option<PathBuf>,
    /// Bytes that fit [default: as many as under BACKING].
    #[arg(long)]
    capacity: Option<u64>,
    /// Promise what ext4 does: every sync makes all changes of names durable. Else only what POSIX does.
    #[arg(long)]
    ext4: bool,
    /// Writing a page again needs new space, as on a file system that copies on write.
    #[arg(long)]
    copy_on_write: bool,
}

const ORDERS: &str = "\
Orders, one a line, as with `nc -U MOUNTPOINT.control`:
  fault read|write|sync|name|any PATH EFFECT [TIMES]
      EFFECT: fail eio|enospc|erofs, delay MILLISECONDS, hang, short BYTES,
              flip OFFSET MASK, lose, misdirect PAGES
      PATH is below MOUNTPOINT; * stands for anything
  clear [NUMBER], rules, capacity BYTES|none, flip PATH OFFSET MASK,
  zero PATH OFFSET LENGTH, power-failure [SEED], sync, status";

fn main() -> ExitCode {
    let args = Args::parse();
    let options =
        Options { is_strict: !args.ext4, capacity: args.capacity, rewrites_take_space: args.copy_on_write };
    let socket = args.control.unwrap_or_else(|| {
        let mut beside = args.mountpoint.clone().into_os_string();
        beside.push(".control");
        beside.into()
    });
    let served = serve(&args.backing, &args.mountpoint, options, |controls| {
        // Of one that was killed; nobody listens there.
        if socket.exists() {
            std::fs::remove_file(&socket)?;
        }
        control::listen(UnixListener::bind(&socket)?, controls);
        Ok(())
    });
    match served {
        Ok(()) => {
            // It says nothing to anybody any more.
            let _ = std::fs::remove_file(&socket);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!(
                "quorate-faultfs: {} at {}: {error}",
                args.backing.display(),
                args.mountpoint.display()
            );
            ExitCode::FAILURE
        }
    }
}
