//! Signals sent to `cofferdam run` reach the container's first process.

use anyhow::Result;
use nix::sys::signal::Signal;

use super::cases;
use crate::run::Run;

cases!("signals":
    a_handler_in_the_container_runs,
    a_signal_without_handler_ends_an_ordinary_process,
    user_signals_are_forwarded,
    a_first_process_may_ignore_sigterm,
    the_exit_code_of_a_signal_is_128_and_its_number,
);

fn a_handler_in_the_container_runs() -> Result<()> {
    let script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let mut run = Run::shell(script).start()?;
    run.wait_for("ready")?;
    run.signal(Signal::SIGTERM)?;
    run.finish()?.exits(7)?.has("caught").map(drop)
}

fn a_signal_without_handler_ends_an_ordinary_process() -> Result<()> {
    // Python leaves SIGINT's default to a handler of its own, so that pid 1 ends by it.
    let script = "import time; print('ready', flush=True)\ntry: time.sleep(100)\nexcept KeyboardInterrupt: print('interrupted')";
    let mut run = Run::command(&["python3", "-c", script]).start()?;
    run.wait_for("ready")?;
    run.signal(Signal::SIGINT)?;
    run.finish()?.exits(0)?.has("interrupted").map(drop)
}

fn user_signals_are_forwarded() -> Result<()> {
    let script = "trap 'echo one' USR1; trap 'echo two; exit 0' USR2; trap 'echo hup' HUP; \
                  echo ready; while :; do sleep 0.1; done";
    let mut run = Run::shell(script).start()?;
    run.wait_for("ready")?;
    run.signal(Signal::SIGUSR1)?;
    run.wait_for("one")?;
    run.signal(Signal::SIGHUP)?;
    run.wait_for("hup")?;
    run.signal(Signal::SIGUSR2)?;
    run.finish()?.exits(0)?.has("two").map(drop)
}

fn a_first_process_may_ignore_sigterm() -> Result<()> {
    let script = "trap '' TERM; trap 'exit 3' USR1; echo ready; while :; do sleep 0.1; done";
    let mut run = Run::shell(script).start()?;
    run.wait_for("ready")?;
    run.signal(Signal::SIGTERM)?;
    run.signal(Signal::SIGUSR1)?;
    run.finish()?.exits(3).map(drop)
}

fn the_exit_code_of_a_signal_is_128_and_its_number() -> Result<()> {
    let script = "import os, signal; signal.signal(signal.SIGSEGV, signal.SIG_DFL); os.abort()";
    Run::command(&["sh", "-c", &format!("python3 -c '{script}'; exit $?")])
        .output()?
        .exits(134)
        .map(drop)
}
