//! Device nodes of a container, and the symbolic links that belong beside them.
//!
//! Invariant: nodes are made in directories found inside the root file system, never through a link at
//! the last part of a path.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use cofferdam_agent_protocol::{DeviceNode, DeviceType};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknodat, stat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::paths;
use super::root::{Root, clean, proc_path};
use crate::error::{Context, Failure, Result, show};

/// The symbolic links every container has (OCI runtime-spec, runtime-linux#dev-symbolic-links).
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
];

/// Makes the devices of the plan, which has the default ones too, then the links.
pub(crate) fn make(root: &Root, devices: &[DeviceNode]) -> Result<()> {
    for device in devices {
        node(root, device).context(|| format!("making the device {}", show(&device.path)))?;
    }
    links(root)
}

/// Makes the links. Where there is something else, it stays; but /dev/ptmx must be that of the
/// container's own devpts.
fn links(root: &Root) -> Result<()> {
    for (path, target) in LINKS {
        link(root, path, target, false)?;
    }
    link(root, "/dev/ptmx", "pts/ptmx", true)
}

/// Makes one link.
fn link(root: &Root, path: &str, target: &str, replace: bool) -> Result<()> {
    let attempted = || format!("making the link {path}");
    let (directory, name) = root.make_parent(path.as_bytes()).context(attempted)?;
    if replace {
        match unlinkat(&directory, name.as_slice(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::EROFS) => {}
            Err(errno) => return Err(errno).context(attempted),
        }
    }
    match symlinkat(target.as_bytes(), &directory, name.as_slice()) {
        Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => Ok(()),
        Err(errno) => Err(errno).context(attempted),
    }
}

/// Makes one node.
fn node(root: &Root, device: &DeviceNode) -> Result<()> {
    let (directory, name) =
        root.make_parent(&device.path).context(|| "making its parent".into())?;
    let name = name.as_slice();
    let kind = match device.kind() {
        DeviceType::Character => SFlag::S_IFCHR,
        DeviceType::Block => SFlag::S_IFBLK,
        DeviceType::Fifo => SFlag::S_IFIFO,
    };
    let mode = Mode::from_bits_truncate(device.mode & 0o7777);
    let number = makedev(u64::from(device.major), u64::from(device.minor));
    match mknodat(directory.as_fd(), name, kind, mode, number) {
        // What is there stays, as with runc.
        Err(Errno::EEXIST) => return Ok(()),
        Err(Errno::EPERM) => return bind(root, device),
        outcome => outcome.context(|| "mknod".into())?,
    }
    // mknod takes the umask and a default ACL into account.
    fchmodat(directory.as_fd(), name, mode, FchmodatFlags::FollowSymlink)
        .context(|| "chmod".into())?;
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(directory.as_fd(), name, Some(uid), Some(gid), flags).context(|| "chown".into())
}

/// The guest's node of a block device.
fn block_node(device: &DeviceNode) -> Result<Vec<u8>> {
    let shown = format!("/sys/dev/block/{}:{}", device.major, device.minor);
    let target = std::fs::read_link(&shown).context(|| format!("reading the link {shown}"))?;
    let name = target.file_name().unwrap_or_default();
    Ok([b"/dev/", name.as_bytes()].concat())
}

/// Binds the guest's device of the same number and, but for block devices, path: a user namespace may not make devices.
fn bind(root: &Root, device: &DeviceNode) -> Result<()> {
    let source = match device.kind() {
        DeviceType::Block => block_node(device)?,
        _ => clean(&device.path),
    };
    let found =
        stat(source.as_slice()).context(|| format!("stat {} in the guest", show(&source)))?;
    if found.st_rdev != makedev(u64::from(device.major), u64::from(device.minor)) {
        let text =
            "the guest has another device at this path, and a user namespace cannot make one";
        return Err(Failure::unsupported(text));
    }
    let point = root.make_file(&device.path).context(|| "making its mount point".into())?;
    let target = proc_path(&point);
    let flags = MsFlags::MS_BIND;
    mount(Some(source.as_slice()), target.as_str(), None::<&str>, flags, None::<&str>)
        .context(|| "binding the guest's".into())?;
    // A device can be used as before; its owner and its permissions are the guest's.
    paths::remount(root, &device.path, MsFlags::MS_RDONLY)
}
