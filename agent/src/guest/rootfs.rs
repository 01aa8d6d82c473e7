//! Root file systems: EROFS layers under an overlay.
//!
//! ```text
//! RUN/layers/ADDRESS                one read-only mount per layer, shared by containers
//! RUN/scratch/NAME                  one mount per scratch disk, kept until the end
//! RUN/containers/ID/{rootfs,files}  the overlay; the contents of file mounts
//! RUN/containers/ID/upper           a tmpfs, or a directory of the scratch disk
//! ```
//!
//! Invariant: what [`Rootfs::mount`] made, [`Rootfs::remove`] takes away, also after a failure half-way.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use cofferdam_agent_protocol::{ContainerPlan, Mount, MountKind, RootfsPlan, Upper};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Place;
use super::pci::{self, APPEARS_WITHIN, BUS, Class};
use crate::error::{Context, Failure, Result};

/// Largest content of a file mount.
const MAX_FILE: usize = 256 * 1024;

/// Most layers of one root file system.
const MAX_LAYERS: usize = 128;

/// The layers that are mounted, and how many containers use each.
#[derive(Debug, Default)]
pub(crate) struct Layers(BTreeMap<u32, usize>);

/// The root file system of one container.
#[derive(Debug)]
pub(crate) struct Rootfs {
    /// The container's directory.
    directory: PathBuf,
    /// Layers in use.
    layers: Vec<u32>,
    /// The directory on a scratch disk, if the upper side is there.
    scratch: Option<PathBuf>,
}

impl Rootfs {
    /// Mounts the root file system of `container`.
    ///
    /// # Errors
    /// What failed; nothing is left behind then.
    pub(crate) async fn mount(
        place: &Place,
        layers: &mut Layers,
        container: &ContainerPlan,
    ) -> Result<Self> {
        let directory = place.run.join("containers").join(&container.id);
        let mut rootfs = Self { directory, layers: Vec::new(), scratch: None };
        let plan = container.rootfs.as_ref();
        let plan = plan.ok_or_else(|| Failure::unsupported("a container without a rootfs"))?;
        let outcome = rootfs.build(place, layers, plan, &container.id).await;
        if let Err(failure) = outcome.and_then(|()| rootfs.write_files(container)) {
            rootfs.remove(place, layers);
            return Err(failure);
        }
        Ok(rootfs)
    }

    /// Where the root file system is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Where the contents of file mounts are.
    pub(crate) fn files(&self) -> PathBuf {
        self.directory.join("files")
    }

    /// Makes the directories and mounts.
    async fn build(
        &mut self,
        place: &Place,
        layers: &mut Layers,
        plan: &RootfsPlan,
        id: &str,
    ) -> Result<()> {
        if plan.layers.is_empty() || plan.layers.len() > MAX_LAYERS {
            let count = plan.layers.len();
            return Err(Failure::unsupported(format!("a root file system of {count} layers")));
        }
        make_dir(&self.path(), 0o755)?;
        make_dir(&self.files(), 0o711)?;
        let mut lower = Vec::new();
        for address in &plan.layers {
            lower.push(layers.take(place, *address).await?);
            self.layers.push(*address);
        }
        let upper = match &plan.upper {
            None => None,
            Some(Upper::Tmpfs(tmpfs)) => Some(self.tmpfs(tmpfs.bytes)?),
            Some(Upper::Disk(disk)) => Some(self.on_disk(place, disk.address, id).await?),
        };
        self.overlay(&lower, upper.as_deref())
    }

