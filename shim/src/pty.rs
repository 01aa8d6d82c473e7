//! A pseudo-terminal whose user side carries a stream of the guest, and whose other side an engine gets.
//!
//! Invariant: it is raw: the terminal in the guest is the one with settings.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::socket::hand_over;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pty {
    /// The side that programs use.
    pub(crate) slave: OwnedFd,
    master: OwnedFd,
}

impl Pty {
    /// A new one; a size of 0 is left unset.
    ///
    /// # Errors
    /// The failure of a system call.
    pub(crate) fn open(rows: u32, columns: u32) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        let mut settings = tcgetattr(&slave)?;
        settings.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &settings)?;
        let side = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let (ws_row, ws_col) = (side(rows), side(columns));
        if ws_row > 0 && ws_col > 0 {
            tcsetwinsize(&slave, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?;
        }
        Ok(Self { slave, master })
    }

    /// Sends the other side to whoever listens at the socket `path`, with its name, as runc does.
    ///
    /// # Errors
    /// The failure of a system call.
    pub(crate) fn send(&self, path: &Path) -> io::Result<()> {
        let name = ptsname(&self.master, Vec::new())?;
        hand_over(path, name.as_bytes(), self.master.as_fd())
    }
}

#[cfg(test)]
#[path = "pty_test.rs"]
mod pty_test;
