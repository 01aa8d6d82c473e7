//! Reading an OCI bundle: a directory with `config.json` (OCI runtime-spec, bundle).
//!
//! Invariant: every error names the path it is about.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::json::{self, JsonError};

/// Largest `config.json`. Engines write some tens of KiB.
const MAX_CONFIG: u64 = 16 << 20;

/// A bundle that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The directory.
    #[error("bundle {path}")]
    Directory {
        /// The bundle.
        path: PathBuf,
        /// Why it cannot be entered.
        source: io::Error,
    },
    /// Reading.
    #[error("reading the container's configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// Its size.
    #[error("the container's configuration {0} is larger than {MAX_CONFIG} bytes")]
    TooLarge(PathBuf),
    /// Its syntax.
    #[error("parsing the container's configuration {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: JsonError,
    },
    /// Its version.
    #[error("{path}: ociVersion {version:?} is not supported; this runtime knows 1.x.y")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: String,
    },
    /// No root file system.
    #[error("{0}: root.path is missing; a container needs a root file system")]
    NoRoot(PathBuf),
    /// A root file system that is not there.
    #[error("root file system {path}")]
    Rootfs {
        /// What `root.path` stands for.
        path: PathBuf,
        /// Why it cannot be used.
        source: io::Error,
    },
    /// Nothing to run.
    #[error("{0}: process is missing; there is nothing to run")]
    NoProcess(PathBuf),
}

/// A bundle that was read and is complete.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its directory, absolute.
    pub directory: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// The content of `config.json`.
    pub spec: Spec,
    /// What was ignored in it, and why.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Reads the bundle in `directory`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(directory: &Path) -> Result<Self, BundleError> {
        let at = |source| BundleError::Directory { path: directory.to_owned(), source };
        let directory = directory.canonicalize().map_err(at)?;
        let path = directory.join("config.json");
        let read = |source| BundleError::Read { path: path.clone(), source };
        let size = std::fs::metadata(&path).map_err(read)?.len();
        if size > MAX_CONFIG {
            return Err(BundleError::TooLarge(path));
        }
        let bytes = std::fs::read(&path).map_err(read)?;
        let (spec, warnings) = parse(&bytes, &path)?;
        Ok(Self { warnings, ..Self::from_spec(directory, spec)? })
    }

    /// A bundle whose `config.json` is `spec`.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn from_spec(directory: PathBuf, spec: Spec) -> Result<Self, BundleError> {
        let config = directory.join("config.json");
        let Some(root) = spec.root().as_ref().filter(|root| !root.path().as_os_str().is_empty())
        else {
            return Err(BundleError::NoRoot(config));
        };
        let path = directory.join(root.path());
        if spec.process().is_none() {
            return Err(BundleError::NoProcess(config));
        }
        let rootfs = directory_at(&path).map_err(|source| BundleError::Rootfs { path, source })?;
        Ok(Self { directory, rootfs, spec, warnings: Vec::new() })
    }
}

fn directory_at(path: &Path) -> io::Result<PathBuf> {
    let real = path.canonicalize()?;
    if std::fs::metadata(&real)?.is_dir() {
        Ok(real)
    } else {
        Err(io::Error::from(io::ErrorKind::NotADirectory))
    }
}

/// Parses the text of a `config.json` and checks the version; also gives what was ignored. `path` is for the errors
/// only.
///
/// # Errors
/// [`BundleError::Parse`], [`BundleError::Version`].
pub fn parse(bytes: &[u8], path: &Path) -> Result<(Spec, Vec<String>), BundleError> {
    let fail = |source| BundleError::Parse { path: path.to_owned(), source };
    let (spec, warnings) = json::parse::<Spec>(bytes, "").map_err(fail)?;
    if version_known(spec.version()) {
        Ok((spec, warnings))
    } else {
        Err(BundleError::Version { path: path.to_owned(), version: spec.version().clone() })
    }
}

/// `1.x.y`, with or without a suffix such as `-rc.2` or `+dev`.
fn version_known(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    parts.len() == 3 && parts.iter().all(number) && parts[0] == "1"
}

#[cfg(test)]
#[path = "bundle_test.rs"]
mod bundle_test;
