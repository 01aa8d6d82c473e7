//! The host's side of a disk.
//!
//! Invariant: offsets are checked by the request before they come here; errors are the host's.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;

use super::super::mem::{self, Segment};
use super::{BlockError, BlockOptions, SECTOR, SERIAL_LEN};
use crate::ports::Ram;

/// A file and what the guest may do with it.
pub(super) struct Backend {
    file: File,
    sectors: u64,
    readonly: bool,
    serial: [u8; SERIAL_LEN],
}

impl Backend {
    pub(super) fn new(mut file: File, options: BlockOptions) -> Result<Self, BlockError> {
        let BlockOptions { readonly, serial: text } = options;
        let mut serial = [0; SERIAL_LEN];
        match serial.get_mut(..text.len()) {
            Some(start) => start.copy_from_slice(text.as_bytes()),
            None => return Err(BlockError::Serial(text)),
        }
        let size = size(&mut file)?;
        if size % SECTOR != 0 {
            return Err(BlockError::Size(size));
        }
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

    /// Fills `segments` from `offset` on.
    pub(super) fn read(&self, ram: &Ram, segments: &[Segment], offset: u64) -> io::Result<()> {
        mem::read_file(ram, segments, &self.file, offset)
    }

    /// Writes `segments` from `offset` on.
    pub(super) fn write(&self, ram: &Ram, segments: &[Segment], offset: u64) -> io::Result<()> {
        mem::write_file(ram, segments, &self.file, offset)
    }

    /// Makes all finished writes stable.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The size in bytes of a regular file or block device.
fn size(file: &mut File) -> Result<u64, BlockError> {
    let metadata = file.metadata().map_err(BlockError::Host)?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else if metadata.file_type().is_block_device() {
        file.seek(SeekFrom::End(0)).map_err(BlockError::Host)
    } else {
        Err(BlockError::NotADisk)
    }
}
