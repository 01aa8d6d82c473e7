//! End-to-end cases, by topic. Runs on a machine with KVM where Cofferdam is installed: the test host.
//!
//! Invariant: a case leaves nothing behind. After each one the host is compared with what it was before.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

mod cases;
mod leftovers;
mod monitor;
mod run;
mod terminal;

use cases::Case;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time: the cases look at the whole host for leftovers.
    arguments.test_threads = Some(1);
    let trials = cases::all().into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A case as a trial: its body, then the check for leftovers.
fn trial(case: Case) -> Trial {
    Trial::test(case.name, move || {
        let before = leftovers::Host::now();
        let result = (case.body)();
        let clean = before.unchanged();
        result.and(clean).map_err(|error| format!("{error:?}").into())
    })
}
