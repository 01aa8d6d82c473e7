//! The programs that make file systems: found, run, and their complaints kept for the error.
//!
//! Invariant: a program never outlives its caller by more than it takes to be told: it is asked to die with
//! it, and until it has, it holds the lock of the file it writes (its standard input).

use std::env;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::statvfs::fstatvfs;
use nix::unistd::{AccessFlags, access};
use thiserror::Error;

/// Looked into after `PATH`, which is short of them for ordinary users.
const SYSTEM_DIRECTORIES: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// How much of a program's output an error shows, in bytes, from its end.
const OUTPUT_SHOWN: usize = 2000;

/// Shortest and longest time between two looks at a running program.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long a program may go on when its file system is full. mkfs.erofs 1.8 does not always notice: its threads
/// wait for each other for ever.
const FULL_PATIENCE: Duration = Duration::from_secs(3);

/// Why a program did not do its work.
#[derive(Debug, Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{program} is not installed: apt-get install {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The system would not run it.
    #[error("running {program}")]
    Run {
        /// Its path.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It failed.
    #[error("{program}: {status}: {output}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
}

/// A program of a Debian package.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// Its name.
    pub(crate) program: &'static str,
    /// The package to install if it is missing.
    pub(crate) package: &'static str,
}

impl Tool {
    /// Runs it with `arguments` and with `lock` as its standard input; calls `meanwhile` until it ends.
    pub(crate) fn run<'a>(
        self,
        arguments: impl IntoIterator<Item = &'a std::ffi::OsStr>,
        lock: &File,
        mut meanwhile: impl FnMut(),
    ) -> Result<(), ToolError> {
        let Self { program, package } = self;
        let path = find(program).ok_or(ToolError::Missing { program, package })?;
        let failed = |source| ToolError::Run { program: path.clone(), source };
        let log = tempfile::tempfile().map_err(failed)?;
        let mut command = dying_with_us(&path);
        command.args(arguments).env("LC_ALL", "C");
        command.stdin(Stdio::from(lock.try_clone().map_err(failed)?));
        command.stdout(Stdio::from(log.try_clone().map_err(failed)?));
        command.stderr(Stdio::from(log.try_clone().map_err(failed)?));
        let mut child = command.spawn().map_err(failed)?;
        let mut room = Room { file: lock, full_since: None };
        let status = wait(&mut child, &mut room, &mut meanwhile).map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        Err(ToolError::Failed { program, status, output: tail(&log) })
    }
}

/// Where `program` is.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file() && access(path, AccessFlags::X_OK).is_ok())
}

/// A command that runs the program at `path` and that the kernel kills when this thread ends, if util-linux
/// is there to arrange it.
fn dying_with_us(path: &Path) -> Command {
    let Some(setpriv) = find("setpriv") else { return Command::new(path) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(path);
    command
}

/// Whether the file that a program writes can still grow.
struct Room<'a> {
    file: &'a File,
    full_since: Option<Instant>,
}

impl Room<'_> {
    /// Fails when its file system has been full for too long.
    fn check(&mut self) -> io::Result<()> {
        let full = fstatvfs(self.file).is_ok_and(|system| system.blocks_available() == 0);
        if !full {
            self.full_since = None;
        } else if self.full_since.get_or_insert_with(Instant::now).elapsed() > FULL_PATIENCE {
            return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        }
        Ok(())
    }
}

/// Waits for `child`, calling `meanwhile` between two looks; ends it when there is no room to write.
fn wait(
    child: &mut Child,
    room: &mut Room<'_>,
    meanwhile: &mut impl FnMut(),
) -> io::Result<ExitStatus> {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
        meanwhile();
        if let Err(full) = room.check() {
            child.kill()?;
            child.wait()?;
            return Err(full);
        }
    }
}

/// The end of what a program wrote to `log`, on one line.
fn tail(log: &File) -> String {
    use std::os::unix::fs::FileExt;
    let length = log.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; OUTPUT_SHOWN];
    let start = length.saturating_sub(OUTPUT_SHOWN as u64);
    let read = log.read_at(&mut bytes, start).unwrap_or(0);
    bytes.truncate(read);
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join("; ")
}

#[cfg(test)]
#[path = "tool_test.rs"]
mod tool_test;
