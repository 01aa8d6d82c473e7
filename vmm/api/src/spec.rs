//! The virtual machine that the supervisor asks for.

use serde::{Deserialize, Serialize};

use crate::fs::MAX_TAG;
use crate::units::{Cid, FdSlot, Mac, MiB};

/// Most virtual CPUs of one machine; the guest kernel's `CONFIG_NR_CPUS`.
pub const MAX_VCPUS: u8 = 64;

/// Most disks of one machine at boot: PCI bus 0 has 32 device numbers, and the host bridge, vsock, rng,
/// balloon and network cards need some.
pub const MAX_DISKS: usize = 24;

/// Most network cards of one machine at boot.
pub const MAX_NETS: usize = 4;

/// Most queue pairs of a network card.
pub const MAX_QUEUE_PAIRS: usize = 8;

/// Most queues of devices that are plugged in, at once.
pub const MAX_SPARE_QUEUES: u8 = 64;

/// Least MTU (virtio 1.2, 5.1.4.1).
const MIN_MTU: u16 = 68;

/// Longest serial number of a disk in bytes (virtio 1.2, 5.2.6.1, `VIRTIO_BLK_T_GET_ID`).
const MAX_SERIAL: usize = 20;

/// Longest kernel command line in bytes, the limit of x86 Linux.
pub const MAX_CMDLINE: usize = 2047;

/// Least memory that the guest kernel and the agent start in.
const MIN_MEMORY: MiB = MiB(48);

/// Most memory of one machine: 1 TiB.
const MAX_MEMORY: MiB = MiB(1 << 20);

/// A virtual machine: everything the monitor needs to know to build it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// [`crate::API_VERSION`].
    pub version: u32,
    /// Virtual CPUs that the guest starts with, 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// Most virtual CPUs, up to [`MAX_VCPUS`]: those beyond `vcpus` are parked until the guest brings them online.
    /// Without it there are no more than `vcpus`.
    #[serde(default)]
    pub max_vcpus: Option<u8>,
    /// Memory that the guest starts with.
    pub memory: MiB,
    /// Most memory: what is beyond `memory` is plugged in and out while the machine runs. Without it there is never
    /// more than `memory`.
    #[serde(default)]
    pub max_memory: Option<MiB>,
    /// All of it in pages of 2 MiB, where the host has them: faster, and more of it taken.
    #[serde(default)]
    pub huge_pages: bool,
    /// What to boot.
    pub boot: BootSpec,
    /// Disks, in the order of their PCI addresses.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// Network cards, in the order of their PCI addresses.
    #[serde(default)]
    pub nets: Vec<NetSpec>,
    /// The vsock device, if any.
    #[serde(default)]
    pub vsock: Option<VsockSpec>,
    /// Whether there is an entropy device.
    #[serde(default)]
    pub rng: bool,
    /// Whether there is a memory balloon, by which the guest gives free memory back to the host.
    #[serde(default)]
    pub balloon: bool,
    /// What may be plugged in while it runs, at once, as the number of its queues, at most [`MAX_SPARE_QUEUES`]: a disk
    /// has one, a network card one for each queue pair. Each has a thread from the start.
    #[serde(default)]
    pub spare_queues: u8,
    /// Where the serial console goes; without it the machine has no serial port.
    #[serde(default)]
    pub console: Option<ConsoleSpec>,
}

