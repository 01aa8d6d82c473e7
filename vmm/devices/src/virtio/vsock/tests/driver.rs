//! A guest's driver in miniature: two queues in a memory of its own, packets in and out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::super::packet::{HEADER_LEN, Header};
use super::super::*;
use crate::ports::Ram;
use crate::virtio::Interrupt;

pub(super) const CID: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(20);
const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;

/// A packet with its data.
pub(super) type Packet = (Header, Vec<u8>);

/// Counts interrupts.
#[derive(Default)]
pub(super) struct Bell {
    count: Mutex<u64>,
    changed: Condvar,
    pub(super) broken: AtomicBool,
}

impl Interrupt for Bell {
    fn queue(&self, _index: u16) {
        *self.count.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    fn config(&self) {}

    fn needs_reset(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }
}

/// One split virtqueue (virtio 1.2, 2.7); slot `i` uses descriptors `2i` and `2i + 1`.
pub(super) struct Ring {
    base: u64,
    size: u16,
    buffers: u64,
    buffer_size: u32,
    avail: u16,
    used: u16,
    free: Vec<u16>,
    doorbell: EventFd,
}

impl Ring {
    fn new(base: u64, size: u16, buffers: u64, buffer_size: u32) -> Self {
        let doorbell = EventFd::new(0).unwrap();
        let free = (0..size / 2).collect();
        Self { base, size, buffers, buffer_size, avail: 0, used: 0, free, doorbell }
    }

    fn avail_ring(&self) -> u64 {
        self.base + 16 * u64::from(self.size)
    }

    fn used_ring(&self) -> u64 {
        (self.avail_ring() + 6 + 2 * u64::from(self.size)).next_multiple_of(4)
    }

    fn active(&self, index: u16) -> ActiveQueue {
        let low = |address: u64| Some(u32::try_from(address).unwrap());
        let mut queue = Queue::new(256).unwrap();
        queue.set_size(self.size);
        queue.set_desc_table_address(low(self.base), Some(0));
        queue.set_avail_ring_address(low(self.avail_ring()), Some(0));
        queue.set_used_ring_address(low(self.used_ring()), Some(0));
        queue.set_ready(true);
        ActiveQueue { index, queue, doorbell: self.doorbell.try_clone().unwrap() }
    }

    fn buffer(&self, slot: u16) -> u64 {
        self.buffers + u64::from(slot) * u64::from(self.buffer_size)
    }

    pub(super) fn write_descriptor(&self, ram: &Ram, at: u16, what: (u64, u32, u16, u16)) {
        let address = self.base + 16 * u64::from(at);
        ram.write_obj(what.0, GuestAddress(address)).unwrap();
        ram.write_obj(what.1, GuestAddress(address + 8)).unwrap();
        ram.write_obj(what.2, GuestAddress(address + 12)).unwrap();
        ram.write_obj(what.3, GuestAddress(address + 14)).unwrap();
    }

    /// Makes the chain that begins at descriptor `head` available.
    pub(super) fn publish(&mut self, ram: &Ram, head: u16) {
        let slot = u64::from(self.avail % self.size);
        ram.write_obj(head, GuestAddress(self.avail_ring() + 4 + 2 * slot)).unwrap();
        self.avail = self.avail.wrapping_add(1);
        ram.store(self.avail, GuestAddress(self.avail_ring() + 2), Ordering::SeqCst).unwrap();
    }

    pub(super) fn kick(&self) {
        self.doorbell.write(1).unwrap();
    }

    pub(super) fn set_available_index(&self, ram: &Ram, index: u16) {
        ram.write_obj(index, GuestAddress(self.avail_ring() + 2)).unwrap();
    }

    /// The next used chain: its head and length.
    fn take_used(&mut self, ram: &Ram) -> Option<(u16, u32)> {
        let event = self.avail_ring() + 4 + 2 * u64::from(self.size);
        ram.store(self.used, GuestAddress(event), Ordering::SeqCst).unwrap();
        let index: u16 = ram.load(GuestAddress(self.used_ring() + 2), Ordering::SeqCst).unwrap();
        if index == self.used {
            return None;
        }
        let at = self.used_ring() + 4 + 8 * u64::from(self.used % self.size);
        self.used = self.used.wrapping_add(1);
        let head: u32 = ram.read_obj(GuestAddress(at)).unwrap();
        let len: u32 = ram.read_obj(GuestAddress(at + 4)).unwrap();
        Some((u16::try_from(head).unwrap(), len))
    }
}

/// The driver, with a device at work.
pub(super) struct Driver {
    pub(super) ram: Ram,
    pub(super) rx: Ring,
    pub(super) tx: Ring,
    pub(super) bell: Arc<Bell>,
    pub(super) device: Vsock,
    worker: Option<Box<dyn Worker>>,
    features: u64,
}

pub(super) struct Setup {
    pub(super) queue_size: u16,
    pub(super) rx_buffer: u32,
    pub(super) features: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { queue_size: 256, rx_buffer: 4096, features: F_EVENT_IDX }
    }
}

