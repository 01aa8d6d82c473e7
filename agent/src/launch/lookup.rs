//! Which file a command is, in the words of runc when there is none.
//!
//! Invariant: looks as the user that the process will be, after its root directory is in place.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cofferdam_agent_protocol::ErrorKind;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, faccessat};

use crate::error::{Failure, Result, describe, show};

/// The path of the command `name`, searched in the `PATH` of `env` if it has no slash.
pub(crate) fn command(name: &[u8], env: &[Vec<u8>]) -> Result<Vec<u8>> {
    let shown = show(name);
    if name.contains(&b'/') {
        return executable(name).map(|()| name.to_vec()).map_err(|why| match why {
            NotExecutable::Stat(Errno::ENOENT | Errno::ENOTDIR) => {
                let text = format!("exec: \"{shown}\": stat {shown}: {}", why.text());
                Failure::new(ErrorKind::CommandNotFound, text)
            }
            NotExecutable::Stat(_) => {
                let text = format!("exec: \"{shown}\": stat {shown}: {}", why.text());
                Failure::new(ErrorKind::CommandNotExecutable, text)
            }
            _ => {
                let text = format!("exec: \"{shown}\": {}", why.text());
                Failure::new(ErrorKind::CommandNotExecutable, text)
            }
        });
    }
    for directory in search_path(env).split(|byte| *byte == b':') {
        // As for Go programs, the working directory is not searched, neither without a PATH nor by an empty part of it.
        if directory.is_empty() {
            continue;
        }
        let candidate = [directory, b"/", name].concat();
        if !name.is_empty() && executable(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    let text = format!("exec: \"{shown}\": executable file not found in $PATH");
    Err(Failure::new(ErrorKind::CommandNotFound, text))
}

/// The value of `PATH` in `env`; the last one counts, as for Go programs.
fn search_path(env: &[Vec<u8>]) -> &[u8] {
    env.iter().rev().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or_default()
}

/// Why a file is not a command.
#[derive(Debug, PartialEq, Eq)]
enum NotExecutable {
    /// It cannot be looked at.
    Stat(Errno),
    /// It is a directory.
    Directory,
    /// This user may not execute it.
    Forbidden,
}

impl NotExecutable {
    /// The cause in the words of Go.
    fn text(&self) -> String {
        describe(match self {
            Self::Stat(errno) => *errno,
            Self::Directory => Errno::EISDIR,
            Self::Forbidden => Errno::EACCES,
        })
    }
}

/// Whether `path` is a file that this user may execute.
fn executable(path: &[u8]) -> std::result::Result<(), NotExecutable> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let mode = stat(path).map_err(NotExecutable::Stat)?.st_mode;
    if mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
        return Err(NotExecutable::Directory);
    }
    let allowed = faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS);
    if allowed.is_err() || mode & 0o111 == 0 {
        return Err(NotExecutable::Forbidden);
    }
    Ok(())
}

#[cfg(test)]
#[path = "lookup_test.rs"]
mod lookup_test;
