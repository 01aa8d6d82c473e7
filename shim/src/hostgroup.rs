//! The control group of a container on the host, at `linux.cgroupsPath`: what stands for the container is in it, and of a
//! pod's first container the supervisor and the monitor, so that engines find there what the pod costs.
//!
//! Limits are the guest's business: none is set here.
//!
//! Invariant: cgroup v2 only; where it or the right to it is missing, there is no group, and a message at most.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// How long those in a group may take to end.
const EMPTIES_WITHIN: Duration = Duration::from_secs(2);

/// Makes the group at the cgroups path `path`, and has its ancestors hand down all controllers that they have. With
/// `systemd`, the path is `SLICE:PREFIX:NAME`.
pub(crate) fn create(path: &Path, systemd: bool) -> Option<PathBuf> {
    let root = mount_point()?;
    let below = if systemd { systemd_path(path)? } else { relative(path)? };
    let made = make(&root, &below);
    made.inspect_err(|error| tracing::debug!(path = %path.display(), %error, "no control group"))
        .ok()
}

fn make(root: &Path, below: &Path) -> io::Result<PathBuf> {
    let mut group = root.to_owned();
    for component in below.components() {
        hand_down(&group);
        group.push(component);
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(group)
}

/// Has a group hand down each controller that it has; one that cannot be is no reason to stop.
fn hand_down(group: &Path) {
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    let (all, handed) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    let handed: Vec<&str> = handed.split_whitespace().collect();
    for controller in all.split_whitespace().filter(|name| !handed.contains(name)) {
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Whether there are processes in `group` or below.
pub(crate) fn is_busy(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// Moves the process `pid` into `group`.
pub(crate) fn place(group: &Path, pid: u32) {
    if let Err(error) = fs::write(group.join("cgroup.procs"), pid.to_string()) {
        tracing::debug!(group = %group.display(), %error, "moving a process");
    }
}

/// Removes `group`, when nobody is in it: the kernel takes a moment to take apart those that have ended.
pub(crate) fn remove(group: &Path) {
    let deadline = Instant::now() + EMPTIES_WITHIN;
    loop {
        match fs::remove_dir(group) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return tracing::warn!(group = %group.display(), %error, "the control group stays");
            }
            _ => return,
        }
    }
}

/// A path below the root: no component leads up.
fn relative(path: &Path) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::ParentDir => return None,
            _ => {}
        }
    }
    (!below.as_os_str().is_empty()).then_some(below)
}

/// Where systemd has the scope `PREFIX-NAME.scope` of a slice: `a-b.slice` is in `a.slice`.
fn systemd_path(path: &Path) -> Option<PathBuf> {
    let mut parts = path.to_str()?.splitn(3, ':');
    let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let mut below = PathBuf::new();
    let stem = slice.strip_suffix(".slice")?;
    if stem != "-" {
        let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
        below.extend(ends.map(|end| format!("{}.slice", &stem[..end])));
    }
    below.push(if prefix.is_empty() {
        format!("{name}.scope")
    } else {
        format!("{prefix}-{name}.scope")
    });
    relative(&below)
}

/// Where the hierarchy is mounted.
fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = fields.find(|fields| fields.get(2) == Some(&"cgroup2"))?;
    mount.get(1).map(PathBuf::from)
}

#[cfg(test)]
#[path = "hostgroup_test.rs"]
mod hostgroup_test;
