//! This machine as the test host, where its own KVM is good for it.
//!
//! Invariant: nothing that is tested is installed. A command sees the staged files through overlays in a mount namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use super::link::Options;
use super::machine::ROOTFS;
use super::stage::Stage;
use crate::tools::apt;
use crate::tools::debian::quote;

/// Debian packages with the programs that Cofferdam and the cases run.
const PACKAGES: &[&str] = &["e2fsprogs", "erofs-utils", "iproute2", "strace", "util-linux"];

/// This machine.
#[derive(Debug)]
pub struct Local {
    stage: Option<Stage>,
    rootfs: Option<PathBuf>,
}

impl Local {
    /// This machine, to test what `stage` holds.
    ///
    /// # Errors
    /// Without root, or without `/dev/kvm`; or a program that is needed cannot be installed.
    pub fn new(stage: Option<Stage>, rootfs: Option<PathBuf>) -> Result<Self> {
        if !Uid::effective().is_root() {
            bail!("running tests on this machine's own KVM needs root");
        }
        fs::metadata("/dev/kvm").context("no KVM on this machine: /dev/kvm")?;
        apt::require(PACKAGES)?;
        Ok(Self { stage, rootfs })
    }

    /// Runs `argv` with our own standard streams; `share` is seen at `/mnt/share`.
    ///
    /// # Errors
    /// If the command cannot be started.
    pub fn run(
        &self,
        argv: &[String],
        options: &Options,
        share: Option<&Path>,
    ) -> Result<ExitStatus> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-e", "-c"]);
        command.arg(self.script(options, share)).arg("sh").args(argv);
        command.envs(options.env.iter().map(|(name, value)| (name, value)));
        command.stdout(options.stdout()?);
        command.status().context("starting unshare")
    }

    /// The shell script that shows the staged files in their places and becomes the command.
    fn script(&self, options: &Options, share: Option<&Path>) -> String {
        let mut script = String::new();
        let path = |path: &Path| quote(&path.to_string_lossy());
        if let Some(stage) = &self.stage {
            for entry in ["usr/local/bin", "usr/lib"] {
                let top = stage.tree().join(entry);
                if top.is_dir() {
                    script.push_str(&format!(
                        "mount -t overlay -o ro,lowerdir={}:/{entry} overlay /{entry}\n",
                        path(&top)
                    ));
                }
            }
        }
        if let Some(rootfs) = &self.rootfs {
            script.push_str(&format!(
                "mkdir -p {ROOTFS}\nmount -o loop,ro {} {ROOTFS}\n",
                path(rootfs)
            ));
        }
        if let Some(share) = share {
            script.push_str(&format!(
                "mount -t tmpfs tmpfs /mnt\nmkdir /mnt/share\nmount --rbind {} /mnt/share\n",
                path(share)
            ));
        }
        if !options.cwd.is_empty() {
            script.push_str(&format!("cd {}\n", quote(&options.cwd)));
        }
        script.push_str("exec \"$@\"\n");
        script
    }
}

#[cfg(test)]
#[path = "local_test.rs"]
mod local_test;