impl Driver {
    pub(super) fn new(connections: OwnedFd, setup: &Setup) -> Self {
        let Setup { queue_size, rx_buffer, features } = *setup;
        let ram = crate::ram::fixed(
            vm_memory::GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap(),
        );
        let rx = Ring::new(0x1_0000, queue_size, 0x100_0000, rx_buffer);
        let tx = Ring::new(0x2_0000, queue_size, 0x10_0000, 0x1_1000);
        let (bell, device) = (Arc::new(Bell::default()), Vsock::new(CID, connections));
        let mut driver = Self { ram, rx, tx, bell, device, worker: None, features };
        driver.start();
        driver
    }

    /// Activates the device with empty rings.
    pub(super) fn start(&mut self) {
        for ring in [&mut self.rx, &mut self.tx] {
            let zeroes = vec![0; 0x8000];
            self.ram.write_slice(&zeroes, GuestAddress(ring.base)).unwrap();
            let base = (ring.base, ring.size, ring.buffers, ring.buffer_size);
            *ring = Ring::new(base.0, base.1, base.2, base.3);
        }
        let activation = Activation {
            ram: self.ram.clone(),
            features: self.features,
            queues: vec![self.rx.active(0), self.tx.active(1)],
            interrupt: Arc::<Bell>::clone(&self.bell),
            threads: crate::virtio::testing::threads(1),
        };
        self.worker = Some(self.device.activate(activation).unwrap());
        self.fill();
    }

    pub(super) fn stop(&mut self) {
        self.worker.take().unwrap().stop();
    }

    /// Gives the device all free receive buffers; header and data in one descriptor, as Linux does.
    pub(super) fn fill(&mut self) {
        while let Some(slot) = self.rx.free.pop() {
            let what = (self.rx.buffer(slot), self.rx.buffer_size, F_WRITE, 0);
            self.rx.write_descriptor(&self.ram, 2 * slot, what);
            self.rx.publish(&self.ram, 2 * slot);
        }
        self.rx.kick();
    }

    /// Sends without waiting for room; false if the queue is full.
    pub(super) fn try_send(&mut self, header: &Header, data: &[u8]) -> bool {
        while let Some((head, _)) = self.tx.take_used(&self.ram) {
            self.tx.free.push(head / 2);
        }
        let Some(slot) = self.tx.free.pop() else { return false };
        let at = self.tx.buffer(slot);
        self.ram.write_slice(&header.encode(), GuestAddress(at)).unwrap();
        self.ram.write_slice(data, GuestAddress(at + 0x1000)).unwrap();
        let len = u32::try_from(data.len()).unwrap();
        let next = if data.is_empty() { 0 } else { F_NEXT };
        self.tx.write_descriptor(&self.ram, 2 * slot, (at, 44, next, 2 * slot + 1));
        self.tx.write_descriptor(&self.ram, 2 * slot + 1, (at + 0x1000, len, 0, 0));
        self.tx.publish(&self.ram, 2 * slot);
        self.tx.kick();
        true
    }

    pub(super) fn send(&mut self, header: &Header, data: &[u8]) {
        self.wait(|driver| driver.try_send(header, data).then_some(()), PATIENCE)
            .expect("the device takes no packets");
    }

    /// The next packet from the device, if one is there.
    pub(super) fn try_receive(&mut self) -> Option<Packet> {
        let (head, len) = self.rx.take_used(&self.ram)?;
        if head % 2 == 1 {
            // None of this driver's own: a test's spoilt one.
            assert_eq!(len, 0);
            return self.try_receive();
        }
        let len = usize::try_from(len).unwrap();
        let mut bytes = vec![0; len];
        let at = GuestAddress(self.rx.buffer(head / 2));
        self.ram.read_slice(&mut bytes, at).unwrap();
        self.rx.free.push(head / 2);
        let header = Header::parse(&bytes[..HEADER_LEN].try_into().unwrap());
        let data = bytes.split_off(HEADER_LEN);
        assert_eq!(usize::try_from(header.len).unwrap(), data.len());
        Some((header, data))
    }

    /// The next packet; gives its buffer back.
    pub(super) fn receive(&mut self) -> Packet {
        let packet = self.wait(Self::try_receive, PATIENCE).expect("no packet came");
        self.fill();
        packet
    }

    /// Whether no packet comes within a short time.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.receive_soon().is_none()
    }

    /// The next packet, if one comes within a short time; gives its buffer back.
    pub(super) fn receive_soon(&mut self) -> Option<Packet> {
        let packet = self.wait(Self::try_receive, Duration::from_millis(100));
        self.fill();
        packet
    }

    fn wait<T>(
        &mut self,
        mut done: impl FnMut(&mut Self) -> Option<T>,
        patience: Duration,
    ) -> Option<T> {
        let end = Instant::now() + patience;
        let bell = Arc::clone(&self.bell);
        loop {
            let before = *bell.count.lock().unwrap();
            if let Some(result) = done(self) {
                return Some(result);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let guard = bell.count.lock().unwrap();
            let _unused =
                bell.changed.wait_timeout_while(guard, left, |count| *count == before).unwrap();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
    }
}
