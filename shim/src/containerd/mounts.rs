//! The root file system of a container, as containerd describes it: mounts on a directory of the bundle.
//!
//! They are needed as long as an image is made of them, and are read only: what the container writes goes elsewhere. So
//! they are mounted read-only, and gone when the container was created.
//!
//! Invariant: what was mounted is unmounted with the [`Mounted`] that stands for it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use containerd_shim_protos::api::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;

/// The directory of a bundle on which they are mounted.
pub(super) const ROOTFS: &str = "rootfs";

/// Longest data of a mount: a page, with the zero at its end.
const MAX_DATA: usize = 4095;

/// A mount that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("mounting the root file system: {what}")]
pub(super) struct MountError {
    what: String,
    source: io::Error,
}

/// Mount points in use; dropping it unmounts them.
#[derive(Debug, Default)]
pub(super) struct Mounted(Vec<PathBuf>);

impl Drop for Mounted {
    fn drop(&mut self) {
        for place in self.0.iter().rev() {
            if let Err(error) = umount2(place, MntFlags::MNT_DETACH) {
                tracing::warn!(%error, place = %place.display(), "unmounting a root file system");
            }
        }
    }
}

/// Mounts `mounts` on `directory`, in this order.
///
/// # Errors
/// [`MountError`]; what was mounted is unmounted.
pub(super) async fn all(mounts: &[Mount], directory: PathBuf) -> Result<Mounted, MountError> {
    let mounts: Vec<Wish> = mounts.iter().map(Wish::of).collect();
    if mounts.is_empty() {
        return Ok(Mounted::default());
    }
    let (sender, done) = oneshot::channel();
    // A thread of its own: a disk may be slow, and it gets a working directory of its own.
    let work = move || drop(sender.send(mount_all(&mounts, &directory)));
    let started = std::thread::Builder::new().name("mounts".to_owned()).spawn(work);
    let failed = |source| MountError { what: "starting a thread".to_owned(), source };
    started.map_err(failed)?;
    done.await.unwrap_or_else(|_| Err(failed(io::ErrorKind::Other.into())))
}

fn mount_all(mounts: &[Wish], directory: &Path) -> Result<Mounted, MountError> {
    let failed = |what: &str, source| MountError { what: what.to_owned(), source };
    unshare(CloneFlags::CLONE_FS).map_err(|errno| failed("a working directory", errno.into()))?;
    let made = std::fs::create_dir_all(directory);
    made.map_err(|error| failed(&directory.display().to_string(), error))?;
    let mut mounted = Mounted::default();
    for wish in mounts {
        let place = place(directory, &wish.target);
        let wish = wish.clone().for_reading();
        wish.mount(&place).map_err(|source| MountError { what: wish.to_string(), source })?;
        mounted.0.push(place);
    }
    Ok(mounted)
}

/// Where below `directory` a mount goes.
fn place(directory: &Path, target: &str) -> PathBuf {
    match target.trim_start_matches('/') {
        "" => directory.to_owned(),
        below => directory.join(below),
    }
}

/// Unmounts whatever is mounted on `place`.
pub(super) fn unmount(place: &Path) {
    // There is one mount in most cases, and never this many.
    for _ in 0..64 {
        if umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) != Ok(()) {
            return;
        }
    }
}

/// A mount that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    kind: String,
    source: String,
    target: String,
    options: Vec<String>,
}

impl std::fmt::Display for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} with {}", self.kind, self.source, self.options.join(","))
    }
}

impl Wish {
    fn of(mount: &Mount) -> Self {
        Self {
            kind: mount.type_.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        }
    }

