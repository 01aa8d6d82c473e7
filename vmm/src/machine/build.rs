//! From a [`Plan`] and open files to a [`Machine`] that is ready to start.
//!
//! Invariant: nothing is opened by path here; whatever was made is undone by dropping it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use cofferdam_vmm_api::{Bdf, ConsoleSpec, FdSlot, NetSpec};
use cofferdam_vmm_devices::bus::{Bus, BusError, SharedDevice};
use cofferdam_vmm_devices::legacy::log::LogRing;
use cofferdam_vmm_devices::legacy::power::{PANIC_PORTS, POWER_PORTS, PanicNotifier, Power};
use cofferdam_vmm_devices::legacy::serial::{SERIAL_PORTS, Serial};
use cofferdam_vmm_devices::pci::Taken;
use cofferdam_vmm_devices::virtio::VirtioDevice;
use cofferdam_vmm_devices::virtio::balloon::Balloon;
use cofferdam_vmm_devices::virtio::block::{Block, BlockError, BlockOptions};
use cofferdam_vmm_devices::virtio::mem_hotplug::MemorySize;
use cofferdam_vmm_devices::virtio::net::{Net, NetError, NetOptions};
use cofferdam_vmm_devices::virtio::pci::{TransportError, Wiring};
use cofferdam_vmm_devices::virtio::rng::Rng;
use cofferdam_vmm_devices::virtio::vsock::Vsock;
use cofferdam_vmm_hv::{
    GuestRam, Hypervisor, MemoryError, OpenError, Topology, Vcpu, Vm, VmError, allocate_ram,
};

use super::board::Board;
use super::crew::Crew;
use super::memory::{GuestMemory, Returned, Room, seen};
use super::meter::{Meter, MeteredDevice};
use super::outcome::Outcome;
use super::ports::{Bells, Configs, Interrupts};
use super::space::Space;
use crate::boot::{self, BootError};
use crate::jail::Filters;
use crate::plan::pci::Slot;
use crate::plan::{PANIC_PORT, POWER_PORT, Plan, SERIAL_PIN, SERIAL_PORT};

/// Memory slots besides those of memory that is plugged in: what is there from the start, and pages of PCI functions.
const OTHER_SLOTS: usize = 64;

/// A machine that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// KVM cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// KVM refused something.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// More vCPUs than the host can.
    #[error("{wanted} vCPUs: this host's KVM allows {possible}")]
    Vcpus {
        /// As specified.
        wanted: u8,
        /// As KVM says.
        possible: usize,
    },
    /// More memory to be plugged in than the host can.
    #[error(
        "{wanted} memory slots for all memory that the machine can have: this host's KVM has {possible}"
    )]
    MemorySlots {
        /// As the plan has it.
        wanted: usize,
        /// As KVM says.
        possible: usize,
    },
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No kernel.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A disk.
    #[error("disk {index}")]
    Disk {
        /// Which, from 0.
        index: usize,
        /// Why.
        #[source]
        source: BlockError,
    },
    /// A network card.
    #[error("network card {index}")]
    Net {
        /// Which, from 0.
        index: usize,
        /// Why.
        #[source]
        source: NetError,
    },
    /// A virtio device.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A place on the PCI bus.
    #[error(transparent)]
    Slot(#[from] Taken),
    /// An address.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A descriptor.
    #[error("descriptor {slot} is missing", slot = .0.0)]
    Descriptor(FdSlot),
    /// The host refused something else.
    #[error("cannot {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    /// The host refused `what`.
    pub(super) fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}

/// What a machine is built on.
#[derive(Debug)]
pub struct Host {
    /// KVM.
    pub hypervisor: Hypervisor,
    /// What the machine's threads are held to.
    pub filters: Arc<Filters>,
}

/// The descriptors that came with a specification.
#[derive(Debug)]
pub struct Files {
    slots: Vec<Option<OwnedFd>>,
}

impl Files {
    /// In the order in which they came.
    #[must_use]
    pub fn new(fds: Vec<OwnedFd>) -> Self {
        Self { slots: fds.into_iter().map(Some).collect() }
    }

    pub(super) fn take(&mut self, slot: FdSlot) -> Result<OwnedFd, BuildError> {
        let found = self.slots.get_mut(usize::from(slot.0)).and_then(Option::take);
        found.ok_or(BuildError::Descriptor(slot))
    }

