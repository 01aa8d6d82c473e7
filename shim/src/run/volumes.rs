//! The volumes of a container that is being created.
//!
//! Invariant: they belong to the connection with the supervisor until the container is created on it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cofferdam_agent_protocol::Mount;
use cofferdam_vmm_api::MAX_FDS;

use super::{RunError, RunPlan, ask};
use crate::control::{Answer, Failure, NewVolumes, ToSupervisor};
use crate::socket::Socket;
use crate::volumes::{server_program, tree};

/// Has the supervisor mount the volumes of `plan`, and fills in what the guest finds them by in `mounts`.
pub(super) async fn mount(
    plan: &RunPlan,
    supervisor: &Socket,
    mounts: &mut [Mount],
) -> Result<(), RunError> {
    for volumes in plan.volumes.chunks(MAX_FDS) {
        let server = server_program().map_err(Failure::other)?;
        let mapped = volumes.iter().map(|volume| volume.mapped).collect();
        let mut trees: Vec<OwnedFd> = Vec::new();
        for volume in volumes {
            let failed = |error| Failure::other(format!("{}: {error}", volume.called));
            trees.push(tree(&volume.place, volume.wish).map_err(failed)?);
        }
        let fds: Vec<BorrowedFd<'_>> = trees.iter().map(AsFd::as_fd).collect();
        let message = ToSupervisor::Volumes(NewVolumes { server, mapped });
        let Answer::Volumes(names) = ask(supervisor, &message, &fds).await? else {
            return Err(super::ground::nonsense());
        };
        for (volume, name) in volumes.iter().zip(names) {
            if let Some(mount) = mounts.get_mut(volume.mount) {
                mount.source = name.into_bytes();
            }
        }
    }
    Ok(())
}
