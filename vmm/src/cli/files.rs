//! Opening what the command line names.
//!
//! Invariant: an error names the path and what it was for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;
use cofferdam_vmm_api::FdSlot;
use nix::fcntl::OFlag;

/// Descriptors to be sent, and the slots that name them.
#[derive(Default)]
pub(super) struct Outbox {
    fds: Vec<OwnedFd>,
}

impl Outbox {
    /// Adds a descriptor.
    pub(super) fn add(&mut self, fd: impl Into<OwnedFd>) -> anyhow::Result<FdSlot> {
        let slot = u16::try_from(self.fds.len()).context("too many files")?;
        self.fds.push(fd.into());
        Ok(FdSlot(slot))
    }

    /// All of them, in order.
    pub(super) fn borrowed(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd).collect()
    }
}

/// Opens a file for reading.
pub(super) fn open(path: &Path, what: &str) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot open the {what} {}", path.display()))
}

/// Opens a disk.
pub(super) fn open_disk(path: &Path, readonly: bool) -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(!readonly)
        .open(path)
        .with_context(|| format!("cannot open the disk {}", path.display()))
}

/// Creates a file that this program writes itself.
pub(super) fn create(path: &Path, what: &str) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot create the {what} file {}", path.display()))
}

/// Opens where the console goes; `-` is standard output. A pipe or a terminal is opened anew, so that it can be made
/// non-blocking without its other users noticing: a guest must not wait for who reads it.
pub(super) fn open_console(name: &str) -> anyhow::Result<OwnedFd> {
    if name == "-" {
        let own =
            io::stdout().as_fd().try_clone_to_owned().context("cannot use standard output")?;
        return Ok(opened_anew(&own).unwrap_or(own));
    }
    let file =
        File::create(name).with_context(|| format!("cannot create the console log {name}"))?;
    Ok(file.into())
}

fn opened_anew(stream: &OwnedFd) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
    let kind = std::fs::metadata(&path).ok()?.file_type();
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let blocks = kind.is_fifo() || kind.is_char_device();
    let file = OpenOptions::new().write(true).custom_flags(flags.bits()).open(path);
    blocks.then_some(file)?.ok().map(OwnedFd::from)
}

/// A disk's path and whether it is read-only: `PATH` or `PATH:ro`.
pub(super) fn parse_disk(text: &str) -> (&Path, bool) {
    match text.strip_suffix(":ro") {
        Some(path) => (Path::new(path), true),
        None => (Path::new(text), false),
    }
}
