//! The agent's side of a launch.
//!
//! Invariant: when a launch fails, its process is killed; it is reaped with all others.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use cofferdam_agent_protocol::{
    ContainerPlan, CpuAffinity, EXECUTED_WITHIN, GuestHooks, IdMap, JOINED_WITHIN, ProcessPlan,
    READY_WITHIN, Rlimit, STARTED_WITHIN,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use prost::Message as _;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::channel::{self, Message};
use super::deadline::Deadline;
use super::plan::LaunchPlan;
pub(crate) use super::stages::Join;
use super::stages::Stages;
use crate::error::{Context, Failure, Result};
use crate::sys::{self, Stage};

/// `CLONE_NEWTIME` of `linux/sched.h`, which nix does not name.
pub(crate) const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// Time between two looks whether a launcher was stopped.
const LOOK: Duration = Duration::from_millis(50);

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
    /// The control group to start in.
    pub(crate) group: Group<'a>,
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
}

/// The control group of a launch.
pub(crate) struct Group<'a> {
    /// Its directory.
    pub(crate) directory: BorrowedFd<'a>,
    /// Lets only the devices be used that this eBPF program allows, as soon as the launcher has made its nodes, which
    /// the program may not allow. An empty one changes nothing.
    pub(crate) device_filter: &'a [u8],
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
pub(crate) struct Waiting {
    channel: AsyncFd<OwnedFd>,
    /// The process.
    pidfd: OwnedFd,
    limit: Limit,
}

/// How long a launcher may take to its `execve`.
enum Limit {
    /// From the word to go.
    Within(Duration),
    /// In all.
    By(Deadline),
}

/// Launches a process.
///
/// # Errors
/// Whatever failed, here or there.
pub(crate) async fn launch(launch: Launch<'_>) -> Result<Launched> {
    let plan = launch.plan;
    let process = plan.process.as_deref();
    let process = process.ok_or_else(|| Failure::unsupported("a plan without a process"))?;
    let setup = plan.setup.as_deref();
    let clocks = clocks(setup);
    let executed = Deadline::after(EXECUTED_WITHIN);
    let (mut channel, pid) = start(&launch, &clocks)?;
    let mut pidfd = sys::open_pidfd(pid).context(|| "opening the process".into())?;
    let direct = launch.joins.is_empty() && clocks.is_empty();
    let mut pid = pid;
    if !direct {
        pid = sibling(&mut channel, pidfd.as_fd()).await.inspect_err(|_| kill(pidfd.as_fd()))?;
        pidfd = sys::open_pidfd(pid).context(|| "opening the process".into())?;
    }
    let watched = pidfd.try_clone().context(|| "copying a descriptor".into())?;
    let (limit, ready) = match setup {
        Some(setup) => (
            Limit::Within(STARTED_WITHIN + hooks_take(setup.start_hooks.as_ref())),
            Deadline::after(READY_WITHIN + hooks_take(setup.create_hooks.as_ref())),
        ),
        None => (Limit::By(executed), executed),
    };
    let waiting = Waiting { channel, pidfd: watched, limit };
    let mut launched = Launched { pid, pidfd, terminal: None, waiting };
    let outcome = ready.wait(launched.prepare(plan, process, &launch.group)).await;
    let late = || Err(Failure::other("the launcher was not ready in time"));
    if let Err(failure) = outcome.unwrap_or_else(late) {
        launched.kill();
        return Err(failure);
    }
    Ok(launched)
}

/// How long hooks may take in all.
fn hooks_take(hooks: Option<&GuestHooks>) -> Duration {
    hooks.map(GuestHooks::within).unwrap_or_default()
}

/// The offsets of a new container's clocks, as `/proc/self/timens_offsets` takes them.
fn clocks(setup: Option<&ContainerPlan>) -> String {
    let offsets = setup.map(|setup| setup.time_offsets.as_slice()).unwrap_or_default();
    let line = |offset: &cofferdam_agent_protocol::TimeOffset| {
        format!("{} {} {}\n", offset.clock, offset.seconds, offset.nanoseconds)
    };
    offsets.iter().map(line).collect()
}

