//! The mounts of a container's plan.
//!
//! Invariant: a mount point is a descriptor found inside the root file system, never a path.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cofferdam_agent_protocol::{Mount, MountKind};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::stat::{FileStat, SFlag, fstat, stat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::plan::LaunchPlan;
use super::root::{Root, clean, proc_path};
use super::{copy_up, options, paths};
use crate::error::{Context, Failure, Result, show};
use crate::guest::id_map;
use crate::sys;

/// Where mounts go.
pub(crate) struct Place<'a> {
    /// The container's root.
    pub(crate) root: &'a Root,
    /// The rest.
    pub(crate) plan: &'a LaunchPlan,
}

/// Makes all `mounts`, in order.
pub(crate) fn all(place: &Place<'_>, mounts: &[Mount]) -> Result<()> {
    for (index, mount) in mounts.iter().enumerate() {
        one(place, mount, index).context(|| attempted(mount))?;
    }
    Ok(())
}

/// What mounting `mount` is, in words.
fn attempted(mount: &Mount) -> String {
    let destination = show(&mount.destination);
    match mount.kind() {
        MountKind::Filesystem => format!("mounting {} at {destination}", mount.fstype),
        MountKind::Bind | MountKind::Shared | MountKind::Volume | MountKind::Inner => {
            format!("binding {} to {destination}", show(&mount.source))
        }
        MountKind::File => format!("mounting a file at {destination}"),
    }
}

/// Makes one mount.
fn one(place: &Place<'_>, plan: &Mount, index: usize) -> Result<()> {
    if clean(&plan.destination) == b"/" {
        return Err(Failure::unsupported("a mount over the root directory is not supported"));
    }
    let source = match plan.kind() {
        MountKind::Filesystem if is_cgroup(plan) => return cgroup(place, plan),
        MountKind::Filesystem => {
            new_instance(place.root, plan, plan.fstype.as_str(), &plan.data)?;
            return finish(place.root, plan);
        }
        MountKind::Inner => return inner(place, plan, index),
        // What is shared was made, and is bound.
        MountKind::Bind | MountKind::Shared if plan.uid_map.is_empty() => plan.source.clone(),
        // The agent mounted what is id-mapped there.
        _ => format!("{}/{}", place.plan.files, plan.number_at(index)).into_bytes(),
    };
    bind(place.root, plan, &source)?;
    finish(place.root, plan)
}

/// Sets what can be set only on a mount that is there: propagation, then recursive attributes.
fn finish(root: &Root, plan: &Mount) -> Result<()> {
    propagate(root, plan)?;
    let (set, clear) = (plan.recursive_set, plan.recursive_clear);
    if set == 0 && clear == 0 {
        return Ok(());
    }
    let mounted = root.place(&plan.destination).context(|| "finding the mount".into())?;
    sys::set_tree_attributes(mounted.as_fd(), set, clear)
        .context(|| format!("setting attributes {set:#x}, clearing {clear:#x} of the tree"))
}

/// Whether `mount` is a view of the control groups.
fn is_cgroup(mount: &Mount) -> bool {
    matches!(mount.fstype.as_str(), "cgroup" | "cgroup2")
}

/// Mounts the container's control group as the root of the hierarchy.
fn cgroup(place: &Place<'_>, plan: &Mount) -> Result<()> {
    if place.plan.has_own(CloneFlags::CLONE_NEWCGROUP) {
        new_instance(place.root, plan, "cgroup2", b"")?;
    } else {
        bind(place.root, plan, place.plan.cgroup.as_bytes())?;
    }
    finish(place.root, plan)
}

/// Mounts a new instance of file system `fstype`.
fn new_instance(root: &Root, plan: &Mount, fstype: &str, data: &[u8]) -> Result<()> {
    if matches!(fstype, "proc" | "sysfs") {
        ordinary(root, plan, fstype)?;
    }
    let existing = root.place(&plan.destination).ok();
    let mode = existing.and_then(|place| fstat(&place).ok()).map(|stat| stat.st_mode);
    let point = make_point(root, plan, true)?;
    let mut flags = options::flags(plan.flags);
    let data = match fstype {
        "tmpfs" => {
            // Later, when it has all that the plan puts into it: see make_read_only.
            flags.remove(MsFlags::MS_RDONLY);
            options::tmpfs(data, mode)
        }
        _ => data.to_vec(),
    };
    let source = if plan.source.is_empty() { fstype.as_bytes() } else { &plan.source };
    let target = proc_path(&point);
    let data = Some(data.as_slice()).filter(|data| !data.is_empty());
    mount(Some(source), target.as_str(), Some(fstype), flags, data).context(|| "mount".into())?;
    if plan.copy_up && fstype == "tmpfs" {
        copy_up::run(root, &point, &plan.destination).context(|| "copying up".into())?;
    }
    Ok(())
}

/// Refuses a destination that is there and is a link or no directory: what looks for such a file system would find
/// another place. In the words of runc.
fn ordinary(root: &Root, plan: &Mount, fstype: &str) -> Result<()> {
    let found = match root.find(&plan.destination, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
        Err(_) => return Ok(()),
        Ok(place) => fstat(&place).context(|| "looking at the mount point".into())?,
    };
    if is_directory(&found) {
        return Ok(());
    }
    let text = format!("filesystem \"{fstype}\" must be mounted on ordinary directory");
    Err(Failure::other(text))
}

