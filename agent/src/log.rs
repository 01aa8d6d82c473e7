//! Messages to the kernel's log, which is the guest's console.
//!
//! Invariant: one line each, bounded, and never a reason to fail.

use std::io::Write;
use std::sync::OnceLock;

/// Longest message in bytes.
const MAX_LINE: usize = 900;

/// Where messages go.
static LOG: OnceLock<std::fs::File> = OnceLock::new();

/// Opens the kernel's log; until then, and outside of a guest, messages go to standard error.
pub(crate) fn open() {
    if let Ok(file) = std::fs::File::options().write(true).open("/dev/kmsg") {
        // Only the first one counts.
        let _ = LOG.set(file);
    }
}

/// Writes one message. In the kernel's log it is an error, so that a quiet console shows it too.
pub(crate) fn write(message: &str) {
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let level = if LOG.get().is_some() { "<3>" } else { "" };
    let mut bytes = format!("{level}cofferdam-agent: {line}").into_bytes();
    bytes.truncate(MAX_LINE);
    bytes.push(b'\n');
    // Nobody is left to tell when this fails.
    let _ = match LOG.get() {
        Some(mut file) => file.write_all(&bytes),
        None => std::io::stderr().write_all(&bytes),
    };
}

/// Writes a formatted message to the log.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => { $crate::log::write(&format!($($argument)*)) };
}
