//! Names of system calls to their numbers, for the ABIs of an x86-64 kernel.
//!
//! Invariant: the table is that of the guest's kernel version; an unknown name has no number.

use std::collections::HashMap;
use std::sync::OnceLock;

/// A way of calling the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    /// `AUDIT_ARCH_X86_64`, bit 30 of the number clear.
    X86_64,
    /// `AUDIT_ARCH_I386`.
    I386,
    /// `AUDIT_ARCH_X86_64`, bit 30 of the number set.
    X32,
}

/// Bit 30 of the number of every x32 system call (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 1 << 30;

/// The number of `name`, if the kernel has it.
pub(super) fn number(name: &str, abi: Abi) -> Option<u32> {
    static TABLE: OnceLock<HashMap<&'static str, [Option<u32>; 3]>> = OnceLock::new();
    let row = TABLE.get_or_init(table).get(name)?;
    match abi {
        Abi::X86_64 => row[0],
        Abi::I386 => row[1],
        Abi::X32 => row[2].map(|number| number | X32_BIT),
    }
}

fn table() -> HashMap<&'static str, [Option<u32>; 3]> {
    let lines = include_str!("syscalls.txt").lines().filter(|line| !line.starts_with('#'));
    let row = |line: &'static str| {
        let mut fields = line.split(' ');
        let name = fields.next()?;
        let mut number = || fields.next().and_then(|text| text.parse().ok());
        Some((name, [number(), number(), number()]))
    };
    lines.filter_map(row).collect()
}
