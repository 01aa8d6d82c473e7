//! End-to-end cases, by topic. Runs on a machine with KVM where Cofferdam is installed: the test host.
//!
//! Invariant: a case leaves nothing behind. After each one the host is compared with what it was before.
//!
//! In an emulated host, a case that fails is tried once more, and what it failed with is printed: there, a
//! processor can stand still for longer than any limit. `COFFERDAM_TEST_AGAIN=1` asks for it.
#![deny(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};

mod call;
mod cases;
mod conformance;
mod engines;
mod leftovers;
mod live;
mod monitor;
mod pod;
mod run;
mod tap;
mod terminal;

use cases::Case;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time: the cases look at the whole host for leftovers.
    arguments.test_threads = Some(1);
    let mut trials: Vec<Trial> = cases::all().into_iter().map(trial).collect();
    trials.extend(engines::trials(&arguments, again()));
    trials.extend(conformance::trials(again()));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(error) = conformance::report() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Whether a case that fails is tried once more.
fn again() -> bool {
    std::env::var_os("COFFERDAM_TEST_AGAIN").is_some_and(|value| value == "1")
}

/// A case as a trial, tried again if that is asked for.
fn trial(case: Case) -> Trial {
    let again = again();
    Trial::test(case.name, move || {
        let result = attempt(case).or_else(|error| {
            if !again {
                return Err(error);
            }
            println!("AGAIN: {} failed: {error:?}", case.name);
            attempt(case)
        });
        result.map_err(|error| format!("{error:?}").into())
    })
}

/// The body of a case, then the check for leftovers.
fn attempt(case: Case) -> Result<()> {
    let before = leftovers::Host::now();
    let result = (case.body)();
    let clean = before.unchanged();
    result.and(clean)
}
