//! Hooks of the container's namespaces (OCI runtime-spec, config#posix-platform-hooks): `createContainer`
//! and `startContainer`. The programs are the container's own: the host's do not exist in the guest.
//!
//! Invariant: a hook has no right that the container cannot have: it is in its root directory and under its filters,
//! with no capability that is not in its bounding set. It gets the state on standard input, ends within its time-out or
//! is killed with its process group, and is reaped; of its output a bounded part is kept.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cofferdam_agent_protocol::{GuestHook, GuestHooks, ProcessPlan};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, pipe2, setpgid, setsid};

use super::process::c_string;
use crate::error::{Context, Failure, Result, describe, show};
use crate::sys;

/// How much of a failing hook's output is repeated: its end.
const MAX_OUTPUT: usize = 2048;

/// How hooks run, before the container's process, whose plan is `process`.
pub(crate) struct As<'a> {
    /// The process.
    pub(crate) process: &'a ProcessPlan,
    /// The environment of hooks that have none of their own, if this process is as `process` says, but for what comes
    /// with `no_new_privs`. Without it, hooks run as root with what the bounding set allows, in a session of their own.
    pub(crate) env: Option<&'a [CString]>,
}

/// Runs `hooks`; the first that fails is the failure.
pub(crate) fn run(hooks: &GuestHooks, place: &As<'_>) -> Result<()> {
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
fn one(hook: &GuestHook, state: &str, place: &As<'_>) -> Result<()> {
    let strings = |list: &[Vec<u8>]| list.iter().map(|s| c_string(s)).collect::<Result<Vec<_>>>();
    let mut env = strings(&hook.env)?;
    if let (true, Some(own)) = (env.is_empty(), place.env) {
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
fn child(program: &Program, place: &As<'_>, input: &OwnedFd, output: &OwnedFd) -> String {
    let failed = |what: &str, errno: Errno| format!("{what}: {}", describe(errno));
    let prepare = || -> std::result::Result<(), (&str, Errno)> {
        match place.env {
            Some(_) => setpgid(Pid::from_raw(0), Pid::from_raw(0)),
            // The terminal is the process's.
            None => setsid().map(drop),
        }
        .map_err(|e| ("making its group", e))?;
        sys::install_fds(&[input.as_fd(), output.as_fd(), output.as_fd()])
            .map_err(|e| ("arranging its streams", e))?;
        // The agent's channel is open without it.
        sys::close_on_exec_from(3).map_err(|e| ("closing descriptors", e))?;
        sys::default_signals().map_err(|e| ("resetting signals", e))?;
        confine(place)
    };
    if let Err((what, errno)) = prepare() {
        return failed(what, errno);
    }
    failed("exec", sys::exec_fd(None, &program.path, &program.args, &program.env))
}

/// Gives up what the process will not have. What is run next gets the capabilities of root, as far as the bounding set
/// allows.
fn confine(place: &As<'_>) -> std::result::Result<(), (&'static str, Errno)> {
    let process = place.process;
    if place.env.is_none() {
        let bounding = process.capabilities.as_ref().map_or(0, |sets| sets.bounding);
        let kernel = sys::supported_capabilities();
        sys::drop_bounding(kernel, bounding).map_err(|e| ("dropping the bounding set", e))?;
        sys::clear_inheritable().map_err(|e| ("dropping capabilities", e))?;
        sys::clear_ambient().map_err(|e| ("clearing the ambient set", e))?;
    }
    if process.no_new_privileges {
        sys::no_new_privileges().map_err(|e| ("setting no_new_privs", e))?;
    }
    // Without no_new_privs, a process that is as the plan says has them already.
    if process.no_new_privileges || place.env.is_none() {
        for filter in &process.seccomp {
            sys::install_seccomp(&filter.program, filter.flags)
                .map_err(|e| ("installing a seccomp filter", e))?;
        }
    }
    Ok(())
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
