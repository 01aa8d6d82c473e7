//! What is known of a container on the host: `ROOT/ID/state.json`, and its status beside it.
//!
//! Its proxy is the truth: a container lives as long as that. The status is written by the supervisor and believed only
//! while the proxy lives; a proxy of before a reboot is none.
//!
//! Invariant: a file that is there is whole.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cofferdam_vmm_api::Bdf;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::pod::check_id;

/// The file of a container.
const STATE: &str = "state.json";

/// Its status.
const STATUS: &str = "status";

/// Its specification, as it was when the container was created.
pub(crate) const CONFIG: &str = "config.json";

/// All files of a container in its state directory.
const FILES: [&str; 3] = [STATE, STATUS, CONFIG];

/// Ends the name of a file that is being written, after the number of the process that writes it.
const NEW: &str = ".new";

/// The version of the specification that states are of.
pub(crate) const OCI_VERSION: &str = "1.2.0";

/// A container that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    /// The id, in the words of runc.
    #[error("container does not exist")]
    Missing,
    /// Its file.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// A file of it.
    #[error("writing {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why it cannot be written.
        source: io::Error,
    },
}

/// Where a container is in its life (OCI runtime-spec, runtime#state; "paused" is runc's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Not all of it exists.
    Creating,
    /// Its program waits to be started.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    /// Its name in the specification.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }

    /// Writes it into the state directory of a container.
    ///
    /// # Errors
    /// [`ContainerError::Write`].
    pub(crate) fn write(self, directory: &Path) -> Result<(), ContainerError> {
        replace(&directory.join(STATUS), self.name().as_bytes())
    }

    fn read(directory: &Path) -> Self {
        match fs::read_to_string(directory.join(STATUS)).as_deref() {
            Ok("created") => Self::Created,
            Ok("running") => Self::Running,
            Ok("paused") => Self::Paused,
            Ok("stopped") => Self::Stopped,
            _ => Self::Creating,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A process, and the proof that its number is not another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Its number.
    pub(crate) pid: u32,
    /// When it began, in clock ticks since the boot (`proc_pid_stat(5)`).
    start: u64,
    /// Of which boot.
    boot: String,
}

impl Mark {
    /// That of the living process `pid`.
    ///
    /// # Errors
    /// It cannot be read in `/proc`.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        Ok(Self { pid, start: beginning(pid).ok_or_else(gone)?, boot: boot_id()? })
    }

    /// Whether the process lives.
    pub(crate) fn is_alive(&self) -> bool {
        beginning(self.pid) == Some(self.start) && self.is_of_this_boot()
    }

    /// Kills the process, if it lives.
    pub(crate) fn kill(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        let opened = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // What was opened is that process, if it is alive now.
        if let Some(process) = opened.filter(|_| self.is_alive()) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }

    fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When a process began; `None` if it has ended, reaped or not.
fn beginning(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // `rest` begins with field 3; this is field 22.
    fields.nth(18)?.parse().ok()
}

/// What is kept of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// Its id.
    pub(crate) id: String,
    /// Its bundle's directory.
    pub(crate) bundle: PathBuf,
    /// Its root file system on the host.
    pub(crate) rootfs: PathBuf,
    /// When it was created (RFC 3339).
    pub(crate) created: String,
    /// Annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// What stands for its first process on the host.
    pub(crate) process: Mark,
    /// The container whose state directory is the pod's; its own id if it came first.
    pub(crate) pod: String,
    /// Whether it stays until somebody deletes it.
    pub(crate) keep: bool,
    /// The address of the pod's scratch disk, for containers that join.
    pub(crate) scratch: Option<Bdf>,
    /// Its control group on the host, if there is one.
    pub(crate) cgroup: Option<PathBuf>,
    /// The user that created it.
    pub(crate) owner: u32,
}

impl Saved {
    /// The container `id` below `root`.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub(crate) fn load(root: &Path, id: &str) -> Result<Self, ContainerError> {
        if check_id(id).is_err() {
            return Err(ContainerError::Missing);
        }
        Self::at(&root.join(id))
    }

    /// The container with this state directory.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub(crate) fn at(directory: &Path) -> Result<Self, ContainerError> {
        let path = directory.join(STATE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ContainerError::Missing);
            }
            Err(source) => return Err(ContainerError::Read { path, source }),
        };
        serde_json::from_slice(&text)
            .map_err(|error| ContainerError::Read { path, source: error.into() })
    }

    /// All containers below `root`, by their ids.
    pub(crate) fn all(root: &Path) -> Vec<Self> {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let mut all: Vec<Self> = entries.filter_map(|entry| Self::at(&entry.path()).ok()).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Writes it, and its specification, into its state directory.
    ///
    /// # Errors
    /// [`ContainerError::Write`].
    pub(crate) fn save(&self, directory: &Path, config: &[u8]) -> Result<(), ContainerError> {
        save_config(directory, config)?;
        self.save_state(directory)
    }

    fn save_state(&self, directory: &Path) -> Result<(), ContainerError> {
        let path = directory.join(STATE);
        let text = serde_json::to_vec(self)
            .map_err(|error| ContainerError::Write { path: path.clone(), source: error.into() })?;
        replace(&path, &text)
    }

    /// Writes down that the state directory of its pod is called `pod` now.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub(crate) fn move_pod(directory: &Path, pod: &str) -> Result<(), ContainerError> {
        Self { pod: pod.to_owned(), ..Self::at(directory)? }.save_state(directory)
    }

    /// Its status.
    pub(crate) fn status(&self, root: &Path) -> Status {
        if self.process.is_alive() { Status::read(&self.directory(root)) } else { Status::Stopped }
    }

    /// Its state directory.
    pub(crate) fn directory(&self, root: &Path) -> PathBuf {
        root.join(&self.id)
    }

    /// Whether it stays although its pod is gone: not over a reboot.
    pub(crate) fn is_kept(&self) -> bool {
        self.keep && self.process.is_of_this_boot()
    }

    /// Its state for engines and hooks (OCI runtime-spec, runtime#state).
    pub(crate) fn state(&self, status: Status) -> State<'_> {
        State {
            oci_version: OCI_VERSION,
            id: &self.id,
            pid: if status == Status::Stopped { 0 } else { self.process.pid },
            status,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner: crate::user::name_of(self.owner),
        }
    }
}

/// The state of a container, with the fields of the specification and those that runc adds, in runc's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State<'a> {
    oci_version: &'static str,
    id: &'a str,
    pub(crate) pid: u32,
    status: Status,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    pub(crate) owner: String,
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// Writes the specification of a container into its state directory.
///
/// # Errors
/// [`ContainerError::Write`].
pub(crate) fn save_config(directory: &Path, config: &[u8]) -> Result<(), ContainerError> {
    replace(&directory.join(CONFIG), config)
}

/// Whether `name` is one of a container's files, or of one that was being written.
pub(crate) fn is_file(name: &str) -> bool {
    let new = |file: &&str| name.strip_prefix(*file).is_some_and(|rest| rest.ends_with(NEW));
    FILES.contains(&name) || FILES.iter().any(new)
}

/// Removes a container's files from its state directory.
pub(crate) fn remove_files(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_file) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Puts `content` at `path` in one step.
fn replace(path: &Path, content: &[u8]) -> Result<(), ContainerError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}{NEW}", std::process::id()));
    let written = fs::write(&name, content).and_then(|()| fs::rename(&name, path));
    written.map_err(|source| ContainerError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
#[path = "container_test.rs"]
mod container_test;
