//! `cargo xtask conformance`: tests that the authors of runc, crun and podman wrote, with runc and with cofferdam.
//!
//! They run in the emulated test host alone, wherever this is: they change the machine that they run on.
//!
//! Invariant: both runtimes are given the same tests; a difference is in the committed list with a reason, or the
//! command fails.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cofferdam_test_harness::host::link::Options;
use cofferdam_test_harness::host::stage::Stage;
use cofferdam_test_harness::host::{Kind, SHARE, Setup, TestHost};

use crate::artefacts;

mod list;
mod payload;
mod report;
mod suite;
mod tap;

use list::List;
use report::{Counts, LEAST_PERCENT, Report};
use suite::{Suite, Test};
use tap::{Ended, Outcome, Reader, Results};

/// Arguments of `cargo xtask conformance`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these suites.
    #[arg(value_enum)]
    suites: Vec<Suite>,
    /// With which runtime; cofferdam alone is compared with what runc did the last time.
    #[arg(long, value_enum, default_value_t)]
    runtime: Runtime,
    /// Only tests of which `FILE: NAME` contains this; may be given several times.
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Leave the KVM test host running under this name, for the next time.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "conformance")]
    keep: Option<String>,
    /// Only say which tests there are, and which are left out.
    #[arg(long)]
    list: bool,
}

/// The runtimes to run the tests with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Runtime {
    /// The baseline.
    Runc,
    /// What is tested.
    Cofferdam,
    /// One after the other.
    #[default]
    Both,
}

/// How much longer than with the baseline a test may take: a virtual machine inside an emulated one is slow to start.
const SLOWER: u32 = 3;

/// Where cofferdam is in the test host.
const COFFERDAM: &str = "/usr/local/bin/cofferdam";

/// A suite that is run.
struct Job {
    suite: Suite,
    list: List,
    tests: Vec<Test>,
    left_out: usize,
    /// Not all tests of the suite that can be run.
    partial: bool,
}

/// Runs `cargo xtask conformance`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let payload = payload::get()?;
    let suites = if args.suites.is_empty() { &Suite::ALL[..] } else { &args.suites };
    let jobs = suites.iter().map(|suite| job(*suite, &payload, &args.filter));
    let jobs = jobs.collect::<Result<Vec<Job>>>()?;
    if args.list {
        jobs.iter().for_each(show);
        return Ok(());
    }
    let stage = if args.runtime == Runtime::Runc { Stage::new()? } else { artefacts::stage()? };
    payload::add(&stage, &payload)?;
    let keep = args.keep.clone();
    let host = TestHost::get(Kind::Emulated, Setup { stage: Some(stage), rootfs: None, keep })?;
    let mut summaries = Vec::new();
    let mut good = true;
    for job in &jobs {
        let baseline = match args.runtime {
            Runtime::Cofferdam => job.recorded()?,
            Runtime::Runc | Runtime::Both => job.run(&host, Runtime::Runc)?,
        };
        if args.runtime == Runtime::Runc {
            summaries.push(format!("{:7} {}", job.suite.name(), Counts::of(baseline.values())));
            continue;
        }
        let ours = job.run(&host, Runtime::Cofferdam)?;
        let report = Report::new(job.suite, (&baseline, &ours), &job.list, job.left_out);
        println!("{report}");
        // A part of a suite says nothing about how much of it passes.
        good &= report.unexpected().is_empty() && (!args.filter.is_empty() || report.enough());
        summaries.push(report.summary());
    }
    println!("\n{}", summaries.join("\n"));
    if !good {
        bail!(
            "a difference from runc that is not expected, or less than {LEAST_PERCENT} % of what runc passes"
        );
    }
    Ok(())
}

/// Adds the runc that is compared with to `stage`; its place in the test host.
///
/// # Errors
/// If it cannot be fetched.
pub(crate) fn add_runc(stage: &Stage) -> Result<String> {
    let payload = payload::get()?;
    stage.add(&payload.join("runc/runc"), payload::BASELINE)?;
    Ok(payload::BASELINE.to_owned())
}

/// The tests of `suite` that are run.
fn job(suite: Suite, payload: &Path, filter: &[String]) -> Result<Job> {
    let path = payload::ours(&format!("{}.list", suite.name()));
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let all = suite.tests(payload)?;
    let list = List::parse(&text).with_context(|| format!("reading {}", path.display()))?;
    list.check(&all).with_context(|| format!("checking {}", path.display()))?;
    let left_out = all.iter().filter(|test| list.left_out(test).is_some()).count();
    let tests = Suite::select(all, &list, filter);
    if tests.is_empty() {
        bail!("no test of {} is left to run", suite.name());
    }
    Ok(Job { suite, list, tests, left_out, partial: !filter.is_empty() })
}

