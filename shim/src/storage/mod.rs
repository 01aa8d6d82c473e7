//! The disks of a pod: the root file system's layer and the scratch disk.
//!
//! Invariant: the layer is never written; the scratch disk has no name and ends with the pod.

mod given;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cofferdam_rootfs_builder::disk::{DiskError, ScratchDisks};
use cofferdam_rootfs_builder::layers::{LayerCache, LayerError, Progress};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::JoinHandle;

use crate::config::{Scratch, Settings};
pub(crate) use given::{Given, GivenError, given};

/// Time between two tries to stop the thread that makes disks.
const ABORT_PAUSE: Duration = Duration::from_millis(20);

/// Where files are made that stay: layers, and templates of scratch disks.
pub(crate) fn caches(settings: &Settings) -> [PathBuf; 2] {
    [settings.data.join("layers"), settings.data.join("scratch")]
}

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
    /// The root file system, EROFS; absent if nothing runs in it.
    pub(crate) layer: Option<File>,
    /// What takes the writes, ext4; absent with a tmpfs.
    pub(crate) scratch: Option<File>,
}

impl Disks {
    /// Makes them, or finds the layer made already. Blocks.
    ///
    /// # Errors
    /// [`StorageError`].
    pub(crate) fn make(rootfs: Option<&Path>, settings: &Settings) -> Result<Self, StorageError> {
        let [cache, templates] = caches(settings);
        let layer = rootfs.map(|rootfs| layer(rootfs, &cache)).transpose()?;
        let scratch = match settings.scratch {
            Scratch::Tmpfs => None,
            Scratch::Disk(bytes) => Some(scratch(&templates, bytes.0)?),
        };
        Ok(Self { layer, scratch })
    }
}

fn layer(rootfs: &Path, cache: &Path) -> Result<File, StorageError> {
    let mut shown = Shown::default();
    let layer = LayerCache::new(cache).layer(rootfs, |progress| shown.show(rootfs, progress));
    shown.finish();
    let failed = |source| StorageError::Layer {
        rootfs: rootfs.to_owned(),
        cache: cache.to_owned(),
        source: Box::new(source),
    };
    Ok(layer.map_err(failed)?.file)
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

/// Disks in the making, on a thread of their own.
#[derive(Debug)]
pub(crate) struct Making<T = Disks> {
    work: JoinHandle<Result<T, StorageError>>,
    /// Set when the thread begins.
    thread: Arc<OnceLock<Pid>>,
}

impl Making {
    /// Starts to make the disks of [`Disks::make`].
    pub(crate) fn start(rootfs: Option<PathBuf>, settings: Settings) -> Self {
        Self::of(move || Disks::make(rootfs.as_deref(), &settings))
    }
}

impl<T: Send + 'static> Making<T> {
    fn of(work: impl FnOnce() -> Result<T, StorageError> + Send + 'static) -> Self {
        let thread = Arc::new(OnceLock::new());
        let own = thread.clone();
        let work = tokio::task::spawn_blocking(move || {
            let _ = own.set(rustix::thread::gettid());
            work()
        });
        Self { work, thread }
    }

    /// Waits for them. May be cancelled.
    ///
    /// # Errors
    /// [`StorageError`].
    pub(crate) async fn made(&mut self) -> Result<T, StorageError> {
        (&mut self.work).await.map_err(|_| StorageError::Interrupted)?
    }

    /// Kills what the thread runs to make a file system, again and again, so that it comes back with an error and
    /// cleans up, whichever step it is in. Whether it came back within `patience`.
    pub(crate) async fn abort(mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.kill_tools();
            if tokio::time::timeout(ABORT_PAUSE, &mut self.work).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Kills the children of the thread.
    fn kill_tools(&self) {
        if let Some(thread) = self.thread.get() {
            kill_listed(|| children(*thread));
        }
    }
}

/// The children of one of our threads.
fn children(thread: Pid) -> Vec<Pid> {
    let list = format!("/proc/self/task/{thread}/children");
    let children = std::fs::read_to_string(list).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter_map(Pid::from_raw).collect()
}

/// Kills the processes in a list. One that has ended, and whose number another process has by now, is not in the list
/// any more: so who is killed is who still is there once there is a descriptor of it.
fn kill_listed(list: impl Fn() -> Vec<Pid>) {
    for pid in list() {
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if list().contains(&pid) {
            // It may end by itself at any time.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
}

#[cfg(test)]
#[path = "storage_test.rs"]
mod storage_test;
