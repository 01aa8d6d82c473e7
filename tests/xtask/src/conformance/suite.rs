//! The suites: which tests they have, and which of those are run.
//!
//! Invariant: what the sources name as a test is run, or the list of the suite says why not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::list::List;

/// Tests that others wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// runc's own, in bats.
    Runc,
    /// crun's, in Python, through a program that takes crun's command line.
    Crun,
    /// podman's system tests of what a runtime does, in bats.
    Podman,
}

/// The files of podman's system tests that are about the runtime.
const PODMAN_FILES: [&str; 5] =
    ["050-stop.bats", "055-rm.bats", "075-exec.bats", "130-kill.bats", "160-volumes.bats"];

/// A test.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// The file that holds it.
    pub(crate) file: String,
    /// Its name, unique in the file.
    pub(crate) name: String,
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.name)
    }
}

impl Suite {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Runc, Self::Crun, Self::Podman];

    /// The name on the command line and in the test host.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Podman => "podman",
        }
    }

    /// How long a test may take in the emulated host with the baseline, on a busy machine.
    pub(crate) fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Runc | Self::Crun => 90,
            Self::Podman => 300,
        })
    }

    /// Where the payload has its files.
    fn directory(self) -> &'static str {
        match self {
            Self::Runc => "runc/tests/integration",
            Self::Crun => "crun",
            Self::Podman => "podman/system",
        }
    }

    /// The tests in the files of `payload`, in their order.
    ///
    /// # Errors
    /// If the files cannot be read or there are none.
    pub(crate) fn tests(self, payload: &Path) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        for path in self.files(&payload.join(self.directory()))? {
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let names = if self == Self::Crun { python_tests(&text) } else { bats_tests(&text) };
            tests.extend(names.into_iter().map(|name| Test { file: file.to_string(), name }));
        }
        if tests.is_empty() {
            bail!("no tests of {} in {}", self.name(), payload.display());
        }
        Ok(tests)
    }

    fn files(self, directory: &Path) -> Result<Vec<PathBuf>> {
        let what = || format!("reading {}", directory.display());
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).with_context(what)? {
            let path = entry.with_context(what)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let ours = match self {
                Self::Runc => name.ends_with(".bats"),
                Self::Crun => name.starts_with("test_") && name.ends_with(".py"),
                Self::Podman => PODMAN_FILES.contains(&name.as_ref()),
            };
            if ours {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// What the test host is to run: a line for each file with its tests and the time that each may take.
    pub(crate) fn plan(self, tests: &[Test], limit: Duration) -> String {
        let mut plan = String::new();
        for tests in tests.chunk_by(|one, other| one.file == other.file) {
            let names: Vec<String> = tests.iter().map(|test| self.pattern(&test.name)).collect();
            let names = if self == Self::Crun {
                names.join(" ")
            } else {
                format!("^({})$", names.join("|"))
            };
            if let Some(first) = tests.first() {
                plan.push_str(&format!("{}\t{}\t{names}\n", first.file, limit.as_secs()));
            }
        }
        plan
    }

    /// `name` as the test host is told it.
    fn pattern(self, name: &str) -> String {
        if self == Self::Crun {
            return name.to_owned();
        }
        let escape = |c: char| if r"\.[]{}()*+?^$|".contains(c) { vec!['\\', c] } else { vec![c] };
        name.chars().flat_map(escape).collect()
    }

    /// Which of `all` are run: those that `list` does not leave out and whose file or name contains one of
    /// `filters`, if there are any.
    pub(crate) fn select(all: Vec<Test>, list: &List, filters: &[String]) -> Vec<Test> {
        let wanted = |test: &Test| {
            filters.is_empty() || filters.iter().any(|text| test.to_string().contains(text))
        };
        all.into_iter().filter(|test| wanted(test) && list.left_out(test).is_none()).collect()
    }
}

/// The names of the tests in a bats file.
fn bats_tests(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let rest = line.strip_prefix("@test ")?.trim_end().strip_suffix('{')?.trim();
        let inner = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let inner =
            inner.or_else(|| rest.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')));
        Some(inner.unwrap_or(rest).to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// The names of the tests in a Python file of crun's: the keys of the dictionary `all_tests`.
fn python_tests(text: &str) -> Vec<String> {
    let list = text.lines().skip_while(|line| !line.starts_with("all_tests")).skip(1);
    let name = |line: &str| Some(line.trim().strip_prefix('"')?.split_once('"')?.0.to_owned());
    list.take_while(|line| !line.starts_with('}')).filter_map(name).collect()
}

#[cfg(test)]
#[path = "suite_test.rs"]
mod suite_test;
