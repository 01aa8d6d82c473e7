//! A hash over everything that the kernel says about the files of a directory tree, without reading them: two
//! walks give the same fingerprint if and only if nothing was written, renamed, linked or changed in between.
//!
//! A change of data, owner, mode or attributes moves the change time of the file (`inode(7)`), which no
//! program can set back. The number of the file system's own device is left out, because it differs each time
//! the same file system is mounted.
//!
//! Mounts inside the tree are followed, as a recursive bind mount of it would show them. A pseudo file system
//! (a `/proc` that somebody left mounted) is an error: its files are not data.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{self, FsType};
use sha2::{Digest, Sha256};
use thiserror::Error;
use walkdir::{DirEntry, WalkDir};

/// Changes when what goes into the hash or into an image changes, so that older images are not found.
const VERSION: &[u8] = b"cofferdam layer 1";

/// Unit of [`MetadataExt::blocks`], in bytes (`stat(2)`).
const STAT_BLOCK: u64 = 512;

/// File systems that are views of the kernel, with the names they are mounted by.
const PSEUDO: &[(FsType, &str)] = &[
    (statfs::PROC_SUPER_MAGIC, "proc"),
    (statfs::SYSFS_MAGIC, "sysfs"),
    (statfs::CGROUP_SUPER_MAGIC, "cgroup"),
    (statfs::CGROUP2_SUPER_MAGIC, "cgroup2"),
    (statfs::DEBUGFS_MAGIC, "debugfs"),
    (statfs::TRACEFS_MAGIC, "tracefs"),
    (statfs::SECURITYFS_MAGIC, "securityfs"),
    (statfs::DEVPTS_SUPER_MAGIC, "devpts"),
    (statfs::BPF_FS_MAGIC, "bpf"),
];

/// Why a tree has no fingerprint.
#[derive(Debug, Error)]
pub enum FingerprintError {
    /// Something in the tree cannot be read.
    #[error("reading the directory tree at {path}")]
    Read {
        /// Where.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The root of the tree is something else.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// The root.
        path: PathBuf,
    },
    /// A view of the kernel is mounted inside the tree.
    #[error("{path} is a mounted {kind} file system, which cannot be part of an image: unmount it")]
    PseudoFileSystem {
        /// The mount point.
        path: PathBuf,
        /// Its type.
        kind: &'static str,
    },
}

/// The state of a directory tree. Shown in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a walk over a tree found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The state of the tree.
    pub fingerprint: Fingerprint,
    /// Sum of the lengths of its regular files, in bytes; a file with several links counts once for each.
    pub bytes: u64,
    /// How much of `bytes` is holes, which take no space where the tree is.
    pub holes: u64,
    /// Files of all types, without the root.
    pub files: u64,
}

impl Tree {
    /// Walks the tree at `root`.
    ///
    /// # Errors
    /// If `root` is not a directory, if something below it cannot be read, or if a pseudo file system is
    /// mounted inside.
    pub fn walk(root: &Path) -> Result<Self, FingerprintError> {
        let failed = |source| FingerprintError::Read { path: root.to_owned(), source };
        // The root may be a symbolic link; nothing below it is followed.
        let root = &root.canonicalize().map_err(failed)?;
        let metadata = fs::metadata(root).map_err(failed)?;
        if !metadata.is_dir() {
            return Err(FingerprintError::NotADirectory { path: root.clone() });
        }
        let mut walk = Walk { hash: Sha256::new(), bytes: 0, holes: 0, files: 0 };
        walk.hash.update(VERSION);
        walk.add(Path::new(""), &metadata, None);
        let mut devices = vec![metadata.dev()];
        for entry in WalkDir::new(root).min_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|error| read_error(root, error))?;
            walk.entry(root, &entry, &mut devices)?;
        }
        Ok(walk.finish())
    }
}

/// The error of a walk, with the path that it happened at.
fn read_error(root: &Path, error: walkdir::Error) -> FingerprintError {
    let path = error.path().unwrap_or(root).to_owned();
    let source = error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into());
    FingerprintError::Read { path, source }
}

/// A walk under way.
struct Walk {
    hash: Sha256,
    bytes: u64,
    holes: u64,
    files: u64,
}

impl Walk {
    /// Adds what `entry` is. `devices` holds the device of each directory from the root down to this entry.
    fn entry(
        &mut self,
        root: &Path,
        entry: &DirEntry,
        devices: &mut Vec<u64>,
    ) -> Result<(), FingerprintError> {
        let failed = |source| FingerprintError::Read { path: entry.path().to_owned(), source };
        let metadata = entry.metadata().map_err(|error| read_error(root, error))?;
        if metadata.is_dir() {
            devices.truncate(entry.depth());
            if devices.last() != Some(&metadata.dev()) {
                reject_pseudo(entry.path())?;
            }
            devices.push(metadata.dev());
        }
        let target = if metadata.is_symlink() {
            Some(fs::read_link(entry.path()).map_err(failed)?)
        } else {
            None
        };
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        self.add(relative, &metadata, target.as_deref());
        Ok(())
    }

    /// Adds one file by its name below the root.
    fn add(&mut self, relative: &Path, metadata: &Metadata, target: Option<&Path>) {
        self.text(relative.as_os_str().as_bytes());
        self.text(target.map_or(&[][..], |path| path.as_os_str().as_bytes()));
        let mut numbers = [0_u64; 8];
        numbers[0] = u64::from(metadata.mode());
        numbers[1] = (u64::from(metadata.uid()) << 32) | u64::from(metadata.gid());
        numbers[2] = metadata.rdev();
        numbers[3] = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
        numbers[4] = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
        // The length, the inode and the links of a directory are its file system's business; an overlay
        // numbers its directories anew each time it is mounted.
        if !metadata.is_dir() {
            numbers[5] = metadata.len();
            numbers[6] = metadata.ino();
            numbers[7] = metadata.nlink();
        }
        for number in numbers {
            self.hash.update(number.to_le_bytes());
        }
        if !relative.as_os_str().is_empty() {
            self.files += 1;
        }
        if metadata.is_file() {
            self.bytes = self.bytes.saturating_add(metadata.len());
            let stored = metadata.blocks().saturating_mul(STAT_BLOCK);
            self.holes = self.holes.saturating_add(metadata.len().saturating_sub(stored));
        }
    }

    /// Adds `bytes` after their length, so that neighbours cannot be taken for each other.
    fn text(&mut self, bytes: &[u8]) {
        self.hash.update(bytes.len().to_le_bytes());
        self.hash.update(bytes);
    }

    /// The result.
    fn finish(self) -> Tree {
        let fingerprint = Fingerprint(self.hash.finalize().into());
        Tree { fingerprint, bytes: self.bytes, holes: self.holes, files: self.files }
    }
}

/// One number for a time, wrapping: only equality counts.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds).cast_unsigned()
}

/// An error if the file system mounted at `path` is a view of the kernel.
fn reject_pseudo(path: &Path) -> Result<(), FingerprintError> {
    let kind = statfs::statfs(path)
        .map_err(|errno| FingerprintError::Read { path: path.to_owned(), source: errno.into() })?
        .filesystem_type();
    match PSEUDO.iter().find(|(magic, _)| *magic == kind) {
        Some((_, kind)) => Err(FingerprintError::PseudoFileSystem { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "fingerprint_test.rs"]
mod fingerprint_test;
