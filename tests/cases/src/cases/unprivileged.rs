//! A user without any privilege but access to `/dev/kvm` runs containers.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::cases;
use super::kills::wait_for_helper;
use crate::run::{Run, busybox_rootfs};

cases!("unprivileged":
    a_user_runs_a_container,
    a_users_monitor_has_no_privileges,
);

/// A user of nothing on the host.
const UID: u32 = 54_321;

/// What they may use.
const KVM: &str = "/dev/kvm";

/// What a user needs of their own: a place for state and a configuration that says where images are kept.
struct Home {
    directory: TempDir,
    gid: u32,
    rootfs: (TempDir, PathBuf),
    _kvm: OpenKvm,
}

/// `/dev/kvm`, open to its group. Dropped, it is as it was.
struct OpenKvm(Permissions);

impl OpenKvm {
    fn new() -> Result<Self> {
        let before = fs::metadata(KVM).context(KVM)?.permissions();
        // As udev has it; a host without udev leaves it to root.
        fs::set_permissions(KVM, Permissions::from_mode(before.mode() | 0o660))?;
        Ok(Self(before))
    }
}

impl Drop for OpenKvm {
    fn drop(&mut self) {
        if let Err(error) = fs::set_permissions(KVM, self.0.clone()) {
            println!("{KVM} has another mode than before: {error}");
        }
    }
}

impl Home {
    fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("home-")?;
        let data = directory.path().join("data");
        fs::write(directory.path().join("config.toml"), format!("data = {data:?}\n"))?;
        let kvm = OpenKvm::new()?;
        let gid = fs::metadata(KVM)?.gid();
        chown(directory.path(), Some(UID), Some(gid))?;
        let rootfs = busybox_rootfs()?;
        Command::new("chmod").args(["-R", "a+rX"]).arg(rootfs.0.path()).status()?;
        Ok(Self { directory, gid, rootfs, _kvm: kvm })
    }

    fn run(&self, script: &str) -> Run {
        let path = |name| self.directory.path().join(name).display().to_string();
        Run::in_rootfs(&self.rootfs.1, &["sh", "-c", script])
            .flags(&["--root", &path("state"), "--config", &path("config.toml")])
            .user(UID, self.gid)
    }
}

fn a_user_runs_a_container() -> Result<()> {
    let home = Home::new()?;
    let outcome = home.run("id -u; echo written > /file; cat /file; exit 7").output()?;
    outcome.exits(7)?.prints("0\nwritten")?;
    let left = fs::read_dir(home.directory.path().join("state"))?.flatten();
    // The lock of all of them stays.
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|n| n != ",lock").collect();
    ensure!(left.is_empty(), "{left:?} are left");
    Ok(())
}

fn a_users_monitor_has_no_privileges() -> Result<()> {
    let home = Home::new()?;
    let mut run = home.run("echo ready; sleep 1000").start()?;
    let monitor = wait_for_helper(&run, "cofferdam-vmm")?;
    run.wait_for("ready")?;
    let status = fs::read_to_string(format!("/proc/{monitor}/status"))?;
    for line in [
        format!("Uid:\t{UID}\t{UID}\t{UID}\t{UID}"),
        "CapEff:\t0000000000000000".to_owned(),
        "CapPrm:\t0000000000000000".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
        "Seccomp:\t2".to_owned(),
    ] {
        ensure!(status.lines().any(|found| found == line), "no line {line:?} in\n{status}");
    }
    run.signal(Signal::SIGKILL)?;
    run.finish().map(drop)
}