    /// A tmpfs for the upper side.
    fn tmpfs(&self, bytes: u64) -> Result<PathBuf> {
        let path = self.directory.join("upper");
        make_dir(&path, 0o700)?;
        let size = if bytes == 0 { String::new() } else { format!(",size={bytes}") };
        let data = format!("mode=0700{size}");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(data.as_str()))
            .context(|| format!("mounting a tmpfs ({data}) for writes"))?;
        Ok(path)
    }

    /// A directory on a scratch disk for the upper side.
    async fn on_disk(&mut self, place: &Place, address: u32, id: &str) -> Result<PathBuf> {
        let name = pci::name(address)?;
        let mounted = place.run.join("scratch").join(&name);
        if !mounted.exists() {
            let node = disk_at(address).await?;
            make_dir(&mounted, 0o700)?;
            let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
            // Its content does not outlive the machine: no barriers, no journal replay to wait for. What is
            // deleted is told to the disk, so that the host gets its room back.
            let outcome =
                mount(Some(&node), &mounted, Some("ext4"), flags, Some("nobarrier,discard"));
            if let Err(errno) = outcome {
                // The next attempt must not take the empty directory for the disk.
                let _ = fs::remove_dir(&mounted);
                return Err(errno).context(|| format!("mounting the scratch disk {name}"));
            }
        }
        let path = mounted.join(id);
        make_dir(&path, 0o700)?;
        self.scratch = Some(path.clone());
        Ok(path)
    }

    /// Mounts the overlay, or the only layer where nothing is to be above it.
    fn overlay(&self, lower: &[PathBuf], upper: Option<&Path>) -> Result<()> {
        let rootfs = self.path();
        let attempted = "mounting the root file system";
        let Some(top) = lower.first() else { return Ok(()) };
        if let (None, [only]) = (upper, lower) {
            let flags = MsFlags::MS_BIND;
            return mount(Some(only), &rootfs, None::<&str>, flags, None::<&str>)
                .context(|| attempted.into());
        }
        let lower: Vec<_> = lower.iter().map(|path| path.to_string_lossy()).collect();
        let mut data = format!("lowerdir={}", lower.join(":"));
        if let Some(upper) = upper {
            let (writes, work) = (upper.join("upper"), upper.join("work"));
            make_dir(&writes, 0o755)?;
            make_dir(&work, 0o700)?;
            // The root directory of an overlay has the attributes of its upper side.
            same_attributes(top, &writes).context(|| format!("preparing {}", writes.display()))?;
            data += &format!(",upperdir={},workdir={}", writes.display(), work.display());
        }
        // The upper side is gone with the machine, so that writing it back early is of no use.
        let volatile = if upper.is_some() { ",volatile" } else { "" };
        data += volatile;
        mount(Some("overlay"), &rootfs, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
            .context(|| attempted.into())
    }

    /// Writes the contents of file mounts.
    fn write_files(&self, container: &ContainerPlan) -> Result<()> {
        let owner = |maps: &[cofferdam_agent_protocol::IdMap]| {
            maps.iter().find(|map| map.container == 0).map_or(0, |map| map.host)
        };
        let (uid, gid) = (owner(&container.uid_map), owner(&container.gid_map));
        let files = |(_, mount): &(usize, &Mount)| mount.kind() == MountKind::File;
        for (index, mount) in container.mounts.iter().enumerate().filter(files) {
            let path = self.files().join(index.to_string());
            let attempted =
                || format!("writing the file for {}", crate::error::show(&mount.destination));
            if mount.content.len() > MAX_FILE {
                return Err(Failure::unsupported(format!("{}: it is too large", attempted())));
            }
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let mut file = file.context(attempted)?;
            file.write_all(&mount.content).context(attempted)?;
            chown(&path, Some(uid), Some(gid)).context(attempted)?;
            let mode = fs::Permissions::from_mode(mount.mode & 0o7777);
            file.set_permissions(mode).context(attempted)?;
        }
        Ok(())
    }

    /// Unmounts what belongs to this container alone. Whether nothing of it is mounted now.
    pub(crate) fn unmount(&self) -> bool {
        detach(&self.path()) & detach(&self.directory.join("upper"))
    }

    /// Takes everything away. What cannot be is logged: the guest ends with its pod.
    pub(crate) fn remove(&mut self, place: &Place, layers: &mut Layers) {
        let detached = self.unmount();
        for address in self.layers.drain(..) {
            layers.release(place, address);
        }
        if !detached {
            return;
        }
        let scratch = self.scratch.take().into_iter();
        for path in scratch.chain([self.directory.clone()]) {
            if let Err(error) = remove_tree(&path) {
                crate::log!("removing {}: {error}", path.display());
            }
        }
    }
}

