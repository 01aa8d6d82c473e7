//! podman, docker and containerd with Cofferdam as their runtime: what people do with containers, by the engines' own
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
mod containerd;
mod cri;
mod docker;
mod engine;
mod failures;
mod flags;
mod image;
mod install;
mod overhead;
mod podman;
mod pods;
mod sudden;
mod tasks;
mod terminal;

use containerd::{Containerd, Version};
use cri::Cri;
use engine::{Engine, Kind};

/// A case of an engine.
struct Case<E: 'static = Engine> {
    name: &'static str,
    body: fn(&E) -> Result<()>,
}

impl<E> Clone for Case<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Case<E> {}

/// The functions named, as cases; of another engine than [`Engine`] if that is named first.
macro_rules! cases {
    ($engine:ty: $($name:ident),+ $(,)?) => {
        /// The cases of this file.
        pub(super) const CASES: &[$crate::engines::Case<$engine>] =
            &[$($crate::engines::Case { name: stringify!($name), body: $name }),+];
    };
    ($($name:ident),+ $(,)?) => { cases!($crate::engines::engine::Engine: $($name),+); };
}
use cases;

/// What each case found, by its number; nothing before they ran.
type Findings = Arc<Mutex<Option<Vec<Option<String>>>>>;

/// The cases of one engine.
struct Group<E: 'static> {
    topic: &'static str,
    cases: Vec<Case<E>>,
    /// Why they cannot run here, if so.
    lacking: fn() -> Option<String>,
    start: fn() -> Result<E>,
    /// Removes what a case has left.
    clear: fn(&E) -> Result<()>,
}

impl<E> Clone for Group<E> {
    fn clone(&self) -> Self {
        Self { cases: self.cases.clone(), ..*self }
    }
}

/// Every case of all engines. `arguments` say which are asked for; each is tried twice if `again`.
pub(crate) fn trials(arguments: &Arguments, again: bool) -> Vec<Trial> {
    let podman = Group {
        topic: "podman",
        cases: [both::CASES, flags::CASES, terminal::CASES, podman::CASES].concat(),
        lacking: || Kind::Podman.lacking(),
        start: || Engine::start(Kind::Podman),
        clear: Engine::clear,
    };
    let docker = Group {
        topic: "docker",
        cases: [both::CASES, flags::CASES, terminal::CASES, docker::CASES].concat(),
        lacking: || Kind::Docker.lacking(),
        start: || Engine::start(Kind::Docker),
        clear: Engine::clear,
    };
    let containerd = Group {
        topic: "containerd",
        cases: [
            tasks::CASES,
            sudden::CASES,
            pods::CASES,
            failures::CASES,
            install::CASES,
            overhead::CASES,
        ]
        .concat(),
        lacking: || Version::One.lacking(),
        start: || Containerd::start(Version::One),
        clear: Containerd::clear,
    };
    let containerd2 = Group {
        topic: "containerd2",
        cases: [tasks::CASES, sudden::CASES].concat(),
        lacking: || Version::Two.lacking(),
        start: || Containerd::start(Version::Two),
        clear: Containerd::clear,
    };
    let cri = Group {
        topic: "cri",
        cases: cri::CASES.concat(),
        lacking: || Version::One.lacking(),
        start: || Cri::start(Version::One),
        clear: Cri::clear,
    };
    let cri2 = Group {
        topic: "cri2",
        cases: cri::CASES_FOR_TWO.concat(),
        lacking: || Version::Two.lacking(),
        start: || Cri::start(Version::Two),
        clear: Cri::clear,
    };
    let mut trials = podman.trials(arguments, again);
    trials.extend(docker.trials(arguments, again));
    trials.extend(containerd.trials(arguments, again));
    trials.extend(containerd2.trials(arguments, again));
    trials.extend(cri.trials(arguments, again));
    trials.extend(cri2.trials(arguments, again));
    trials
}

impl<E> Group<E> {
    fn trials(mut self, arguments: &Arguments, again: bool) -> Vec<Trial> {
        let topic = self.topic;
        self.cases.retain(|case| asked(arguments, &name(topic, case)));
        let findings = Findings::default();
        let mut trials = Vec::new();
        for (number, case) in self.cases.iter().enumerate() {
            let (group, findings) = (self.clone(), findings.clone());
            trials.push(Trial::test(name(topic, case), move || {
                if let Some(why) = (group.lacking)() {
                    println!("\nSKIPPED: {why}");
                    return Ok(());
                }
                let mut found = findings.lock().unwrap_or_else(PoisonError::into_inner);
                let found = found.get_or_insert_with(|| group.all(again));
                match found.get(number) {
                    Some(None) => Ok(()),
                    Some(Some(error)) => Err(error.clone().into()),
                    None => Err("not run".into()),
                }
            }));
        }
        trials
    }

    /// Runs the cases with one engine; what it or they leave behind is a fault of the last one.
    fn all(&self, again: bool) -> Vec<Option<String>> {
        let before = leftovers::Host::now();
        let mut found: Vec<Option<String>> = match (self.start)() {
            Ok(engine) => self.cases.iter().map(|case| self.one(&engine, case, again)).collect(),
            Err(error) => {
                let text = format!("starting {}: {error:?}", self.topic);
                self.cases.iter().map(|_| Some(text.clone())).collect()
            }
        };
        if let (Err(error), Some(last)) = (before.unchanged(), found.last_mut()) {
            *last = Some(format!("after all: {error:?}\n{}", last.clone().unwrap_or_default()));
        }
        found
    }

    /// Runs one case, and removes its containers.
    fn one(&self, engine: &E, case: &Case<E>, again: bool) -> Option<String> {
        let attempt = || {
            let result = (case.body)(engine);
            let clean = (self.clear)(engine);
            result.and(clean).err().map(|error| format!("{error:?}"))
        };
        let begin = std::time::Instant::now();
        let mut error = attempt();
        if let (Some(text), true) = (&error, again) {
            println!("\nAGAIN: {} failed: {text}", name(self.topic, case));
            error = attempt();
        }
        let failed = error.as_ref().map(|text| format!(", failed: {text}")).unwrap_or_default();
        let time = begin.elapsed().as_secs_f64();
        println!("\n{}: {time:.1} s{failed}", name(self.topic, case));
        error
    }
}

fn name<E>(topic: &str, case: &Case<E>) -> String {
    format!("{topic}::{}", case.name)
}

/// Whether the command line asks for the trial `name`.
fn asked(arguments: &Arguments, name: &str) -> bool {
    let fits = |filter: &String| {
        if arguments.exact { name == filter } else { name.contains(filter.as_str()) }
    };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}
