//! The ACPI tables: static, hardware-reduced, under 3 KiB (ACPI 6.5, 4.1).
//!
//! There is no interpreter's work at run time beyond `_CRS`: no GPE, no embedded controller, no methods.
//! Power-off goes through the sleep control register, reboot through the reset register.
//!
//! Invariant: pure; every table's length and checksum are right, and all lie within the room of the layout.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as GasSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use cofferdam_vmm_devices::legacy::power;

use super::layout::{ACPI, BARS, BARS_SIZE, ECAM, ECAM_SIZE, IOAPIC, LOCAL_APIC, dword};
use super::{PANIC_PORT, POWER_PORT, SERIAL_PIN, SERIAL_PORT};

const OEM: [u8; 6] = *b"COFFER";
const OEM_TABLE: [u8; 8] = *b"COFFRDAM";
const REVISION: u32 = 1;

/// Bytes of a table's header (ACPI 6.5, 5.2.6).
const HEADER: u32 = 36;

/// `IAPC_BOOT_ARCH` (ACPI 6.5, table 5.11): VGA must not be probed, no CMOS clock.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 5;

/// All tables, as they lie in memory from [`ACPI`] on. The RSDP comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiTables {
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The tables of a machine with `vcpus`, and with a serial port if `console`.
pub(super) fn tables(vcpus: u8, console: bool) -> AcpiTables {
    let mut tables = Tables { bytes: vec![0; Rsdp::len()] };
    let dsdt = tables.append(&dsdt(console));
    let fadt = tables.append(&fadt(dsdt));
    let madt = tables.append(&madt(vcpus));
    let mcfg = tables.append(&mcfg());
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, REVISION);
    [fadt, madt, mcfg].into_iter().for_each(|table| xsdt.add_entry(table));
    let xsdt = tables.append(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    tables.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    AcpiTables { bytes: tables.bytes }
}

struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    /// Appends a table, aligned; returns its address.
    fn append(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let address = ACPI + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

fn fadt(dsdt: u64) -> impl Aml {
    let port = |offset: u64| {
        let address = u64::from(POWER_PORT) + offset;
        GAS::new(GasSpace::SystemIo, 8, 0, AccessSize::ByteAccess, address)
    };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.sleep_control_reg = port(power::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(power::SLEEP_STATUS);
    fadt.reset_reg = port(power::RESET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.finalize()
}

fn madt(vcpus: u8) -> impl Aml {
    let mut madt =
        MADT::new(OEM, OEM_TABLE, REVISION, LocalInterruptController::Address(dword(LOCAL_APIC)));
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, dword(IOAPIC), 0));
    madt
}

fn mcfg() -> impl Aml {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, REVISION);
    mcfg.add_ecam(ECAM, 0, 0, 0);
    mcfg
}

fn dsdt(console: bool) -> Sdt {
    let mut body = Vec::new();
    // _S5: the sleep type that the sleep control register takes for "off".
    let (off, zero) = (power::SLEEP_TYPE_S5, 0u8);
    Name::new("_S5_".into(), &Package::new(vec![&off, &zero, &zero, &zero]))
        .to_aml_bytes(&mut body);
    host_bridge(&mut body);
    device(
        &mut body,
        "MEM_",
        &EISAName::new("PNP0C02"),
        &[&Memory32Fixed::new(true, dword(ECAM), dword(ECAM_SIZE))],
    );
    device(&mut body, "PNIC", &"QEMU0001", &[&IO::new(PANIC_PORT, PANIC_PORT, 1, 1)]);
    if console {
        let ports = IO::new(SERIAL_PORT, SERIAL_PORT, 1, 8);
        let line = Interrupt::new(true, true, false, false, SERIAL_PIN.into());
        device(&mut body, "COM1", &EISAName::new("PNP0501"), &[&ports, &line]);
    }
    let mut dsdt = Sdt::new(*b"DSDT", HEADER, 2, OEM, OEM_TABLE, REVISION);
    dsdt.append_slice(&body);
    dsdt
}

/// The PCI host bridge: one bus, one window for the BARs, no I/O ports.
fn host_bridge(body: &mut Vec<u8>) {
    let last = BARS + BARS_SIZE - 1;
    let window = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        dword(BARS),
        dword(last),
        None,
    );
    let buses = AddressSpace::new_bus_number(0u16, 0u16);
    let resources = ResourceTemplate::new(vec![&buses, &window]);
    let zero = 0u8;
    let bridge = Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &zero),
            &Name::new("_SEG".into(), &zero),
            &Name::new("_BBN".into(), &zero),
            &Name::new("_CRS".into(), &resources),
        ],
    )
    .to_bytes();
    scope(body, bridge);
}

/// A device below `\_SB` with an id and resources.
fn device(body: &mut Vec<u8>, name: &str, id: &dyn Aml, resources: &[&dyn Aml]) {
    let resources = ResourceTemplate::new(resources.to_vec());
    let zero = 0u8;
    let device = Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), id),
            &Name::new("_UID".into(), &zero),
            &Name::new("_CRS".into(), &resources),
        ],
    )
    .to_bytes();
    scope(body, device);
}

fn scope(body: &mut Vec<u8>, content: Vec<u8>) {
    body.extend(Scope::raw(Path::new("\\_SB_"), content));
}

trait ToBytes {
    fn to_bytes(&self) -> Vec<u8>;
}

impl<T: Aml> ToBytes for T {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.to_aml_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
#[path = "acpi_test.rs"]
mod acpi_test;
