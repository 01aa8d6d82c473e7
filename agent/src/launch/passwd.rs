//! The home directory of a user in the container's /etc/passwd.
//!
//! Invariant: the file is the container's: any bytes, read up to a limit, never trusted.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// How much of the file is read.
const MAX_BYTES: u64 = 1 << 20;

/// The home directory of `uid`, or `/`.
pub(crate) fn home(uid: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Not blocking: the container may have put a fifo there.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/etc/passwd");
    if let Some(file) = opened.ok().filter(|file| file.metadata().is_ok_and(|m| m.is_file())) {
        // What could be read before an error is used.
        let _ = file.take(MAX_BYTES).read_to_end(&mut bytes);
    }
    home_in(&bytes, uid).unwrap_or(b"/").to_vec()
}

/// The home directory of `uid` in the lines of `passwd` (`passwd(5)`).
fn home_in(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let id = std::str::from_utf8(fields.nth(2)?).ok()?;
        let home = fields.nth(2)?;
        (id.parse() == Ok(uid) && !home.is_empty()).then_some(home)
    })
}

#[cfg(test)]
#[path = "passwd_test.rs"]
mod passwd_test;
