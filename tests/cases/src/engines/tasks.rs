//! The life of a container with containerd.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cases;
use super::containerd::{Containerd, IMAGE};
use super::engine::Engine;
use crate::call::eventually;
use crate::run::unique_id;
use crate::terminal::Terminal;

cases!(Containerd:
    run_prints_and_exits,
    run_tells_why_a_program_cannot_start,
    layers_lie_above_one_another,
    standard_input,
    a_terminal,
    exec,
    exec_with_a_terminal,
    pause_and_resume,
    signals_and_status,
    force_kills_and_frees_the_name,
    metrics,
    events,
    out_of_memory,
    logs_in_files_and_loggers,
    attach,
    a_long_stream,
    it_starts_again,
    what_cannot_be_is_refused_in_one_sentence,
);

fn run_prints_and_exits(containerd: &Containerd) -> Result<()> {
    let outcome = containerd.run(&[], &["sh", "-c", "echo out; echo err >&2; exit 3"])?;
    outcome.exits(3)?.prints("out")?.complains("err").map(drop)
}

fn run_tells_why_a_program_cannot_start(containerd: &Containerd) -> Result<()> {
    let outcome = containerd.run(&[], &["no-such-program"])?;
    ensure!(outcome.code != 0, "{outcome}");
    outcome.complains("\"no-such-program\": executable file not found in $PATH").map(drop)
}

/// What the image's configuration says is there, too.
fn layers_lie_above_one_another(containerd: &Containerd) -> Result<()> {
    let script = "echo $OF $PWD ${BASH_VERSION%%.*}; cat changed; ls removed 2>&1 | grep -c 'No such'; \
                  echo written > changed; cat changed";
    let wanted = "image /etc 5\nof the last layer\n1\nwritten";
    // The second one finds the image as it was.
    for _ in 0..2 {
        containerd.run(&[], &["bash", "-c", script])?.exits(0)?.prints(wanted)?;
    }
    Ok(())
}

/// Of ctr's standard input the container sees the end only if that comes after its creation: it reads as much as there is.
fn standard_input(containerd: &Containerd) -> Result<()> {
    let id = unique_id();
    let text = "a line\n".repeat(10_000);
    let fixed = ["run", "--rm", "--runtime", Containerd::runtime(), IMAGE, &id];
    let length = text.len().to_string();
    let command = ["head", "-c", &length];
    let outcome = containerd.ctr_with(&[&fixed[..], &command].concat(), &text)?.exits(0)?;
    ensure!(outcome.text() == text, "{} bytes came back", outcome.stdout.len());
    Ok(())
}

fn a_terminal(containerd: &Containerd) -> Result<()> {
    let id = unique_id();
    let script = "tty; read x; echo \"got $x\"; stty size; exit 6";
    let fixed = ["run", "--rm", "--tty", "--runtime", Containerd::runtime(), IMAGE, &id];
    let command = containerd.command(&[&fixed[..], &["sh", "-c", script]].concat());
    let mut terminal = Terminal::of(command, 31, 97)?;
    terminal.wait_for("/dev/pts/0")?;
    terminal.types("word\r")?;
    terminal.wait_for("got word\r")?;
    terminal.wait_for("31 97")?;
    ensure!(terminal.finish()? == 6);
    Ok(())
}

