//! Devices that are plugged into a running machine.
//!
//! Invariant: whatever the monitor would have to ask the host about such a device it is told instead, because from the
//! guest's start on it may ask little.

use serde::{Deserialize, Serialize};

use crate::fs::FsSpec;
use crate::spec::{DiskSpec, NetSpec, SpecError, check_slots};
use crate::units::FdSlot;

/// A device to be plugged in. The slots that it names are those of the descriptors that come with the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NewDevice {
    /// A disk; it has one queue. No two disks that are plugged in have the same serial number.
    Disk {
        /// As at boot.
        disk: DiskSpec,
        /// Its size, a multiple of 512.
        bytes: u64,
    },
    /// A network card. No two cards that are plugged in have the same address.
    Net(NetSpec),
    /// A file system; it is served by one thread. No two that are plugged in have the same tag.
    Fs(FsSpec),
}

impl NewDevice {
    /// Checks everything that does not depend on the machine. `sent` is the number of descriptors that came with it.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self, sent: usize) -> Result<(), SpecError> {
        match self {
            Self::Disk { disk, .. } => disk.check()?,
            Self::Net(net) => net.check()?,
            Self::Fs(fs) => fs.check()?,
        }
        check_slots(self.slots(), sent)
    }

    /// What it is called among the devices that are plugged in; nothing, if it has no name.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Disk { disk, .. } if disk.serial.is_empty() => None,
            Self::Disk { disk, .. } => Some(format!("the disk {}", disk.serial)),
            Self::Net(net) => net.mac.map(|mac| format!("the network card {mac}")),
            Self::Fs(fs) => Some(format!("the file system {}", fs.tag)),
        }
    }

    /// How many queues it has to be served; those of a file system count as one.
    #[must_use]
    pub fn queues(&self) -> usize {
        match self {
            Self::Disk { .. } | Self::Fs(_) => 1,
            Self::Net(net) => net.taps.len(),
        }
    }

    fn slots(&self) -> impl Iterator<Item = FdSlot> {
        let slots = match self {
            Self::Disk { disk, .. } => vec![disk.file],
            Self::Net(net) => net.taps.clone(),
            Self::Fs(fs) => fs.slots().to_vec(),
        };
        slots.into_iter()
    }
}

#[cfg(test)]
#[path = "plug_test.rs"]
mod plug_test;
