//! Block devices of the host that a container is given.
//!
//! Invariant: what is opened is the block device with the number that the specification names, for writing only if its
//! rules allow that.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::makedev;

use crate::oci::HostDisk;

/// Where the kernel shows block devices by their numbers.
const SHOWN: &str = "/sys/dev/block";

/// Most of one container: they travel in one message, and each has a thread in the monitor.
const MAX_GIVEN: usize = 40;

/// A block device, open.
#[derive(Debug)]
pub(crate) struct Given {
    /// It.
    pub(crate) file: File,
    /// The guest may write.
    pub(crate) writable: bool,
    /// Its major and minor number on the host.
    pub(crate) number: (u32, u32),
}

/// A block device that cannot be given to a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GivenError {
    /// It cannot be opened.
    #[error("{field}: opening the host's block device {major}:{minor} at {path}", major = .number.0, minor = .number.1)]
    Open {
        /// The field of the specification.
        field: String,
        /// Its number.
        number: (u32, u32),
        /// Its node.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another file is where its node should be.
    #[error("{field}: {path} is not the host's block device {major}:{minor}", major = .number.0, minor = .number.1)]
    Other {
        /// The field of the specification.
        field: String,
        /// Its number.
        number: (u32, u32),
        /// The file.
        path: PathBuf,
    },
    /// There are too many.
    #[error("linux.devices: {0} block devices of the host; a container can have {MAX_GIVEN}")]
    TooMany(usize),
}

/// Opens `disks`. One that the host does not have, or that has no medium, is left out, with a warning: as without a
/// virtual machine, there is a node with nothing behind it.
///
/// # Errors
/// [`GivenError`].
pub(crate) fn given(disks: &[HostDisk]) -> Result<Vec<Given>, GivenError> {
    given_of(Path::new(SHOWN), Path::new("/dev"), disks)
}

fn given_of(shown: &Path, nodes: &Path, disks: &[HostDisk]) -> Result<Vec<Given>, GivenError> {
    let mut all = Vec::new();
    for disk in disks {
        match name(shown, disk.number).map(|name| one(disk, nodes.join(name))).transpose()? {
            Some(Some(given)) => all.push(given),
            _ => {
                let (field, (major, minor)) = (&disk.field, disk.number);
                tracing::warn!(
                    "{field}: the host has nothing behind the block device {major}:{minor}"
                );
            }
        }
    }
    if all.len() > MAX_GIVEN {
        return Err(GivenError::TooMany(all.len()));
    }
    Ok(all)
}

/// What the kernel calls the block device; nothing if there is none.
fn name(shown: &Path, (major, minor): (u32, u32)) -> Option<String> {
    let text = fs::read_to_string(shown.join(format!("{major}:{minor}/uevent"))).ok()?;
    text.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(str::to_owned)
}

/// Opens the block device at `path`; nothing if it has no medium or no size.
fn one(disk: &HostDisk, path: PathBuf) -> Result<Option<Given>, GivenError> {
    let HostDisk { field, number, writable } = disk;
    let (mut file, writable) = match open(&path, *writable) {
        Ok(opened) => opened,
        Err(error) if is_empty(&error) => return Ok(None),
        Err(source) => {
            let (field, number) = (field.clone(), *number);
            return Err(GivenError::Open { field, number, path, source });
        }
    };
    let wanted = makedev(number.0.into(), number.1.into());
    let is_it =
        |found: &fs::Metadata| found.file_type().is_block_device() && found.rdev() == wanted;
    if !file.metadata().is_ok_and(|found| is_it(&found)) {
        return Err(GivenError::Other { field: field.clone(), number: *number, path });
    }
    let sized = file.seek(SeekFrom::End(0)).is_ok_and(|size| size > 0);
    Ok(sized.then_some(Given { file, writable, number: *number }))
}

/// A device that is read-only, whatever the rules say, is opened as that.
fn open(path: &Path, writable: bool) -> io::Result<(File, bool)> {
    match File::options().read(true).write(writable).open(path) {
        Err(error)
            if writable
                && matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
        {
            Ok((File::open(path)?, false))
        }
        opened => Ok((opened?, writable)),
    }
}

/// No driver, or no medium, is behind a node.
fn is_empty(error: &io::Error) -> bool {
    const NOTHING: [i32; 3] = [libc::ENXIO, libc::ENODEV, libc::ENOMEDIUM];
    error.raw_os_error().is_some_and(|errno| NOTHING.contains(&errno))
}

#[cfg(test)]
#[path = "given_test.rs"]
mod given_test;
