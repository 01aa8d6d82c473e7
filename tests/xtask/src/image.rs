//! `cargo xtask image`: the guest image, which is an initramfs that holds the agent alone.
//!
//! Invariant: the initramfs is at most [`LARGEST`] bytes, and its manifest was written for exactly its bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cofferdam_agent_protocol::PROTOCOL_VERSION;
use cofferdam_rootfs_builder::initramfs;
use serde::Serialize;

use crate::{artefacts, kernel};

/// The largest image, in bytes: it is copied into every guest's memory and stays there.
const LARGEST: usize = 2 << 20;

/// The targets that the agent is built for, the first one that is installed: musl gives a third of the size.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "x86_64-unknown-linux-gnu"];

/// Makes an executable that needs no loader and no relocation.
const RUSTFLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// Arguments of `cargo xtask image`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Where the guest image is.
#[derive(Debug)]
pub(crate) struct ImagePaths {
    /// What the monitor gives to the kernel.
    pub(crate) initramfs: PathBuf,
    /// What it is.
    pub(crate) manifest: PathBuf,
}

/// What the manifest says.
#[derive(Serialize)]
struct Manifest {
    /// Of Cofferdam.
    version: &'static str,
    /// What the agent speaks to the host.
    protocol_version: u32,
    /// The Rust target of the agent.
    target: &'static str,
    /// Length of the initramfs in bytes.
    size: usize,
    /// SHA-256 of the initramfs.
    sha256: String,
}

/// Runs `cargo xtask image`.
pub(crate) fn run(_args: &Args) -> Result<()> {
    println!("{}", build()?.initramfs.display());
    Ok(())
}

/// Builds the agent and puts it into an initramfs; both are quick if nothing changed.
pub(crate) fn build() -> Result<ImagePaths> {
    let (target, agent) = build_static("cofferdam-agent")?;
    let bytes = fs::read(&agent).with_context(|| format!("reading {}", agent.display()))?;
    let image = initramfs::build(&bytes)?;
    if image.len() > LARGEST {
        bail!("the guest image has {} bytes, {LARGEST} are allowed", image.len());
    }
    let directory = artefacts::target()?.join("cofferdam");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let paths = ImagePaths {
        initramfs: directory.join("initramfs"),
        manifest: directory.join("initramfs.json"),
    };
    replace(&paths.initramfs, &image)?;
    let manifest = Manifest {
        version: env!("CARGO_PKG_VERSION"),
        protocol_version: PROTOCOL_VERSION,
        target,
        size: image.len(),
        sha256: kernel::sha256(&paths.initramfs)?,
    };
    let manifest = serde_json::to_string_pretty(&manifest)? + "\n";
    replace(&paths.manifest, manifest.as_bytes())?;
    Ok(paths)
}

/// Whether the toolchain can build for `target`.
fn installed(target: &str) -> bool {
    let output =
        Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    output.is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(path.trim()).is_dir()
    })
}

/// Builds the executable of `package`, which runs in the guest; its target and its path.
pub(crate) fn build_static(package: &str) -> Result<(&'static str, PathBuf)> {
    let target = TARGETS.into_iter().find(|target| installed(target)).context(
        "no Rust standard library for the guest: rustup target add x86_64-unknown-linux-musl",
    )?;
    Ok((target, build_for(target, package, &[])?))
}

/// Builds `package` as a kernel; its path.
pub(crate) fn build_bare_metal(package: &str) -> Result<PathBuf> {
    build_for(TARGETS[1], package, &["--features", "bare-metal"])
}

fn build_for(target: &str, package: &str, options: &[&str]) -> Result<PathBuf> {
    eprintln!("==> building {package}");
    let mut cargo = artefacts::cargo();
    cargo.args(["build", "--quiet", "--profile", "guest", "--package", package]);
    cargo.args(["--target", target]).args(options);
    cargo.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = cargo.status().context("starting cargo")?;
    if !status.success() {
        bail!("building {package}: {status}");
    }
    Ok(artefacts::target()?.join(target).join("guest").join(package))
}

/// Writes `bytes` to `path` in one step, so that nobody reads half of them.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().context("a path without a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(parent)
        .with_context(|| format!("creating a file in {}", parent.display()))?;
    std::io::Write::write_all(&mut file, bytes)
        .with_context(|| format!("writing {}", path.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}
