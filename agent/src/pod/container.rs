//! One container and its processes.
//!
//! Invariant: a process's end is recorded once; its descriptor names it, not its number, which the
//! kernel gives to others after that.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use cofferdam_agent_protocol::{Ended, ErrorKind, IdMap};
use nix::sched::CloneFlags;
use nix::sys::inotify::WatchDescriptor;
use nix::unistd::Pid;

use super::state::State;
use crate::error::{Context, Failure, Result};
use crate::guest::cgroup::Cgroup;
use crate::guest::{Names, Rootfs};
use crate::launch::{Launched, Waiting};
use crate::sys;

/// One process.
pub(crate) struct Process {
    /// Its id in the agent's pid namespace, while it lives.
    pub(crate) pid: Pid,
    /// The process.
    pub(crate) pidfd: OwnedFd,
    /// Our side of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// Whether it ended.
    pub(crate) ended: bool,
}

/// One container.
pub(crate) struct Container {
    /// Where it is in its life.
    pub(crate) state: State,
    /// Its first process.
    pub(crate) first: Process,
    /// Its other processes by their ids.
    pub(crate) others: BTreeMap<String, Process>,
    /// The way to `execve` of its first process, while it is created.
    pub(crate) created: Option<Waiting>,
    /// The namespaces it does not share with the agent.
    pub(crate) namespaces: CloneFlags,
    /// Its control group.
    pub(crate) cgroup: Cgroup,
    /// Its root file system.
    pub(crate) rootfs: Rootfs,
    /// The shared memory that it uses.
    pub(crate) shared: Names,
    /// The watch over its memory.
    pub(crate) watch: Option<WatchDescriptor>,
    /// Processes killed for lack of memory, as far as the host knows.
    pub(crate) oom_kills: u64,
    /// The map of its user namespace, if it has one.
    pub(crate) uid_map: Vec<IdMap>,
}

impl Process {
    /// The process that `launched` is, and its way to `execve`.
    pub(crate) fn of(launched: Launched) -> (Self, Waiting) {
        let Launched { pid, pidfd, terminal, waiting } = launched;
        (Self { pid, pidfd, terminal, ended: false }, waiting)
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        // It may be dead already.
        let _ = sys::send_signal(self.pidfd.as_fd(), libc::SIGKILL.cast_unsigned());
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: u32) -> Result<()> {
        if self.ended {
            return Err(Failure::new(ErrorKind::WrongState, "the process has ended"));
        }
        sys::send_signal(self.pidfd.as_fd(), signal).context(|| format!("sending signal {signal}"))
    }
}

impl Container {
    /// The process `id`; the first for an empty one.
    pub(crate) fn process(&mut self, id: &str) -> Result<&mut Process> {
        let found = match id {
            "" => Some(&mut self.first),
            _ => self.others.get_mut(id),
        };
        found.ok_or_else(|| Failure::new(ErrorKind::NotFound, format!("no process \"{id}\"")))
    }

    /// The id of the living process `pid`.
    pub(crate) fn id_of(&self, pid: Pid) -> Option<String> {
        let is = |process: &Process| !process.ended && process.pid == pid;
        if is(&self.first) {
            return Some(String::new());
        }
        self.others.iter().find(|(_, process)| is(process)).map(|(id, _)| id.clone())
    }

    /// Whether new kills for lack of memory happened since the last call.
    pub(crate) fn ran_out_of_memory(&mut self) -> bool {
        let kills = self.cgroup.oom_kills();
        let more = kills > self.oom_kills;
        self.oom_kills = kills;
        more
    }
}

/// What the host is told of an end with the wait status `status` (`waitpid(2)`).
pub(crate) fn ended(container: &str, process: &str, status: i32) -> Ended {
    let (code, signal) = if libc::WIFSIGNALED(status) {
        (0, libc::WTERMSIG(status).cast_unsigned())
    } else {
        (libc::WEXITSTATUS(status).cast_unsigned(), 0)
    };
    Ended { container: container.into(), process: process.into(), code, signal }
}

#[cfg(test)]
#[path = "container_test.rs"]
mod container_test;
