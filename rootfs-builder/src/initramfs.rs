//! The guest's initramfs: a cpio archive in the `newc` format with the agent as `/init` and the directories
//! it mounts on. Pure: bytes in, bytes out.
//!
//! The format (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`): per entry a header of
//! 110 ASCII characters, the name with its NUL, padding to 4 bytes, the data, padding to 4 bytes; at the end
//! an entry named `TRAILER!!!`. Uncompressed, because copying 2 MB is cheaper than unpacking it.
//!
//! Invariant: equal input gives equal bytes: no times, no owners but root, inodes numbered in order.

use thiserror::Error;

/// Type bits of a mode (`inode(7)`).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Length that the whole archive is padded to: the block of tape that readers expect.
const BLOCK: usize = 512;

/// Name of the last entry.
const TRAILER: &str = "TRAILER!!!";

/// Why an initramfs cannot be made.
#[derive(Debug, Error)]
pub enum InitramfsError {
    /// The header has 8 hexadecimal digits for a length.
    #[error("initramfs: {name} has {length} bytes, more than a cpio archive can say")]
    TooLarge {
        /// The entry.
        name: String,
        /// Its length in bytes.
        length: usize,
    },
}

/// The initramfs whose `/init` is `agent`, the bytes of a static executable.
///
/// # Errors
/// If `agent` has 4 GiB or more.
pub fn build(agent: &[u8]) -> Result<Vec<u8>, InitramfsError> {
    let mut archive = Archive::with_capacity(agent.len());
    for name in ["dev", "proc", "sys", "run"] {
        archive.entry(name, DIRECTORY | 0o755, (0, 0), &[])?;
    }
    archive.entry("tmp", DIRECTORY | 0o1777, (0, 0), &[])?;
    // The kernel opens it as the standard streams of /init, before anything is mounted.
    archive.entry("dev/console", CHARACTER_DEVICE | 0o600, (5, 1), &[])?;
    archive.entry("init", REGULAR | 0o755, (0, 0), agent)?;
    archive.finish()
}

/// An archive being written.
struct Archive {
    bytes: Vec<u8>,
    /// Inode of the next entry.
    inode: u32,
}

impl Archive {
    /// An empty archive with room for `data` bytes of files.
    fn with_capacity(data: usize) -> Self {
        Self { bytes: Vec::with_capacity(data.saturating_add(4096)), inode: 1 }
    }

    /// Adds one entry; `device` is the major and minor number of a device node.
    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
        data: &[u8],
    ) -> Result<(), InitramfsError> {
        let length = |bytes: usize| {
            u32::try_from(bytes)
                .map_err(|_| InitramfsError::TooLarge { name: name.to_owned(), length: bytes })
        };
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        // inode, mode, uid, gid, links, mtime, size, device major and minor, rdev major and minor, length of
        // the name with its NUL, checksum (only in the `070702` variant).
        let fields = [
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            length(data.len())?,
            0,
            0,
            device.0,
            device.1,
            length(name.len() + 1)?,
            0,
        ];
        self.inode += 1;
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(data);
        self.pad(4);
        Ok(())
    }

    /// Fills with zeros up to a multiple of `alignment`.
    fn pad(&mut self, alignment: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
    }

    /// The archive with its last entry.
    fn finish(mut self) -> Result<Vec<u8>, InitramfsError> {
        self.inode = 0;
        self.entry(TRAILER, 0, (0, 0), &[])?;
        self.pad(BLOCK);
        Ok(self.bytes)
    }
}

#[cfg(test)]
#[path = "initramfs_test.rs"]
mod initramfs_test;