/// Clones the first stage.
fn start(launch: &Launch<'_>, clocks: &str) -> Result<(AsyncFd<OwnedFd>, Pid)> {
    let plan = plan_file(launch.plan).context(|| "writing the plan".into())?;
    let (ours, theirs) = channel::pair().context(|| "making a channel".into())?;
    let [stdin, stdout, stderr] = launch.stdio;
    let mut new = CloneFlags::from_bits_retain(launch.plan.new);
    if !clocks.is_empty() {
        new.remove(CLONE_NEWTIME);
    }
    let stages = Stages {
        program: launch.program,
        fds: [stdin, stdout, stderr, plan.as_fd(), theirs.as_fd()],
        channel: theirs.as_fd(),
        joins: launch.joins,
        new,
        clocks,
    };
    // The namespaces are made after the others are joined, and after the clocks are set.
    let direct = launch.joins.is_empty() && clocks.is_empty();
    let new = if direct { stages.new } else { CloneFlags::empty() };
    let pid = sys::clone_process(&Stage::Child, new, Some(launch.group.directory), || stages.run());
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

/// The next message of the launcher `process`; `None` at the end. One that others have stopped is a failure: it
/// would hold up everybody, and how long is theirs to say.
pub(super) async fn next(
    channel: &mut AsyncFd<OwnedFd>,
    process: BorrowedFd<'_>,
) -> Result<Option<Message>> {
    loop {
        let mut ready = tokio::select! {
            ready = channel.readable() => ready.context(|| "waiting for the launcher".into())?,
            () = sleep(LOOK) => {
                if sys::is_stopped(process) {
                    return Err(Failure::other("the launcher was stopped by another process"));
                }
                continue;
            }
        };
        let read = |fd: &AsyncFd<OwnedFd>| Ok(channel::receive(fd.get_ref().as_fd())?);
        if let Ok(outcome) = ready.try_io(read) {
            return outcome.context(|| "hearing from the launcher".into());
        }
    }
}

/// The process that the first stage made.
async fn sibling(channel: &mut AsyncFd<OwnedFd>, first: BorrowedFd<'_>) -> Result<Pid> {
    let said = Deadline::after(JOINED_WITHIN).wait(next(channel, first)).await;
    match said.ok_or_else(|| Failure::other("the namespaces were not joined in time"))?? {
        Some(Message::Sibling(pid)) if pid > 0 => Ok(Pid::from_raw(pid)),
        Some(Message::Failed(failure)) => Err(failure),
        _ => Err(Failure::other("the launcher ended while it joined the namespaces")),
    }
}

/// Kills `process`.
pub(super) fn kill(process: BorrowedFd<'_>) {
    // It may be dead already.
    let _ = sys::send_signal(process, libc::SIGKILL.cast_unsigned());
}

impl Waiting {
    /// Lets the program run. Success means that `execve` succeeded.
    ///
    /// # Errors
    /// That of `execve`, for example.
    pub(crate) async fn go(mut self) -> Result<()> {
        let fd = self.channel.get_ref().as_fd();
        channel::send(fd, &Message::Go).context(|| "starting the process".into())?;
        let deadline = match self.limit {
            Limit::Within(within) => Deadline::after(within),
            Limit::By(deadline) => deadline,
        };
        let said = deadline.wait(next(&mut self.channel, self.pidfd.as_fd())).await;
        match said.ok_or_else(|| Failure::other("the process did not start in time"))?? {
            None => Ok(()),
            Some(Message::Failed(failure)) => Err(failure),
            Some(_) => Err(Failure::other("the launcher said something unexpected")),
        }
    }
}

impl Group<'_> {
    /// Lets the filter be in force.
    fn limit_devices(&self) -> Result<()> {
        if self.device_filter.is_empty() {
            return Ok(());
        }
        sys::limit_devices(self.directory, self.device_filter)
            .context(|| "attaching the device filter".into())
    }
}

impl Launched {
    /// All that the agent does for the process while it is set up.
    async fn prepare(
        &mut self,
        plan: &LaunchPlan,
        process: &ProcessPlan,
        group: &Group<'_>,
    ) -> Result<()> {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(MAX_FILES, |(_, hard)| hard);
        let files = Rlimit { resource: libc::RLIMIT_NOFILE, soft: SOFT_FILES, hard };
        sys::set_rlimit(self.pid, &files).context(|| "limiting open files".into())?;
        if plan.has_new(CloneFlags::CLONE_NEWUSER) {
            let setup = plan.setup.as_deref();
            let (uids, gids) = setup.map_or((&[][..], &[][..]), |c| (&c.uid_map, &c.gid_map));
            self.map_ids("uid_map", uids)?;
            self.map_ids("gid_map", gids)?;
        }
        // Only what comes later has an affinity (OCI runtime-spec, config#process).
        let affinity = process.affinity.as_ref().filter(|_| plan.setup.is_none());
        self.initial_affinity(affinity)?;
        self.go_on()?;
        self.priorities(process)?;
        let mut limited = false;
        loop {
            match next(&mut self.waiting.channel, self.pidfd.as_fd()).await? {
                Some(Message::Terminal(terminal)) => self.terminal = Some(terminal),
                Some(Message::Made) => {
                    group.limit_devices()?;
                    limited = true;
                    self.go_on()?;
                }
                Some(Message::Ready) => break,
                Some(Message::Failed(failure)) => return Err(failure),
                _ => return Err(Failure::other("the launcher ended before it was ready")),
            }
        }
        if !limited {
            group.limit_devices()?;
        }
        // Last, so that they do not limit the launcher.
        for limit in &process.rlimits {
            sys::set_rlimit(self.pid, limit)
                .context(|| format!("setting resource limit {}", limit.resource))?;
        }
        self.last_affinity(affinity)
    }

    /// Tells the launcher to go on.
    fn go_on(&self) -> Result<()> {
        let fd = self.waiting.channel.get_ref().as_fd();
        channel::send(fd, &Message::Known).context(|| "telling the launcher".into())
    }

    /// The CPUs that the process is set up on.
    fn initial_affinity(&self, affinity: Option<&CpuAffinity>) -> Result<()> {
        match affinity.map(|affinity| affinity.initial.as_slice()) {
            None | Some([]) => Ok(()),
            Some(cpus) => sys::set_affinity(self.pid, cpus)
                .context(|| format!("execCPUAffinity.initial: CPUs {cpus:?} of the machine")),
        }
    }

    /// The CPUs that it then runs on.
    fn last_affinity(&self, affinity: Option<&CpuAffinity>) -> Result<()> {
        let Some(CpuAffinity { initial, last }) = affinity else { return Ok(()) };
        if initial.is_empty() && last.is_empty() {
            return Ok(());
        }
        sys::set_affinity(self.pid, last)
            .context(|| format!("execCPUAffinity.final: CPUs {last:?} of the machine"))
    }

    /// Kills the process.
    pub(crate) fn kill(&self) {
        kill(self.pidfd.as_fd());
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
