//! Where things are: the BAR's regions and the capabilities that say so (virtio 1.2, 4.1.4).
//!
//! Invariant: regions do not overlap, and each queue's notification address is its own, so that each
//! can have its own doorbell.

use super::super::DeviceId;
use crate::pci::config::{ConfigSpace, Identity, NoRoom};

/// Bytes of BAR 0.
pub const BAR_SIZE: u64 = 0x4000;

/// Bytes between the notification addresses of two queues.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;

/// Most queues of a device: as many as there are vectors besides the configuration's.
pub(super) const MAX_QUEUES: u16 = crate::pci::msix::MAX_VECTORS - 1;

const COMMON: u32 = 0;
const COMMON_LEN: u32 = 0x38;
const ISR: u32 = 0x100;
const ISR_LEN: u32 = 1;
const DEVICE: u32 = 0x400;
const DEVICE_LEN: u32 = 0xc00;
const NOTIFY: u32 = 0x1000;
const NOTIFY_LEN: u32 = 0x1000;
/// The table has a page of its own (PCI 3.0, 6.8.2).
pub(super) const MSIX_TABLE: u32 = 0x2000;
pub(super) const MSIX_PENDING: u32 = 0x3000;
const MSIX_LEN: u32 = 0x1000;

/// A part of the BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    Common,
    Isr,
    Device,
    Notify,
    MsixTable,
    MsixPending,
}

const REGIONS: [(Region, u32, u32); 6] = [
    (Region::Common, COMMON, COMMON_LEN),
    (Region::Isr, ISR, ISR_LEN),
    (Region::Device, DEVICE, DEVICE_LEN),
    (Region::Notify, NOTIFY, NOTIFY_LEN),
    (Region::MsixTable, MSIX_TABLE, MSIX_LEN),
    (Region::MsixPending, MSIX_PENDING, MSIX_LEN),
];

impl Region {
    /// The region that `offset` is in, and the offset within it.
    pub(super) fn find(offset: u64) -> Option<(Self, u64)> {
        REGIONS.iter().find_map(|&(region, start, len)| {
            let inner = offset.checked_sub(start.into())?;
            (inner < u64::from(len)).then_some((region, inner))
        })
    }
}

/// Offset in the BAR of the notification address of queue `index`.
pub(super) fn notify_offset(index: u16) -> u64 {
    u64::from(NOTIFY) + u64::from(index) * u64::from(NOTIFY_MULTIPLIER)
}

/// What a device of this kind is to PCI (virtio 1.2, 4.1.2).
pub(super) fn identity(id: DeviceId) -> Identity {
    /// Red Hat's vendor id, and where modern devices start.
    const VENDOR: u16 = 0x1af4;
    const MODERN: u16 = 0x1040;
    let class = match id {
        DeviceId::Block => [0x01, 0x80, 0x00],
        DeviceId::Net => [0x02, 0x00, 0x00],
        _ => [0xff, 0x00, 0x00],
    };
    let device = MODERN + id as u16;
    // Revision 1 and a subsystem of 0x40 or more: not transitional.
    Identity {
        vendor: VENDOR,
        device,
        revision: 1,
        class,
        subsystem_vendor: VENDOR,
        subsystem: device,
    }
}

/// Vendor-specific capability.
const VENDOR_CAPABILITY: u8 = 0x09;

/// `virtio_pci_cap` types.
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// Adds the five capabilities of a device with `queues` queues; the window into the BAR.
pub(super) fn add_capabilities(
    config: &mut ConfigSpace,
    queues: u16,
) -> Result<PciConfigAccess, NoRoom> {
    let notify_len = u32::from(queues.max(1)) * NOTIFY_MULTIPLIER;
    let add = |config: &mut ConfigSpace, kind, place, extra: &[u8]| {
        config.add_capability(VENDOR_CAPABILITY, &body(kind, place, extra), &[])
    };
    add(config, CFG_COMMON, (COMMON, COMMON_LEN), &[])?;
    add(config, CFG_NOTIFY, (NOTIFY, notify_len), &NOTIFY_MULTIPLIER.to_le_bytes())?;
    add(config, CFG_ISR, (ISR, ISR_LEN), &[])?;
    add(config, CFG_DEVICE, (DEVICE, DEVICE_LEN), &[])?;
    // Bar, offset, length and data of the window are the driver's.
    let mut writable = [0xff; 18];
    writable[..2].fill(0);
    writable[3..6].fill(0);
    let at =
        config.add_capability(VENDOR_CAPABILITY, &body(CFG_PCI, (0, 0), &[0; 4]), &writable)?;
    Ok(PciConfigAccess { at: at.into() })
}

/// A `virtio_pci_cap` after its id and link.
fn body(kind: u8, (offset, len): (u32, u32), extra: &[u8]) -> Vec<u8> {
    let total = if extra.is_empty() { 16 } else { 20 };
    let mut body = vec![total, kind, 0, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(len.to_le_bytes());
    body.extend(extra);
    body
}

/// The window through which configuration space reaches the BAR (virtio 1.2, 4.1.4.9).
#[derive(Clone, Copy, Debug)]
pub(super) struct PciConfigAccess {
    at: usize,
}

impl PciConfigAccess {
    /// Whether an access to configuration space touches the window's data.
    pub(super) fn touched(self, offset: u16, len: usize) -> bool {
        let start = usize::from(offset);
        start < self.at + 20 && start + len > self.at + 16
    }

    /// What the driver has set the window to: an aligned piece of 1, 2 or 4 bytes of BAR 0.
    pub(super) fn target(self, config: &ConfigSpace) -> Option<(u64, usize)> {
        let [bar] = config.get(self.at + 4);
        let offset = u32::from_le_bytes(config.get(self.at + 8));
        let len = u32::from_le_bytes(config.get(self.at + 12));
        let valid = bar == 0 && matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len);
        valid.then_some((offset.into(), usize::try_from(len).ok()?))
    }

    /// The window's data.
    pub(super) fn data(self, config: &ConfigSpace) -> [u8; 4] {
        config.get(self.at + 16)
    }

    /// Sets the window's data.
    pub(super) fn set_data(self, config: &mut ConfigSpace, data: [u8; 4]) {
        config.set(self.at + 16, &data);
    }
}
