//! Kernel and initramfs into memory, and what the kernel's entry protocol wants to find there.
//!
//! ```text
//! ELF vmlinux of Linux            ──► 64-bit entry, boot_params
//! bzImage                         ──► 64-bit entry, boot_params
//! another ELF with a note for PVH ──► 32-bit entry, hvm_start_info
//! another ELF                     ──► 64-bit entry, boot_params
//! ```
//!
//! Invariant: an image is checked before it is loaded; one that is no kernel, or does not fit, is an error
//! that says so.

mod copy;
mod elf;
mod kernel;
mod linux;
mod place;
mod pvh;

use std::fs::File;
use std::io;

use cofferdam_vmm_hv::{EntryState, GuestRam, prefer_huge_pages};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::plan::Plan;
use crate::plan::layout::{ACPI, CMDLINE};

use self::copy::{Span, copy};
use self::kernel::{Kernel, Protocol};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// A machine that cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file is no kernel.
    #[error("not a kernel: {0}")]
    NotAKernel(String),
    /// A file cannot be read.
    #[error("cannot read the {what}")]
    Read {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Kernel and initramfs do not fit.
    #[error(
        "too little memory: the kernel needs {} MiB and the initramfs {} MiB of the machine's {} MiB",
        mib(*.kernel), mib(*.initrd), mib(*.memory)
    )]
    TooLittleMemory {
        /// End of the kernel in bytes.
        kernel: u64,
        /// Size of the initramfs in bytes.
        initrd: u64,
        /// Memory below the PCI hole in bytes.
        memory: u64,
    },
    /// A table does not fit where the layout has it.
    #[error("cannot write boot data to guest memory")]
    Memory(#[from] GuestMemoryError),
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// The initramfs in guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Initrd {
    start: u64,
    size: u64,
}

/// Loads everything and says how the first vCPU starts.
///
/// # Errors
/// [`BootError`].
pub fn load(
    plan: &Plan,
    ram: &GuestRam,
    kernel: &mut File,
    initrd: Option<&mut File>,
) -> Result<EntryState, BootError> {
    prefer_huge_pages(ram, plan.memory.described());
    let kernel = kernel::load(ram, kernel, plan.memory.low_end())?;
    let initrd = load_initrd(plan, ram, &kernel, initrd)?;
    ram.write_slice(&plan.acpi.bytes, GuestAddress(ACPI))?;
    ram.write_slice(plan.cmdline.as_bytes(), GuestAddress(CMDLINE))?;
    match kernel.protocol {
        Protocol::Pvh { entry } => {
            pvh::write_start_info(ram, &plan.memory, initrd)?;
            Ok(pvh::entry_state(entry))
        }
        Protocol::Linux { entry, header } => {
            let length = plan.cmdline.len();
            linux::write_boot_params(ram, &plan.memory, *header, (initrd, length))?;
            linux::write_tables(ram)?;
            Ok(linux::entry_state(entry))
        }
    }
}

/// Puts the initramfs behind the kernel, on a page boundary: its pages begin in the kernel's last huge page.
fn load_initrd(
    plan: &Plan,
    ram: &GuestRam,
    kernel: &Kernel,
    initrd: Option<&mut File>,
) -> Result<Option<Initrd>, BootError> {
    let unreadable = |source| BootError::Read { what: "initramfs", source };
    let (file, size) = match initrd {
        Some(file) => {
            let size = file.metadata().map_err(unreadable)?.len();
            (Some(file), size)
        }
        None => (None, 0),
    };
    let memory = plan.memory.low_end();
    let top = memory.min(kernel.initrd_limit);
    let start = kernel.end.next_multiple_of(PAGE);
    if start.checked_add(size).is_none_or(|end| end > top) {
        return Err(BootError::TooLittleMemory { kernel: kernel.end, initrd: size, memory });
    }
    let Some(file) = file.filter(|_| size > 0) else { return Ok(None) };
    // The guest unpacks it at once and puts its memory to other uses.
    prefer_huge_pages(ram, start..start + size);
    copy(ram, file, Span { offset: 0, to: start, size }).map_err(unreadable)?;
    Ok(Some(Initrd { start, size }))
}

#[cfg(test)]
#[path = "boot_test.rs"]
mod boot_test;
