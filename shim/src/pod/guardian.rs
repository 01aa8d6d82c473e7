//! The guardian: a small process that outlives a supervisor which is killed, and cleans up after it.
//!
//! It is this program again, with a hidden command, in a session of its own. It reads from a pipe what
//! there is to clean up. When the pipe closes without the word that all is well, it waits for the monitor
//! to end (its control socket closed with the supervisor), kills it if it does not, and removes the state
//! directory.
//!
//! Invariant: it opens nothing, holds nothing but the pipe, and ends when the supervisor has ended.

use std::io::{self, BufRead, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::state_dir::remove_if_dead;

/// The hidden command.
pub const COMMAND: &str = "guardian";

/// How long a monitor whose supervisor is gone may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The supervisor's side.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
    pipe: PipeWriter,
}

impl Guardian {
    /// Starts it, for the state directory `state`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(state: &Path) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let (reader, pipe) = io::pipe()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("cofferdam").arg(COMMAND).arg(state).env_clear().current_dir("/");
        command.stdin(reader).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: command.spawn()?, pipe })
    }

    /// Tells it of the monitor. If it was killed, there is no guardian, and no reason to stop.
    pub fn watch(&mut self, monitor: u32) {
        let _ = writeln!(self.pipe, "monitor {monitor}");
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it that all is cleaned up; waits for its end.
    pub fn dismiss(mut self) {
        let _ = writeln!(self.pipe, "done");
        drop(self.pipe);
        let _ = self.child.wait();
    }
}

/// The guardian's `main`: `state` is the state directory, standard input the pipe.
pub fn main(state: &Path) {
    let _ = rustix::process::setsid();
    serve(state, io::stdin().lock());
}

fn serve(state: &Path, pipe: impl BufRead) {
    let mut monitor = None;
    for line in pipe.lines() {
        match line.as_deref().map(|line| line.split_once(' ').unwrap_or((line, ""))) {
            Ok(("done", _)) => return,
            // A descriptor of the process, not its number: that may be another's when it matters.
            Ok(("monitor", pid)) => {
                let pid = pid.parse().ok().and_then(Pid::from_raw);
                monitor = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    if let Some(monitor) = monitor {
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&monitor, PollFlags::IN)], Some(&patience));
        if !matches!(ended, Ok(1)) {
            let _ = pidfd_send_signal(&monitor, Signal::KILL);
        }
    }
    remove_if_dead(state);
}

/// The state directory named on the hidden command's line, if `arguments` are that command's.
#[must_use]
pub fn requested(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Option<PathBuf> {
    let hidden = arguments.nth(1)? == COMMAND;
    let state = arguments.next().filter(|_| hidden)?;
    Some(PathBuf::from(state))
}

#[cfg(test)]
#[path = "guardian_test.rs"]
mod guardian_test;
