//! The machine itself: memory, ports, the entry.
//!
//! Invariant: memory is mapped onto itself, the first GiB by the monitor, the devices' by [`map_devices`].

use core::arch::asm;

/// The serial console, the power device with what switches off, and the panic notifier.
pub(crate) const SERIAL: u16 = 0x3f8;
/// See [`SERIAL`].
pub(crate) const POWER: u16 = 0x600;
/// See [`SERIAL`].
pub(crate) const POWER_OFF: u8 = 0x34;
/// See [`SERIAL`].
pub(crate) const PANIC: u16 = 0x505;

/// The page tables that the monitor made: the second level's entries are for a GiB each.
const POINTERS: u64 = 0xa000;

/// A page directory for the devices, in memory that nobody uses.
const DIRECTORY: u64 = 0x3_0000;

/// The GiB of the devices: BARs and configuration space.
const DEVICES: u64 = 3;

#[cfg(feature = "bare-metal")]
core::arch::global_asm!(
    ".section .entry, \"ax\"",
    ".globl _start",
    "_start:",
    "lea rsp, [rip + stack_end]",
    // Floating-point instructions, which the compiler likes to use (Intel SDM 3A, 2.5: EM, MP, OSFXSR).
    "mov rax, cr0",
    "and eax, 0xfffffffb",
    "or eax, 2",
    "mov cr0, rax",
    "mov rax, cr4",
    "or eax, 0x600",
    "mov cr4, rax",
    "call kernel",
    ".section .bss",
    ".balign 16",
    ".skip 0x8000",
    "stack_end:",
    ".text",
);

/// Maps the GiB of the devices onto itself, in pages of 2 MiB.
pub(crate) fn map_devices() {
    for index in 0..512 {
        // Present, writable, large, not cached.
        write(DIRECTORY + 8 * index, 8, (DEVICES << 30) | (index << 21) | 0x93);
    }
    write(POINTERS + 8 * DEVICES, 8, DIRECTORY | 3);
}

/// Reads `size` bytes (1, 2, 4 or 8) at a physical address.
pub(crate) fn read(address: u64, size: u8) -> u64 {
    // SAFETY: callers name memory that is mapped and not the kernel's own, or a device's registers; on x86
    // an address need not be aligned for these instructions.
    unsafe {
        let value: u64;
        match size {
            1 => asm!("movzx {0:e}, byte ptr [{1}]", out(reg) value, in(reg) address),
            2 => asm!("movzx {0:e}, word ptr [{1}]", out(reg) value, in(reg) address),
            4 => asm!("mov {0:e}, dword ptr [{1}]", out(reg) value, in(reg) address),
            _ => asm!("mov {0}, qword ptr [{1}]", out(reg) value, in(reg) address),
        }
        value
    }
}

/// Writes `size` bytes (1, 2, 4 or 8) at a physical address.
pub(crate) fn write(address: u64, size: u8, value: u64) {
    // SAFETY: as in `read`; nothing of the program's own lies there.
    unsafe {
        match size {
            1 => asm!("mov byte ptr [{0}], {1:l}", in(reg) address, in(reg) value),
            2 => asm!("mov word ptr [{0}], {1:x}", in(reg) address, in(reg) value),
            4 => asm!("mov dword ptr [{0}], {1:e}", in(reg) address, in(reg) value),
            _ => asm!("mov qword ptr [{0}], {1}", in(reg) address, in(reg) value),
        }
    }
}

/// Writes a byte to an I/O port.
pub(crate) fn out(port: u16, value: u8) {
    // SAFETY: a port has no part of the program's memory behind it.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value) }
}

/// Writes 1, 2 or 4 bytes to an I/O port and reads as many.
pub(crate) fn exchange(port: u16, size: u8, value: u32) {
    // SAFETY: as in `out`.
    unsafe {
        match size {
            1 => asm!("out dx, al", "in al, dx", in("dx") port, inout("eax") value => _),
            2 => asm!("out dx, ax", "in ax, dx", in("dx") port, inout("eax") value => _),
            _ => asm!("out dx, eax", "in eax, dx", in("dx") port, inout("eax") value => _),
        }
    }
}

/// Prints, whatever state the serial console was left in: its line control without the divisor latch, its
/// modem control without loopback.
pub(crate) fn print(text: &str) {
    out(SERIAL + 3, 3);
    out(SERIAL + 4, 3);
    text.bytes().for_each(|byte| out(SERIAL, byte));
}
