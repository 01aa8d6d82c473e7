//! Settings of the runtime: `/etc/cofferdam/config.toml`, annotations `io.cofferdam.*`, flags.
//!
//! Invariant: a later source wins over an earlier one; an unknown key or annotation is an error that
//! names it; every setting has a default.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::uids::UidRange;
use crate::units::Bytes;

/// Where the configuration is, unless `--config` says otherwise or the program was installed elsewhere.
pub const CONFIG: &str = "/etc/cofferdam/config.toml";

/// Where the guest kernel and image are, unless the program was installed elsewhere.
const LIB: &str = "/usr/lib/cofferdam";

/// The names of the guest kernel and image there.
pub(crate) const KERNEL: &str = "vmlinux";
pub(crate) const IMAGE: &str = "initramfs";

/// The environment variable that overrides [`LIB`].
const LIB_VARIABLE: &str = "COFFERDAM_LIB";

/// Where layers are cached and scratch disks are made.
const DATA: &str = "/var/lib/cofferdam";

/// Prefix of our annotations.
const PREFIX: &str = "io.cofferdam.";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Reading.
    #[error("reading the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// Its content.
    #[error("reading the configuration {path}, line {line}: {problem}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong; names an unknown key.
        problem: String,
    },
    /// An annotation.
    #[error("annotation {name}={value:?}: {problem}")]
    Annotation {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong.
        problem: String,
    },
}

/// What takes the writes of the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// A tmpfs: writes count as memory.
    Tmpfs,
    /// A disk of this many bytes, sparse, gone with the pod.
    Disk(Bytes),
}

impl std::str::FromStr for Scratch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "tmpfs" {
            return Ok(Self::Tmpfs);
        }
        let bytes: Bytes = text.parse().map_err(|_| {
            format!("{text:?} is neither \"tmpfs\" nor the size of a disk, for example \"8G\"")
        })?;
        if bytes < MIN_SCRATCH {
            Err("a scratch disk has at least 16M".into())
        } else {
            Ok(Self::Disk(bytes))
        }
    }
}

/// Least size of a scratch disk: an ext4 with its journal.
const MIN_SCRATCH: Bytes = Bytes(16 << 20);

impl<'de> Deserialize<'de> for Scratch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One source of settings: each may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Virtual CPUs.
    pub vcpus: Option<u8>,
    /// Memory of the machine.
    pub memory: Option<Bytes>,
    /// Most virtual CPUs of a sandbox's machine, which grows.
    pub max_vcpus: Option<u8>,
    /// Most memory of a sandbox's machine.
    pub max_memory: Option<Bytes>,
    /// Whether all memory is in pages of 2 MiB, where the host has them.
    pub huge_pages: Option<bool>,
    /// What takes the writes.
    pub scratch: Option<Scratch>,
    /// Whether the machine has a console (bounded, shown when something fails).
    pub console: Option<bool>,
    /// The guest kernel.
    pub kernel: Option<PathBuf>,
    /// The guest image.
    pub image: Option<PathBuf>,
    /// The monitor program.
    pub monitor: Option<PathBuf>,
    /// Where layers are cached and scratch disks are made.
    pub data: Option<PathBuf>,
    /// The confinement of monitors.
    #[serde(default)]
    pub jail: JailOverrides,
}

/// The table `[jail]` of the configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailOverrides {
    /// The users that monitors run as.
    pub uids: Option<UidRange>,
}

