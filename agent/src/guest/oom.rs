//! Notice of processes killed for lack of memory.
//!
//! The kernel reports a change of a group's `memory.events` through inotify (cgroup-v2.rst, "Memory
//! Interface Files").
//!
//! Invariant: only tells that something changed; the counters are in the files.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
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

    /// Watches `cgroup` too. The watch ends with the group. A kernel without memory control has nothing
    /// to watch.
    pub(crate) fn add(&self, cgroup: &Cgroup) {
        let path = cgroup.path().join("memory.events");
        if path.exists() && self.inotify.add_watch(&path, AddWatchFlags::IN_MODIFY).is_err() {
            crate::log!("cannot watch {}", path.display());
        }
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
