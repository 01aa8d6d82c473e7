//! What was placed: a JSON file in the prefix.
//!
//! Invariant: it is replaced as a whole.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layout::{CONFIGURATION, Item, Kind, Prefix};
use super::place;

/// A file that was placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// A person may change it.
    #[serde(default)]
    pub(super) configuration: bool,
    #[serde(flatten)]
    pub(super) kind: Content,
}

/// What is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Content {
    /// A file with this digest.
    Sha256(String),
    /// A symbolic link to this.
    Link(PathBuf),
    /// Something else.
    Other,
}

impl Entry {
    /// What `item` will be.
    pub(super) fn of(item: &Item) -> Result<Self> {
        let kind = match &item.kind {
            Kind::Copy(source, _) => {
                let digest = digest_of(source);
                Content::Sha256(digest.with_context(|| format!("reading {}", source.display()))?)
            }
            Kind::Configuration => Content::Sha256(digest(CONFIGURATION.as_bytes())?),
            Kind::Link(target) => Content::Link(target.into()),
        };
        let configuration = item.kind == Kind::Configuration;
        Ok(Self { path: item.path.clone(), configuration, kind })
    }

    /// What is at `path` of the host; nothing, perhaps.
    pub(super) fn there(prefix: &Prefix, path: &Path) -> Result<Option<Self>> {
        let place = prefix.on_host(path);
        let failed = || format!("looking at {}", place.display());
        let metadata = match place.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.with_context(failed)?,
        };
        let kind = if metadata.is_symlink() {
            Content::Link(std::fs::read_link(&place).with_context(failed)?)
        } else if metadata.is_file() {
            Content::Sha256(digest_of(&place).with_context(failed)?)
        } else {
            Content::Other
        };
        Ok(Some(Self { path: path.to_owned(), configuration: false, kind }))
    }
}

fn digest_of(path: &Path) -> io::Result<String> {
    digest(std::fs::File::open(path)?)
}

/// The SHA-256 digest of what comes, in hexadecimal.
fn digest(mut content: impl Read) -> io::Result<String> {
    use std::fmt::Write;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        match content.read(&mut buffer)? {
            0 => break,
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    let mut text = String::new();
    for byte in hasher.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// What was added to containerd's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Added {
    /// The file.
    pub(super) file: PathBuf,
    /// The lines.
    pub(super) block: String,
    /// The file was not there before.
    pub(super) created: bool,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The version that placed it.
    pub(super) version: String,
    /// The files; while an installation is under way, those of the one before, too.
    pub(super) entries: Vec<Entry>,
    /// Directories that were made for them, parents first.
    pub(super) directories: Vec<PathBuf>,
    /// containerd's configuration, if it was changed.
    pub(super) containerd: Option<Added>,
}

impl Manifest {
    /// An empty one of this version.
    pub(super) fn new() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").into(), ..Self::default() }
    }

    /// Whether what is `there` was placed by us.
    pub(super) fn lists(&self, there: &Entry) -> bool {
        self.entries.iter().any(|entry| entry.path == there.path && entry.kind == there.kind)
    }

    /// That of `prefix`, if something is installed.
    pub(super) fn load(prefix: &Prefix) -> Result<Option<Self>> {
        let path = prefix.on_host(&prefix.manifest());
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
        let parsed = serde_json::from_slice(&text);
        parsed.map(Some).with_context(|| format!("the list of installed files {}", path.display()))
    }

    /// Writes it.
    pub(super) fn save(&self, prefix: &Prefix) -> Result<()> {
        let path = prefix.on_host(&prefix.manifest());
        let text = serde_json::to_vec_pretty(self).context("encoding the list of files")?;
        place::write(&path, &mut text.as_slice(), 0o644, None)
    }
}
