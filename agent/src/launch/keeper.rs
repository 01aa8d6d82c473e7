//! The first process of a pid namespace that containers share and none of them begins: in other runtimes, what runs in
//! the pause container.
//!
//! Invariant: it has an empty root directory, no capabilities and no descriptors, reaps, and does nothing else.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use cofferdam_agent_protocol::{Capabilities, READY_WITHIN};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, setsid};
use tokio::time::timeout;

use super::channel::{self, Message};
use super::mounts::change;
use super::root::proc_path;
use super::setup::enter;
use super::spawn::{kill, next};
use crate::error::{Context, Failure, Result};
use crate::sys::{self, Stage};

/// `argv[0]` of a keeper, which containers see.
pub(crate) const NAME: &str = "pause";

/// Its descriptor besides the standard streams.
const CHANNEL_FD: i32 = 3;

/// The first descriptor after those that it begins with.
const AFTER: u32 = 4;

/// Where its empty root directory is mounted first.
const PLACE: &str = "/run";

/// Starts one in a new pid namespace; `program` is the agent's own, `null` is /dev/null as a place.
///
/// # Errors
/// Whatever failed, here or there.
pub(crate) async fn keep(program: BorrowedFd<'_>, null: BorrowedFd<'_>) -> Result<(Pid, OwnedFd)> {
    let null = open(proc_path(&null).as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .context(|| "opening /dev/null".into())?;
    let (ours, theirs) = channel::pair().context(|| "making a channel".into())?;
    let new = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    let child = || become_keeper(program, null.as_fd(), theirs.as_fd());
    let pid = sys::clone_process(&Stage::Child, new, None, child);
    let pid = pid.context(|| "making the process".into())?;
    let pidfd = sys::open_pidfd(pid).context(|| "opening the process".into())?;
    drop(theirs);
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context(|| "preparing a channel".into())?;
    let mut channel = sys::watch(ours).context(|| "watching a channel".into())?;
    let said = timeout(READY_WITHIN, next(&mut channel, pidfd.as_fd())).await;
    let late = |_| Failure::other("it was not ready in time");
    let outcome = match said.map_err(late).flatten() {
        Ok(Some(Message::Ready)) => return Ok((pid, pidfd)),
        Ok(Some(Message::Failed(failure))) | Err(failure) => failure,
        Ok(_) => Failure::other("it ended"),
    };
    kill(pidfd.as_fd());
    Err(Failure::new(outcome.kind, format!("keeping a pid namespace: {}", outcome.message)))
}

/// Executes the agent's program anew.
fn become_keeper(
    program: BorrowedFd<'_>,
    null: BorrowedFd<'_>,
    channel: BorrowedFd<'_>,
) -> Infallible {
    let execute = || -> Result<()> {
        sys::install_fds(&[null, null, null, channel])
            .context(|| "arranging descriptors".into())?;
        sys::close_others(AFTER, [program, channel]).context(|| "closing descriptors".into())?;
        let name = CString::new(NAME).map_err(|_| Failure::other("the keeper has no name"))?;
        let errno = sys::exec_fd(Some(program), c"", &[name], &[]);
        Err(errno).context(|| "executing the keeper".into())
    };
    if let Err(failure) = execute() {
        // If the agent is not there any more, nobody needs to know.
        let _ = channel::send(channel, &Message::Failed(failure));
    }
    sys::exit_now(1)
}

/// Runs the keeper; returns only when it fails.
pub(crate) fn main() -> ExitCode {
    let channel = sys::adopt(CHANNEL_FD);
    let said = settle().map_or_else(Message::Failed, |()| Message::Ready);
    let sent = channel::send(channel.as_fd(), &said);
    drop(channel);
    if sent.is_ok() && matches!(said, Message::Ready) {
        sys::reap_for_ever();
    }
    ExitCode::FAILURE
}

/// Gives up all that it has: containers of the namespace may be allowed to look into it.
fn settle() -> Result<()> {
    sys::set_dumpable(false).context(|| "becoming undumpable".into())?;
    setsid().context(|| "starting a session".into())?;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    change("/", private).context(|| "making the mount tree private".into())?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), PLACE, Some("tmpfs"), flags, None::<&str>)
        .context(|| format!("mounting a tmpfs at {PLACE}"))?;
    enter(PLACE)?;
    let known = sys::supported_capabilities();
    sys::clear_ambient().context(|| "giving up capabilities".into())?;
    sys::drop_bounding(known, 0).context(|| "giving up capabilities".into())?;
    sys::set_capabilities(known, &Capabilities::default())
        .context(|| "giving up capabilities".into())?;
    sys::no_new_privileges().context(|| "setting no_new_privs".into())
}
