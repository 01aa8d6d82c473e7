//! What `cofferdam run` says and returns when it fails.
//!
//! Invariant: the message names what was attempted, the path it was about, the last stage reached and the
//! cause; the guest's console is shown only when the guest failed.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use cofferdam_agent_protocol::ErrorKind;

use super::RunPlan;
use crate::oci::BundleError;
use crate::oci::hooks::HookError;
use crate::pod::{Cause, PodError, SpawnError, StateError};
use crate::storage::StorageError;

/// Bytes of the console that an error shows.
const CONSOLE_TAIL: usize = 2000;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] super::PlanError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The disks.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file that the machine needs.
    #[error("opening the {what} {path}")]
    Open {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be opened.
        source: io::Error,
    },
    /// KVM.
    #[error("opening {path} (what may help: {remedy})")]
    Kvm {
        /// The device node.
        path: PathBuf,
        /// What may help.
        remedy: &'static str,
        /// Why it cannot be opened.
        source: io::Error,
    },
    /// The monitor.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The pod.
    #[error("{error}")]
    Pod {
        /// What happened.
        error: PodError,
        /// The end of the guest's console, if that may help.
        console: String,
    },
    /// A hook.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A signal before the container ran.
    #[error("interrupted by signal {0} before the container ran")]
    Interrupted(i32),
    /// A system call.
    #[error("{0}")]
    Host(&'static str, #[source] io::Error),
}

impl From<PodError> for RunError {
    fn from(error: PodError) -> Self {
        Self::Pod { error, console: String::new() }
    }
}

impl RunError {
    /// Adds the end of the console if the guest failed.
    pub(super) fn with_console(self, file: Option<&mut File>) -> Self {
        match (self, file) {
            (Self::Pod { error, .. }, Some(file)) if error.cause.is_guest_failure() => {
                let console = crate::tail::of_file(file, CONSOLE_TAIL).unwrap_or_default();
                Self::Pod { error, console }
            }
            (other, _) => other,
        }
    }

    /// The exit code: 127 and 126 as shells have them, 128 and the signal, else 1 as runc.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Pod { error: PodError { cause: Cause::Agent { kind, .. }, .. }, .. } => {
                match kind {
                    ErrorKind::CommandNotFound => 127,
                    ErrorKind::CommandNotExecutable => 126,
                    _ => 1,
                }
            }
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(1),
            _ => 1,
        }
    }
}

/// The message for `error`, in the words of runc where engines look for them.
pub(crate) fn report(error: &RunError, plan: Option<&RunPlan>) -> String {
    let mut text = match error {
        RunError::Pod { error: PodError { cause: Cause::Agent { kind, message }, .. }, .. } => {
            agent_message(*kind, message, plan)
        }
        _ => chain(error),
    };
    if let (RunError::Pod { error, .. }, Some(plan)) = (error, plan)
        && error.cause.is_about_the_machine()
    {
        let (kernel, image) = (plan.settings.kernel.display(), plan.settings.image.display());
        text += &format!("\nguest kernel: {kernel}, guest image: {image}");
    }
    if let RunError::Pod { console, .. } = error
        && !console.is_empty()
    {
        text += "\nthe guest's console ended with:\n";
        for line in console.lines() {
            text += &format!("  | {line}\n");
        }
    }
    text.trim_end().to_owned()
}

fn agent_message(kind: ErrorKind, message: &str, plan: Option<&RunPlan>) -> String {
    const PREFIX: &str = "unable to start container process";
    if !matches!(kind, ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable) {
        return message.to_owned();
    }
    if message.starts_with("exec: ") {
        return format!("{PREFIX}: {message}");
    }
    let args = plan.and_then(|plan| plan.container.process.as_ref()).map(|process| &process.args);
    let program = args.and_then(|args| args.first()).map(|arg| String::from_utf8_lossy(arg));
    let program = program.unwrap_or_default();
    let cause = match kind {
        ErrorKind::CommandNotExecutable => "permission denied",
        _ if program.contains('/') => "no such file or directory",
        _ => "executable file not found in $PATH",
    };
    format!("{PREFIX}: exec: {:?}: {cause}", program.as_ref())
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "failure_test.rs"]
mod failure_test;
