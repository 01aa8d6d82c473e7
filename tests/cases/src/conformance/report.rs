//! The table of what passed, on standard output and as a page of the documents.
//!
//! Invariant: every clause is on the page; a cell of one that was not run is empty.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::PoisonError;

use anyhow::{Context, Result};

use super::{Entry, Program, Verdict, Verdicts, groups, verdicts};

/// Where the page is written, if anywhere.
const PAGE: &str = "COFFERDAM_CASE_REPORT";

/// What stands above the table.
const HEAD: &str = "# Conformance

One line per clause of the OCI runtime specification 1.2 and per command and flag of runc. Each was checked with runc and
with Cofferdam, by the same assertions; where Cofferdam does otherwise on purpose, the assertion is its own and the line says why.
`-` means that this runc could not show it: the line then says since which version runc has it. An empty cell was not run.

This page is written by `cargo xtask test --e2e conformance --page`; the clauses are in `tests/cases/src/conformance`.
";

/// Prints the table of what was checked, and writes the page if that is asked for.
///
/// # Errors
/// If the page cannot be written.
pub(crate) fn report() -> Result<()> {
    let verdicts = verdicts().lock().unwrap_or_else(PoisonError::into_inner);
    let entries: Vec<Entry> = groups().flat_map(super::Group::clauses).collect();
    let version = super::runc_version().unwrap_or("no runc");
    let run = |entry: &&Entry| {
        PROGRAMS.iter().any(|program| verdict(&verdicts, entry, *program).is_some())
    };
    if !verdicts.is_empty() {
        println!("\nconformance: {version} | cofferdam");
    }
    for entry in entries.iter().filter(run) {
        let [runc, ours] = PROGRAMS.map(|program| word(verdict(&verdicts, entry, program)));
        println!("{:60} {runc:7} {ours}", entry.name);
    }
    if !verdicts.is_empty() {
        println!("{}", total(&verdicts));
    }
    let Some(path) = std::env::var_os(PAGE).map(PathBuf::from) else { return Ok(()) };
    std::fs::write(&path, page(&entries, &verdicts, version))
        .with_context(|| format!("writing {}", path.display()))
}

/// In the order of the columns.
const PROGRAMS: [Program; 2] = [Program::Runc, Program::Cofferdam];

fn verdict(verdicts: &Verdicts, entry: &Entry, program: Program) -> Option<Verdict> {
    verdicts.get(&(entry.name.clone(), program.name())).copied()
}

fn word(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        None => "",
        Some(None) => "-",
        Some(Some(true)) => "pass",
        Some(Some(false)) => "FAIL",
    }
}

/// How many passed with each.
fn total(verdicts: &Verdicts) -> String {
    let mut counts = BTreeMap::<&str, (u32, u32)>::new();
    for ((_, program), verdict) in verdicts {
        let (passed, all) = counts.entry(program).or_default();
        *all += u32::from(verdict.is_some());
        *passed += u32::from(*verdict == Some(true));
    }
    let parts =
        counts.iter().map(|(program, (passed, all))| format!("{program} {passed} of {all}"));
    parts.collect::<Vec<_>>().join(", ")
}

/// The page.
fn page(entries: &[Entry], verdicts: &Verdicts, version: &str) -> String {
    let mut text = format!("{HEAD}\nPassed with {version}: {}.\n\n", total(verdicts));
    text += "| clause | where | runc | cofferdam | why it differs |\n|---|---|---|---|---|\n";
    for entry in entries {
        let [runc, ours] = PROGRAMS.map(|program| word(verdict(verdicts, entry, program)));
        let since =
            entry.since.filter(|_| runc == "-").map(|version| format!(" (since {version})"));
        let (since, why) = (since.unwrap_or_default(), entry.differs.unwrap_or_default());
        let _ = writeln!(
            text,
            "| {} | {} | {runc}{since} | {ours} | {why} |",
            entry.name,
            entry.source.replace('|', "\\|")
        );
    }
    text
}
