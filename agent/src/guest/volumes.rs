//! Directories and files of the host: one file system of the machine, mounted with the first container that has a volume.
//!
//! Invariant: a container sees of it what its plan names, one name below its root; the rest is where only the agent
//! looks.

use std::fs;
use std::path::{Path, PathBuf};

use cofferdam_agent_protocol::{Mount, MountKind};
use nix::mount::{MsFlags, mount};

use super::Place;
use super::disks::{detach, make_dir};
use crate::error::{Context, Failure, Result, show};

/// The tag of the file system.
const TAG: &str = "volumes";

/// Longest name of a volume.
const MAX_NAME: usize = 32;

/// Whether the file system is mounted.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    mounted: bool,
}

impl Volumes {
    /// Has each volume among `mounts` be a bind mount of its place in the file system; those places.
    ///
    /// # Errors
    /// Those of `mount(2)`; a name that is none.
    pub(crate) fn provide(&mut self, place: &Place, mounts: &mut [Mount]) -> Result<Vec<PathBuf>> {
        let root = place.run.join("volumes");
        let mut paths = Vec::new();
        for plan in mounts.iter_mut().filter(|mount| mount.kind() == MountKind::Volume) {
            let name = name(&plan.source)?;
            self.mount(&root)?;
            let path = root.join(name);
            plan.kind = MountKind::Bind.into();
            plan.source = path.clone().into_os_string().into_encoded_bytes();
            paths.push(path);
        }
        Ok(paths)
    }

    fn mount(&mut self, root: &Path) -> Result<()> {
        if self.mounted {
            return Ok(());
        }
        // The root of a user namespace goes through here, too.
        make_dir(root, 0o755)?;
        mount(Some(TAG), root, Some("virtiofs"), MsFlags::empty(), None::<&str>)
            .context(|| "mounting the file system of the pod's volumes".into())?;
        self.mounted = true;
        Ok(())
    }
}

/// Lets go of volumes that no container uses any more, so that the host can unmount what is behind them.
pub(super) fn release(paths: &[PathBuf]) {
    if paths.is_empty() {
        return;
    }
    for path in paths {
        // The kernel has mounted it there when it was first looked at, unless it is a file.
        detach(path);
    }
    // The host keeps open what the kernel remembers: directory entries and inodes that nobody uses.
    if let Err(error) = fs::write("/proc/sys/vm/drop_caches", "2") {
        crate::log!("forgetting the files of volumes: {error}");
    }
}

/// The name of a volume: letters and digits.
fn name(bytes: &[u8]) -> Result<&str> {
    let fine = (1..=MAX_NAME).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_alphanumeric);
    let name = std::str::from_utf8(bytes).ok().filter(|_| fine);
    name.ok_or_else(|| Failure::unsupported(format!("a volume of the name {}", show(bytes))))
}

#[cfg(test)]
#[path = "volumes_test.rs"]
mod volumes_test;
