//! What several commands need.
//!
//! Invariant: an error reads as runc's does where engines look for words.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::container::{ContainerError, Saved, Status};
use crate::control::{Answer, ToSupervisor};
use crate::living::{ask_at, connect};

/// Runs `work` to its end.
///
/// # Errors
/// Those of `work`, or that there is no runtime.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("starting")?;
    let result = runtime.block_on(work);
    // A thread may wait for standard input for ever.
    runtime.shutdown_background();
    result
}

/// The container `id`, and its status. While it is being created, there is none yet, as with runc.
///
/// # Errors
/// There is none, in the words of runc.
pub(super) fn find(root: &Path, id: &str) -> Result<(Saved, Status)> {
    match find_any(root, id)? {
        (_, Status::Creating) => Err(ContainerError::Missing.into()),
        found => Ok(found),
    }
}

/// The container `id`, and its status, even if it is being created.
///
/// # Errors
/// There is none, in the words of runc.
pub(super) fn find_any(root: &Path, id: &str) -> Result<(Saved, Status)> {
    let saved = Saved::load(root, id)?;
    let status = saved.status(root);
    Ok((saved, status))
}

/// Asks the supervisor of a container's pod.
///
/// # Errors
/// What it says.
pub(super) fn ask_pod(root: &Path, saved: &Saved, message: &ToSupervisor) -> Result<Answer> {
    block_on(async {
        let socket = connect(root, saved)?;
        ask_at(&socket, message).await
    })
}

/// The container `id`, whose status is one of `wanted`.
///
/// # Errors
/// It is not: `otherwise`.
pub(super) fn find_in(root: &Path, id: &str, wanted: &[Status], otherwise: &str) -> Result<Saved> {
    let (saved, status) = find(root, id)?;
    if !wanted.contains(&status) {
        bail!("{otherwise}");
    }
    Ok(saved)
}
