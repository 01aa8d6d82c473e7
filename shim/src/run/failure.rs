//! What is said and returned when a container cannot be created or its pod fails.
//!
//! Invariant: the message names what was attempted, the path it was about, the last stage reached and the
//! cause; the guest's console is shown only when the guest failed.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::RunPlan;
use crate::container::ContainerError;
use crate::control::{Failure, FailureKind};
use crate::oci::BundleError;
use crate::oci::hooks::HookError;
use crate::pod::StateError;
use crate::storage::{GivenError, StorageError};
use crate::timeline::Entry;

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
    /// A block device of the host.
    #[error(transparent)]
    Given(#[from] GivenError),
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
    /// The container's files.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The pod.
    #[error("{failure}")]
    Pod {
        /// What happened.
        failure: Failure,
        /// The end of the guest's console, if that may help.
        console: String,
    },
    /// The supervisor.
    #[error("the supervisor of the pod is gone: {0}")]
    Supervisor(String),
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

impl From<Failure> for RunError {
    fn from(failure: Failure) -> Self {
        Self::Pod { failure, console: String::new() }
    }
}

impl RunError {
    /// Adds the end of the console if the guest failed.
    pub(crate) fn with_console(self, file: Option<&mut File>) -> Self {
        match (self, file) {
            (Self::Pod { failure, .. }, Some(file))
                if matches!(failure.kind, FailureKind::Guest | FailureKind::Machine) =>
            {
                let console = crate::tail::of_file(file, CONSOLE_TAIL).unwrap_or_default();
                Self::Pod { failure, console }
            }
            (other, _) => other,
        }
    }

    /// Whether it is about the `execve` of a container that was set up: with runc, the container says so itself.
    pub(crate) fn is_the_containers(&self) -> bool {
        matches!(self, Self::Pod { failure, .. } if is_of_execve(failure))
    }

    /// The stages of a pod that ended by this.
    pub(super) fn stages(&self) -> &[Entry] {
        match self {
            Self::Pod { failure, .. } => &failure.stages,
            _ => &[],
        }
    }

    /// The exit code: 127 and 126 as shells have them, 128 and the signal, else 1 as runc.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Pod { failure, .. } => match failure.kind {
                FailureKind::CommandNotFound => 127,
                FailureKind::CommandNotExecutable => 126,
                _ => 1,
            },
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(1),
            _ => 1,
        }
    }
}

/// The message for `error`, in the words of runc where engines look for them; `program` is what was to be executed. The
/// first line is its [`sentence`]; the guest's console may follow.
pub(crate) fn report(error: &RunError, program: &str, plan: Option<&RunPlan>) -> String {
    let mut text = sentence(error, program, plan);
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

/// What was attempted, how far it came, and the cause: one line.
pub(crate) fn sentence(error: &RunError, program: &str, plan: Option<&RunPlan>) -> String {
    let mut text = match error {
        RunError::Pod { failure, .. } => in_runcs_words(failure, program),
        _ => chain(error),
    };
    if let RunError::Pod { console, .. } = error
        && let Some(panic) = panic_of(console)
    {
        text += &format!("; the guest's kernel said: {panic}");
    }
    if let (RunError::Pod { failure, .. }, Some(plan)) = (error, plan)
        && failure.kind == FailureKind::Machine
    {
        let (kernel, image) = (plan.settings.kernel.display(), plan.settings.image.display());
        text += &format!("; guest kernel: {kernel}, guest image: {image}");
    }
    one_line(&text)
}

/// `text` without line ends and other control characters: programs that fail may say more than one line.
pub(crate) fn one_line(text: &str) -> String {
    let clean = |line: &str| line.trim().replace(char::is_control, "?");
    let lines = text.lines().map(clean).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// Why the guest's kernel gave up, if it did.
fn panic_of(console: &str) -> Option<&str> {
    let lines = console.lines().rev();
    let mut said = lines.filter_map(|line| line.split_once("Kernel panic - not syncing: "));
    // `---[ end Kernel panic - not syncing: ... ]---` repeats it.
    said.find(|(before, _)| !before.contains("end")).map(|(_, cause)| cause.trim())
}

/// Whether the command is there, and the kernel does not take it.
fn is_of_execve(failure: &Failure) -> bool {
    let kinds = [FailureKind::CommandNotFound, FailureKind::CommandNotExecutable];
    kinds.contains(&failure.kind) && failure.message.starts_with("exec ")
}

fn in_runcs_words(failure: &Failure, program: &str) -> String {
    const PREFIX: &str = "unable to start container process";
    let Failure { message, kind, .. } = failure;
    let cause = match kind {
        FailureKind::CommandNotExecutable => "permission denied",
        FailureKind::CommandNotFound if program.contains('/') => "no such file or directory",
        FailureKind::CommandNotFound => "executable file not found in $PATH",
        _ => return message.clone(),
    };
    if is_of_execve(failure) {
        return message.clone();
    }
    if message.starts_with("exec: ") {
        return format!("{PREFIX}: {message}");
    }
    format!("{PREFIX}: exec: {program:?}: {cause}")
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
