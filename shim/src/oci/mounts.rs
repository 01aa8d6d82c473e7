//! Mounts (OCI runtime-spec, config#mounts).
//!
//! A bind mount of a directory or a file is a volume, which a file server shows as it is. A small file that nobody can
//! write to through it, or that engines make for each container, such as `/etc/resolv.conf`, is brought along in the
//! plan instead; memory that an engine made for a pod's `/dev/shm` becomes memory of the guest; one of `/proc`, `/sys` or
//! `/dev` at its own place is the guest's; sockets and device nodes are refused by name.
//!
//! Invariant: no path of the host is ever opened in the guest.

use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cofferdam_agent_protocol as protocol;
use oci_spec::runtime::Mount;
use rustix::fs::{FileType, fstat};

use super::host_file::{HostFile, Live};
use super::mount_options::{IdMapped, MountOptions};
use super::{OciError, invalid, namespaces, unsupported};
use crate::volumes::{Place, Wish};

/// Most bytes of all files together: they travel in one frame.
pub(crate) const MAX_FILES: usize = 6 << 20;

/// File systems that the guest's kernel can make out of nothing.
const FILESYSTEMS: [&str; 10] = [
    "proc",
    "sysfs",
    "tmpfs",
    "ramfs",
    "mqueue",
    "devpts",
    "cgroup",
    "cgroup2",
    "hugetlbfs",
    "binfmt_misc",
];

/// A mount of the host's that a container is to see as it is.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    /// Which of the container's mounts it is.
    pub(crate) mount: usize,
    /// What messages call it.
    pub(crate) called: String,
    /// What of the host.
    pub(crate) place: Place,
    /// How.
    pub(crate) wish: Wish,
    /// The guest maps its ids.
    pub(crate) mapped: bool,
}

/// Files that engines make for each container, and write to only before it starts: they are copied, as they are for a
/// file server to be needed by those that have volumes alone.
const OF_ENGINES: [&[u8]; 10] = [
    b"/etc/hosts",
    b"/etc/hostname",
    b"/etc/resolv.conf",
    b"/etc/passwd",
    b"/etc/group",
    b"/run/.containerenv",
    b"/.dockerenv",
    b"/dev/init",
    b"/sbin/docker-init",
    b"/run/podman-init",
];

/// What is known of the container and its bundle when its mounts are planned.
pub(super) struct Around<'a> {
    /// The bundle's directory, and that of its root file system.
    pub(super) bundle: &'a Path,
    pub(super) rootfs: &'a Path,
    /// Gives the content of a file of the host, by absolute path.
    pub(super) read: &'a dyn Fn(&Path) -> io::Result<HostFile>,
    /// The maps of the container's own user namespace, if it has one.
    pub(super) user_namespace: Option<(&'a [protocol::IdMap], &'a [protocol::IdMap])>,
    /// How many bytes of files can be brought along yet: at first [`MAX_FILES`].
    pub(super) room: Cell<usize>,
}

impl Around<'_> {
    /// The path in the container of what is at `path` on the host, if that is in the root file system: what a container
    /// has there is a copy, with other things mounted in it.
    fn inside(&self, path: &Path) -> Option<Vec<u8>> {
        let root = clean(self.rootfs.as_os_str().as_bytes());
        let path = clean(path.as_os_str().as_bytes());
        let below = path.strip_prefix(root.as_slice()).filter(|_| root != b"/")?;
        below.starts_with(b"/").then(|| below.to_vec())
    }
}

/// The plans of `mounts`.
pub(super) fn mounts(
    mounts: &[Mount],
    around: &Around<'_>,
    warnings: &mut Vec<String>,
) -> Result<(Vec<protocol::Mount>, Vec<Volume>), OciError> {
    let mut plans = Vec::with_capacity(mounts.len());
    let mut volumes = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("mounts[{index}]");
        if !mount.destination().is_absolute() {
            let shown = mount.destination().display();
            warnings.push(format!("{field}.destination: {shown} is not absolute; taken from /"));
        }
        let (mut plan, live) = one(&field, mount, around, warnings)?;
        if index != plans.len() {
            plan.number = u32::try_from(index).ok();
        }
        let Some((place, wish)) = live else {
            plans.push(plan);
            continue;
        };
        let source = mount.source().clone().unwrap_or_default();
        let destination = mount.destination().display();
        let called = format!("{field}: mount of {} on {destination}", source.display());
        let mapped = !plan.uid_map.is_empty();
        let volume = Volume { mount: plans.len(), called, place, wish, mapped };
        let readonly = wish.readonly && !wish.all_readonly && !wish.follow;
        if wish.deep && (plan.map_recursively || readonly) {
            let first = mounts.len() + plans.len();
            let made = nested(plan, volume, first, (&mut plans, &mut volumes));
            made.map_err(|error| refused(&field, &source, mount, &error))?;
        } else {
            plans.push(plan);
            volumes.push(volume);
        }
    }
    Ok((plans, volumes))
}

