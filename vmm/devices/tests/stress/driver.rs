//! A driver that does as Linux does: it rings only when the device wants to be rung, asks for an interrupt only when
//! it is about to sleep, looks once more after it has asked, and then sleeps.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use cofferdam_vmm_devices::ports::{Ram, Threads};
use cofferdam_vmm_devices::ram::fixed;
use cofferdam_vmm_devices::virtio::thread::DeviceThread;
use cofferdam_vmm_devices::virtio::{
    Activation, ActiveQueue, DeviceId, F_EVENT_IDX, Interrupt, VirtioDevice, Worker,
};
use virtio_queue::{Queue as DeviceQueue, QueueState};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The longest that a device may keep its driver waiting. A busy machine is slow; a lost wake-up lasts for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of memory.
const MEMORY: usize = 16 << 20;

/// Descriptor flags.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// The one vector of a device.
#[derive(Default)]
pub(crate) struct Vector {
    raised: Mutex<u64>,
    changed: Condvar,
    broken: AtomicBool,
}

impl Interrupt for Vector {
    fn queue(&self, _index: u16) {
        *self.raised.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    fn config(&self) {}

    fn needs_reset(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }
}

/// Threads without any confinement.
struct PlainThreads;

impl Threads for PlainThreads {
    fn start(
        &self,
        id: DeviceId,
        body: Box<dyn FnOnce() + Send>,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name(id.name().to_owned()).spawn(body)
    }
}

/// Memory and the device's vector.
pub(crate) struct Machine {
    pub(crate) ram: Ram,
    vector: Arc<Vector>,
    next: AtomicU64,
    event_idx: bool,
}

impl Machine {
    pub(crate) fn new(event_idx: bool) -> Self {
        let ram = fixed(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
        Self { ram, vector: Arc::default(), next: AtomicU64::new(0x1000), event_idx }
    }

    /// `len` bytes of memory, aligned to 16.
    pub(crate) fn alloc(&self, len: u64) -> u64 {
        let at = self.next.fetch_add(len.next_multiple_of(16), Ordering::Relaxed);
        assert!(at + len <= MEMORY as u64, "the test's memory is used up");
        at
    }

    pub(crate) fn queue(&self, index: u16, size: u16) -> Queue {
        let entries = u64::from(size);
        Queue {
            ram: self.ram.clone(),
            index,
            size,
            event_idx: self.event_idx,
            descriptors: self.alloc(16 * entries),
            avail: self.alloc(6 + 2 * entries),
            used: self.alloc(6 + 8 * entries),
            doorbell: EventFd::new(EFD_NONBLOCK).unwrap(),
            added: 0,
            told: 0,
            seen: 0,
        }
    }

    /// Starts `device` on `queues`.
    pub(crate) fn start(
        &self,
        device: &mut dyn VirtioDevice,
        features: u64,
        queues: &[&Queue],
    ) -> Box<dyn Worker> {
        let features = features | if self.event_idx { F_EVENT_IDX } else { 0 };
        let queues = queues.iter().map(|queue| queue.active()).collect();
        let start = || Arc::new(DeviceThread::start(device.id(), &PlainThreads).unwrap());
        let threads = (0..device.threads()).map(|_| start()).collect();
        let interrupt = Arc::clone(&self.vector) as Arc<dyn Interrupt>;
        let ram = self.ram.clone();
        device.activate(Activation { ram, features, queues, interrupt, threads }).unwrap()
    }

    /// Returns when one of `queues` has something used, and sleeps until then.
    pub(crate) fn rest(&self, queues: &mut [&mut Queue]) {
        let seen = *self.vector.raised.lock().unwrap();
        queues.iter_mut().for_each(|queue| queue.want_interrupts(true));
        // Either the device sees the wish, or what it has used is seen here (virtio 1.2, 2.7.7.1).
        fence(Ordering::SeqCst);
        if !queues.iter().any(|queue| queue.has_used()) {
            let raised = self.vector.raised.lock().unwrap();
            let waited = self.vector.changed.wait_timeout_while(raised, PATIENCE, |raised| {
                *raised == seen && !self.vector.broken.load(Ordering::SeqCst)
            });
            let late = waited.unwrap().1.timed_out();
            assert!(!late, "no progress: {queues:#?}, {:?}", states(queues));
            assert!(!self.vector.broken.load(Ordering::SeqCst), "the device gave up");
        }
        queues.iter_mut().for_each(|queue| queue.want_interrupts(false));
    }
}

/// Available and used index in memory, and when device and driver want to be told.
fn states(queues: &[&mut Queue]) -> Vec<[u16; 4]> {
    let state = |queue: &&mut Queue| {
        [queue.avail + 2, queue.used + 2, queue.used_event(), queue.avail_event()]
            .map(|at| queue.word(at))
    };
    queues.iter().map(state).collect()
}

/// The driver's side of a queue.
#[derive(Debug)]
pub(crate) struct Queue {
    ram: Ram,
    index: u16,
    pub(crate) size: u16,
    event_idx: bool,
    descriptors: u64,
    avail: u64,
    used: u64,
    doorbell: EventFd,
    added: u16,
    /// How many had been added when the doorbell was last considered.
    told: u16,
    seen: u16,
}

impl Queue {
    fn active(&self) -> ActiveQueue {
        let queue = DeviceQueue::try_from(QueueState {
            max_size: self.size,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: self.event_idx,
            size: self.size,
            ready: true,
            desc_table: self.descriptors,
            avail_ring: self.avail,
            used_ring: self.used,
        });
        let doorbell = self.doorbell.try_clone().unwrap();
        ActiveQueue { index: self.index, queue: queue.unwrap(), doorbell }
    }

