//! What is the same with podman and docker: the life of a container.

use anyhow::{Result, ensure};

use super::cases;
use super::engine::{Engine, IMAGE, Kind, parsed};
use crate::call::eventually;
use crate::run::unique_id;

cases!(
    run_prints_and_exits,
    run_tells_why_a_program_cannot_start,
    standard_input,
    a_container_in_the_background,
    exec,
    stop_sends_the_signal,
    stop_kills_after_its_time_out,
    kill_restart_and_start,
    rm_force,
    pause_and_unpause,
    rm_leaves_nothing,
    the_default_network,
);

fn run_prints_and_exits(engine: &Engine) -> Result<()> {
    let outcome = engine.run(&[], &["sh", "-c", "echo out; echo err >&2; exit 3"])?;
    outcome.exits(3)?.prints("out")?.complains("err").map(drop)
}

fn run_tells_why_a_program_cannot_start(engine: &Engine) -> Result<()> {
    engine.run(&[], &["no-such-program"])?.exits(127)?;
    engine.run(&[], &["/etc/passwd"])?.exits(126).map(drop)
}

fn standard_input(engine: &Engine) -> Result<()> {
    let arguments = ["run", "--rm", "--network=none", "-i", IMAGE, "cat"];
    let text = "a line\n".repeat(10_000);
    let outcome = engine.call_with(&arguments, &text)?.exits(0)?;
    ensure!(outcome.text() == text, "{} bytes came back", outcome.stdout.len());
    Ok(())
}

/// logs, top, stats, inspect, wait.
fn a_container_in_the_background(engine: &Engine) -> Result<()> {
    let name = engine
        .detached(&["--memory", "64m"], "echo first; trap 'exit 5' TERM; sleep 1000 & wait")?;
    engine.logs(&name, "first")?;
    ensure!(engine.inspect(&name, "{{.State.Status}} {{.State.Running}}")? == "running true");
    let pid: i32 = engine.inspect(&name, "{{.State.Pid}}")?.parse()?;
    ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "no process {pid}");
    ensure!(
        engine.inspect(&name, "{{.HostConfig.Runtime}}{{.OCIRuntime}}").is_ok()
            || engine.kind == Kind::Docker
    );
    engine.call(&["ps"])?.exits(0)?.has(&name)?;
    engine.call(&["top", &name])?.exits(0)?.has("sleep 1000")?;
    let format = "{{.MemUsage}} {{.PIDs}}";
    let stats = engine.call(&["stats", "--no-stream", "--format", format, &name])?.exits(0)?.text();
    let words: Vec<&str> = stats.split_whitespace().collect();
    ensure!(words.len() == 4 && !words[0].starts_with("0B"), "{stats}");
    if Engine::is_ours() {
        // Engines read the control group on the host themselves. There they find what the machine costs: its memory,
        // the threads of those who run it, and no limit, because that is the guest's.
        ensure!(words[3].parse::<u32>().is_ok_and(|threads| threads > 2), "{stats}");
        let limit = engine.call(&["exec", &name, "cat", "/sys/fs/cgroup/memory.max"])?.exits(0)?;
        limit.prints("67108864")?;
    } else {
        ensure!(words[3] == "2", "{stats}");
        ensure!(words[2].starts_with("64MiB") || words[2].starts_with("67.1"), "{stats}");
    }
    engine.call(&["kill", "--signal", "TERM", &name])?.exits(0)?;
    engine.call(&["wait", &name])?.exits(0)?.prints("5")?;
    // podman calls it stopped until it has cleaned up.
    eventually("the end to be told", || {
        Ok(engine.inspect(&name, "{{.State.Status}} {{.State.ExitCode}}")? == "exited 5")
    })
}

