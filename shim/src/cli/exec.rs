//! `cofferdam exec`.
//!
//! Invariant: the process gets what the container's own specification allows, unless the command line says more.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilitiesBuilder, Process, Spec};

use super::Global;
use super::common::{block_on, find};
use crate::container::{Saved, Status};
use crate::control::{Of, ToSupervisor, parcel};
use crate::hostgroup;
use crate::living::{self, config, connect};
use crate::oci::{self, HostNetwork};
use crate::run::{RunError, StandIn, Terminal, ask, hold, report, send_pidfd, write_pid};
use crate::signals::Signals;
use crate::terminal::RawMode;
use cofferdam_agent_protocol::ProcessPlan;

/// The exit code when there is no process, as runc has it.
pub(super) const FAILED: u8 = 255;

/// Time between two looks whether a paused container goes on.
const PAUSE: Duration = Duration::from_millis(50);

/// Options of `cofferdam exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Socket of the one who gets the process's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Socket of the one who gets a pidfd of the process that stands for it
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and group, by number
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Additional groups, by number
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// File with the process as in config.json, instead of the other options
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return when the process runs
    #[arg(short, long)]
    detach: bool,
    /// File that gets the number of the process that stands for it
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Accepted as runc has it: the guest has no SELinux
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Accepted as runc has it: the guest has no AppArmor
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Let the process gain no more privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Descriptors passed to the process: only 0, as a descriptor cannot enter a virtual machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Control group of the process, below the container's own, which is /
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Run in a paused container: the process begins when that is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// The container
    id: String,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    /// Starts the process; gives the exit code.
    pub(super) fn execute(self, global: &Global) -> Result<u8> {
        let (saved, mut status) = find(&global.root, &self.id)?;
        if status == Status::Paused && !self.ignore_paused {
            bail!("cannot exec in a paused container (use --ignore-paused to override)");
        }
        // As in a frozen control group: the process begins when the container goes on.
        while status == Status::Paused {
            std::thread::sleep(PAUSE);
            status = saved.status(&global.root);
        }
        if status == Status::Stopped {
            bail!("cannot exec in a stopped container");
        }
        if self.preserve_fds > 0 {
            bail!("--preserve-fds: a descriptor of the host cannot enter a virtual machine");
        }
        let spec = config(&global.root, &saved)?;
        let (process, mut warnings) = self.process(&spec)?;
        let (plan, more) = living::exec(&process, &spec)?;
        warnings.extend(more);
        for warning in warnings {
            tracing::debug!("{warning}");
        }
        if plan.terminal.is_some() && self.detach && self.console_socket.is_none() {
            bail!("cannot allocate tty if runc will detach without setting console socket");
        }
        block_on(self.run(global, &saved, plan))
    }

    /// The process that was asked for.
    fn process(&self, spec: &Spec) -> Result<(Process, Vec<String>)> {
        if let Some(path) = &self.process {
            let text =
                std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            return oci::parse_process(&text)
                .with_context(|| format!("parsing the process {}", path.display()));
        }
        if self.command.is_empty() {
            bail!("exec args cannot be empty");
        }
        let mut process = spec.process().clone().context("the container has no process")?;
        process.set_args(Some(self.command.clone()));
        process.set_terminal(Some(self.tty));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.into());
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(self.env.iter().cloned());
        process.set_env(Some(env));
        let mut user = process.user().clone();
        if let Some(wanted) = &self.user {
            let number = |text: &str| {
                text.parse::<u32>().with_context(|| format!("--user {wanted}: {text} is no number"))
            };
            // As runc: the group stays as it is unless one is named, and so do the container's other groups.
            let (uid, gid) =
                wanted.split_once(':').map_or((&**wanted, None), |(u, g)| (u, Some(g)));
            user.set_uid(number(uid)?);
            if let Some(gid) = gid {
                user.set_gid(number(gid)?);
            }
        }
        if !self.additional_gids.is_empty() {
            let mut groups = user.additional_gids().clone().unwrap_or_default();
            groups.extend(&self.additional_gids);
            user.set_additional_gids(Some(groups));
        }
        process.set_user(user);
        self.add_capabilities(&mut process)?;
        Ok((process, Vec::new()))
    }

    fn add_capabilities(&self, process: &mut Process) -> Result<()> {
        if self.cap.is_empty() {
            return Ok(());
        }
        let mut more = Capabilities::new();
        for name in &self.cap {
            let name = name.to_uppercase();
            let known = name.strip_prefix("CAP_").unwrap_or(&name).parse::<Capability>();
            match known {
                Ok(known) => drop(more.insert(known)),
                Err(_) => tracing::warn!("--cap {name}: unknown capability, ignored"),
            }
        }
        let old = process.capabilities().clone().unwrap_or_default();
        let with = |set: &Option<Capabilities>| -> Capabilities {
            set.iter().flatten().chain(&more).copied().collect()
        };
        // As runc: where the container has an inheritable set, what is in it becomes ambient; the rest could not.
        let inheritable = old.inheritable().clone().unwrap_or_default();
        let mut ambient = old.ambient().clone().unwrap_or_default();
        if old.inheritable().is_some() {
            ambient.extend(more.intersection(&inheritable).copied());
        }
        let all = LinuxCapabilitiesBuilder::default()
            .bounding(with(old.bounding()))
            .effective(with(old.effective()))
            .permitted(with(old.permitted()))
            .inheritable(inheritable)
            .ambient(ambient)
            .build()?;
        process.set_capabilities(Some(all));
        Ok(())
    }

    async fn run(&self, global: &Global, saved: &Saved, mut plan: ProcessPlan) -> Result<u8> {
        let program = plan.args.first().map(|arg| String::from_utf8_lossy(arg).into_owned());
        let program = program.unwrap_or_default();
        let say = |error: RunError| anyhow::anyhow!("{}", report(&error, &program, None));
        let mut signals = Signals::listen()?;
        let has_terminal = plan.terminal.is_some();
        let terminal = plan.terminal.as_mut();
        let size = terminal.map(|terminal| Terminal::of(terminal, self.detach));
        let mut stand_in = if self.detach {
            let network = HostNetwork::At(format!("/proc/{}/ns/net", saved.process.pid).into());
            StandIn::proxy(&plan.args, size, self.console_socket.as_deref(), &network)
                .map_err(say)?
        } else {
            StandIn::ours()?
        };
        if let Some(group) = saved.cgroup.as_deref().filter(|_| self.detach) {
            hostgroup::place(group, stand_in.pid);
        }
        let socket = connect(&global.root, saved)?;
        let parcel = parcel(&plan).context("passing on the plan")?;
        let mut fds = vec![parcel.as_fd()];
        fds.extend(stand_in.fds());
        let process = format!("exec-{}", stand_in.pid);
        let of = Of { container: saved.id.clone(), process };
        let cgroup = self.cgroup.clone().unwrap_or_default();
        ask(&socket, &ToSupervisor::Exec { of, cgroup }, &fds).await.map_err(say)?;
        if let Some(path) = &self.pidfd_socket {
            send_pidfd(path, stand_in.pid).map_err(say)?;
        }
        if let Some(path) = &self.pid_file {
            write_pid(path, stand_in.pid).map_err(say)?;
        }
        stand_in.leave();
        let Some(ours) = stand_in.ours.take() else { return Ok(0) };
        // With the supervisor's end of the socket closed here, we see when the supervisor is gone.
        drop(stand_in);
        let raw = if has_terminal { RawMode::enter()? } else { None };
        let nothing = Box::pin(std::future::ready(Ok(())));
        let ended = hold(&ours, &mut signals, has_terminal, nothing).await;
        drop(raw);
        match ended {
            Ok((status, _)) => Ok(status.shell_code()),
            // The process is gone with its pod, as a proxy has it.
            Err(RunError::Supervisor(_)) => Ok(137),
            Err(error) => Err(say(error)),
        }
    }
}

#[cfg(test)]
#[path = "exec_test.rs"]
mod exec_test;
