//! What a test host is given to test: files laid out as they are installed.
//!
//! Invariant: a staged file keeps the time of its source, so that an unchanged one is never copied again.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A tree of files to install, removed with this value.
#[derive(Debug)]
pub struct Stage {
    dir: TempDir,
}

impl Stage {
    /// An empty tree.
    ///
    /// # Errors
    /// If no temporary directory can be made.
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir().context("creating the staging directory")?;
        fs::create_dir(dir.path().join("tree")).context("creating the staging directory")?;
        Ok(Self { dir })
    }

    /// Adds `source` as the file `place` (an absolute path in the host).
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn add(&self, source: &Path, place: &str) -> Result<()> {
        let target = self.tree().join(place.trim_start_matches('/'));
        let what = || format!("staging {} as {place}", source.display());
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(what)?;
        }
        fs::copy(source, &target).with_context(what)?;
        let metadata = fs::metadata(source).with_context(what)?;
        let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).with_context(what)?;
        let file = File::options().append(true).open(&target).with_context(what)?;
        file.set_modified(metadata.modified().with_context(what)?).with_context(what)
    }

    /// Adds the directory `source` as `place` (an absolute path in the host), which must not be there yet.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn add_tree(&self, source: &Path, place: &str) -> Result<()> {
        let target = self.tree().join(place.trim_start_matches('/'));
        let what = || format!("staging {} as {place}", source.display());
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(what)?;
        }
        let copy = Command::new("cp")
            .args(["--archive", "--no-target-directory"])
            .arg(source)
            .arg(&target)
            .output()
            .with_context(what)?;
        if !copy.status.success() {
            bail!("{}: {}", what(), String::from_utf8_lossy(&copy.stderr));
        }
        Ok(())
    }

    /// The root of the tree.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// The tree as a tar file, which lives as long as this value.
    ///
    /// # Errors
    /// If tar fails.
    pub fn tar(&self) -> Result<PathBuf> {
        let file = self.dir.path().join("tree.tar");
        let output = Command::new("tar")
            .args(["--create", "--owner=0", "--group=0", "--file"])
            .arg(&file)
            .arg("--directory")
            .arg(self.tree())
            .arg(".")
            .output()
            .context("starting tar")?;
        if !output.status.success() {
            bail!("tar: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(file)
    }
}

#[cfg(test)]
#[path = "stage_test.rs"]
mod stage_test;
