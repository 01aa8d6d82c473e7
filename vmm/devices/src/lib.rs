//! Device models: PCI configuration space, virtio over PCI, a serial port, power control.
//!
//! A device knows nothing of the hypervisor. What it needs from the world (interrupts, doorbells, a way to
//! end the machine) are the traits of [`ports`], which the monitor implements.
//!
//! How a monitor puts a machine together (addresses come from its plan):
//!
//! ```ignore
//! let (memory, ports) = (Arc::new(Bus::new()), Arc::new(Bus::new()));      // exits go to read() and write()
//! let pci = Arc::new(Mutex::new(PciBus::new()));
//! memory.insert(ecam, ECAM_BUS_SIZE, pci.clone())?;
//! pci.lock()?.attach(0, Arc::new(Mutex::new(HostBridge::new())))?;
//!
//! let disk = Block::new(file, BlockOptions { readonly: true, serial: "root".into() })?;
//! let wiring = Wiring { ram, msi, doorbells, threads };                    // implements of `ports`
//! let function = Arc::new(Mutex::new(VirtioPci::new(Box::new(disk), bar, wiring)?));
//! memory.insert(bar, BAR_SIZE, function.clone())?;
//! pci.lock()?.attach(3 << 3, function)?;
//!
//! ports.insert(0x3f8, SERIAL_PORTS, Arc::new(Mutex::new(Serial::new(LogRing::new(file, limit)))))?;
//! ports.insert(0x600, POWER_PORTS, Arc::new(Mutex::new(Power::new(control.clone()))))?;
//! ports.insert(0x505, PANIC_PORTS, Arc::new(Mutex::new(PanicNotifier::new(control))))?;
//! ```
//!
//! Invariant: no hypervisor is named here, and no byte that a guest writes makes a device panic,
//! allocate without bound or loop without end.

pub mod bus;
pub mod count;
pub mod legacy;
pub mod pci;
pub mod ports;
pub mod ram;
pub mod regmap;
mod sync;
pub mod virtio;
