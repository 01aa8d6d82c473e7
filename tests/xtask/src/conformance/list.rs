//! The committed list of a suite: tests that are left out, and differences that are expected, each with its reason.
//!
//! A line is `leave out | FILE | NAME | REASON` or `differs | FILE | NAME | REASON`; the name `*` stands for all tests
//! of the file, `#` starts a comment.
//!
//! Invariant: each entry has a reason and names a test that there is.

use anyhow::{Context, Result, bail};

use super::suite::Test;

/// The name that stands for all tests of a file.
const ALL: &str = "*";

/// What a suite's list says.
#[derive(Debug, Default)]
pub(crate) struct List {
    left_out: Vec<Entry>,
    differs: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    test: Test,
    reason: String,
}

impl List {
    /// Reads a list.
    ///
    /// # Errors
    /// If a line has not its four parts; the message names the line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut list = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = || format!("line {}: {line}", number + 1);
            let parts: Vec<&str> = line.splitn(4, " | ").map(str::trim).collect();
            let [kind, file, name, reason] = parts.as_slice() else {
                bail!("{}: it is `leave out` or `differs`, file, name and reason", at());
            };
            if reason.is_empty() {
                bail!("{}: no reason", at());
            }
            let test = Test { file: (*file).to_owned(), name: (*name).to_owned() };
            let entry = Entry { test, reason: (*reason).to_owned() };
            match *kind {
                "leave out" => list.left_out.push(entry),
                "differs" => list.differs.push(entry),
                other => bail!("{}: `{other}` is neither `leave out` nor `differs`", at()),
            }
        }
        Ok(list)
    }

    /// Checks that each entry names a test of `all`.
    ///
    /// # Errors
    /// If one does not, naming it.
    pub(crate) fn check(&self, all: &[Test]) -> Result<()> {
        for entry in self.left_out.iter().chain(&self.differs) {
            all.iter().find(|test| entry.covers(test)).with_context(|| {
                format!("the list names a test that there is not: {}", entry.test)
            })?;
        }
        Ok(())
    }

    /// Why `test` is left out, if it is.
    pub(crate) fn left_out(&self, test: &Test) -> Option<&str> {
        find(&self.left_out, test)
    }

    /// Why `test` is expected to differ, if it is.
    pub(crate) fn differs(&self, test: &Test) -> Option<&str> {
        find(&self.differs, test)
    }
}

impl Entry {
    fn covers(&self, test: &Test) -> bool {
        // runc has names that end with a blank.
        self.test.file == test.file && [ALL, test.name.trim()].contains(&self.test.name.as_str())
    }
}

fn find<'a>(entries: &'a [Entry], test: &Test) -> Option<&'a str> {
    entries.iter().find(|entry| entry.covers(test)).map(|entry| entry.reason.as_str())
}

#[cfg(test)]
#[path = "list_test.rs"]
mod list_test;
