//! Root file systems: EROFS layers under an overlay.
//!
//! ```text
//! RUN/containers/ID/{rootfs,files}  the overlay; the contents of file mounts
//! RUN/containers/ID/upper           a tmpfs, or a directory of the scratch disk
//!
//! What a bind mount with id maps shows is mounted in files, too, with the maps.
//! ```
//!
//! Invariant: what [`Rootfs::mount`] made, [`Rootfs::remove`] takes away, also after a failure half-way.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use cofferdam_agent_protocol::{ContainerPlan, Mount, MountKind, RootfsPlan, Upper, request};
use nix::mount::{MsFlags, mount};

use super::Place;
use super::disks::{Disks, Role, detach, make_dir};
use super::{id_map, volumes};
use crate::error::{Context, Failure, Result};

/// Largest content of a file mount.
const MAX_FILE: usize = 2 << 20;

/// Most layers of one root file system.
const MAX_LAYERS: usize = 128;

/// The root file system of one container.
#[derive(Debug)]
pub(crate) struct Rootfs {
    /// The container's directory.
    directory: PathBuf,
    /// Layers in use.
    layers: Vec<u32>,
    /// The scratch disk in use and the directory on it, if the upper side is there.
    scratch: Option<(u32, PathBuf)>,
    /// Id-mapped mounts.
    mapped: Vec<PathBuf>,
    /// Volumes that are bound into it.
    volumes: Vec<PathBuf>,
}

impl Rootfs {
    /// Mounts the root file system of `container`, which has `volumes`.
    ///
    /// # Errors
    /// What failed; nothing is left behind then.
    pub(crate) async fn mount(
        place: &Place,
        disks: &mut Disks,
        (container, volumes): (&ContainerPlan, Vec<PathBuf>),
    ) -> Result<Self> {
        let directory = place.run.join("containers").join(&container.id);
        let (layers, mapped) = (Vec::new(), Vec::new());
        let mut rootfs = Self { directory, layers, scratch: None, mapped, volumes };
        let plan = container.rootfs.as_ref();
        let plan = plan.ok_or_else(|| Failure::unsupported("a container without a rootfs"))?;
        let outcome = rootfs.build(place, disks, plan, &container.id).await;
        let outcome = outcome.and_then(|()| rootfs.write_files(container));
        if let Err(failure) = outcome.and_then(|()| rootfs.map_ids(container)) {
            rootfs.remove(place, disks);
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
        disks: &mut Disks,
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
            lower.push(disks.take(place, Role::Layer, *address).await?);
            self.layers.push(*address);
        }
        let upper = match &plan.upper {
            None => None,
            Some(Upper::Tmpfs(tmpfs)) => Some(self.tmpfs(tmpfs.bytes)?),
            Some(Upper::Disk(disk)) => Some(self.on_disk(place, disks, disk.address, id).await?),
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
    async fn on_disk(
        &mut self,
        place: &Place,
        disks: &mut Disks,
        address: u32,
        id: &str,
    ) -> Result<PathBuf> {
        let path = disks.take(place, Role::Scratch, address).await?.join(id);
        // From here on the disk has one user more, also after a failure.
        self.scratch = Some((address, path.clone()));
        make_dir(&path, 0o700)?;
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
            let path = self.files().join(mount.number_at(index).to_string());
            let attempted =
                || format!("writing the file for {}", crate::error::show(&mount.destination));
            if mount.content.len() > MAX_FILE {
                return Err(Failure::unsupported(format!("{}: it is too large", attempted())));
            }
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let mut file = file.context(attempted)?;
            file.write_all(&mount.content).context(attempted)?;
            // Id maps are maps of the ids outside, where such a file is root's.
            let (uid, gid) = if mount.uid_map.is_empty() { (uid, gid) } else { (0, 0) };
            chown(&path, Some(uid), Some(gid)).context(attempted)?;
            let mode = fs::Permissions::from_mode(mount.mode & 0o7777);
            file.set_permissions(mode).context(attempted)?;
        }
        Ok(())
    }

    /// Gives files that were brought along another content. What is no such file, or is shown with other owners, stays.
    ///
    /// # Errors
    /// The first that cannot be written.
    pub(crate) fn rewrite(&self, files: &[request::FileContent]) -> Result<()> {
        for file in files {
            let path = self.files().join(file.mount.to_string());
            let attempted = || format!("writing {} again", path.display());
            if file.content.len() > MAX_FILE {
                return Err(Failure::unsupported(format!("{}: it is too large", attempted())));
            }
            if self.mapped.contains(&path) {
                continue;
            }
            match OpenOptions::new().write(true).truncate(true).open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                opened => opened
                    .and_then(|mut opened| opened.write_all(&file.content))
                    .context(attempted)?,
            }
        }
        Ok(())
    }

    /// Mounts what is id-mapped, where the launcher binds it from.
    fn map_ids(&mut self, container: &ContainerPlan) -> Result<()> {
        for (index, mount) in container.mounts.iter().enumerate() {
            if mount.uid_map.is_empty() && mount.gid_map.is_empty() {
                continue;
            }
            let path = self.files().join(mount.number_at(index).to_string());
            let shown = crate::error::show(&mount.destination);
            id_map::mount(mount, &path).context(|| format!("id-mapping the mount at {shown}"))?;
            self.mapped.push(path);
        }
        Ok(())
    }

    /// Unmounts what belongs to this container alone. Whether nothing of it is mounted now.
    pub(crate) fn unmount(&self) -> bool {
        let mapped = self.mapped.iter().fold(true, |all, path| all & detach(path));
        mapped & detach(&self.path()) & detach(&self.directory.join("upper"))
    }

    /// Takes everything away. What cannot be is logged: the guest ends with its pod.
    pub(crate) fn remove(&mut self, place: &Place, disks: &mut Disks) {
        let detached = self.unmount();
        volumes::release(&std::mem::take(&mut self.volumes));
        for address in self.layers.drain(..) {
            disks.release(place, Role::Layer, address);
        }
        if !detached {
            return;
        }
        remove_tree(&self.directory);
        if let Some((address, path)) = self.scratch.take() {
            remove_tree(&path);
            disks.release(place, Role::Scratch, address);
        }
    }
}

/// Gives directory `to` the owner and permission bits of `from`.
fn same_attributes(from: &Path, to: &Path) -> std::io::Result<()> {
    let from = fs::metadata(from)?;
    chown(to, Some(from.uid()), Some(from.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(from.mode() & 0o7777))
}

/// Removes `path` and all below it; it need not exist.
fn remove_tree(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            crate::log!("removing {}: {error}", path.display());
        }
        _ => {}
    }
}
