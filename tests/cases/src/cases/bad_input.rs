//! Bad input gets a clear error that names it, and leaves nothing.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::cases;
use crate::monitor::{Boot, GUEST, KERNEL};
use crate::run::{ROOTFS, Run, bundle, unique_id};

cases!("bad_input":
    no_config_json,
    a_truncated_config_json,
    an_unknown_oci_version,
    no_root_file_system,
    an_invalid_id,
    an_id_in_use,
    a_command_that_does_not_exist,
    a_command_that_is_not_executable,
    a_missing_kernel,
    a_kernel_that_is_not_one,
    an_agent_of_another_version,
    an_unreadable_disk,
    a_disk_of_odd_size,
    no_kvm,
    too_little_memory,
    a_full_disk_of_the_host,
    an_unknown_configuration_key,
    an_unknown_flag,
);

fn no_config_json() -> Result<()> {
    let empty = TempDir::with_prefix("bundle-")?;
    let path = empty.path().join("config.json").display().to_string();
    Run::of_bundle(empty).output()?.exits(1)?.complains(&path).map(drop)
}

fn a_truncated_config_json() -> Result<()> {
    let bundle = bundle()?;
    let path = bundle.path().join("config.json");
    let text = fs::read(&path)?;
    fs::write(&path, &text[..text.len() / 2])?;
    let name = path.display().to_string();
    Run::of_bundle(bundle).output()?.exits(1)?.complains(&name)?.complains("EOF").map(drop)
}

fn an_unknown_oci_version() -> Result<()> {
    Run::bundle("true", |config| config["ociVersion"] = "7.0.0".into())?
        .output()?
        .exits(1)?
        .complains("7.0.0")
        .map(drop)
}

fn no_root_file_system() -> Result<()> {
    Run::bundle("true", |config| config["root"]["path"] = "/no/such/rootfs".into())?
        .output()?
        .exits(1)?
        .complains("/no/such/rootfs")
        .map(drop)
}

fn an_invalid_id() -> Result<()> {
    let bundle = bundle()?;
    let directory = bundle.path().display().to_string();
    let done = std::process::Command::new("cofferdam")
        .args(["run", "--bundle", &directory, "../escape"])
        .output()?;
    let text = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.code() == Some(1) && text.contains("../escape"), "{text}");
    Ok(())
}

fn an_id_in_use() -> Result<()> {
    let id = unique_id();
    let command = |script: &str| {
        let mut command = std::process::Command::new("cofferdam");
        command.args(["run", "--rootfs", ROOTFS, &id, "--", "sh", "-c", script]);
        command
    };
    let mut first = command("sleep 100").spawn()?;
    while !Path::new("/run/cofferdam").join(&id).exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let second = command("true").output()?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(first.id())?),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    first.wait()?;
    let text = String::from_utf8_lossy(&second.stderr);
    ensure!(second.status.code() == Some(1) && text.contains("already exists"), "{text}");
    Ok(())
}

fn a_command_that_does_not_exist() -> Result<()> {
    Run::command(&["no-such-command"])
        .output()?
        .exits(127)?
        .complains("exec: \"no-such-command\": executable file not found in $PATH")?;
    Run::command(&["/no/such/command"])
        .output()?
        .exits(127)?
        .complains("/no/such/command")?
        .complains("no such file or directory")
        .map(drop)
}

fn a_command_that_is_not_executable() -> Result<()> {
    Run::command(&["/etc/passwd"])
        .output()?
        .exits(126)?
        .complains("exec: \"/etc/passwd\": permission denied")?;
    Run::command(&["/etc"]).output()?.exits(126)?.complains("/etc").map(drop)
}

/// A directory to be used instead of `/usr/lib/cofferdam`, with links to what that holds.
fn library() -> Result<TempDir> {
    let directory = TempDir::with_prefix("lib-")?;
    for entry in fs::read_dir("/usr/lib/cofferdam")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(&path, directory.path().join(name))?;
    }
    Ok(directory)
}

/// Runs with `library` instead of what is installed.
fn run_with(library: &TempDir) -> Result<crate::run::Outcome> {
    let path = library.path().display().to_string();
    Run::shell("true").environment("COFFERDAM_LIB", &path).output()
}

