//! What containerd is told when something cannot be done: a code that it acts on, and one sentence.
//!
//! Invariant: the sentence says what was attempted and the cause.

use containerd_shim_protos::ttrpc::{self, Code, get_status};

use crate::container::ContainerError;
use crate::control::{Failure, FailureKind};
use crate::pod::StateError;
use crate::run::{RunError, RunPlan, one_line, report, sentence};

/// See the module.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    message: String,
}

impl Refusal {
    /// One with this code.
    pub(super) fn new(code: Code, message: impl std::fmt::Display) -> Self {
        Self { code, message: one_line(&message.to_string()) }
    }

    /// What `error` is to containerd, which asked for `plan` or for one more process that runs `program`.
    pub(super) fn of(error: &RunError, program: &str, plan: Option<&RunPlan>) -> Self {
        // The guest's console is for the log.
        for line in report(error, program, plan).lines() {
            tracing::error!("{line}");
        }
        Self { code: code(error), message: sentence(error, program, plan) }
    }
}

fn code(error: &RunError) -> Code {
    match error {
        RunError::Bundle(_) | RunError::Plan(_) => Code::INVALID_ARGUMENT,
        RunError::State(StateError::Exists(_)) => Code::ALREADY_EXISTS,
        RunError::State(StateError::Id(_)) => Code::INVALID_ARGUMENT,
        RunError::Container(ContainerError::Missing) => Code::NOT_FOUND,
        RunError::Pod { failure, .. } => of_failure(failure),
        RunError::Supervisor(_) => Code::UNAVAILABLE,
        _ => Code::UNKNOWN,
    }
}

fn of_failure(failure: &Failure) -> Code {
    match failure.kind {
        FailureKind::NotFound => Code::NOT_FOUND,
        FailureKind::WrongState => Code::FAILED_PRECONDITION,
        _ => Code::UNKNOWN,
    }
}

impl From<RunError> for Refusal {
    fn from(error: RunError) -> Self {
        Self::of(&error, "", None)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<RunError>() {
            Ok(error) => error.into(),
            Err(error) => Self::new(Code::UNKNOWN, format_args!("{error:#}")),
        }
    }
}

impl From<Refusal> for ttrpc::Error {
    fn from(refusal: Refusal) -> Self {
        Self::RpcStatus(get_status(refusal.code, refusal.message))
    }
}

#[cfg(test)]
#[path = "refusal_test.rs"]
mod refusal_test;
