//! What the containers of a pod share besides namespaces: `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf` and
//! `/dev/shm`. containerd makes them for the sandboxes that it keeps itself; for one that it leaves to the shim, this does.
//!
//! Invariant: what a container's own specification mounts at one of the places stays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cofferdam_agent_protocol::{Mount as PlannedMount, MountKind};
use oci_spec::runtime::{Mount, MountBuilder, Spec};

use super::pod_config::PodSandboxConfig;

/// Where they are, in the bundle of the sandbox.
const DIRECTORY: &str = "pod";

const HOSTNAME: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";
const RESOLVER: &str = "/etc/resolv.conf";

const MEMORY: &str = "/dev/shm";

/// containerd's size of `/dev/shm` (64 MiB), and its mode.
const MEMORY_DATA: &str = "mode=1777,size=67108864";

/// The files of a pod.
#[derive(Debug)]
pub(super) struct PodFiles {
    directory: PathBuf,
}

impl PodFiles {
    /// Makes them, in the bundle of the sandbox: they go with it.
    ///
    /// # Errors
    /// A file of the host that cannot be read, or one that cannot be written.
    pub(super) fn make(bundle: &Path, pod: &PodSandboxConfig) -> Result<Self> {
        let files = Self { directory: bundle.join(DIRECTORY) };
        let made = fs::create_dir_all(&files.directory);
        made.with_context(|| format!("making {}", files.directory.display()))?;
        let hostname = if pod.hostname.is_empty() {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            pod.hostname.clone()
        };
        files.write(HOSTNAME, format!("{hostname}\n").as_bytes())?;
        files.write(HOSTS, &of_host(HOSTS)?)?;
        let resolver = pod.resolver();
        if resolver.is_empty() {
            files.write(RESOLVER, &of_host(RESOLVER)?)?;
        } else {
            files.write(RESOLVER, resolver.as_bytes())?;
        }
        Ok(files)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name.rsplit('/').next().unwrap_or_default())
    }

    /// Adds to the specification of a container of the pod what it does not mount itself.
    ///
    /// # Errors
    /// The mounts cannot be described.
    pub(super) fn add_to(&self, spec: &mut Spec) -> Result<()> {
        let readonly = spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly);
        let access = if readonly.unwrap_or(false) { "ro" } else { "rw" };
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        let is_there = |mounts: &[Mount], place: &str| {
            mounts.iter().any(|m| m.destination() == Path::new(place))
        };
        for place in [HOSTNAME, HOSTS, RESOLVER] {
            if !is_there(&mounts, place) {
                mounts.push(mount(
                    place,
                    "bind",
                    self.path(place),
                    &["rbind", "rprivate", access],
                )?);
            }
        }
        if !is_there(&mounts, MEMORY) {
            let options = ["nosuid", "noexec", "nodev"];
            mounts.push(mount(MEMORY, "tmpfs", "shm".into(), &options)?);
        }
        spec.set_mounts(Some(mounts));
        Ok(())
    }

    /// Has a container's own memory at `/dev/shm` be the pod's.
    pub(super) fn share(&self, mounts: &mut [PlannedMount]) {
        let memory = mounts.iter_mut().find(|mount| {
            mount.destination == MEMORY.as_bytes()
                && mount.kind() == MountKind::Filesystem
                && mount.fstype == "tmpfs"
        });
        if let Some(mount) = memory {
            mount.set_kind(MountKind::Shared);
            mount.source = self.directory.join("shm").into_os_string().into_encoded_bytes();
            mount.data = MEMORY_DATA.into();
            mount.fstype.clear();
        }
    }
}

fn mount(place: &str, kind: &str, source: PathBuf, options: &[&str]) -> Result<Mount> {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    let mount = MountBuilder::default().destination(place).typ(kind).source(source);
    mount.options(options).build().context("the mounts of a pod")
}

/// A file of the host; empty if it has none.
fn of_host(path: &str) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("reading {path}")),
    }
}

#[cfg(test)]
#[path = "pod_files_test.rs"]
mod pod_files_test;
