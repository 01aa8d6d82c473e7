//! Copies what a new tmpfs hides into it (`tmpcopyup`).
//!
//! Invariant: reads and writes only below two directory descriptors, through no symbolic link, to a
//! bounded depth.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::root::{Root, proc_path};
use crate::error::{Context, Failure, Result};

/// Deepest directory.
const MAX_DEPTH: u32 = 128;

/// Copies what is below `hidden`, the mount point from before the mount, to the mount at `destination`.
pub(crate) fn run(root: &Root, hidden: &OwnedFd, destination: &[u8]) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let to = root.find(destination, flags).context(|| "opening the tmpfs".into())?;
    directory(hidden.as_fd(), to.as_fd(), MAX_DEPTH)
}

/// Copies the entries of directory `from` into directory `to`.
fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<()> {
    let left = depth.checked_sub(1).ok_or_else(|| Failure::other("too many directories deep"))?;
    let entries = fs::read_dir(proc_path(&from)).context(|| "reading a directory".into())?;
    for entry in entries {
        let name = entry.context(|| "reading a directory".into())?.file_name();
        copy(from, to, &name, left).context(|| format!("{}", name.display()))?;
    }
    Ok(())
}

/// Copies the entry `name`.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr, depth: u32) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).context(|| "stat".into())?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let directories = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::from_bits_truncate(0o700)).context(|| "mkdir".into())?;
            let open = |at| openat(at, name, directories, Mode::empty());
            let (inner, outer) = (open(from), open(to));
            let (from, to) = (inner.context(|| "open".into())?, outer.context(|| "open".into())?);
            directory(from.as_fd(), to.as_fd(), depth)?;
        }
        SFlag::S_IFREG => file(from, to, name).context(|| "copying".into())?,
        SFlag::S_IFLNK => {
            let target = readlinkat(from, name).context(|| "readlink".into())?;
            symlinkat(target.as_os_str(), to, name).context(|| "symlink".into())?;
        }
        kind => mknodat(to, name, kind, Mode::empty(), stat.st_rdev).context(|| "mknod".into())?,
    }
    attributes(to, name, kind, &stat).context(|| "setting owner and mode".into())
}

/// Copies the content of a regular file.
fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut from = File::from(openat(from, name, read, Mode::empty())?);
    let mut to = File::from(openat(to, name, write, Mode::from_bits_truncate(0o600))?);
    io::copy(&mut from, &mut to).map(drop)
}

/// Gives the copy the owner and permission bits of the original.
fn attributes(
    to: BorrowedFd<'_>,
    name: &OsStr,
    kind: SFlag,
    stat: &FileStat,
) -> std::result::Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind == SFlag::S_IFDIR || kind == SFlag::S_IFREG {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let copied = openat(to, name, flags, Mode::empty())?;
        fchmod(&copied, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
    }
    Ok(())
}
