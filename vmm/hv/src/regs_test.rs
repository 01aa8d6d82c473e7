//! Registers of the entry protocols.

use super::*;

fn applied(state: EntryState) -> kvm_sregs {
    let mut sregs = kvm_sregs { cr0: 0x6000_0010, ..Default::default() };
    state.apply(&mut sregs);
    sregs
}

#[test]
fn the_pvh_entry_is_flat_32_bit_without_paging() {
    let state = EntryState::Protected { entry: 0x100_0000, ebx: 0x6000 };
    let (regs, sregs) = (state.regs(), applied(state));
    assert_eq!((regs.rip, regs.rbx, regs.rflags), (0x100_0000, 0x6000, 2));
    assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (1, 0, 0));
    assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.g, sregs.cs.limit), (1, 0, 1, u32::MAX));
    assert_eq!((sregs.tr.type_, sregs.tr.limit), (0xb, 0x67));
}

#[test]
fn the_linux_entry_is_64_bit_with_paging() {
    let state =
        EntryState::Long { entry: 0x10_0200, rsi: 0x7000, page_table: 0x9000, gdt: (0x500, 32) };
    let (regs, sregs) = (state.regs(), applied(state));
    assert_eq!((regs.rip, regs.rsi), (0x10_0200, 0x7000));
    assert_eq!((sregs.cr3, sregs.gdt.base, sregs.gdt.limit), (0x9000, 0x500, 31));
    assert_eq!(sregs.efer, 0x500);
    assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.db), (0x10, 1, 0));
    assert_eq!((sregs.ds.selector, sregs.ss.type_), (0x18, 3));
}

#[test]
fn real_mode_keeps_the_reset_state() {
    let sregs = applied(EntryState::Real { entry: 0x1000 });
    assert_eq!(sregs.cr0, 0x6000_0010);
    assert_eq!(sregs.cs.base, 0);
}
