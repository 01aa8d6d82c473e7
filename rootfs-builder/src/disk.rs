//! Scratch disks: empty ext4 file systems for the writable side of a pod.
//!
//! The file system is made once per size, as a sparse template of a few hundred KiB; each disk is a copy of
//! the template's data in a file without a name. It has no journal, because its content ends with the pod.
//!
//! Invariant: a disk is gone, with all its blocks, when the last process that holds it ends, however it ends.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use thiserror::Error;

use crate::publish::{self, Partial, PublishError};
use crate::tool::{Tool, ToolError};

/// Where templates are kept if nobody says otherwise.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/cofferdam/scratch";

/// The smallest disk, in bytes: less has no room for files beside the file system's own tables.
pub const SMALLEST: u64 = 1 << 20;

/// The largest disk, in bytes: what ext4 holds with 32-bit block numbers, less one group.
pub const LARGEST: u64 = (16 << 40) - (128 << 20);

/// The program that makes the file system.
const MKFS: Tool = Tool { program: "mke2fs", package: "e2fsprogs" };

/// All features of the file system, so that no configuration of the host adds others. No journal, no
/// checksums: nothing of this survives a crash. Uninitialised groups keep an empty disk small.
const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,\
                        large_file,sparse_super,uninit_bg";

/// The file is all zeros to begin with, so nothing has to be zeroed, not even by the guest later on.
const EXTENDED: &str = "assume_storage_prezeroed=1,lazy_itable_init=0,nodiscard,root_owner=0:0";

/// Up to this size, in bytes, there is an inode for every 8 KiB, then for every 16: container images are
/// many small files, and a small disk must not run out of inodes before it is full.
const DENSE_INODES_UP_TO: u64 = 4 << 30;

/// Bytes copied at a time.
const COPY_UNIT: usize = 64 << 10;

/// Why there is no scratch disk.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The size makes no sense.
    #[error("a scratch disk of {size} bytes: between {SMALLEST} and {LARGEST} are possible")]
    Size {
        /// What was asked for, in bytes.
        size: u64,
    },
    /// The template could not be made.
    #[error("making an ext4 file system of {size} bytes")]
    Build {
        /// Its size.
        size: u64,
        /// The cause.
        source: ToolError,
    },
    /// The directory of templates is not usable.
    #[error("the scratch disk templates")]
    Cache(#[from] PublishError),
    /// The disk's file could not be made or filled.
    #[error("{action} a scratch disk of {size} bytes in {directory}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// The size of the disk.
        size: u64,
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Makes scratch disks out of templates.
#[derive(Clone, Debug)]
pub struct ScratchDisks {
    templates: PathBuf,
}

impl ScratchDisks {
    /// With templates in `directory`, which is created when the first one is made.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { templates: directory.into() }
    }

    /// A disk of `size` bytes, rounded up to whole MiB, with an empty ext4 file system, in a file without a
    /// name in the file system of `directory`. Opened for reading and writing.
    ///
    /// The file is sparse: blocks are taken from the host as the guest writes them.
    ///
    /// # Errors
    /// If the size is out of range, if `mke2fs` is missing or fails, or if a file cannot be written (the disk
    /// is full, the directory is read-only).
    pub fn create(&self, directory: &Path, size: u64) -> Result<File, DiskError> {
        if !(SMALLEST..=LARGEST).contains(&size) {
            return Err(DiskError::Size { size });
        }
        let size = size.next_multiple_of(1 << 20);
        let name = format!("ext4-{size}.img");
        let template = publish::file(&self.templates, &name, |partial| make(partial, size))?;
        let failed = |action| {
            let directory = directory.to_owned();
            move |source| DiskError::File { action, size, directory, source }
        };
        let disk = tempfile::tempfile_in(directory).map_err(failed("creating"))?;
        disk.set_len(size).map_err(failed("sizing"))?;
        copy_data(&template, &disk).map_err(failed("writing"))?;
        Ok(disk)
    }
}

/// Makes the template for disks of `size` bytes.
fn make(partial: &Partial, size: u64) -> Result<(), DiskError> {
    let failed = |source| DiskError::File {
        action: "sizing the template of",
        size,
        directory: partial.path().to_owned(),
        source,
    };
    partial.lock().set_len(size).map_err(failed)?;
    let inode_ratio = if size <= DENSE_INODES_UP_TO { "8192" } else { "16384" };
    let options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0"];
    let values = ["-i", inode_ratio, "-O", FEATURES, "-E", EXTENDED];
    let arguments =
        options.iter().chain(&values).map(OsStr::new).chain([partial.path().as_os_str()]);
    MKFS.run(arguments, partial.lock(), || {}).map_err(|source| DiskError::Build { size, source })
}

/// Copies what `from` holds to the same places of `to`, leaving its holes.
fn copy_data(from: &File, to: &File) -> io::Result<()> {
    let mut buffer = vec![0; COPY_UNIT];
    let mut at = 0;
    while let Some(start) = seek(from, at, Whence::SeekData)? {
        let end = seek(from, start, Whence::SeekHole)?.unwrap_or(start);
        at = start;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(COPY_UNIT).min(COPY_UNIT);
            let read = from.read_at(&mut buffer[..left], at)?;
            if read == 0 {
                return Ok(());
            }
            to.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
    }
    Ok(())
}

/// The next data or hole of `file` at or after `offset`; `None` if there is none.
fn seek(file: &File, offset: u64, whence: Whence) -> io::Result<Option<u64>> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    match lseek(file, offset, whence) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod disk_test;
