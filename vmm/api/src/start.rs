//! Starting a monitor: what every supervisor does alike.
//!
//! The monitor begins in a process-id namespace of its own, as its first process. Only its parent can give
//! it that; everything else it gives up by itself, when it is told [`crate::ToMonitor::Confine`].
//!
//! Invariant: the calling thread's own namespaces are the same before and after.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::thread::CapabilitySet;

/// What a process needs to confine a monitor of its own wholly.
const NEEDED: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP);

/// Whether this process may change its user, its namespaces and its capabilities.
#[must_use]
pub fn is_privileged() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(NEEDED))
}

/// Starts the monitor `command` with `control` as its end of the control socket, which it finds on its
/// standard input. Of the environment it gets `PATH` alone; it has a process group of its own, so that what is typed at a terminal is for
/// its supervisor to act on.
///
/// # Errors
/// As [`Command::spawn`].
pub fn start_monitor(mut command: Command, control: OwnedFd) -> io::Result<Child> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).stdin(control).process_group(0);
    // The command holds the socket: it must close when this returns, so that its end is seen.
    in_new_pid_namespace(move || command.spawn())
}

/// Runs `start`, whose new process is the first of a process-id namespace, if this process may have that.
///
/// # Errors
/// Those of `start`, or that this thread cannot return to its own namespace: then the new process is killed.
pub fn in_new_pid_namespace(start: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    let Ok(home) = File::open("/proc/thread-self/ns/pid") else { return start() };
    if unshare(CloneFlags::CLONE_NEWPID).is_err() {
        return start();
    }
    go_back(&home, start())
}

/// Returns to the namespace `home`. A process that was started is not left behind if that fails: nobody would know of
/// it.
fn go_back(home: &File, started: io::Result<Child>) -> io::Result<Child> {
    let Err(errno) = setns(home, CloneFlags::CLONE_NEWPID) else { return started };
    if let Ok(mut child) = started {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    Err(errno.into())
}

#[cfg(test)]
#[path = "start_test.rs"]
mod start_test;
