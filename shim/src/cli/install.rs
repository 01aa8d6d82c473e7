//! `cofferdam install` and `uninstall`.
//!
//! Invariant: what was done is printed, what was not is an error.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::install::{self, Prefix, Report, Request, Sources};

/// Where things go.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// Directory below which everything goes: bin, lib/cofferdam, and etc/cofferdam unless it is /usr or /usr/local
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// The host's root directory, if it is mounted elsewhere
    #[arg(long, value_name = "DIR", default_value = "/")]
    destdir: PathBuf,
}

/// Arguments of `install`.
#[derive(Debug, Args)]
pub(super) struct Install {
    #[command(flatten)]
    place: Where,
    /// Add the runtime to containerd's configuration
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/etc/containerd/config.toml")]
    containerd: Option<PathBuf>,
    /// Replace files that are there and were not placed by this command
    #[arg(long)]
    force: bool,
}

/// Arguments of `uninstall`.
#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    place: Where,
    /// Uninstall although containers live: nothing will clean up after them
    #[arg(long)]
    force: bool,
}

impl Where {
    fn request(&self, containerd: Option<PathBuf>, force: bool) -> Result<Request> {
        Ok(Request { prefix: Prefix::new(&self.prefix, &self.destdir)?, containerd, force })
    }
}

impl Install {
    /// Installs; the exit code.
    pub(super) fn execute(&self) -> Result<u8> {
        let request = self.place.request(self.containerd.clone(), self.force)?;
        Ok(shown(&install::install(&request, &Sources::own()?)?))
    }
}

impl Uninstall {
    /// Uninstalls; the exit code.
    pub(super) fn execute(&self) -> Result<u8> {
        Ok(shown(&install::uninstall(&self.place.request(None, self.force)?)?))
    }
}

/// Prints what was done; what was kept makes it a failure.
fn shown(report: &Report) -> u8 {
    for line in &report.lines {
        println!("{line}");
    }
    for kept in &report.kept {
        eprintln!("cofferdam: kept {kept}");
    }
    u8::from(!report.kept.is_empty())
}