fn exec(containerd: &Containerd) -> Result<()> {
    let id = containerd.detached(&["--env", "MORE=flag"], "sleep 1000")?;
    let outcome = containerd.exec(&id, "echo $OF $MORE $PWD; echo err >&2; exit 4")?;
    outcome.exits(4)?.prints("image flag /etc")?.complains("err")?;
    let arguments = ["task", "exec", "--exec-id", "reads", &id, "cat"];
    containerd.ctr_with(&arguments, "typed\n")?.exits(0)?.prints("typed")?;
    let flags = ["task", "exec", "--exec-id", "other", "--user", "1000", "--cwd", "/tmp", &id];
    let outcome = containerd.ctr(&[&flags[..], &["sh", "-c", "id -u; pwd"]].concat())?;
    outcome.exits(0)?.prints("1000\n/tmp")?;
    let outcome = containerd.ctr(&["task", "exec", "--exec-id", "none", &id, "no-such-program"])?;
    ensure!(outcome.code != 0, "{outcome}");
    outcome.complains("\"no-such-program\": executable file not found in $PATH")?;
    // What failed has left its name.
    let flags = ["task", "exec", "--detach", "--exec-id", "long", &id];
    containerd
        .ctr(&[&flags[..], &["sh", "-c", "echo made > /tmp/made; sleep 1000"]].concat())?
        .exits(0)?;
    eventually("the file of the program in the background", || {
        Ok(containerd.exec(&id, "cat /tmp/made")?.text() == "made\n")
    })?;
    containerd.ctr(&["task", "kill", "--signal", "KILL", "--exec-id", "long", &id])?.exits(0)?;
    containerd.exec(&id, "true")?.exits(0).map(drop)
}

fn exec_with_a_terminal(containerd: &Containerd) -> Result<()> {
    let id = containerd.detached(&[], "sleep 1000")?;
    let script = "trap 'stty size; stty size | grep -qx \"50 132\" && exit 8' WINCH; stty size; \
                  echo ready; while :; do sleep 0.1; done";
    let fixed = ["task", "exec", "--tty", "--exec-id", "t", &id, "sh", "-c", script];
    let mut terminal = Terminal::of(containerd.command(&fixed), 31, 97)?;
    terminal.wait_for("ready")?;
    eventually("the new size", || {
        terminal.resize(50, 132)?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(terminal.text().contains("50 132"))
    })?;
    ensure!(terminal.finish()? == 8);
    Ok(())
}

fn pause_and_resume(containerd: &Containerd) -> Result<()> {
    let (id, log) = containerd.logged(&[], "while :; do echo tick; sleep 0.1; done")?;
    let ticks = || Ok::<_, anyhow::Error>(fs::read_to_string(&log)?.lines().count());
    eventually("the container to tick", || Ok(log.exists() && ticks()? > 2))?;
    containerd.ctr(&["task", "pause", &id])?.exits(0)?;
    containerd.wait_for(&id, "PAUSED")?;
    std::thread::sleep(Duration::from_secs(1));
    let before = ticks()?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(ticks()? == before, "it went on");
    let outcome = containerd.exec(&id, "true")?;
    ensure!(outcome.code != 0, "{outcome}");
    containerd.ctr(&["task", "resume", &id])?.exits(0)?;
    containerd.wait_for(&id, "RUNNING")?;
    eventually("the container to tick again", || Ok(ticks()? > before))?;
    containerd.exec(&id, "echo awake")?.exits(0)?.prints("awake").map(drop)
}

fn signals_and_status(containerd: &Containerd) -> Result<()> {
    let script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done";
    let (id, log) = containerd.logged(&[], script)?;
    eventually("the trap", || Ok(fs::read_to_string(&log).is_ok_and(|text| text == "ready\n")))?;
    ensure!(containerd.status(&id)? == "RUNNING");
    containerd.ctr(&["task", "kill", "--signal", "USR1", &id])?.exits(0)?;
    containerd.wait_for(&id, "STOPPED")?;
    // Nobody is there any more.
    let outcome = containerd.ctr(&["task", "kill", &id])?;
    ensure!(outcome.code != 0, "{outcome}");
    ensure!(containerd.delete(&id)? == 9);
    // Those that the first one leaves behind, too.
    let (id, log) = containerd.logged(&[], "sleep 1000 & echo ready; wait")?;
    eventually("the start", || Ok(fs::read_to_string(&log).is_ok_and(|text| text == "ready\n")))?;
    let outcome = containerd.ctr(&["task", "delete", &id])?;
    ensure!(outcome.code != 0, "a running task was deleted: {outcome}");
    containerd.ctr(&["task", "kill", "--all", "--signal", "KILL", &id])?.exits(0)?;
    containerd.wait_for(&id, "STOPPED")?;
    ensure!(containerd.delete(&id)? == 137);
    Ok(())
}

