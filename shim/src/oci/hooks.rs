//! Hooks (OCI runtime-spec, config#posix-platform-hooks).
//!
//! Those of the runtime's namespace run on the host: prestart, createRuntime, poststart, poststop. Those
//! of the container's namespace (createContainer, startContainer) run in the guest: see `guest_hooks`.
//!
//! Invariant: a hook gets the state on standard input, ends within its time-out or is killed, does not outlive
//! the run that waits for it, and is always reaped.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;

use super::{OciError, invalid};

/// Longest output of a failing hook that is repeated.
const MAX_OUTPUT: usize = 4096;

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its list and its place in that, for messages: `createRuntime hook #0`.
    pub name: String,
    /// The program, absolute.
    pub path: PathBuf,
    /// Its arguments, the name it is called by first; empty means the path.
    pub args: Vec<String>,
    /// Its whole environment; absent is ours, as with runc.
    pub env: Option<Vec<(String, String)>>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// The hooks of a container that run on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `prestart`, then `createRuntime`: before the container is created.
    pub create: Vec<Hook>,
    /// `poststart`.
    pub poststart: Vec<Hook>,
    /// `poststop`.
    pub poststop: Vec<Hook>,
}

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be run.
    #[error("error running {name}: {path}")]
    Run {
        /// Which.
        name: String,
        /// The program.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It ended badly.
    #[error("error running {name}: {path} ended with {status}: {output}")]
    Status {
        /// Which.
        name: String,
        /// The program.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// It took too long.
    #[error("error running {name}: {path} was killed after its time-out of {timeout:?}")]
    Timeout {
        /// Which.
        name: String,
        /// The program.
        path: PathBuf,
        /// The time-out.
        timeout: Duration,
    },
}

pub(crate) fn hooks(hooks: Option<&oci_spec::runtime::Hooks>) -> Result<Hooks, OciError> {
    let Some(hooks) = hooks else { return Ok(Hooks::default()) };
    #[allow(deprecated, reason = "docker and others still use prestart")]
    let prestart = hooks.prestart();
    let mut create = list("prestart", prestart.as_deref())?;
    create.extend(list("createRuntime", hooks.create_runtime().as_deref())?);
    Ok(Hooks {
        create,
        poststart: list("poststart", hooks.poststart().as_deref())?,
        poststop: list("poststop", hooks.poststop().as_deref())?,
    })
}

/// The hooks of the list `name`.
pub(super) fn list(
    name: &str,
    hooks: Option<&[oci_spec::runtime::Hook]>,
) -> Result<Vec<Hook>, OciError> {
    let hook = |(index, hook): (usize, &oci_spec::runtime::Hook)| {
        let field = format!("hooks.{name}[{index}]");
        if !hook.path().is_absolute() {
            let problem = format!("{} is not an absolute path", hook.path().display());
            return Err(invalid(format!("{field}.path"), problem));
        }
        let timeout = hook.timeout().map(u64::try_from).transpose();
        let timeout = timeout.ok().filter(|seconds| *seconds != Some(0)).ok_or_else(|| {
            invalid(format!("{field}.timeout"), "not a positive number of seconds")
        })?;
        let pair = |text: &String| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (key.to_owned(), value.to_owned())
        };
        for (part, strings) in [("args", hook.args()), ("env", hook.env())] {
            if strings.iter().flatten().any(|text| text.contains('\0')) {
                return Err(invalid(format!("{field}.{part}"), "a NUL byte"));
            }
        }
        if hook.path().as_os_str().as_bytes().contains(&0) {
            return Err(invalid(format!("{field}.path"), "a NUL byte"));
        }
        Ok(Hook {
            name: format!("{name} hook #{index}"),
            path: hook.path().clone(),
            args: hook.args().clone().unwrap_or_default(),
            env: hook
                .env()
                .as_ref()
                .map(|env| env.iter().map(pair).filter(|(key, _)| !key.is_empty()).collect()),
            timeout: timeout.map(Duration::from_secs),
        })
    };
    hooks.unwrap_or_default().iter().enumerate().map(hook).collect()
}

impl Hook {
    /// Runs it in `directory`, with `state` on its standard input; waits for its end. `told` hears the id of its process, and
    /// `None` when that has ended and is about to be reaped.
    ///
    /// Must be called within a runtime, on a thread that lives as long as this process: the hook dies with it.
    /// When the time-out passes or the future is dropped, the hook is killed with its process group. What a hook
    /// that ended by itself leaves running stays, as with runc.
    ///
    /// # Errors
    /// It cannot be run, takes too long, or ends with another status than 0.
    pub async fn run(
        &self,
        state: &str,
        directory: Option<&Path>,
        told: impl FnMut(Option<u32>) + Send,
    ) -> Result<(), HookError> {
        let failed =
            |source| HookError::Run { name: self.name.clone(), path: self.path.clone(), source };
        let mut output = tempfile::tempfile().map_err(failed)?;
        let said = || output.try_clone().map_err(failed);
        let mut command = self.command(input(state).map_err(failed)?, (said()?, said()?));
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        let mut running = Running::start(command, told).map_err(failed)?;
        let Some(ended) = running.ended(self.timeout).await else {
            let timeout = self.timeout.unwrap_or_default();
            return Err(HookError::Timeout {
                name: self.name.clone(),
                path: self.path.clone(),
                timeout,
            });
        };
        let status = ended.map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        let output = crate::tail::of_file(&mut output, MAX_OUTPUT).unwrap_or_default();
        Err(HookError::Status { name: self.name.clone(), path: self.path.clone(), status, output })
    }

    fn command(&self, input: File, (output, errors): (File, File)) -> Command {
        let mut command = Command::new(&self.path);
        if let Some((name, rest)) = self.args.split_first() {
            command.arg0(name).args(rest);
        }
        if let Some(env) = &self.env {
            command.env_clear().envs(env.iter().cloned());
        }
        command.stdin(input).stdout(output).stderr(errors).process_group(0);
        crate::sys::die_with_us(&mut command);
        command
    }
}

/// `state` as a file without a name: a hook need not read it, and a pipe would fill up.
fn input(state: &str) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(state.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// A hook's process; dropping it kills its group.
struct Running<F: FnMut(Option<u32>)> {
    child: Child,
    pidfd: AsyncFd<OwnedFd>,
    told: F,
    reaped: bool,
}

impl<F: FnMut(Option<u32>)> Running<F> {
    fn start(mut command: Command, mut told: F) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from);
        match pidfd.and_then(crate::sys::watch) {
            Ok(pidfd) => {
                told(Some(child.id()));
                Ok(Self { child, pidfd, told, reaped: false })
            }
            Err(error) => {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// How it ended; `None` if it does not within `timeout`.
    async fn ended(&mut self, timeout: Option<Duration>) -> Option<io::Result<ExitStatus>> {
        let readable = self.pidfd.readable();
        let ended = match timeout {
            Some(timeout) => tokio::time::timeout(timeout, readable).await.ok()?.map(drop),
            None => readable.await.map(drop),
        };
        Some(ended.and_then(|()| self.reap()))
    }

    /// Waits for its end. Until then, its number is nobody else's: so `told` hears of it before.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        (self.told)(None);
        self.reaped = true;
        self.child.wait()
    }
}

impl<F: FnMut(Option<u32>)> Drop for Running<F> {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.reap();
        }
    }
}

#[cfg(test)]
#[path = "hooks_test.rs"]
mod hooks_test;
