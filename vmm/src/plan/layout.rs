//! Where everything is in the guest's physical address space.
//!
//! ```text
//!         0 ┌──────────────────────────────┐
//!           │ RAM: start info, page tables │  all below 640 KiB
//!   640 KiB ├──────────────────────────────┤
//!           │ hole; ACPI tables at 0xE0000 │
//!     1 MiB ├──────────────────────────────┤
//!           │ RAM: kernel … initramfs      │
//!     3 GiB ├──────────────────────────────┤
//!           │ PCI BARs (512 MiB)           │
//!   3.5 GiB ├──────────────────────────────┤
//!           │ PCI configuration (ECAM)     │
//!           │ IOAPIC, local APIC, KVM's own│
//!     4 GiB ├──────────────────────────────┤
//!           │ RAM: the rest                │
//!           ├──────────────────────────────┤  on a boundary of 128 MiB
//!           │ memory to be plugged in      │
//!           └──────────────────────────────┘
//! ```
//!
//! Invariant: pure; no two regions overlap (a property test holds this for every amount of memory).

use std::ops::Range;

use cofferdam_vmm_api::MiB;
use cofferdam_vmm_devices::virtio::mem_hotplug::CHUNK;

/// Bytes of a huge page.
pub const HUGE_PAGE: u64 = 2 << 20;

/// The boot-time descriptor table.
pub const GDT: u64 = 0x500;

/// PVH start info, its list of modules and its memory map (`hvm_start_info`).
pub const START_INFO: u64 = 0x6000;
/// The list of modules.
pub const MODULES: u64 = 0x6100;
/// The memory map.
pub const MEMORY_MAP: u64 = 0x6200;

/// `boot_params` ("zero page") of the Linux boot protocol.
pub const BOOT_PARAMS: u64 = 0x7000;

/// Three pages of page tables for the 64-bit entry.
pub const PAGE_TABLES: u64 = 0x9000;

/// The kernel command line, at most 2 KiB with its NUL.
pub const CMDLINE: u64 = 0x2_0000;

/// End of conventional memory.
const LOW_RAM_END: u64 = 0x9_fc00;

/// The ACPI tables, where firmware would have left them.
pub const ACPI: u64 = 0xe_0000;
/// Room for them.
pub const ACPI_SIZE: u64 = 0x2_0000;

/// Where RAM goes on after the hole for video and firmware.
pub const HIGH_RAM: u64 = 0x10_0000;

/// Where the hole for PCI begins: RAM below 4 GiB ends here at the latest.
pub const HOLE: u64 = 0xc000_0000;

/// The window of the BARs.
pub const BARS: u64 = HOLE;
/// Its size.
pub const BARS_SIZE: u64 = 0x2000_0000;

/// PCI configuration space of bus 0.
pub const ECAM: u64 = 0xe000_0000;
/// Its size: one bus.
pub const ECAM_SIZE: u64 = 1 << 20;

/// The IOAPIC.
pub const IOAPIC: u64 = 0xfec0_0000;

/// The local APICs.
pub const LOCAL_APIC: u64 = 0xfee0_0000;

/// Where RAM goes on after the hole for PCI.
pub const RAM_ABOVE_4G: u64 = 1 << 32;

/// One of the addresses above as 32 bits; all of those below 4 GiB fit.
#[must_use]
pub const fn dword(address: u64) -> u32 {
    assert!(address >> 32 == 0);
    let [a, b, c, d, ..] = address.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// What a region is for, as the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory to use.
    Ram,
    /// ACPI tables.
    Acpi,
    /// Not to be used.
    Reserved,
}

/// A region of the guest's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// What it is for.
    pub kind: Kind,
}

/// A machine's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLayout {
    /// What is backed by memory: (address, bytes), by rising address.
    pub ram: Vec<(u64, u64)>,
    /// What the guest is told.
    pub map: Vec<Region>,
    /// Where memory can be plugged in: (address, bytes). The guest learns of it from the device.
    pub pluggable: Option<(u64, u64)>,
}

impl MemoryLayout {
    /// The layout of `memory`, which is at least the few MiB that the map itself needs.
    #[must_use]
    pub fn new(memory: MiB) -> Self {
        let bytes = memory.bytes().max(2 * HIGH_RAM);
        let below = bytes.min(HOLE);
        let above = bytes - below;
        let mut ram = vec![(0, below)];
        let region = |start, size, kind| Region { start, size, kind };
        let mut map = vec![
            region(0, LOW_RAM_END, Kind::Ram),
            region(ACPI, ACPI_SIZE, Kind::Acpi),
            region(HIGH_RAM, below - HIGH_RAM, Kind::Ram),
            region(ECAM, ECAM_SIZE, Kind::Reserved),
        ];
        if above > 0 {
            ram.push((RAM_ABOVE_4G, above));
            map.push(region(RAM_ABOVE_4G, above, Kind::Ram));
        }
        Self { ram, map, pluggable: None }
    }

    /// The same with room for memory to be plugged in, so that there are at most `all`.
    #[must_use]
    pub fn growing_to(mut self, all: MiB) -> Self {
        let bytes: u64 = self.ram.iter().map(|(_, size)| size).sum();
        let end = self.ram.iter().map(|(start, size)| start + size).max().unwrap_or(0);
        let size = all.bytes().saturating_sub(bytes).next_multiple_of(CHUNK);
        let start = end.max(RAM_ABOVE_4G).next_multiple_of(CHUNK);
        self.pluggable = (size > 0).then_some((start, size));
        self
    }

    /// Where Linux describes its memory as it starts, 64 bytes a page and some tables: near the top.
    #[must_use]
    pub fn described(&self) -> Range<u64> {
        let total: u64 = self.ram.iter().map(|(_, size)| size).sum();
        let (start, size) = self.ram.last().copied().unwrap_or_default();
        let bytes = (total / 64).next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        let end = (start + size).saturating_sub(HUGE_PAGE).max(start);
        end.saturating_sub(bytes).max(start)..end
    }

    /// End of the RAM below 4 GiB.
    #[must_use]
    pub fn low_end(&self) -> u64 {
        self.ram.first().map_or(0, |(start, size)| start + size)
    }
}
