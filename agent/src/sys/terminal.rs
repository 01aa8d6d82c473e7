//! Terminals (`ioctl_tty(2)`, `pts(4)`).
//!
//! Invariant: each function makes one ioctl on a descriptor that outlives it.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// The size of a terminal's window, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowSize {
    /// Lines.
    pub(crate) rows: u16,
    /// Characters of a line.
    pub(crate) columns: u16,
}

/// Lets the other side of `master` be opened.
pub(crate) fn unlock(master: BorrowedFd<'_>) -> nix::Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    let outcome = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    Errno::result(outcome).map(drop)
}

/// The number of `master`'s other side in its devpts.
pub(crate) fn number(master: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int, which outlives the call.
    let outcome = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    Errno::result(outcome).map(|_| number)
}

/// The other side of `master`, opened without a path that the container could have changed.
pub(crate) fn peer(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and gives a new descriptor.
    let outcome = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let fd = Errno::result(outcome)?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `terminal` the controlling terminal of this session leader.
pub(crate) fn take_control(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    let outcome = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    Errno::result(outcome).map(drop)
}

/// Has a new line written to `terminal` stay one character.
pub(crate) fn keep_newlines(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: TCGETS by the C library writes one termios.
    let outcome = unsafe { libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()) };
    Errno::result(outcome)?;
    // SAFETY: the call above succeeded, so it was written.
    let mut settings = unsafe { settings.assume_init() };
    settings.c_oflag &= !libc::ONLCR;
    // SAFETY: reads one termios, which outlives the call.
    let outcome =
        unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const settings) };
    Errno::result(outcome).map(drop)
}

/// Sets the window size.
pub(crate) fn resize(terminal: BorrowedFd<'_>, size: WindowSize) -> nix::Result<()> {
    let size =
        libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let outcome = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    Errno::result(outcome).map(drop)
}
