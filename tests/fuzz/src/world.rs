//! A machine without a hypervisor: memory, a bus with one virtio function, interrupts and doorbells that
//! are only noted.
//!
//! Invariant: everything a guest can do to a device goes through [`World::read`], [`World::write`],
//! [`World::ring`] and its memory, as on a real machine.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cofferdam_vmm_devices::bus::Bus;
use cofferdam_vmm_devices::pci::{ECAM_BUS_SIZE, HostBridge, PciBus};
use cofferdam_vmm_devices::ports::{Doorbells, MsiController, MsiMessage, MsiVector, Ram, Threads};
use cofferdam_vmm_devices::ram;
use cofferdam_vmm_devices::virtio::pci::{BAR_SIZE, VirtioPci, Wiring};
use cofferdam_vmm_devices::virtio::{DeviceId, VirtioDevice};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::quiet::Quiet;

/// Configuration space of the bus, and of the device on it.
pub const ECAM: u64 = 0xe000_0000;
/// See [`ECAM`].
pub const CONFIG: u64 = ECAM + (1 << 15);
/// The device's registers.
pub const BAR: u64 = 0xc010_0000;

/// Memory, in two pieces with a hole between them: (address, bytes).
pub const MEMORY: [(u64, usize); 2] = [(0, 0x4_0000), (0x10_0000, 0x1_0000)];

/// Where things are in the BAR; a driver would read it from the capabilities.
pub const COMMON: u64 = BAR;
/// See [`COMMON`].
pub const NOTIFY: u64 = BAR + 0x1000;
/// See [`COMMON`].
pub const MSIX_TABLE: u64 = BAR + 0x2000;

/// An interrupt vector.
#[derive(Debug, Default)]
pub struct Vector {
    /// Where it is connected to.
    pub message: Mutex<Option<MsiMessage>>,
    /// How often it was raised while connected.
    pub raised: AtomicUsize,
}

impl MsiVector for Vector {
    fn route(&self, message: Option<MsiMessage>) -> io::Result<()> {
        *self.message.lock().unwrap() = message;
        Ok(())
    }

    fn raise(&self) {
        assert!(self.message.lock().unwrap().is_some(), "an interrupt that is connected nowhere");
        self.raised.fetch_add(1, Ordering::SeqCst);
    }
}

/// All vectors.
#[derive(Debug, Default)]
pub struct Vectors(pub Mutex<Vec<Arc<Vector>>>);

impl MsiController for Vectors {
    fn vector(&self) -> io::Result<Arc<dyn MsiVector>> {
        let vector = Arc::new(Vector::default());
        self.0.lock().unwrap().push(Arc::clone(&vector));
        Ok(vector)
    }
}

/// The doorbells that are connected, by address.
#[derive(Debug, Default)]
pub struct Bells(pub Mutex<HashMap<u64, EventFd>>);

impl Doorbells for Bells {
    fn connect(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let old = self.0.lock().unwrap().insert(address, event.try_clone()?);
        assert!(old.is_none(), "a doorbell connected twice");
        Ok(())
    }

    fn disconnect(&self, address: u64, _event: &EventFd) -> io::Result<()> {
        let old = self.0.lock().unwrap().remove(&address);
        assert!(old.is_some(), "a doorbell disconnected that was not connected");
        Ok(())
    }
}

/// Threads without any confinement.
struct PlainThreads;

impl Threads for PlainThreads {
    fn start(
        &self,
        id: DeviceId,
        body: Box<dyn FnOnce() + Send>,
    ) -> io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name(id.name().to_owned()).spawn(body)
    }
}

/// The machine.
pub struct World {
    /// Its memory.
    pub ram: Ram,
    /// The device's vectors.
    pub vectors: Arc<Vectors>,
    /// The device's doorbells.
    pub bells: Arc<Bells>,
    /// The device's threads.
    pub quiet: Quiet,
    bus: Bus,
}

impl World {
    /// A machine with `device` as device 1 of its bus.
    #[must_use]
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let quiet = Quiet::now();
        let ram = GuestMemoryMmap::from_ranges(&MEMORY.map(|(at, len)| (GuestAddress(at), len)));
        let ram = ram::fixed(ram.unwrap());
        let (vectors, bells) = (Arc::new(Vectors::default()), Arc::new(Bells::default()));
        let (msi, doorbells) = (Arc::clone(&vectors) as _, Arc::clone(&bells) as _);
        let threads = Arc::new(PlainThreads);
        let wiring = Wiring { ram: ram.clone(), msi, doorbells, threads };
        let function = Arc::new(Mutex::new(VirtioPci::new(device, BAR, wiring).unwrap()));
        let mut pci = PciBus::new();
        pci.attach(0, Arc::new(Mutex::new(HostBridge::new()))).unwrap();
        pci.attach(1 << 3, Arc::clone(&function) as _).unwrap();
        let bus = Bus::new();
        bus.insert(ECAM, ECAM_BUS_SIZE, Arc::new(Mutex::new(pci))).unwrap();
        bus.insert(BAR, BAR_SIZE, function).unwrap();
        Self { ram, vectors, bells, quiet, bus }
    }

    /// The guest reads `size` bytes (1, 2, 4 or 8) of device memory.
    #[must_use]
    pub fn read(&self, address: u64, size: usize) -> u64 {
        let mut data = [0; 8];
        self.bus.read(address, &mut data[..size]);
        u64::from_le_bytes(data)
    }

    /// The guest writes `size` bytes of device memory.
    pub fn write(&self, address: u64, size: usize, value: u64) {
        self.bus.write(address, &value.to_le_bytes()[..size]);
    }

    /// The guest writes to the notification address of queue `index`: the hypervisor signals the doorbell
    /// if there is one, and the write exits if not.
    pub fn ring(&self, index: u16) {
        let address = NOTIFY + 4 * u64::from(index);
        match self.bells.0.lock().unwrap().get(&address) {
            Some(event) => drop(event.write(1)),
            None => self.write(address, 2, index.into()),
        }
    }

    /// The guest writes its memory; what is elsewhere goes nowhere.
    pub fn store(&self, address: u64, bytes: &[u8]) {
        let _ = self.ram.write(bytes, GuestAddress(address));
    }

    /// A number in the guest's memory.
    #[must_use]
    pub fn load<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// All memory.
    #[must_use]
    pub fn memory(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (address, len) in MEMORY {
            let start = all.len();
            all.resize(start + len, 0);
            self.ram.read_slice(&mut all[start..], GuestAddress(address)).unwrap();
        }
        all
    }
}