fn force_kills_and_frees_the_name(containerd: &Containerd) -> Result<()> {
    let id = unique_id();
    let fixed = ["container", "create", "--runtime", Containerd::runtime(), IMAGE, &id];
    containerd.ctr(&[&fixed[..], &["sleep", "1000"]].concat())?.exits(0)?;
    containerd.ctr(&["task", "start", "--detach", &id])?.exits(0)?;
    containerd.ctr(&["task", "delete", "--force", &id])?;
    ensure!(containerd.status(&id)?.is_empty());
    containerd.ctr(&["task", "start", "--detach", &id])?.exits(0)?;
    ensure!(containerd.status(&id)? == "RUNNING");
    Ok(())
}

fn metrics(containerd: &Containerd) -> Result<()> {
    let limit = 64 << 20;
    let id = containerd.detached(&["--memory-limit", &limit.to_string()], "sleep 1000")?;
    let outcome = containerd.ctr(&["task", "metrics", "--format", "json", &id])?.exits(0)?;
    let metrics: Value = serde_json::from_slice(&outcome.stdout)?;
    let number = |path: &str| metrics.pointer(path).and_then(Value::as_u64);
    ensure!(number("/memory/usage_limit") == Some(limit), "{metrics:#}");
    ensure!(number("/memory/usage").is_some_and(|bytes| bytes > 0 && bytes < limit), "{metrics:#}");
    ensure!(number("/pids/current") == Some(1), "{metrics:#}");
    ensure!(number("/cpu/usage_usec").is_some_and(|time| time > 0), "{metrics:#}");
    Ok(())
}

fn events(containerd: &Containerd) -> Result<()> {
    let events = containerd.events()?;
    let id = containerd.detached(&[], "sleep 1000")?;
    containerd.ctr(&["task", "exec", "--exec-id", "e", &id, "sh", "-c", "exit 4"])?.exits(4)?;
    containerd.ctr(&["task", "pause", &id])?.exits(0)?;
    containerd.ctr(&["task", "resume", &id])?.exits(0)?;
    containerd.ctr(&["task", "kill", "--signal", "KILL", &id])?.exits(0)?;
    containerd.wait_for(&id, "STOPPED")?;
    ensure!(containerd.delete(&id)? == 137);
    let seen = events.end_with(&id, &["/tasks/exit", "/tasks/delete"])?;
    let topics: Vec<&str> = seen.iter().map(|(topic, _)| topic.as_str()).collect();
    let wanted = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/paused",
        "/tasks/resumed",
        "/tasks/exit",
        "/tasks/delete",
    ];
    ensure!(topics == wanted, "{topics:?}");
    let [_, start, _, _, exec, _, _, exit, delete] = &seen[..] else { unreachable!() };
    ensure!(exec.1["id"] == "e" && exec.1["exit_status"] == 4, "{exec:?}");
    ensure!(exit.1["id"] == *id && exit.1["exit_status"] == 137, "{exit:?}");
    ensure!(start.1["pid"].as_u64() > Some(0) && start.1["pid"] == exit.1["pid"], "{seen:#?}");
    ensure!(exit.1["exited_at"] == delete.1["exited_at"], "{exit:?} {delete:?}");
    Ok(())
}

fn out_of_memory(containerd: &Containerd) -> Result<()> {
    let events = containerd.events()?;
    let limit = (32 << 20).to_string();
    let script = "a=x; while :; do a=$a$a; done";
    let id = containerd.detached(&["--memory-limit", &limit], script)?;
    containerd.wait_for(&id, "STOPPED")?;
    eventually("the event", || Ok(events.of(&id)?.iter().any(|(topic, _)| topic == "/tasks/oom")))?;
    ensure!(containerd.delete(&id)? == 137);
    Ok(())
}

