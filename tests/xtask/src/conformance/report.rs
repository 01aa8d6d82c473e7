//! Two runtimes side by side: what the baseline passes and cofferdam does not, and whether that is expected.
//!
//! Invariant: what counts are the tests that the baseline passes; a skipped test is not a pass.

use std::collections::BTreeMap;
use std::fmt;

use super::list::List;
use super::suite::{Suite, Test};
use super::tap::{Ended, Outcome, Results};

/// The least part of what the baseline passes that cofferdam must pass too.
pub(crate) const LEAST_PERCENT: usize = 85;

/// The outcomes of one suite with both runtimes.
pub(crate) struct Report<'a> {
    suite: Suite,
    baseline: &'a Results,
    ours: &'a Results,
    list: &'a List,
    /// Tests that were not run, by the list.
    left_out: usize,
}

/// How many tests ended in which way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Passed.
    pub(crate) passed: usize,
    /// Failed.
    pub(crate) failed: usize,
    /// Skipped.
    pub(crate) skipped: usize,
}

impl Counts {
    /// Counts all of `results`.
    pub(crate) fn of<'a>(results: impl IntoIterator<Item = &'a Ended>) -> Self {
        let mut counts = Self::default();
        for ended in results {
            match ended.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed => counts.failed += 1,
                Outcome::Skipped(_) => counts.skipped += 1,
            }
        }
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl<'a> Report<'a> {
    /// Compares the tests that both have run.
    pub(crate) fn new(
        suite: Suite,
        (baseline, ours): (&'a Results, &'a Results),
        list: &'a List,
        left_out: usize,
    ) -> Self {
        Self { suite, baseline, ours, list, left_out }
    }

    /// Tests that the baseline passes, each with its end in cofferdam.
    fn compared(&self) -> impl Iterator<Item = (&'a Test, &'a Ended)> + '_ {
        let passed = self.baseline.iter().filter(|(_, ended)| ended.outcome == Outcome::Passed);
        passed.filter_map(|(test, _)| Some((test, self.ours.get(test)?)))
    }

    /// Those of them that cofferdam does not pass.
    fn differences(&self) -> impl Iterator<Item = (&'a Test, &'a Ended)> + '_ {
        self.compared().filter(|(_, ended)| ended.outcome != Outcome::Passed)
    }

    /// Differences that the list does not have.
    pub(crate) fn unexpected(&self) -> Vec<(&'a Test, &'a Ended)> {
        self.differences().filter(|(test, _)| self.list.differs(test).is_none()).collect()
    }

    /// Tests that the list expects to differ and that do not.
    fn needless(&self) -> Vec<&'a Test> {
        let alike = self.compared().filter(|(_, ended)| ended.outcome == Outcome::Passed);
        alike.map(|(test, _)| test).filter(|test| self.list.differs(test).is_some()).collect()
    }

    /// How many tests count, and how many of them cofferdam passes.
    pub(crate) fn score(&self) -> (usize, usize) {
        let all = self.compared().count();
        (all, all - self.differences().count())
    }

    /// Whether cofferdam passes as large a part as it must.
    pub(crate) fn enough(&self) -> bool {
        let (all, passed) = self.score();
        passed * 100 >= all * LEAST_PERCENT
    }

    /// The counts of each file, the baseline's and ours.
    fn files(&self) -> BTreeMap<&'a str, (Counts, Counts)> {
        let of = |results: &'a Results, file: &str| {
            Counts::of(results.iter().filter(|(test, _)| test.file == file).map(|(_, ended)| ended))
        };
        let files = self.baseline.keys().map(|test| test.file.as_str());
        files.map(|file| (file, (of(self.baseline, file), of(self.ours, file)))).collect()
    }

    /// The last line: what counts.
    pub(crate) fn summary(&self) -> String {
        let (all, passed) = self.score();
        let percent = (passed * 100).checked_div(all).unwrap_or(100);
        format!(
            "{:7} runc passes {all}, cofferdam {passed} of them: {percent} %; {} unexpected; {} left out",
            self.suite.name(),
            self.unexpected().len(),
            self.left_out,
        )
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}: {:27} {:>17} {:>17}", self.suite.name(), "", "runc", "cofferdam")?;
        writeln!(f, "{:33} {:>17} {:>17}", "", "ok failed skip", "ok failed skip")?;
        for (file, (theirs, ours)) in self.files() {
            let row = |counts: Counts| {
                format!("{:4} {:6} {:5}", counts.passed, counts.failed, counts.skipped)
            };
            writeln!(f, "{file:33} {:>17} {:>17}", row(theirs), row(ours))?;
        }
        for (test, reason) in
            self.differences().filter_map(|(test, _)| Some((test, self.list.differs(test)?)))
        {
            writeln!(f, "expected    {test}\n            {reason}")?;
        }
        for test in self.needless() {
            writeln!(f, "expected, but there is no difference: {test}")?;
        }
        for (test, ended) in self.unexpected() {
            writeln!(f, "UNEXPECTED  {test}")?;
            if let Outcome::Skipped(why) = &ended.outcome {
                writeln!(f, "            skipped: {why}")?;
            }
            for line in &ended.detail {
                writeln!(f, "            {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "report_test.rs"]
mod report_test;
