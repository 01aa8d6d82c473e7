//! `cargo xtask test`: everything that can be tested, from formatting to containers in virtual machines.
//!
//! Invariant: a level that did not run to its end counts as failed, never as passed.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cofferdam_test_harness::host::link::Options;
use cofferdam_test_harness::host::{Kind, SHARE, Setup, TestHost, rootfs};
use cofferdam_test_harness::tools::apt;
use tempfile::TempDir;

use crate::{artefacts, bench, check};

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
    /// Also the conformance list and the engines' cases: most of an hour more.
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

/// What the name of every variable begins with that cases look at.
const CASE_SETTING: &str = "COFFERDAM_CASE_";

/// Where the cases write the table of conformance to, and its name there and in the documents.
const PAGE_SETTING: &str = "COFFERDAM_CASE_REPORT";
const PAGE: &str = "conformance.md";

/// Topics of end-to-end cases that take long: they run when they are asked for.
const LONG: &[&str] = &["conformance", "podman", "docker", "containerd"];

/// What a KVM-level test prints when it cannot run.
const SKIPPED: &str = "SKIPPED:";

/// Debian packages with the programs that unit tests run.
const UNIT_PACKAGES: &[&str] = &["cpio", "e2fsprogs", "erofs-utils", "util-linux"];

/// What an end-to-end case prints before it is tried a second time.
const AGAIN: &str = "AGAIN:";

/// How the tests of one level ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
    /// Those that were tried a second time.
    again: u32,
}

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
        let counts = end_to_end(args).unwrap_or_else(|error| {
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

impl Counts {
    /// A run that ended badly without a failed test (it did not compile, or died) is one failure.
    fn judge(&mut self, success: bool) {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
    }

    /// Adds what one line of libtest's output tells.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u32>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Writes the lines of `stream` that say something `to` somewhere, and counts.
fn show_and_count(stream: impl Read, mut to: impl Write) -> Result<Counts> {
    let mut counts = Counts::default();
    let (mut not_run, mut list) = (0, false);
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("reading the tests' output")? > 0 {
        let text = String::from_utf8_lossy(&line);
        counts.add(text.trim_end());
        if text.trim_start().starts_with(SKIPPED) {
            not_run += 1;
        }
        // The name of the test stands before it on the same line.
        counts.again += u32::from(text.contains(AGAIN));
        // The names of those that passed come after this, and once more after their output.
        list = text.trim() == "successes:"
            || list && (text.trim().is_empty() || text.starts_with("    "));
        let idle = list
            || matches!(text.trim(), "" | "running 0 tests")
            || text.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored");
        if !idle {
            write!(to, "{text}").context("showing the tests' output")?;
        }
        line.clear();
    }
    // To libtest, a test that could not run has passed.
    counts.passed = counts.passed.saturating_sub(not_run);
    counts.skipped += not_run;
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

/// How often the cases are begun, if the emulated host dies under them.
const HOSTS: u32 = 2;

fn end_to_end(args: &Args) -> Result<Counts> {
    let kind = artefacts::kind()?;
    for _ in 1..HOSTS {
        match end_to_end_once(args, kind) {
            Err(error) if kind == Kind::Emulated && error.is::<Lost>() => {
                println!("{AGAIN} {error:#}\n==> the cases begin anew, in another test host");
            }
            result => return result,
        }
    }
    end_to_end_once(args, kind)
}

/// The host of the cases did not come up, or died under them: what it runs on is at fault, or the host itself, but no
/// case.
#[derive(Debug)]
struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the test host was lost")
    }
}

fn end_to_end_once(args: &Args, kind: Kind) -> Result<Counts> {
    let stage = artefacts::stage()?;
    let cases = artefacts::add_cases(&stage)?;
    let rootfs = Some(rootfs::for_tests()?);
    let keep = args.keep.then(|| "default".to_owned());
    let host = TestHost::get(kind, Setup { stage: Some(stage), rootfs, keep });
    let host = host.map_err(|error| error.context(Lost))?;
    eprintln!("==> end-to-end cases");
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    let mut argv = vec![cases];
    argv.extend(args.filter.clone());
    let partly = args.filter.is_none() && !args.all;
    if partly {
        println!("not run without --all: {}", LONG.join(", "));
        argv.extend(LONG.iter().flat_map(|topic| ["--skip".to_owned(), format!("{topic}::")]));
    }
    let counting = std::thread::spawn(move || show_and_count(reader, std::io::stdout()));
    let settings = std::env::vars().filter(|(name, _)| name.starts_with(CASE_SETTING));
    let again = (kind == Kind::Emulated).then(|| ("COFFERDAM_TEST_AGAIN".into(), "1".into()));
    let share =
        args.page.then(tempfile::tempdir).transpose().context("a directory for the page")?;
    let page = share.as_ref().map(|_| (PAGE_SETTING.to_owned(), format!("{SHARE}/{PAGE}")));
    let env = settings.chain(again).chain(page).collect();
    let options = Options { env, stdout: Some(writer.into()), ..Options::default() };
    let status = host.run(&argv, &options, share.as_ref().map(TempDir::path));
    // The counting ends when no one can write any more.
    drop(options);
    let counts = counting.join().map_err(|_| anyhow::anyhow!("counting the cases failed"))?;
    let mut counts = counts?;
    let status = status.map_err(|error| error.context(Lost))?;
    println!("the cases ended with {status}");
    if let Some(share) = share {
        let place = artefacts::root().join("docs").join(PAGE);
        std::fs::copy(share.path().join(PAGE), &place)
            .with_context(|| format!("no page was written, so {} is as it was", place.display()))?;
    }
    counts.judge(status.success());
    Ok(counts)
}

#[cfg(test)]
#[path = "test_test.rs"]
mod test_test;
