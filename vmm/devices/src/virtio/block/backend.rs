//! The host's side of a disk.
//!
//! Invariant: offsets are checked by the request before they come here; errors are the host's.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use nix::fcntl::{FallocateFlags, fallocate};

use super::super::mem::{self, Segment};
use super::job::Step;
use super::request::Extent;
use super::{BlockError, BlockOptions, SECTOR, SERIAL_LEN};
use crate::ports::Ram;

/// A file and what the guest may do with it.
pub(super) struct Backend {
    file: Arc<File>,
    sectors: u64,
    readonly: bool,
    serial: [u8; SERIAL_LEN],
}

impl Backend {
    pub(super) fn new(file: File, size: u64, options: BlockOptions) -> Result<Self, BlockError> {
        let BlockOptions { readonly, serial: text, .. } = options;
        let mut serial = [0; SERIAL_LEN];
        match serial.get_mut(..text.len()) {
            Some(start) => start.copy_from_slice(text.as_bytes()),
            None => return Err(BlockError::Serial(text)),
        }
        if !size.is_multiple_of(SECTOR) {
            return Err(BlockError::Size(size));
        }
        let file = Arc::new(file);
        Ok(Self { file, sectors: size / SECTOR, readonly, serial })
    }

    /// Its size.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether the guest may not write.
    pub(super) fn readonly(&self) -> bool {
        self.readonly
    }

    /// The serial number, padded with zeros.
    pub(super) fn serial(&self) -> &[u8; SERIAL_LEN] {
        &self.serial
    }

    /// The file itself.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Does one step with an ordinary call.
    pub(super) fn perform(&self, ram: &Ram, data: &[Segment], step: Step) -> io::Result<()> {
        match step {
            Step::Read(offset) => mem::read_file(ram, data, &self.file, offset),
            Step::Write(offset) => mem::write_file(ram, data, &self.file, offset),
            Step::Sync => self.file.sync_data(),
            Step::Erase(extent) => self.erase(extent),
        }
    }

    fn erase(&self, extent: Extent) -> io::Result<()> {
        let part = |value| i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
        let (offset, len) = (part(extent.offset)?, part(extent.len)?);
        Ok(fallocate(&self.file, erase_mode(extent), offset, len)?)
    }
}

/// How `fallocate(2)` makes an extent read as zero, of files and of block devices. A file keeps its size.
pub(super) fn erase_mode(extent: Extent) -> FallocateFlags {
    let how = match extent.unmap {
        true => FallocateFlags::FALLOC_FL_PUNCH_HOLE,
        false => FallocateFlags::FALLOC_FL_ZERO_RANGE,
    };
    how | FallocateFlags::FALLOC_FL_KEEP_SIZE
}

/// The size in bytes of a regular file or block device.
pub(super) fn size(file: &mut File) -> Result<u64, BlockError> {
    let metadata = file.metadata().map_err(BlockError::Host)?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else if metadata.file_type().is_block_device() {
        file.seek(SeekFrom::End(0)).map_err(BlockError::Host)
    } else {
        Err(BlockError::NotADisk)
    }
}