fn logs_in_files_and_loggers(containerd: &Containerd) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let script = "echo out; echo err >&2";
    let (id, log) = containerd.logged(&[], script)?;
    containerd.wait_for(&id, "STOPPED")?;
    let text = fs::read_to_string(&log)?;
    // Which of the two streams is written first is nobody's promise.
    ensure!(["out\nerr\n", "err\nout\n"].contains(&&*text), "{text}");
    ensure!(containerd.delete(&id)? == 0);
    let program = containerd.file("logger");
    let text = "#!/bin/sh\nto=$2\necho \"$CONTAINER_NAMESPACE $CONTAINER_ID\" > $to\nexec 5>&-\n\
                cat <&3 >> $to\ncat <&4 >> $to\nmv $to $to.done\n";
    fs::write(&program, text)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let to = containerd.file("logged");
    let uri = format!("binary://{}?to={}", program.display(), to.display());
    let id = containerd.detached(&["--log-uri", &uri], script)?;
    containerd.wait_for(&id, "STOPPED")?;
    let done = containerd.file("logged.done");
    eventually("the logger's end", || Ok(done.exists()))?;
    ensure!(fs::read_to_string(&done)? == format!("default {id}\nout\nerr\n"));
    ensure!(containerd.delete(&id)? == 0);
    Ok(())
}

fn attach(containerd: &Containerd) -> Result<()> {
    let script = "trap 'echo asked; exit 2' USR1; while :; do sleep 0.1; done";
    let id = containerd.detached(&[], script)?;
    let mut attached = containerd.begin(&["task", "attach", &id])?;
    std::thread::sleep(Duration::from_secs(2));
    containerd.ctr(&["task", "kill", "--signal", "USR1", &id])?.exits(0)?;
    attached.wait_for("asked")?;
    attached.finish()?.exits(2).map(drop)
}

/// More than all pipes on the way hold.
fn a_long_stream(containerd: &Containerd) -> Result<()> {
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end";
    let outcome = containerd.run(&[], &["sh", "-c", script])?.exits(0)?;
    ensure!(outcome.stdout.len() == 3_000_005, "{} bytes", outcome.stdout.len());
    ensure!(outcome.stdout.ends_with(b"x\nend\n"));
    Ok(())
}

/// A task is gone; its container gets another one.
fn it_starts_again(containerd: &Containerd) -> Result<()> {
    let id = containerd.detached(&[], "exit 5")?;
    for _ in 0..2 {
        containerd.wait_for(&id, "STOPPED")?;
        ensure!(containerd.end(&id)? == 5);
        containerd.ctr(&["task", "start", "--detach", &id])?.exits(0)?;
    }
    containerd.wait_for(&id, "STOPPED")
}

fn what_cannot_be_is_refused_in_one_sentence(containerd: &Containerd) -> Result<()> {
    let id = containerd.detached(&[], "sleep 1000")?;
    let again = ["run", "--detach", "--runtime", Containerd::runtime(), IMAGE, &id, "true"];
    ensure!(containerd.ctr(&again)?.code != 0);
    let outcome = containerd.ctr(&["task", "start", &id])?;
    ensure!(outcome.code != 0 && outcome.stderr.contains("already exists"), "{outcome}");
    if !Engine::is_ours() {
        return Ok(());
    }
    let outcome = containerd.ctr(&["task", "checkpoint", &id])?;
    ensure!(outcome.code != 0, "{outcome}");
    outcome.complains("cannot be saved yet")?;
    let config = containerd.file("config.toml");
    fs::write(&config, "kernel = \"/no/such/kernel\"\n")?;
    let config = config.display().to_string();
    let outcome = containerd.run(&["--runtime-config-path", &config], &["true"])?;
    ensure!(outcome.code != 0, "{outcome}");
    let sentence = "opening the guest kernel /no/such/kernel: No such file or directory";
    let line = outcome.stderr.lines().find(|line| line.contains(sentence));
    line.with_context(|| format!("{outcome}"))?;
    Ok(())
}
