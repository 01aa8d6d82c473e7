//! The proxy of a process: what an engine sees of it on the host.
//!
//! It is this program again, with a hidden command: it lives exactly as long as the process in the guest, passes on the
//! signals it gets, and ends as the process did, with its exit code or by its signal. Whoever kills it kills the
//! process: the supervisor sees the socket close. With a terminal it is the leader of the terminal's session, and so
//! hears of changes of its size. It is alone in a process-id namespace of its own; as the first of one, no signal of its
//! own ends it: where the process ended by a signal, the exit code is that of shells.
//!
//! Invariant: it holds its socket, the terminal and nothing else, sees no file of the host, and runs no more than one
//! thread.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

use cofferdam_vmm_api::{Channel, ChannelError, in_new_pid_namespace};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::tcgetwinsize;

use crate::control::{End, FromProxy};

/// The hidden command.
pub const COMMAND: &str = "proxy";

/// What the exit code is when nobody knows how the process ended: as if it was killed.
const LOST: u8 = 137;

/// Starts a proxy for a process with this command line, in a session of its own, with `terminal` as its controlling terminal, in the network namespace
/// `network`; gives the socket to it.
///
/// # Errors
/// The process cannot be started, or cannot enter the namespace.
pub(crate) fn start(
    command_line: &[Vec<u8>],
    terminal: Option<OwnedFd>,
    network: Network,
) -> io::Result<(Child, Channel)> {
    let (ours, theirs) = Channel::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("cofferdam").arg(COMMAND).env_clear().current_dir("/");
    // For people who look at the host's processes; nobody reads it.
    command.args(command_line.iter().map(|argument| OsStr::from_bytes(argument)));
    let socket = theirs.into_inner();
    let has_terminal = terminal.is_some();
    // No other file is open in it, as engines expect of a container's process.
    command.stderr(socket.try_clone()?);
    command.stdout(match terminal {
        Some(terminal) => Stdio::from(terminal),
        None => Stdio::from(socket.try_clone()?),
    });
    command.stdin(socket);
    crate::sys::begin_session(&mut command, has_terminal, network);
    // The first of a namespace of its own, with nothing else in its /proc: who looks into the container's namespaces by
    // its number sees nothing of the host.
    Ok((in_new_pid_namespace(move || command.spawn())?, ours))
}

/// The network namespace of a proxy: what engines find behind `/proc/PID/ns/net`.
#[derive(Debug)]
pub(crate) enum Network {
    /// That of the caller.
    Same,
    /// A new one.
    New,
    /// This one.
    Existing(OwnedFd),
}

/// Whether the command line is the hidden command's.
#[must_use]
pub fn requested(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    arguments.nth(1).is_some_and(|argument| argument == COMMAND)
}

/// Whether `line`, a command line as `/proc` has it, is a proxy's.
pub(crate) fn is_line(line: &[u8]) -> bool {
    line.starts_with(format!("cofferdam\0{COMMAND}\0").as_bytes())
}

/// The proxy's `main`; standard input is the socket, standard output may be a terminal.
#[must_use]
pub fn main() -> ExitCode {
    // Without it, the proxy is what it is for all the same.
    let _ = leave_the_host();
    let end = io::stdin().as_fd().try_clone_to_owned().and_then(|socket| {
        let socket = Channel::new(socket);
        serve(&socket, io::stdout().as_fd())
    });
    match end {
        Ok(End { result: Ok((_, signal)), .. }) if signal != 0 => die_by(signal),
        Ok(End { result: Ok((code, _)), .. }) => ExitCode::from(code),
        // The process is gone with its pod.
        Ok(End { result: Err(_), .. }) | Err(_) => die_by(9),
    }
}

/// Where the first process of a namespace has no more of the host's files than its own /proc, read-only: who enters its
/// mount namespace reads and writes nothing of the host, and no mount of the host is kept busy. Without the right to that,
/// nothing changes.
fn leave_the_host() -> nix::Result<()> {
    const NONE: Option<&str> = None;
    if nix::unistd::getpid().as_raw() != 1 {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = |place: &str| mount(Some("proc"), place, Some("proc"), flags, NONE);
    // The one directory that every host has.
    mount(Some("tmpfs"), "/proc", Some("tmpfs"), flags, Some("size=4k,mode=755"))?;
    nix::unistd::mkdir("/proc/proc", Mode::from_bits_truncate(0o555))?;
    proc("/proc/proc")?;
    nix::unistd::chdir("/proc")?;
    if let Err(errno) = nix::unistd::pivot_root(".", ".") {
        // The host's root is that of its kernel, which stays.
        nix::unistd::chdir("/")?;
        umount2("/proc", MntFlags::MNT_DETACH)?;
        proc("/proc")?;
        return Err(errno);
    }
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    mount(NONE, "/", NONE, flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE)
}

/// Passes signals on until the end.
fn serve(socket: &Channel, terminal: BorrowedFd<'_>) -> io::Result<End> {
    let signals = SignalFd::with_flags(&caught()?, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let said = !fds[0].revents().is_empty();
        while let Some(signal) = signals.read_signal()? {
            // A supervisor that is gone is found out below.
            let _ = pass(socket, signal.ssi_signo, terminal);
        }
        if said {
            let message = socket.receive::<End>().map_err(io::Error::other)?;
            return Ok(message.body);
        }
    }
}

/// Blocks all signals that can be, but those that tell of faults of this program.
fn caught() -> io::Result<SigSet> {
    let mut signals = SigSet::all();
    for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGSYS] {
        signals.remove(fault);
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&signals), None)?;
    Ok(signals)
}

fn pass(socket: &Channel, signal: u32, terminal: BorrowedFd<'_>) -> Result<(), ChannelError> {
    let is = |known: Signal| signal == known as u32;
    let message = if is(Signal::SIGWINCH) {
        match tcgetwinsize(terminal) {
            Ok(size) => FromProxy::Size(size.ws_row, size.ws_col),
            Err(_) => return Ok(()),
        }
    } else if is(Signal::SIGCHLD) {
        return Ok(());
    } else {
        FromProxy::Signal(signal)
    };
    socket.send(&message, &[])
}

/// Ends by `signal`, or, if that does not end a program, with the exit code that stands for it.
fn die_by(signal: u8) -> ExitCode {
    crate::sys::raise_by_default(i32::from(signal));
    ExitCode::from(if signal == 9 { LOST } else { 128u8.saturating_add(signal) })
}

#[cfg(test)]
#[path = "proxy_test.rs"]
mod proxy_test;
