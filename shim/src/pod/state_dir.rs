//! The directory of a container, `ROOT/ID`, mode 0700, locked by the owner of its pod.
//!
//! A directory whose lock nobody holds belongs to an owner that has ended: what was the pod's goes when it is met, and
//! the directory too, unless an engine is to delete it. Making, locking and removing happen under the lock of `ROOT`, so
//! that no one takes a directory that is being made for a dead one.
//!
//! Invariant: it is gone when its [`StateDir`] is, unless that was [left](StateDir::leave) or a control group that goes
//! with it is still busy: then it says where that is, for the next who comes. No user is given out that a process has.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::Uid;

use super::cgroup;
use crate::container::{self, Saved};
use crate::control::SOCKET;
use crate::hostgroup;
use crate::uids::UidRange;

/// Longest id, as in runc.
const MAX_ID: usize = 1024;

/// Longest name of a directory entry.
const MAX_NAME: usize = 255;

/// The file that holds the user of the pod's monitor: it is taken as long as the file is there.
const UID: &str = "uid";

/// How long the control group of a monitor that has ended may be busy before the next run has to remove it.
const DYING: Duration = Duration::from_millis(500);

/// A state directory that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The id.
    #[error("invalid container ID {0:?}: it has 1 to {MAX_NAME} letters, digits and \"_+-.\"")]
    Id(String),
    /// The id is in use.
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    /// All users are taken.
    #[error(
        "no user is free for the monitor: each of {0} has a pod or another process; set uids in the \
         configuration's [jail]"
    )]
    Users(UidRange),
    /// The file system.
    #[error("state directory {path}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The file of the root directory that is locked: no id is like that.
const LOCK: &str = ",lock";

/// Files of a pod that ends, but for the note of the control group.
const POD_FILES: [&str; 3] = [UID, SOCKET, "console.log"];

/// See the module.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    root: PathBuf,
    lock: File,
    fate: Fate,
}

/// What becomes of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is removed.
    Removed,
    /// Only what is the pod's is removed.
    Left,
    /// Somebody else has it now.
    Handed,
}

/// Checks a container id: what runc allows, and short enough for a directory.
///
/// # Errors
/// [`StateError::Id`].
pub fn check_id(id: &str) -> Result<(), StateError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
    let name = !id.is_empty() && id.len() <= MAX_ID.min(MAX_NAME) && id != "." && id != "..";
    if name && id.bytes().all(allowed) { Ok(()) } else { Err(StateError::Id(id.to_owned())) }
}

impl StateDir {
    /// Makes the directory of the pod `id` below `root`; removes those of dead owners.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn create(root: &Path, id: &str) -> Result<Self, StateError> {
        check_id(id)?;
        let path = root.join(id);
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(at(root))?;
        let _guard = lock_root(root).map_err(at(root))?;
        remove_dead(root);
        DirBuilder::new().mode(0o700).create(&path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => StateError::Exists(id.to_owned()),
            _ => StateError::Io { path: path.clone(), source },
        })?;
        let lock = File::open(&path).map_err(at(&path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| at(&path)(errno.into()))?;
        Ok(Self { path, root: root.to_owned(), lock, fate: Fate::Removed })
    }

    /// The directory at `path` that another process has made and locked with `lock`.
    #[must_use]
    pub fn adopt(path: PathBuf, lock: File) -> Self {
        let root = path.parent().unwrap_or(Path::new("/")).to_owned();
        Self { path, root, lock, fate: Fate::Removed }
    }

    /// The lock, for the process that adopts it.
    ///
    /// # Errors
    /// The failure of a system call.
    pub fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// Another process has adopted it.
    pub fn hand_over(mut self) {
        self.fate = Fate::Handed;
    }

    /// Ends the pod's part of it; the rest stays until somebody deletes it.
    pub fn leave(mut self) {
        self.fate = Fate::Left;
    }

    /// Gives up the name, which is that of a container that is deleted although its pod goes on; the new one, which no id
    /// can be.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn move_aside(&mut self) -> Result<String, StateError> {
        let name = format!(",pod-{}", std::process::id());
        let path = self.root.join(&name);
        let _guard = lock_root(&self.root).map_err(at(&self.root))?;
        // One that had our number may have left it.
        is_cleared(&path, false);
        std::fs::rename(&self.path, &path).map_err(at(&path))?;
        container::remove_files(&path);
        self.path = path;
        Ok(name)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a user of `range` that no other pod below the same root has.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn take_uid(&self, range: UidRange) -> Result<u32, StateError> {
        let _guard = lock_root(&self.root).map_err(at(&self.root))?;
        let entries = std::fs::read_dir(&self.root).map_err(at(&self.root))?;
        let uid = |path: PathBuf| std::fs::read_to_string(path.join(UID)).ok()?.parse().ok();
        let mut taken: BTreeSet<u32> =
            entries.flatten().filter_map(|entry| uid(entry.path())).collect();
        let mut seed = DefaultHasher::new();
        self.path.hash(&mut seed);
        let uid = loop {
            let uid = range.pick(seed.finish(), &taken).ok_or(StateError::Users(range))?;
            if !is_in_use(uid) {
                break uid;
            }
            // A monitor that cannot die keeps its user although its directory is gone.
            taken.insert(uid);
        };
        let file = self.path.join(UID);
        std::fs::write(&file, uid.to_string()).map_err(at(&file))?;
        Ok(uid)
    }

    /// Puts the monitor, the process `pid`, into a control group that goes with this directory, if the host lets
    /// us.
    pub fn place_monitor(&self, pid: u32) {
        if let Err(error) = cgroup::place(&self.path, pid) {
            tracing::debug!(%error, "the monitor has no control group of its own");
        }
    }

    /// Makes an empty file in it.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn file(&self, name: &str) -> Result<File, StateError> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        options.open(&path).map_err(|source| StateError::Io { path, source })
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.fate == Fate::Handed {
            return;
        }
        let _guard = lock_root(&self.root);
        let path = self.path.display();
        if !cgroup::remove(&self.path, DYING) {
            tracing::warn!(%path, "the monitor's control group is busy: the next run removes it");
        } else if self.fate == Fate::Left {
            remove_pod_files(&self.path);
        } else if !hostgroup::clear(&self.path, DYING) {
            tracing::warn!(%path, "the container's control group is busy: the next run removes it");
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%path, %error, "removing the state directory");
        }
        let _ = flock(&self.lock, FlockOperation::Unlock);
        // Those whose monitor was still dying when this one came.
        remove_dead(&self.root);
    }
}

