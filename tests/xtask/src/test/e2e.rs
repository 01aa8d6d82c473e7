//! The end-to-end cases, in test hosts: where these are emulated, in two at a time.
//!
//! Invariant: the cases of one machine run one after another; each looks at the whole of it for leftovers.

use std::io::Write;

use anyhow::{Context, Result};
use cofferdam_test_harness::host::link::Options;
use cofferdam_test_harness::host::{Kind, SHARE, Setup, TestHost, rootfs};
use tempfile::TempDir;

use super::Args;
use super::count::{AGAIN, Counts, show_and_count};
use crate::{artefacts, conformance};

/// What the name of every variable begins with that cases look at.
const CASE_SETTING: &str = "COFFERDAM_CASE_";

/// Where the cases write the table of conformance to, and its name there and in the documents.
const PAGE_SETTING: &str = "COFFERDAM_CASE_REPORT";
const PAGE: &str = "conformance.md";

/// The runtime that the list of conformance is compared with.
const RUNC_SETTING: &str = "COFFERDAM_CASE_RUNC";

/// The runtime that the engines use, if it is not ours.
const ENGINE_SETTING: &str = "COFFERDAM_CASE_ENGINE_RUNTIME";

/// The topics of engines, and the list of conformance, by lanes that take about as long as each other: the first one
/// begins with all other cases.
const LANES: [&[&str]; 2] =
    [&["containerd", "containerd2"], &["conformance", "podman", "docker", "cri", "cri2"]];

/// How often the cases are begun, if the emulated host dies under them.
const HOSTS: u32 = 2;

/// One run of the program with the cases.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Run {
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// Runs in one test host, one after another.
type Lane = Vec<Run>;