/// Has a volume be one for each mount that is in it. What the guest sees as a mount within a volume it cannot map, and has as
/// read-only as the volume itself, which the host has not. Their numbers begin with `first`.
fn nested(
    plan: protocol::Mount,
    volume: Volume,
    first: usize,
    (plans, volumes): (&mut Vec<protocol::Mount>, &mut Vec<Volume>),
) -> io::Result<()> {
    let wish = Wish { deep: false, ..volume.wish };
    let mut below = Vec::new();
    for (path, place) in volume.place.mounted_below()? {
        // Nothing in the guest could be behind a socket or a device node.
        let kind = FileType::from_raw_mode(fstat(&place)?.st_mode);
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            continue;
        }
        let destination = Path::new(OsStr::from_bytes(&plan.destination)).join(path);
        let mut inner = protocol::Mount {
            destination: destination.into_os_string().into_encoded_bytes(),
            number: u32::try_from(first + below.len()).ok(),
            flags: 0,
            ..plan.clone()
        };
        if !plan.map_recursively {
            (inner.uid_map, inner.gid_map) = (Vec::new(), Vec::new());
        }
        below.push((inner, place, Wish { readonly: wish.all_readonly, ..wish }));
    }
    let Volume { called, place, .. } = volume;
    for (plan, place, wish) in std::iter::once((plan, place, wish)).chain(below) {
        let (called, mapped) = (called.clone(), !plan.uid_map.is_empty());
        volumes.push(Volume { mount: plans.len(), called, place, wish, mapped });
        plans.push(plan);
    }
    Ok(())
}

/// The plan of one mount, and what it shows if that is a volume.
type Planned = (protocol::Mount, Option<(Place, Wish)>);

fn one(
    field: &str,
    mount: &Mount,
    around: &Around<'_>,
    warnings: &mut Vec<String>,
) -> Result<Planned, OciError> {
    let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
    let fstype = mount.typ().as_deref().unwrap_or_default();
    let bytes = mount.destination().as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(invalid(format!("{field}.destination"), "an empty path or a NUL byte"));
    }
    if options.data.contains('\0') {
        return Err(invalid(format!("{field}.options"), "a NUL byte"));
    }
    let bind = options.flags & libc::MS_BIND != 0 || fstype == "bind";
    let own = machines_own(mount).filter(|_| bind);
    let (bind, fstype) = match own {
        Some(own @ ("proc" | "sysfs")) => (false, own),
        _ => (bind, fstype),
    };
    let mut plan = protocol::Mount {
        destination: around
            .inside(mount.destination())
            .unwrap_or_else(|| absolute(mount.destination())),
        flags: options.flags & !(libc::MS_BIND | libc::MS_REC),
        propagation: options.propagation,
        recursive_set: options.recursive_set,
        recursive_clear: options.recursive_clear,
        copy_up: options.copy_up,
        ..Default::default()
    };
    over_proc(field, &plan.destination, bind, fstype)?;
    map_ids(field, mount, options.id_map, around, &mut plan)?;
    if own == Some("devtmpfs") && plan.uid_map.is_empty() {
        plan.kind = protocol::MountKind::Bind.into();
        plan.source = b"/dev".to_vec();
        plan.flags |= options.flags & libc::MS_REC;
        return Ok((plan, None));
    }
    if bind {
        if !options.data.is_empty() {
            let problem = format!(
                "bind mounts cannot have any filesystem-specific options applied ({})",
                options.data
            );
            return Err(invalid(format!("{field}.options"), problem));
        }
        let live = bound(field, mount, around, (&options, &mut plan, warnings))?;
        return Ok((plan, live));
    }
    if !plan.uid_map.is_empty() {
        return Err(invalid(field, "only a bind mount can be id-mapped"));
    }
    if !FILESYSTEMS.contains(&fstype) {
        let reason =
            format!("{fstype:?} is not a file system that the guest can make out of nothing");
        return Err(unsupported(format!("{field}.type"), reason));
    }
    plan.kind = protocol::MountKind::Filesystem.into();
    plan.fstype = fstype.to_owned();
    let source = mount.source().clone().unwrap_or_else(|| PathBuf::from(fstype));
    plan.source = source.as_os_str().as_bytes().to_vec();
    plan.data = options.data.into_bytes();
    if plan.source.contains(&0) {
        return Err(invalid(format!("{field}.source"), "a NUL byte"));
    }
    Ok((plan, None))
}

