//! Mounts (OCI runtime-spec, config#mounts).
//!
//! There is no file server between host and guest. A bind mount of a regular file of moderate size, such as
//! `/etc/resolv.conf` or an engine's init, is brought along in the plan; one of memory that an engine made for a pod's
//! `/dev/shm` becomes memory of the guest; one of `/proc`, `/sys` or `/dev` at its own place is the guest's; any other bind
//! mount is refused by name.
//!
//! Invariant: no path of the host is ever opened in the guest.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cofferdam_agent_protocol as protocol;
use oci_spec::runtime::Mount;

use super::mount_options::{IdMapped, MountOptions};
use super::{OciError, invalid, namespaces, unsupported};

/// Largest file that is brought along (see [`protocol::MountKind::File`]).
const MAX_FILE: usize = 2 << 20;

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

/// A file of the host that a container is to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    /// Its content.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// The size in bytes, if it is no file but an empty directory in memory (tmpfs).
    pub memory: Option<u64>,
}

impl HostFile {
    /// Reads a regular file of moderate size, or looks at an empty directory in memory.
    ///
    /// # Errors
    /// Anything else, a larger file included, is an error that says so.
    pub fn read(path: &Path) -> io::Result<Self> {
        use std::io::Read;
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
        // Non-blocking: opening a fifo must not wait for its writer.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let metadata = std::fs::metadata(path)?;
        if let Some(memory) = metadata.is_dir().then(|| memory_at(path)).flatten() {
            let mode = metadata.mode() & 0o7777;
            return Ok(Self { content: Vec::new(), mode, memory: Some(memory) });
        }
        if !metadata.is_file() {
            let kind = if metadata.is_dir() { "a directory" } else { "not a regular file" };
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("it is {kind}")));
        }
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let mut content = Vec::new();
        let limit = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
        file.take(limit + 1).read_to_end(&mut content)?;
        if content.len() > MAX_FILE {
            let text = format!("it is larger than {} KiB", MAX_FILE >> 10);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(Self { content, mode: metadata.mode() & 0o7777, memory: None })
    }
}

/// The size of the tmpfs whose root directory is at `path`, if it is one and empty.
fn memory_at(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    /// `TMPFS_MAGIC` (`statfs(2)`).
    const TMPFS: u64 = 0x0102_1994;
    let is_root = path.metadata().ok()?.dev() != path.join("..").metadata().ok()?.dev();
    let empty = std::fs::read_dir(path).ok()?.next().is_none();
    let system = rustix::fs::statfs(path).ok()?;
    let is_memory = u64::try_from(system.f_type).ok() == Some(TMPFS);
    let size = system.f_blocks.saturating_mul(u64::try_from(system.f_bsize).unwrap_or(0));
    (is_root && empty && is_memory).then_some(size)
}

/// What is known of the container and its bundle when its mounts are planned.
pub(super) struct Around<'a> {
    /// The bundle's directory.
    pub(super) bundle: &'a Path,
    /// Gives the content of a file of the host, by absolute path.
    pub(super) read: &'a dyn Fn(&Path) -> io::Result<HostFile>,
    /// The maps of the container's own user namespace, if it has one.
    pub(super) user_namespace: Option<(&'a [protocol::IdMap], &'a [protocol::IdMap])>,
}

/// The plans of `mounts`.
pub(super) fn mounts(
    mounts: &[Mount],
    around: &Around<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<protocol::Mount>, OciError> {
    let mut plans = Vec::with_capacity(mounts.len());
    let mut total = 0;
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("mounts[{index}]");
        if !mount.destination().is_absolute() {
            let shown = mount.destination().display();
            warnings.push(format!("{field}.destination: {shown} is not absolute; taken from /"));
        }
        let plan = one(&field, mount, around)?;
        total += plan.content.len();
        if total > MAX_FILES {
            let problem =
                format!("the bound files are larger than {} KiB together", MAX_FILES >> 10);
            return Err(invalid("mounts", problem));
        }
        plans.push(plan);
    }
    Ok(plans)
}

fn one(field: &str, mount: &Mount, around: &Around<'_>) -> Result<protocol::Mount, OciError> {
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
        destination: absolute(mount.destination()),
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
        return Ok(plan);
    }
    if bind {
        if !options.data.is_empty() {
            let problem = format!(
                "bind mounts cannot have any filesystem-specific options applied ({})",
                options.data
            );
            return Err(invalid(format!("{field}.options"), problem));
        }
        let source = around.bundle.join(mount.source().clone().unwrap_or_default());
        let file =
            (around.read)(&source).map_err(|error| refused(field, &source, mount, &error))?;
        if let Some(bytes) = file.memory {
            plan.kind = protocol::MountKind::Shared.into();
            plan.source = source.as_os_str().as_bytes().to_vec();
            plan.data = format!("mode={:o},size={bytes}", file.mode).into_bytes();
            return Ok(plan);
        }
        plan.kind = protocol::MountKind::File.into();
        plan.content = file.content;
        plan.mode = file.mode;
        return Ok(plan);
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
    Ok(plan)
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
    let reason = match error.kind() {
        io::ErrorKind::Unsupported | io::ErrorKind::FileTooLarge => {
            format!(
                "{error}; only regular files up to {} KiB can be brought into a pod",
                MAX_FILE >> 10
            )
        }
        _ => error.to_string(),
    };
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
