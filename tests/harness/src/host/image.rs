//! The disk of the KVM test host: Debian 13 with container engines, our init and one ssh key, as a cache entry.
//!
//! Invariant: an entry is never written to after it was made; every machine runs on a throw-away copy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools::archive::{Archive, Wanted};
use crate::tools::{apt, cache, debian};

/// The packages of the host.
const PACKAGES: &str = include_str!("../../image/packages");

/// containerd 2, beside the one of the host's release: a later release has it, whose package needs no newer C library.
const CONTAINERD2: Wanted<'_> = Wanted { package: "containerd", suite: "forky", version: "2." };

/// The files that make a Debian tree the test host: name and text.
const FILES: [(&str, &str); 7] = [
    ("customize", include_str!("../../image/customize")),
    ("containers.conf", include_str!("../../image/containers.conf")),
    ("host-exec", include_str!("../../image/host-exec")),
    ("host-services", include_str!("../../image/host-services")),
    ("init", include_str!("../../image/init")),
    ("initramfs-init", include_str!("../../image/initramfs-init")),
    ("sshd_config", include_str!("../../image/sshd_config")),
];

/// The test host's image: what QEMU boots and what ssh needs to get in.
#[derive(Debug, Clone)]
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// The image for this version of the harness, made if the cache lacks it (a minute or two).
    ///
    /// # Errors
    /// If packages are missing or the image cannot be made.
    pub fn get() -> Result<Self> {
        let mut parts = vec![debian::SUITE, PACKAGES, CONTAINERD2.suite, CONTAINERD2.version];
        parts.extend(FILES.iter().map(|(_, text)| *text));
        let dir = cache::entry("host", &cache::key(&parts), make)?;
        Ok(Self { dir })
    }

    /// The image whose cache entry is `dir`.
    #[must_use]
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The cache entry.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The initramfs that finds the disk.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    /// The root disk (raw, ext4).
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.dir.join("root.ext4")
    }

    /// The private key that root's account accepts.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir.join("id_ed25519")
    }

    /// The host's own key, under the name `kvm-test-host`.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }
}

/// Makes the image in the directory `out`.
fn make(out: &Path) -> Result<()> {
    apt::require(&["openssh-client", "cpio", "xz-utils"])?;
    let source = tempfile::tempdir().context("creating a directory for the host's files")?;
    let source = source.path();
    for (name, text) in FILES {
        let file = source.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("making {} executable", file.display()))?;
    }
    let log = cache::root().join("logs/host-image.log");
    let lists = tempfile::tempdir().context("creating a directory for lists of packages")?;
    Archive::open(&[CONTAINERD2.suite], lists.path(), &log)?
        .binary(CONTAINERD2, &source.join("containerd2"))?;
    keygen(&out.join("id_ed25519"))?;
    keygen(&source.join("ssh_host_ed25519_key"))?;
    copy(&out.join("id_ed25519.pub"), &source.join("authorized_keys"))?;
    let host_key = fs::read_to_string(source.join("ssh_host_ed25519_key.pub"))
        .context("reading the new host key")?;
    fs::write(out.join("known_hosts"), format!("kvm-test-host {host_key}"))
        .context("writing known_hosts")?;
    debian::build(
        "building the KVM test host (Debian 13 with containerd 1.7 and 2, podman, docker)",
        &debian::packages(PACKAGES),
        &[&source.join("customize"), source, out],
        &log,
    )
}

/// Makes an ed25519 key without a passphrase at `path` and `path`.pub.
fn keygen(path: &Path) -> Result<()> {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "kvm-test-host", "-f"])
        .arg(path)
        .output()
        .context("starting ssh-keygen")?;
    if !output.status.success() {
        bail!("ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}
