//! What happens when a thread makes a system call that its filter does not allow: the process says which, and
//! ends.
//!
//! Invariant: the handler allocates nothing, takes no lock, and makes no system call but `write` and
//! `exit_group`, which every filter allows.
#![allow(unsafe_code, reason = "the signal's details come as a pointer")]

use std::cell::Cell;
use std::fmt::{self, Write};
use std::io;

use libc::{c_int, c_void, siginfo_t};
use syscalls::Sysno;
use vmm_sys_util::signal::register_signal_handler;

/// The exit code of a monitor that its filter stopped: as a shell has it for `SIGSYS`.
pub const STOPPED_BY_FILTER: u8 = 159;

/// `si_syscall`, in units of `c_int` from the start of `siginfo_t` (Linux, asm-generic/siginfo.h): number,
/// errno, code, padding, an address, and then it.
const CALL: usize = 6;

thread_local! {
    /// What the thread is for.
    static THREAD: Cell<&'static str> = const { Cell::new("unnamed") };
}

/// Notes what this thread is for.
pub(super) fn name_thread(name: &'static str) {
    THREAD.with(|thread| thread.set(name));
}

/// Installs the handler, for all threads.
pub(super) fn install() -> io::Result<()> {
    register_signal_handler(libc::SIGSYS, stopped).map_err(io::Error::from)
}

extern "C" fn stopped(_: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes both to a handler of `SIGSYS`, whole and valid while it runs.
    let (call, second) = unsafe {
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let second = usize::try_from(libc::REG_RSI).map_or(0, |register| registers[register]);
        (*info.cast::<c_int>().add(CALL), second)
    };
    let mut line = Line { bytes: [0; 160], length: 0 };
    let thread = THREAD.with(Cell::get);
    // A line that is too long is cut.
    let _cut = describe(&mut line, thread, call, second);
    // SAFETY: writes bytes of this stack to standard error, and ends the process.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length);
        libc::_exit(STOPPED_BY_FILTER.into())
    }
}

/// The message. The second argument tells one `ioctl` or `fcntl` from another.
fn describe(line: &mut impl Write, thread: &str, call: c_int, second: i64) -> fmt::Result {
    line.write_str("cofferdam-vmm: stopped by its system-call filter: ")?;
    match usize::try_from(call).ok().and_then(Sysno::new) {
        Some(known) => line.write_str(known.name())?,
        None => write!(line, "system call {call}")?,
    }
    writeln!(line, " (second argument {second:#x}) by the {thread} thread")
}

/// Text on the stack.
struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        if count == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
#[path = "trap_test.rs"]
mod trap_test;