    fn word(&self, at: u64) -> u16 {
        self.ram.load(GuestAddress(at), Ordering::Acquire).unwrap()
    }

    fn set_word(&self, at: u64, value: u16) {
        self.ram.store(value, GuestAddress(at), Ordering::Release).unwrap();
    }

    /// Where the driver says when to be interrupted, and the device when to be rung (virtio 1.2, 2.7.6, 2.7.8).
    fn used_event(&self) -> u64 {
        self.avail + 4 + 2 * u64::from(self.size)
    }

    fn avail_event(&self) -> u64 {
        self.used + 4 + 8 * u64::from(self.size)
    }

    /// Writes descriptor `index`: address, length, flags and next.
    pub(crate) fn describe(&self, index: u16, descriptor: (u64, u32, u16, u16)) {
        describe(&self.ram, self.descriptors, index, descriptor);
    }

    /// Makes the chain that starts at `head` available.
    pub(crate) fn add(&mut self, head: u16) {
        let slot = self.avail + 4 + 2 * u64::from(self.added % self.size);
        self.ram.write_obj(head, GuestAddress(slot)).unwrap();
        self.added = self.added.wrapping_add(1);
        self.set_word(self.avail + 2, self.added);
    }

    /// Rings if the device wants to be rung for what was added since the last call (virtio 1.2, 2.7.10).
    pub(crate) fn kick(&mut self) {
        fence(Ordering::SeqCst);
        let new = self.added.wrapping_sub(std::mem::replace(&mut self.told, self.added));
        let wanted = if self.event_idx {
            let event = self.word(self.avail_event());
            new > 0 && self.added.wrapping_sub(event).wrapping_sub(1) < new
        } else {
            self.word(self.used) & 1 == 0
        };
        if wanted {
            self.doorbell.write(1).unwrap();
        }
    }

    fn want_interrupts(&self, wanted: bool) {
        match (self.event_idx, wanted) {
            (true, true) => self.set_word(self.used_event(), self.seen),
            (true, false) => {}
            (false, wanted) => self.set_word(self.avail, u16::from(!wanted)),
        }
    }

    fn has_used(&self) -> bool {
        self.word(self.used + 2) != self.seen
    }

    /// The next used chain: its head and how much of it is written.
    pub(crate) fn take(&mut self) -> Option<(u16, u32)> {
        if !self.has_used() {
            return None;
        }
        let slot = self.used + 4 + 8 * u64::from(self.seen % self.size);
        let [head, len]: [u32; 2] = self.ram.read_obj(GuestAddress(slot)).unwrap();
        self.seen = self.seen.wrapping_add(1);
        Some((u16::try_from(head).unwrap(), len))
    }
}

/// Writes descriptor `index` of the table at `table`.
pub(crate) fn describe(
    ram: &Ram,
    table: u64,
    index: u16,
    (at, len, flags, next): (u64, u32, u16, u16),
) {
    let to = GuestAddress(table + 16 * u64::from(index));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&at.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    ram.write_slice(&bytes, to).unwrap();
}
