//! `cargo xtask fuzz`: runs the targets of `tests/fuzz` under libFuzzer.
//!
//! It is built by cargo alone, with the stable toolchain and a C++ compiler: the compiler's own coverage
//! instrumentation, no sanitizer. The little unsafe code that there is has tests of its own; what the targets
//! find are panics, overflows, work and memory without bound, and broken invariants.
//!
//! Invariant: an input that fails is kept, with the command that shows it again, and makes the command fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::artefacts;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A short run of each target, to see that all of them work.
    #[arg(long, conflicts_with = "minutes")]
    smoke: bool,
    /// Minutes for each target.
    #[arg(long, default_value_t = 10, value_name = "N")]
    minutes: u64,
    /// Puts what was learnt into the corpus of the checkout, made as small as it can be.
    #[arg(long)]
    keep: bool,
    /// Only this target; without it, all of them in turn.
    target: Option<String>,
}

/// Seconds for each target with `--smoke`.
const SMOKE: u64 = 20;

/// The package, and what it is built for.
const PACKAGE: &str = "cofferdam-test-fuzz";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Longest input, in bytes; what is longer finds nothing new and is slow.
const LONGEST: u32 = 2048;

/// Most that an input may cost: seconds, and MiB of the whole process. Allocations have a limit of their own.
const TIMEOUT: u32 = 30;
const MEMORY: u32 = 1024;

/// Coverage and comparisons, as libFuzzer wants them.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0";

/// Runs `cargo xtask fuzz`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let home = artefacts::root().join("tests/fuzz");
    let targets = chosen(&home, args.target.as_deref())?;
    let binaries = build()?;
    let seconds = if args.smoke { SMOKE } else { args.minutes.saturating_mul(60) };
    let mut failed = Vec::new();
    for target in &targets {
        let place = Place::new(&home, target)?;
        println!("==> {target}: {seconds} seconds");
        if !fuzz(&binaries.join(target), &place, seconds)? {
            failed.push(target.as_str());
        }
        if args.keep {
            merge(&binaries.join(target), &place)?;
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The targets: those that have a binary.
fn chosen(home: &Path, wanted: Option<&str>) -> Result<Vec<String>> {
    let folder = home.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    match wanted {
        None => Ok(names),
        Some(name) if names.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("no target {name:?}; there are: {}", names.join(", ")),
    }
}

/// Builds all binaries, apart from everything else because of their flags; their directory.
fn build() -> Result<PathBuf> {
    let directory = artefacts::target()?.join("fuzz");
    eprintln!("==> building {PACKAGE}");
    let mut command = artefacts::cargo();
    command.args(["build", "--quiet", "--profile=fuzz", "--target", TRIPLE]);
    command.args(["--package", PACKAGE, "--bins", "--target-dir"]).arg(&directory);
    command.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = command.status().context("starting cargo")?;
    if !status.success() {
        bail!("building {PACKAGE}: {status}; libFuzzer needs a C++ compiler (g++ or clang++)");
    }
    Ok(directory.join(TRIPLE).join("fuzz"))
}

/// Where a target's inputs are.
struct Place {
    /// In the checkout: few and small.
    corpus: PathBuf,
    /// Everything that was learnt, outside of the checkout.
    learnt: PathBuf,
    /// Inputs that failed.
    crashes: PathBuf,
}

impl Place {
    fn new(home: &Path, target: &str) -> Result<Self> {
        let own = artefacts::target()?.join("fuzz");
        let corpus = home.join("corpus").join(target);
        let (learnt, crashes) = (own.join("corpus").join(target), own.join("crashes").join(target));
        for directory in [&corpus, &learnt, &crashes] {
            fs::create_dir_all(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        Ok(Self { corpus, learnt, crashes })
    }
}

/// Runs a target; whether it found nothing.
fn fuzz(binary: &Path, place: &Place, seconds: u64) -> Result<bool> {
    let mut command = Command::new(binary);
    command.arg(&place.learnt).arg(&place.corpus);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={LONGEST}"));
    command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
    command.arg(format!("-artifact_prefix={}/", place.crashes.display()));
    command.args(["-print_final_stats=1", "-use_value_profile=1", "-len_control=10"]);
    let log = place.crashes.with_extension("log");
    let file = fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let output = file.try_clone().context("sharing a log")?;
    command.stdin(Stdio::null()).stdout(output).stderr(file);
    let status = command.status().with_context(|| format!("starting {}", binary.display()))?;
    let text = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    println!("    {}", summary(&text));
    if status.success() {
        return Ok(true);
    }
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for line in &lines[lines.len().saturating_sub(60)..] {
        println!("    {line}");
    }
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    match kept(&text) {
        Some(input) => println!(
            "    again: cargo run --package {PACKAGE} --bin {name} -- {input}\n    \
             once it is mended, keep the input: cp {input} {}",
            place.corpus.display()
        ),
        None => println!("    {status}, no input was kept; see {}", log.display()),
    }
    Ok(false)
}

/// How far a run got, by its own words.
fn summary(log: &str) -> String {
    let progress = |line: &&str| {
        line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let last = log.lines().rev().find(progress).unwrap_or("no progress");
    let words: Vec<&str> = last.split_whitespace().collect();
    words.join(" ")
}

/// Where libFuzzer left the input that failed.
fn kept(log: &str) -> Option<&str> {
    log.lines().rev().find_map(|line| line.split_once("Test unit written to ")).map(|(_, at)| at)
}

/// Adds to the corpus of the checkout what covers code that it does not cover.
fn merge(binary: &Path, place: &Place) -> Result<()> {
    let status = Command::new(binary)
        .args(["-merge=1", "-verbosity=0"])
        .arg(format!("-max_len={LONGEST}"))
        .arg(&place.corpus)
        .arg(&place.learnt)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("starting {}", binary.display()))?;
    if !status.success() {
        bail!("making a smaller corpus: {status}");
    }
    Ok(())
}

#[cfg(test)]
#[path = "fuzz_test.rs"]
mod fuzz_test;
