//! Notice of processes killed for lack of memory.
//!
//! The kernel reports a change of a group's `memory.events` through inotify (cgroup-v2.rst, "Memory
//! Interface Files").
//!
//! Invariant: only tells that something changed; the counters are in the files.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;

use super::cgroup::Cgroup;
use crate::error::{Context, Result};
use crate::sys;

/// Watches the groups of all containers.
pub(crate) struct OomWatch {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl OomWatch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// Those of `inotify_init1(2)`.
    pub(crate) fn new() -> Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let attempted = || "preparing to watch for lack of memory".into();
        let inotify = Inotify::init(flags).context(attempted)?;
        let copy = inotify.as_fd().try_clone_to_owned().context(attempted)?;
        Ok(Self { inotify, ready: sys::watch(copy).context(attempted)? })
    }

    /// Watches `cgroup` too; its watch is to be given to [`Self::remove`]. A kernel without memory control has nothing to
    /// watch.
    pub(crate) fn add(&self, cgroup: &Cgroup) -> Option<WatchDescriptor> {
        let path = cgroup.path().join("memory.events");
        if !path.exists() {
            return None;
        }
        let watch = self.inotify.add_watch(&path, AddWatchFlags::IN_MODIFY);
        watch.map_err(|errno| crate::log!("cannot watch {}: {errno}", path.display())).ok()
    }

    /// Ends a watch. It does not end with its group: most kernels tell nobody of a file of theirs that goes.
    pub(crate) fn remove(&self, watch: WatchDescriptor) {
        // Where a kernel does, it is gone already.
        let _ = self.inotify.rm_watch(watch);
    }

    /// Waits until a file changed.
    pub(crate) async fn changed(&self) {
        let Ok(mut ready) = self.ready.readable().await else {
            return std::future::pending().await;
        };
        // The events only say that something changed.
        let mut events = [0; 4096];
        while nix::unistd::read(self.inotify.as_fd(), &mut events).is_ok_and(|length| length > 0) {}
        ready.clear_ready();
    }
}
