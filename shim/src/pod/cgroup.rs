//! The control group of a pod's monitor: below the supervisor's own, where the host has cgroup v2 and lets us.
//!
//! Its path is written down in the state directory before it is made, so that whoever removes the directory
//! removes the group, too.
//!
//! Invariant: a group that was made is written down; nothing but an empty group of ours is ever removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::hostgroup;

/// The file of the state directory that holds the path.
pub(super) const NOTE: &str = "cgroup";

/// How the names of our groups begin.
const PREFIX: &str = "cofferdam-";

/// Most threads: as many as the monitor's own limit allows.
const PIDS: &str = "1024";

/// Makes a group named after this process and puts the process `pid` into it.
///
/// # Errors
/// The host has no cgroup v2, or does not let us.
pub(super) fn place(state: &Path, pid: u32) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let own = own(&mounts, &groups).ok_or_else(|| io::Error::other("no cgroup v2"))?;
    let path = own.join(format!("{PREFIX}{}", std::process::id()));
    fs::write(state.join(NOTE), path.as_os_str().as_encoded_bytes())?;
    fs::create_dir(&path)?;
    // Where the controller is not handed down, there is no such file.
    let _ = fs::write(path.join("pids.max"), PIDS);
    fs::write(path.join("cgroup.procs"), pid.to_string())
}

/// Puts the processes `pids` into the group that `state` has a note of.
///
/// # Errors
/// There is none, or the host does not let us.
pub(super) fn join(state: &Path, pids: &[u32]) -> io::Result<()> {
    let path = PathBuf::from(fs::read_to_string(state.join(NOTE))?);
    pids.iter().try_for_each(|pid| fs::write(path.join("cgroup.procs"), pid.to_string()))
}

/// Removes the group that `state` has a note of, then the note. Whether nothing is left to be done.
#[must_use]
pub(super) fn remove(state: &Path, patience: Duration) -> bool {
    let ours = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        path.is_absolute() && name.starts_with(PREFIX)
    };
    hostgroup::clear_noted(&state.join(NOTE), patience, ours)
}

/// The directory of this process's own group.
fn own(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // ID, parent, device, root, mount point, options, optional fields, "-", type (proc(5)).
    let mount = mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup2 ").then_some((root, point))
    });
    let (root, point) = mount?;
    let below = Path::new(group).strip_prefix(root).ok()?;
    Some(Path::new(point).join(below))
}

#[cfg(test)]
#[path = "cgroup_test.rs"]
mod cgroup_test;
