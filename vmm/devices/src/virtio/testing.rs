//! A simulated driver for tests of devices: rings in real guest memory, interrupts that can be waited
//! for. Only for tests of this crate (`crate::virtio::testing`).
//!
//! ```ignore
//! let machine = Machine::new();                        // 16 MiB of RAM, an interrupt counter
//! let mut rx = machine.queue(0, 64);                   // a driver's queue: rings allocated and set up
//! let mut tx = machine.queue(1, 64);
//! let worker = machine.activate(&mut device, F_VERSION_1 | F_EVENT_IDX, &mut [&mut rx, &mut tx]);
//!
//! let head = tx.add(&[Buf::out(b"header"), Buf::out(b"data"), Buf::room(1)]);
//! tx.kick();
//! let (used_head, written) = tx.wait_used();           // panics after 5 s
//! assert_eq!(tx.read(used_head), b"\0");               // what is in the writable buffers, `written` or not
//! assert_eq!(machine.interrupt.queue_count(1), 1);
//! worker.stop();
//! ```
//!
//! Queues without a device: [`TestQueue::active`] gives the device's end, for instance for a
//! [`super::queue::Ring`]. Raw contents: [`TestQueue::descriptor`], [`TestQueue::publish`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueState};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::thread::{DeviceThread, Stop};
use super::{Activation, ActiveQueue, DeviceId, F_EVENT_IDX, Interrupt, VirtioDevice, Worker};
use crate::ports::{Ram, Threads};

/// Bytes of the test machine's memory, from address 0 on.
pub(crate) const RAM_SIZE: u64 = 16 << 20;

/// Longest time a test waits for a device.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Descriptor flags.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Guest memory, its allocator and the way back to the driver.
pub(crate) struct Machine {
    pub(crate) ram: Ram,
    pub(crate) interrupt: Arc<TestInterrupt>,
    next: Arc<AtomicU64>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let ram = crate::ram::fixed(
            vm_memory::GuestMemoryMmap::from_ranges(&[(
                GuestAddress(0),
                RAM_SIZE.try_into().unwrap(),
            )])
            .unwrap(),
        );
        // Address 0 stays free: a ring there counts as not set up.
        Self { ram, interrupt: Arc::default(), next: Arc::new(AtomicU64::new(0x1000)) }
    }

    /// `len` bytes of memory, aligned to 16.
    pub(crate) fn alloc(&self, len: u64) -> u64 {
        alloc(&self.next, len)
    }

    /// A queue of `size` entries.
    pub(crate) fn queue(&self, index: u16, size: u16) -> TestQueue {
        let entries = u64::from(size);
        TestQueue {
            ram: self.ram.clone(),
            next: Arc::clone(&self.next),
            index,
            size,
            descriptors: self.alloc(16 * entries),
            avail: self.alloc(6 + 2 * entries),
            used: self.alloc(6 + 8 * entries),
            doorbell: EventFd::new(EFD_NONBLOCK).unwrap(),
            next_descriptor: 0,
            avail_index: 0,
            used_index: 0,
            chains: HashMap::new(),
        }
    }

    /// Starts `device` on `queues`, as the transport would.
    pub(crate) fn activate(
        &self,
        device: &mut dyn VirtioDevice,
        features: u64,
        queues: &mut [&mut TestQueue],
    ) -> Box<dyn Worker> {
        let queues = queues.iter_mut().map(|queue| queue.active(features)).collect();
        let interrupt = Arc::clone(&self.interrupt) as Arc<dyn Interrupt>;
        let (ram, threads) = (self.ram.clone(), threads(device.threads()));
        device.activate(Activation { ram, features, queues, interrupt, threads }).unwrap()
    }
}

/// Threads without any confinement.
pub(crate) struct PlainThreads;

impl Threads for PlainThreads {
    fn start(
        &self,
        id: DeviceId,
        body: Box<dyn FnOnce() + Send>,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name(id.name().to_owned()).spawn(body)
    }
}

/// A device's threads.
pub(crate) fn threads(count: usize) -> Vec<Arc<DeviceThread>> {
    let start = |_| Arc::new(DeviceThread::start(DeviceId::Rng, &PlainThreads).unwrap());
    (0..count).map(start).collect()
}

/// `body` on a thread of its own.
pub(crate) fn spawn(body: impl FnOnce(&Stop) + Send + 'static) -> Box<dyn Worker> {
    threads(1)[0].run(body).unwrap()
}

