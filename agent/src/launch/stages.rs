//! What a clone of the agent does before it executes the agent anew as a launcher.
//!
//! ```text
//! nothing to join:  clone (new namespaces) -> second stage
//! joining:          clone -> first stage: setns -> clone as sibling (new namespaces) -> second stage
//! clock offsets:    as joining: unshare and set the offsets, before any process is in the namespace
//! ```
//! The namespaces are joined before new ones are made, so that a joined user namespace owns the new
//! ones, and by a process of its own, because joining a pid namespace concerns children only.
//!
//! Invariant: nothing but system calls and small allocations; the runtime is not touched.

use std::convert::Infallible;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::channel::{self, Message};
use crate::error::{Context, Failure, Result};
use crate::sys::{self, Stage};

use super::spawn::CLONE_NEWTIME;

/// Namespaces of another process to join.
pub(crate) struct Join {
    /// The process.
    pub(crate) pidfd: OwnedFd,
    /// Which of its namespaces.
    pub(crate) kinds: CloneFlags,
}

/// The first descriptor after those that a launcher begins with.
const AFTER: u32 = 5;

/// What the stages need; all of it was opened by the agent.
pub(crate) struct Stages<'a> {
    /// The agent's own program.
    pub(crate) program: BorrowedFd<'a>,
    /// Standard streams, the plan and the channel: descriptors 0 to 4 of the launcher.
    pub(crate) fds: [BorrowedFd<'a>; 5],
    /// The launcher's end of the channel.
    pub(crate) channel: BorrowedFd<'a>,
    /// Namespaces to join.
    pub(crate) joins: &'a [Join],
    /// Namespaces to make.
    pub(crate) new: CloneFlags,
    /// Offsets of the clocks, as the kernel takes them; with any, the time namespace is not among `new`.
    pub(crate) clocks: &'a str,
}

impl Stages<'_> {
    /// The first stage's work, in the child of the agent.
    pub(crate) fn run(&self) -> Infallible {
        let direct = self.joins.is_empty() && self.clocks.is_empty();
        let outcome = if direct { self.second(false) } else { self.first() };
        self.fail(outcome)
    }

    /// Joins, and makes the process that goes on.
    fn first(&self) -> Result<()> {
        sys::set_dumpable(false).context(|| "becoming undumpable".into())?;
        if !self.clocks.is_empty() {
            // The kernel takes them only as long as no process is in the namespace: the next one will be.
            unshare(CLONE_NEWTIME).context(|| "making the time namespace".into())?;
            std::fs::write("/proc/self/timens_offsets", self.clocks)
                .context(|| format!("setting the clocks' offsets ({})", self.clocks.trim_end()))?;
        }
        for join in self.joins {
            setns(&join.pidfd, join.kinds).context(|| "joining the namespaces".into())?;
            if join.kinds.contains(CloneFlags::CLONE_NEWUSER) {
                become_root()?;
            }
        }
        // Before there is a process that others in its pid namespace can look into, if they are allowed to.
        sys::install_fds(&self.fds).context(|| "arranging descriptors".into())?;
        let kept = [self.program, self.channel];
        sys::close_others(AFTER, kept).context(|| "closing descriptors".into())?;
        let sibling = || self.fail(self.second(true));
        let pid = sys::clone_process(&Stage::Sibling, self.new, None, sibling);
        let pid = pid.context(|| "making the process".into())?.as_raw();
        channel::send(self.channel, &Message::Sibling(pid))
            .context(|| "telling the agent".into())?;
        sys::exit_now(0);
    }

    /// Becomes the launcher, whose descriptors may be `arranged` already.
    fn second(&self, arranged: bool) -> Result<()> {
        // The first stage has not told the agent about this process yet, perhaps, and what this one says
        // must come after that.
        match channel::read(self.channel).context(|| "waiting for the agent".into())? {
            Some(Message::Known) => {}
            _ => return Err(Failure::other("the agent gave up")),
        }
        if self.new.contains(CloneFlags::CLONE_NEWUSER) {
            become_root()?;
        }
        if !arranged {
            sys::install_fds(&self.fds).context(|| "arranging descriptors".into())?;
        }
        let Ok(name) = std::ffi::CString::new(super::NAME) else {
            return Err(Failure::other("the launcher has no name"));
        };
        let errno = sys::exec_fd(Some(self.program), c"", &[name], &[]);
        Err(errno).context(|| "executing the launcher".into())
    }

    /// Reports a failure and ends.
    fn fail(&self, outcome: Result<()>) -> Infallible {
        if let Err(failure) = outcome {
            // If the agent is not there any more, nobody needs to know.
            let _ = channel::send(self.channel, &Message::Failed(failure));
        }
        sys::exit_now(1)
    }
}

/// Becomes root of the user namespace this process is in. Without it, `execve` would take the
/// capabilities away.
fn become_root() -> Result<()> {
    let attempted = || "becoming root of the user namespace".into();
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[]).context(attempted)?;
    setresgid(gid, gid, gid).context(attempted)?;
    setresuid(uid, uid, uid).context(attempted)
}
