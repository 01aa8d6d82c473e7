//! The last lines of what a component wrote, for error messages.
//!
//! Invariant: bounded, and free of control characters: a hostile guest's console must not reach the
//! terminal of the person who reads the error.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// The last `limit` bytes of `file`, whole lines only, made printable.
///
/// # Errors
/// The file cannot be read.
pub fn of_file(file: &mut File, limit: usize) -> io::Result<String> {
    let length = file.metadata()?.len();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let start = length.saturating_sub(limit);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    let from = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if start > 0 => end + 1,
        _ => 0,
    };
    Ok(printable(&bytes[from..]))
}

/// `bytes` as text: line ends stay, escape sequences and other control characters do not.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = text.chars().filter(|c| *c != '\r').map(|c| match c {
        '\n' | '\t' => c,
        c if c.is_control() => '?',
        c => c,
    });
    clean.collect::<String>().trim_matches(['\n', '\0', '?']).to_owned()
}

#[cfg(test)]
#[path = "tail_test.rs"]
mod tail_test;
