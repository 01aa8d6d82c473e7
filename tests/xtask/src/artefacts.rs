//! What is tested: the release binaries, the guest kernel and the guest image, built and staged as installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cofferdam_rootfs_builder::initramfs;
use cofferdam_test_harness::host::Kind;
use cofferdam_test_harness::host::stage::Stage;
use cofferdam_test_harness::tools::cache;
use nix::unistd::Uid;

use crate::image;
use crate::kernel::{self, Variant};

/// containerd's shim, below the root of the host.
const CONTAINERD_SHIM: &str = "usr/local/bin/containerd-shim-cofferdam-v2";

/// The initramfs of the monitor-level tests.
const TEST_GUEST: &str = "/usr/lib/cofferdam-test/guest.cpio";

/// The kernel that writes garbage everywhere.
const HOSTILE: &str = "/usr/lib/cofferdam-test/hostile";

/// The end-to-end cases.
const CASES: &str = "/usr/lib/cofferdam-test/cofferdam-test-cases";

/// The files of a Cofferdam installation, built if they are not up to date.
pub(crate) fn stage() -> Result<Stage> {
    let kernel = kernel::build(Variant::Default, None)?;
    let image = image::build()?;
    let target = cargo_build(&["cofferdam-vmm", "cofferdam-shim"])?;
    let stage = Stage::new()?;
    for name in ["cofferdam", "cofferdam-vmm"] {
        stage.add(&target.join(name), &format!("/usr/local/bin/{name}"))?;
    }
    // The same program, by the name that containerd calls it by.
    symlink("cofferdam", stage.tree().join(CONTAINERD_SHIM))
        .context("staging containerd's shim")?;
    stage.add(&kernel.join("vmlinux"), "/usr/lib/cofferdam/vmlinux")?;
    stage.add(&kernel.join("manifest.json"), "/usr/lib/cofferdam/vmlinux.json")?;
    stage.add(&image.initramfs, "/usr/lib/cofferdam/initramfs")?;
    stage.add(&image.manifest, "/usr/lib/cofferdam/initramfs.json")?;
    stage.add(&kernel.join("bzImage"), "/usr/lib/cofferdam-test/bzImage")?;
    Ok(stage)
}

/// Adds the end-to-end cases and what they need to `stage`; the cases' place in the host.
pub(crate) fn add_cases(stage: &Stage) -> Result<String> {
    let target = cargo_build(&["cofferdam-test-cases"])?;
    stage.add(&target.join("cofferdam-test-cases"), CASES)?;
    stage.add(&image::build_bare_metal("cofferdam-test-hostile")?, HOSTILE)?;
    let (_, init) = image::build_static("cofferdam-test-guest")?;
    let init = fs::read(&init).with_context(|| format!("reading {}", init.display()))?;
    let packed = initramfs::build(&init).context("packing the test guest")?;
    let file = stage.tree().join("guest.cpio");
    fs::write(&file, packed).with_context(|| format!("writing {}", file.display()))?;
    stage.add(&file, TEST_GUEST)?;
    fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    Ok(CASES.to_owned())
}

/// Where tests are run: as the environment says, or where this machine's KVM boots a kernel.
pub(crate) fn kind() -> Result<Kind> {
    Kind::choose(|| probe().unwrap_or(false))
}

/// Whether this machine's KVM boots our kernel in a few seconds. What was found out once holds until the machine
/// boots again.
fn probe() -> Result<bool> {
    if !Uid::effective().is_root() || fs::File::open("/dev/kvm").is_err() {
        return Ok(false);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("the boot's id")?;
    let known = cache::root().join(format!("run/kvm-{}", boot.trim()));
    if let Ok(text) = fs::read_to_string(&known) {
        return Ok(text == "works");
    }
    eprintln!("==> trying this machine's KVM");
    let kernel = kernel::build(Variant::Default, None)?;
    let monitor = cargo_build(&["cofferdam-vmm"])?.join("cofferdam-vmm");
    let output = Command::new("timeout")
        .args(["--signal=KILL", "10"])
        .arg(monitor)
        .arg("boot")
        .arg("--kernel")
        .arg(kernel.join("vmlinux"))
        .args(["--cmdline", "console=ttyS0 panic=-1"])
        .output()
        .context("starting cofferdam-vmm")?;
    // Without an initramfs a kernel that runs ends by saying that it found no root file system.
    let works = String::from_utf8_lossy(&output.stdout).contains("Unable to mount root fs");
    if let Some(parent) = known.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    fs::write(&known, if works { "works" } else { "does not" })
        .with_context(|| format!("writing {}", known.display()))?;
    Ok(works)
}

/// Builds `packages` for release; the directory of the binaries.
pub(crate) fn cargo_build(packages: &[&str]) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release"]);
    for package in packages {
        command.args(["--package", package]);
    }
    eprintln!("==> building {}", packages.join(", "));
    let status = command.status().context("starting cargo")?;
    if !status.success() {
        bail!("building {}: {status}", packages.join(", "));
    }
    Ok(target()?.join("release"))
}

/// Cargo, in the checkout.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The checkout.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Cargo's target directory.
pub(crate) fn target() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .output()
        .context("starting cargo")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata: target_directory")?;
    Ok(PathBuf::from(dir))
}
