//! What is the same with podman and docker: flags of `run`, several in one container where they do not meet.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cases;
use super::engine::{Engine, IMAGE, Kind};
use crate::run::unique_id;

cases!(
    files_of_the_host_are_brought_along,
    users_and_limits,
    resources,
    init,
    a_block_device,
    a_health_check,
    environment_and_entry_point,
);

fn files_of_the_host_are_brought_along(engine: &Engine) -> Result<()> {
    let script = "grep -c box /etc/hosts; cat /etc/hostname; test -e /etc/resolv.conf && echo resolv; \
                  ls /run/.containerenv 2>/dev/null";
    let flags = ["--hostname", "box", "--add-host", "other:192.0.2.7"];
    let outcome = engine.run(&flags, &["sh", "-c", script])?;
    let podman = if engine.kind == Kind::Podman { "\n/run/.containerenv" } else { "" };
    let text = outcome.text();
    // Without a network docker writes only the names that it was given.
    ensure!(text.contains("box\nresolv") && text.contains(podman), "{outcome}");
    engine.run(&flags, &["grep", "192.0.2.7", "/etc/hosts"])?.exits(0)?.has("other").map(drop)
}

/// --read-only, --tmpfs, --user, --cap-drop, --cap-add, --ulimit, --workdir, --security-opt.
fn users_and_limits(engine: &Engine) -> Result<()> {
    let script = "touch /x 2>/dev/null || echo read-only; df -k /scratch | tail -n 1 | awk '{ print $2 }'; \
                  echo x > /scratch/x && cat /scratch/x; id -u; id -g; id -G; ulimit -n; ulimit -Hn; pwd; \
                  awk '/CapBnd|NoNewPrivs|Seccomp:/ { print $2 }' /proc/self/status";
    engine
        .run(
            &[
                "--read-only",
                "--tmpfs=/scratch:size=1m,mode=1777",
                "--user=1000:1000",
                "--group-add=2000",
                "--cap-drop=ALL",
                "--cap-add=NET_RAW",
                "--ulimit=nofile=64:128",
                "--workdir=/var",
                "--security-opt=no-new-privileges",
            ],
            &["sh", "-c", script],
        )?
        .exits(0)?
        .prints("read-only\n1024\nx\n1000\n1000\n1000 2000\n64\n128\n/var\n0000000000002000\n1\n2")
        .map(drop)
}

/// --memory, --cpus, --cpu-shares, --pids-limit, --sysctl, --shm-size.
fn resources(engine: &Engine) -> Result<()> {
    let script = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max; cat /proc/sys/net/ipv4/ip_forward \
                  /proc/sys/kernel/msgmax; df -k /dev/shm | tail -n 1 | awk '{ print $2 }'";
    engine
        .run(
            &[
                "--memory=64m",
                "--cpus=0.5",
                "--pids-limit=77",
                "--sysctl=net.ipv4.ip_forward=1",
                "--sysctl=kernel.msgmax=65536",
                "--shm-size=2m",
            ],
            &["sh", "-c", script],
        )?
        .exits(0)?
        .prints("67108864\n50000 100000\n77\n1\n65536\n2048")
        .map(drop)
}

fn init(engine: &Engine) -> Result<()> {
    let script = "cat /proc/1/comm; echo $$";
    let outcome = engine.run(&["--init"], &["sh", "-c", script])?.exits(0)?;
    let lines: Vec<String> = outcome.text().lines().map(str::to_owned).collect();
    let known = ["docker-init", "podman-init", "tini-static", "catatonit"];
    ensure!(known.contains(&lines[0].as_str()) && lines[1] != "1", "{outcome}");
    Ok(())
}

/// A loop device over a file.
/// What it is to be: a disk of the host that the container reads and writes.
fn a_block_device(engine: &Engine) -> Result<()> {
    if Engine::is_ours() {
        println!("\nSKIPPED: a pod has no block devices of the host yet");
        return Ok(());
    }
    let file = engine.file("disk");
    let mut bytes = vec![0; 1 << 20];
    bytes[..9].copy_from_slice(b"on a disk");
    fs::write(&file, bytes)?;
    let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output()?;
    ensure!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
    let device = String::from_utf8(output.stdout)?.trim().to_owned();
    let script = "head -c 9 /dev/mine; echo; test -b /dev/mine && printf new | dd of=/dev/mine conv=fsync 2>/dev/null";
    let outcome = engine.run(&["--device", &format!("{device}:/dev/mine")], &["sh", "-c", script]);
    Command::new("losetup").args(["--detach", &device]).status()?;
    outcome?.exits(0)?.prints("on a disk")?;
    let text = fs::read(&file).context("reading the disk")?;
    ensure!(text.starts_with(b"newa disk"), "{:?}", String::from_utf8_lossy(&text[..9]));
    Ok(())
}

fn a_health_check(engine: &Engine) -> Result<()> {
    let flags = [
        "--health-cmd",
        "test -e /tmp/healthy",
        "--health-interval",
        "1s",
        "--health-retries",
        "1",
    ];
    let name = engine.detached(&flags, "sleep 1000")?;
    let check = |status: &str| {
        if engine.kind == Kind::Podman {
            // Without systemd, nobody calls it regularly.
            let outcome = engine.call(&["healthcheck", "run", &name])?;
            ensure!((outcome.code == 0) == (status == "healthy"), "{outcome}");
        }
        crate::call::eventually(status, || {
            Ok(engine.inspect(&name, "{{.State.Health.Status}}")? == status)
        })
    };
    check("unhealthy")?;
    engine.call(&["exec", &name, "touch", "/tmp/healthy"])?.exits(0)?;
    check("healthy")
}

fn environment_and_entry_point(engine: &Engine) -> Result<()> {
    let name = unique_id();
    let flags =
        ["--name", &name, "--env", "A=one two", "--entrypoint", "printenv", "--label", "key=value"];
    let outcome = engine.call(&[&["run", "--network=none"], &flags[..], &[IMAGE, "A"]].concat())?;
    outcome.exits(0)?.prints("one two")?;
    let label = engine.inspect(&name, "{{index .Config.Labels \"key\"}}")?;
    ensure!(label == "value", "{label}");
    Ok(())
}
