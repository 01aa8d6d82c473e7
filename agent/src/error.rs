//! Why something failed, as the host gets to know it.
//!
//! Invariant: a message says what was attempted, with what, and the cause, in the words of runc where
//! engines look at them; its length is bounded.

use std::io;

use cofferdam_agent_protocol::{AgentError, ErrorKind};
use nix::errno::Errno;

/// Longest message in bytes.
const MAX_MESSAGE: usize = 4096;

/// Longest part of a path in a message, in bytes.
const MAX_SHOWN: usize = 512;

/// A failed request, or a failed step of one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What the host may act on.
    pub(crate) kind: ErrorKind,
    /// A sentence for a person.
    pub(crate) message: String,
}

/// The result of a step.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure of `kind`; a message that is too long is cut.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE).rev().find(|at| message.is_char_boundary(*at));
            message.truncate(end.unwrap_or(0));
        }
        Self { kind, message }
    }

    /// A failure that the host can only report.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other, message)
    }

    /// Something this agent does not do.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }
}

impl From<Failure> for AgentError {
    fn from(failure: Failure) -> Self {
        Self { kind: failure.kind.into(), message: failure.message }
    }
}

/// Adds what was attempted to an error.
pub(crate) trait Context<T> {
    /// The failure of `attempted`, for example "mounting tmpfs at /x".
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Failure::other(format!("{}: {}", attempted(), describe(errno))))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::other(format!("{}: {}", attempted(), describe_io(&error))))
    }
}

impl<T> Context<T> for Result<T> {
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|f| Failure::new(f.kind, format!("{}: {}", attempted(), f.message)))
    }
}

/// The text of `errno` as Go programs write it, all in lower case: "no such file or directory".
pub(crate) fn describe(errno: Errno) -> String {
    errno.desc().to_ascii_lowercase()
}

/// As [`describe`].
pub(crate) fn describe_io(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => describe(Errno::from_raw(number)),
        None => error.to_string(),
    }
}

/// `bytes` as text in a message, cut when it is long.
pub(crate) fn show(bytes: &[u8]) -> String {
    let cut = bytes.get(..MAX_SHOWN).unwrap_or(bytes);
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < bytes.len() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
#[path = "error_test.rs"]
mod error_test;
