//! podman and docker with Cofferdam as their runtime: what people do with containers, by the engines' own
//! command lines.
//!
//! Invariant: an engine runs only while its cases do, and what it leaves on the host is removed with it.
//!
//! Starting an engine takes longer than most cases, so those of one engine share it: the first trial runs all
//! that were asked for. `COFFERDAM_CASE_ENGINE_RUNTIME=runc` runs the same cases with runc.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};

use crate::leftovers;

mod both;
mod docker;
mod engine;
mod flags;
mod podman;
mod terminal;

use engine::{Engine, Kind};

/// A case of an engine.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    body: fn(&Engine) -> Result<()>,
}

/// The functions named, as cases.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        /// The cases of this file.
        pub(super) const CASES: &[$crate::engines::Case] =
            &[$($crate::engines::Case { name: stringify!($name), body: $name }),+];
    };
}
use cases;

/// What each case found, by its number; nothing before they ran.
type Findings = Arc<Mutex<Option<Vec<Option<String>>>>>;

/// Every case of both engines. `arguments` say which are asked for; each is tried twice if `again`.
pub(crate) fn trials(arguments: &Arguments, again: bool) -> Vec<Trial> {
    let podman = [both::CASES, flags::CASES, terminal::CASES, podman::CASES].concat();
    let docker = [both::CASES, flags::CASES, terminal::CASES, docker::CASES].concat();
    let mut trials = Vec::new();
    for (kind, cases) in [(Kind::Podman, podman), (Kind::Docker, docker)] {
        let asked: Vec<Case> =
            cases.into_iter().filter(|case| asked(arguments, &name(kind, case))).collect();
        let findings = Findings::default();
        for (number, case) in asked.iter().enumerate() {
            let (asked, findings) = (asked.clone(), findings.clone());
            trials.push(Trial::test(name(kind, case), move || {
                if let Some(why) = kind.lacking() {
                    println!("\nSKIPPED: {why}");
                    return Ok(());
                }
                let mut found = findings.lock().unwrap_or_else(PoisonError::into_inner);
                let found = found.get_or_insert_with(|| all(kind, &asked, again));
                match found.get(number) {
                    Some(None) => Ok(()),
                    Some(Some(error)) => Err(error.clone().into()),
                    None => Err("not run".into()),
                }
            }));
        }
    }
    trials
}

fn name(kind: Kind, case: &Case) -> String {
    format!("{}::{}", kind.name(), case.name)
}

/// Whether the command line asks for the trial `name`.
fn asked(arguments: &Arguments, name: &str) -> bool {
    let fits = |filter: &String| {
        if arguments.exact { name == filter } else { name.contains(filter.as_str()) }
    };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}

/// Runs `cases` with one engine; what it or they leave behind is a fault of the last one.
fn all(kind: Kind, cases: &[Case], again: bool) -> Vec<Option<String>> {
    let before = leftovers::Host::now();
    let mut found: Vec<Option<String>> = match Engine::start(kind) {
        Ok(engine) => cases.iter().map(|case| one(&engine, case, again)).collect(),
        Err(error) => {
            cases.iter().map(|_| Some(format!("starting {}: {error:?}", kind.name()))).collect()
        }
    };
    if let (Err(error), Some(last)) = (before.unchanged(), found.last_mut()) {
        *last = Some(format!("after all: {error:?}\n{}", last.clone().unwrap_or_default()));
    }
    found
}

/// Runs one case, and removes its containers.
fn one(engine: &Engine, case: &Case, again: bool) -> Option<String> {
    let attempt = || {
        let result = (case.body)(engine);
        let clean = engine.clear();
        result.and(clean).err().map(|error| format!("{error:?}"))
    };
    let begin = std::time::Instant::now();
    let mut error = attempt();
    if let (Some(text), true) = (&error, again) {
        println!("\nAGAIN: {} failed: {text}", name(engine.kind, case));
        error = attempt();
    }
    println!("\n{}: {:.1} s", name(engine.kind, case), begin.elapsed().as_secs_f64());
    error
}