/// What to boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSpec {
    /// An ELF `vmlinux` or a `bzImage`.
    pub kernel: FdSlot,
    /// The initramfs.
    #[serde(default)]
    pub initrd: Option<FdSlot>,
    /// Kernel command line; the monitor adds only what its own devices need.
    #[serde(default)]
    pub cmdline: String,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// A regular file or block device; its size must be a multiple of 512 bytes.
    pub file: FdSlot,
    /// The guest may not write; the descriptor may then be read-only, too.
    #[serde(default)]
    pub readonly: bool,
    /// What the guest reads as the serial number; at most 20 bytes.
    #[serde(default)]
    pub serial: String,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    /// The queues of one tap, 1 to [`MAX_QUEUE_PAIRS`]; each is a queue pair of the card. They are
    /// non-blocking and made with `IFF_TAP`, `IFF_NO_PI`, `IFF_VNET_HDR`, `TUNSETVNETHDRSZ` of 12 and, if
    /// there are several, `IFF_MULTI_QUEUE`. The monitor sets nothing but the offloads that the guest
    /// takes (`TUNSETOFFLOAD`).
    pub taps: Vec<FdSlot>,
    /// The card's address; without one the guest chooses.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The MTU that the guest is told, the tap's own; without it the guest takes 1500.
    #[serde(default)]
    pub mtu: Option<u16>,
}

/// The vsock device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockSpec {
    /// The guest's context id, 3 or more.
    pub cid: Cid,
    /// A `SOCK_SEQPACKET` Unix socket on which connections are handed over, both ways: one message is
    /// the port (`u32`, little-endian) with the descriptor of a connected stream socket attached.
    pub connections: FdSlot,
}

/// Where the serial console goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleSpec {
    /// A regular file, written from its start; or, with a limit of 0, anything that takes bytes.
    pub log: FdSlot,
    /// Bytes kept: the file is a ring of this size whose oldest half is dropped when it is full. 0 means
    /// that `log` is a stream, such as a pipe, without a limit.
    pub limit: u32,
}

/// A [`MachineSpec`] that cannot be built anywhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Another version.
    #[error("machine specification of version {0}; this monitor knows version {known}", known = crate::API_VERSION)]
    Version(u32),
    /// The number of CPUs.
    #[error("{0} vCPUs; 1 to {MAX_VCPUS} are possible")]
    Vcpus(u8),
    /// The most CPUs.
    #[error("at most {max} vCPUs, {boot} of them at boot; {boot} to {MAX_VCPUS} are possible")]
    MaxVcpus {
        /// At boot.
        boot: u8,
        /// At most.
        max: u8,
    },
    /// The amount of memory.
    #[error("{0} of memory; {MIN_MEMORY} to {MAX_MEMORY} are possible")]
    Memory(MiB),
    /// The most memory.
    #[error("at most {max} of memory, {boot} of it at boot; {boot} to {MAX_MEMORY} are possible")]
    MaxMemory {
        /// At boot.
        boot: MiB,
        /// At most.
        max: MiB,
    },
    /// The number of disks.
    #[error("{0} disks; at most {MAX_DISKS} are possible")]
    Disks(usize),
    /// The number of network cards.
    #[error("{0} network cards; at most {MAX_NETS} are possible")]
    Nets(usize),
    /// The number of queues to be plugged in.
    #[error("{0} spare queues; at most {MAX_SPARE_QUEUES} are possible")]
    SpareQueues(u8),
    /// The number of queue pairs.
    #[error("a network card with {0} queue pairs; 1 to {MAX_QUEUE_PAIRS} are possible")]
    QueuePairs(usize),
    /// The address of a network card.
    #[error("{0} is no address for a network card")]
    Mac(Mac),
    /// The MTU of a network card.
    #[error("an MTU of {0}; it must be at least {MIN_MTU}")]
    Mtu(u16),
    /// A serial number.
    #[error("disk serial {0:?} is longer than {MAX_SERIAL} bytes")]
    Serial(String),
    /// The tag of a file system.
    #[error("the tag {0:?} of a file system is empty or longer than {MAX_TAG} bytes")]
    Tag(String),
    /// The command line.
    #[error("kernel command line of {0} bytes; it must be at most {MAX_CMDLINE} and hold no NUL")]
    Cmdline(usize),
    /// The context id.
    #[error("vsock context id {id}; it must be at least 3 and below 4294967295", id = .0.0)]
    Cid(Cid),
    /// A descriptor that did not come along, or is named twice.
    #[error("descriptor {slot} is missing or used twice: {sent} came with the message", slot = .slot.0)]
    Descriptor {
        /// The slot named.
        slot: FdSlot,
        /// How many came along.
        sent: usize,
    },
}

