//! Hooks of the container's namespaces (OCI runtime-spec, config#posix-platform-hooks): `createContainer`
//! and `startContainer`. The programs are the container's own: the host's do not exist in the guest.
//!
//! Invariant: a hook gets the state on standard input, ends within its time-out or is killed with its process
//! group, and is reaped; of its output a bounded part is kept.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cofferdam_agent_protocol::{GuestHook, GuestHooks};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, chroot, fchdir, getpid, pipe2, setpgid};

use super::process::c_string;
use super::root::Root;
use crate::error::{Context, Failure, Result, describe, show};
use crate::sys;

/// How much of a failing hook's output is repeated: its end.
const MAX_OUTPUT: usize = 2048;

/// Where hooks run.
pub(crate) enum Place<'a> {
    /// In a root directory that is not this process's yet, with an empty environment.
    Root(&'a Root),
    /// As this process is, with an environment for those that have none of their own.
    Process {
        /// The environment.
        env: &'a [CString],
    },
}

/// Runs `hooks`; the first that fails is the failure.
pub(crate) fn run(hooks: &GuestHooks, place: &Place<'_>) -> Result<()> {
    let state = format!("{}{}{}", hooks.state_before_pid, getpid(), hooks.state_after_pid);
    for (index, hook) in hooks.hooks.iter().enumerate() {
        one(hook, &state, place).map_err(|failure| {
            let (name, path) = (&hooks.name, show(&hook.path));
            let text = format!("error running {name} hook #{index}: {path}: {}", failure.message);
            Failure::other(text)
        })?;
    }
    Ok(())
}

/// A hook's program as the kernel takes it.
struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Runs one hook to its end.
fn one(hook: &GuestHook, state: &str, place: &Place<'_>) -> Result<()> {
    let strings = |list: &[Vec<u8>]| list.iter().map(|s| c_string(s)).collect::<Result<Vec<_>>>();
    let mut env = strings(&hook.env)?;
    if let (true, Place::Process { env: own }) = (env.is_empty(), place) {
        env = own.to_vec();
    }
    let program = Program { path: c_string(&hook.path)?, args: strings(&hook.args)?, env };
    let input = input(state).context(|| "writing the state".into())?;
    let (read, write) = pipe2(OFlag::O_CLOEXEC).context(|| "making a pipe".into())?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context(|| "making a pipe".into())?;
    let child = || {
        let failure = child(&program, place, &input, &write);
        // The standard error of the hook, by now or never.
        let _ = writeln!(std::io::stderr(), "{failure}");
        sys::exit_now(127)
    };
    let pid = sys::fork_process(child).context(|| "making its process".into())?;
    drop(write);
    let mut output = Vec::new();
    let outcome = wait(pid, read, Duration::from_secs(hook.seconds().into()), &mut output);
    let ended = outcome == Ok(true);
    if !ended {
        // Its group, or the process alone if it has not made one yet.
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    }
    let status = waitpid(pid, None).context(|| "waiting for its end".into())?;
    outcome.context(|| "watching its process".into())?;
    let said = String::from_utf8_lossy(&output);
    let problem = match status {
        _ if !ended => format!("killed after its time-out of {} seconds", hook.seconds()),
        WaitStatus::Exited(_, 0) => return Ok(()),
        WaitStatus::Exited(_, code) => format!("exit status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("signal: {}", words(signal)),
        other => format!("{other:?}"),
    };
    Err(Failure::other(format!("{problem}, output: {}", said.trim_end())))
}

/// What Go's programs call `signal`, where it may be of interest.
fn words(signal: Signal) -> &'static str {
    match signal {
        Signal::SIGKILL => "killed",
        Signal::SIGTERM => "terminated",
        Signal::SIGABRT => "aborted",
        Signal::SIGSEGV => "segmentation fault",
        Signal::SIGSYS => "bad system call",
        other => other.as_str(),
    }
}

/// `state` as a file: a hook need not read it, and a pipe would fill up.
fn input(state: &str) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("state", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(state.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// Becomes the hook; returns only when that fails.
fn child(program: &Program, place: &Place<'_>, input: &OwnedFd, output: &OwnedFd) -> String {
    let failed = |what: &str, errno: Errno| format!("{what}: {}", describe(errno));
    let prepare = || -> std::result::Result<(), (&str, Errno)> {
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(|e| ("making its group", e))?;
        sys::install_fds(&[input.as_fd(), output.as_fd(), output.as_fd()])
            .map_err(|e| ("arranging its streams", e))?;
        if let Place::Root(root) = place {
            fchdir(root.as_fd()).map_err(|e| ("going to the root", e))?;
            chroot(".").map_err(|e| ("changing the root", e))?;
            chdir("/").map_err(|e| ("going to the root", e))?;
        }
        // The agent's channel is open without it.
        sys::close_on_exec_from(3).map_err(|e| ("closing descriptors", e))?;
        sys::default_signals().map_err(|e| ("resetting signals", e))
    };
    if let Err((what, errno)) = prepare() {
        return failed(what, errno);
    }
    failed("exec", sys::exec_fd(None, &program.path, &program.args, &program.env))
}

/// Waits for the end of `pid`, and keeps the end of what it writes in `output`; whether it came in time.
fn wait(pid: Pid, read: OwnedFd, within: Duration, output: &mut Vec<u8>) -> nix::Result<bool> {
    let until = Instant::now() + within;
    let pidfd = sys::open_pidfd(pid)?;
    let mut read = File::from(read);
    let mut open = true;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if open {
            fds.push(PollFd::new(read.as_fd(), PollFlags::POLLIN));
        }
        let outcome = poll(&mut fds, timeout);
        let ended = fds.first().is_some_and(|fd| fd.any() == Some(true));
        drop(fds);
        match outcome {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(0) => return Ok(false),
            Ok(_) => {}
        }
        open = open && drain(&mut read, output);
        if ended {
            return Ok(true);
        }
    }
}

/// Takes what is in the pipe; `false` when there will be no more.
fn drain(read: &mut File, output: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    // At most what a pipe holds at once: a writer that never stops is not waited for.
    for _ in 0..16 {
        match read.read(&mut chunk) {
            Ok(0) => return false,
            Ok(length) => {
                output.extend_from_slice(chunk.get(..length).unwrap_or_default());
                let over = output.len().saturating_sub(MAX_OUTPUT);
                output.drain(..over);
            }
            Err(error) => {
                let again = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::Interrupted];
                return again.contains(&error.kind());
            }
        }
    }
    true
}
