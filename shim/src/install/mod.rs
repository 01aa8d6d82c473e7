//! `cofferdam install` and `uninstall`: the files of a release below a prefix, and the runtime in containerd's configuration.
//!
//! ```text
//! layout (what goes where) -> plan (what is there, what is to be done) -> carried out, file by file
//!                                  ^ the manifest of the last time       \-> the manifest of this time
//! ```
//!
//! Each file is made beside its place and renamed to it: a pod that runs keeps the one that it has. What is to be done
//! is decided before anything is; only then does something change.
//!
//! Invariant: only what the manifest lists, with the content that it lists, is ever replaced or removed.

mod containerd;
mod layout;
mod manifest;
mod place;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use layout::{Item, Kind};
pub(crate) use layout::{Prefix, Sources};
use manifest::{Entry, Manifest};

/// State directories of pods: of the command line, and of containerd's namespaces.
const STATE: [&str; 2] = ["/run/cofferdam", "/run/cofferdam-containerd"];

/// What to do.
#[derive(Debug)]
pub(crate) struct Request {
    /// Where.
    pub(crate) prefix: Prefix,
    /// containerd's configuration file, as the host calls it, if the runtime is to be added to it.
    pub(crate) containerd: Option<PathBuf>,
    /// Replaces files that are not ours; uninstalls below living pods.
    pub(crate) force: bool,
}

/// What was done, for a person: one line for each thing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// What was done.
    pub(crate) lines: Vec<String>,
    /// What was left as it is although it should have gone.
    pub(crate) kept: Vec<String>,
}

impl Report {
    fn did(&mut self, what: &str, path: &Path) {
        self.lines.push(format!("{what} {}", path.display()));
    }
}

/// What is done with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is made or replaced.
    Place,
    /// It is as it should be.
    Leave,
    /// Somebody has changed it, and may.
    Keep,
}

/// Places what `sources` hold; what is there already stays as it is.
///
/// # Errors
/// A source is missing, a file that is not ours is in the way, containerd's configuration cannot be added to, or the file
/// system fails. But for the last nothing has changed then.
pub(crate) fn install(request: &Request, sources: &Sources) -> Result<Report> {
    let prefix = &request.prefix;
    let before = Manifest::load(prefix)?.unwrap_or_default();
    let mut plan = Plan::default();
    for item in layout::items(prefix, sources) {
        plan.entries.push(Entry::of(&item)?);
        plan.steps.push((step(&item, &before, request)?, item));
    }
    let known = before.containerd.as_ref();
    let file = request.containerd.as_deref().or_else(|| known.map(|added| added.file.as_path()));
    plan.containerd = file.map(|file| containerd::plan(prefix, file, known)).transpose()?;
    plan.carry_out(prefix, before)
}

/// What is to be done.
#[derive(Debug, Default)]
struct Plan {
    /// What will be there.
    entries: Vec<Entry>,
    steps: Vec<(Step, Item)>,
    containerd: Option<containerd::Edit>,
}

impl Plan {
    fn carry_out(self, prefix: &Prefix, before: Manifest) -> Result<Report> {
        let mut report = Report::default();
        let manifest = prefix.manifest();
        let mut made: BTreeSet<PathBuf> = before.directories.into_iter().collect();
        for path in self.steps.iter().map(|(_, item)| &item.path).chain([&manifest]) {
            if let Some(parent) = path.parent() {
                made.extend(place::make_directories(prefix, parent)?);
            }
        }
        let mut now = Manifest {
            entries: self.entries,
            directories: made.into_iter().collect(),
            containerd: before.containerd,
            ..Manifest::new()
        };
        // Should this end in the middle, what was placed so far is known to be ours.
        let mut both = now.clone();
        both.entries.extend(before.entries.iter().cloned());
        if let Some(edit) = &self.containerd {
            both.containerd = Some(edit.added().clone());
        }
        both.save(prefix)?;
        for (step, item) in &self.steps {
            match step {
                Step::Place => {
                    place::place(prefix, item)?;
                    report.did("placed", &item.path);
                }
                Step::Leave => {}
                Step::Keep => {
                    report.lines.push(format!("kept {}: it was changed", item.path.display()))
                }
            }
        }
        let gone = |old: &&Entry| now.entries.iter().all(|entry| entry.path != old.path);
        for old in before.entries.iter().filter(gone) {
            remove(prefix, old, &mut report)?;
        }
        if let Some(edit) = self.containerd {
            now.containerd = Some(edit.apply(prefix, &mut report)?);
        }
        now.save(prefix)?;
        if report.lines.is_empty() {
            report.lines.push(format!("{} is up to date", prefix.path().display()));
        }
        Ok(report)
    }
}

