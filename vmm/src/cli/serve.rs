//! Without a command: serves the control socket that a supervisor left on standard input.
//!
//! Invariant: nothing that comes after the first message is looked at before this process is confined.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use cofferdam_vmm::control::{Served, chain, serve};
use cofferdam_vmm::jail::{self, Filters};
use cofferdam_vmm::machine::Host;
use cofferdam_vmm_api::{Channel, ChannelError, ExitReason, FromMonitor, Message, ToMonitor};
use cofferdam_vmm_hv::Hypervisor;
use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::exit;

/// Confines this process and serves one machine.
pub(crate) fn run(started_ns: u64) -> anyhow::Result<ExitCode> {
    jail::close_inherited().context("cannot close what the caller left open")?;
    let channel = control_channel().context(
        "no control socket on standard input: this program is started by a supervisor; \
         try `cofferdam-vmm boot --help`",
    )?;
    // Once more after the change of user, which undoes it.
    jail::die_with_parent()?;
    jail::end_on_panic(exit::FAILED.into());
    let served = match serve_first(&channel, started_ns) {
        Err(ChannelError::Closed) => Served::Abandoned,
        served => served.context("serving the control socket")?,
    };
    Ok(ExitCode::from(match served {
        Served::Exited(ExitReason::Error(_)) | Served::Failed(_) => exit::FAILED,
        Served::Exited(_) => 0,
        Served::Abandoned => exit::STOPPED,
    }))
}

fn serve_first(channel: &Channel, started_ns: u64) -> Result<Served, ChannelError> {
    let host = match channel.receive()? {
        Message { body: ToMonitor::Confine { uid }, fds } => confine(uid, fds),
        _ => Err(anyhow::anyhow!("told something before it was told to confine itself")),
    };
    match host {
        Ok((host, missing)) => {
            channel.send(&FromMonitor::Confined { missing }, &[])?;
            serve(channel, &host, started_ns)
        }
        Err(error) => {
            let text = chain(error.as_ref());
            channel.send(&FromMonitor::Failed(text.clone()), &[])?;
            Ok(Served::Failed(text))
        }
    }
}

/// Gives up all rights; what is left is what machines are made of, and what could not be given up.
fn confine(uid: Option<u32>, fds: Vec<OwnedFd>) -> anyhow::Result<(Host, Vec<String>)> {
    let missing = jail::enter(uid)?;
    let kvm = fds.into_iter().next().context("KVM's device node did not come along")?;
    let hypervisor = Hypervisor::from_fd(kvm)?;
    let filters = Filters::new().context("cannot make the system-call filters")?;
    Ok((Host { hypervisor, filters: Arc::new(filters) }, missing))
}

/// The socket on standard input.
fn control_channel() -> io::Result<Channel> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    match getsockopt(&socket, sockopt::SockType)? {
        SockType::SeqPacket => Ok(Channel::new(socket)),
        _ => Err(io::Error::other("it is a socket of another kind")),
    }
}
