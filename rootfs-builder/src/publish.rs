//! Files that are made once and then only read, by any number of processes at a time.
//!
//! A file is built as `.NAME.partial`, locked by `flock(2)`, made durable and renamed to `NAME`. Whoever finds
//! the partial file locked waits and then finds `NAME`; whoever finds it unlocked knows that its maker died,
//! and takes it over.
//!
//! Invariant: `NAME` is complete, durable and never written again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

/// End of the name of a file that is being made.
const PARTIAL: &str = ".partial";

/// Time between two looks at a partial file that is locked.
const PAUSE: Duration = Duration::from_millis(20);

/// What could not be done in a cache directory.
#[derive(Debug, Error)]
#[error("{action} {path}")]
pub struct PublishError {
    /// What was attempted.
    pub action: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

impl PublishError {
    /// A function that gives the error its context.
    fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source: source.into() }
    }
}

/// A file under construction, locked.
pub(crate) struct Partial {
    path: PathBuf,
    file: Flock<File>,
}

impl Partial {
    /// Where it is being built.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its lock, which lasts as long as any copy of this descriptor.
    pub(crate) fn lock(&self) -> &File {
        &self.file
    }
}

/// The file `directory/name`, opened for reading; if it does not exist, it is made by `build`, which writes to
/// the path of the [`Partial`] it gets.
///
/// # Errors
/// The error of `build`, after which nothing is left; or [`PublishError`] if the directory is not usable.
pub(crate) fn file<E: From<PublishError>>(
    directory: &Path,
    name: &str,
    build: impl FnOnce(&Partial) -> Result<(), E>,
) -> Result<File, E> {
    let place = directory.join(name);
    remove_abandoned(directory);
    if let Some(file) = open_existing(&place)? {
        return Ok(file);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(PublishError::at("creating", directory))?;
    let partial = lock(directory, name)?;
    if let Some(file) = open_existing(&place)? {
        discard(&partial);
        return Ok(file);
    }
    if let Err(error) = build(&partial) {
        discard(&partial);
        return Err(error);
    }
    Ok(complete(&partial, &place, directory)?)
}

/// The file at `path`, or `None` if there is none.
fn open_existing(path: &Path) -> Result<Option<File>, PublishError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PublishError::at("opening", path)(error)),
    }
}

/// The partial file of `directory/name`, empty and locked; waits while another process is making it.
fn lock(directory: &Path, name: &str) -> Result<Partial, PublishError> {
    let path = directory.join(format!(".{name}{PARTIAL}"));
    loop {
        let file = open_partial(&path).map_err(PublishError::at("creating", &path))?;
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .map_err(PublishError::at("locking", &path))?;
        // While this process waited, the file may have been finished and renamed, or given up and removed.
        if is_at(&file, &path) {
            file.set_len(0).map_err(PublishError::at("emptying", &path))?;
            return Ok(Partial { path, file });
        }
    }
}

/// Opens or creates a partial file.
fn open_partial(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

/// Gives `partial` its final name, for good.
fn complete(partial: &Partial, place: &Path, directory: &Path) -> Result<File, PublishError> {
    partial.file.sync_all().map_err(PublishError::at("writing out", &partial.path))?;
    let file = File::open(&partial.path).map_err(PublishError::at("opening", &partial.path))?;
    fs::rename(&partial.path, place).map_err(PublishError::at("putting in place", place))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(PublishError::at("writing out", directory))?;
    Ok(file)
}

/// Removes `partial`, which stays locked until it is dropped.
fn discard(partial: &Partial) {
    // If it cannot be removed, the next build takes it over.
    let _ = fs::remove_file(&partial.path);
}

/// Removes the partial files of makers that died from the cache `directory`, and waits up to `patience` for
/// those that are just dying: a maker holds its file until its last process is gone. One that lives is
/// waited for as well, and left alone.
pub fn clear_abandoned(directory: &Path, patience: Duration) {
    let deadline = Instant::now() + patience;
    while remove_abandoned(directory) > 0 && Instant::now() < deadline {
        thread::sleep(PAUSE);
    }
}

/// Removes partial files that nobody is making any more; how many are being made.
///
/// Errors are left to the build that follows: it meets them too if they matter.
fn remove_abandoned(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let mut alive = 0;
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().ends_with(PARTIAL) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) if is_at(&file, &path) => {
                let _ = fs::remove_file(&path);
            }
            Ok(_) => {}
            Err(_) => alive += 1,
        }
    }
    alive
}

#[cfg(test)]
#[path = "publish_test.rs"]
mod publish_test;
