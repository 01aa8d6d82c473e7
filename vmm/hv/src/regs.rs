//! The registers that a vCPU starts with.
//!
//! Invariant: pure; what an entry protocol does not name stays as after a reset.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// How the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// 32-bit protected mode, flat, no paging: the PVH entry (Xen `hvm_start_info`).
    Protected {
        /// First instruction.
        entry: u32,
        /// Address of the start info.
        ebx: u32,
    },
    /// 64-bit mode with paging: the 64-bit entry of the Linux boot protocol.
    Long {
        /// First instruction.
        entry: u64,
        /// Address of `boot_params`.
        rsi: u64,
        /// Address of the top page table.
        page_table: u64,
        /// Address of the descriptor table, and its size in bytes.
        gdt: (u64, u16),
    },
    /// 16-bit real mode, all segments zero.
    Real {
        /// First instruction.
        entry: u16,
    },
}

/// Reserved bit of RFLAGS that is always one.
const RFLAGS: u64 = 2;

const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// `__BOOT_CS` and `__BOOT_DS` of the Linux boot protocol.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

impl EntryState {
    /// The general registers.
    pub(crate) fn regs(self) -> kvm_regs {
        let start = kvm_regs { rflags: RFLAGS, ..Default::default() };
        match self {
            Self::Protected { entry, ebx } => {
                kvm_regs { rip: entry.into(), rbx: ebx.into(), ..start }
            }
            Self::Long { entry, rsi, .. } => kvm_regs { rip: entry, rsi, ..start },
            Self::Real { entry } => kvm_regs { rip: entry.into(), ..start },
        }
    }

    /// Changes the system registers `sregs` from their state after a reset.
    pub(crate) fn apply(self, sregs: &mut kvm_sregs) {
        match self {
            Self::Protected { .. } => {
                sregs.cr0 = CR0_PE;
                set_flat(sregs, false);
            }
            Self::Long { page_table, gdt: (base, size), .. } => {
                sregs.cr0 = CR0_PE | CR0_PG;
                sregs.cr3 = page_table;
                sregs.cr4 |= CR4_PAE;
                sregs.efer |= EFER_LME | EFER_LMA;
                sregs.gdt.base = base;
                sregs.gdt.limit = size.saturating_sub(1);
                set_flat(sregs, true);
            }
            Self::Real { .. } => {
                sregs.cs.base = 0;
                sregs.cs.selector = 0;
            }
        }
    }
}

/// Flat segments: code executable and readable, data writable, a busy 32-bit task state.
fn set_flat(sregs: &mut kvm_sregs, long: bool) {
    let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    let data = kvm_segment { selector: DATA_SELECTOR, type_: 0x3, db: 1, ..flat };
    sregs.cs = kvm_segment {
        selector: CODE_SELECTOR,
        type_: 0xb,
        db: u8::from(!long),
        l: u8::from(long),
        ..flat
    };
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data;
    }
    sregs.tr = kvm_segment {
        selector: TASK_SELECTOR,
        limit: 0x67,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
}

#[cfg(test)]
#[path = "regs_test.rs"]
mod regs_test;
