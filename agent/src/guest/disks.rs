//! The disks of root file systems, each mounted once for all containers that use it.
//!
//! ```text
//! RUN/layers/ADDRESS   the layers, read-only
//! RUN/scratch/ADDRESS  the disks for writes
//! ```
//!
//! Invariant: a disk is mounted while a container uses it and no longer, so that the host can take it away then.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Place;
use super::pci::{self, APPEARS_WITHIN, BUS, Class};
use crate::error::{Context, Failure, Result};

/// The disks that are mounted, and how many containers use each.
#[derive(Debug, Default)]
pub(crate) struct Disks(BTreeMap<(Role, u32), usize>);

/// What a disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// A layer: EROFS, below the overlays.
    Layer,
    /// For writes: ext4, with a directory for each container.
    Scratch,
}

impl Disks {
    /// Mounts the disk at `address` for one more container; where it is.
    ///
    /// # Errors
    /// There is no such disk, or it cannot be mounted; it has no user more then.
    pub(super) async fn take(
        &mut self,
        place: &Place,
        role: Role,
        address: u32,
    ) -> Result<PathBuf> {
        let path = role.path(place, address);
        if let Some(users) = self.0.get_mut(&(role, address)) {
            *users = users.saturating_add(1);
            return Ok(path);
        }
        make_dir(&path, role.mode())?;
        if let Err(failure) = role.mount(place, address, &path).await {
            // An empty directory more does no harm.
            let _ = fs::remove_dir(&path);
            return Err(failure);
        }
        self.0.insert((role, address), 1);
        Ok(path)
    }

    /// One container less uses the disk at `address`; the last one unmounts it.
    pub(super) fn release(&mut self, place: &Place, role: Role, address: u32) {
        let Some(users) = self.0.get_mut(&(role, address)) else { return };
        *users = users.saturating_sub(1);
        if *users > 0 {
            return;
        }
        self.0.remove(&(role, address));
        let path = role.path(place, address);
        detach(&path);
        let _ = fs::remove_dir(path);
    }

    /// Whether the disk at `address` is mounted, as a layer or for writes.
    pub(super) fn is_mounted(&self, address: u32) -> bool {
        [Role::Layer, Role::Scratch].iter().any(|role| self.0.contains_key(&(*role, address)))
    }

    /// Unmounts the disks for writes, whoever uses them: the machine is about to end.
    pub(crate) fn unmount_scratch(&self, place: &Place) {
        for (role, address) in self.0.keys().filter(|(role, _)| *role == Role::Scratch) {
            detach(&role.path(place, *address));
        }
    }
}

impl Role {
    /// Where the disk is mounted. The name is short, for the options of an overlay of many layers must fit in a
    /// page, and has no colon, which separates them.
    fn path(self, place: &Place, address: u32) -> PathBuf {
        let directory = match self {
            Self::Layer => "layers",
            Self::Scratch => "scratch",
        };
        place.run.join(directory).join(format!("{address:04x}"))
    }

    /// The permission bits of the directory that it is mounted on.
    fn mode(self) -> u32 {
        match self {
            Self::Layer => 0o755,
            Self::Scratch => 0o700,
        }
    }

    /// Mounts the disk at `address`, or what stands for it, on `path`.
    async fn mount(self, place: &Place, address: u32, path: &Path) -> Result<()> {
        let name = pci::name(address)?;
        let called = match self {
            Self::Layer => "layer",
            Self::Scratch => "scratch disk",
        };
        let attempted = || format!("mounting the {called} {name}");
        if let Some(stand_ins) = &place.disks {
            let source = stand_ins.join(&name);
            let flags = MsFlags::MS_BIND;
            return mount(Some(&source), path, None::<&str>, flags, None::<&str>)
                .context(attempted);
        }
        let node = disk_at(name.clone()).await.context(attempted)?;
        let mut flags = MsFlags::MS_NOATIME;
        let (kind, data) = match self {
            Self::Layer => {
                flags |= MsFlags::MS_RDONLY;
                ("erofs", None)
            }
            // Its content does not outlive the machine: no barriers, no journal replay to wait for. What is deleted
            // is told to the disk, so that the host gets its room back.
            Self::Scratch => {
                flags |= MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
                ("ext4", Some("nobarrier,discard"))
            }
        };
        mount(Some(&node), path, Some(kind), flags, data).context(attempted)
    }
}

/// The block device `name`. Waits for it, and has the bus scanned for it, if it is not there.
async fn disk_at(name: String) -> Result<PathBuf> {
    let wanted = [(name, Class::Block)];
    let shown = pci::appear(Path::new(BUS), &wanted, APPEARS_WITHIN).await?;
    shown.first().map(|shown| pci::node(shown)).ok_or_else(|| Failure::other("no disk"))
}

/// Makes a directory and those above it.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let attempted = || format!("making {}", path.display());
    DirBuilder::new().recursive(true).mode(mode).create(path).context(attempted)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context(attempted)
}

/// Unmounts `path`; it need not be a mount point. Whether nothing is mounted there now.
pub(super) fn detach(path: &Path) -> bool {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => true,
        Err(errno) => {
            crate::log!("unmounting {}: {errno}", path.display());
            false
        }
    }
}