fn alloc(next: &AtomicU64, len: u64) -> u64 {
    let at = next.fetch_add(len.next_multiple_of(16), Ordering::Relaxed);
    assert!(at + len <= RAM_SIZE, "the test machine's memory is used up");
    at
}

/// A buffer of a chain.
#[derive(Clone, Debug)]
pub(crate) enum Buf {
    /// Bytes for the device to read.
    Out(Vec<u8>),
    /// Room for the device to write.
    Room(u32),
    /// The same at a place of the test's own.
    At(u64, u32),
}

impl Buf {
    pub(crate) fn out(bytes: &[u8]) -> Self {
        Self::Out(bytes.to_vec())
    }

    pub(crate) fn room(len: u32) -> Self {
        Self::Room(len)
    }
}

/// The driver's side of a queue.
pub(crate) struct TestQueue {
    ram: Ram,
    next: Arc<AtomicU64>,
    index: u16,
    size: u16,
    pub(crate) descriptors: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    pub(crate) doorbell: EventFd,
    next_descriptor: u16,
    avail_index: u16,
    used_index: u16,
    /// The writable buffers of each chain that was added, by head.
    chains: HashMap<u16, Vec<(u64, u32)>>,
}

impl TestQueue {
    /// The device's end.
    pub(crate) fn active(&self, features: u64) -> ActiveQueue {
        let queue = Queue::try_from(QueueState {
            max_size: self.size,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: features & F_EVENT_IDX != 0,
            size: self.size,
            ready: true,
            desc_table: self.descriptors,
            avail_ring: self.avail,
            used_ring: self.used,
        });
        let doorbell = self.doorbell.try_clone().unwrap();
        ActiveQueue { index: self.index, queue: queue.unwrap(), doorbell }
    }

    /// Writes descriptor `index` of the table.
    pub(crate) fn descriptor(&self, index: u16, descriptor: Descriptor) {
        let at = self.descriptors + 16 * u64::from(index);
        self.ram.write_obj(descriptor, GuestAddress(at)).unwrap();
    }

    /// Makes the chain that starts at `head` available.
    pub(crate) fn publish(&mut self, head: u16) {
        let slot = self.avail + 4 + 2 * u64::from(self.avail_index % self.size);
        self.ram.write_obj(head, GuestAddress(slot)).unwrap();
        self.avail_index = self.avail_index.wrapping_add(1);
        self.ram.store(self.avail_index, GuestAddress(self.avail + 2), Ordering::Release).unwrap();
    }

    /// Puts `bufs` into memory: address, length, flags without `NEXT`.
    fn place(&self, bufs: &[Buf]) -> Vec<(u64, u32, u16)> {
        let place = |buf: &Buf| match buf {
            Buf::Out(bytes) => {
                let at = alloc(&self.next, bytes.len() as u64);
                self.ram.write_slice(bytes, GuestAddress(at)).unwrap();
                (at, u32::try_from(bytes.len()).unwrap(), 0)
            }
            Buf::Room(len) => (alloc(&self.next, u64::from(*len)), *len, WRITE),
            Buf::At(at, len) => (*at, *len, WRITE),
        };
        bufs.iter().map(place).collect()
    }

    fn remember(&mut self, head: u16, placed: &[(u64, u32, u16)]) {
        let writable = placed.iter().filter(|(_, _, flags)| flags & WRITE != 0);
        self.chains.insert(head, writable.map(|&(at, len, _)| (at, len)).collect());
    }