/// Prints the tests of a suite.
fn show(job: &Job) {
    println!("{}: {} tests, {} left out", job.suite.name(), job.tests.len(), job.left_out);
    for test in &job.tests {
        println!("  {test}{}", if job.list.differs(test).is_some() { " (differs)" } else { "" });
    }
}

impl Job {
    /// Where what the tests printed is kept.
    fn record(&self, runtime: Runtime) -> Result<PathBuf> {
        let name = if runtime == Runtime::Runc { "runc" } else { "cofferdam" };
        Ok(artefacts::target()?.join("conformance").join(self.suite.name()).join(name))
    }

    /// Keeps what the tests printed. Where a test is found twice, the later outcome counts.
    fn keep(&self, path: &Path, text: &[u8]) -> Result<()> {
        let what = || format!("keeping what the tests said in {}", path.display());
        let mut options = File::options();
        options.create(true).write(true).truncate(!self.partial).append(self.partial);
        let mut file = options.open(path).with_context(what)?;
        file.write_all(text).with_context(what)
    }

    /// The outcomes of the last run of the baseline.
    fn recorded(&self) -> Result<Results> {
        let path = self.record(Runtime::Runc)?.join("all.tap");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{}: run with --runtime both first", path.display()))?;
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.line(line);
        }
        Ok(reader.finish(&self.tests))
    }

    /// Runs the tests with `runtime`, a line for each.
    fn run(&self, host: &TestHost, runtime: Runtime) -> Result<Results> {
        let limit = self.suite.limit();
        let (path, limit) = match runtime {
            Runtime::Runc => (payload::BASELINE, limit),
            Runtime::Cofferdam | Runtime::Both => (COFFERDAM, limit * SLOWER),
        };
        let name = self.suite.name();
        eprintln!("==> {} tests of {name} with {path}", self.tests.len());
        let directory = self.record(runtime)?;
        fs::create_dir_all(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        fs::write(directory.join("plan"), self.suite.plan(&self.tests, limit))
            .context("writing the plan")?;
        let (reader, writer) = std::io::pipe().context("making a pipe")?;
        let total = self.tests.len();
        let reading = std::thread::spawn(move || follow(reader, total));
        let argv = [
            format!("{}/run-suite", payload::PLACE),
            name.to_owned(),
            path.to_owned(),
            format!("{SHARE}/plan"),
            SHARE.to_owned(),
        ];
        let options = Options { stdout: Some(writer.into()), ..Options::default() };
        let status = host.run(&argv, &options, Some(&directory));
        // The reading ends when no one can write any more.
        drop(options);
        let read =
            reading.join().map_err(|_| anyhow::anyhow!("reading the tests' output failed"))?;
        let (text, results) = read?;
        self.keep(&directory.join("all.tap"), &text)?;
        let status = status?;
        if !status.success() {
            bail!(
                "the tests of {name} ended with {status}; what they said is in {}",
                directory.display()
            );
        }
        let results = results.finish(&self.tests);
        println!("{name} with {path}: {}", Counts::of(results.values()));
        Ok(results)
    }
}

/// Reads what the tests print, showing a line for each test.
fn follow(stream: impl Read, total: usize) -> Result<(Vec<u8>, Reader)> {
    let mut reader = Reader::default();
    let mut stream = BufReader::new(stream);
    let (mut all, mut line, mut count) = (Vec::new(), Vec::new(), 0);
    while stream.read_until(b'\n', &mut line).context("reading the tests' output")? > 0 {
        if let Some((test, ended)) = reader.line(&String::from_utf8_lossy(&line)) {
            count += 1;
            println!("{}", progress(count, total, test, ended));
        }
        all.append(&mut line);
    }
    Ok((all, reader))
}

/// The line that tells of a test's end.
fn progress(count: usize, total: usize, test: &Test, ended: &Ended) -> String {
    let time =
        ended.time.map_or_else(String::new, |time| format!(" ({:.1} s)", time.as_secs_f64()));
    let why = match &ended.outcome {
        Outcome::Skipped(why) => format!(": {why}"),
        Outcome::Passed | Outcome::Failed => String::new(),
    };
    format!("{count:4}/{total} {:7} {test}{time}{why}", ended.outcome.word())
}
