//! The control group (v2) of one container.
//!
//! Invariant: names of files come from the plan and are names only, never paths; reads are bounded.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam_agent_protocol::{CgroupPlan, CgroupSetting};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use tokio::time::{Instant, sleep};

use super::Place;
use crate::error::{Context, Failure, Result, describe_io};

/// Files read for the accounting; those that do not exist are left out.
const STATS: [&str; 18] = [
    "cpu.stat",
    "cpu.max",
    "cpu.weight",
    "cpu.pressure",
    "memory.current",
    "memory.peak",
    "memory.max",
    "memory.stat",
    "memory.events",
    "memory.swap.current",
    "memory.swap.max",
    "memory.pressure",
    "pids.current",
    "pids.max",
    "pids.events",
    "io.stat",
    "io.pressure",
    "cpuset.cpus.effective",
];

/// The file of its set of CPUs.
const CPUS: &str = "cpuset.cpus";

/// Largest file read: all of [`STATS`] fit into a frame.
const MAX_READ: u64 = 12 * 1024;

/// Deepest group below that of a container: the guest's kernel makes none that is deeper.
pub(crate) const MAX_DEPTH: u32 = 32;

/// Most processes listed.
const MAX_PROCESSES: usize = 32 * 1024;

/// How long freezing, thawing and removing may take.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// A container's control group.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: PathBuf,
    fd: OwnedFd,
    /// The CPUs of the machine, in sysfs.
    cpus: PathBuf,
    /// The set of CPUs that was asked for last.
    set: Option<String>,
}

impl Cgroup {
    /// Makes the group of container `id` with the settings of `plan`.
    ///
    /// # Errors
    /// What failed; nothing is left behind then.
    pub(crate) fn create(place: &Place, id: &str, plan: &CgroupPlan) -> Result<Self> {
        let directory = place.cgroup.join(id);
        let attempted = || format!("making the control group {}", directory.display());
        fs::create_dir(&directory).context(attempted)?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = open(&directory, flags, Mode::empty()).context(attempted)?;
        let mut cgroup = Self { directory, fd, cpus: place.cpus.clone(), set: None };
        if let Err(failure) = cgroup.apply(&plan.settings) {
            // Nothing is in it.
            let _ = fs::remove_dir(&cgroup.directory);
            return Err(failure);
        }
        Ok(cgroup)
    }

