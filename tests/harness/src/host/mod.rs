//! The KVM test host: a machine with a working `/dev/kvm` for end-to-end tests.
//!
//! Where this machine's own KVM boots a kernel, that is this machine; elsewhere it is emulated by QEMU, with SVM and
//! nested paging, running Debian 13 with the usual container engines.
//!
//! Invariant: a command runs with what is being tested in its place, and leaves nothing behind on this machine.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, Result, bail};

pub mod image;
pub mod link;
pub mod local;
pub mod machine;
pub mod measuring;
mod qemu;
pub mod rootfs;
pub mod stage;

use link::Options;
use local::Local;
use machine::{Config, Machine};
use stage::Stage;

/// The variable that chooses the test host: `local` or `emulated`.
pub const CHOICE: &str = "COFFERDAM_TEST_HOST";

/// Where a shared directory is in the host.
pub const SHARE: &str = "/mnt/share";

/// Which machine tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This machine's own KVM.
    Local,
    /// QEMU.
    Emulated,
}

impl Kind {
    /// What [`CHOICE`] says, or else what `probe` finds out about this machine's KVM.
    ///
    /// # Errors
    /// If the variable has another value.
    pub fn choose(probe: impl FnOnce() -> bool) -> Result<Self> {
        Self::parse(std::env::var(CHOICE).ok().as_deref(), probe)
    }

    fn parse(value: Option<&str>, probe: impl FnOnce() -> bool) -> Result<Self> {
        match value {
            Some("local") => Ok(Self::Local),
            Some("emulated") => Ok(Self::Emulated),
            Some(other) => bail!("{CHOICE}={other}: it is \"local\" or \"emulated\""),
            None if probe() => Ok(Self::Local),
            None => Ok(Self::Emulated),
        }
    }
}

/// A host on which KVM works.
#[derive(Debug)]
pub enum TestHost {
    /// This machine.
    Local(Local),
    /// An emulated one.
    Emulated(Machine),
}

/// What to start a test host with.
#[derive(Debug, Default)]
pub struct Setup {
    /// The files under test.
    pub stage: Option<Stage>,
    /// An ext4 image with the root file system of the test containers.
    pub rootfs: Option<PathBuf>,
    /// The name of a machine that keeps running, and is used if it runs already.
    pub keep: Option<String>,
}

impl TestHost {
    /// A host of the given kind with `setup.stage` installed.
    ///
    /// # Errors
    /// If it cannot be started or reached.
    pub fn get(kind: Kind, setup: Setup) -> Result<Self> {
        if kind == Kind::Local {
            return Ok(Self::Local(Local::new(setup.stage, setup.rootfs)?));
        }
        if let Some(name) = &setup.keep
            && let Some(machine) = Machine::find(name)?
        {
            machine.connect()?;
            if let Some(stage) = &setup.stage {
                machine.put(&stage.tree(), "")?;
            }
            return Ok(Self::Emulated(machine));
        }
        let payload = setup.stage.as_ref().map(Stage::tar).transpose()?;
        let config = Config { payload, rootfs: setup.rootfs };
        let machine = match &setup.keep {
            Some(name) => Machine::keep(name, &config)?,
            None => Machine::once(&config)?,
        };
        machine.connect()?;
        Ok(Self::Emulated(machine))
    }

    /// Runs `argv` with our own standard streams, passing on signals; `share` is at [`SHARE`] and what the command
    /// changes or adds there comes back.
    ///
    /// # Errors
    /// If the command cannot be started, the host dies, or the shared directory cannot be copied.
    pub fn run(
        &self,
        argv: &[String],
        options: &Options,
        share: Option<&Path>,
    ) -> Result<ExitStatus> {
        let share = share
            .map(|dir| dir.canonicalize().with_context(|| format!("sharing {}", dir.display())))
            .transpose()?;
        let share = share.as_deref();
        let machine = match self {
            Self::Local(local) => return local.run(argv, options, share),
            Self::Emulated(machine) => machine,
        };
        if let Some(dir) = share {
            machine.mirror(dir, SHARE)?;
        }
        let status = machine.run(argv, options)?;
        if let Some(dir) = share {
            machine.get(SHARE, dir)?;
        }
        Ok(status)
    }
}

#[cfg(test)]
#[path = "host_test.rs"]
mod host_test;
