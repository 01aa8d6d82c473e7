//! What goes wrong on the way to a container comes back through containerd as one sentence that names how far it came, the
//! file, and the cause.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cofferdam_agent_protocol::PROTOCOL_VERSION;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};

use super::cases;
use super::containerd::Containerd;
use super::engine::Engine;
use super::sudden::{MONITOR, processes};
use crate::call::eventually;
use crate::monitor::GUEST;
use crate::run::{Outcome, unique_id};

cases!(Containerd:
    no_kvm_is_told,
    kvm_without_permission_is_told,
    a_missing_kernel_or_image_is_told,
    a_guest_image_that_is_none_is_told,
    an_image_too_large_for_its_disk_is_told,
    more_memory_than_the_host_has_is_told,
    a_container_without_memory_is_told,
    an_agent_that_dies_is_told,
    a_monitor_that_dies_is_told,
    a_bad_configuration_is_told,
    a_shim_that_cannot_start_is_told,
);

/// What `ctr run` says when it fails: containerd's own words, and ours behind them, all in one line.
fn said(outcome: &Outcome, words: &[&str]) -> Result<()> {
    ensure!(outcome.code != 0, "it ran: {outcome}");
    let text = outcome.stderr.trim();
    // Beside it, ctr tells of what it tried to clean up.
    let mut lines = text.lines().filter(|line| line.starts_with("ctr: "));
    let line = lines.next().with_context(|| format!("no sentence: {outcome}"))?;
    println!("\n{line}");
    ensure!(lines.next().is_none() && text.lines().last() == Some(line), "lines: {outcome}");
    for word in words {
        ensure!(line.contains(word), "{word:?} is missing: {outcome}");
    }
    Ok(())
}

/// Runs `true` with a configuration file that holds `text`; what is said.
fn with_configuration(containerd: &Containerd, text: &str, words: &[&str]) -> Result<()> {
    let config = containerd.file("failing.toml");
    fs::write(&config, text)?;
    let config = config.display().to_string();
    said(&containerd.run(&["--runtime-config-path", &config], &["true"])?, words)
}

/// Whether this is about runc, which has nothing of this.
fn not_ours() -> bool {
    !Engine::is_ours()
}

/// A file that is another one for the time being.
pub(super) struct Covered(pub(super) PathBuf);

impl Covered {
    fn by(source: Option<&Path>, target: &str, kind: Option<&str>, flags: MsFlags) -> Result<Self> {
        mount(source, target, kind, flags, None::<&str>).with_context(|| target.to_owned())?;
        Ok(Self(target.into()))
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            println!("{} stays covered: {error}", self.0.display());
        }
    }
}

/// A file that has another name for the time being.
pub(super) struct Away(&'static str, String);

impl Away {
    pub(super) fn of(path: &'static str) -> Result<Self> {
        let other = format!("{path}.away");
        fs::rename(path, &other).with_context(|| path.to_owned())?;
        Ok(Self(path, other))
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        if let Err(error) = fs::rename(&self.1, self.0) {
            println!("{} is {}: {error}", self.0, self.1);
        }
    }
}

pub(super) const KVM: &str = "/dev/kvm";

fn no_kvm_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    let _away = Away::of(KVM)?;
    let words = ["opening /dev/kvm", "what may help: ", "No such file or directory"];
    said(&containerd.run(&[], &["true"])?, &words)
}

/// A device node on a file system that allows none cannot be opened even by root.
fn kvm_without_permission_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    let place = containerd.file("nodev");
    fs::create_dir(&place)?;
    let tmpfs = place.display().to_string();
    let _tmpfs = Covered::by(None, &tmpfs, Some("tmpfs"), MsFlags::MS_NODEV)?;
    let node = place.join("kvm");
    let made = Command::new("cp").args(["-a", KVM]).arg(&node).status()?;
    ensure!(made.success(), "cp: {made}");
    let _covered = Covered::by(Some(&node), KVM, None, MsFlags::MS_BIND)?;
    let words = ["opening /dev/kvm", "be root, or a member of the group kvm", "Permission denied"];
    said(&containerd.run(&[], &["true"])?, &words)
}

fn a_missing_kernel_or_image_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    for (key, what) in [("kernel", "guest kernel"), ("image", "guest image")] {
        let text = format!("{key} = \"/no/such/file\"\n");
        let sentence = format!("opening the {what} /no/such/file: No such file or directory");
        with_configuration(containerd, &text, &[&sentence])?;
    }
    let monitor = ["starting the monitor /no/such/monitor: No such file or directory"];
    with_configuration(containerd, "monitor = \"/no/such/monitor\"\n", &monitor)
}

fn a_guest_image_that_is_none_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    let file = containerd.file("none");
    fs::write(&file, "neither a kernel nor an image\n".repeat(100))?;
    let path = file.display().to_string();
    let words = ["building the machine: not a kernel", "last stage reached: ", &path];
    with_configuration(containerd, &format!("kernel = {path:?}\n"), &words)?;
    // The kernel finds nothing in it to start.
    let words = ["the machine ended: ", "last stage reached: ", "the guest's kernel said: ", &path];
    with_configuration(containerd, &format!("image = {path:?}\n"), &words)?;
    let words = ["protocol version 999", "install a guest image of the same release", GUEST];
    with_configuration(containerd, &format!("image = {GUEST:?}\n"), &words)?;
    // One larger than the machine.
    fs::File::options().write(true).open(&file)?.set_len(300 << 20)?;
    let words = ["building the machine: ", "initramfs", &path];
    with_configuration(containerd, &format!("image = {path:?}\n"), &words)
}

