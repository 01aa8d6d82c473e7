//! The terminal that `cofferdam run` is started on.
//!
//! Invariant: raw mode ends on every way out of the program but SIGKILL: with the guard that began it, on
//! a panic by a hook, and signals come as messages, never as sudden death.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};

/// The settings to go back to, while in raw mode.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Raw mode, until it is dropped.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Sets the terminal of standard input to raw mode; `None` if it is not a terminal.
    ///
    /// # Errors
    /// The terminal's settings cannot be read or changed.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let terminal = stdin.as_fd().try_clone_to_owned()?;
        let saved = tcgetattr(&terminal)?;
        let mut raw = saved.clone();
        raw.make_raw();
        // New lines come as one character: see `Terminal::plain_newlines` of the agent's protocol.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        restore_on_panic();
        lock().get_or_insert((terminal, saved));
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<(OwnedFd, Termios)>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goes back to the settings before raw mode, if it is on.
pub(crate) fn restore() {
    if let Some((terminal, saved)) = lock().take() {
        let _ = tcsetattr(&terminal, OptionalActions::Flush, &saved);
    }
}

fn restore_on_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}

/// Rows and columns of the terminal of standard input, if it is one and has a size.
#[must_use]
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
