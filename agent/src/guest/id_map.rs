//! Id-mapped mounts (OCI runtime-spec, config#posix-platform-mounts; `mount_setattr(2)`).
//!
//! The kernel takes an id map as a user namespace, and only from who owns the file system: so the agent
//! mounts the mapped copy, and the container's launcher binds from there.
//!
//! Invariant: the process that holds the user namespace open is reaped before anything else happens.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cofferdam_agent_protocol::{IdMap, Mount, MountKind};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pause};

use super::disks::make_dir;
use crate::error::{Context, Failure, Result};
use crate::sys::{self, Stage};

/// Mounts what `plan` binds at `path`, with its id maps; of a [`MountKind::Inner`], only these. The file of a
/// [`MountKind::File`] is there already.
pub(super) fn mount(plan: &Mount, path: &Path) -> Result<()> {
    let source = match plan.kind() {
        MountKind::File => path,
        MountKind::Bind | MountKind::Shared => {
            let source = Path::new(std::ffi::OsStr::from_bytes(&plan.source));
            let found = fs::metadata(source).context(|| format!("stat {}", source.display()))?;
            if found.is_dir() {
                make_dir(path, 0o755)?;
            } else {
                File::create(path).context(|| format!("making {}", path.display()))?;
            }
            source
        }
        MountKind::Inner => {
            // It will be there when the launcher has come to it.
            File::create(path).context(|| format!("making {}", path.display()))?;
            return keep(&user_namespace(&plan.uid_map, &plan.gid_map)?, path);
        }
        MountKind::Filesystem | MountKind::Volume => {
            return Err(Failure::unsupported("only bind mounts can be id-mapped"));
        }
    };
    let namespace = user_namespace(&plan.uid_map, &plan.gid_map)?;
    let tree = tree(plan, source, &namespace)?;
    sys::attach_tree(tree.as_fd(), path).context(|| "mounting".into())
}

/// Has the namespace be the file at `path`.
fn keep(namespace: &OwnedFd, path: &Path) -> Result<()> {
    let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    nix::mount::mount(
        Some(source.as_str()),
        path,
        None::<&str>,
        nix::mount::MsFlags::MS_BIND,
        None::<&str>,
    )
    .context(|| "keeping a user namespace".into())
}

/// A copy of what is mounted at `source`, attached nowhere, with the id maps of `plan`, which are those of `namespace`.
pub(crate) fn tree(plan: &Mount, source: &Path, namespace: &impl AsFd) -> Result<OwnedFd> {
    let recursive = plan.map_recursively;
    // All below comes along in any case; whether it is mapped is another matter.
    let deep = recursive || plan.flags & libc::MS_REC != 0;
    let tree = sys::clone_tree(source, deep).context(|| "copying the mount".into())?;
    sys::map_tree(tree.as_fd(), namespace.as_fd(), recursive)
        .context(|| "setting the id maps (can this file system be id-mapped?)".into())?;
    Ok(tree)
}

/// A user namespace with these maps.
fn user_namespace(uids: &[IdMap], gids: &[IdMap]) -> Result<OwnedFd> {
    let wait = || loop {
        pause();
    };
    let pid = sys::clone_process(&Stage::Child, CloneFlags::CLONE_NEWUSER, None, wait)
        .context(|| "making a user namespace".into())?;
    let opened = fill(pid, uids, gids);
    let _ = kill(pid, Signal::SIGKILL);
    let _ = waitpid(pid, None);
    opened
}

/// Writes the maps of the user namespace of `pid`, and opens it.
fn fill(pid: Pid, uids: &[IdMap], gids: &[IdMap]) -> Result<OwnedFd> {
    for (name, map) in [("uid_map", uids), ("gid_map", gids)] {
        let line = |m: &IdMap| format!("{} {} {}\n", m.container, m.host, m.size);
        let lines: String = map.iter().map(line).collect();
        fs::write(format!("/proc/{pid}/{name}"), &lines)
            .context(|| format!("writing {name} ({})", lines.trim_end()))?;
    }
    let file = File::open(format!("/proc/{pid}/ns/user"));
    file.map(OwnedFd::from).context(|| "opening the user namespace".into())
}
