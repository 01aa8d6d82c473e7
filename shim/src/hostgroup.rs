//! The control group of a container on the host, at `linux.cgroupsPath`: what stands for the container is in it, and of a
//! pod's first container the supervisor and the monitor, so that engines find there what the pod costs.
//!
//! Limits are the guest's business: none is set here.
//!
//! Its path is written down in the container's state directory before it is made, so that whoever removes the directory
//! removes the group, too.
//!
//! Invariant: cgroup v2 only; where it or the right to it is missing, there is no group, and a message at most. A group
//! that was made is written down.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// The file of the state directory that holds the path.
pub(crate) const NOTE: &str = "hostgroup";

/// Makes the group at the cgroups path `path` for the container with the state directory `state`, and has its ancestors
/// hand down all controllers that they have. With `systemd`, the path is `SLICE:PREFIX:NAME`.
///
/// # Errors
/// There is such a group, with processes in it.
pub(crate) fn create(path: &Path, systemd: bool, state: &Path) -> Result<Option<PathBuf>, Busy> {
    let Some(root) = mount_point() else { return Ok(None) };
    let below = if systemd { systemd_path(path) } else { relative(path) };
    let Some(below) = below else { return Ok(None) };
    let group = root.join(&below);
    if is_busy(&group) {
        return Err(Busy(group));
    }
    let made = fs::write(state.join(NOTE), group.as_os_str().as_encoded_bytes())
        .and_then(|()| make(&root, &below));
    made.map_or_else(
        |error| {
            tracing::debug!(path = %path.display(), %error, "no control group");
            Ok(None)
        },
        |()| Ok(Some(group)),
    )
}

/// Another container has the group.
#[derive(Debug, thiserror::Error)]
#[error("container's cgroup is not empty: {0}")]
pub(crate) struct Busy(PathBuf);

/// Removes the group that `state` has a note of, then the note. Whether nothing is left to be done.
#[must_use]
pub(crate) fn clear(state: &Path, patience: Duration) -> bool {
    clear_noted(&state.join(NOTE), patience, |_| true)
}

/// Removes the group whose path the file `note` holds, if it is `ours`, then the note. The kernel takes a moment to take
/// apart what was in it: a group that is busy is tried for as long as `patience`, and then both stay, for the next who
/// tries. Whether nothing is left to be done.
#[must_use]
pub(crate) fn clear_noted(
    note: &Path,
    patience: Duration,
    ours: impl FnOnce(&Path) -> bool,
) -> bool {
    let Ok(group) = fs::read(note) else { return true };
    let group = PathBuf::from(OsString::from_vec(group));
    let until = Instant::now() + patience;
    let mut done = !ours(&group) || is_removed(&group);
    while !done && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
        done = is_removed(&group);
    }
    if done {
        let _ = fs::remove_file(note);
    }
    done
}

/// Tries to remove `group`; whether it is gone, or waiting does not help.
fn is_removed(group: &Path) -> bool {
    !fs::remove_dir(group).is_err_and(|error| {
        matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty)
    })
}

/// Moves this process out of the group of the container with the state directory `state`, if there is one: who removes
/// a group cannot be in it.
pub(crate) fn leave(state: &Path) {
    if state.join(NOTE).exists()
        && let Some(root) = mount_point()
    {
        // Where we may not, the next command removes the group.
        let _ = fs::write(root.join("cgroup.procs"), "0");
    }
}

fn make(root: &Path, below: &Path) -> io::Result<()> {
    let mut group = root.to_owned();
    for component in below.components() {
        hand_down(&group);
        group.push(component);
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
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
fn is_busy(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// Moves the process `pid` into `group`.
pub(crate) fn place(group: &Path, pid: u32) {
    if let Err(error) = fs::write(group.join("cgroup.procs"), pid.to_string()) {
        tracing::debug!(group = %group.display(), %error, "moving a process");
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

/// Whether `path` is one as systemd has it, although nobody says so: `NAME.slice:PREFIX:NAME`.
pub(crate) fn is_of_systemd(path: &Path) -> bool {
    let mut parts = path.to_str().unwrap_or_default().splitn(3, ':');
    parts.next().is_some_and(|slice| slice.ends_with(".slice")) && parts.nth(1).is_some()
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
