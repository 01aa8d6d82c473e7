//! Loading a kernel: which kind it is, whether it is sound, where it ends.
//!
//! Invariant: after [`load`] the whole kernel, with the memory it needs to unpack itself, lies above the
//! first MiB and within memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use cofferdam_vmm_hv::{GuestRam, prefer_huge_pages};
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::GuestAddress;

use super::BootError;
use super::elf::{self, Elf};
use super::place::place;
use crate::plan::layout::HIGH_RAM;

/// `XLF_KERNEL_64`: the 64-bit entry exists (Linux, Documentation/arch/x86/boot.rst).
const KERNEL_64: u16 = 1;

/// Offset of the 64-bit entry from where the kernel was loaded.
const ENTRY_64: u64 = 0x200;

/// First version of the boot protocol with `xloadflags`.
const MIN_VERSION: u16 = 0x020c;

/// A kernel in memory.
#[derive(Debug)]
pub(super) struct Kernel {
    /// How to start it.
    pub(super) protocol: Protocol,
    /// End of the memory it needs at first.
    pub(super) end: u64,
    /// The initramfs must end here at the latest.
    pub(super) initrd_limit: u64,
}

/// How a kernel wants to be started.
#[derive(Debug)]
pub(super) enum Protocol {
    /// In 32-bit mode with a start info.
    Pvh {
        /// First instruction.
        entry: u32,
    },
    /// In 64-bit mode with `boot_params`.
    Linux {
        /// First instruction.
        entry: u64,
        /// What the image says of itself.
        header: Box<setup_header>,
    },
}

fn unreadable(source: io::Error) -> BootError {
    BootError::Read { what: "kernel", source }
}

pub(super) fn not_a_kernel(why: impl Into<String>) -> BootError {
    BootError::NotAKernel(why.into())
}

/// Loads an ELF vmlinux or a bzImage into `ram`, which goes up to `low_end` below the PCI hole.
pub(super) fn load(ram: &GuestRam, file: &mut File, low_end: u64) -> Result<Kernel, BootError> {
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(not_a_kernel("it is not a regular file"));
    }
    let mut start = [0; 0x210];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(not_a_kernel(format!("only {} bytes", metadata.len())));
        }
        Err(error) => return Err(unreadable(error)),
    }
    if start.starts_with(b"\x7fELF") {
        load_elf(ram, file, &elf::parse(file, &start, metadata.len())?, low_end)
    } else if start[0x202..].starts_with(b"HdrS") {
        load_bzimage(ram, file, low_end)
    } else {
        Err(not_a_kernel("neither an ELF vmlinux nor a bzImage"))
    }
}

fn load_elf(ram: &GuestRam, file: &File, elf: &Elf, low_end: u64) -> Result<Kernel, BootError> {
    fits(elf.end, low_end)?;
    // All of it is used at once, and changed, but for what is mapped.
    prefer_huge_pages(ram, elf.start..elf.end);
    for part in &elf.parts {
        place(ram, file, *part, &elf.changed).map_err(unreadable)?;
    }
    // Linux looks for Xen first if it is entered as PVH, in 256 exits.
    let protocol = match elf.pvh_entry {
        Some(entry) if !elf.linux => Protocol::Pvh { entry },
        _ => Protocol::Linux { entry: elf.entry, header: Box::default() },
    };
    Ok(Kernel { protocol, end: elf.end, initrd_limit: u64::MAX })
}

fn load_bzimage(ram: &GuestRam, file: &mut File, low_end: u64) -> Result<Kernel, BootError> {
    let mut raw = [0; 0x268];
    file.read_exact_at(&mut raw, 0).map_err(|_| not_a_kernel("a bzImage that is cut off"))?;
    let version = u16_at(&raw, 0x206);
    if version < MIN_VERSION || u16_at(&raw, 0x236) & KERNEL_64 == 0 {
        return Err(not_a_kernel("a bzImage without a 64-bit entry"));
    }
    let size = file.metadata().map_err(unreadable)?.len();
    // Loaded at its default address, it unpacks itself to where it prefers to be.
    let load = HIGH_RAM;
    let unpacked = u64_at(&raw, 0x258).max(load).saturating_add(u32_at(&raw, 0x260).into());
    let end = load.saturating_add(size).max(unpacked);
    fits(end, low_end)?;
    let loaded = BzImage::load(ram, Some(GuestAddress(load)), file, None)
        .map_err(|error| not_a_kernel(error.to_string()))?;
    let header = loaded.setup_header.ok_or_else(|| not_a_kernel("a bzImage without a header"))?;
    let initrd_limit = u64::from(header.initrd_addr_max) + 1;
    let protocol = Protocol::Linux { entry: load + ENTRY_64, header: Box::new(header) };
    Ok(Kernel { protocol, end, initrd_limit })
}

fn fits(kernel: u64, memory: u64) -> Result<(), BootError> {
    if kernel > memory {
        return Err(BootError::TooLittleMemory { kernel, initrd: 0, memory });
    }
    Ok(())
}

pub(super) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        value.copy_from_slice(found);
    }
    value
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}
