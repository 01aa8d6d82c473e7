//! The guardian: a small process that outlives a supervisor which is killed, and cleans up after it.
//!
//! It is this program again, with a hidden command, in a session of its own. It reads from a pipe what
//! there is to clean up. When the pipe closes without the word that all is well, it kills a hook that
//! runs, waits for the monitor to end (its control socket closed with the supervisor), kills it if it does not, and removes the state
//! directory and what was being made in the caches.
//!
//! Invariant: it opens nothing, holds nothing but the pipe, and ends when the supervisor has ended.

use std::io::{self, BufRead, PipeWriter, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cofferdam_rootfs_builder::clear_abandoned;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::state_dir::remove_if_dead;

/// The hidden command.
pub const COMMAND: &str = "guardian";

/// How long a monitor whose supervisor is gone may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the kernel may take to take apart a supervisor and a monitor that have ended.
const DYING: Duration = Duration::from_secs(30);

/// How long a killed program that makes a file system may take to end.
const MAKER_PATIENCE: Duration = Duration::from_secs(4);

/// Where a supervisor that is killed leaves something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The state directory.
    pub state: PathBuf,
    /// Directories in which it makes files that stay.
    pub caches: Vec<PathBuf>,
}

/// The supervisor's side.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
    pipe: PipeWriter,
    needed: bool,
}

impl Guardian {
    /// Starts it, for what is left at `places`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(places: &Places) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let (reader, pipe) = io::pipe()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("cofferdam").arg(COMMAND).env_clear().current_dir("/");
        // Its working directory is another.
        command.arg(std::path::absolute(&places.state)?);
        for cache in &places.caches {
            command.arg(std::path::absolute(cache)?);
        }
        command.stdin(reader).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: command.spawn()?, pipe, needed: false })
    }

    /// Tells it of the monitor. If it was killed, there is no guardian, and no reason to stop.
    pub fn watch(&mut self, monitor: u32) {
        self.tell(&format!("monitor {monitor}\n"));
    }

    /// Tells it of a running hook, or that there is none any more.
    pub fn watch_hook(&mut self, hook: Option<u32>) {
        self.tell(&format!("hook {}\n", hook.unwrap_or(0)));
    }

    /// In one piece, or not at all: half a number would be another's.
    fn tell(&mut self, line: &str) {
        let _ = self.pipe.write_all(line.as_bytes());
    }

    /// Has it clean up although this process ends well: something here goes on until then.
    pub fn need(&mut self) {
        self.needed = true;
    }

    /// Tells it that all is cleaned up; waits for its end. If it is [needed](Self::need), leaves it to its work.
    pub fn dismiss(mut self) {
        if self.needed {
            return;
        }
        self.tell("done\n");
        drop(self.pipe);
        let _ = self.child.wait();
    }
}

/// The guardian's `main`; standard input is the pipe.
pub fn main(places: &Places) {
    let _ = rustix::process::setsid();
    serve(places, io::stdin().lock());
}

fn serve(places: &Places, pipe: impl BufRead) {
    let (mut monitor, mut hook) = (None, None);
    for line in pipe.lines() {
        match line.as_deref().map(|line| line.split_once(' ').unwrap_or((line, ""))) {
            Ok(("done", _)) => return,
            // A descriptor of the process, not its number: that may be another's when it matters.
            Ok(("monitor", pid)) => {
                let pid = pid.parse().ok().and_then(Pid::from_raw);
                monitor = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            }
            // Its number is that of its process group, which is nobody else's while any of them lives.
            Ok(("hook", pid)) => hook = pid.parse().ok().and_then(Pid::from_raw),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    if let Some(hook) = hook {
        let _ = kill_process_group(hook, Signal::KILL);
    }
    if let Some(monitor) = monitor {
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&monitor, PollFlags::IN)], Some(&patience));
        if !matches!(ended, Ok(1)) {
            let _ = pidfd_send_signal(&monitor, Signal::KILL);
        }
    }
    remove_if_dead(&places.state, DYING);
    for cache in &places.caches {
        clear_abandoned(cache, MAKER_PATIENCE);
    }
}

/// The places named on the hidden command's line, if `arguments` are that command's.
#[must_use]
pub fn requested(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Option<Places> {
    let hidden = arguments.nth(1)? == COMMAND;
    let state = arguments.next().filter(|_| hidden)?.into();
    Some(Places { state, caches: arguments.map(PathBuf::from).collect() })
}

#[cfg(test)]
#[path = "guardian_test.rs"]
mod guardian_test;