/// Plans a bind mount; what it shows, if that is a volume.
fn bound(
    field: &str,
    mount: &Mount,
    around: &Around<'_>,
    (options, plan, warnings): (&MountOptions, &mut protocol::Mount, &mut Vec<String>),
) -> Result<Option<(Place, Wish)>, OciError> {
    let source = around.bundle.join(mount.source().clone().unwrap_or_default());
    if let Some(path) = around.inside(&source) {
        plan.kind = protocol::MountKind::Inner.into();
        plan.source = path;
        plan.flags |= options.flags & libc::MS_REC;
        return Ok(None);
    }
    let file = (around.read)(&source).map_err(|error| refused(field, &source, mount, &error))?;
    if let Some(bytes) = file.memory.filter(|_| clean(&plan.destination) == b"/dev/shm") {
        plan.kind = protocol::MountKind::Shared.into();
        plan.source = source.as_os_str().as_bytes().to_vec();
        plan.data = format!("mode={:o},size={bytes}", file.mode).into_bytes();
        return Ok(None);
    }
    let fixed = is_fixed(&plan.destination, options);
    let of_engine = OF_ENGINES.contains(&clean(&plan.destination).as_slice());
    // A copy belongs to root.
    let copied = fixed && (file.of_root || of_engine) && file.content.len() <= around.room.get();
    match file.live {
        Live::Must(place) => return Ok(Some((place, volume(plan, options)))),
        Live::Can(place) if !copied => return Ok(Some((place, volume(plan, options)))),
        Live::Machines(path) => {
            plan.kind = protocol::MountKind::Bind.into();
            plan.source = path.into();
            return Ok(None);
        }
        Live::Cannot(reason) if file.memory.is_some() => {
            let error = io::Error::new(io::ErrorKind::Unsupported, reason);
            return Err(refused(field, &source, mount, &error));
        }
        Live::Cannot(reason) if !fixed => {
            let shown = source.display();
            warnings.push(format!(
                "{field}: what the container writes to {shown} stays in it, because {reason}"
            ));
        }
        Live::Can(_) | Live::Cannot(_) => {}
    }
    let Some(room) = around.room.get().checked_sub(file.content.len()) else {
        let problem =
            format!("with it, the bound files are larger than {} KiB together", MAX_FILES >> 10);
        return Err(invalid(field, problem));
    };
    around.room.set(room);
    plan.kind = protocol::MountKind::File.into();
    plan.content = file.content;
    plan.mode = file.mode;
    Ok(None)
}

/// Whether nobody writes to a file that is bound with `options` to `destination` while the container runs.
fn is_fixed(destination: &[u8], options: &MountOptions) -> bool {
    let all_readonly = options.recursive_set & libc::MOUNT_ATTR_RDONLY != 0;
    let readonly = options.flags & libc::MS_RDONLY != 0 || all_readonly;
    readonly || OF_ENGINES.contains(&clean(destination).as_slice())
}

/// Whether a small file that `mount` binds is brought along also where there are volumes.
pub(crate) fn is_brought_along(mount: &Mount) -> bool {
    let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
    is_fixed(&absolute(mount.destination()), &options)
}

