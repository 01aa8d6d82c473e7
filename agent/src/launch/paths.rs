//! Masked and read-only paths of a container.
//!
//! Invariant: a path that does not exist needs no protection and is skipped.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::fstat;
use nix::sys::statvfs::fstatvfs;

use super::mounts::is_directory;
use super::options;
use super::root::{Root, proc_path};
use crate::error::{Context, Result, show};

/// Makes `path` read-only (OCI `linux.readonlyPaths`).
pub(crate) fn read_only(root: &Root, path: &[u8]) -> Result<()> {
    let attempted = || format!("making {} read-only", show(path));
    let place = match root.place(path) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        place => place.context(attempted)?,
    };
    let target = proc_path(&place);
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(target.as_str()), target.as_str(), None::<&str>, bind, None::<&str>)
        .context(attempted)?;
    remount(root, path, MsFlags::MS_RDONLY).context(attempted)
}

/// Hides `all` paths (OCI `linux.maskedPaths`). Directories are hidden by one file system, as with runc: each would cost
/// memory of the kernel.
pub(crate) fn mask(root: &Root, all: &[Vec<u8>]) -> Result<()> {
    let mut empty = None;
    all.iter().try_for_each(|path| mask_one(root, path, &mut empty))
}

/// Hides `path`; `empty` is the file system for directories, once there is one.
fn mask_one(root: &Root, path: &[u8], empty: &mut Option<OwnedFd>) -> Result<()> {
    let attempted = || format!("masking {}", show(path));
    let place = match root.place(path) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        place => place.context(attempted)?,
    };
    let target = proc_path(&place);
    let bind = |source: &str| {
        mount(Some(source), target.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
    };
    if !is_directory(&fstat(&place).context(attempted)?) {
        bind("/dev/null").context(attempted)?;
        // It is everybody's: so nobody changes its owner or its permissions.
        return remount(root, path, MsFlags::MS_RDONLY).context(attempted);
    }
    if let Some(empty) = empty {
        return bind(&proc_path(empty)).context(attempted);
    }
    mount(Some("tmpfs"), target.as_str(), Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)
        .context(attempted)?;
    *empty = Some(root.place(path).context(attempted)?);
    Ok(())
}

/// Adds `flags` to the mount at `path`.
pub(crate) fn remount(root: &Root, path: &[u8], flags: MsFlags) -> Result<()> {
    let mounted = root.place(path).context(|| "remounting".into())?;
    remount_at(&mounted, &proc_path(&mounted), flags)
}

/// Adds `flags` to the mount that is this process's root directory.
pub(crate) fn remount_root(flags: MsFlags) -> Result<()> {
    let root = Root::open("/").context(|| "remounting /".into())?;
    remount_at(&root.as_fd(), "/", flags).context(|| "the root directory".into())
}

/// Adds `flags` to the mount that is open and at `target`.
fn remount_at(mounted: &impl AsFd, target: &str, flags: MsFlags) -> Result<()> {
    let attempted = || "remounting".into();
    let present = options::present(fstatvfs(mounted).context(attempted)?.flags());
    let wanted = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    let with = |flags| mount(None::<&str>, target, None::<&str>, flags, None::<&str>);
    match flags {
        // One flag is added to what is there.
        MsFlags::MS_RDONLY => with(wanted | present),
        // In a user namespace, the flags of the source stay.
        _ => with(wanted).or_else(|errno| match errno {
            Errno::EPERM => with(wanted | present),
            _ => Err(errno),
        }),
    }
    .context(attempted)
}
