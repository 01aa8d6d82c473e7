//! Paths inside a container's root file system, seen from outside of it.
//!
//! Invariant: every path is resolved by `openat2(2)` with `RESOLVE_IN_ROOT`, so that no symbolic link
//! and no `..` leads out, and no magic link of /proc is followed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

/// How many symbolic links one path may go through, as in the kernel.
const MAX_LINKS: u32 = 40;

/// How often a resolution is repeated that a rename elsewhere disturbed.
const MAX_RETRIES: u32 = 128;

/// The root directory of a container.
pub(crate) struct Root(OwnedFd);

impl Root {
    /// Opens the root at `path` in the agent's view.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub(crate) fn open(path: &str) -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    /// What is at `path`, opened with `flags`.
    ///
    /// # Errors
    /// Those of `openat2(2)`.
    pub(crate) fn find(&self, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let path = if path.is_empty() { b"/" } else { path };
        let mut left = MAX_RETRIES;
        loop {
            let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
            match openat2(self.0.as_fd(), path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) if left > 0 => left -= 1,
                outcome => return outcome,
            }
        }
    }

    /// What is at `path`, only as a place.
    ///
    /// # Errors
    /// Those of `openat2(2)`.
    pub(crate) fn place(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        self.find(path, OFlag::O_PATH)
    }

    /// The directory at `path`, made with its parents if it does not exist.
    ///
    /// # Errors
    /// Those of `openat2(2)` and `mkdirat(2)`.
    pub(crate) fn make_dir(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        self.make_dir_within(path, &mut MAX_LINKS.clone())
    }

    /// [`Self::make_dir`] with at most `links` more dangling symbolic links.
    fn make_dir_within(&self, path: &[u8], links: &mut u32) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.find(path, flags) {
            Err(Errno::ENOENT) => {}
            outcome => return outcome,
        }
        let path = clean(path);
        let (parent, name) = split(&path).ok_or(Errno::ENOENT)?;
        let directory = self.make_dir_within(parent, links)?;
        match mkdirat(&directory, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(&directory, name, flags, Mode::empty())
            }
            Err(Errno::EEXIST) => {
                *links = links.checked_sub(1).ok_or(Errno::ELOOP)?;
                let target = dangling(&directory, parent, name)?;
                self.make_dir_within(&target, links)
            }
            Err(errno) => Err(errno),
        }
    }

    /// The directory that `path` is in, made if it does not exist, and the last part of `path`.
    ///
    /// # Errors
    /// As [`Self::make_dir`]; `EINVAL` for the root itself.
    pub(crate) fn make_parent(&self, path: &[u8]) -> nix::Result<(OwnedFd, Vec<u8>)> {
        let path = clean(path);
        let (parent, name) = split(&path).ok_or(Errno::EINVAL)?;
        Ok((self.make_dir(parent)?, name.to_vec()))
    }

    /// What is at `path` as a place; an empty file is made, with the directories above it, if there is
    /// nothing.
    ///
    /// # Errors
    /// As [`Self::make_dir`] and those of `openat(2)`.
    pub(crate) fn make_file(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        let mut path = clean(path);
        for _ in 0..MAX_LINKS {
            match self.place(&path) {
                Err(Errno::ENOENT) => {}
                outcome => return outcome,
            }
            let (parent, name) = split(&path).ok_or(Errno::EINVAL)?;
            let directory = self.make_dir(parent)?;
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match openat(&directory, name, flags, Mode::from_bits_truncate(0o644)) {
                Ok(_) => return self.place(&path),
                Err(Errno::EEXIST) => path = dangling(&directory, parent, name)?,
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::ELOOP)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where the symbolic link `name` in `directory`, whose path is `parent`, points to.
fn dangling(directory: &OwnedFd, parent: &[u8], name: &[u8]) -> nix::Result<Vec<u8>> {
    let target = readlinkat(directory, name)?.into_vec();
    if target.first() == Some(&b'/') {
        return Ok(clean(&target));
    }
    Ok(clean(&[parent, b"/", &target].concat()))
}

/// `path` as an absolute one without empty parts, `.` and `..`.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let mut cleaned = vec![b'/'];
    cleaned.extend_from_slice(&parts.join(&b'/'));
    cleaned
}

/// The parent of a clean path, and its last part; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    let name = path.get(at + 1..).filter(|name| !name.is_empty())?;
    Some((path.get(..at.max(1))?, name))
}

/// A path that leads to `fd` through the agent's /proc.
pub(crate) fn proc_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
#[path = "root_test.rs"]
mod root_test;
