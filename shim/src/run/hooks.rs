//! The hooks of a container that run on the host, each list one after the other.
//!
//! Invariant: while a hook runs, the supervisor knows of it, and kills it when this process is killed; dropping the
//! future of a list kills the one that runs.

use cofferdam_vmm_api::ChannelError;

use super::RunError;
use crate::container::{Saved, Status};
use crate::control::ToSupervisor;
use crate::oci::hooks::Hook;
use crate::socket::Socket;

/// Those that come before the container is created. One that fails ends the creation.
pub(super) async fn create(
    hooks: &[Hook],
    saved: &Saved,
    supervisor: &Socket,
) -> Result<(), RunError> {
    all(hooks, saved, Status::Creating, Some(supervisor)).await
}

/// Those that come after the container's start. One that fails is the end of the container, which is the caller's part.
pub(crate) async fn poststart(
    hooks: &[Hook],
    saved: &Saved,
    supervisor: &Socket,
) -> Result<(), RunError> {
    all(hooks, saved, Status::Running, Some(supervisor)).await
}

/// Those that come after the container's end. One that fails is a warning.
pub(crate) async fn poststop(hooks: &[Hook], saved: &Saved) {
    let result = all(hooks, saved, Status::Stopped, None).await;
    result.unwrap_or_else(|error| tracing::warn!("{:#}", anyhow::Error::from(error)));
}

/// In the bundle's directory, as with runc, or where we are if it is gone.
async fn all(
    hooks: &[Hook],
    saved: &Saved,
    status: Status,
    supervisor: Option<&Socket>,
) -> Result<(), RunError> {
    let state = saved.state(status).to_string();
    let directory = Some(saved.bundle.as_path()).filter(|path| path.is_dir());
    let tell = |pid: Option<u32>| -> Result<(), ChannelError> {
        let Some(supervisor) = supervisor else { return Ok(()) };
        let group = pid.and_then(|pid| i32::try_from(pid).ok());
        supervisor.channel().send(&ToSupervisor::Hook(group), &[])
    };
    for hook in hooks {
        // A supervisor that is gone is found out by what comes after the hooks.
        hook.run(&state, directory, |pid| drop(tell(pid))).await?;
    }
    Ok(())
}
