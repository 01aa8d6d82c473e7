//! The launcher: sets a container up from inside its namespaces, or joins a running one, and becomes the
//! process.
//!
//! ```text
//! agent: clone3 -> stages (joins namespaces, waits for the agent) -> execveat of the agent itself
//!     -> main: setup (mounts, devices, hooks, pivot_root) -> process (ids, capabilities) -> Ready
//!     -> Go -> hooks -> seccomp -> execve
//! ```
//!
//! Invariant: it is a fresh process with one thread that knows nothing but its plan; every failure
//! goes to the agent over the channel, and then it ends.

pub(crate) mod channel;
mod copy_up;
mod deadline;
mod devices;
mod hooks;
pub(crate) mod keeper;
mod lookup;
mod mounts;
mod options;
mod passwd;
mod paths;
pub(crate) mod plan;
mod process;
mod root;
mod setup;
mod spawn;
mod stages;
mod terminal;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use prost::Message as _;

use crate::error::{Context, Failure, Result};
use crate::sys;

pub(crate) use spawn::{CLONE_NEWTIME, Group, Join, Launch, Launched, MAX_FILES, Waiting, launch};

/// `argv[0]` of a launcher.
pub(crate) const NAME: &str = "cofferdam-launcher";

/// Descriptors of a launcher besides its standard streams.
const PLAN_FD: i32 = 3;
const CHANNEL_FD: i32 = 4;

/// Runs the launcher; returns only when it fails.
pub(crate) fn main() -> ExitCode {
    let (plan, channel) = (sys::adopt(PLAN_FD), sys::adopt(CHANNEL_FD));
    if let Err(failure) = run(plan, channel.as_fd()) {
        // If the agent is not there any more, nobody needs to know.
        let _ = channel::send(channel.as_fd(), &channel::Message::Failed(failure));
    }
    ExitCode::FAILURE
}

/// Does what the plan says.
fn run(plan: OwnedFd, channel: BorrowedFd<'_>) -> Result<()> {
    // Processes of the container that is joined must not look into this one.
    sys::set_dumpable(false).context(|| "becoming undumpable".into())?;
    let mut bytes = Vec::new();
    File::from(plan).read_to_end(&mut bytes).context(|| "reading the plan".into())?;
    let plan = plan::LaunchPlan::decode(bytes.as_slice());
    let plan = plan.map_err(|error| Failure::other(format!("reading the plan: {error}")))?;
    let process = plan.process.as_deref();
    let process = process.ok_or_else(|| Failure::unsupported("a plan without a process"))?;
    process::new_session()?;
    let setup = plan.setup.as_deref();
    match setup {
        Some(container) => setup::run(&plan, container, process, channel)?,
        None => setup::join(process, channel)?,
    }
    let hooks = setup.and_then(|container| container.start_hooks.as_ref());
    process::run(process, hooks, channel)
}
