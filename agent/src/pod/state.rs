//! The states of a container and what leads from one to another.
//!
//! ```text
//! Created --start--> Running <--pause / resume--> Paused
//!    |  ^               |                            |
//!    |  +--pause / resume--> PausedCreated           |
//!    |                  |         |                  |
//!    +------ ended -----+---------+------------------+--> Stopped --delete--> gone
//! ```
//!
//! Invariant: pure; one function per edge.

use cofferdam_agent_protocol::ErrorKind;

use crate::error::{Failure, Result};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Set up to the point before `execve`.
    Created,
    /// Its first process runs.
    Running,
    /// Frozen.
    Paused,
    /// Frozen before it was started.
    PausedCreated,
    /// Its first process ended.
    Stopped,
}

impl State {
    /// The state in words.
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused | Self::PausedCreated => "paused",
            Self::Stopped => "stopped",
        }
    }

    /// The failure of something that this state does not allow.
    fn refuse<T>(self, what: &str) -> Result<T> {
        let text = format!("cannot {what} a {} container", self.name());
        Err(Failure::new(ErrorKind::WrongState, text))
    }

    /// Its program is let go.
    pub(crate) fn start(self) -> Result<Self> {
        match self {
            Self::Created => Ok(Self::Running),
            other => other.refuse("start"),
        }
    }

    /// It is frozen.
    pub(crate) fn pause(self) -> Result<Self> {
        match self {
            Self::Running => Ok(Self::Paused),
            Self::Created => Ok(Self::PausedCreated),
            other => other.refuse("pause"),
        }
    }

    /// It is thawed.
    pub(crate) fn resume(self) -> Result<Self> {
        match self {
            Self::Paused => Ok(Self::Running),
            Self::PausedCreated => Ok(Self::Created),
            other => other.refuse("resume"),
        }
    }

    /// Its first process ended, whatever state it was in.
    pub(crate) fn ended(self) -> Self {
        Self::Stopped
    }

    /// One more process is started in it, or its namespaces are joined.
    pub(crate) fn join(self) -> Result<()> {
        match self {
            Self::Created | Self::Running => Ok(()),
            other => other.refuse("exec in"),
        }
    }

    /// It gets a signal.
    pub(crate) fn signal(self) -> Result<()> {
        match self {
            Self::Stopped => self.refuse("signal"),
            _ => Ok(()),
        }
    }

    /// It is forgotten; the answer is whether it must be killed before.
    pub(crate) fn delete(self, force: bool) -> Result<bool> {
        match self {
            Self::Stopped => Ok(false),
            // As runc: there is nothing yet that could be lost.
            Self::Created => Ok(true),
            Self::Running | Self::Paused | Self::PausedCreated if force => Ok(true),
            other => other.refuse("delete"),
        }
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod state_test;