/// Whether a process has the user `uid`.
fn is_in_use(uid: u32) -> bool {
    // The kernel says that there is no process whose priority it could tell (`getpriority(2)`).
    rustix::process::getpriority_user(Uid::from_raw(uid)) != Err(Errno::SRCH)
}

/// A function that says at which path the file system failed.
fn at(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path, source }
}

/// Takes the lock of all of `root`, for a moment: a file that nobody else can open.
fn lock_root(root: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW).open(root.join(LOCK))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Removes the directory at `path`, or with `keep` only what was its pod's, when its owner is dead. An owner that is just
/// dying gets a moment, and so does a monitor: the kernel does not take them apart all at once. Whether it is done.
#[must_use]
pub fn clear_dead(path: &Path, keep: bool, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let guard = path.parent().map(lock_root);
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let done = match &guard {
            Some(Ok(_)) => is_cleared(path, keep),
            Some(Err(error)) => gone(error),
            None => true,
        };
        drop(guard);
        if done || Instant::now() >= until {
            return done;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn remove_dead(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        is_cleared(&path, Saved::at(&path).is_ok_and(|saved| saved.is_kept()));
    }
}

/// Whether the directory at `path` is removed, or with `keep` what was its pod's in it: not if somebody holds its lock or
/// its control group is busy. The caller holds the root's lock.
///
/// Only what a state directory can hold is removed: another program may keep directories of its own below
/// the same root.
fn is_cleared(path: &Path, keep: bool) -> bool {
    if !is_ours(path) {
        return true;
    }
    let directory = match File::open(path) {
        Ok(directory) => directory,
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
    };
    let free = flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok();
    if !free || !cgroup::remove(path, Duration::ZERO) {
        return false;
    }
    remove_pod_files(path);
    if keep {
        return true;
    }
    if !hostgroup::clear(path, Duration::ZERO) {
        return false;
    }
    if Saved::at(path).is_ok() {
        container::remove_files(path);
    }
    std::fs::remove_dir(path).is_ok()
}

/// Whether `path` is a directory that is made like a state directory, with nothing in it that one cannot hold.
fn is_ours(path: &Path) -> bool {
    let made_like = path.symlink_metadata().is_ok_and(|metadata| {
        metadata.is_dir()
            && metadata.permissions().mode() & 0o777 == 0o700
            && metadata.uid() == rustix::process::geteuid().as_raw()
    });
    let known = |name: &OsStr| {
        let name = name.to_str().unwrap_or_default();
        POD_FILES.contains(&name)
            || [cgroup::NOTE, hostgroup::NOTE].contains(&name)
            || container::is_file(name)
    };
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    made_like && entries.into_iter().all(|entry| known(&entry.file_name()))
}

fn remove_pod_files(path: &Path) {
    for name in POD_FILES {
        let _ = std::fs::remove_file(path.join(name));
    }
}

#[cfg(test)]
#[path = "state_dir_test.rs"]
mod state_dir_test;