    pub(super) fn take_all(&mut self, slots: &[FdSlot]) -> Result<Vec<OwnedFd>, BuildError> {
        slots.iter().map(|slot| self.take(*slot)).collect()
    }

    pub(super) fn take_file(&mut self, slot: FdSlot) -> Result<File, BuildError> {
        self.take(slot).map(File::from)
    }
}

/// A machine that has not started.
pub struct Machine {
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) devices: Devices,
    pub(super) outcome: Arc<Outcome>,
    pub(super) crew: Crew,
    pub(super) meter: Meter,
    /// The PCI address of each disk, in order.
    pub disks: Vec<Bdf>,
}

/// A machine's devices.
pub(super) struct Devices {
    pub(super) space: Arc<Space>,
    pub(super) board: Board,
    pub(super) serial: Option<Arc<Mutex<Serial>>>,
    pub(super) memory: GuestMemory,
}

impl Machine {
    /// Builds `plan` on `host`, with the descriptors that it names.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(plan: &Plan, mut files: Files, host: &Host) -> Result<Self, BuildError> {
        let (spec, hypervisor) = (&plan.spec, &host.hypervisor);
        let (wanted, possible) = (spec.all_vcpus(), hypervisor.max_vcpus());
        if usize::from(wanted) > possible {
            return Err(BuildError::Vcpus { wanted, possible });
        }
        let ram = allocate_ram(&plan.memory.ram, spec.huge_pages)?;
        let room = Room::reserve(plan)?;
        let wanted = OTHER_SLOTS + room.as_ref().map_or(0, Room::chunks);
        let possible = hypervisor.max_memory_slots();
        if wanted > possible {
            return Err(BuildError::MemorySlots { wanted, possible });
        }
        let mut kernel = files.take_file(spec.boot.kernel)?;
        let mut initrd = spec.boot.initrd.map(|slot| files.take_file(slot)).transpose()?;
        let entry = boot::load(plan, &ram, &mut kernel, initrd.as_mut())?;

        let vm = hypervisor.create_vm(&ram)?;
        let outcome = Arc::new(Outcome::new().map_err(BuildError::host("make an eventfd"))?);
        let crew = Crew::new(Arc::clone(&host.filters));
        let wiring = Wiring {
            ram: seen(&ram, room.as_ref())?,
            msi: Arc::new(Interrupts(vm.irqs().clone())),
            doorbells: Arc::new(Bells(vm.clone())),
            threads: Arc::new(crew.clone()),
        };
        let memory = (&ram, room.as_ref());
        let builder =
            DeviceBuilder { plan, files, vm: &vm, outcome: &outcome, crew: &crew, wiring, memory };
        let (devices, metered) = builder.build()?;

        let cpuid = hypervisor.cpuid()?;
        let topology = Topology { vcpus: spec.all_vcpus() };
        // Parked ones are as complete as the others: nothing can be made once the jail is shut.
        let vcpus = (0..spec.all_vcpus()).map(|index| vm.create_vcpu(index, topology, &cpuid));
        let vcpus = vcpus.collect::<Result<Vec<_>, _>>()?;
        if let Some(first) = vcpus.first() {
            first.set_entry(entry)?;
        }
        let of_vcpus = vcpus.iter().filter_map(Vcpu::statistics).collect();
        let meter = Meter::new(metered, vm.statistics(), of_vcpus);
        Ok(Self { vcpus, devices, outcome, crew, meter, disks: plan.disk_addresses() })
    }

    /// What it will tell.
    #[must_use]
    pub fn outcome(&self) -> &Arc<Outcome> {
        &self.outcome
    }
}

/// How a card is offered.
pub(super) fn net_options(net: &NetSpec) -> NetOptions {
    NetOptions { mac: net.mac.map(|mac| mac.0), mtu: net.mtu }
}

fn shared<T>(device: T) -> Arc<Mutex<T>> {
    Arc::new(Mutex::new(device))
}

/// A virtio device and its place.
type Placed = (Slot, Box<dyn VirtioDevice>);

/// Makes devices and puts them where the plan has them.
struct DeviceBuilder<'a> {
    plan: &'a Plan,
    files: Files,
    vm: &'a Vm,
    outcome: &'a Arc<Outcome>,
    crew: &'a Crew,
    wiring: Wiring,
    /// What is there from the start, and room for more.
    memory: (&'a GuestRam, Option<&'a Room>),
}