    /// Gives it to the user `uid`, who may then make groups below it: the files that the kernel says may be delegated
    /// (cgroups(7)), not its limits.
    ///
    /// # Errors
    /// Those of `chown(2)`.
    pub(crate) fn delegate(&self, uid: u32) -> Result<()> {
        /// The names of those files, a line each.
        const DELEGATED: &str = "/sys/kernel/cgroup/delegate";
        let attempted = || format!("giving the control group to user {uid}");
        // As runc: what a kernel without that file has.
        let names = fs::read_to_string(DELEGATED).unwrap_or_else(|_| {
            "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned()
        });
        chown(&self.directory, Some(uid), None).context(attempted)?;
        for name in names.lines() {
            match chown(self.directory.join(name), Some(uid), None) {
                // Of a controller that is not there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                outcome => outcome.context(attempted)?,
            }
        }
        Ok(())
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// Its directory, open.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Writes `settings` in their order.
    ///
    /// # Errors
    /// A file that does not exist, and what the kernel says to a value.
    pub(crate) fn apply(&mut self, settings: &[CgroupSetting]) -> Result<()> {
        for CgroupSetting { file, value } in settings {
            if file.is_empty() || file.contains(['/', '\0']) || file.starts_with('.') {
                return Err(Failure::unsupported(format!("bad control group file \"{file}\"")));
            }
            let fitted;
            let value = if file == CPUS {
                self.set = Some(value.clone());
                fitted = super::cpu::fit(&self.cpus, value)?;
                &fitted
            } else {
                value
            };
            self.write(file, value).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    let text = "the guest's kernel has no control group file";
                    let why = describe_io(&error);
                    Failure::unsupported(format!("{text} {file} (for the value {value}): {why}"))
                }
                _ => {
                    let why = describe_io(&error);
                    Failure::other(format!("writing {value} to {file}: {why}"))
                }
            })?;
        }
        Ok(())
    }

    /// Fits its set of CPUs to those that are online now.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn refit(&self) -> Result<()> {
        let Some(set) = &self.set else { return Ok(()) };
        let fitted = super::cpu::fit(&self.cpus, set)?;
        self.write(CPUS, &fitted).context(|| format!("writing {fitted} to {CPUS}"))
    }

    /// Writes `value` to an existing file, in one call.
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let mut file = File::options().write(true).open(self.directory.join(file))?;
        file.write_all(value.as_bytes())
    }

    /// Reads a file.
    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        read(&self.directory.join(file))
    }

    /// Kills all that is in it and below.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub(crate) fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1").context(|| "writing cgroup.kill".into())
    }

    /// The processes in it and below.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        collect(self.fd(), MAX_DEPTH, &mut pids).context(|| "listing processes".into())?;
        Ok(pids)
    }

    /// The accounting.
    pub(crate) fn stats(&self) -> Vec<CgroupSetting> {
        stats(&self.directory)
    }

    /// Freezes or thaws it.
    ///
    /// # Errors
    /// Those of `write(2)`, or that it takes too long.
    pub(crate) async fn freeze(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        self.write("cgroup.freeze", value).context(|| "writing cgroup.freeze".into())?;
        let until = Instant::now() + SETTLES_WITHIN;
        while self.event("cgroup.events", "frozen") != Some(u64::from(frozen)) {
            if Instant::now() >= until {
                return Err(Failure::other("the control group did not freeze or thaw in time"));
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// How many processes the kernel killed in it for lack of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.event("memory.events", "oom_kill").unwrap_or(0)
    }

    /// The number of `key` in a file of lines "key number".
    fn event(&self, file: &str, key: &str) -> Option<u64> {
        let text = self.read(file).ok()?;
        let mut values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        values.next()?.parse().ok()
    }

    /// Removes it with the groups below.
    fn remove_now(&self) -> io::Result<()> {
        let parent = self.directory.parent().unwrap_or(Path::new("/"));
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let parent = open(parent, flags, Mode::empty())?;
        let name = self.directory.file_name().unwrap_or_default();
        remove_tree(parent.as_fd(), name, MAX_DEPTH)
    }

    /// Removes it with the groups below. Processes that are just ending are waited for.
    ///
    /// # Errors
    /// Those of `rmdir(2)`.
    pub(crate) async fn remove(&self) -> Result<()> {
        let until = Instant::now() + SETTLES_WITHIN;
        loop {
            match self.remove_now() {
                Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                    if Instant::now() >= until {
                        return Err(error).context(|| "removing the control group".into());
                    }
                }
                outcome => return outcome.context(|| "removing the control group".into()),
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The accounting of the group at `directory`.
pub(crate) fn stats(directory: &Path) -> Vec<CgroupSetting> {
    let one = |file: &&str| {
        let value = read(&directory.join(file)).ok()?;
        Some(CgroupSetting { file: (*file).to_owned(), value })
    };
    STATS.iter().filter_map(one).collect()
}

/// Reads a file of a group.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_READ).read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a directory at or below `directory`.
fn open_group(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    Ok(openat(directory, name, flags, Mode::empty())?)
}

/// A path of the open group `directory` that is short, however deep the group is.
fn path_of(directory: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// The names of the groups right below `directory`.
fn below(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(path_of(directory))?.flatten();
    let is_group = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(entries.filter(is_group).map(|entry| entry.file_name()).collect())
}

/// Adds the processes of a group and those below it to `pids`.
fn collect(directory: BorrowedFd<'_>, depth: u32, pids: &mut Vec<u32>) -> io::Result<()> {
    let mut text = String::new();
    // A threaded group below has no list of its own: its processes are listed above it.
    let opened = File::open(path_of(directory).join("cgroup.procs"));
    let read = opened.and_then(|file| file.take(1 << 20).read_to_string(&mut text));
    match read {
        Err(error) if error.raw_os_error() != Some(Errno::EOPNOTSUPP as i32) => return Err(error),
        _ => {}
    }
    let room = MAX_PROCESSES.saturating_sub(pids.len());
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(room));
    if let Some(depth) = depth.checked_sub(1) {
        for name in below(directory)? {
            // It may be gone by now.
            let _ = open_group(directory, &name).map(|group| collect(group.as_fd(), depth, pids));
        }
    }
    Ok(())
}

/// Removes the group `name` in `directory` after those below it; one that is gone is no error.
fn remove_tree(directory: BorrowedFd<'_>, name: &OsStr, depth: u32) -> io::Result<()> {
    let remove = || match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        outcome => outcome,
    };
    if remove().is_ok() {
        return Ok(());
    }
    if let Some(depth) = depth.checked_sub(1) {
        let group = open_group(directory, name)?;
        for name in below(group.as_fd())? {
            remove_tree(group.as_fd(), &name, depth)?;
        }
    }
    Ok(remove()?)
}
