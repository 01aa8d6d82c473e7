//! Directories as read-only EROFS images, made once and kept.
//!
//! An image is found by the [fingerprint](crate::fingerprint) of the directory it was made from, so a
//! directory that changed gets a new one, and asking again for one that did not costs a walk over its names.
//!
//! Invariant: an image in the cache is the state that its name says: the directory had the same fingerprint
//! before it was read and after.

use std::fs::File;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::erofs;
use crate::fingerprint::{Fingerprint, FingerprintError, Tree};
use crate::publish::{self, Partial, PublishError};
use crate::tool::ToolError;

/// Where images are kept if nobody says otherwise.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/cofferdam/layers";

/// How often a directory that changes while it is read is tried.
const ATTEMPTS: u32 = 2;

/// Why there is no image of a directory.
#[derive(Debug, Error)]
pub enum LayerError {
    /// The directory cannot be read.
    #[error(transparent)]
    Tree(#[from] FingerprintError),
    /// The image could not be made.
    #[error("making an EROFS image of {root}")]
    Build {
        /// The directory.
        root: PathBuf,
        /// The cause.
        source: ToolError,
    },
    /// The directory is in use by somebody who writes to it.
    #[error("{root} keeps changing while it is read: an image of it would be a mixture")]
    Changing {
        /// The directory.
        root: PathBuf,
    },
    /// The cache is not usable.
    #[error("the layer cache")]
    Cache(#[from] PublishError),
}

/// How far the making of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the image written so far.
    pub written: u64,
    /// Bytes that the image will have, about.
    pub total: u64,
}

/// An image of a directory.
#[derive(Debug)]
pub struct Layer {
    /// Opened for reading; stays valid even if the cache is emptied.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// The state of the directory that it holds.
    pub fingerprint: Fingerprint,
}

/// A directory of images.
#[derive(Clone, Debug)]
pub struct LayerCache {
    directory: PathBuf,
}

impl LayerCache {
    /// The cache in `directory`, which is created when the first image is made.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// An image of the directory `root`, made now if there is none.
    ///
    /// Blocks while it is made, by this process or another one; `progress` is called now and then, and not at
    /// all if the image exists.
    ///
    /// # Errors
    /// If `root` is not a readable directory or changes all the time, if `mkfs.erofs` is missing or fails, or
    /// if the cache cannot be written.
    pub fn layer(
        &self,
        root: &Path,
        mut progress: impl FnMut(Progress),
    ) -> Result<Layer, LayerError> {
        for _ in 0..ATTEMPTS {
            let tree = Tree::walk(root)?;
            let name = format!("{}.erofs", tree.fingerprint);
            let build = |partial: &Partial| make(root, &tree, partial, &mut progress);
            match publish::file(&self.directory, &name, build) {
                Ok(file) => {
                    let path = self.directory.join(name);
                    return Ok(Layer { file, path, fingerprint: tree.fingerprint });
                }
                Err(LayerError::Changing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(LayerError::Changing { root: root.to_owned() })
    }
}

/// Makes an image of `root`, which was found as `tree`.
fn make(
    root: &Path,
    tree: &Tree,
    partial: &Partial,
    progress: &mut impl FnMut(Progress),
) -> Result<(), LayerError> {
    let arguments = erofs::arguments(tree, root, partial.path());
    let total = tree.bytes.saturating_sub(tree.holes);
    let report = || {
        let written = partial.lock().metadata().map_or(0, |metadata| metadata.len());
        progress(Progress { written: written.min(total), total });
    };
    let made = erofs::MKFS.run(arguments.iter().map(|a| a.as_os_str()), partial.lock(), report);
    // A file that vanishes makes mkfs.erofs fail; that the directory changed is then the better explanation.
    if Tree::walk(root)?.fingerprint != tree.fingerprint {
        return Err(LayerError::Changing { root: root.to_owned() });
    }
    made.map_err(|source| LayerError::Build { root: root.to_owned(), source })
}

#[cfg(test)]
#[path = "layers_test.rs"]
mod layers_test;
