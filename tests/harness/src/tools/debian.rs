//! Debian root file systems by mmdebstrap, from the mirror and with the keys of this machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use super::{apt, step};

/// The release that the test host and the root file systems of the tests are made of.
pub const SUITE: &str = "trixie";

/// Files that no test reads.
const EXCLUDED: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// Makes a root file system of the essential packages and `packages`, and gives its directory as the first
/// argument to `hook` (a program and its further arguments), whose work is what remains: the tree itself is removed.
///
/// # Errors
/// Without root; if a needed package is missing; if mmdebstrap or the hook fails.
pub fn build(title: &str, packages: &[&str], hook: &[&Path], log: &Path) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("{title}: making a Debian root file system needs root");
    }
    apt::require(&["mmdebstrap", "debian-archive-keyring", "e2fsprogs"])?;
    let mut words = hook.iter().map(|word| quote(&word.to_string_lossy()));
    let program = words.next().unwrap_or_default();
    let arguments: Vec<String> = words.collect();
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--format=null", "--variant=minbase"]);
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    command.args(["--aptopt=Apt::Install-Recommends \"false\"", "--dpkgopt=force-unsafe-io"]);
    for pattern in EXCLUDED {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    command.arg(format!("--customize-hook={program} \"$1\" {}", arguments.join(" ")));
    command.args([SUITE, "-", &apt::mirror()?]);
    step::run(title, log, &mut command)
}

/// `word` as one word of a POSIX shell.
#[must_use]
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The words of a list of packages: one per line, `#` starts a comment.
#[must_use]
pub fn packages(list: &str) -> Vec<&str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[cfg(test)]
#[path = "debian_test.rs"]
mod debian_test;
