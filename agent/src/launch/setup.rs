//! Everything of a new container that its namespaces need, up to its root directory.
//!
//! Order: private mount tree, mounts, devices, working directory, kernel parameters, terminal, read-only and masked
//! paths, `pivot_root`, hooks, names, a read-only root. That is runc's, since images and engines depend on it, but for
//! the hooks: they are programs of the image here, not of the host, and must find nothing that the container may not see.
//!
//! Invariant: all mounts happen before `pivot_root`, through descriptors resolved inside the root file
//! system; nothing uses a path of the container's own choice afterwards, but hooks, which have no more rights than it.

use std::os::fd::BorrowedFd;

use cofferdam_agent_protocol::{ContainerPlan, ProcessPlan, Sysctl};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, fchdir, pivot_root, sethostname};

use super::channel::{self, Message};
use super::mounts::change;
use super::plan::LaunchPlan;
use super::root::Root;
use super::{devices, hooks, mounts, options, paths, terminal};
use crate::error::{Context, Failure, Result, show};
use crate::sys;

/// Sets `container` up. Afterwards this process is in its root directory and has its terminal.
pub(crate) fn run(
    plan: &LaunchPlan,
    container: &ContainerPlan,
    process: &ProcessPlan,
    channel: BorrowedFd<'_>,
) -> Result<()> {
    umask(Mode::empty());
    private_tree(&plan.rootfs)?;
    let root = Root::open(&plan.rootfs).context(|| format!("opening {}", plan.rootfs))?;
    if plan.has_new(CloneFlags::CLONE_NEWNET) {
        sys::loopback_up().context(|| "bringing lo up".into())?;
    }
    let place = mounts::Place { root: &root, plan };
    mounts::all(&place, &container.mounts)?;
    if !mounts::brings_own_dev(&container.mounts) {
        devices::make(&root, &container.devices)?;
    }
    if !process.cwd.is_empty() {
        // A file system that cannot be written to is found out by chdir, with a better message.
        let _ = root.make_dir(&process.cwd);
    }
    container.sysctls.iter().try_for_each(sysctl)?;
    terminal::attach(&root, process, channel, true)?;
    mounts::make_read_only(&root, &container.mounts)?;
    for path in &container.readonly_paths {
        paths::read_only(&root, path)?;
    }
    paths::mask(&root, &container.masked_paths)?;
    let rootfs = container.rootfs.as_ref();
    enter(&plan.rootfs)?;
    if let Some(flags) = options::propagation(rootfs.map_or(0, |rootfs| rootfs.propagation)) {
        change("/", flags).context(|| "setting the propagation of /".into())?;
        mounts::propagate_again(&container.mounts)?;
    }
    if let Some(wanted) = &container.create_hooks {
        limit_devices(channel)?;
        hooks::run(wanted, &hooks::As { process, env: None })?;
    }
    names(plan, container)?;
    // Hooks may write to it.
    if rootfs.is_some_and(|rootfs| rootfs.readonly) {
        paths::remount_root(MsFlags::MS_RDONLY)?;
    }
    Ok(())
}

/// Has the agent limit the devices of the control group, now that all nodes are made.
fn limit_devices(channel: BorrowedFd<'_>) -> Result<()> {
    channel::send(channel, &Message::Made).context(|| "telling the agent".into())?;
    match channel::read(channel).context(|| "waiting for the agent".into())? {
        Some(Message::Known) => Ok(()),
        _ => Err(Failure::other("the agent gave up")),
    }
}

/// Prepares one more process of a container that is joined already: its terminal.
pub(crate) fn join(process: &ProcessPlan, channel: BorrowedFd<'_>) -> Result<()> {
    let root = Root::open("/").context(|| "opening the container's root".into())?;
    terminal::attach(&root, process, channel, false)
}

/// Cuts the mounts of this namespace off from the agent's, and makes the root file system a mount that
/// this namespace owns, which `pivot_root` needs.
fn private_tree(rootfs: &str) -> Result<()> {
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    change("/", private).context(|| "making the mount tree private".into())?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(rootfs), rootfs, None::<&str>, bind, None::<&str>)
        .context(|| format!("binding {rootfs} to itself"))
}

/// Makes `rootfs` the root directory and forgets all that was there before.
pub(super) fn enter(rootfs: &str) -> Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
    let old = open("/", flags, Mode::empty()).context(|| "opening the old root".into())?;
    chdir(rootfs).context(|| format!("changing to {rootfs}"))?;
    // Both on one mount point, so that no directory is needed for the old root.
    pivot_root(".", ".").context(|| format!("pivot_root to {rootfs}"))?;
    fchdir(&old).context(|| "changing to the old root".into())?;
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    change(".", slave).context(|| "cutting the old root off".into())?;
    umount2(".", MntFlags::MNT_DETACH).context(|| "unmounting the old root".into())?;
    chdir("/").context(|| "changing to the new root".into())
}

/// Host and domain name.
fn names(plan: &LaunchPlan, container: &ContainerPlan) -> Result<()> {
    if !plan.has_own(CloneFlags::CLONE_NEWUTS) {
        return Ok(());
    }
    if !container.hostname.is_empty() {
        let name = container.hostname.as_str();
        sethostname(name).context(|| format!("setting the host name {name}"))?;
    }
    if !container.domainname.is_empty() {
        let name = container.domainname.as_str();
        sys::set_domainname(name).context(|| format!("setting the domain name {name}"))?;
    }
    Ok(())
}

/// Writes a kernel parameter. The agent's /proc shows those of the writer's own namespaces.
fn sysctl(sysctl: &Sysctl) -> Result<()> {
    crate::guest::write_sysctl(sysctl).map_err(|failure| {
        Failure::new(
            failure.kind,
            format!("{} (value {})", failure.message, show(sysctl.value.as_bytes())),
        )
    })
}
