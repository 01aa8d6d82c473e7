//! Attributes of whole trees of mounts, and id-mapped mounts (`mount_setattr(2)`, `open_tree(2)`).
//!
//! Invariant: nothing here keeps state of its own; what is made is returned as a descriptor.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::{adopt, result};

/// `MOUNT_ATTR_IDMAP` of `linux/mount.h`.
const ATTR_IDMAP: u64 = 0x0010_0000;

/// `OPEN_TREE_CLONE` and `OPEN_TREE_CLOEXEC` of `linux/mount.h`.
const OPEN_TREE_CLONE: i32 = 1;
const OPEN_TREE_CLOEXEC: i32 = libc::O_CLOEXEC;

/// `MOVE_MOUNT_F_EMPTY_PATH` and `MOVE_MOUNT_T_SYMLINKS` of `linux/mount.h`.
const FROM_EMPTY_PATH: u32 = 0x4;
const TO_SYMLINKS: u32 = 0x10;

/// `struct mount_attr` of `linux/mount.h`, first version.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Changes the mount that `mount` is open on, and all below it if `recursive`.
fn set_attr(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path and `attr` outlive the call, and the size is that of `attr`.
    result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Clears, then sets `MOUNT_ATTR_*` on the mount that `mount` is open on and all below it.
///
/// # Errors
/// Those of `mount_setattr(2)`.
pub(crate) fn set_tree_attributes(mount: BorrowedFd<'_>, set: u64, clear: u64) -> nix::Result<()> {
    set_attr(mount, true, &MountAttr { set, clear, propagation: 0, userns: 0 })
}

/// A copy of the mount at `path`, attached nowhere, with what is mounted below it if `recursive`.
///
/// # Errors
/// Those of `open_tree(2)`.
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> nix::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags =
        OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path outlives the call.
    let fd = result(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)
    })?;
    i32::try_from(fd).map(adopt).map_err(|_| Errno::EBADF)
}

/// Maps the ids of a tree of [`clone_tree`] as the user namespace does that `userns` is open on.
///
/// # Errors
/// Those of `mount_setattr(2)`; `EINVAL` for a file system that cannot.
pub(crate) fn map_tree(
    tree: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    recursive: bool,
) -> nix::Result<()> {
    let userns = u64::from(userns.as_raw_fd().cast_unsigned());
    set_attr(tree, recursive, &MountAttr { set: ATTR_IDMAP, clear: 0, propagation: 0, userns })
}

/// Mounts a tree of [`clone_tree`] at `path`, which may be that of a descriptor.
///
/// # Errors
/// Those of `move_mount(2)`.
pub(crate) fn attach_tree(tree: BorrowedFd<'_>, path: &Path) -> nix::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: both paths outlive the call.
    result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            FROM_EMPTY_PATH | TO_SYMLINKS,
        )
    })
    .map(drop)
}
