//! A terminal of the container's own devpts as the standard streams.
//!
//! Invariant: the agent gets the master side by descriptor; no path to it is ever opened outside of the
//! container's root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cofferdam_agent_protocol::{ProcessPlan, Terminal};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{fstat, makedev};

use super::channel::{self, Message};
use super::root::{Root, proc_path};
use crate::error::{Context, Failure, Result};
use crate::sys;

/// Gives this process the terminal that `process` wants, if any. `console`: it is /dev/console too.
pub(crate) fn attach(
    root: &Root,
    process: &ProcessPlan,
    channel: BorrowedFd<'_>,
    console: bool,
) -> Result<()> {
    let Some(wanted) = &process.terminal else { return Ok(()) };
    let (master, slave) = open(root).context(|| "making a terminal".into())?;
    if wanted.plain_newlines {
        sys::keep_newlines(slave.as_fd()).context(|| "setting the terminal up".into())?;
    }
    if let Some(size) = window_size(wanted) {
        sys::resize(slave.as_fd(), size).context(|| "sizing the terminal".into())?;
    }
    if console {
        let number = sys::terminal_number(master.as_fd());
        let number = number.context(|| "numbering the terminal".into())?;
        bind_console(root, number).context(|| "binding /dev/console".into())?;
    }
    channel::send(channel, &Message::Terminal(master)).context(|| "sending the terminal".into())?;
    sys::take_control(slave.as_fd()).context(|| "taking the terminal".into())?;
    let slave = slave.as_fd();
    sys::install_fds(&[slave, slave, slave]).context(|| "attaching the terminal".into())
}

/// A new terminal: its master and its slave side.
fn open(root: &Root) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = root.find(b"/dev/pts/ptmx", flags).context(|| "opening /dev/pts/ptmx".into())?;
    // A file that the container put there is not a terminal.
    let found = fstat(&master).context(|| "stat /dev/pts/ptmx".into())?;
    if found.st_rdev != makedev(5, 2) {
        return Err(Failure::other("/dev/pts/ptmx is not a terminal multiplexer"));
    }
    sys::unlock(master.as_fd()).context(|| "unlocking the terminal".into())?;
    let slave = sys::terminal_peer(master.as_fd()).context(|| "opening the other side".into())?;
    Ok((master, slave))
}

/// Makes the terminal /dev/console, for programs that insist on it.
fn bind_console(root: &Root, number: u32) -> std::result::Result<(), Errno> {
    let source = root.place(format!("/dev/pts/{number}").as_bytes())?;
    let target = root.make_file(b"/dev/console")?;
    let (source, target) = (proc_path(&source), proc_path(&target));
    let flags = MsFlags::MS_BIND;
    mount(Some(source.as_str()), target.as_str(), None::<&str>, flags, None::<&str>)
}

/// The size that the plan gives the window; `None` if it gives none.
pub(crate) fn window_size(terminal: &Terminal) -> Option<sys::WindowSize> {
    let rows = u16::try_from(terminal.rows).ok()?;
    let columns = u16::try_from(terminal.columns).ok()?;
    (rows > 0 && columns > 0).then_some(sys::WindowSize { rows, columns })
}
