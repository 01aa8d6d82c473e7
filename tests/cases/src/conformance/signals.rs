//! `kill`, `pause` and `resume`.

use anyhow::{Result, ensure};

use super::runtime::{Container, Runtime, plain};
use super::{Alone, Clause, Group, Step, alone, step};

/// Groups of this topic.
pub(super) const GROUPS: &[Group] =
    &[Group::With("pause", &["run", "--detach"], plain, PAUSE), Group::Alone("kill", KILL)];

const PAUSE: &[Clause<Step>] = &[
    step("resume_of_a_running_one_is_refused", "runc resume", |c| fails(c, &["resume"])),
    step("pause", "runc pause", |c| {
        c.prints("started")?;
        c.call(&["pause"])?.exits(0).map(drop)
    }),
    step("state_is_paused", "runc state", |c| c.is("paused")),
    step("pause_twice_is_refused", "runc pause", |c| fails(c, &["pause"])),
    step("exec_is_refused", "runc exec", |c| {
        let outcome = c.exec(&[], &["true"])?;
        ensure!(outcome.code != 0, "{outcome}");
        outcome.complains("paused").map(drop)
    }),
    step("start_is_refused", "runc start", |c| fails(c, &["start"])),
    step("exec_ignore_paused_runs_later", "runc exec --ignore-paused", |c| {
        let arguments = ["exec", "--ignore-paused", &c.id, "echo", "later"];
        let call = c.runtime.start(&arguments, std::process::Stdio::null())?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        c.call(&["resume"])?.exits(0)?;
        call.finish()?.exits(0)?.prints("later").map(drop)
    }),
    step("resume", "runc resume", |c| {
        c.is("running")?;
        ensure!(c.shell("echo awake")? == "awake");
        Ok(())
    }),
    step("delete_force_of_a_paused_one", "runc delete --force", |c| {
        c.call(&["pause"])?.exits(0)?;
        c.call(&["delete", "--force"])?.exits(0)?;
        ensure!(c.exit_code()? == 137);
        Ok(())
    }),
];

fn fails(container: &Container<'_>, command: &[&str]) -> Result<()> {
    let outcome = container.call(command)?;
    ensure!(outcome.code != 0, "{outcome}");
    Ok(())
}

const KILL: &[Clause<Alone>] = &[
    alone("names_and_numbers", "runc kill: SIGNAL", names_and_numbers),
    alone("an_unknown_signal_is_refused", "runc kill: SIGNAL", |runtime| {
        let container = runtime.detached(super::WAITS, plain)?;
        container.prints("started")?;
        let outcome = runtime.call(&["kill", &container.id, "NOSUCH"])?;
        ensure!(outcome.code != 0, "{outcome}");
        let outcome = outcome.complains("NOSUCH");
        container.is("running")?;
        outcome.map(drop)
    }),
    alone("sigkill_gives_137", "runtime: kill", |runtime| {
        let container = runtime.detached("trap '' TERM; echo started; sleep 1000", plain)?;
        container.prints("started")?;
        container.kill("KILL")?;
        ensure!(container.exit_code()? == 137);
        Ok(())
    }),
    alone("a_created_one_ends_by_sigterm", "runtime: kill", |runtime| {
        let container = runtime.create("echo started", plain)?;
        container.call(&["kill"])?.exits(0)?;
        container.becomes("stopped")?;
        ensure!(container.output()?.is_empty(), "{}", container.output()?);
        ensure!(container.exit_code()? != 0);
        fails(&container, &["start"])?;
        container.call(&["delete"])?.exits(0).map(drop)
    }),
    alone("a_created_one_ends_by_a_signal_to_the_process_of_the_pid_file", "runtime: kill", |r| {
        use nix::sys::signal::{Signal, kill};
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
            let container = r.create("echo started", plain)?;
            kill(nix::unistd::Pid::from_raw(container.pid), signal)?;
            ensure!(container.exit_code()? != 0);
            container.becomes("stopped")?;
            container.call(&["delete"])?.exits(0)?;
        }
        Ok(())
    }),
    alone("a_created_one_is_paused_and_resumed", "runc pause", |runtime| {
        let container = runtime.create("echo started", plain)?;
        container.call(&["pause"])?.exits(0)?;
        container.is("paused")?;
        fails(&container, &["start"])?;
        fails(&container, &["delete"])?;
        container.call(&["resume"])?.exits(0)?;
        container.is("created")?;
        container.call(&["start"])?.exits(0)?;
        container.prints("started")?;
        container.becomes("stopped")?;
        container.call(&["delete"])?.exits(0).map(drop)
    }),
    alone("all", "runc kill --all", |runtime| {
        // To how many is another matter: for runc 1.3 the flag has no meaning any more.
        let script = "trap 'echo first' USR1; echo ready; while :; do sleep 0.1; done";
        let container = runtime.detached(script, plain)?;
        container.prints("ready")?;
        runtime.call(&["kill", "--all", &container.id, "USR1"])?.exits(0)?;
        container.prints("first")
    }),
    alone("a_signal_to_the_process_of_the_pid_file", "runc create --pid-file", |runtime| {
        use nix::sys::signal::{Signal, kill};
        let container = runtime.detached(super::WAITS, plain)?;
        container.prints("started")?;
        kill(nix::unistd::Pid::from_raw(container.pid), Signal::SIGTERM)?;
        let code = container.exit_code()?;
        ensure!(code == 7, "exit code {code}");
        Ok(())
    }),
    alone("the_process_of_the_pid_file_can_be_killed", "runc create --pid-file", |runtime| {
        use nix::sys::signal::{Signal, kill};
        let container = runtime.detached(super::WAITS, plain)?;
        container.prints("started")?;
        kill(nix::unistd::Pid::from_raw(container.pid), Signal::SIGKILL)?;
        let code = container.exit_code()?;
        ensure!(code == 137, "exit code {code}");
        container.becomes("stopped")?;
        container.call(&["delete"])?.exits(0).map(drop)
    }),
];

fn names_and_numbers(runtime: &Runtime) -> Result<()> {
    let script = "for s in USR1 USR2 HUP INT; do trap \"echo got $s\" $s; done; trap 'exit 3' TERM; \
                  echo started; while :; do sleep 0.1; done";
    let container = runtime.detached(script, plain)?;
    container.prints("started")?;
    for (signal, name) in [("USR1", "USR1"), ("SIGUSR2", "USR2"), ("1", "HUP"), ("sigint", "INT")] {
        container.kill(signal)?;
        container.prints(&format!("got {name}"))?;
    }
    // SIGTERM, if none is named.
    container.call(&["kill"])?.exits(0)?;
    let code = container.exit_code()?;
    ensure!(code == 3, "exit code {code}");
    Ok(())
}
