//! With `--tty` the container has a terminal, and the person's own is given back as it was.

use anyhow::{Result, ensure};

use super::cases;
use crate::run::Run;
use crate::terminal::Terminal;

cases!("tty":
    the_container_has_a_terminal_of_the_right_size,
    a_new_size_is_passed_on,
    control_c_reaches_the_foreground_process,
    a_shell_on_a_terminal_works,
    a_terminal_in_a_bundle,
);

fn the_container_has_a_terminal_of_the_right_size() -> Result<()> {
    let run = Run::shell("tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo three")
        .flags(&["--tty"]);
    let mut terminal = Terminal::start(&run, 31, 97)?;
    terminal.wait_for("three")?;
    let text = terminal.text();
    ensure!(text.contains("/dev/pts/0") && text.contains("31 97"), "{text}");
    ensure!(terminal.finish()? == 0, "{text}");
    Ok(())
}

fn a_new_size_is_passed_on() -> Result<()> {
    let script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done";
    let mut terminal = Terminal::start(&Run::shell(script).flags(&["--tty"]), 24, 80)?;
    terminal.wait_for("ready")?;
    terminal.resize(50, 132)?;
    terminal.wait_for("50 132")?;
    ensure!(terminal.finish()? == 0);
    Ok(())
}

fn control_c_reaches_the_foreground_process() -> Result<()> {
    let script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.1; done";
    let mut terminal = Terminal::start(&Run::shell(script).flags(&["--tty"]), 24, 80)?;
    terminal.wait_for("ready")?;
    terminal.types("\x03")?;
    terminal.wait_for("interrupted")?;
    ensure!(terminal.finish()? == 9);
    Ok(())
}

fn a_shell_on_a_terminal_works() -> Result<()> {
    let run = Run::command(&["bash", "--norc", "-i"]).flags(&["--tty"]);
    let mut terminal = Terminal::start(&run, 24, 80)?;
    terminal.types("echo $((6*7))-answer\r")?;
    terminal.wait_for("42-answer")?;
    terminal.types("sleep 100 &\rjobs\r")?;
    terminal.wait_for("Running")?;
    terminal.types("exit 5\r")?;
    ensure!(terminal.finish()? == 5);
    Ok(())
}

fn a_terminal_in_a_bundle() -> Result<()> {
    let run = Run::bundle("tty; ls -l /dev/console", |config| {
        config["process"]["terminal"] = true.into();
        config["process"]["consoleSize"] = serde_json::json!({ "height": 40, "width": 100 });
    })?;
    let mut terminal = Terminal::start(&run, 24, 80)?;
    terminal.wait_for("/dev/console")?;
    terminal.wait_for("/dev/pts/0")?;
    ensure!(terminal.finish()? == 0);
    Ok(())
}
