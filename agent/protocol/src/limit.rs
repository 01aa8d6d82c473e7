//! How long the agent may take for what it is asked: the agent gives up then, and the host waits a little longer.
//!
//! Invariant: both sides compute a limit from the same plan.

use std::time::Duration;

use crate::{ContainerPlan, GuestHooks, request};

/// For the namespaces of another container to be joined.
pub const JOINED_WITHIN: Duration = Duration::from_secs(8);

/// For the launcher of a new container to be ready, besides its hooks.
pub const READY_WITHIN: Duration = Duration::from_secs(120);

/// For `execve`, besides the hooks before it.
pub const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// For one more process of a container, up to its `execve`. Processes of the container can hold its launcher up, and
/// meanwhile the agent serves nobody else.
pub const EXECUTED_WITHIN: Duration = Duration::from_secs(8);

/// For anything else: processes that are killed, groups that are frozen or removed, devices that come or go.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(120);

/// For what happens around a launch: mounts, streams that are dialled, and what fails and is taken away again.
const AROUND: Duration = Duration::from_secs(60);

impl ContainerPlan {
    /// How long it takes at most until it is created or has failed.
    #[must_use]
    pub fn created_within(&self) -> Duration {
        JOINED_WITHIN + READY_WITHIN + hooks(self.create_hooks.as_ref()) + AROUND
    }

    /// How long it takes at most until it runs or has failed, once it is created.
    #[must_use]
    pub fn started_within(&self) -> Duration {
        STARTED_WITHIN + hooks(self.start_hooks.as_ref()) + AROUND
    }
}

/// How long hooks may take together.
fn hooks(hooks: Option<&GuestHooks>) -> Duration {
    hooks.map(GuestHooks::within).unwrap_or_default()
}

impl request::Body {
    /// How long the agent takes at most to answer, if it has nothing else to do. What `Start` takes depends on the
    /// container: see [`ContainerPlan::started_within`].
    #[must_use]
    pub fn answered_within(&self) -> Duration {
        match self {
            Self::Create(plan) => plan.created_within(),
            Self::Exec(_) => EXECUTED_WITHIN + AROUND,
            _ => ANSWERED_WITHIN,
        }
    }
}

#[cfg(test)]
#[path = "limit_test.rs"]
mod limit_test;
