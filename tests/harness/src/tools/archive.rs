//! Packages of Debian releases other than this machine's, fetched and unpacked, never installed.
//!
//! Invariant: the machine's own apt configuration, lists and packages stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, step};

/// The keys that the archive is signed with.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages of some releases, from the mirror that this machine uses.
#[derive(Debug)]
pub struct Archive {
    dir: PathBuf,
    log: PathBuf,
}

/// A package that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its name.
    pub package: &'a str,
    /// The release that it is taken from.
    pub suite: &'a str,
    /// What its version begins with; empty for any.
    pub version: &'a str,
}

/// A line of `apt-cache madison`.
#[derive(Debug, PartialEq, Eq)]
struct Offer<'a> {
    package: &'a str,
    version: &'a str,
    suite: &'a str,
    /// A source package.
    source: bool,
}

impl Archive {
    /// The releases `suites` of the main archive, with their lists in the new directory `dir`.
    ///
    /// # Errors
    /// If the machine's apt configuration names no mirror or the lists cannot be fetched.
    pub fn open(suites: &[&str], dir: &Path, log: &Path) -> Result<Self> {
        apt::require(&["debian-archive-keyring", "dpkg-dev"])?;
        let mirror = apt::mirror()?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).with_context(|| format!("creating {}", sub.display()))?;
        }
        let sources: String = suites
            .iter()
            .flat_map(|suite| ["deb", "deb-src"].map(|kind| (kind, suite)))
            .map(|(kind, suite)| format!("{kind} [signed-by={KEYS}] {mirror} {suite} main\n"))
            .collect();
        fs::write(dir.join("sources.list"), sources).context("writing the list of sources")?;
        fs::write(dir.join("status"), "").context("writing an empty list of packages")?;
        let archive = Self { dir: dir.to_owned(), log: log.to_owned() };
        let title = format!("fetching the lists of Debian {}", suites.join(", "));
        step::run(&title, log, archive.apt("apt-get").arg("update"))?;
        Ok(archive)
    }

    /// Unpacks the source package `wanted`, with Debian's patches, as the new directory `to`.
    ///
    /// # Errors
    /// If there is no such version (the message names those there are), or it cannot be fetched.
    pub fn source(&self, wanted: Wanted<'_>, to: &Path) -> Result<()> {
        let full = self.version(wanted, true)?;
        let package = wanted.package;
        let title = format!("fetching the source of {package} {full}");
        let files = self.dir.join(format!("source-{package}"));
        fs::create_dir(&files).with_context(|| format!("creating {}", files.display()))?;
        let mut fetch = self.apt("apt-get");
        fetch.args(["source", "--download-only", &format!("{package}={full}")]);
        step::run(&title, &self.log, fetch.current_dir(&files))?;
        let control = entries(&files)?.into_iter().find(|path| ends_with(path, ".dsc"));
        let control = control.with_context(|| format!("{package} {full} has no .dsc file"))?;
        // Apt has compared the hashes with the signed lists.
        let mut unpack = Command::new("dpkg-source");
        unpack.args(["--no-check", "--extract"]).arg(control).arg(to);
        step::run(&format!("unpacking {package} {full}"), &self.log, &mut unpack)
    }

    /// Unpacks the binary package `wanted` into the directory `to`.
    ///
    /// # Errors
    /// As [`Archive::source`].
    pub fn binary(&self, wanted: Wanted<'_>, to: &Path) -> Result<()> {
        let full = self.version(wanted, false)?;
        let package = wanted.package;
        let files = self.dir.join(format!("binary-{package}"));
        fs::create_dir(&files).with_context(|| format!("creating {}", files.display()))?;
        let mut fetch = self.apt("apt-get");
        fetch.args(["download", &format!("{package}={full}")]).current_dir(&files);
        step::run(&format!("fetching {package} {full}"), &self.log, &mut fetch)?;
        let file = entries(&files)?.into_iter().find(|path| ends_with(path, ".deb"));
        let file = file.with_context(|| format!("apt fetched no file of {package} {full}"))?;
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(file).arg(to);
        step::run(&format!("unpacking {package} {full}"), &self.log, &mut unpack)
    }

    /// The full version of `wanted`.
    fn version(&self, wanted: Wanted<'_>, source: bool) -> Result<String> {
        let Wanted { package, suite, version } = wanted;
        let output = self
            .apt("apt-cache")
            .args(["madison", package])
            .output()
            .context("starting apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let offers = text.lines().filter_map(offer).filter(|offer| {
            offer.package == package && offer.suite == suite && offer.source == source
        });
        let versions: Vec<&str> = offers.map(|offer| offer.version).collect();
        match versions.iter().find(|full| full.starts_with(version)) {
            Some(full) => Ok((*full).to_owned()),
            None => bail!("no {package} {version} in Debian {suite}; there is: {versions:?}"),
        }
    }

    /// A command of apt that looks at this archive alone.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for (name, value) in [
            ("Dir::Etc::sourcelist", self.dir.join("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State::lists", self.dir.join("lists")),
            ("Dir::State::status", self.dir.join("status")),
            ("Dir::Cache", self.dir.join("cache")),
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        command
    }
}

/// What a line of `apt-cache madison` offers: `package | version | mirror release/component kind`.
fn offer(line: &str) -> Option<Offer<'_>> {
    let mut parts = line.split(" | ").map(str::trim);
    let (package, version, place) = (parts.next()?, parts.next()?, parts.next()?);
    let (_mirror, rest) = place.split_once(' ')?;
    let (suite, _component) = rest.split_once('/')?;
    Some(Offer { package, version, suite, source: place.ends_with(" Sources") })
}

/// What is in `directory`.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("reading {}", directory.display());
    let entries = fs::read_dir(directory).with_context(what)?;
    entries.map(|entry| Ok(entry.with_context(what)?.path())).collect()
}

fn ends_with(path: &Path, end: &str) -> bool {
    path.to_string_lossy().ends_with(end)
}

#[cfg(test)]
#[path = "archive_test.rs"]
mod archive_test;
