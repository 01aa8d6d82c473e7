//! What is the same with podman and docker: flags of `run`, several in one container where they do not meet.

use std::fs;
use std::process::{Command, Stdio};

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
    let flags = ["--hostname", "box", "--add-host", "other:192.0.2.7"];
    // Each engine has one more: without a network, podman has no names to look up elsewhere.
    let more = match engine.kind {
        Kind::Podman => "/run/.containerenv",
        Kind::Docker => "/etc/resolv.conf",
    };
    let script = format!("cat /etc/hostname; ls {more}; grep -w other /etc/hosts");
    let outcome = engine.run(&flags, &["sh", "-c", &script])?.exits(0)?;
    outcome.has(&format!("box\n{more}\n"))?.has("192.0.2.7").map(drop)
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

/// Loop devices over files: one to be read and written, one to be read.
fn a_block_device(engine: &Engine) -> Result<()> {
    let (mine, other) = (LoopDevice::new(engine, "mine")?, LoopDevice::new(engine, "other")?);
    let device = |host: &LoopDevice, own| format!("--device={}:/dev/{own}", host.node);
    // What is not synced is written all the same.
    let script = "head -n 1 /dev/mine; head -n 1 /dev/other; blockdev --getsize64 /dev/mine; \
                  printf new | dd of=/dev/mine conv=notrunc 2>/dev/null && echo written; \
                  printf x 2>/dev/null > /dev/other || echo refused";
    let outcome =
        engine.run(&[&device(&mine, "mine"), &device(&other, "other:r")], &["sh", "-c", script])?;
    outcome.exits(0)?.prints("disk of mine\ndisk of other\n1048576\nwritten\nrefused")?;
    ensure!(mine.begins_with("new")? && other.begins_with("dis")?);
    mine.detach()?;
    other.detach()
}

/// A loop device of the host over a file that begins with its name.
pub(super) struct LoopDevice {
    pub(super) node: String,
    file: std::path::PathBuf,
}

impl LoopDevice {
    pub(super) fn new(engine: &Engine, name: &str) -> Result<Self> {
        let file = engine.file(name);
        let mut bytes = format!("disk of {name}\n").into_bytes();
        bytes.resize(1 << 20, 0);
        fs::write(&file, bytes)?;
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output()?;
        ensure!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { node: String::from_utf8(output.stdout)?.trim().to_owned(), file })
    }

    fn begins_with(&self, text: &str) -> Result<bool> {
        Ok(fs::read(&self.file).context("reading the disk")?.starts_with(text.as_bytes()))
    }

    /// Nobody has it open any more: it is detached at once.
    pub(super) fn detach(self) -> Result<()> {
        Command::new("losetup").args(["--detach", &self.node]).status()?;
        let output = Command::new("losetup").arg(&self.node).output()?;
        ensure!(!output.status.success(), "{} is still in use", self.node);
        Ok(())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ =
            Command::new("losetup").args(["--detach", &self.node]).stderr(Stdio::null()).status();
    }
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
        ["--name", &name, "--env", "A=one two", "--entrypoint", "sh", "--label", "key=value"];
    let command = [IMAGE, "-c", "echo $A"];
    let outcome = engine.call(&[&["run", "--network=none"], &flags[..], &command].concat())?;
    outcome.exits(0)?.prints("one two")?;
    let label = engine.inspect(&name, "{{index .Config.Labels \"key\"}}")?;
    ensure!(label == "value", "{label}");
    Ok(())
}