impl Layers {
    /// Mounts the layer at `address` for one more container.
    async fn take(&mut self, place: &Place, address: u32) -> Result<PathBuf> {
        let name = pci::name(address)?;
        let path = layer_path(place, address);
        if let Some(users) = self.0.get_mut(&address) {
            *users = users.saturating_add(1);
            return Ok(path);
        }
        make_dir(&path, 0o755)?;
        let attempted = || format!("mounting the layer {name}");
        if let Some(stand_in) = &place.layers {
            let source = stand_in.join(&name);
            let flags = MsFlags::MS_BIND;
            mount(Some(&source), &path, None::<&str>, flags, None::<&str>).context(attempted)?;
        } else {
            let node = disk_at(address).await.context(attempted)?;
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
            mount(Some(&node), &path, Some("erofs"), flags, None::<&str>).context(attempted)?;
        }
        self.0.insert(address, 1);
        Ok(path)
    }

    /// Whether the disk at `address` is mounted, as a layer or for writes.
    pub(super) fn is_mounted(&self, place: &Place, address: u32) -> bool {
        let scratch = |name| place.run.join("scratch").join(name);
        let writes = pci::name(address).is_ok_and(|name| scratch(name).exists());
        writes || self.0.contains_key(&address)
    }

    /// One container less uses the layer at `address`; the last one unmounts it, so that the host can
    /// take the disk away.
    fn release(&mut self, place: &Place, address: u32) {
        let Some(users) = self.0.get_mut(&address) else { return };
        *users = users.saturating_sub(1);
        if *users > 0 {
            return;
        }
        self.0.remove(&address);
        let path = layer_path(place, address);
        detach(&path);
        // An empty directory more does no harm.
        let _ = fs::remove_dir(path);
    }
}

/// The block device at `address`. Waits for it, and has the bus scanned for it, if it is not there.
async fn disk_at(address: u32) -> Result<PathBuf> {
    let wanted = [(pci::name(address)?, Class::Block)];
    let shown = pci::appear(Path::new(BUS), &wanted, APPEARS_WITHIN).await?;
    shown.first().map(|shown| pci::node(shown)).ok_or_else(|| Failure::other("no disk"))
}

/// Where the layer at `address` is mounted. The name is short, for the options of an overlay of many
/// layers must fit in a page, and has no colon, which separates them.
fn layer_path(place: &Place, address: u32) -> PathBuf {
    place.run.join("layers").join(format!("{address:04x}"))
}

/// Unmounts the scratch disks.
pub(crate) fn unmount_scratch(place: &Place) {
    for entry in fs::read_dir(place.run.join("scratch")).into_iter().flatten().flatten() {
        detach(&entry.path());
    }
}

/// Makes a directory and those above it.
fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let attempted = || format!("making {}", path.display());
    DirBuilder::new().recursive(true).mode(mode).create(path).context(attempted)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context(attempted)
}

/// Gives directory `to` the owner and permission bits of `from`.
fn same_attributes(from: &Path, to: &Path) -> std::io::Result<()> {
    let from = fs::metadata(from)?;
    chown(to, Some(from.uid()), Some(from.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(from.mode() & 0o7777))
}

/// Unmounts `path`; it need not be a mount point. Whether nothing is mounted there now.
fn detach(path: &Path) -> bool {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => true,
        Err(errno) => {
            crate::log!("unmounting {}: {errno}", path.display());
            false
        }
    }
}

/// Removes `path` and all below it; it need not exist.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
