//! `cofferdam pause`, `resume`, `update` and `events`.
//!
//! Invariant: parsing and printing only.

use anyhow::Result;

use super::Global;
use super::common::{ask_pod, find_in};
use crate::container::Status;
use crate::control::ToSupervisor;

/// Pauses a container, or has it go on.
pub(super) fn freeze(global: &Global, id: &str, frozen: bool) -> Result<()> {
    let (wanted, otherwise): (&[Status], _) = if frozen {
        (&[Status::Running, Status::Created], "container not running or created")
    } else {
        (&[Status::Paused], "container not paused")
    };
    let saved = find_in(&global.root, id, wanted, otherwise)?;
    let message = ToSupervisor::Freeze { container: saved.id.clone(), frozen };
    ask_pod(&global.root, &saved, &message)?;
    Ok(())
}