fn exec(engine: &Engine) -> Result<()> {
    let name = engine.detached(&["--env", "OF=container", "--hostname", "box"], "sleep 1000")?;
    engine.call(&["exec", &name, "sh", "-c", "hostname; exit 4"])?.exits(4)?.prints("box")?;
    engine.call_with(&["exec", "-i", &name, "cat"], "typed\n")?.exits(0)?.prints("typed")?;
    let flags = ["exec", "--user", "user", "--workdir", "/etc", "--env", "MORE=flag", &name];
    let script = "id -un; pwd; echo $OF $MORE; ls /proc | grep -cx 1";
    engine
        .call(&[&flags[..], &["sh", "-c", script]].concat())?
        .exits(0)?
        .prints("user\n/etc\ncontainer flag\n1")?;
    let outcome = engine.call(&["exec", &name, "no-such-program"])?;
    // docker looks for words of its own that no runtime has.
    let code = if engine.kind == Kind::Docker { 126 } else { 127 };
    ensure!(outcome.code == code, "{outcome}");
    engine
        .call(&["exec", "--detach", &name, "sh", "-c", "echo made > /tmp/made; sleep 100"])?
        .exits(0)?;
    crate::call::eventually("the file of the program in the background", || {
        Ok(engine.call(&["exec", &name, "cat", "/tmp/made"])?.text() == "made\n")
    })
}

fn stop_sends_the_signal(engine: &Engine) -> Result<()> {
    let script = "trap 'echo asked; exit 9' INT; echo ready; sleep 1000 & wait";
    let name = engine.detached(&["--stop-signal", "INT"], script)?;
    engine.logs(&name, "ready")?;
    engine.call(&["stop", "--time", "60", &name])?.exits(0)?;
    engine.logs(&name, "asked")?;
    ensure!(engine.inspect(&name, "{{.State.ExitCode}}")? == "9");
    Ok(())
}

fn stop_kills_after_its_time_out(engine: &Engine) -> Result<()> {
    let name = engine.detached(&[], "trap '' TERM; echo ready; while :; do sleep 1; done")?;
    engine.logs(&name, "ready")?;
    engine.call(&["stop", "--time", "1", &name])?.exits(0)?;
    ensure!(engine.inspect(&name, "{{.State.ExitCode}}")? == "137");
    Ok(())
}

fn kill_restart_and_start(engine: &Engine) -> Result<()> {
    let name = engine.detached(&[], "echo begun; sleep 1000")?;
    let begun = |times: usize| {
        crate::call::eventually("the start", || {
            Ok(engine.call(&["logs", &name])?.text().matches("begun").count() == times)
        })
    };
    begun(1)?;
    engine.call(&["restart", "--time", "0", &name])?.exits(0)?;
    begun(2)?;
    engine.call(&["kill", &name])?.exits(0)?;
    engine.call(&["wait", &name])?.exits(0)?.prints("137")?;
    engine.call(&["start", &name])?.exits(0)?;
    begun(3)?;
    ensure!(engine.inspect(&name, "{{.State.Running}}")? == "true");
    Ok(())
}

fn rm_force(engine: &Engine) -> Result<()> {
    let name = engine.detached(&[], "sleep 1000")?;
    engine.call(&["rm", &name]).and_then(|outcome| {
        ensure!(outcome.code != 0, "{outcome}");
        Ok(())
    })?;
    engine.call(&["rm", "--force", &name])?.exits(0)?;
    ensure!(engine.call(&["inspect", &name])?.code != 0);
    Ok(())
}

fn pause_and_unpause(engine: &Engine) -> Result<()> {
    let name = engine.detached(&[], "sleep 1000")?;
    engine.call(&["pause", &name])?.exits(0)?;
    ensure!(engine.inspect(&name, "{{.State.Status}}")? == "paused");
    ensure!(engine.call(&["exec", &name, "true"])?.code != 0);
    engine.call(&["unpause", &name])?.exits(0)?;
    engine.call(&["exec", &name, "echo", "awake"])?.exits(0)?.prints("awake").map(drop)
}

fn rm_leaves_nothing(engine: &Engine) -> Result<()> {
    let name = unique_id();
    engine.run(&["--name", &name], &["true"])?.exits(0)?;
    engine.call(&["ps", "--all", "--quiet"])?.exits(0)?.prints("")?;
    let outcome = engine.call(&["inspect", &name])?;
    ensure!(outcome.code != 0, "{}", parsed(&outcome)?);
    Ok(())
}

/// A container's network is built later; with the engine's default one it starts all the same. The runtime is named by
/// the engine's flag here, by its configuration elsewhere.
fn the_default_network(engine: &Engine) -> Result<()> {
    let (name, path) = Engine::runtime();
    let flags = match engine.kind {
        Kind::Podman => ["--runtime", path, "run"],
        Kind::Docker => ["run", "--runtime", &name],
    };
    let command = ["--rm", IMAGE, "echo", "started"];
    engine.call(&[&flags[..], &command].concat())?.exits(0)?.prints("started").map(drop)
}