/// Has `plan` be that of a volume; how that is mounted on the host.
fn volume(plan: &mut protocol::Mount, options: &MountOptions) -> Wish {
    plan.kind = protocol::MountKind::Volume.into();
    let follows = libc::MS_SLAVE | libc::MS_SHARED;
    let all_readonly = options.recursive_set & libc::MOUNT_ATTR_RDONLY != 0;
    Wish {
        deep: options.flags & libc::MS_REC != 0,
        readonly: all_readonly || options.flags & libc::MS_RDONLY != 0,
        all_readonly,
        follow: options.propagation & follows != 0,
    }
}

/// The type of a file system that host and machine have each for themselves, if `mount` binds the host's where it belongs:
/// what is meant is that of the kernel which the container runs on.
fn machines_own(mount: &Mount) -> Option<&'static str> {
    let source = clean(mount.source().as_deref()?.as_os_str().as_bytes());
    if source != clean(&absolute(mount.destination())) {
        return None;
    }
    match source.as_slice() {
        b"/proc" => Some("proc"),
        b"/sys" => Some("sysfs"),
        b"/dev" => Some("devtmpfs"),
        _ => None,
    }
}

/// The id maps of a mount: its own, or, where it only asks for some, those of the container's user namespace.
fn map_ids(
    field: &str,
    mount: &Mount,
    asked: Option<IdMapped>,
    around: &Around<'_>,
    plan: &mut protocol::Mount,
) -> Result<(), OciError> {
    let own = |mappings: &Option<Vec<_>>, name: &str| {
        namespaces::id_map(mappings.as_ref(), name).map_err(|error| match error {
            OciError::Invalid { problem, .. } => invalid(format!("{field}.{name}"), problem),
            other => other,
        })
    };
    let uids = own(mount.uid_mappings(), "uidMappings")?;
    let gids = own(mount.gid_mappings(), "gidMappings")?;
    let own = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
    if asked.is_none() && !own {
        return Ok(());
    }
    (plan.uid_map, plan.gid_map) = match around.user_namespace {
        Some((uids, gids)) if !own => (uids.to_vec(), gids.to_vec()),
        _ => (uids, gids),
    };
    if plan.uid_map.is_empty() || plan.gid_map.is_empty() {
        let problem = "an id-mapped mount needs uidMappings and gidMappings, its own or those of a user namespace";
        return Err(invalid(field, problem));
    }
    plan.map_recursively = asked == Some(IdMapped::Recursively);
    Ok(())
}

/// What may be mounted below /proc, for files that tell of the machine (runc).
const OVER_PROC: [&[u8]; 10] = [
    b"/proc/cpuinfo",
    b"/proc/diskstats",
    b"/proc/meminfo",
    b"/proc/stat",
    b"/proc/swaps",
    b"/proc/uptime",
    b"/proc/loadavg",
    b"/proc/slabinfo",
    b"/proc/sys/kernel/ns_last_pid",
    b"/proc/sys/crypto/fips_enabled",
];

/// Refuses what would hide a process's view of itself, as runc does.
fn over_proc(field: &str, destination: &[u8], bind: bool, fstype: &str) -> Result<(), OciError> {
    let path = clean(destination);
    let shown = String::from_utf8_lossy(&path).into_owned();
    if path == b"/proc" {
        return if !bind && fstype == "proc" {
            Ok(())
        } else {
            let problem = format!("{shown:?} cannot be mounted because it is not of type proc");
            Err(invalid(format!("{field}.destination"), problem))
        };
    }
    if path.starts_with(b"/proc/") && !OVER_PROC.contains(&path.as_slice()) {
        let problem = format!("{shown:?} cannot be mounted because it is inside /proc");
        return Err(invalid(format!("{field}.destination"), problem));
    }
    Ok(())
}

/// An absolute path without empty parts, `.` and `..`.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    [b"/".as_slice(), &parts.join(&b'/')].concat()
}

/// The specification demands an absolute destination; runc takes a relative one from `/`.
fn absolute(path: &Path) -> Vec<u8> {
    Path::new("/").join(path).into_os_string().as_bytes().to_vec()
}

fn refused(field: &str, source: &Path, mount: &Mount, error: &io::Error) -> OciError {
    let reason = error.to_string();
    OciError::Bind {
        field: field.to_owned(),
        source_path: source.display().to_string(),
        destination: mount.destination().display().to_string(),
        reason,
    }
}

#[cfg(test)]
#[path = "mounts_test.rs"]
mod mounts_test;
