//! One PCI bus: configuration space behind ECAM, base address registers, MSI-X.
//!
//! Resources are the plan's: a function is made with the addresses of its BARs already programmed, as
//! firmware would have done it. The guest may size a BAR, switch memory decoding off or write another
//! address: a function then answers only while decoding is on and the BAR holds the planned address.
//!
//! A function that is plugged in later cannot be moved at all.
//!
//! Invariant: whatever is absent reads as all ones.

pub mod bar;
pub mod config;
pub mod ecam;
pub mod host_bridge;
pub mod msix;
#[cfg(test)]
pub(crate) mod testing;

pub use ecam::{ECAM_BUS_SIZE, PciBus, Taken};
pub use host_bridge::HostBridge;

/// One function's configuration space.
///
/// `offset` is below 4096; `data` has 1, 2, 4 or 8 bytes and may reach past the end.
pub trait PciFunction: Send {
    /// The guest reads. A function leaves `data` as it is (all ones) where it has nothing.
    fn read_config(&mut self, offset: u16, data: &mut [u8]);

    /// The guest writes.
    fn write_config(&mut self, offset: u16, data: &[u8]);

    /// What the space reads as until the next write, from its start on, with all ones behind; `None` if a read does
    /// something.
    fn snapshot(&self) -> Option<&[u8]>;
}
