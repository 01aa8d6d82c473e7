//! Files that were brought into a pod and have changed on the host before their container started: podman writes
//! `/etc/hosts` between the two.
//!
//! Invariant: only files that the specification binds are read, up to what a pod takes.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use cofferdam_agent_protocol::request;
use oci_spec::runtime::{Mount, Spec};

use crate::container::Saved;
use crate::control;
use crate::oci::{HostFile, MAX_FILES, is_brought_along};
use crate::volumes::server_program;

/// How long a creation may take: what was written in this time before its end may have been read before that.
const CREATION: Duration = Duration::from_secs(120);

/// What the supervisor needs for `start`, if something has changed; `made` is a file that was written when the container
/// was created.
///
/// # Errors
/// They are too large together, or cannot be passed on.
pub(crate) fn parcel(spec: &Spec, saved: &Saved, made: &Path) -> Result<Option<OwnedFd>> {
    let made = made.metadata().and_then(|file| file.modified());
    let since = made.context("looking at the container's configuration")?.checked_sub(CREATION);
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let changed = changed(mounts, &saved.bundle, since.unwrap_or(SystemTime::UNIX_EPOCH));
    if changed.is_empty() {
        return Ok(None);
    }
    let total: usize = changed.iter().map(|file| file.content.len()).sum();
    if total > MAX_FILES {
        bail!("mounts: the bound files have grown to over {} KiB together", MAX_FILES >> 10);
    }
    let start = request::Start { container: saved.id.clone(), files: changed };
    control::parcel(&start).context("passing on files").map(Some)
}

/// The bound files among `mounts` that were written after `since`.
fn changed(mounts: &[Mount], bundle: &Path, since: SystemTime) -> Vec<request::FileContent> {
    let is_bound = |mount: &Mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        mount.typ().as_deref() == Some("bind")
            || options.iter().any(|o| o == "bind" || o == "rbind")
    };
    let volumes = server_program().is_ok();
    let brought = |mount: &Mount| is_bound(mount) && (!volumes || is_brought_along(mount));
    let bound = (0u32..).zip(mounts).filter(|(_, mount)| brought(mount));
    let content = |(mount, bound): (u32, &Mount)| {
        let path = bundle.join(bound.source().as_ref()?);
        let found = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let written = found.modified().ok().filter(|written| *written >= since);
        // What cannot be brought along was not.
        let no_volume = Err("it is no volume".to_owned());
        let file = written.and_then(|_| HostFile::read(&path, &no_volume).ok())?;
        Some(request::FileContent { mount, content: file.content })
    };
    bound.filter_map(content).collect()
}

#[cfg(test)]
#[path = "changed_test.rs"]
mod changed_test;
