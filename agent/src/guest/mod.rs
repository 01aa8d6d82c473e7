//! The guest around the containers: its disks, root file systems, control groups.
//!
//! Invariant: everything is below the directories of one [`Place`].

pub(crate) mod cgroup;
pub(crate) mod cpu;
mod disks;
pub(crate) mod id_map;
mod oom;
mod pci;
mod plug;
mod processes;
mod rootfs;
mod shared;
mod uevent;
mod volumes;

use std::fs;
use std::path::PathBuf;

use cofferdam_agent_protocol::Sysctl;

pub(crate) use disks::Disks;
pub(crate) use oom::OomWatch;
pub(crate) use plug::{expect, release};
pub(crate) use processes::describe;
pub(crate) use rootfs::Rootfs;
pub(crate) use shared::{Names, Shared};
pub(crate) use volumes::Volumes;

use crate::error::{Context, Failure, Result};

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Run-time state: layers, containers, scratch disks.
    pub(crate) run: PathBuf,
    /// The control group above those of the containers.
    pub(crate) cgroup: PathBuf,
    /// The CPUs in sysfs.
    pub(crate) cpus: PathBuf,
    /// Directories that stand for disks, outside of a guest.
    pub(crate) disks: Option<PathBuf>,
}

/// The path in /proc/sys of a kernel parameter. As `sysctl(8)`, the first separator decides which of
/// `.` and `/` separates and which is part of a name.
fn sysctl_path(name: &str) -> Option<PathBuf> {
    let slashed: String = match name.find(['.', '/']) {
        Some(at) if name.get(at..=at) == Some("/") => name.to_owned(),
        _ => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    };
    let fine = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    slashed.split('/').all(fine).then(|| PathBuf::from("/proc/sys").join(slashed))
}

/// Writes a kernel parameter.
///
/// # Errors
/// A bad name, and those of `write(2)`.
pub(crate) fn write_sysctl(sysctl: &Sysctl) -> Result<()> {
    let path = sysctl_path(&sysctl.name);
    let path =
        path.ok_or_else(|| Failure::unsupported(format!("bad sysctl \"{}\"", sysctl.name)))?;
    fs::write(&path, &sysctl.value).context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
#[path = "guest_test.rs"]
mod guest_test;