fn an_image_too_large_for_its_disk_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    let data = containerd.file("full");
    fs::create_dir(&data)?;
    let path = data.display().to_string();
    let small = Some("size=64k");
    mount(None::<&str>, &data, Some("tmpfs"), MsFlags::empty(), small)?;
    let _tmpfs = Covered(data.clone());
    let words = ["root file system ", "making its layer in ", &path, "No space left on device"];
    with_configuration(containerd, &format!("data = {path:?}\n"), &words)
}

fn more_memory_than_the_host_has_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    let words = ["size of the machine: 512000 MiB of memory; this host has ", " MiB"];
    with_configuration(containerd, "memory = \"500G\"\n", &words)?;
    let words = ["8 MiB of memory"];
    with_configuration(containerd, "memory = \"8M\"\n", &words)?;
    // A limit that is larger than the host is none.
    let outcome = containerd.run(&["--memory-limit", "68719476736"], &["echo", "there"])?;
    outcome.exits(0)?.prints("there").map(drop)
}

/// It is the kernel of its machine that kills it; its status and an event tell.
fn a_container_without_memory_is_told(containerd: &Containerd) -> Result<()> {
    let events = containerd.events()?;
    let flags = ["--memory-limit", "33554432"];
    let id = containerd.detached(&flags, "exec tail /dev/zero")?;
    let seen = events.end_with(&id, &["/tasks/oom", "/tasks/exit"])?;
    ensure!(seen.last().is_some_and(|(_, exit)| exit["exit_status"] == 137), "{seen:?}");
    ensure!(containerd.delete(&id)? == 137);
    Ok(())
}

/// An archive in the kernel's format (`newc`) with one file. The kernel takes several archives, one behind the other.
fn archive(name: &str, content: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in [(name, content), ("TRAILER!!!", "")] {
        let mode = 0o100_644;
        let (length, name_length) = (content.len(), name.len() + 1);
        // inode, mode, owner, group, links, time, size, the device's numbers, those of a device node, name, sum
        let fields = [1, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        bytes.extend(b"070701");
        bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        for part in [format!("{name}\0"), content.to_owned()] {
            bytes.extend(part.bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

/// A guest image whose agent says hello and ends.
pub(super) fn dying_image() -> Result<Vec<u8>> {
    let mut image = fs::read(GUEST)?;
    let words = format!("test.action=dying-agent test.protocol={PROTOCOL_VERSION}\n");
    image.extend(archive("words", &words));
    Ok(image)
}

fn an_agent_that_dies_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    let path = containerd.file("dying");
    fs::write(&path, dying_image()?)?;
    let path = path.display().to_string();
    let words = [
        "the machine ended: the guest kernel panicked",
        "last stage reached: agent said hello",
        "the guest's kernel said: Attempted to kill init!",
        &path,
    ];
    with_configuration(containerd, &format!("image = {path:?}\n"), &words)
}

/// Before its machine has an agent, and after.
fn a_monitor_that_dies_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    let (id, runtime) = (unique_id(), Containerd::runtime());
    let call = containerd.begin(&[
        "run",
        "--rm",
        "--runtime",
        runtime,
        super::containerd::IMAGE,
        &id,
        "true",
    ])?;
    let mut monitors = Vec::new();
    eventually("a monitor", || {
        monitors = processes(MONITOR, "");
        Ok(!monitors.is_empty())
    })?;
    std::thread::sleep(Duration::from_millis(200));
    for monitor in monitors {
        kill(monitor, Signal::SIGKILL)?;
    }
    let words = ["the monitor ended unexpectedly: signal: 9 (SIGKILL)", "last stage reached: "];
    said(&call.finish()?, &words)?;
    let id = containerd.detached(&[], "sleep 1000")?;
    for monitor in processes(MONITOR, "") {
        kill(monitor, Signal::SIGKILL)?;
    }
    containerd.wait_for(&id, "STOPPED")?;
    said(&containerd.exec(&id, "true")?, &["cannot exec in a stopped container"])?;
    ensure!(containerd.delete(&id)? == 137);
    Ok(())
}

fn a_bad_configuration_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    let name = "failing.toml, line 2: ";
    let bad = |text: &str, words: &[&str]| {
        with_configuration(containerd, &format!("vcpus = 1\n{text}\n"), words)
    };
    bad("vcpu = 2", &["reading the configuration ", name, "unknown field `vcpu`"])?;
    bad("memory = \"much\"", &[name, "\"much\""])?;
    bad("memory =", &[name])?;
    let missing = ["--runtime-config-path", "/no/such/config.toml"];
    let words = ["reading the configuration /no/such/config.toml: No such file or directory"];
    said(&containerd.run(&missing, &["true"])?, &words)
}

fn a_shim_that_cannot_start_is_told(containerd: &Containerd) -> Result<()> {
    if not_ours() {
        return Ok(());
    }
    const SOCKETS: &str = "/run/containerd/s";
    fs::create_dir_all(SOCKETS)?;
    let flags = MsFlags::MS_RDONLY;
    let _covered = Covered::by(None, SOCKETS, Some("tmpfs"), flags)?;
    let words =
        ["containerd-shim-cofferdam-v2: listening at /run/containerd/s/", "Read-only file system"];
    said(&containerd.run(&[], &["true"])?, &words)
}
