//! The measuring host: an emulated machine in which one nanosecond is one instruction, so that what is measured in it
//! is the same to a small fraction on every machine, however busy.
//!
//! It has one CPU, no disk, no network and no ssh: an initramfs holds the host and what is measured, one program runs,
//! and what it prints comes out of a serial port.
//!
//! Invariant: nothing of this machine shows in what is measured: no time, no entropy, no disk.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::machine::{option, require_qemu};
use super::qemu;
use super::stage::Stage;
use crate::tools::{apt, cache, debian, step};

/// The packages that the host is made of.
const PACKAGES: &str = include_str!("../../image/bench/packages");

/// What makes a Debian tree the host, and its first program.
const FILES: [(&str, &str); 2] = [
    ("customize", include_str!("../../image/bench/customize")),
    ("init", include_str!("../../image/bench/init")),
];

/// Linux parameters: addresses and the clock as always, and a serial port that takes no time.
const CMDLINE: &str = "console=ttyS0 loglevel=1 nokaslr norandmaps tsc=reliable clocksource=tsc \
                       mitigations=off panic=-1";

/// What init prints at the end.
const DONE: &str = "measured: 0";

/// The longest that measuring may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// How long nothing may come out of it.
const SILENCE: Duration = Duration::from_secs(180);

/// How often it is started. Under this clock a machine's kernel has been seen to stand still for ever, at the same
/// instruction each time: waiting for a lock, on its only CPU. It does not do so if anything before is different.
const TRIES: u32 = 3;

/// Runs the program that `stage` holds as the host's init expects it; what it printed.
///
/// # Errors
/// If the host cannot be built or started, or its program fails; the message holds the end of the console.
pub fn measure(stage: &Stage) -> Result<String> {
    require_qemu()?;
    let image = image()?;
    let place = tempfile::tempdir().context("creating a directory for the measuring host")?;
    let initrd = place.path().join("initrd");
    pack(&image.join("initrd"), &stage.tree(), &initrd)?;
    eprintln!("==> measuring");
    let started = Instant::now();
    for attempt in 1..=TRIES {
        let Some(status) = run(&image.join("vmlinuz"), &initrd, place.path(), attempt)? else {
            eprintln!("    attempt {attempt} of {TRIES}: the measuring host stands still");
            continue;
        };
        let console = step::tail(&place.path().join("console.log"), 20);
        if !status.success() || !console.contains(DONE) {
            let log = step::tail(&place.path().join("qemu.log"), 20);
            bail!("the measuring host: {status}\n{log}\n--- its console ---\n{console}");
        }
        eprintln!("    done in {:.0?}", started.elapsed());
        return fs::read_to_string(place.path().join("result"))
            .context("reading what was measured");
    }
    bail!("the measuring host stood still {TRIES} times")
}

/// Runs the host to its end, or until nothing has come out of it for too long: then there is no status.
fn run(kernel: &Path, initrd: &Path, place: &Path, attempt: u32) -> Result<Option<ExitStatus>> {
    let log = File::create(place.join("qemu.log")).context("creating qemu.log")?;
    let mut command = machine(kernel, initrd, place, attempt)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().context("starting QEMU")?;
    let result = place.join("result");
    let (started, mut heard, mut size) = (Instant::now(), Instant::now(), 0);
    loop {
        if let Some(status) = child.try_wait().context("waiting for QEMU")? {
            return Ok(Some(status));
        }
        let now = fs::metadata(&result).map_or(0, |metadata| metadata.len());
        if now != size {
            (heard, size) = (Instant::now(), now);
        }
        if heard.elapsed() > SILENCE || started.elapsed() > PATIENCE {
            let _ = child.kill();
            child.wait().context("waiting for QEMU")?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The directory with the host's kernel and initramfs, made if the cache lacks it.
fn image() -> Result<PathBuf> {
    let mut parts = vec![debian::SUITE, PACKAGES];
    parts.extend(FILES.iter().map(|(_, text)| *text));
    cache::entry("bench-host", &cache::key(&parts), |out| {
        apt::require(&["cpio", "xz-utils"])?;
        let source = tempfile::tempdir().context("creating a directory for the host's files")?;
        for (name, text) in FILES {
            let file = source.path().join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("making {} executable", file.display()))?;
        }
        debian::build(
            "building the measuring host (KVM and QEMU in an initramfs)",
            &debian::packages(PACKAGES),
            &[&source.path().join("customize"), source.path(), out],
            &cache::root().join("logs/bench-host.log"),
        )
    })
}

/// Writes `base` and, as a second archive, what is in `tree` to `initrd`: the kernel unpacks one after the other.
fn pack(base: &Path, tree: &Path, initrd: &Path) -> Result<()> {
    apt::require(&["cpio"])?;
    let mut bytes = fs::read(base).with_context(|| format!("reading {}", base.display()))?;
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let mut file =
        File::create(initrd).with_context(|| format!("creating {}", initrd.display()))?;
    file.write_all(&bytes).with_context(|| format!("writing {}", initrd.display()))?;
    let archive = "find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0";
    let status = Command::new("sh")
        .args(["-c", archive])
        .current_dir(tree)
        .stdout(file)
        .status()
        .context("starting cpio")?;
    if !status.success() {
        bail!("packing what is measured: {status}");
    }
    Ok(())
}

/// The machine: one thread emulates one CPU and counts its instructions as nanoseconds.
fn machine(kernel: &Path, initrd: &Path, place: &Path, attempt: u32) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(qemu::program()?);
    command.args(["-name", "cofferdam-measuring-host", "-no-user-config", "-nodefaults"]);
    command.args(["-no-reboot", "-display", "none", "-M", "q35", "-smp", "1", "-m", "3072"]);
    command.args(["-accel", "tcg,thread=single,tb-size=512", "-icount", "shift=0,sleep=off"]);
    command.args(["-cpu", "max,+svm,+npt,-rdrand,-rdseed", "-seed", "1"]);
    // A word that means nothing, so that one attempt is not just like another.
    let cmdline = format!("{CMDLINE} attempt={}", "i".repeat(attempt as usize));
    command.args(["-rtc", "base=2026-01-01T00:00:00,clock=vm", "-append", &cmdline]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    command.arg("-serial").arg(option("file:", &place.join("console.log"), ""));
    command.arg("-serial").arg(option("file:", &place.join("result"), ""));
    Ok(command)
}
