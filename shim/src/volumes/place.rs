//! What a volume is made of, on the side of the command that was asked for it.
//!
//! Invariant: the path is looked up once; everything after that is done to what was found then.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys;

/// A file or directory of the host, wherever it is moved to.
#[derive(Clone, Debug)]
pub struct Place(Arc<OwnedFd>);

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Place {}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Place {
    /// What is at `path` now; links are followed.
    ///
    /// # Errors
    /// Those of `openat(2)`.
    pub fn find(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(Self(Arc::new(openat(CWD, path, flags, Mode::empty())?)))
    }

    /// What is mounted below it, in the order in which it was: where, from here, and what is there.
    ///
    /// # Errors
    /// Those of reading `/proc/self/mountinfo`.
    pub fn mounted_below(&self) -> io::Result<Vec<(PathBuf, Self)>> {
        let here = fs::read_link(format!("/proc/self/fd/{}", self.0.as_raw_fd()))?;
        let mut below = Vec::new();
        for (id, point) in mount_points(&fs::read("/proc/self/mountinfo")?) {
            let Ok(path) = point.strip_prefix(&here) else { continue };
            // What another mount hides is not found by its path.
            let found = Self::find(&point).ok().filter(|found| found.mount_id() == Some(id));
            if let (Some(found), false) = (found, path.as_os_str().is_empty()) {
                below.push((path.to_owned(), found));
            }
        }
        Ok(below)
    }

    /// The number of the mount that it is in.
    fn mount_id(&self) -> Option<u64> {
        let found = statx(self.0.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        Some(found.stx_mnt_id)
    }

    /// The file, to be read.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open(&self) -> io::Result<File> {
        // It is a regular file: nothing happens by opening it.
        File::open(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// The number and the mount point of each line of `/proc/PID/mountinfo` (proc(5)).
fn mount_points(text: &[u8]) -> impl Iterator<Item = (u64, PathBuf)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        Some((id, PathBuf::from(OsString::from_vec(unescape(fields.nth(3)?)))))
    })
}

/// `text` with each `\` and three octal digits as the byte that they are.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let digits = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// How a volume is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// With what is mounted below it.
    pub(crate) deep: bool,
    /// Nothing can be written.
    pub(crate) readonly: bool,
    /// And nothing below it.
    pub(crate) all_readonly: bool,
    /// What the host mounts or unmounts below it comes and goes.
    pub(crate) follow: bool,
}

/// A copy of the mount at `place`, attached nowhere. The file server can do with it what `wish` allows: it opens no
/// device there, executes nothing, and follows no link.
///
/// # Errors
/// Those of `open_tree(2)` and `mount_setattr(2)`.
pub(crate) fn tree(place: &Place, wish: Wish) -> io::Result<OwnedFd> {
    let deep = if wish.deep { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(place.0.as_fd(), "", flags | OpenTreeFlags::AT_EMPTY_PATH | deep)?;
    let readonly = |wanted| if wanted { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let always = libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC
        | libc::MOUNT_ATTR_NOSYMFOLLOW;
    let propagation = if wish.follow { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    sys::set_mount(tree.as_fd(), true, always | readonly(wish.all_readonly), propagation)?;
    sys::set_mount(tree.as_fd(), false, readonly(wish.readonly), 0)?;
    Ok(tree)
}

#[cfg(test)]
#[path = "place_test.rs"]
mod place_test;
