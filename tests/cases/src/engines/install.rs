//! A release that is installed below a prefix: containerd runs pods from there, and nothing is left of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::cases;
use super::containerd::{Containerd, IMAGE};
use super::engine::Engine;
use super::sudden::{MONITOR, processes};
use crate::run::unique_id;

cases!(Containerd: an_installation_runs_pods_and_goes);

/// containerd's configuration.
const CONFIG: &str = "/etc/containerd/config.toml";

/// Runs `program`; whether it succeeded, and what it said.
fn call(program: &str, arguments: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(program).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// The same; it has to succeed.
fn done(program: &str, arguments: &[&str]) -> Result<String> {
    let (succeeded, said) = call(program, arguments)?;
    ensure!(succeeded, "{program} {arguments:?}: {said}");
    Ok(said)
}

fn an_installation_runs_pods_and_goes(containerd: &Containerd) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    let prefix = containerd.file("prefix").display().to_string();
    let before = fs::read(CONFIG).ok();
    let install = ["install", "--prefix", &prefix, "--containerd"];
    let said = done("cofferdam", &install)?;
    ensure!(said.contains("restart containerd"), "{said}");
    let again = done("cofferdam", &install)?;
    ensure!(again.contains("is up to date") && !again.contains("restart"), "{again}");
    let result = used(containerd, &prefix);
    let uninstall = ["uninstall", "--prefix", &prefix, "--force"];
    let said = done("cofferdam", &uninstall)?;
    result?;
    ensure!(said.contains("restart containerd"), "{said}");
    ensure!(!Path::new(&prefix).exists(), "{prefix} is left: {said}");
    ensure!(fs::read(CONFIG).ok() == before, "{CONFIG} is another");
    containerd.restart()
}

fn used(containerd: &Containerd, prefix: &str) -> Result<()> {
    containerd.restart()?;
    // It knows both runtimes, and its CRI service takes the configuration.
    let known = done("containerd", &["config", "dump"])?;
    let shim = format!("{prefix}/bin/containerd-shim-cofferdam-v2");
    for word in ["runtimes.cofferdam]", "runtimes.runc]", &shim] {
        ensure!(known.contains(word), "{word}: {known}");
    }
    let plugins = containerd.ctr(&["plugins", "ls"])?.exits(0)?.text();
    let cri = plugins
        .lines()
        .find(|line| line.contains("io.containerd.grpc.v1") && line.contains(" cri "));
    ensure!(cri.is_some_and(|line| line.trim().ends_with("ok")), "{plugins}");

    let own = format!("{prefix}/bin/cofferdam");
    let found = done(&own, &["doctor"])?;
    for file in [format!("installed in {prefix}"), format!("{prefix}/lib/cofferdam/vmlinux")] {
        ensure!(found.contains(&file), "{file}: {found}");
    }
    let config = format!("{prefix}/etc/cofferdam/config.toml");
    let default = fs::read_to_string(&config)?;
    fs::write(&config, format!("vcpus = 2\n{default}"))?;
    let id = unique_id();
    let run = ["run", "--detach", "--runtime", &shim, IMAGE, &id, "sleep", "1000"];
    containerd.ctr(&run)?.exits(0)?;
    containerd.exec(&id, "nproc")?.exits(0)?.prints("2")?;
    let monitors = processes(MONITOR, "");
    ensure!(monitors.len() == 1, "monitors: {monitors:?}");
    let program = fs::read_link(format!("/proc/{}/exe", monitors[0]))?;
    ensure!(program.starts_with(prefix), "{}", program.display());

    // Under a living pod its files are replaced, and not removed.
    let kernel = format!("{prefix}/lib/cofferdam/vmlinux");
    fs::remove_file(&kernel)?;
    fs::write(&kernel, "no kernel\n".repeat(1000))?;
    let (succeeded, said) = call(&own, &["doctor"])?;
    ensure!(!succeeded && said.contains(&format!("{kernel} was changed")), "{said}");
    let broken =
        containerd.ctr(&["run", "--rm", "--runtime", &shim, IMAGE, &unique_id(), "true"])?;
    broken.complains("not a kernel")?.complains(&kernel)?;
    let (succeeded, said) = call("cofferdam", &["install", "--prefix", prefix])?;
    ensure!(!succeeded && said.contains("or use --force"), "{said}");
    let said = done("cofferdam", &["install", "--prefix", prefix, "--force"])?;
    ensure!(said.contains(&format!("placed {kernel}")), "{said}");
    let (succeeded, said) = call("cofferdam", &["uninstall", "--prefix", prefix])?;
    ensure!(!succeeded && said.contains("live on this host") && said.contains(&id), "{said}");
    containerd.exec(&id, "echo there")?.exits(0)?.prints("there")?;
    containerd.ctr(&["task", "kill", "--signal", "KILL", &id])?.exits(0)?;
    containerd.wait_for(&id, "STOPPED")?;
    ensure!(containerd.delete(&id)? == 137);
    let again =
        containerd.ctr(&["run", "--rm", "--runtime", &shim, IMAGE, &unique_id(), "nproc"])?;
    again.exits(0)?.prints("2")?;
    fs::write(&config, default)?;
    Ok(())
}
