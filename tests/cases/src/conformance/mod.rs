//! Conformance: one case per clause of the OCI runtime specification and per documented flag of runc, run
//! against runc and against Cofferdam with the same assertions.
//!
//! Invariant: a clause that behaves otherwise on purpose says why, and is checked all the same.
//!
//! Clauses that one container can show share it: the first trial of a group runs all of it, the others look
//! up what it found.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};
use libtest_mimic::Trial;

use crate::leftovers;
use crate::run::Outcome;

mod cgroups;
mod console;
mod devices;
mod errors;
mod exec;
mod flags;
mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod report;
mod root;
mod runtime;
mod seccomp;
mod signals;
mod update;

use runtime::{Container, Edit, Program, Runtime};

/// One clause: what it is called, where it stands, how it is checked.
#[derive(Clone, Copy)]
struct Clause<Check: 'static> {
    name: &'static str,
    /// The field of `config.json`, the section of the specification, or the command and its flag.
    source: &'static str,
    check: Check,
    /// Why Cofferdam does otherwise.
    differs: Option<&'static str>,
    /// The first version of runc that has it.
    since: Option<&'static str>,
}

/// A shell script and what it prints, with runc and with Cofferdam.
type Script = (&'static str, &'static str, &'static str);

/// Steps with one container; what they do to it, the next one finds.
type Step = fn(&Container<'_>) -> Result<()>;

/// Something with containers of its own.
type Alone = fn(&Runtime) -> Result<()>;

/// The script prints `text`, white space around it apart. Its errors count as output.
const fn prints(
    name: &'static str,
    source: &'static str,
    script: &'static str,
    text: &'static str,
) -> Clause<Script> {
    Clause { name, source, check: (script, text, text), differs: None, since: None }
}

/// The step succeeds.
const fn step(name: &'static str, source: &'static str, check: Step) -> Clause<Step> {
    Clause { name, source, check, differs: None, since: None }
}

/// It succeeds.
const fn alone(name: &'static str, source: &'static str, check: Alone) -> Clause<Alone> {
    Clause { name, source, check, differs: None, since: None }
}

impl<Check: Copy> Clause<Check> {
    /// Cofferdam does otherwise, and why. The check knows what it does.
    const fn differs(self, why: &'static str) -> Self {
        Self { differs: Some(why), ..self }
    }

    /// runc has it since `version`.
    const fn since(self, version: &'static str) -> Self {
        Self { since: Some(version), ..self }
    }
}

impl Clause<Script> {
    /// With Cofferdam it prints `text`, and why.
    const fn ours(self, text: &'static str, why: &'static str) -> Self {
        Self { check: (self.check.0, self.check.1, text), differs: Some(why), ..self }
    }
}

/// Clauses that are checked together.
enum Group {
    /// Scripts one after another in one container.
    Inside(&'static str, Edit, &'static [Clause<Script>]),
    /// Steps with a container that waits for SIGTERM, made by `run --detach` or by `create`.
    With(&'static str, &'static [&'static str], Edit, &'static [Clause<Step>]),
    /// Each for itself.
    Alone(&'static str, &'static [Clause<Alone>]),
}

/// What the container of a group of steps runs.
const WAITS: &str = "trap 'exit 7' TERM; echo started; sleep 10000 & wait";

/// What stands before the name of a clause in the output of a container.
const MARK: &str = "@@ ";

impl Group {
    /// Name, source, why it differs, since when it is there.
    fn clauses(&self) -> Vec<Entry> {
        fn entries<C>(topic: &'static str, all: &'static [Clause<C>]) -> Vec<Entry> {
            let entry = |clause: &'static Clause<C>| Entry {
                name: format!("{topic}::{}", clause.name),
                source: clause.source,
                differs: clause.differs,
                since: clause.since,
            };
            all.iter().map(entry).collect()
        }
        match self {
            Self::Inside(topic, _, all) => entries(topic, all),
            Self::With(topic, _, _, all) => entries(topic, all),
            Self::Alone(topic, all) => entries(topic, all),
        }
    }

    /// What each clause found.
    fn run(&self, program: Program) -> Vec<Result<()>> {
        let failed = |error: anyhow::Error| {
            let text = format!("{error:?}");
            self.clauses().iter().map(|_| Err(anyhow!("{text}"))).collect()
        };
        let runtime = match Runtime::new(program) {
            Ok(runtime) => runtime,
            Err(error) => return failed(error),
        };
        match self {
            Self::Inside(_, edit, all) => match runtime.run(&script(all), *edit) {
                Ok(outcome) => all.iter().map(|clause| judge(clause, program, &outcome)).collect(),
                Err(error) => failed(error),
            },
            Self::With(_, command, edit, all) => match runtime.make(command, WAITS, *edit) {
                Ok(container) => all.iter().map(|clause| (clause.check)(&container)).collect(),
                Err(error) => failed(error),
            },
            Self::Alone(_, all) => all.iter().map(|clause| (clause.check)(&runtime)).collect(),
        }
    }
}

/// The scripts of all clauses, each in a shell of its own, its output behind its name.
fn script(all: &[Clause<Script>]) -> String {
    let part = |clause: &Clause<Script>| {
        format!("printf '\\n{MARK}{}\\n'\n(\n{}\n) 2>&1\n", clause.name, clause.check.0)
    };
    all.iter().map(part).collect::<String>() + &format!("printf '\\n{MARK}\\n'; exit 0")
}

/// Whether the output of the scripts has what `clause` expects.
fn judge(clause: &Clause<Script>, program: Program, outcome: &Outcome) -> Result<()> {
    let text = outcome.text();
    let begin = format!("\n{MARK}{}\n", clause.name);
    let Some((_, rest)) = text.split_once(&begin) else {
        bail!("its script did not run: {outcome}");
    };
    let Some((printed, _)) = rest.split_once(&format!("\n{MARK}")) else {
        bail!("its script did not end: {outcome}");
    };
    let (script, runc, ours) = clause.check;
    let expected = if program == Program::Runc { runc } else { ours };
    ensure!(printed.trim() == expected, "{script}\nprinted {:?}, not {expected:?}", printed.trim());
    Ok(())
}

/// A line of the list.
struct Entry {
    /// `topic::clause`.
    name: String,
    source: &'static str,
    differs: Option<&'static str>,
    since: Option<&'static str>,
}

/// Every group.
fn groups() -> impl Iterator<Item = &'static Group> {
    [
        process::GROUPS,
        mounts::GROUPS,
        root::GROUPS,
        devices::GROUPS,
        namespaces::GROUPS,
        cgroups::GROUPS,
        seccomp::GROUPS,
        lifecycle::GROUPS,
        signals::GROUPS,
        hooks::GROUPS,
        exec::GROUPS,
        update::GROUPS,
        flags::GROUPS,
        errors::GROUPS,
    ]
    .into_iter()
    .flatten()
}

/// How a clause went: `None` if it could not be checked.
type Verdict = Option<bool>;

/// All verdicts by the clause's name and the runtime's.
type Verdicts = BTreeMap<(String, &'static str), Verdict>;

fn verdicts() -> &'static Mutex<Verdicts> {
    static ALL: OnceLock<Mutex<Verdicts>> = OnceLock::new();
    ALL.get_or_init(Mutex::default)
}

/// What a group found: errors as text, since each trial reports its own.
type Findings = Vec<Result<(), String>>;

/// A group and what it found with one runtime.
struct Shared {
    group: &'static Group,
    /// How often it ran, and what it found the last time.
    findings: Mutex<(u32, Findings)>,
}

impl Shared {
    /// What the clause `number` found. Runs the group until it has run `times` times.
    fn finding(&self, program: Program, number: usize, times: u32) -> Result<(), String> {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.0 < times {
            findings.0 += 1;
            findings.1 = self.run(program);
        }
        findings.1.get(number).cloned().unwrap_or(Err("not run".to_owned()))
    }

    /// Runs the group; what it leaves behind is a fault of its last clause.
    fn run(&self, program: Program) -> Findings {
        let before = leftovers::Host::now();
        let begin = Instant::now();
        let found = self.group.run(program).into_iter();
        let mut found: Findings =
            found.map(|result| result.map_err(|error| format!("{error:?}"))).collect();
        let (name, seconds) = (program.name(), begin.elapsed().as_secs_f64());
        let first = self.group.clauses().into_iter().next();
        let first = first.map(|entry| entry.name).unwrap_or_default();
        println!("\n{name}: the group of {first}, {} clauses: {seconds:.1} s", found.len());
        if let (Err(error), Some(last)) = (before.unchanged(), found.last_mut()) {
            *last = Err(format!("after the group: {error:?}"));
        }
        found
    }
}

/// Every clause as two trials, one a runtime; tried twice if `again`.
pub(crate) fn trials(again: bool) -> Vec<Trial> {
    let mut trials = Vec::new();
    for program in [Program::Runc, Program::Cofferdam] {
        for group in groups() {
            let entries = group.clauses();
            let shared = Arc::new(Shared { group, findings: Mutex::default() });
            for (number, entry) in entries.into_iter().enumerate() {
                let name = format!("conformance::{}::{}", program.name(), entry.name);
                let shared = shared.clone();
                trials.push(Trial::test(name.clone(), move || {
                    check(
                        &name,
                        program,
                        &entry,
                        |times| shared.finding(program, number, times),
                        again,
                    )
                    .map_err(Into::into)
                }));
            }
        }
    }
    trials
}

/// Looks up what a clause found and notes it.
fn check(
    name: &str,
    program: Program,
    entry: &Entry,
    finding: impl Fn(u32) -> Result<(), String>,
    again: bool,
) -> Result<(), String> {
    let note = |verdict| {
        let mut all = verdicts().lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((entry.name.clone(), program.name()), verdict);
    };
    if let Some(why) = lacking(program, entry) {
        println!("\nSKIPPED: {name}: {why}");
        note(None);
        return Ok(());
    }
    let mut result = finding(1);
    if let (Err(error), true) = (&result, again) {
        println!("AGAIN: {name} failed: {error}");
        result = finding(2);
    }
    note(Some(result.is_ok()));
    result
}

/// Why this runc cannot show the clause, if so.
fn lacking(program: Program, entry: &Entry) -> Option<String> {
    if program != Program::Runc {
        return None;
    }
    let Some(line) = runc_version() else { return Some("this machine has no runc".to_owned()) };
    let since = entry.since?;
    let older = numbers(line.trim_start_matches(|c: char| !c.is_ascii_digit())) < numbers(since);
    older.then(|| format!("runc has it since {since}, here is {line:?}"))
}

/// What runc says of itself, if it is there.
fn runc_version() -> Option<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    VERSION.get_or_init(|| Program::Runc.version()).as_deref()
}

/// Major and minor of a version.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').take(2).map_while(|part| part.parse().ok()).collect()
}

pub(crate) use report::report;

#[cfg(test)]
#[path = "conformance_test.rs"]
mod conformance_test;
