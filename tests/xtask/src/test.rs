//! `cargo xtask test`: everything that can be tested, from formatting to containers in virtual machines.
//!
//! Invariant: a level that did not run to its end counts as failed, never as passed.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cofferdam_test_harness::tools::apt;

use crate::{artefacts, bench, check};

mod count;
mod e2e;

use count::{Counts, show_and_count};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only unit tests and KVM-level tests.
    #[arg(long)]
    unit: bool,
    /// Only end-to-end cases.
    #[arg(long, conflicts_with = "unit")]
    e2e: bool,
    /// Also measure what is promised in numbers: ten minutes more.
    #[arg(long, conflicts_with_all = ["unit", "e2e", "filter"])]
    measure: bool,
    /// Also the conformance list and the engines' cases with runc: half an hour more.
    #[arg(long, conflicts_with_all = ["unit", "filter"])]
    all: bool,
    /// Write what `conformance` found to docs/conformance.md.
    #[arg(long, conflicts_with = "unit")]
    page: bool,
    /// Leave the KVM test host running, for the next time.
    #[arg(long)]
    keep: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// What the name of every test begins with that runs a guest on the local KVM.
const KVM_PREFIX: &str = "kvm_";

/// Debian packages with the programs that unit tests run.
const UNIT_PACKAGES: &[&str] = &["cpio", "e2fsprogs", "erofs-utils", "util-linux"];

/// Runs `cargo xtask test`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut levels = Vec::new();
    let mut sound = None;
    if !args.e2e {
        if args.filter.is_none() {
            let checked = check::run(&check::Args::default());
            sound = Some(checked.is_ok());
            checked.unwrap_or_else(|error| println!("check: {error:#}"));
        }
        levels.push(("unit", unit(args.filter.as_deref())?));
        levels.push(("KVM-level", kvm_level(args.filter.as_deref())?));
    }
    if !args.unit {
        let counts = e2e::run(args).unwrap_or_else(|error| {
            println!("end-to-end: {error:#}");
            Counts { failed: 1, ..Counts::default() }
        });
        levels.push(("end-to-end", counts));
    }
    if args.measure {
        levels.push(("measured", measured()));
    }
    println!();
    let check = sound.map_or("not run", |sound| if sound { "ok" } else { "FAILED" });
    println!("{:11} {check}", "check");
    for (name, Counts { passed, failed, skipped, again }) in &levels {
        let again = if *again > 0 { format!(" ({again} tried twice)") } else { String::new() };
        println!("{name:11} {passed} passed, {failed} failed, {skipped} skipped{again}");
    }
    if sound == Some(false) || levels.iter().any(|(_, counts)| counts.failed > 0) {
        bail!("tests failed");
    }
    Ok(())
}

fn unit(filter: Option<&str>) -> Result<Counts> {
    if filter.is_some_and(|text| text.starts_with(KVM_PREFIX)) {
        return Ok(Counts::default());
    }
    apt::require(UNIT_PACKAGES)?;
    cargo_test("unit tests", filter, &["--skip", KVM_PREFIX])
}

fn kvm_level(filter: Option<&str>) -> Result<Counts> {
    let filter = match filter {
        Some(text) if !text.starts_with(KVM_PREFIX) => return Ok(Counts::default()),
        other => other.unwrap_or(KVM_PREFIX),
    };
    cargo_test("KVM-level tests", Some(filter), &[])
}

/// Runs the tests of the workspace whose name contains `filter`, with `options` of libtest. The output of those that
/// passed is shown, because it may say that they were skipped.
fn cargo_test(title: &str, filter: Option<&str>, options: &[&str]) -> Result<Counts> {
    eprintln!("==> {title}");
    let mut command = artefacts::cargo();
    command.args(["test", "--workspace", "--quiet", "--no-fail-fast"]);
    command.args(filter).args(["--", "--show-output"]).args(options).stdout(Stdio::piped());
    counted(&mut command)
}

/// Runs a command that prints what libtest prints, shows it, and counts.
fn counted(command: &mut Command) -> Result<Counts> {
    let mut child =
        command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut counts = show_and_count(stdout, std::io::stdout())?;
    let status = child.wait().context("waiting for the tests")?;
    counts.judge(status.success());
    Ok(counts)
}

/// The promises whose numbers are measured.
fn measured() -> Counts {
    let mut counts = Counts::default();
    for task in bench::PROMISED {
        match bench::run(&bench::Args { task }) {
            Ok(()) => counts.passed += 1,
            Err(error) => {
                counts.failed += 1;
                println!("bench: {error:#}");
            }
        }
    }
    counts
}
