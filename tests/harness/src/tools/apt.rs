//! Debian packages that a step needs: installed when root, else the exact command is printed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use super::{cache, step};

/// Makes sure that each of `packages` is installed.
///
/// # Errors
/// Without root, an error that holds the command to run; with root, the failure of apt.
pub fn require(packages: &[&str]) -> Result<()> {
    require_from(None, packages)
}

/// As [`require`], preferring the release `suite` (for example `bookworm-backports`), which is added to
/// apt's sources from the same mirror as the machine's own if it is not there.
///
/// # Errors
/// As [`require`]; and if the machine's apt configuration names no Debian mirror.
pub fn require_from(suite: Option<&str>, packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|p| !installed(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    upgrade_from(suite, &missing)
}

/// Installs `packages`, or their newer versions if they are there, preferring the release `suite` as
/// [`require_from`] does.
///
/// # Errors
/// As [`require_from`].
pub fn upgrade_from(suite: Option<&str>, packages: &[&str]) -> Result<()> {
    let target = suite.map_or_else(String::new, |suite| format!(" -t {suite}"));
    if !Uid::effective().is_root() {
        bail!("missing packages; as root: apt-get install{target} {}", packages.join(" "));
    }
    let log = cache::root().join("logs/apt.log");
    if let Some(suite) = suite {
        add_suite(suite)?;
    }
    step::run("updating the package lists", &log, Command::new("apt-get").arg("update"))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["install", "-y", "--no-install-recommends"]);
    if let Some(suite) = suite {
        install.args(["-t", suite]);
    }
    step::run(&format!("installing {}", packages.join(" ")), &log, install.args(packages))
}

/// Whether dpkg says that `package` is installed.
#[must_use]
pub fn installed(package: &str) -> bool {
    version(package).is_some()
}

/// The installed version of `package`.
#[must_use]
pub fn version(package: &str) -> Option<String> {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status} ${Version}", package])
        .output();
    let text = String::from_utf8(query.ok()?.stdout).ok()?;
    text.strip_prefix("installed ").map(str::to_owned)
}

/// The release this machine runs, for example `bookworm`, from `os-release(5)`.
///
/// # Errors
/// If `/etc/os-release` cannot be read or names no codename.
pub fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release has no VERSION_CODENAME: not a Debian release")
}

/// The mirror of the main Debian archive in the machine's apt configuration.
///
/// # Errors
/// If no source of it is configured.
pub fn mirror() -> Result<String> {
    for file in source_files() {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let found = line.split_whitespace().find(|word| {
                word.contains("://") && word.trim_end_matches('/').ends_with("/debian")
            });
            if let Some(uri) = found {
                return Ok(uri.to_owned());
            }
        }
    }
    bail!("no source of the Debian archive in /etc/apt/sources.list or sources.list.d")
}

/// Apt's source files, one-line and deb822 style.
fn source_files() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
}

/// Adds `suite` of the machine's own mirror to apt's sources.
fn add_suite(suite: &str) -> Result<()> {
    let place = PathBuf::from(format!("/etc/apt/sources.list.d/cofferdam-{suite}.list"));
    let key = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    let line = format!("deb [signed-by={}] {} {suite} main\n", key.display(), mirror()?);
    fs::write(&place, line).with_context(|| format!("writing {}", place.display()))
}
