//! The PVH entry: 32-bit mode and a start info (Xen, docs/misc/pvh.pandoc; Linux, arch/x86/platform/pvh).
//!
//! Invariant: all of it lies in the pages that the layout keeps for it.

use cofferdam_vmm_hv::{EntryState, GuestRam};
use linux_loader::loader::start_info::{
    XEN_HVM_MEMMAP_TYPE_ACPI, XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED,
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress};

use super::{BootError, Initrd};
use crate::plan::layout::{
    ACPI, CMDLINE, Kind, MEMORY_MAP, MODULES, MemoryLayout, Region, START_INFO, dword,
};

/// Version of the start info with a memory map.
const VERSION: u32 = 1;

pub(super) fn entry_state(entry: u32) -> EntryState {
    EntryState::Protected { entry, ebx: dword(START_INFO) }
}

pub(super) fn write_start_info(
    ram: &GuestRam,
    memory: &MemoryLayout,
    initrd: Option<Initrd>,
) -> Result<(), BootError> {
    if let Some(Initrd { start, size }) = initrd {
        let module = hvm_modlist_entry { paddr: start, size, ..Default::default() };
        ram.write_obj(module, GuestAddress(MODULES))?;
    }
    let mut entries = 0;
    let mut address = MEMORY_MAP;
    for region in &memory.map {
        ram.write_obj(memmap_entry(region), GuestAddress(address))?;
        address += size_of::<hvm_memmap_table_entry>() as u64;
        entries += 1;
    }
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: MODULES,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: ACPI,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: entries,
        ..Default::default()
    };
    ram.write_obj(info, GuestAddress(START_INFO))?;
    Ok(())
}

fn memmap_entry(region: &Region) -> hvm_memmap_table_entry {
    let type_ = match region.kind {
        Kind::Ram => XEN_HVM_MEMMAP_TYPE_RAM,
        Kind::Acpi => XEN_HVM_MEMMAP_TYPE_ACPI,
        Kind::Reserved => XEN_HVM_MEMMAP_TYPE_RESERVED,
    };
    hvm_memmap_table_entry { addr: region.start, size: region.size, type_, reserved: 0 }
}