    /// The same for somebody who only reads. An overlay into which nothing was written yet is its lower layers alone: so
    /// every container of an image finds what was made of the first one's.
    fn for_reading(mut self) -> Self {
        if self.kind != "overlay" {
            return self;
        }
        let Some(upper) = self.value("upperdir").map(PathBuf::from) else { return self };
        let is_empty = std::fs::read_dir(upper).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty {
            return self;
        }
        const OF_UPPER: [&str; 4] = ["upperdir=", "workdir=", "volatile", "index="];
        self.options.retain(|option| !OF_UPPER.iter().any(|own| option.starts_with(own)));
        let lower = self.value("lowerdir").unwrap_or_default().to_owned();
        if !lower.contains(':') {
            (self.kind, self.source) = ("bind".to_owned(), lower);
            self.options = vec!["rbind".to_owned()];
        }
        self
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    fn mount(&self, place: &Path) -> io::Result<()> {
        let Options { flags, data, is_loop } = options(&self.options);
        if is_loop {
            return self.mount_file(place);
        }
        let flags = flags | MsFlags::MS_RDONLY;
        let is_bind = self.kind == "bind" || flags.intersects(MsFlags::MS_BIND);
        let (kind, flags) = if is_bind {
            (None, flags & MsFlags::MS_REC | MsFlags::MS_BIND)
        } else {
            (Some(self.kind.as_str()), flags)
        };
        let data = shortened(data)?;
        mount(Some(self.source.as_str()), place, kind, flags, Some(data.as_str()))?;
        // What is mounted in here is not to appear elsewhere, nor to come from there.
        mount(
            None::<&str>,
            place,
            None::<&str>,
            MsFlags::MS_PRIVATE | MsFlags::MS_REC,
            None::<&str>,
        )?;
        Ok(())
    }

    /// A file as a disk: mount(8) knows loop devices.
    fn mount_file(&self, place: &Path) -> io::Result<()> {
        let mut options = self.options.join(",");
        options.push_str(",ro");
        let mut command = Command::new("mount");
        command.args(["-t", &self.kind, "-o", &options, &self.source]).arg(place);
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(io::Error::other(said))
    }
}

/// Options of a mount for the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MsFlags,
    data: String,
    is_loop: bool,
}

/// Those that are flags, with what they mean; false takes the flag away.
const FLAGS: [(&str, MsFlags, bool); 22] = [
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("atime", MsFlags::MS_NOATIME, false),
    ("bind", MsFlags::MS_BIND, true),
    ("defaults", MsFlags::empty(), true),
    ("dev", MsFlags::MS_NODEV, false),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("nodev", MsFlags::MS_NODEV, true),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("norelatime", MsFlags::MS_RELATIME, false),
    ("nostrictatime", MsFlags::MS_STRICTATIME, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
];

fn options(all: &[String]) -> Options {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    let mut is_loop = false;
    for option in all {
        match FLAGS.iter().find(|(name, ..)| name == option) {
            Some((_, flag, true)) => flags |= *flag,
            Some((_, flag, false)) => flags &= !*flag,
            None if option == "loop" => is_loop = true,
            // Marks that containerd and mount(8) leave for themselves.
            None if option.starts_with("X-") || option.starts_with("x-") => {}
            None => data.push(option.as_str()),
        }
    }
    Options { flags, data: data.join(","), is_loop }
}

/// `data` as the kernel takes it: many layers are named from the directory that all are below, which the thread enters.
fn shortened(data: String) -> io::Result<String> {
    if data.len() <= MAX_DATA {
        return Ok(data);
    }
    let (directory, short) = relative(&data).ok_or(Errno::E2BIG)?;
    if short.len() > MAX_DATA {
        return Err(Errno::E2BIG.into());
    }
    nix::unistd::chdir(&directory)?;
    Ok(short)
}

/// The directory that all paths of the overlay are below, and the same options with paths from there.
fn relative(data: &str) -> Option<(PathBuf, String)> {
    const PATHS: [&str; 3] = ["lowerdir=", "upperdir=", "workdir="];
    let paths = data
        .split(',')
        .filter_map(|option| PATHS.iter().find_map(|name| option.strip_prefix(name)));
    let mut common: Option<PathBuf> = None;
    for path in paths.flat_map(|paths| paths.split(':')) {
        let parent = Path::new(path).parent()?;
        common = Some(match common {
            None => parent.to_owned(),
            Some(common) => {
                let both = common.components().zip(parent.components());
                both.take_while(|(a, b)| a == b).map(|(a, _)| a.as_os_str()).collect()
            }
        });
    }
    let common = common.filter(|common| common.is_absolute())?;
    let prefix = OsString::from(&common).into_string().ok()? + "/";
    let option = |option: &str| match PATHS.iter().find(|name| option.starts_with(**name)) {
        Some(name) => {
            let paths = option[name.len()..].split(':');
            let short: Vec<&str> = paths.map(|p| p.strip_prefix(&prefix).unwrap_or(p)).collect();
            format!("{name}{}", short.join(":"))
        }
        None => option.to_owned(),
    };
    let all: Vec<String> = data.split(',').map(option).collect();
    Some((common, all.join(",")))
}

#[cfg(test)]
#[path = "mounts_test.rs"]
mod mounts_test;
