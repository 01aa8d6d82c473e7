//! The agent's side of a launch.
//!
//! Invariant: when a launch fails, its process is killed; it is reaped with all others.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use cofferdam_agent_protocol::{IdMap, ProcessPlan, Rlimit};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use prost::Message as _;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::channel::{self, Message};
use super::plan::LaunchPlan;
pub(crate) use super::stages::Join;
use super::stages::Stages;
use crate::error::{Context, Failure, Result};
use crate::sys::{self, Stage};

/// How long a launcher may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How long `execve` may take.
const GO_WITHIN: Duration = Duration::from_secs(60);

/// Open files of a process whose plan does not say: what Linux systems give. The agent itself has more.
const SOFT_FILES: u64 = 1024;

/// The most open files, of the agent too: the kernel's `fs.nr_open`.
pub(crate) const MAX_FILES: u64 = 1 << 20;

/// One launch.
pub(crate) struct Launch<'a> {
    /// The agent's own program.
    pub(crate) program: BorrowedFd<'a>,
    /// What to do.
    pub(crate) plan: &'a LaunchPlan,
    /// Namespaces to join; those with a user namespace last.
    pub(crate) joins: &'a [Join],
    /// The directory of the control group to start in.
    pub(crate) cgroup: BorrowedFd<'a>,
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
}

/// A process that is set up to the point before `execve`.
pub(crate) struct Launched {
    /// Its id in the agent's pid namespace.
    pub(crate) pid: Pid,
    /// The process.
    pub(crate) pidfd: OwnedFd,
    /// The agent's side of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// Its way to `execve`.
    pub(crate) waiting: Waiting,
}

/// A launcher that waits for the word to go.
pub(crate) struct Waiting(AsyncFd<OwnedFd>);

/// Launches a process.
///
/// # Errors
/// Whatever failed, here or there.
pub(crate) async fn launch(launch: Launch<'_>) -> Result<Launched> {
    let plan = launch.plan;
    let process = plan.process.as_deref();
    let process = process.ok_or_else(|| Failure::unsupported("a plan without a process"))?;
    let (mut channel, pid) = start(&launch)?;
    let pid = if launch.joins.is_empty() { pid } else { sibling(&mut channel).await? };
    let pidfd = sys::open_pidfd(pid).context(|| "opening the process".into())?;
    let waiting = Waiting(channel);
    let mut launched = Launched { pid, pidfd, terminal: None, waiting };
    let outcome = timeout(READY_WITHIN, launched.prepare(plan, process)).await;
    let late = |_| Failure::other("the launcher was not ready in time");
    if let Err(failure) = outcome.map_err(late).and_then(|outcome| outcome) {
        launched.kill();
        return Err(failure);
    }
    Ok(launched)
}

/// Clones the first stage.
fn start(launch: &Launch<'_>) -> Result<(AsyncFd<OwnedFd>, Pid)> {
    let plan = plan_file(launch.plan).context(|| "writing the plan".into())?;
    let (ours, theirs) = channel::pair().context(|| "making a channel".into())?;
    let [stdin, stdout, stderr] = launch.stdio;
    let stages = Stages {
        program: launch.program,
        fds: [stdin, stdout, stderr, plan.as_fd(), theirs.as_fd()],
        channel: theirs.as_fd(),
        joins: launch.joins,
        new: CloneFlags::from_bits_retain(launch.plan.new),
    };
    // The namespaces are made after the others are joined.
    let new = if launch.joins.is_empty() { stages.new } else { CloneFlags::empty() };
    let pid = sys::clone_process(&Stage::Child, new, Some(launch.cgroup), || stages.run());
    let pid = pid.context(|| "making the process".into())?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context(|| "preparing a channel".into())?;
    let channel = sys::watch(ours).context(|| "watching a channel".into())?;
    Ok((channel, pid))
}

/// The plan as a file to read from its beginning.
fn plan_file(plan: &LaunchPlan) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("plan", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&plan.encode_to_vec())?;
    file.rewind()?;
    Ok(file.into())
}

/// The next message; `None` at the end.
async fn next(channel: &mut AsyncFd<OwnedFd>) -> Result<Option<Message>> {
    loop {
        let mut ready = channel.readable().await.context(|| "waiting for the launcher".into())?;
        let read = |fd: &AsyncFd<OwnedFd>| Ok(channel::receive(fd.get_ref().as_fd())?);
        if let Ok(outcome) = ready.try_io(read) {
            return outcome.context(|| "hearing from the launcher".into());
        }
    }
}

