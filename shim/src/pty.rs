//! A pseudo-terminal whose user side carries a stream of the guest, and whose other side an engine gets.
//!
//! Invariant: it is raw: the terminal in the guest is the one with settings.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

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
        let socket = UnixStream::connect(path)?;
        let fds = [self.master.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let text = [IoSlice::new(name.as_bytes())];
        sendmsg(&socket, &text, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "pty_test.rs"]
mod pty_test;
