//! Debian root file systems for containers, as ext4 images in the cache.
//!
//! Invariant: an image is only ever mounted read-only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tools::{cache, debian};

/// The packages that the end-to-end cases use.
const TEST_PACKAGES: &str = include_str!("../../image/rootfs-packages");

/// Packs a tree.
const CUSTOMIZE: &str = include_str!("../../image/rootfs-customize");

/// The image for the end-to-end cases.
///
/// # Errors
/// As [`get`].
pub fn for_tests() -> Result<PathBuf> {
    get("building the root file system of the tests", &debian::packages(TEST_PACKAGES), &[])
}

/// An ext4 image of Debian 13 with `packages` and with `files` (name and text) in its root directory, built as the
/// step `title` if the cache lacks it.
///
/// # Errors
/// If it cannot be built.
pub fn get(title: &str, packages: &[&str], files: &[(&str, &str)]) -> Result<PathBuf> {
    let mut parts = vec![debian::SUITE, CUSTOMIZE];
    parts.extend(packages);
    parts.extend(files.iter().flat_map(|(name, text)| [*name, *text]));
    let entry = cache::entry("rootfs", &cache::key(&parts), |out| {
        let source = tempfile::tempdir().context("creating a directory for the customize step")?;
        let hook = source.path().join("rootfs-customize");
        write(&hook, CUSTOMIZE, 0o755)?;
        let extra = source.path().join("files");
        fs::create_dir(&extra).with_context(|| format!("creating {}", extra.display()))?;
        for (name, text) in files {
            write(&extra.join(name), text, 0o644)?;
        }
        let log = cache::root().join("logs/rootfs.log");
        debian::build(title, packages, &[&hook, &extra, out], &log)
    })?;
    Ok(entry.join("rootfs.ext4"))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}