/// The process that the first stage made.
async fn sibling(channel: &mut AsyncFd<OwnedFd>) -> Result<Pid> {
    let late = |_| Failure::other("the namespaces were not joined in time");
    match timeout(GO_WITHIN, next(channel)).await.map_err(late)?? {
        Some(Message::Sibling(pid)) if pid > 0 => Ok(Pid::from_raw(pid)),
        Some(Message::Failed(failure)) => Err(failure),
        _ => Err(Failure::other("the launcher ended while it joined the namespaces")),
    }
}

impl Waiting {
    /// Lets the program run. Success means that `execve` succeeded.
    ///
    /// # Errors
    /// That of `execve`, for example.
    pub(crate) async fn go(mut self) -> Result<()> {
        let fd = self.0.get_ref().as_fd();
        channel::send(fd, &Message::Go).context(|| "starting the process".into())?;
        let late = |_| Failure::other("the process did not start in time");
        match timeout(GO_WITHIN, next(&mut self.0)).await.map_err(late)?? {
            None => Ok(()),
            Some(Message::Failed(failure)) => Err(failure),
            Some(_) => Err(Failure::other("the launcher said something unexpected")),
        }
    }
}

impl Launched {
    /// All that the agent does for the process while it is set up.
    async fn prepare(&mut self, plan: &LaunchPlan, process: &ProcessPlan) -> Result<()> {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(MAX_FILES, |(_, hard)| hard);
        let files = Rlimit { resource: libc::RLIMIT_NOFILE, soft: SOFT_FILES, hard };
        sys::set_rlimit(self.pid, &files).context(|| "limiting open files".into())?;
        if plan.has_new(CloneFlags::CLONE_NEWUSER) {
            let setup = plan.setup.as_deref();
            let (uids, gids) = setup.map_or((&[][..], &[][..]), |c| (&c.uid_map, &c.gid_map));
            self.map_ids("uid_map", uids)?;
            self.map_ids("gid_map", gids)?;
        }
        let fd = self.waiting.0.get_ref().as_fd();
        channel::send(fd, &Message::Known).context(|| "telling the launcher".into())?;
        self.priorities(process)?;
        loop {
            match next(&mut self.waiting.0).await? {
                Some(Message::Terminal(terminal)) => self.terminal = Some(terminal),
                Some(Message::Ready) => break,
                Some(Message::Failed(failure)) => return Err(failure),
                _ => return Err(Failure::other("the launcher ended before it was ready")),
            }
        }
        // Last, so that they do not limit the launcher.
        for limit in &process.rlimits {
            sys::set_rlimit(self.pid, limit)
                .context(|| format!("setting resource limit {}", limit.resource))?;
        }
        Ok(())
    }

    /// Kills the process.
    pub(crate) fn kill(&self) {
        // It may be dead already.
        let _ = sys::send_signal(self.pidfd.as_fd(), libc::SIGKILL.cast_unsigned());
    }

    /// Writes the id map `name` (`user_namespaces(7)`: one write, at most a page).
    fn map_ids(&self, name: &str, map: &[IdMap]) -> Result<()> {
        let line = |m: &IdMap| format!("{} {} {}\n", m.container, m.host, m.size);
        let lines: String = map.iter().map(line).collect();
        let path = format!("/proc/{}/{name}", self.pid);
        fs::write(&path, &lines).context(|| format!("writing {name} ({})", lines.trim_end()))
    }

    /// Priorities that may need more privileges than the process will have.
    fn priorities(&self, process: &ProcessPlan) -> Result<()> {
        if let Some(adjustment) = process.oom_score_adj {
            let path = format!("/proc/{}/oom_score_adj", self.pid);
            fs::write(path, adjustment.to_string())
                .context(|| format!("setting oom_score_adj to {adjustment}"))?;
        }
        if let Some(scheduler) = &process.scheduler {
            sys::set_scheduler(self.pid, scheduler).context(|| "setting the scheduler".into())?;
        }
        if let Some(priority) = &process.io_priority {
            sys::set_io_priority(self.pid, priority)
                .context(|| "setting the I/O priority".into())?;
        }
        Ok(())
    }
}
