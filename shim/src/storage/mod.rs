//! The disks of a pod: the root file system's layer and the scratch disk.
//!
//! Invariant: the layer is never written; the scratch disk has no name and ends with the pod.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use cofferdam_rootfs_builder::disk::{DiskError, ScratchDisks};
use cofferdam_rootfs_builder::layers::{LayerCache, LayerError, Progress};

use crate::config::{Scratch, Settings};

/// A disk that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// The root file system's layer.
    #[error("root file system {rootfs}: making its layer in {cache}")]
    Layer {
        /// The directory.
        rootfs: PathBuf,
        /// Where layers are kept.
        cache: PathBuf,
        /// Why there is none.
        source: Box<LayerError>,
    },
    /// The scratch disk.
    #[error("scratch disk in {directory}")]
    Scratch {
        /// Where it was to be.
        directory: PathBuf,
        /// Why it is not.
        source: Box<DiskError>,
    },
    /// The directory of scratch disks.
    #[error("making the directory {directory} for scratch disks")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why it is not there.
        source: io::Error,
    },
    /// The thread that makes them.
    #[error("making the disks was interrupted")]
    Interrupted,
}

/// The disks of a pod, in the order of the machine's.
#[derive(Debug)]
pub(crate) struct Disks {
    /// The root file system, EROFS.
    pub(crate) layer: File,
    /// What takes the writes, ext4; absent with a tmpfs.
    pub(crate) scratch: Option<File>,
}

impl Disks {
    /// Makes them, or finds the layer made already. Blocks.
    ///
    /// # Errors
    /// [`StorageError`].
    pub(crate) fn make(rootfs: &Path, settings: &Settings) -> Result<Self, StorageError> {
        let cache = settings.data.join("layers");
        let mut shown = Shown::default();
        let layer = LayerCache::new(&cache).layer(rootfs, |progress| shown.show(rootfs, progress));
        shown.finish();
        let layer = layer.map_err(|source| StorageError::Layer {
            rootfs: rootfs.to_owned(),
            cache,
            source: Box::new(source),
        })?;
        let scratch = match settings.scratch {
            Scratch::Tmpfs => None,
            Scratch::Disk(bytes) => Some(scratch(&settings.data.join("scratch"), bytes.0)?),
        };
        Ok(Self { layer: layer.file, scratch })
    }
}

fn scratch(directory: &Path, bytes: u64) -> Result<File, StorageError> {
    let at = || directory.to_owned();
    std::fs::create_dir_all(directory)
        .map_err(|source| StorageError::Directory { directory: at(), source })?;
    ScratchDisks::new(directory)
        .create(directory, bytes)
        .map_err(|source| StorageError::Scratch { directory: at(), source: Box::new(source) })
}

/// Progress on a terminal; nothing elsewhere.
#[derive(Default)]
struct Shown {
    percent: Option<u64>,
}

impl Shown {
    fn show(&mut self, rootfs: &Path, progress: Progress) {
        let percent = (progress.written * 100).checked_div(progress.total).unwrap_or(0).min(100);
        if self.percent != Some(percent) && io::stderr().is_terminal() {
            self.percent = Some(percent);
            eprint!("\rpreparing {} {percent:>3} %", rootfs.display());
        }
    }

    fn finish(&self) {
        if self.percent.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// Kills what a thread of ours runs to make a file system, so that the thread comes back with an error and
/// cleans up. `others` are children that stay.
pub(crate) fn abort(others: &[u32]) {
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
        for pid in pids.filter(|pid| !others.contains(pid)) {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    }
}
