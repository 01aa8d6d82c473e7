//! `cofferdam-vmm boot` by hand, with the test guest as init.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// The guest kernel that is installed.
pub(crate) const KERNEL: &str = "/usr/lib/cofferdam/vmlinux";

/// The same kernel as a compressed image.
pub(crate) const BZIMAGE: &str = "/usr/lib/cofferdam-test/bzImage";

/// The initramfs whose init is the test guest.
pub(crate) const GUEST: &str = "/usr/lib/cofferdam-test/guest.cpio";

/// A boot by hand, described.
pub(crate) struct Boot {
    command: Command,
}

impl Boot {
    /// Boots `kernel` with the test guest doing `action`.
    pub(crate) fn new(kernel: &str, action: &str) -> Self {
        let mut command = Command::new("cofferdam-vmm");
        command.args(["boot", "--kernel", kernel, "--initrd", GUEST, "--cmdline"]);
        command.arg(format!("console=ttyS0 panic=-1 quiet {action}"));
        Self { command }
    }

    /// Boots `kernel`, which needs no init, with these words on its command line.
    pub(crate) fn bare(kernel: &str, words: &str) -> Self {
        let mut command = Command::new("cofferdam-vmm");
        command.args(["boot", "--kernel", kernel, "--cmdline", words]);
        Self { command }
    }

    /// Adds flags.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.command.args(flags);
        self
    }

    /// Runs it to its end, at most two minutes.
    pub(crate) fn output(self) -> Result<(i32, String)> {
        let mut limited = Command::new("timeout");
        limited.arg("120").arg(self.command.get_program()).args(self.command.get_args());
        let Output { status, stdout, stderr } =
            limited.output().context("starting cofferdam-vmm")?;
        let text = [stdout, stderr].concat();
        Ok((status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
    }

    /// Runs it; the guest must say that all is well.
    pub(crate) fn succeeds(self) -> Result<String> {
        let (code, text) = self.output()?;
        ensure!(text.contains("TEST OK"), "code {code}: {text}");
        Ok(text)
    }

    /// The command, to be started and watched by the case itself.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }
}
