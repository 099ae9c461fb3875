//! The program: a directory shown as a disk, with orders at its socket.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use quorate_faultfs::volume::Options;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use support::Mounted;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

#[test]
fn orders_are_taken_and_a_killed_server_is_a_power_failure() {
    // Where nothing can be mounted this says so.
    if Mounted::new(Options::default()).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [backing, root, socket] = ["backing", "root", "root.control"].map(|name| folder.path().join(name));
    std::fs::create_dir(&backing).unwrap();
    std::fs::create_dir(&root).unwrap();
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-faultfs"));
        let child = Killed(command.arg(&backing).arg(&root).arg("--ext4").spawn().unwrap());
        loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                return (child, stream);
            }
            std::thread::yield_now();
        }
    };
    let (mut server, stream) = start();
    let mut answers = BufReader::new(&stream).lines();
    let mut order = |line: &str| {
        writeln!(&mut &stream, "{line}").unwrap();
        answers.next().unwrap().unwrap()
    };
    std::fs::write(root.join("f"), "synced").unwrap();
    assert_eq!(order("sync"), "ok");
    assert_eq!(order("fault write f fail eio 1"), "ok 0");
    assert!(std::fs::write(root.join("f"), "refused").is_err());
    assert_eq!(order("clear 0"), "ok");
    assert!(order("fault write f dance").starts_with("error \"dance\" is no effect"));
    assert!(order("clear 7").starts_with("error"));
    assert_eq!(order("capacity 4096"), "ok");
    std::fs::write(root.join("f"), "lost").unwrap();
    assert_eq!(order("status"), "ok 4096 0");
    server.0.kill().unwrap();
    server.0.wait().unwrap();
    assert!(std::fs::read(root.join("f")).is_err(), "nobody answers");
    assert_eq!(std::fs::read_to_string(backing.join("f")).unwrap(), "synced");

    let (mut server, _stream) = start();
    assert_eq!(std::fs::read_to_string(root.join("f")).unwrap(), "synced");
    std::fs::write(root.join("f"), "not synced before it is unmounted").unwrap();
    rustix::mount::unmount(&root, rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(server.0.wait().unwrap().success());
    let there = std::fs::read_to_string(backing.join("f")).unwrap();
    assert_eq!(there, "not synced before it is unmounted");
}