impl Run {
    /// The cases whose name contains `filter`.
    fn of(filter: &str) -> Self {
        Self { args: vec![filter.to_owned()], env: Vec::new() }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Whether it runs clauses of conformance with runc.
    fn needs_runc(&self) -> bool {
        self.args.first().is_some_and(|filter| {
            let ours = filter.starts_with("conformance::cofferdam");
            filter.starts_with("conformance") && !ours
        })
    }
}

/// What is asked for: the cases that `filter` selects; or all in two lanes, engines and the list with Cofferdam alone, or
/// (`runc`) with runc first.
fn lanes(filter: Option<&str>, runc: bool) -> Vec<Lane> {
    if let Some(filter) = filter {
        return vec![vec![Run::of(filter)]];
    }
    let skip = |topic: &str| ["--skip".to_owned(), format!("{topic}::")];
    let runs = |topic: &&str| {
        let run = Run::of(&format!("{topic}::"));
        match (*topic, runc) {
            ("conformance", true) => vec![run],
            ("conformance", false) => vec![Run::of("conformance::cofferdam::")],
            (_, true) => vec![run.clone().with(ENGINE_SETTING, "runc"), run],
            (_, false) => vec![run],
        }
    };
    let mut lanes: Vec<Lane> =
        LANES.iter().map(|topics| topics.iter().flat_map(runs).collect()).collect();
    let others = LANES.iter().flat_map(|topics| topics.iter()).flat_map(|topic| skip(topic));
    if let Some(first) = lanes.first_mut() {
        first.insert(0, Run { args: others.collect(), env: Vec::new() });
    }
    lanes
}

/// Runs the cases.
///
/// # Errors
/// If what they need cannot be built, or a test host cannot be had or is lost twice.
pub(super) fn run(args: &Args) -> Result<Counts> {
    let kind = artefacts::kind()?;
    let mut lanes = lanes(args.filter.as_deref(), args.all);
    if kind == Kind::Local {
        lanes = vec![lanes.concat()];
    }
    if args.filter.is_none() && !args.all {
        println!("not run without --all: conformance and the engines with runc");
    }
    if let [lane] = lanes.as_slice() {
        // In this thread: signals are passed on to the cases.
        return host(args, kind, 0, lane);
    }
    // What they need is built before they begin, so that nothing is built twice at a time.
    artefacts::stage().and_then(|stage| artefacts::add_cases(&stage))?;
    let counts = std::thread::scope(|scope| {
        let lanes = lanes.iter().enumerate();
        let running: Vec<_> = lanes
            .map(|(number, lane)| scope.spawn(move || host(args, kind, number, lane)))
            .collect();
        let ended = running.into_iter().map(|lane| {
            lane.join().unwrap_or_else(|_| Err(anyhow::anyhow!("running the cases failed")))
        });
        ended.collect::<Vec<_>>()
    });
    let mut sum = Counts::default();
    for counts in counts {
        sum.extend(&counts.unwrap_or_else(|error| {
            println!("end-to-end: {error:#}");
            Counts { failed: 1, ..Counts::default() }
        }));
    }
    Ok(sum)
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

/// Runs a lane in a test host, and in another one if that is lost.
fn host(args: &Args, kind: Kind, number: usize, lane: &Lane) -> Result<Counts> {
    for _ in 1..HOSTS {
        match host_once(args, kind, number, lane) {
            Err(error) if kind == Kind::Emulated && error.is::<Lost>() => {
                println!("{AGAIN} {error:#}\n==> the cases begin anew, in another test host");
            }
            result => return result,
        }
    }
    host_once(args, kind, number, lane)
}

fn host_once(args: &Args, kind: Kind, number: usize, lane: &Lane) -> Result<Counts> {
    let stage = artefacts::stage()?;
    let cases = artefacts::add_cases(&stage)?;
    let mut env: Vec<_> =
        std::env::vars().filter(|(name, _)| name.starts_with(CASE_SETTING)).collect();
    if lane.iter().any(Run::needs_runc) && std::env::var_os(RUNC_SETTING).is_none() {
        env.push((RUNC_SETTING.to_owned(), conformance::add_runc(&stage)?));
    }
    if kind == Kind::Emulated {
        env.push(("COFFERDAM_TEST_AGAIN".to_owned(), "1".to_owned()));
    }
    let keep = args.keep.then(|| ["default", "long"].get(number).unwrap_or(&"more").to_string());
    let setup = Setup { stage: Some(stage), rootfs: Some(rootfs::for_tests()?), keep };
    let host = TestHost::get(kind, setup).map_err(|error| error.context(Lost))?;
    let mut sum = Counts::default();
    for run in lane {
        eprintln!("==> end-to-end cases {}", run.args.join(" "));
        let argv: Vec<String> = std::iter::once(&cases).chain(&run.args).cloned().collect();
        let env = env.iter().chain(&run.env).cloned().collect();
        sum.extend(&cases_once(&host, &argv, env, args.page)?);
    }
    Ok(sum)
}

/// Runs the cases in `host`, and writes the page of conformance if that is asked for.
fn cases_once(
    host: &TestHost,
    argv: &[String],
    mut env: Vec<(String, String)>,
    page: bool,
) -> Result<Counts> {
    let share = page.then(tempfile::tempdir).transpose().context("a directory for the page")?;
    env.extend(share.as_ref().map(|_| (PAGE_SETTING.to_owned(), format!("{SHARE}/{PAGE}"))));
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    let counting = std::thread::spawn(move || show_and_count(reader, std::io::stdout()));
    let options = Options { env, stdout: Some(writer.into()), ..Options::default() };
    let status = host.run(argv, &options, share.as_ref().map(TempDir::path));
    // The counting ends when no one can write any more.
    drop(options);
    let counts = counting.join().map_err(|_| anyhow::anyhow!("counting the cases failed"))?;
    let mut counts = counts?;
    let status = status.map_err(|error| error.context(Lost))?;
    writeln!(std::io::stdout(), "the cases ended with {status}").context("telling the end")?;
    if let Some(share) = share {
        let place = artefacts::root().join("docs").join(PAGE);
        std::fs::copy(share.path().join(PAGE), &place)
            .with_context(|| format!("no page was written, so {} is as it was", place.display()))?;
    }
    counts.judge(status.success());
    Ok(counts)
}

#[cfg(test)]
#[path = "e2e_test.rs"]
mod e2e_test;