/// Binds what is at a path of the container now.
fn inner(place: &Place<'_>, plan: &Mount, index: usize) -> Result<()> {
    let found = place.root.place(&plan.source);
    let found = found.context(|| format!("finding {}", show(&plan.source)))?;
    let source = proc_path(&found);
    if plan.uid_map.is_empty() {
        bind(place.root, plan, source.as_bytes())?;
    } else {
        let namespace = format!("{}/{}", place.plan.files, plan.number_at(index));
        let namespace = File::open(namespace).context(|| "opening the id maps".into())?;
        let tree = id_map::tree(plan, Path::new(&source), &namespace)?;
        let found = fstat(&tree).context(|| "looking at the mount".into())?;
        let point = make_point(place.root, plan, is_directory(&found))?;
        let target = proc_path(&point);
        sys::attach_tree(tree.as_fd(), Path::new(&target)).context(|| "mount".into())?;
        restrict(place.root, plan)?;
    }
    finish(place.root, plan)
}

/// Bind-mounts `source`, a path of the agent.
fn bind(root: &Root, plan: &Mount, source: &[u8]) -> Result<()> {
    let found = stat(source).context(|| format!("stat {}", show(source)))?;
    let point = make_point(root, plan, is_directory(&found))?;
    let flags = options::flags(plan.flags) | MsFlags::MS_BIND;
    let bind = flags & (MsFlags::MS_BIND | MsFlags::MS_REC);
    let target = proc_path(&point);
    mount(Some(source), target.as_str(), None::<&str>, bind, None::<&str>)
        .context(|| "mount".into())?;
    restrict(root, plan)
}

/// Gives a bind mount its flags, which it has not when it is made.
fn restrict(root: &Root, plan: &Mount) -> Result<()> {
    let flags = options::flags(plan.flags) | MsFlags::MS_BIND;
    let bind = flags & (MsFlags::MS_BIND | MsFlags::MS_REC);
    match options::remount(flags) {
        Some(_) => paths::remount(root, &plan.destination, flags.difference(bind)),
        None => Ok(()),
    }
}

/// The mount point of `plan`, made if there is none. It is not in a proc that is mounted already: what is there is masked
/// and made read-only later. The host refuses this by the path; here it is known where links of the image lead.
fn make_point(root: &Root, plan: &Mount, directory: bool) -> Result<OwnedFd> {
    let attempted = || "making the mount point".into();
    let path = &plan.destination;
    let made = if directory { root.make_dir(path) } else { root.make_file(path) };
    let point = made.context(attempted)?;
    let in_proc = fstatfs(&point).context(attempted)?.filesystem_type() == PROC_SUPER_MAGIC;
    let meant = plan.fstype == "proc" || clean(path).starts_with(b"/proc/");
    if in_proc && !meant {
        return Err(Failure::unsupported("it cannot be mounted because it is inside /proc"));
    }
    Ok(point)
}

/// Whether `stat` is that of a directory.
pub(crate) fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

/// Sets the propagation of the mount that is now at its destination.
fn propagate(root: &Root, plan: &Mount) -> Result<()> {
    let Some(flags) = options::propagation(plan.propagation) else { return Ok(()) };
    let mounted = root.place(&plan.destination).context(|| "finding the mount".into())?;
    change(&proc_path(&mounted), flags).context(|| "setting its propagation".into())
}

/// Sets the propagations again, after that of the root was set for all. This process is in its root
/// directory now, so that paths are the container's.
pub(crate) fn propagate_again(mounts: &[Mount]) -> Result<()> {
    for plan in mounts {
        let Some(flags) = options::propagation(plan.propagation) else { continue };
        let outcome =
            mount(None::<&str>, plan.destination.as_slice(), None::<&str>, flags, None::<&str>);
        outcome.context(|| format!("setting the propagation of {}", show(&plan.destination)))?;
    }
    Ok(())
}

/// Makes the tmpfs mounts read-only that the plan wants so. They were not until all was in them.
pub(crate) fn make_read_only(root: &Root, mounts: &[Mount]) -> Result<()> {
    let deferred = |plan: &&Mount| {
        plan.kind() == MountKind::Filesystem
            && plan.fstype == "tmpfs"
            && options::flags(plan.flags).contains(MsFlags::MS_RDONLY)
    };
    for plan in mounts.iter().filter(deferred) {
        let flags = options::flags(plan.flags);
        paths::remount(root, &plan.destination, flags)
            .context(|| format!("making {} read-only", show(&plan.destination)))?;
    }
    Ok(())
}

/// Whether /dev is something that exists already, so that no device is made in it.
pub(crate) fn brings_own_dev(mounts: &[Mount]) -> bool {
    let last = mounts.iter().rev().find(|mount| clean(&mount.destination) == b"/dev");
    last.is_some_and(|mount| mount.kind() == MountKind::Bind)
}

/// Changes flags of the mount at `target`.
///
/// # Errors
/// Those of `mount(2)`.
pub(crate) fn change(target: &str, flags: MsFlags) -> std::result::Result<(), Errno> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
}

#[cfg(test)]
#[path = "mounts_test.rs"]
mod mounts_test;
