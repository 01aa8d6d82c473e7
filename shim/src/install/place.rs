//! Files appear and go as a whole.
//!
//! Invariant: whoever opens a path finds the file that was there or the new one, never a part; a file that is in use stays
//! what it is for who uses it.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layout::{CONFIGURATION, Item, Kind, Prefix};

/// Makes what `item` describes, in the place of what is there.
pub(super) fn place(prefix: &Prefix, item: &Item) -> Result<()> {
    let path = prefix.on_host(&item.path);
    match &item.kind {
        Kind::Configuration => write(&path, &mut CONFIGURATION.as_bytes(), 0o644, None),
        Kind::Copy(source, mode) => {
            let failed = || format!("opening {}", source.display());
            write(&path, &mut File::open(source).with_context(failed)?, *mode, None)
        }
        Kind::Link(target) => {
            let failed = || format!("making the link {}", path.display());
            let beside = beside(&path);
            remove(&beside)?;
            symlink(target, &beside).with_context(failed)?;
            std::fs::rename(&beside, &path).with_context(failed)
        }
    }
}

/// Writes `content` to the file at `path`, which has `mode` then, and `owner` (user and group) instead of us if given.
pub(super) fn write(
    path: &Path,
    content: &mut impl Read,
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<()> {
    let beside = beside(path);
    let made = || -> io::Result<()> {
        // What it is to be may be for few to read.
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
        io::copy(content, &mut file)?;
        if let Some((user, group)) = owner {
            fchown(&file, Some(user), Some(group))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    // One that was interrupted may have left it.
    remove(&beside)?;
    let made = { made }();
    if made.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    made.with_context(|| format!("writing {}", path.display()))
}

/// The name of a file that is to be renamed to `path`.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Makes `directory` of the host and those above it; gives those that were not there, as the host calls them.
pub(super) fn make_directories(prefix: &Prefix, directory: &Path) -> Result<Vec<PathBuf>> {
    let mut missing: Vec<&Path> =
        directory.ancestors().take_while(|path| !prefix.on_host(path).is_dir()).collect();
    missing.reverse();
    for path in &missing {
        let place = prefix.on_host(path);
        let made = std::fs::DirBuilder::new().mode(0o755).create(&place);
        made.with_context(|| format!("making the directory {}", place.display()))?;
    }
    Ok(missing.into_iter().map(Path::to_owned).collect())
}
