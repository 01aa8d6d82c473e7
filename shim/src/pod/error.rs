//! What can go wrong with a pod.
//!
//! Invariant: every failure carries the last stage that the pod had reached; it can be told to everyone
//! who waits for the pod, so it is `Clone`.

use cofferdam_agent_protocol::ErrorKind;
use cofferdam_vmm_api::{ExitReason, MiB};

use crate::timeline::PodStage;

/// Why a pod failed, and how far it had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodError {
    /// The last stage reached.
    pub stage: Option<PodStage>,
    /// What happened.
    pub cause: Cause,
}

impl std::fmt::Display for PodError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.stage {
            Some(stage) if self.cause.needs_stage() => {
                write!(f, "{} (last stage reached: {stage})", self.cause)
            }
            _ => self.cause.fmt(f),
        }
    }
}

impl std::error::Error for PodError {}

/// What happened to a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The monitor could not build the machine.
    #[error("building the machine: {0}")]
    Build(String),
    /// The machine ended by itself.
    #[error("the machine ended: {0}")]
    Ended(ExitReason),
    /// The monitor's process ended without a word.
    #[error("the monitor ended unexpectedly: {0}")]
    MonitorGone(String),
    /// The monitor said something it may not say.
    #[error("talking to the monitor: {0}")]
    Monitor(String),
    /// The agent did not say hello.
    #[error("the guest's agent did not answer within {0} s")]
    NoHello(u64),
    /// The agent speaks another version.
    #[error(
        "the guest image's agent speaks protocol version {theirs}, this cofferdam version {ours}: \
         install a guest image of the same release"
    )]
    Version {
        /// Its version.
        theirs: u32,
        /// Our version.
        ours: u32,
    },
    /// The agent refused us.
    #[error("the guest's agent refused the connection: {0}")]
    Refused(String),
    /// The control connection broke.
    #[error("the connection to the guest's agent broke: {0}")]
    AgentLost(String),
    /// The agent could not do what it was asked.
    #[error("{message}")]
    Agent {
        /// What the host may act on.
        kind: ErrorKind,
        /// The agent's sentence.
        message: String,
    },
    /// The guest did not take or give back as much memory as it was asked to.
    #[error("the guest has {present} of memory and not {wanted}, after {seconds} s")]
    Memory {
        /// What it has.
        present: MiB,
        /// What it was asked to have.
        wanted: MiB,
        /// How long it had for it.
        seconds: u64,
    },
    /// A port of the pod cannot be connected to.
    #[error("nobody listens at port {0} of the pod")]
    NobodyListens(u16),
    /// The agent's answer does not fit the question.
    #[error("the guest's agent answered {0} with something else")]
    WrongAnswer(&'static str),
    /// What was asked for cannot be, as the monitor says or before it is asked; nothing has changed.
    #[error("{0}")]
    Unfit(String),
    /// A device could not come or go.
    #[error("{step}: {cause}")]
    Plug {
        /// What was attempted.
        step: &'static str,
        /// Why it failed.
        cause: Box<Cause>,
    },
    /// The pod was stopped.
    #[error("the pod was stopped")]
    Stopped,
}

impl Cause {
    /// Whether the failure is one of the machine or the guest, rather than of the container.
    #[must_use]
    pub fn is_guest_failure(&self) -> bool {
        match self {
            Self::Plug { cause, .. } => cause.is_guest_failure(),
            Self::Agent { .. }
            | Self::Memory { .. }
            | Self::NobodyListens(_)
            | Self::Stopped
            | Self::Unfit(_)
            | Self::Version { .. } => false,
            _ => true,
        }
    }

    /// Whether another guest kernel or image might help.
    #[must_use]
    pub fn is_about_the_machine(&self) -> bool {
        match self {
            Self::Build(_) | Self::NoHello(_) | Self::Version { .. } => true,
            Self::Ended(reason) => !matches!(reason, ExitReason::Stopped),
            _ => false,
        }
    }

    fn needs_stage(&self) -> bool {
        match self {
            Self::Plug { cause, .. } => cause.needs_stage(),
            Self::Agent { .. }
            | Self::Memory { .. }
            | Self::NobodyListens(_)
            | Self::Stopped
            | Self::Unfit(_) => false,
            _ => true,
        }
    }
}
