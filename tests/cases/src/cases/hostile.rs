//! A guest kernel that writes garbage to every register and ring harms no one but itself.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::cases;
use crate::monitor::Boot;
use crate::run::{Run, Running};

cases!("hostile":
    every_device_outlives_garbage_while_a_neighbour_computes,
    a_wild_one_ends_in_a_known_way,
);

/// The hostile kernel; see `tests/hostile`.
const KERNEL: &str = "/usr/lib/cofferdam-test/hostile";

/// Longest time for a hostile machine before it is stopped.
const PATIENCE: Duration = Duration::from_secs(90);

/// Exit codes of `cofferdam-vmm boot` for a machine that ended: powered off, rebooted, panicked, triple fault, an
/// instruction that KVM cannot emulate.
const ENDS: [i32; 5] = [0, 3, 4, 5, 6];

/// What the neighbour computes: the sum of 64 MiB of zeroes.
const SUM: &str = "head -c 67108864 /dev/zero | sha256sum | cut -c1-16";
const ZEROES: &str = "3b6a07d0d404fab4";

/// A hostile machine with all devices, its words on the kernel's command line.
fn machine(words: &str, place: &TempDir) -> Result<Running> {
    let [disk, console, socket] =
        ["disk", "console", "vsock"].map(|name| place.path().join(name).display().to_string());
    std::fs::File::create(&disk)?.set_len(4 << 20)?;
    let (writable, readonly) = (disk.clone(), format!("{disk}:ro"));
    let boot = Boot::bare(KERNEL, words).flags(&["--disk", &writable, "--disk", &readonly]);
    let boot = boot.flags(&["--vsock", &socket, "--console", &console, "--cpus", "2"]);
    let mut command = boot.into_command();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Running(command.spawn().context("starting cofferdam-vmm")?))
}

/// What the kernel of this host has complained about so far.
fn complaints() -> Result<usize> {
    let log = std::process::Command::new("dmesg").output().context("starting dmesg")?;
    let text = String::from_utf8_lossy(&log.stdout).into_owned();
    let bad = ["BUG:", "Oops", "WARNING:", "general protection", "soft lockup"];
    Ok(text.lines().filter(|line| bad.iter().any(|word| line.contains(word))).count())
}

fn every_device_outlives_garbage_while_a_neighbour_computes() -> Result<()> {
    let before = complaints()?;
    let neighbour = Run::shell(SUM).start()?;
    for seed in 1..=3 {
        let place = tempfile::tempdir()?;
        let words = format!("hostile.seed={seed} hostile.rounds=3");
        let status = machine(&words, &place)?.end(PATIENCE)?;
        let said = std::fs::read(place.path().join("console"))?;
        let said = String::from_utf8_lossy(&said);
        let code = status.and_then(|status| status.code());
        ensure!(code == Some(0) && said.contains("HOSTILE OK"), "seed {seed}: {code:?}: {said}");
    }
    neighbour.finish()?.exits(0)?.prints(ZEROES)?;
    ensure!(complaints()? == before, "the host's kernel complains; see dmesg");
    Ok(())
}

fn a_wild_one_ends_in_a_known_way() -> Result<()> {
    let before = complaints()?;
    let neighbour = Run::shell(SUM).start()?;
    for seed in 4..=6 {
        let place = tempfile::tempdir()?;
        let words = format!("hostile.seed={seed} hostile.rounds=3 hostile.wild");
        let mut machine = machine(&words, &place)?;
        let pid = Pid::from_raw(i32::try_from(machine.0.id())?);
        let code = ended(&mut machine, Duration::from_secs(20))?;
        let code = match code {
            Some(code) => code,
            // It sent an interrupt that stopped its own processor: it must still be stoppable.
            None => {
                kill(pid, Signal::SIGTERM)?;
                let stopped = ended(&mut machine, Duration::from_secs(20))?;
                ensure!(stopped == Some(130), "seed {seed}: stopped, it ended with {stopped:?}");
                continue;
            }
        };
        ensure!(ENDS.contains(&code), "seed {seed}: exit code {code}");
    }
    neighbour.finish()?.exits(0)?.prints(ZEROES)?;
    ensure!(complaints()? == before, "the host's kernel complains; see dmesg");
    Ok(())
}

/// The exit code of `machine`, if it ends within `limit`; a signal that ended it is an error.
fn ended(machine: &mut Running, limit: Duration) -> Result<Option<i32>> {
    let deadline = std::time::Instant::now() + limit;
    while std::time::Instant::now() < deadline {
        if let Some(status) = machine.0.try_wait()? {
            return status.code().map(Some).with_context(|| format!("it died: {status}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}
