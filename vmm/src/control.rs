//! The control server: one machine's life, as its supervisor sees it.
//!
//! Order: a specification comes; stages, then `Booted` or `Failed` go; at the end `Stats` and `Exited`. The
//! request to be confined came before, to `main`: it concerns the process, not the machine.
//!
//! Invariant: when the supervisor's end of the socket closes, [`serve`] returns at once and the process is
//! expected to end; nothing of the machine outlives its owner.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cofferdam_vmm_api::{
    Booted, Channel, ChannelError, ExitReason, FromMonitor, MachineSpec, Message, Stage, StageName,
    ToMonitor,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::machine::{Files, Host, Machine, Running, now_ns};
use crate::plan::Plan;

/// How a machine's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// The supervisor was told why the machine ended.
    Exited(ExitReason),
    /// The supervisor was told that the machine cannot be built.
    Failed(String),
    /// The supervisor is gone.
    Abandoned,
}

/// Serves one machine on `channel`, built on `host`. `started_ns` is when the process started, on
/// `CLOCK_MONOTONIC`. From the machine's start on the calling thread can do little else.
///
/// # Errors
/// If the control socket fails otherwise than by being closed.
pub fn serve(channel: &Channel, host: &Host, started_ns: u64) -> Result<Served, ChannelError> {
    match serve_open(channel, host, started_ns) {
        Err(ChannelError::Closed) => Ok(Served::Abandoned),
        other => other,
    }
}

fn serve_open(channel: &Channel, host: &Host, started_ns: u64) -> Result<Served, ChannelError> {
    let (spec, fds) = match channel.receive()? {
        Message { body: ToMonitor::Boot(spec), fds } => (*spec, fds),
        Message { body: ToMonitor::Stop, .. } => return exited(channel, ExitReason::Stopped),
        Message { body, .. } => return exited(channel, out_of_turn(&body)),
    };
    let reporter = Reporter { channel };
    reporter.reached(StageName::MonitorStarted, started_ns)?;
    match boot(&reporter, host, spec, fds) {
        Ok(mut running) => {
            let reason = supervise(&reporter, &mut running)?;
            let stats = running.stop();
            channel.send(&FromMonitor::Stats(Box::new(stats)), &[])?;
            exited(channel, reason)
        }
        Err(StartError::Channel(error)) => Err(error),
        Err(StartError::Machine(error)) => {
            let text = chain(error.as_ref());
            channel.send(&FromMonitor::Failed(text.clone()), &[])?;
            Ok(Served::Failed(text))
        }
    }
}

fn exited(channel: &Channel, reason: ExitReason) -> Result<Served, ChannelError> {
    channel.send(&FromMonitor::Exited(reason.clone()), &[])?;
    Ok(Served::Exited(reason))
}

fn out_of_turn(message: &ToMonitor) -> ExitReason {
    ExitReason::Error(format!("told out of turn: {message:?}"))
}

/// Why there is no running machine.
enum StartError {
    Channel(ChannelError),
    Machine(Box<dyn Error>),
}

impl From<ChannelError> for StartError {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

fn boot(
    reporter: &Reporter<'_>,
    host: &Host,
    spec: MachineSpec,
    fds: Vec<OwnedFd>,
) -> Result<Running, StartError> {
    let failed = |error: Box<dyn Error>| StartError::Machine(error);
    let plan = Plan::new(spec, fds.len()).map_err(|error| failed(error.into()))?;
    let machine = Machine::build(&plan, Files::new(fds), host);
    let machine = machine.map_err(|error| failed(error.into()))?;
    reporter.reached(StageName::MachineBuilt, now_ns())?;
    let disks = machine.disks.clone();
    let entered = now_ns();
    let running = machine.start().map_err(|error| failed(error.into()))?;
    reporter.reached(StageName::KernelEntered, entered)?;
    reporter.channel.send(&FromMonitor::Booted(Booted { disks }), &[])?;
    Ok(running)
}

/// Waits until the machine ends or the supervisor says so.
fn supervise(reporter: &Reporter<'_>, running: &mut Running) -> Result<ExitReason, ChannelError> {
    let mut told = false;
    loop {
        let outcome = running.outcome();
        let mut fds = [
            PollFd::new(reporter.channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(outcome.changed().as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let ready = |fd: &PollFd<'_>| fd.any() == Some(true);
        let (asked, changed) = (ready(&fds[0]), ready(&fds[1]));
        if changed {
            outcome.seen();
            if let (false, Some(at_ns)) = (told, outcome.drivers_started()) {
                told = true;
                reporter.reached(StageName::DriversStarted, at_ns)?;
            }
            if let Some(reason) = outcome.reason() {
                return Ok(reason.clone());
            }
        }
        if asked {
            let Message { body, fds } = reporter.channel.receive()?;
            let answer = match body {
                ToMonitor::Stop => return Ok(ExitReason::Stopped),
                ToMonitor::Pause => {
                    running.pause();
                    FromMonitor::Paused
                }
                ToMonitor::Resume => {
                    running.resume();
                    FromMonitor::Resumed
                }
                ToMonitor::Stats => FromMonitor::Stats(Box::new(running.stats())),
                ToMonitor::Attach(device) => match running.attach(device, fds) {
                    Ok(address) => FromMonitor::Attached(address),
                    Err(error) => FromMonitor::Refused(chain(&error)),
                },
                ToMonitor::Detach(address) => match running.detach(address) {
                    Ok(in_use) => FromMonitor::Detached { address, in_use },
                    Err(error) => FromMonitor::Refused(chain(&error)),
                },
                ToMonitor::Memory => FromMonitor::Memory(running.memory()),
                ToMonitor::SetMemory(wanted) => match running.set_memory(wanted) {
                    Ok(state) => FromMonitor::Memory(state),
                    Err(error) => FromMonitor::Refused(chain(&error)),
                },
                other => return Ok(out_of_turn(&other)),
            };
            reporter.channel.send(&answer, &[])?;
        }
    }
}

struct Reporter<'a> {
    channel: &'a Channel,
}

impl Reporter<'_> {
    fn reached(&self, name: StageName, at_ns: u64) -> Result<(), ChannelError> {
        self.channel.send(&FromMonitor::Reached(Stage { name, at_ns }), &[])
    }
}

/// An error and its sources in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
#[path = "control_test.rs"]
mod control_test;