impl Overrides {
    /// Reads `path`. The usual one need not exist; one that somebody named has to.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Parse`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                let before = error.span().and_then(|span| text.get(..span.start));
                let line = before.unwrap_or_default().matches('\n').count() + 1;
                let problem = error.message().lines().collect::<Vec<_>>().join(", ");
                ConfigError::Parse { path: path.to_owned(), line, problem }
            }),
            Err(source) if source.kind() == io::ErrorKind::NotFound && path == usual() => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// The settings in `annotations`. Paths are not among them: who writes a container's annotations
    /// does not choose the files of the host.
    ///
    /// # Errors
    /// [`ConfigError::Annotation`].
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut all = Self::default();
        for (name, value) in annotations {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            all.set(key, value).map_err(|problem| ConfigError::Annotation {
                name: name.clone(),
                value: value.clone(),
                problem,
            })?;
        }
        Ok(all)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let cpus = || value.parse().map_err(|_| "not a number of CPUs");
        let bytes = || value.parse().map_err(|error| format!("{error}"));
        match key {
            "vcpus" => self.vcpus = Some(cpus()?),
            "memory" => self.memory = Some(bytes()?),
            "max_vcpus" => self.max_vcpus = Some(cpus()?),
            "max_memory" => self.max_memory = Some(bytes()?),
            "huge_pages" => {
                self.huge_pages = Some(value.parse().map_err(|_| "not true or false")?);
            }
            "scratch" => self.scratch = Some(value.parse()?),
            "console" => self.console = Some(value.parse().map_err(|_| "not true or false")?),
            _ => {
                return Err(
                    "unknown; there are vcpus, memory, max_vcpus, max_memory, huge_pages, \
                            scratch and console"
                        .into(),
                );
            }
        }
        Ok(())
    }

    /// `self` where `later` says nothing.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        Self {
            vcpus: later.vcpus.or(self.vcpus),
            memory: later.memory.or(self.memory),
            max_vcpus: later.max_vcpus.or(self.max_vcpus),
            max_memory: later.max_memory.or(self.max_memory),
            huge_pages: later.huge_pages.or(self.huge_pages),
            scratch: later.scratch.or(self.scratch),
            console: later.console.or(self.console),
            kernel: later.kernel.or(self.kernel),
            image: later.image.or(self.image),
            monitor: later.monitor.or(self.monitor),
            data: later.data.or(self.data),
            jail: JailOverrides { uids: later.jail.uids.or(self.jail.uids) },
        }
    }
}

/// Settings with their defaults in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Virtual CPUs, if not left to the limits.
    pub vcpus: Option<u8>,
    /// Memory of the machine, if not left to the limits.
    pub memory: Option<Bytes>,
    /// Most virtual CPUs of a sandbox's machine, if not left to the host.
    pub max_vcpus: Option<u8>,
    /// Most memory of a sandbox's machine, if not left to the host.
    pub max_memory: Option<Bytes>,
    /// Whether all memory is in pages of 2 MiB, where the host has them.
    pub huge_pages: bool,
    /// What takes the writes.
    pub scratch: Scratch,
    /// Whether the machine has a console.
    pub console: bool,
    /// The guest kernel.
    pub kernel: PathBuf,
    /// The guest image.
    pub image: PathBuf,
    /// The monitor program, if not the one beside ours.
    pub monitor: Option<PathBuf>,
    /// Where layers are cached and scratch disks are made.
    pub data: PathBuf,
    /// The users that monitors run as.
    pub uids: UidRange,
}

impl Settings {
    /// `overrides` with the defaults of a host whose environment has `lib` for `COFFERDAM_LIB`.
    #[must_use]
    pub fn new(overrides: Overrides, lib: Option<PathBuf>) -> Self {
        let lib = lib.unwrap_or_else(|| PathBuf::from(LIB));
        Self {
            vcpus: overrides.vcpus,
            memory: overrides.memory,
            max_vcpus: overrides.max_vcpus,
            max_memory: overrides.max_memory,
            huge_pages: overrides.huge_pages.unwrap_or(false),
            scratch: overrides.scratch.unwrap_or(Scratch::Disk(Bytes(8 << 30))),
            console: overrides.console.unwrap_or(true),
            kernel: overrides.kernel.unwrap_or_else(|| lib.join(KERNEL)),
            image: overrides.image.unwrap_or_else(|| lib.join(IMAGE)),
            monitor: overrides.monitor,
            data: overrides.data.unwrap_or_else(|| PathBuf::from(DATA)),
            uids: overrides.jail.uids.unwrap_or_default(),
        }
    }

    /// As [`Settings::new`], from this process's environment, and from where its program is.
    #[must_use]
    pub fn from_environment(overrides: Overrides) -> Self {
        Self::new(overrides, std::env::var_os(LIB_VARIABLE).map(PathBuf::from).or_else(own_lib))
    }
}

/// Where the configuration is, if nobody says: `etc/cofferdam` of the prefix that this program was installed with, if it
/// is there, or [`CONFIG`].
#[must_use]
pub fn usual() -> PathBuf {
    let own = own_prefix().map(|prefix| prefix.join("etc/cofferdam/config.toml"));
    own.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(CONFIG))
}

/// The guest kernel's directory of the prefix that this program was installed with, if it is there.
fn own_lib() -> Option<PathBuf> {
    let own = own_prefix().map(|prefix| prefix.join("lib/cofferdam"));
    own.filter(|path| path.join(KERNEL).is_file())
}

/// The directory above that of this program, if that is called `bin`.
pub(crate) fn own_prefix() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let directory = program.parent().filter(|directory| directory.ends_with("bin"))?;
    directory.parent().map(Path::to_owned)
}

#[cfg(test)]
#[path = "config_test.rs"]
mod config_test;