impl MachineSpec {
    /// Checks everything that does not depend on the host. `sent` is the number of descriptors that came
    /// with it.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self, sent: usize) -> Result<(), SpecError> {
        if self.version != crate::API_VERSION {
            return Err(SpecError::Version(self.version));
        }
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS {
            return Err(SpecError::Vcpus(self.vcpus));
        }
        if !(self.vcpus..=MAX_VCPUS).contains(&self.all_vcpus()) {
            return Err(SpecError::MaxVcpus { boot: self.vcpus, max: self.all_vcpus() });
        }
        if self.memory < MIN_MEMORY || self.memory > MAX_MEMORY {
            return Err(SpecError::Memory(self.memory));
        }
        if !(self.memory..=MAX_MEMORY).contains(&self.all_memory()) {
            return Err(SpecError::MaxMemory { boot: self.memory, max: self.all_memory() });
        }
        if self.disks.len() > MAX_DISKS {
            return Err(SpecError::Disks(self.disks.len()));
        }
        self.disks.iter().try_for_each(DiskSpec::check)?;
        if self.nets.len() > MAX_NETS {
            return Err(SpecError::Nets(self.nets.len()));
        }
        self.nets.iter().try_for_each(NetSpec::check)?;
        if self.spare_queues > MAX_SPARE_QUEUES {
            return Err(SpecError::SpareQueues(self.spare_queues));
        }
        let cmdline = &self.boot.cmdline;
        if cmdline.len() > MAX_CMDLINE || cmdline.contains('\0') {
            return Err(SpecError::Cmdline(cmdline.len()));
        }
        if let Some(vsock) = self.vsock.filter(|v| v.cid.0 < 3 || v.cid.0 == u32::MAX) {
            return Err(SpecError::Cid(vsock.cid));
        }
        check_slots(self.slots(), sent)
    }

    /// All virtual CPUs, parked ones among them.
    #[must_use]
    pub fn all_vcpus(&self) -> u8 {
        self.max_vcpus.unwrap_or(self.vcpus)
    }

    /// All memory that the machine can have.
    #[must_use]
    pub fn all_memory(&self) -> MiB {
        self.max_memory.unwrap_or(self.memory)
    }

    /// All descriptors it names.
    pub fn slots(&self) -> impl Iterator<Item = FdSlot> {
        [Some(self.boot.kernel), self.boot.initrd]
            .into_iter()
            .chain(self.disks.iter().map(|disk| Some(disk.file)))
            .chain(self.nets.iter().flat_map(|net| net.taps.iter().copied().map(Some)))
            .chain([self.vsock.map(|v| v.connections), self.console.map(|c| c.log)])
            .flatten()
    }
}

impl DiskSpec {
    /// Checks what does not depend on the host or on other devices.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        match self.serial.len() {
            ..=MAX_SERIAL => Ok(()),
            _ => Err(SpecError::Serial(self.serial.clone())),
        }
    }
}

impl NetSpec {
    /// Checks what does not depend on the host or on other devices.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if !(1..=MAX_QUEUE_PAIRS).contains(&self.taps.len()) {
            return Err(SpecError::QueuePairs(self.taps.len()));
        }
        if let Some(mac) = self.mac.filter(|mac| !mac.is_unicast()) {
            return Err(SpecError::Mac(mac));
        }
        match self.mtu.filter(|mtu| *mtu < MIN_MTU) {
            Some(mtu) => Err(SpecError::Mtu(mtu)),
            None => Ok(()),
        }
    }
}

/// Every slot is there, of `sent` that came, and none is named twice.
pub(crate) fn check_slots(
    slots: impl Iterator<Item = FdSlot>,
    sent: usize,
) -> Result<(), SpecError> {
    let mut used = vec![false; sent];
    for slot in slots {
        match used.get_mut(usize::from(slot.0)) {
            Some(used) if !*used => *used = true,
            _ => return Err(SpecError::Descriptor { slot, sent }),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "spec_test.rs"]
mod spec_test;
