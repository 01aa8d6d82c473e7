//! The tables as a guest reads them.

use proptest::prelude::*;

use super::*;
use crate::plan::layout::ACPI_SIZE;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The table at a guest address, by its own length.
fn table(tables: &AcpiTables, address: u64) -> &[u8] {
    let start = usize::try_from(address - ACPI).unwrap();
    let length = usize::try_from(u32_at(&tables.bytes, start + 4)).unwrap();
    &tables.bytes[start..start + length]
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The tables that the XSDT names.
fn named(tables: &AcpiTables) -> Vec<&[u8]> {
    let xsdt = table(tables, u64_at(&tables.bytes, 24));
    xsdt[36..].chunks(8).map(|entry| table(tables, u64_at(entry, 0))).collect()
}

fn find<'a>(tables: &'a AcpiTables, signature: &[u8]) -> &'a [u8] {
    named(tables).into_iter().find(|table| table.starts_with(signature)).unwrap()
}

#[test]
fn the_chain_leads_to_every_table() {
    let tables = tables(2, true);
    assert_eq!(&tables.bytes[..8], b"RSD PTR ");
    assert_eq!(tables.bytes[15], 2);
    let names: Vec<_> = named(&tables).iter().map(|t| t[..4].to_vec()).collect();
    assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
    let dsdt = table(&tables, u64_at(find(&tables, b"FACP"), 140));
    assert!(dsdt.starts_with(b"DSDT"));
}

#[test]
fn the_fadt_is_hardware_reduced_with_both_registers() {
    let tables = tables(1, false);
    let fadt = find(&tables, b"FACP");
    assert_eq!(fadt.len(), 276);
    let flags = u32_at(fadt, 112);
    assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    assert_eq!((fadt[116], u64_at(fadt, 120), fadt[128]), (1, 0x602, 1));
    assert_eq!((fadt[244], u64_at(fadt, 248)), (1, 0x600));
    assert_eq!((fadt[256], u64_at(fadt, 260)), (1, 0x601));
}

#[test]
fn the_madt_has_every_cpu_and_one_ioapic() {
    let tables = tables(64, false);
    let madt = find(&tables, b"APIC");
    assert_eq!(u32_at(madt, 36), 0xfee0_0000);
    assert_eq!(u32_at(madt, 40), 0, "there is no 8259");
    let (cpus, ioapic) = madt[44..].split_at(64 * 8);
    for (entry, id) in cpus.chunks(8).zip(0u8..) {
        assert_eq!(entry, [0, 8, id, id, 1, 0, 0, 0]);
    }
    assert_eq!(ioapic, [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
}

#[test]
fn the_mcfg_has_one_bus() {
    let tables = tables(1, false);
    let mcfg = find(&tables, b"MCFG");
    assert_eq!(u64_at(mcfg, 44), ECAM);
    assert_eq!(&mcfg[52..56], [0, 0, 0, 0]);
}

#[test]
fn the_serial_port_is_there_only_with_a_console() {
    let dsdt = |console| {
        let tables = tables(1, console);
        table(&tables, u64_at(find(&tables, b"FACP"), 140)).to_vec()
    };
    let has = |table: &[u8], name: &[u8]| table.windows(name.len()).any(|w| w == name);
    assert!(has(&dsdt(true), b"COM1"));
    assert!(!has(&dsdt(false), b"COM1"));
    for console in [true, false] {
        let dsdt = dsdt(console);
        assert!(has(&dsdt, b"QEMU0001") && has(&dsdt, b"PCI0") && has(&dsdt, b"_S5_"));
    }
}

proptest! {
    #[test]
    fn sums_are_zero_and_all_is_small(vcpus in 1u8..=64, console: bool) {
        let tables = tables(vcpus, console);
        prop_assert_eq!(sum(&tables.bytes[..20]), 0);
        prop_assert_eq!(sum(&tables.bytes[..36]), 0);
        prop_assert_eq!(sum(table(&tables, u64_at(&tables.bytes, 24))), 0);
        for table in named(&tables) {
            prop_assert_eq!(sum(table), 0);
        }
        let dsdt = table(&tables, u64_at(find(&tables, b"FACP"), 140));
        prop_assert_eq!(sum(dsdt), 0);
        prop_assert!(tables.bytes.len() < 2048);
        prop_assert!((tables.bytes.len() as u64) < ACPI_SIZE);
    }
}
