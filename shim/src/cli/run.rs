//! `cofferdam run`.
//!
//! Invariant: nothing is started before the plan is complete.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::common::block_on;
use super::create::{Common, detached, start};
use super::delete::delete;
use super::rootfs::{self, Request};
use super::{Global, fail};
use crate::config::{Overrides, Scratch};
use crate::oci::Bundle;
use crate::pod::check_id;
use crate::run::{Options, Outcome, RunError, RunPlan, foreground, report};
use crate::timeline::Timeline;
use crate::units::Bytes;

/// Options of `cofferdam run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Id of the container; with --rootfs one is made up if none is given
    id: Option<String>,
    /// The OCI bundle: a directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".", conflicts_with = "rootfs")]
    bundle: PathBuf,
    /// Run without config.json: the directory of the root file system
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// Return when the container runs
    #[arg(short, long)]
    detach: bool,
    /// Do not delete the container when it has ended
    #[arg(long)]
    keep: bool,
    /// Accepted as runc has it: nothing here adopts orphans
    #[arg(long)]
    no_subreaper: bool,
    /// Give the container a terminal
    #[arg(short, long, requires = "rootfs")]
    tty: bool,
    /// Keep standard input open (it always is; accepted out of habit)
    #[arg(short, long, requires = "rootfs")]
    interactive: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE", requires = "rootfs")]
    env: Vec<String>,
    /// Working directory in the container
    #[arg(short = 'w', long, value_name = "DIR", requires = "rootfs")]
    cwd: Option<String>,
    /// User and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]", requires = "rootfs")]
    user: Option<String>,
    /// Memory limit of the container, for example 512M
    #[arg(short, long, value_name = "SIZE", requires = "rootfs")]
    memory: Option<Bytes>,
    /// CPU limit of the container, for example 1.5
    #[arg(long, value_name = "NUMBER", requires = "rootfs")]
    cpus: Option<f64>,
    /// Host name of the container
    #[arg(long, value_name = "NAME", requires = "rootfs")]
    hostname: Option<String>,
    /// Make the root file system read-only for the container
    #[arg(long, requires = "rootfs")]
    read_only: bool,
    /// Virtual CPUs of the machine, instead of what the limits ask for
    #[arg(long, value_name = "NUMBER")]
    vcpus: Option<u8>,
    /// Memory of the machine, instead of what the limits ask for
    #[arg(long, value_name = "SIZE")]
    vm_memory: Option<Bytes>,
    /// What takes the container's writes: "tmpfs", or the size of a disk
    #[arg(long, value_name = "tmpfs|SIZE")]
    scratch: Option<Scratch>,
    /// Write the guest's console to FILE: its last 64 KiB (slows down the start)
    #[arg(long, value_name = "FILE")]
    console_log: Option<PathBuf>,
    /// Write when which stage was reached: FILE.svg a drawing, FILE.json data, else a table; - is standard error;
    /// may be given several times
    #[arg(long, value_name = "FILE")]
    timeline: Vec<PathBuf>,
    /// The command, with --rootfs
    #[arg(last = true, value_name = "COMMAND", requires = "rootfs")]
    command: Vec<String>,
}

impl Run {
    /// Runs the container; gives the exit code.
    pub(super) fn execute(self, global: &Global, timeline: Timeline) -> Result<u8> {
        let id = self.container_id()?;
        self.common.check()?;
        let bundle = self.load().map_err(|error| error.context("run failed"))?;
        let file = Overrides::from_file(&global.config)?;
        let options = Options {
            console_log: self.console_log.clone(),
            pid_file: self.common.pid_file.clone(),
            console_socket: self.common.console_socket.clone(),
            pidfd_socket: self.common.pidfd_socket.clone(),
            detached: self.detach,
            keep: self.detach || self.keep,
            ..global.options(id.clone())
        };
        let plan = RunPlan::new((&global.root, &id), &bundle, file, self.overrides());
        if self.detach {
            block_on(detached(&plan?, &options)).map_err(|error| error.context("run failed"))?;
            if let Err(error) = start(global, &id) {
                // Nobody could start it again.
                if let Err(error) = delete(global, &id, true) {
                    tracing::warn!("{error:#}");
                }
                return Err(error);
            }
            return Ok(0);
        }
        let (outcome, plan) = match plan {
            Ok(plan) => {
                for warning in &plan.warnings {
                    tracing::warn!(id, "{warning}");
                }
                let outcome = block_on(async { Ok(foreground(&plan, &options, timeline).await) })?;
                (outcome, Some(plan))
            }
            Err(error) => {
                let result = Err(RunError::from(error));
                (Outcome { result, timeline }, None)
            }
        };
        let code = match &outcome.result {
            Ok(status) => status.shell_code(),
            Err(error) => {
                let program = plan.as_ref().map(RunPlan::program).unwrap_or_default();
                let text = report(error, &program, plan.as_ref());
                if error.is_the_containers() {
                    eprintln!("{text}");
                } else {
                    fail(global, &format!("run failed: {text}"));
                }
                error.exit_code()
            }
        };
        for path in &self.timeline {
            if let Err(error) = write_timeline(path, &outcome.timeline) {
                tracing::warn!("{error:#}");
            }
        }
        Ok(code)
    }

    fn container_id(&self) -> Result<String> {
        let id = match (&self.id, &self.rootfs) {
            (Some(id), _) => id.clone(),
            (None, Some(_)) => made_up_id()?,
            (None, None) => {
                bail!("the id of the container is missing: cofferdam run [--bundle DIR] ID")
            }
        };
        check_id(&id)?;
        Ok(id)
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            vcpus: self.vcpus,
            memory: self.vm_memory,
            scratch: self.scratch,
            console: self.console_log.is_some().then_some(true),
            ..Default::default()
        }
    }

    fn load(&self) -> Result<Bundle> {
        let Some(rootfs) = &self.rootfs else { return Ok(Bundle::load(&self.bundle)?) };
        let directory = std::env::current_dir().context("the working directory")?;
        let spec = rootfs::spec(&Request {
            rootfs,
            command: &self.command,
            tty: self.tty,
            env: &self.env,
            cwd: self.cwd.as_deref(),
            user: self.user.as_deref(),
            memory: self.memory,
            cpus: self.cpus,
            hostname: self.hostname.as_deref(),
            read_only: self.read_only,
        })?;
        Ok(Bundle::from_spec(directory, spec)?)
    }
}

/// `cofferdam-` and random digits.
fn made_up_id() -> Result<String> {
    let mut bytes = [0; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("making up an id")?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("cofferdam-{digits}"))
}

fn write_timeline(path: &Path, timeline: &Timeline) -> Result<()> {
    let text = match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => timeline.to_svg(),
        Some("json") => timeline.to_json(),
        _ => timeline.to_text(),
    };
    if path == Path::new("-") {
        eprint!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("writing the timeline {}", path.display()))
}