fn step(item: &Item, before: &Manifest, request: &Request) -> Result<Step> {
    let wanted = Entry::of(item)?;
    let Some(there) = Entry::there(&request.prefix, &item.path)? else { return Ok(Step::Place) };
    if there.kind == wanted.kind {
        return Ok(Step::Leave);
    }
    if before.lists(&there) {
        return Ok(Step::Place);
    }
    match item.kind {
        Kind::Configuration => Ok(Step::Keep),
        _ if request.force => Ok(Step::Place),
        _ => bail!(
            "{} is there and was not placed by `cofferdam install`, or was changed since: move it away, or use --force",
            item.path.display()
        ),
    }
}

/// Removes what the manifest lists, and the runtime from containerd's configuration.
///
/// # Errors
/// Pods live, or the file system fails.
pub(crate) fn uninstall(request: &Request) -> Result<Report> {
    let prefix = &request.prefix;
    let mut report = Report::default();
    let Some(manifest) = Manifest::load(prefix)? else {
        report.lines.push(format!("nothing is installed in {}", prefix.path().display()));
        return Ok(report);
    };
    let living = living(prefix);
    if !living.is_empty() && !request.force {
        let some = living.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        bail!(
            "{} containers live on this host ({some}): end them first, or use --force",
            living.len()
        );
    }
    if let Some(added) = &manifest.containerd {
        containerd::remove(prefix, added, &mut report)?;
    }
    // First what starts the others.
    for entry in manifest.entries.iter().rev() {
        remove(prefix, entry, &mut report)?;
    }
    place::remove(&prefix.on_host(&prefix.manifest()))?;
    for directory in manifest.directories.iter().rev() {
        // What somebody else has put there stays.
        let _ = std::fs::remove_dir(prefix.on_host(directory));
    }
    Ok(report)
}

/// Removes the file of `entry` if it is as we placed it.
fn remove(prefix: &Prefix, entry: &Entry, report: &mut Report) -> Result<()> {
    match Entry::there(prefix, &entry.path)? {
        None => {}
        Some(there) if there.kind == entry.kind => {
            place::remove(&prefix.on_host(&entry.path))?;
            report.did("removed", &entry.path);
        }
        Some(_) if entry.configuration => {
            report.lines.push(format!("kept {}: it was changed", entry.path.display()));
        }
        Some(_) => report.kept.push(format!("{}: it was changed since", entry.path.display())),
    }
    Ok(())
}

/// The containers whose pods live on the host.
fn living(prefix: &Prefix) -> Vec<String> {
    let below = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let [own, of_containerd] = STATE.map(|path| prefix.on_host(Path::new(path)));
    let namespaces = below(&of_containerd);
    let directories = below(&own).into_iter().chain(namespaces.iter().flat_map(|path| below(path)));
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    directories.filter(|path| is_locked(path)).filter_map(name).collect()
}

/// Whether somebody holds the lock of a state directory.
fn is_locked(path: &Path) -> bool {
    let opened = std::fs::File::open(path);
    opened.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// How the files of the prefix that this program belongs to are, if it was installed: whether each is as it was placed.
pub(crate) fn verify(prefix: &Prefix) -> Result<Option<Vec<String>>> {
    let Some(manifest) = Manifest::load(prefix)? else { return Ok(None) };
    let mut faults = Vec::new();
    for entry in &manifest.entries {
        let path = entry.path.display();
        match Entry::there(prefix, &entry.path).with_context(|| format!("reading {path}"))? {
            None => faults.push(format!("{path} is missing")),
            Some(there) if there.kind != entry.kind && !entry.configuration => {
                faults.push(format!("{path} was changed"));
            }
            Some(_) => {}
        }
    }
    Ok(Some(faults))
}

#[cfg(test)]
#[path = "install_test.rs"]
mod install_test;
