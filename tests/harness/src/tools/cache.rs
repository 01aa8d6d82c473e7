//! The cache of everything that is slow to build: the guest kernel, the test host, root file systems.
//!
//! It lives outside the checkout, in `$COFFERDAM_CACHE` or `~/.cache/cofferdam`. An entry is a
//! directory named after the hash of all that went into it, so it is never stale and never changed.
//!
//! Invariant: an entry that exists is complete. It is built beside its place and renamed into it, by one
//! process at a time; what an interrupted build left behind goes with the next one.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

/// The root directory of the cache.
#[must_use]
pub fn root() -> PathBuf {
    if let Some(dir) = env::var_os("COFFERDAM_CACHE") {
        return dir.into();
    }
    let home = env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/cofferdam")
}

/// A name for what `parts` describe: the first 16 hexadecimal digits of a SHA-256 over all of them,
/// each preceded by its length.
#[must_use]
pub fn key<P: AsRef<[u8]>>(parts: &[P]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The entry `kind/key`, made by `build` if it does not exist.
///
/// `build` gets an empty directory, which becomes the entry when it returns without error.
///
/// # Errors
/// If `build` fails or the directories cannot be made; the half-made entry is removed.
pub fn entry(kind: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    entry_in(&root().join(kind), key, build)
}

/// As [`entry`], in the directory `parent`.
fn entry_in(parent: &Path, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let place = parent.join(key);
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    let _lock = lock(parent, key)?;
    if place.is_dir() {
        return Ok(place);
    }
    remove_interrupted(parent, key)?;
    let making = tempfile::Builder::new()
        .prefix(&format!("{key}."))
        .tempdir_in(parent)
        .with_context(|| format!("creating a directory in {}", parent.display()))?;
    build(making.path())?;
    fs::rename(making.path(), &place)
        .with_context(|| format!("putting {} in place", place.display()))?;
    drop(making.keep());
    Ok(place)
}

/// Waits until no other process builds the entry `key` in `parent`.
fn lock(parent: &Path, key: &str) -> Result<Flock<File>> {
    let path = lock_file(parent, key);
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => return Ok(lock),
        Err((file, Errno::EWOULDBLOCK)) => file,
        Err((_, error)) => {
            return Err(error).with_context(|| format!("locking {}", path.display()));
        }
    };
    eprintln!("==> waiting for another build of {}", parent.join(key).display());
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("locking {}", path.display()))
}

/// Removes half-made entries that nobody makes any more: those of `key`, whose lock is held, and those of other
/// keys whose lock is free.
fn remove_interrupted(parent: &Path, key: &str) -> Result<()> {
    for entry in fs::read_dir(parent).with_context(|| format!("reading {}", parent.display()))? {
        let path = entry?.path();
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
        let Some((of, _)) = name.split_once('.').filter(|(of, _)| !of.is_empty()) else { continue };
        let _free = if of == key {
            None
        } else {
            let Ok(file) = File::open(lock_file(parent, of)) else { continue };
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            Some(lock)
        };
        fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// The lock of whoever makes the entry `key`.
fn lock_file(parent: &Path, key: &str) -> PathBuf {
    parent.join(format!(".{key}.lock"))
}

#[cfg(test)]
#[path = "cache_test.rs"]
mod cache_test;
