//! What is the same with podman and docker: terminals, attaching and detaching.

use anyhow::{Result, ensure};

use super::cases;
use super::engine::{Engine, IMAGE, Kind};
use crate::run::unique_id;
use crate::terminal::Terminal;

cases!(a_terminal, exec_with_a_terminal, attach_and_detach, attach_without_a_terminal);

/// The engine's command on a terminal.
fn on_terminal(engine: &Engine, arguments: &[&str]) -> Result<Terminal> {
    let mut command = engine.command();
    command.args(arguments);
    Terminal::of(command, 31, 97)
}

fn a_terminal(engine: &Engine) -> Result<()> {
    let script = "tty; read x; echo \"got $x\"; stty size; exit 6";
    let mut terminal =
        on_terminal(engine, &["run", "--rm", "-it", "--network=none", IMAGE, "sh", "-c", script])?;
    terminal.wait_for("/dev/pts/0")?;
    terminal.types("word\r")?;
    terminal.wait_for("got word")?;
    terminal.wait_for("31 97")?;
    ensure!(terminal.finish()? == 6);
    Ok(())
}

fn exec_with_a_terminal(engine: &Engine) -> Result<()> {
    let name = engine.detached(&[], "sleep 1000")?;
    // The first size may come late, too.
    let script = "trap 'stty size; stty size | grep -qx \"50 132\" && exit 8' WINCH; echo ready; \
                  while :; do sleep 0.1; done";
    let mut terminal = on_terminal(engine, &["exec", "-it", &name, "sh", "-c", script])?;
    terminal.wait_for("ready")?;
    // The engine's command begins to listen for changes some time after it has shown output.
    crate::call::eventually("the new size", || {
        terminal.resize(50, 132)?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        Ok(terminal.text().contains("50 132"))
    })?;
    ensure!(terminal.finish()? == 8);
    Ok(())
}

/// The exit code of `attach` for a container that ends with `code`: docker passes it on, podman does not.
fn told_by_attach(engine: &Engine, code: i32) -> i32 {
    if engine.kind == Kind::Docker { code } else { 0 }
}

fn attach_and_detach(engine: &Engine) -> Result<()> {
    let name = unique_id();
    let script = "while read x; do echo \"got $x\"; done; echo over; exit 3";
    let flags =
        ["run", "-it", "--network=none", "--name", &name, "--detach-keys", "ctrl-x,x", IMAGE];
    let mut terminal = on_terminal(engine, &[&flags[..], &["sh", "-c", script]].concat())?;
    terminal.types("one\r")?;
    terminal.wait_for("got one")?;
    // podman takes only keys that come one by one.
    terminal.types("\x18")?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    terminal.types("x")?;
    terminal.finish()?;
    ensure!(engine.inspect(&name, "{{.State.Running}}")? == "true");
    let mut terminal = on_terminal(engine, &["attach", &name])?;
    terminal.types("two\r")?;
    terminal.wait_for("got two")?;
    terminal.types("\x04")?;
    ensure!(terminal.finish()? == told_by_attach(engine, 3));
    engine.call(&["logs", &name])?.exits(0)?.has("got one")?.has("got two")?.has("over").map(drop)
}

fn attach_without_a_terminal(engine: &Engine) -> Result<()> {
    let script = "trap 'echo asked; exit 2' USR1; echo ready; while :; do sleep 0.1; done";
    let name = engine.detached(&[], script)?;
    engine.logs(&name, "ready")?;
    let mut attached = engine.begin(&["attach", "--no-stdin", &name])?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    engine.call(&["kill", "--signal", "USR1", &name])?.exits(0)?;
    attached.wait_for("asked")?;
    attached.finish()?.exits(told_by_attach(engine, 2)).map(drop)
}
