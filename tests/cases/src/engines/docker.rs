//! What docker alone has.

use anyhow::Result;

use super::cases;
use super::engine::Engine;
use crate::call::eventually;

cases!(update, restart_policy, events);

fn update(engine: &Engine) -> Result<()> {
    let name = engine.detached(&["--memory=128m"], "sleep 1000")?;
    engine
        .call(&["update", "--memory=64m", "--memory-swap=64m", "--pids-limit=33", &name])?
        .exits(0)?;
    engine
        .call(&["exec", &name, "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"])?
        .exits(0)?
        .prints("67108864\n33")
        .map(drop)
}

fn restart_policy(engine: &Engine) -> Result<()> {
    let name = engine.detached(&["--restart=on-failure:2"], "exit 1")?;
    crate::call::eventually("two restarts", || {
        let state =
            engine.inspect(&name, "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}")?;
        Ok(state == "2 exited 1")
    })
}

fn events(engine: &Engine) -> Result<()> {
    let name = engine.detached(&[], "exit 7")?;
    engine.call(&["wait", &name])?.exits(0)?.prints("7")?;
    let filter = format!("container={name}");
    let flags = [
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        &filter,
        "--format",
        "{{.Action}}",
    ];
    // docker tells of the end a moment after whoever waits for it.
    eventually("create, start and die", || {
        let text = engine.call(&flags)?.exits(0)?.text();
        Ok(["create", "start", "die"].iter().all(|action| text.lines().any(|line| line == *action)))
    })
}
