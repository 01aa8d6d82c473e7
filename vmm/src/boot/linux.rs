//! The 64-bit entry of the Linux boot protocol (Linux, Documentation/arch/x86/boot.rst and zero-page.rst).
//!
//! Invariant: all of it lies in the pages that the layout keeps for it; the first GiB is mapped onto itself.

use cofferdam_vmm_hv::{EntryState, GuestRam};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress};

use super::{BootError, Initrd};
use crate::plan::layout::{
    ACPI, BOOT_PARAMS, CMDLINE, GDT, Kind, MemoryLayout, PAGE_TABLES, dword,
};

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `LOADED_HIGH`.
const LOADED_HIGH: u8 = 1;

/// Page table entries: present, writable; a large page.
const TABLE: u64 = 0x3;
const LARGE_PAGE: u64 = 0x83;
const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// Null, unused, 64-bit code (`__BOOT_CS`), data (`__BOOT_DS`).
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const GDT_SIZE: u16 = 32;

pub(super) fn entry_state(entry: u64) -> EntryState {
    EntryState::Long { entry, rsi: BOOT_PARAMS, page_table: PAGE_TABLES, gdt: (GDT, GDT_SIZE) }
}

/// The descriptor table and the page tables.
pub(super) fn write_tables(ram: &GuestRam) -> Result<(), BootError> {
    for (address, descriptor) in (GDT..).step_by(8).zip(DESCRIPTORS) {
        ram.write_obj(descriptor, GuestAddress(address))?;
    }
    let [top, pointers, directory] = [0, 0x1000, 0x2000].map(|offset| PAGE_TABLES + offset);
    ram.write_obj(pointers | TABLE, GuestAddress(top))?;
    ram.write_obj(directory | TABLE, GuestAddress(pointers))?;
    for index in 0..512 {
        let entry = (index * LARGE_PAGE_SIZE) | LARGE_PAGE;
        ram.write_obj(entry, GuestAddress(directory + index * 8))?;
    }
    Ok(())
}

/// `boot_params`, with the image's own `header` (empty for an ELF file).
pub(super) fn write_boot_params(
    ram: &GuestRam,
    memory: &MemoryLayout,
    header: setup_header,
    (initrd, cmdline_length): (Option<Initrd>, usize),
) -> Result<(), BootError> {
    let mut params = boot_params { hdr: header, acpi_rsdp_addr: ACPI, ..Default::default() };
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.loadflags |= LOADED_HIGH;
    params.hdr.cmd_line_ptr = dword(CMDLINE);
    params.hdr.cmdline_size = u32::try_from(cmdline_length).unwrap_or(0);
    if let Some(Initrd { start, size }) = initrd {
        // Both are below 4 GiB: the initramfs lies in memory below the PCI hole.
        params.hdr.ramdisk_image = u32::try_from(start).unwrap_or(0);
        params.hdr.ramdisk_size = u32::try_from(size).unwrap_or(0);
    }
    for (entry, region) in params.e820_table.iter_mut().zip(&memory.map) {
        let kind = match region.kind {
            Kind::Ram => 1,
            Kind::Reserved => 2,
            Kind::Acpi => 3,
        };
        *entry = boot_e820_entry { addr: region.start, size: region.size, r#type: kind };
    }
    params.e820_entries = u8::try_from(memory.map.len()).unwrap_or(u8::MAX);
    ram.write_obj(params, GuestAddress(BOOT_PARAMS))?;
    Ok(())
}
