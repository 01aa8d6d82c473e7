//! Tiny kernels for tests.

use std::fs::File;
use std::io::{Seek, Write};

/// Has the C library look at the host's policy of overcommitment now. It does so once, when a thread's own heap first
/// shrinks, and a thread that is confined may not. The monitor's threads share the first one's heap instead
/// ([`crate::jail`]); among tests it is too late for that.
pub(crate) fn shrink_a_heap() {
    let shrink = || drop(std::hint::black_box(vec![vec![1u8; 100 << 10]; 160]));
    std::thread::spawn(shrink).join().unwrap();
}

/// Where a tiny kernel is loaded and starts.
pub(crate) const ENTRY: u32 = 0x10_0000;

/// An ELF file with `code` at [`ENTRY`] and a PVH note that says so.
pub(crate) fn pvh_elf(code: &[u8]) -> Vec<u8> {
    elf(code, true)
}

/// An ELF file with `code` at [`ENTRY`].
pub(crate) fn elf(code: &[u8], pvh: bool) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    const NOTE: u64 = 20;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2u16, 62].iter().flat_map(|v| v.to_le_bytes())); // executable, x86-64
    file.extend(1u32.to_le_bytes());
    file.extend([u64::from(ENTRY), 64, 0].iter().flat_map(|v| v.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 2, 0, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
    let size = code.len() as u64;
    for (kind, offset, address, size) in [
        (if pvh { 4u32 } else { 0 }, HEADERS, 0, NOTE),
        (1, HEADERS + NOTE, u64::from(ENTRY), size),
    ] {
        file.extend([kind, 7].iter().flat_map(|v| v.to_le_bytes()));
        let fields = [offset, address, address, size, size, 1];
        file.extend(fields.iter().flat_map(|v| v.to_le_bytes()));
    }
    file.extend([4u32, 4, 18].iter().flat_map(|v| v.to_le_bytes()));
    file.extend(b"Xen\0");
    file.extend(ENTRY.to_le_bytes());
    file.extend(code);
    file.resize(file.len().max(0x210), 0);
    file
}

/// A file with these contents, at its start.
pub(crate) fn file(contents: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(contents).unwrap();
    file.rewind().unwrap();
    file
}