    /// Makes a chain of `bufs` available; its head. Descriptors are used in turn: do not have more
    /// under way than there are.
    pub(crate) fn add(&mut self, bufs: &[Buf]) -> u16 {
        let placed = self.place(bufs);
        let head = self.next_descriptor;
        for (i, &(at, len, flags)) in placed.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let chained = if i + 1 < placed.len() { NEXT } else { 0 };
            self.descriptor(index, Descriptor::new(at, len, flags | chained, self.next_descriptor));
        }
        self.remember(head, &placed);
        self.publish(head);
        head
    }

    /// As [`TestQueue::add`], by way of an indirect table (virtio 1.2, 2.7.5.3).
    pub(crate) fn add_indirect(&mut self, bufs: &[Buf]) -> u16 {
        let placed = self.place(bufs);
        let table = alloc(&self.next, 16 * placed.len() as u64);
        for (i, &(at, len, flags)) in (0u16..).zip(&placed) {
            let chained = if usize::from(i) + 1 < placed.len() { NEXT } else { 0 };
            let descriptor = Descriptor::new(at, len, flags | chained, i + 1);
            self.ram.write_obj(descriptor, GuestAddress(table + 16 * u64::from(i))).unwrap();
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        self.descriptor(
            head,
            Descriptor::new(table, 16 * u32::try_from(placed.len()).unwrap(), INDIRECT, 0),
        );
        self.remember(head, &placed);
        self.publish(head);
        head
    }

    /// Rings the doorbell.
    pub(crate) fn kick(&self) {
        self.doorbell.write(1).unwrap();
    }

    /// The next used chain, if there is one: its head and the length written.
    pub(crate) fn used(&mut self) -> Option<(u16, u32)> {
        let index: u16 = self.ram.load(GuestAddress(self.used + 2), Ordering::Acquire).unwrap();
        if index == self.used_index {
            return None;
        }
        let slot = self.used + 4 + 8 * u64::from(self.used_index % self.size);
        let [head, len]: [u32; 2] = self.ram.read_obj(GuestAddress(slot)).unwrap();
        self.used_index = self.used_index.wrapping_add(1);
        // With event index: tell the device to interrupt for the next one.
        let event = self.avail + 4 + 2 * u64::from(self.size);
        self.ram.store(self.used_index, GuestAddress(event), Ordering::Release).unwrap();
        Some((head.try_into().unwrap(), len))
    }

    /// The next used chain.
    pub(crate) fn wait_used(&mut self) -> (u16, u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(used) = self.used() {
                return used;
            }
            assert!(Instant::now() < deadline, "queue {}: nothing used in time", self.index);
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// All bytes of the writable buffers of a chain that was added.
    pub(crate) fn read(&self, head: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(at, len) in &self.chains[&head] {
            let mut part = vec![0; len.try_into().unwrap()];
            self.ram.read_slice(&mut part, GuestAddress(at)).unwrap();
            bytes.extend(part);
        }
        bytes
    }

    /// Adds a chain, rings, waits: what was written, cut to the length reported.
    pub(crate) fn request(&mut self, bufs: &[Buf]) -> Vec<u8> {
        let head = self.add(bufs);
        self.kick();
        let (used, len) = self.wait_used();
        assert_eq!(used, head);
        let mut bytes = self.read(head);
        bytes.truncate(len.try_into().unwrap());
        bytes
    }
}

/// Counts what a device tells its driver.
#[derive(Default)]
pub(crate) struct TestInterrupt {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    queues: HashMap<u16, usize>,
    config: usize,
    needs_reset: usize,
}

impl TestInterrupt {
    /// Interrupts of queue `index` so far.
    pub(crate) fn queue_count(&self, index: u16) -> usize {
        self.counts.lock().unwrap().queues.get(&index).copied().unwrap_or(0)
    }

    /// Waits until queue `index` has interrupted at least `count` times.
    pub(crate) fn wait_queue(&self, index: u16, count: usize) {
        self.wait(|counts| counts.queues.get(&index).copied().unwrap_or(0) >= count);
    }

    /// How often the configuration has changed so far.
    pub(crate) fn config_count(&self) -> usize {
        self.counts.lock().unwrap().config
    }

    /// How often the device gave up so far.
    pub(crate) fn needs_reset_count(&self) -> usize {
        self.counts.lock().unwrap().needs_reset
    }

    /// Waits until the device gives up.
    pub(crate) fn wait_needs_reset(&self) {
        self.wait(|counts| counts.needs_reset > 0);
    }

    fn wait(&self, mut done: impl FnMut(&Counts) -> bool) {
        let counts = self.counts.lock().unwrap();
        let (_guard, timeout) =
            self.changed.wait_timeout_while(counts, PATIENCE, |counts| !done(counts)).unwrap();
        assert!(!timeout.timed_out(), "no interrupt in time");
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap());
        self.changed.notify_all();
    }
}

impl Interrupt for TestInterrupt {
    fn queue(&self, index: u16) {
        self.count(|counts| *counts.queues.entry(index).or_default() += 1);
    }

    fn config(&self) {
        self.count(|counts| counts.config += 1);
    }

    fn needs_reset(&self) {
        self.count(|counts| counts.needs_reset += 1);
    }
}
