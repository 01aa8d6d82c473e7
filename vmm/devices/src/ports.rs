//! What devices need from the world around them.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::EventFd;

use crate::virtio::DeviceId;

pub use crate::ram::Ram;

/// Why the guest wants its machine to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// ACPI sleep state S5.
    PowerOff,
    /// The ACPI reset register.
    Reset,
    /// The panic notifier.
    Panic,
}

/// Takes the guest's wish to end.
pub trait PowerControl: Send + Sync {
    /// Called on the vCPU's thread; must not block.
    fn signal(&self, event: PowerEvent);
}

/// A message-signalled interrupt: what is written where (PCI 3.0, 6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Address written to.
    pub address: u64,
    /// Data written.
    pub data: u32,
}

/// One interrupt vector of a device, backed by an eventfd that the hypervisor turns into the message.
pub trait MsiVector: Send + Sync {
    /// The guest programmed or unmasked the vector: `Some` routes it, `None` (masked) disconnects it.
    ///
    /// # Errors
    /// If the hypervisor refuses the route.
    fn route(&self, message: Option<MsiMessage>) -> io::Result<()>;

    /// Raises the interrupt as last routed; nothing happens while disconnected.
    fn raise(&self);
}

/// Makes interrupt vectors.
pub trait MsiController: Send + Sync {
    /// A new vector, disconnected.
    ///
    /// # Errors
    /// If the hypervisor has none left.
    fn vector(&self) -> io::Result<Arc<dyn MsiVector>>;
}

/// Connects a write to guest-physical memory with an eventfd, so that it needs no exit to user space.
pub trait Doorbells: Send + Sync {
    /// Any write of 2 bytes at `address` signals `event` until the registration is dropped by
    /// [`Doorbells::disconnect`].
    ///
    /// # Errors
    /// If the hypervisor refuses.
    fn connect(&self, address: u64, event: &EventFd) -> io::Result<()>;

    /// Undoes [`Doorbells::connect`].
    ///
    /// # Errors
    /// If the hypervisor refuses.
    fn disconnect(&self, address: u64, event: &EventFd) -> io::Result<()>;
}

/// Takes memory back that the guest does not use.
pub trait Reclaim: Send + Sync {
    /// The guest needs nothing of what is in `len` bytes at `address`. Any range may be named: what is not
    /// the guest's memory, or cannot be given back, is left alone. What is given back, whole pages, reads
    /// as zero; or, where the guest's kernel was put as pages of its file, as that file.
    ///
    /// # Errors
    /// If the host refuses.
    fn give_back(&self, address: u64, len: u64) -> io::Result<()>;
}

/// Gives the guest memory and takes it away, in chunks that follow each other in its address space.
pub trait MemoryChunks: Reclaim {
    /// The guest may use chunk `index`.
    ///
    /// # Errors
    /// If the host refuses; the guest does not have it then.
    fn map(&self, index: u32) -> io::Result<()>;

    /// Chunk `index` is not there any more: the guest's reads give all ones, its writes vanish.
    fn unmap(&self, index: u32);
}

/// Starts the threads that devices work on, while the machine is being built.
pub trait Threads: Send + Sync {
    /// A new thread for a device of the kind `id`, which runs `body` once it is confined to what that kind
    /// needs.
    ///
    /// # Errors
    /// If the host refuses a thread.
    fn start(&self, id: DeviceId, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;
}

/// Makes pages of configuration space that the guest reads as memory.
pub trait ConfigPages: Send {
    /// The page of the function at `place`, device number above function number; all ones. `None` where there is no
    /// such thing.
    fn page(&self, place: u8) -> Option<Box<dyn ConfigPage>>;
}

/// A page that the guest reads without leaving; its writes come to the bus as ever. Dropped, the guest's reads do, too.
pub trait ConfigPage: Send {
    /// What it begins with from now on.
    fn show(&self, bytes: &[u8]);
}

/// A range of addresses (memory-mapped or I/O ports) that a device answers.
///
/// Called on vCPU threads, one access at a time per device (the bus locks). `offset` is relative to the
/// range; `data` has 1, 2, 4 or 8 bytes, little-endian.
pub trait BusDevice: Send {
    /// The guest reads. A device leaves `data` as it is (all ones) where it has nothing.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes.
    fn write(&mut self, offset: u64, data: &[u8]);
}
