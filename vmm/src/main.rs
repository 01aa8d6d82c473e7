//! `cofferdam-vmm`: without arguments it serves its supervisor's control socket; `boot` runs a machine by
//! hand.

mod cli;
mod sys;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use cofferdam_vmm::control::{Served, chain, serve};
use cofferdam_vmm::machine::now_ns;
use cofferdam_vmm_api::ExitReason;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cli::Cli;
use crate::cli::exit;

fn main() -> ExitCode {
    let started_ns = now_ns();
    raise_descriptor_limit();
    let result = match Cli::parse().command {
        None => supervised(started_ns),
        Some(cli::Command::Boot(args)) => cli::boot::run(&args, started_ns),
    };
    result.unwrap_or_else(|error| {
        eprintln!("cofferdam-vmm: {}", chain(error.as_ref()));
        ExitCode::from(exit::FAILED)
    })
}

/// Each vsock connection holds a descriptor, and the usual soft limit of 1024 is for programs that use
/// `select(2)`. What the hard limit does not allow is refused one connection at a time.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Serves the control socket that the supervisor left.
fn supervised(started_ns: u64) -> anyhow::Result<ExitCode> {
    let channel = sys::control_channel().context(
        "no control socket at descriptor 3: this program is started by a supervisor; \
         try `cofferdam-vmm boot --help`",
    )?;
    let served = serve(&channel, started_ns).context("serving the control socket")?;
    Ok(ExitCode::from(match served {
        Served::Exited(ExitReason::Error(_)) | Served::Failed(_) => exit::FAILED,
        Served::Exited(_) => 0,
        Served::Abandoned => exit::STOPPED,
    }))
}