fn a_missing_kernel() -> Result<()> {
    let library = library()?;
    let kernel = library.path().join("vmlinux");
    fs::remove_file(&kernel)?;
    run_with(&library)?.exits(1)?.complains(&kernel.display().to_string()).map(drop)
}

fn a_kernel_that_is_not_one() -> Result<()> {
    let library = library()?;
    let kernel = library.path().join("vmlinux");
    fs::remove_file(&kernel)?;
    fs::write(&kernel, "not a kernel at all".repeat(1000))?;
    run_with(&library)?.exits(1)?.complains("not a kernel").map(drop)
}

fn an_agent_of_another_version() -> Result<()> {
    // The test guest, told nothing, greets the host with a protocol version from the future.
    let library = library()?;
    let initramfs = library.path().join("initramfs");
    fs::remove_file(&initramfs)?;
    std::os::unix::fs::symlink(GUEST, &initramfs)?;
    run_with(&library)?.exits(1)?.complains("protocol version").map(drop)
}

fn an_unreadable_disk() -> Result<()> {
    let (code, text) = Boot::new(KERNEL, "").flags(&["--disk", "/no/such/disk"]).output()?;
    ensure!(code != 0 && text.contains("/no/such/disk"), "code {code}: {text}");
    Ok(())
}

fn a_disk_of_odd_size() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    file.as_file().set_len(1000)?;
    let path = file.path().display().to_string();
    let (code, text) = Boot::new(KERNEL, "").flags(&["--disk", &path]).output()?;
    ensure!(code != 0 && text.contains("512"), "code {code}: {text}");
    Ok(())
}

fn no_kvm() -> Result<()> {
    let mut script = String::from("mount --bind /dev/null /dev/kvm && exec cofferdam");
    for argument in Run::shell("true").arguments() {
        script.push_str(&format!(" '{argument}'"));
    }
    let done = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output()?;
    let text = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.code() == Some(1) && text.contains("/dev/kvm"), "{text}");
    Ok(())
}

fn too_little_memory() -> Result<()> {
    Run::shell("true").flags(&["--vm-memory", "8M"]).output()?.exits(1)?.complains("8 MiB")?;
    let (code, text) = Boot::new(KERNEL, "").flags(&["--memory", "8M"]).output()?;
    ensure!(code != 0 && text.contains("8 MiB"), "code {code}: {text}");
    Ok(())
}

fn a_full_disk_of_the_host() -> Result<()> {
    let mut script =
        String::from("mount -t tmpfs -o size=64k tmpfs /var/lib/cofferdam && exec cofferdam");
    for argument in Run::shell("true").arguments() {
        script.push_str(&format!(" '{argument}'"));
    }
    let done = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output()?;
    let text = String::from_utf8_lossy(&done.stderr);
    let said = text.contains("/var/lib/cofferdam") && text.contains("No space left");
    ensure!(done.status.code() == Some(1) && said, "{text}");
    Ok(())
}

fn an_unknown_configuration_key() -> Result<()> {
    let script = "mkdir -p /etc/cofferdam && mount -t tmpfs tmpfs /etc/cofferdam && \
                  echo 'no_such_key = 1' > /etc/cofferdam/config.toml && \
                  exec cofferdam run --rootfs / -- true";
    let done = std::process::Command::new("unshare").args(["-m", "sh", "-c", script]).output()?;
    let text = String::from_utf8_lossy(&done.stderr);
    // The directory is made outside of the new mount namespace.
    let _ = fs::remove_dir("/etc/cofferdam");
    let said = text.contains("no_such_key") && text.contains("/etc/cofferdam/config.toml");
    ensure!(done.status.code() == Some(1) && said, "{text}");
    Ok(())
}

fn an_unknown_flag() -> Result<()> {
    let outcome = Run::shell("true").flags(&["--no-such-flag"]).output()?;
    ensure!(outcome.code != 0 && outcome.stderr.contains("--no-such-flag"), "{outcome}");
    // The configuration that `spec` writes is not overwritten.
    let bundle = bundle()?;
    fs::write(bundle.path().join("config.json"), json!({}).to_string())?;
    let path = bundle.path().display().to_string();
    let again =
        std::process::Command::new("cofferdam").args(["spec", "--bundle", &path]).output()?;
    let text = String::from_utf8_lossy(&again.stderr);
    ensure!(!again.status.success() && text.contains("config.json"), "{text}");
    Ok(())
}
