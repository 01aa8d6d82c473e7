//! `cofferdam create` and `cofferdam start`.
//!
//! Invariant: nothing is started before the plan is complete.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::Global;
use super::common::{block_on, find};
use crate::config::Overrides;
use crate::container::Status;
use crate::living;
use crate::oci::Bundle;
use crate::pod::check_id;
use crate::run::{self, Options, RunError, RunPlan, report};
use crate::signals::Signals;

/// Options that `create` and `run` have in common, as in runc.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Socket of the one who gets the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Socket of the one who gets a pidfd of the process that stands for the container
    #[arg(long, value_name = "SOCKET")]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// File that gets the number of the process that stands for the container
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Accepted as runc has it: the root of a machine of its own needs no pivot
    #[arg(long)]
    no_pivot: bool,
    /// Accepted as runc has it: each container of a pod has keyrings of its own
    #[arg(long)]
    no_new_keyring: bool,
    /// Descriptors passed to the container: only 0, as a descriptor cannot enter a virtual machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

impl Common {
    /// Refuses what cannot be.
    pub(super) fn check(&self) -> Result<()> {
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            tracing::warn!("NOTIFY_SOCKET: nothing in a virtual machine can notify it; ignored");
        }
        if self.preserve_fds > 0 {
            bail!(
                "--preserve-fds {}: a descriptor of the host cannot enter a virtual machine",
                self.preserve_fds
            );
        }
        Ok(())
    }
}

/// Options of `cofferdam create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Id of the container
    id: String,
    /// The OCI bundle: a directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl CreateArgs {
    /// Creates the container.
    pub(super) fn execute(self, global: &Global) -> Result<()> {
        check_id(&self.id)?;
        self.common.check()?;
        let bundle = Bundle::load(&self.bundle)?;
        let file = Overrides::from_file(&global.config)?;
        let plan = RunPlan::new((&global.root, &self.id), &bundle, file, Overrides::default())?;
        let options = Options {
            pid_file: self.common.pid_file,
            console_socket: self.common.console_socket,
            pidfd_socket: self.common.pidfd_socket,
            detached: true,
            keep: true,
            ..global.options(self.id)
        };
        block_on(detached(&plan, &options))
    }
}

/// Creates a container that goes on without us.
pub(super) async fn detached(plan: &RunPlan, options: &Options) -> Result<()> {
    for warning in &plan.warnings {
        tracing::warn!(id = options.id, "{warning}");
    }
    if plan.terminal && options.console_socket.is_none() {
        bail!("cannot allocate tty if runc will detach without setting console socket");
    }
    if !plan.terminal && options.console_socket.is_some() {
        bail!("cannot use console socket if runc will not detach or allocate tty");
    }
    let say = |error: RunError| anyhow::anyhow!("{}", report(&error, &plan.program(), Some(plan)));
    let mut signals = Signals::listen()?;
    let created = run::create_and_leave(plan, options, &mut signals).await;
    created.map(drop).map_err(say)
}

/// Starts a created container.
pub(super) fn start(global: &Global, id: &str) -> Result<()> {
    let (saved, status) = find(&global.root, id)?;
    match status {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        other => bail!("cannot start a container in the {other} state"),
    }
    block_on(living::start(&global.root, &saved))
}