impl DeviceBuilder<'_> {
    fn build(mut self) -> Result<(Devices, Vec<MeteredDevice>), BuildError> {
        let space = Arc::new(Space::default());
        let mut metered = Vec::new();
        let (slots, pages) = (self.plan.slots.clone(), Box::new(Configs(self.vm.clone())));
        let (wiring, outcome) = (self.wiring.clone(), Arc::clone(self.outcome));
        let mut board = Board::new(Arc::clone(&space), slots, pages, wiring, outcome)?;
        let mut devices = self.virtio()?;
        let (growth, size) = self.mem_hotplug();
        devices.extend(growth);
        for (slot, device) in devices {
            metered.push(board.place(slot, device)?);
        }
        let serial = match self.plan.spec.console {
            Some(console) => Some(self.serial(console)?),
            None => None,
        };
        self.legacy(&space.ports, serial.clone())?;
        let spares = self.crew.spares(self.plan.spec.spare_queues);
        let board = board.with_spares(spares.map_err(BuildError::host("start a thread"))?);
        let memory = GuestMemory::new(&self.plan.spec, size);
        Ok((Devices { space, board, serial, memory }, metered))
    }

    /// All virtio devices and their places.
    fn virtio(&mut self) -> Result<Vec<Placed>, BuildError> {
        let plan = self.plan;
        let mut devices: Vec<Placed> = Vec::new();
        if let (Some(slot), Some(vsock)) = (plan.vsock, plan.spec.vsock) {
            let connections = self.files.take(vsock.connections)?;
            devices.push((slot, Box::new(Vsock::new(vsock.cid.0.into(), connections))));
        }
        if let Some(slot) = plan.rng {
            devices.push((slot, Box::new(Rng::new())));
        }
        for (index, (slot, disk)) in plan.disks.iter().zip(&plan.spec.disks).enumerate() {
            let file = self.files.take_file(disk.file)?;
            let (readonly, serial) = (disk.readonly, disk.serial.clone());
            let options = BlockOptions { readonly, serial, queues: plan.queues() };
            let block =
                Block::new(file, options).map_err(|source| BuildError::Disk { index, source })?;
            devices.push((*slot, Box::new(block)));
        }
        for (index, (slot, net)) in plan.nets.iter().zip(&plan.spec.nets).enumerate() {
            let taps = self.files.take_all(&net.taps)?;
            let net = Net::new(taps, net_options(net))
                .map_err(|source| BuildError::Net { index, source })?;
            devices.push((*slot, Box::new(net)));
        }
        if let Some(slot) = plan.balloon {
            let (fixed, room) = self.memory;
            let returned = Returned::new(fixed, room);
            devices.push((slot, Box::new(Balloon::new(Arc::new(returned)))));
        }
        Ok(devices)
    }

    /// The memory device, if there is one, and how large its memory is.
    fn mem_hotplug(&self) -> (Option<Placed>, Option<MemorySize>) {
        let (Some(slot), (_, Some(room))) = (self.plan.mem_hotplug, self.memory) else {
            return (None, None);
        };
        let device = room.device(self.vm);
        let size = device.size();
        (Some((slot, Box::new(device))), Some(size))
    }

    fn serial(&mut self, console: ConsoleSpec) -> Result<Arc<Mutex<Serial>>, BuildError> {
        let file = self.files.take_file(console.log)?;
        let log = match console.limit {
            0 => LogRing::stream(file),
            limit => LogRing::new(file, limit),
        };
        let line = self.vm.irqs().pin(SERIAL_PIN)?;
        Ok(shared(Serial::with_interrupt(log, line)))
    }

    /// What is reached through I/O ports.
    fn legacy(&self, ports: &Bus, serial: Option<Arc<Mutex<Serial>>>) -> Result<(), BuildError> {
        let power = shared(Power::new(self.outcome.clone()));
        let panic = shared(PanicNotifier::new(self.outcome.clone()));
        ports.insert(POWER_PORT.into(), POWER_PORTS, power)?;
        ports.insert(PANIC_PORT.into(), PANIC_PORTS, panic)?;
        if let Some(serial) = serial {
            let serial: SharedDevice = serial;
            ports.insert(SERIAL_PORT.into(), SERIAL_PORTS, serial)?;
        }
        Ok(())
    }
}
