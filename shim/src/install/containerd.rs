//! The runtime in containerd's configuration: a block of lines at its end.
//!
//! A file of its own would be better, and is not possible everywhere: containerd 1.7 lets what is imported replace the whole
//! section of its CRI plugin, and 2.x is confused by an import of another version than the file that imports it. So the
//! block is in the file itself, in the form of that file's version; containerd 2 reads version 2 as well.
//!
//! Invariant: no other byte of the file changes, and taking the block out gives the file that was there.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use toml::{Table, Value};

use super::layout::Prefix;
use super::manifest::Added;
use super::{Report, place};

/// The first and the last line of the block.
const BEGIN: &str =
    "# BEGIN cofferdam: written by `cofferdam install`, removed by `cofferdam uninstall`";
const END: &str = "# END cofferdam";

/// What is said when containerd has to look again.
const RESTART: &str = "restart containerd: its configuration has changed";

/// A change of the file, thought out.
#[derive(Debug)]
pub(super) struct Edit {
    added: Added,
    /// The new text, if it is another.
    text: Option<String>,
}

/// The change that adds the runtime to `file`; `before` was added the last time.
///
/// # Errors
/// The file cannot be read or added to.
pub(super) fn plan(prefix: &Prefix, file: &Path, before: Option<&Added>) -> Result<Edit> {
    ensure!(file.is_absolute(), "--containerd {}: an absolute path", file.display());
    if let Some(other) = before.filter(|added| added.file != file) {
        bail!("the runtime is in {} already: uninstall first", other.file.display());
    }
    let there = read(prefix, file)?;
    let created = before.map_or(there.is_none(), |added| added.created);
    let old = there.unwrap_or_default();
    let name = file.display();
    // The last time may have ended before it was written, and somebody may have taken it out.
    let rest = match before.filter(|_| old.contains(BEGIN)) {
        Some(added) => without(&old, &added.block).with_context(|| {
            format!("{name}: the lines of `cofferdam install` were changed: remove them by hand")
        })?,
        None => old.clone(),
    };
    ensure!(
        !rest.contains(BEGIN),
        "{name}: it has lines of another installation: remove them by hand"
    );
    let block = block(&rest, &prefix.shim()).with_context(|| format!("{name}"))?;
    let text = format!("{rest}{block}");
    check(&text).with_context(|| {
        format!("{name}: adding the runtime would break it; add by hand:\n{block}")
    })?;
    let text = Some(text).filter(|text| *text != old);
    Ok(Edit { added: Added { file: file.to_owned(), block, created }, text })
}

impl Edit {
    /// What there will be.
    pub(super) fn added(&self) -> &Added {
        &self.added
    }

    /// Does it.
    pub(super) fn apply(self, prefix: &Prefix, report: &mut Report) -> Result<Added> {
        if let Some(text) = &self.text {
            replace(prefix, &self.added.file, text)?;
            report.did("added the runtime to", &self.added.file);
            report.lines.push(RESTART.to_owned());
        }
        Ok(self.added)
    }
}

/// Takes out what was added.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn remove(prefix: &Prefix, added: &Added, report: &mut Report) -> Result<()> {
    let Some(old) = read(prefix, &added.file)? else { return Ok(()) };
    let name = added.file.display();
    match without(&old, &added.block) {
        None if !old.contains(BEGIN) => return Ok(()),
        None => {
            let kept = format!(
                "{name}: the lines of `cofferdam install` were changed since, remove them by hand"
            );
            report.kept.push(kept);
            return Ok(());
        }
        Some(rest) if rest.is_empty() && added.created => {
            place::remove(&prefix.on_host(&added.file))?;
        }
        Some(rest) => replace(prefix, &added.file, &rest)?,
    }
    report.did("removed the runtime from", &added.file);
    report.lines.push(RESTART.to_owned());
    Ok(())
}

fn read(prefix: &Prefix, file: &Path) -> Result<Option<String>> {
    let path = prefix.on_host(file);
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.is_symlink() => {
            bail!("{} is a symbolic link: name the file itself", path.display())
        }
        _ => {}
    }
    let text = std::fs::read_to_string(&path);
    text.map(Some).with_context(|| format!("reading {}", path.display()))
}

fn replace(prefix: &Prefix, file: &Path, text: &str) -> Result<()> {
    let path = prefix.on_host(file);
    let there = path.metadata().ok();
    let mode = there.as_ref().map_or(0o644, |metadata| metadata.mode() & 0o7777);
    let owner = there.map(|metadata| (metadata.uid(), metadata.gid()));
    if let Some(parent) = file.parent() {
        place::make_directories(prefix, parent)?;
    }
    place::write(&path, &mut text.as_bytes(), mode, owner)
}

/// `text` without `block`, if it is there as it was written.
fn without(text: &str, block: &str) -> Option<String> {
    let (before, after) = text.split_once(block)?;
    Some(format!("{before}{after}"))
}

/// The block that fits the file whose text is `text`; it begins on a line of its own.
fn block(text: &str, shim: &Path) -> Result<String> {
    let document: Table = text.parse().context("it is not TOML")?;
    let version = match document.get("version") {
        Some(Value::Integer(version)) => *version,
        None if document.is_empty() => 2,
        _ => 1,
    };
    let plugin = match version {
        2 => "io.containerd.grpc.v1.cri",
        3 => "io.containerd.cri.v1.runtime",
        _ => bail!(
            "its version is neither 2 nor 3: `containerd config migrate` makes a newer one of it"
        ),
    };
    let runtimes = format!("[plugins.\"{plugin}\".containerd.runtimes");
    let mut lines = vec![BEGIN.to_owned()];
    if document.is_empty() {
        lines.push("version = 2".into());
    }
    // With runtimes in the file, containerd 1.7 knows no others: its own default has to be there, too.
    if !has(&document, &["plugins", plugin, "containerd", "runtimes", "runc"]) {
        lines.push(format!("{runtimes}.runc]"));
        lines.push("runtime_type = \"io.containerd.runc.v2\"".into());
    }
    lines.push(format!("{runtimes}.cofferdam]"));
    lines.push("runtime_type = \"io.containerd.cofferdam.v2\"".into());
    lines.push(format!("runtime_path = {}", Value::String(shim.display().to_string())));
    lines.push("privileged_without_host_devices = true".into());
    lines.push(END.into());
    let start = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{start}{}\n", lines.join("\n")))
}

/// Whether there is something at `path` in `document`.
fn has(document: &Table, path: &[&str]) -> bool {
    let Some((last, above)) = path.split_last() else { return false };
    let table = above.iter().try_fold(document, |table, key| table.get(*key)?.as_table());
    table.is_some_and(|table| table.contains_key(*last))
}

fn check(text: &str) -> Result<()> {
    text.parse::<Table>().map(drop).map_err(|error| anyhow::anyhow!("{}", error.message()))
}

#[cfg(test)]
#[path = "containerd_test.rs"]
mod containerd_test;
