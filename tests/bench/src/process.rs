//! A monitor's process.
//!
//! Invariant: it is gone, and waited for, when its [`Process`] is dropped.

use std::ffi::CString;
use std::os::fd::RawFd;

use anyhow::{Context, Result};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// A process.
pub(crate) struct Process {
    pid: Pid,
}

impl Process {
    /// Starts `argv`, with `fds` of ours (each closed on exec) at the numbers beside them. What it prints goes to the
    /// console.
    pub(crate) fn spawn(argv: &[String], fds: &[(RawFd, RawFd)]) -> Result<Self> {
        let words = argv.iter().map(|word| CString::new(word.as_str()));
        let words = words.collect::<Result<Vec<_>, _>>().context("a command with a NUL")?;
        let program = words.first().context("no command")?;
        let mut actions = PosixSpawnFileActions::init()?;
        actions.add_dup2(2, 1)?;
        for (ours, theirs) in fds {
            actions.add_dup2(*ours, *theirs)?;
        }
        let attributes = PosixSpawnAttr::init()?;
        let environment = [c"PATH=/usr/bin:/bin"];
        let pid = posix_spawn(program.as_c_str(), &actions, &attributes, &words, &environment)
            .with_context(|| format!("starting {}", argv[0]))?;
        Ok(Self { pid })
    }

    /// Its number.
    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}
