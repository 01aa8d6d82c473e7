//! Invariants that can be read off the source text.
//!
//! Invariant: every function is pure but for [`all`] and [`own_paths`], which read the checkout.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::{DirEntry, WalkDir};

use crate::artefacts::root;

/// Longest file of shipped code, in lines.
const LONGEST: usize = 500;

/// Where `unsafe` may stand: a file, or a directory with all in it; and why.
const ALLOWED: &[(&str, &str)] = &[
    ("vmm/hv/src/chunks.rs", "guest memory given to KVM"),
    ("vmm/hv/src/exit.rs", "the page that KVM shares with the monitor"),
    ("vmm/hv/src/memory.rs", "the mapping behind guest memory, and advice about it"),
    ("vmm/hv/src/page.rs", "a page given to KVM"),
    ("vmm/hv/src/kvm.rs", "ioctls without a safe wrapper"),
    ("vmm/hv/src/stats.rs", "an ioctl without a safe wrapper"),
    ("vmm/hv/src/vm.rs", "guest memory given to KVM"),
    ("vmm/devices/src/virtio/mem.rs", "vectored reads and writes straight to guest memory"),
    ("vmm/devices/src/virtio/shared.rs", "a mapping that another process has, too"),
    ("vmm/devices/src/virtio/uring.rs", "operations on guest memory handed to io_uring"),
    ("vmm/src/jail/", "the filters' signal, and system calls without a safe wrapper"),
    ("vmm/src/sys.rs", "the ioctls that make a tap"),
    ("tests/cases/src/tap.rs", "the ioctls that make a tap"),
    ("tests/hostile/src/main.rs", "the name that the entry calls"),
    ("tests/hostile/src/metal.rs", "a kernel's own access to memory and ports"),
    ("agent/src/sys/", "system calls of the container's setup without a safe wrapper"),
    ("shim/src/sys/", "system calls without a safe wrapper"),
];

/// The crates, for the attribute that forbids `unsafe`: the files that can be a crate's root.
const ROOTS: [&str; 2] = ["src/lib.rs", "src/main.rs"];

/// A file of ours.
pub(crate) struct File {
    /// Relative to the checkout.
    path: String,
    text: String,
    /// The text without comments and without the contents of string literals.
    code: String,
}

impl File {
    pub(super) fn new(path: String, text: String) -> Self {
        let code = code(&text);
        Self { path, text, code }
    }

    fn has_unsafe(&self) -> bool {
        self.words().any(|word| word == "unsafe")
    }

    /// Names and key words of the code.
    fn words(&self) -> impl Iterator<Item = &str> {
        self.code.split(|c: char| !c.is_alphanumeric() && c != '_')
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("_test.rs") || self.path.contains("/tests/")
    }
}

/// Every Rust file of the checkout.
pub(crate) fn all() -> Result<Vec<File>> {
    let root = root();
    let mut files = Vec::new();
    for entry in walk(&root) {
        let path = entry.with_context(|| format!("reading {}", root.display()))?.into_path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let relative = path.strip_prefix(&root).unwrap_or(&path);
            files.push(File::new(relative.to_string_lossy().into_owned(), text));
        }
    }
    Ok(files)
}

/// All below `root` but build products and what git keeps.
fn walk(root: &Path) -> impl Iterator<Item = walkdir::Result<DirEntry>> {
    let ours = |entry: &DirEntry| {
        let name = entry.file_name();
        entry.depth() == 0 || (name != "target" && name != ".git")
    };
    WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(ours)
}

/// Files that are too long.
pub(crate) fn lengths(files: &[File]) -> Vec<String> {
    files
        .iter()
        .filter(|file| !file.is_test())
        .map(|file| (file, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(file, lines)| format!("{}: {lines} lines", file.path))
        .collect()
}

/// Files that do not say what they are for.
pub(crate) fn module_docs(files: &[File]) -> Vec<String> {
    files
        .iter()
        .filter(|file| !file.is_test() && !file.text.starts_with("//!"))
        .map(|file| file.path.clone())
        .collect()
}

/// Places below `directory` whose code names `word`, in whatever case.
pub(crate) fn naming(files: &[File], directory: &str, word: &str) -> Vec<String> {
    let mut places = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with(directory)) {
        for (number, line) in file.code.lines().enumerate() {
            if line.to_lowercase().contains(word) {
                places.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    places
}

/// Whether code of the crate in `folder` names the crate `name`: in its sources, tests or build script, and not
/// in those of a crate in a folder below.
pub(crate) fn names_crate(files: &[File], folder: &str, name: &str) -> bool {
    const PARTS: [&str; 5] = ["src/", "tests/", "benches/", "examples/", "build.rs"];
    let word = name.replace('-', "_");
    let ours = |file: &&File| {
        let inside = file.path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
        inside.is_some_and(|rest| PARTS.iter().any(|part| rest.starts_with(part)))
    };
    files.iter().filter(ours).any(|file| file.words().any(|found| found == word))
}

/// `unsafe` outside of the files that may have it, and crates that could forbid it and do not.
pub(crate) fn unsafe_code(files: &[File]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files {
        if file.has_unsafe() && !file.is_test() && !allowed(&file.path) {
            faults.push(format!("{}: unsafe", file.path));
        }
    }
    for file in files {
        let Some(folder) = ROOTS.iter().find_map(|end| file.path.strip_suffix(end)) else {
            continue;
        };
        let may = ALLOWED.iter().any(|(place, _)| place.starts_with(&format!("{folder}src/")));
        if !may && !file.code.contains("#![forbid(unsafe_code)]") {
            faults.push(format!("{}: lacks #![forbid(unsafe_code)]", file.path));
        }
    }
    faults
}

/// Entries of [`ALLOWED`] that nothing needs any more.
pub(crate) fn unused_allowances(files: &[File]) -> Vec<String> {
    let used =
        |place: &str| files.iter().any(|file| file.path.starts_with(place) && file.has_unsafe());
    ALLOWED
        .iter()
        .filter(|(place, _)| !used(place))
        .map(|(place, reason)| format!("{place}: no unsafe there any more ({reason})"))
        .collect()
}

fn allowed(path: &str) -> bool {
    ALLOWED.iter().any(|(place, _)| path.starts_with(place))
}

/// Files that name the directory which the checkout happens to be in.
pub(crate) fn own_paths(root: &Path) -> Result<Vec<String>> {
    let place = root.to_string_lossy().into_owned();
    let mut faults = Vec::new();
    if root.components().count() < 3 {
        // A checkout in `/src`, say: its name may be in a text for other reasons.
        return Ok(faults);
    }
    for entry in walk(root) {
        let entry = entry.with_context(|| format!("reading {place}"))?;
        if !entry.file_type().is_file() {
            continue;
        }
        let bytes = fs::read(entry.path())
            .with_context(|| format!("reading {}", entry.path().display()))?;
        if String::from_utf8_lossy(&bytes).contains(&place) {
            faults.push(entry.path().display().to_string());
        }
    }
    Ok(faults)
}

/// `text` with its comments and the contents of its string literals replaced by spaces; lines stay lines.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string(rest),
            '\'' if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") => 4.min(rest.len()),
            _ => 0,
        };
        if length == 0 {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

/// The length of the block comment that `text` starts with; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of the string literal that `text` starts with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string literal that `text` starts with; 0 if it is none.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    if text.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = 2 + hashes;
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

#[cfg(test)]
#[path = "source_test.rs"]
mod source_test;
